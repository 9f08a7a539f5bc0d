"""Trials of several lengths, as Hyperband plans them."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass

__all__ = ["first_lengths"]


def first_lengths(halving: int, shortest: float) -> tuple[float, ...]:
    """Share of the schedule that candidates are first trained for, in turn; Hyperband's numbers of them.

    Li et al., algorithm 1: so many start short that all lengths cost about as much.
    """
    if not halving:
        return (1.0,)
    fractions = [1.0]
    while fractions[-1] / halving > shortest * (1 - 1e-9):
        fractions.append(fractions[-1] / halving)
    count = len(fractions)
    return tuple(
        fractions[s]
        for s in reversed(range(count))
        for _ in range(int(np.ceil(count / (s + 1) * halving**s)))
    )
