"""Widths per layer over several searches, as in table 8 of the study (arXiv:1810.05270), and their agreement."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from statistics import fmean
from typing import Any

import numpy as np

from prunas.costs.target import Target
from prunas.statistics.claims import controls_of, jointly, judge
from prunas.statistics.inference import LEVEL, SHARE_DIFFERENCE
from prunas.statistics.summary import Summary, grouped, summarise
from prunas.statistics.text import Table, asked_text, interval_text

__all__ = ["Agreement", "WidthSpread", "agreed", "agreement", "agreement_table", "width_spread"]

Shapes = Mapping[int, Sequence[Sequence[float]]]
"""Widths of the points of each search seed, shape (points, layers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthSpread:
    """What one proposer's searches agree on, and what they do not.

    The sequences have one entry per layer.

    Attributes:
        proposer: Who proposed the points.
        asked: Their target.
        n: Number of points.
        dense: Widths of the dense network.
        mean: Mean width.
        std: Standard deviation of the width over the points, with n - 1 in the denominator; 0 for n = 1.
        ratio: Spread between seeds over spread between layers, see `width_spread`; None for n = 1, or where all
            layers keep the same share.
    """

    proposer: str
    asked: Target
    n: int
    dense: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ratio: float | None

    @property
    def shares(self) -> tuple[float, ...]:
        """Mean width over dense width of every layer."""
        return tuple(mean / dense for mean, dense in zip(self.mean, self.dense, strict=True))


def width_spread(
    proposer: str, asked: Target, points: Sequence[Sequence[float]], dense: Sequence[int]
) -> WidthSpread:
    """Mean and spread of the widths of points found by searches with different seeds.

    `ratio` compares shares (width over dense width): the root mean square over layers of their standard deviation
    between seeds, over the standard deviation between layers of their mean. Near 0 the searches agree on a
    profile, at 1 and above their differences are as large as the profile itself.

    Args:
        proposer: Who proposed the points.
        asked: Their target.
        points: Widths of each point, shape (points, layers).
        dense: Widths of the dense network, shape (layers,).
    """
    table = np.asarray(points, float)
    several = len(table) > 1
    std = table.std(axis=0, ddof=1) if several else np.zeros(table.shape[1])
    shares = table / np.asarray(dense)
    ratio = None
    if several and len(dense) > 1:
        between_layers = shares.mean(axis=0).std(ddof=1)
        between_seeds = np.sqrt(np.mean(shares.var(axis=0, ddof=1)))
        ratio = float(between_seeds / between_layers) if between_layers > 1e-12 else None
    return WidthSpread(
        proposer=proposer,
        asked=asked,
        n=len(table),
        dense=tuple(dense),
        mean=tuple(table.mean(axis=0).tolist()),
        std=tuple(std.tolist()),
        ratio=ratio,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Whether the searches of one proposer resemble each other more than what another proposes.

    A distance between two shapes is the mean over layers of |difference of widths| / dense width, in [0, 1].

    Attributes:
        proposer: Whose searches.
        against: Compared with whose points at the same target.
        asked: The target.
        seeds: The search seeds both have, ascending; at least two.
        own: Mean distance between the proposer's points of different seeds.
        other: Mean distance from them to the other's points, of different seeds again.
        margin: `other` - `own`, above 0 where the seeds agree with each other more than with the other. Its
            interval is the t interval of the jackknife over seeds (Arvesen 1969), for pairs that share a seed are
            not independent; two seeds have none.
    """

    proposer: str
    against: str
    asked: Target
    seeds: tuple[int, ...]
    own: float
    other: float
    margin: Summary

    def to_json(self) -> dict[str, Any]:
        """One record; distances are fractions of dense widths."""
        return asdict(self) | {"asked": self.asked.to_json(), "seeds": list(self.seeds)}


def agreement(
    proposer: str, against: str, asked: Target, points: Shapes, others: Shapes, dense: Sequence[int]
) -> Agreement | None:
    """How much more the points of a proposer agree with each other than with another's.

    Args:
        proposer: Whose searches.
        against: Compared with whom.
        asked: The target of both.
        points: Of the proposer; a search with several points counts as their mean.
        others: Of the other; of a proposer without chance, the same for every seed.
        dense: Widths of the dense network, shape (layers,).

    Returns:
        The numbers, or None with fewer than two seeds in common.
    """
    seeds = sorted(points.keys() & others.keys())
    if len(seeds) < 2:
        return None
    mine, theirs = (
        {seed: np.asarray(some[seed], float) / np.asarray(dense) for seed in seeds}
        for some in (points, others)
    )
    own, other = (
        {(i, j): float(np.abs(mine[i][:, None] - to[j][None]).mean()) for i, j in permutations(seeds, 2)}
        for to in (mine, theirs)
    )

    def margin(some: Sequence[int]) -> float:
        return fmean(other[pair] - own[pair] for pair in permutations(some, 2))

    n, whole = len(seeds), margin(seeds)
    if n > 2:
        without = [margin([other for other in seeds if other != seed]) for seed in seeds]
        # The mean of these is `whole`.
        spread = summarise([n * whole - (n - 1) * rest for rest in without], SHARE_DIFFERENCE)
    else:
        spread = Summary(mean=whole, std=None, n=n, low=None, high=None)
    return Agreement(
        proposer=proposer,
        against=against,
        asked=asked,
        seeds=tuple(seeds),
        own=fmean(own.values()),
        other=fmean(other.values()),
        margin=spread,
    )


def agreed(agreements: Sequence[Agreement]) -> dict[str, str]:
    """Whether the searches of each proposer agree on more than they would without what they find by, in words.

    They do if at every target they resemble each other more than the uniform shape, and more than the shapes of a
    control that has everything but the cause: see `prunas.statistics.claims.controls_of`. Searches that all find
    the initialisation agree too, and so do tapers.

    Args:
        agreements: Of any proposers; only those against uniform and against controls of the proposer count.
    """
    words = {}
    for proposer, own in grouped(agreements, lambda each: each.proposer).items():
        wanted = {"uniform", *controls_of(proposer)}
        compared = [each for each in own if each.against in wanted]
        margins = [judge(each.margin, "more", 0.0) for each in compared]
        targets = {each.asked for each in compared}
        controlled = {each.asked for each in compared if each.against != "uniform"}
        said = jointly(margins) if margins else "undecided"
        if said != "fails" and controlled != targets:
            words[proposer] = "undecided, control not run"
        elif margins:
            words[proposer] = said
    return words


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """One row per target and pair of proposers; distances in percent of dense widths."""
    rows = [
        (
            *(asked_text(each.asked), each.proposer, each.against, str(len(each.seeds))),
            *(f"{100 * value:.2f}" for value in (each.own, each.other)),
            f"{100 * each.margin.mean:+.2f}",
            interval_text(each.margin, "+", 100),
        )
        for each in agreements
    ]
    said = "; ".join(f"{proposer}: {words}" for proposer, words in agreed(agreements).items())
    notes = [
        "Mean distance between shapes in percent of dense widths. A margin above 0: searches with different seeds "
        "agree with each other more than with the other's shapes; interval by jackknife over seeds."
    ]
    if said:
        notes.append(
            "That searches agree because of what they find by holds if every margin is above 0, at every target, "
            f"against uniform and against the same method without its penalty or training. {said}."
        )
    return Table(
        columns=(
            *("asked", "proposer", "against", "n", "between seeds %", "to the other %", "margin"),
            f"{100 * LEVEL:.0f} % interval",
        ),
        align="lllrrrrl",
        rows=tuple(rows),
        notes=tuple(notes),
    )
