"""Widths rounded to multiples, and the shape fitted again."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from prunas.architecture import Architecture
from prunas.errors import InputError, unknown
from prunas.spaces.presets import evenly_spaced
from prunas.spaces.space import SearchSpace

__all__ = ["Rounding", "align"]


Rounding = Literal["nearest", "up", "down"]
"""Where `align` moves a width: to the nearest multiple (of two equally near, the larger), or only up, or down."""


def align(space: SearchSpace, arch: Architecture, to: int, mode: Rounding = "nearest") -> Architecture:
    """The same shape with widths that devices like: multiples of 8 or 16, say.

    A layer is given a multiple of `to` channels, at least one such multiple and never more than the space allows
    it; tied layers move together. The dense width counts as aligned even where it is no multiple, as
    it does for a space's `step`, so that `up` may end there. Layers that are not narrowed stay dense, and layers
    whose dense width is below `to` stay as they are: no width of theirs is aligned. A gate's number of passing
    channels is aligned alike. Where it changes, channels are dropped or added evenly; which channels pass is
    carried over to inputs whose own width changes.

    Nothing is fitted: the cost moves with the widths. Aligning an aligned shape changes nothing.

    Args:
        space: The space.
        arch: A checked point.
        to: Channels.
        mode: Where a width between two multiples goes. Under `down`, what lies below the smallest one still goes
            up to it.

    Raises:
        InputError: `to` is below 1, the mode is unknown, or the point has exact kernel masks, which fit no other
            width.
    """
    if to < 1:
        raise InputError(f"widths cannot be aligned to {to}; 8 and 16 are usual")
    if mode not in get_args(Rounding):
        raise unknown("way of aligning", mode, get_args(Rounding))
    survey = space.survey
    widths = {}
    for name, units in arch.widths:
        group = survey.groups[survey.group_index[name]]
        step = math.lcm(to // math.gcd(to, group.unit), space.step)  # a unit may be several channels
        widths[name] = _aligned(units, group.units, step, space.floor, mode, space.widest[name])
    before, after = space.costs.widths(arch), space.costs.widths(space.point(widths))
    selected: dict[str, list[int]] = {}
    if any(units > survey.groups[survey.group_index[name]].units for name, units in arch.widths):
        inputs = space.gate_inputs(space.point(widths))  # what is wider inherits no channels
        for name, positions in arch.selected:
            step = math.lcm(to, space.step)
            count = _aligned(min(len(positions), inputs[name]), inputs[name], step, space.floor, mode)
            selected[name] = evenly_spaced(count, inputs[name])
        return space.point(widths, selected, arch.removed, arch.kernels)
    for name, positions in arch.selected:
        form = survey.gate_named[name].form
        was, now = (survey.positions(form, [np.arange(n) for n in units]) for units in (before, after))
        passing = np.flatnonzero(np.isin(now, was[list(positions)])).tolist()
        count = _aligned(len(positions), len(now), math.lcm(to, space.step), space.floor, mode)
        selected[name] = _resized(passing, count, len(now))
    return space.point(widths, selected, arch.removed, arch.kernels)


def _aligned(width: int, dense: int, step: int, floor: int, mode: Rounding, most: int = 0) -> int:
    """The width that `align` gives a layer, at most `most` or dense; see there."""
    most = max(most, dense)
    if width == dense or dense < step:
        return min(width, most)
    width = min(width, most)
    allowed: list[int] = sorted(n for n in {*range(step, most + 1, step), dense} if n >= floor)
    below = max((n for n in allowed if n <= width), default=allowed[0])
    above = min((n for n in allowed if n >= width), default=allowed[-1])
    if mode == "nearest":
        return below if width - below < above - width else above
    return below if mode == "down" else above


def _resized(positions: Sequence[int], count: int, channels: int) -> list[int]:
    """`count` of so many channels: those of `positions` as far as possible, else evenly spread."""
    if count <= len(positions):
        return [positions[i * len(positions) // count] for i in range(count)]
    rest = sorted(set(range(channels)) - set(positions))
    missing = count - len(positions)
    return sorted([*positions, *(rest[i * len(rest) // missing] for i in range(missing))])
