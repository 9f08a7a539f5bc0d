"""What methods that rank channels have in common: from scores, or from given widths, to a proposal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prunas import designs
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import FLOOR, TARGET_MISSED
from prunas.proposers.brief import Brief, Proposal
from prunas.spaces.space import SearchSpace
from prunas.survey import ChannelMap, Layer, Span

__all__ = [
    "Choose",
    "Scope",
    "Scores",
    "allocated",
    "at_given_widths",
    "by_unit",
    "capped",
    "comparable",
    "highest",
    "in_order_of",
    "parts",
    "proposal",
    "readers",
    "structure",
    "threshold",
    "weighing",
]

Scope = Literal["global", "isomorphic"]
"""What scores are compared with: everything that varies, or only what has the same structure."""

Scores = list[npt.NDArray[np.float64]]
"""Score of every unit, or input channel, of each dimension of a space, in the order of its dimensions."""

Choose = Callable[[int, npt.NDArray[np.int64], int], npt.NDArray[np.int64]]
"""Which to keep of a dimension: called with its position in the space's dimensions, the units (or dense input
channels) there are, and how many stay (at most all); answers positions among those there are, ascending."""


# Which layers make or read a dimension


def weighing(space: SearchSpace, method: str) -> list[list[Layer]]:
    """The layers whose weights make the units of each dimension, or read the channels of a gate.

    Depthwise convolutions pass channels on: they count for a group only if no other layer does.

    Args:
        space: The space.
        method: Its name, for a message.

    Raises:
        InputError: No convolution or linear layer makes the units of a dimension.
    """
    return _layers_of(space, "writes", f"{method} weighs the layers that make channels")


def readers(space: SearchSpace, method: str) -> list[list[Layer]]:
    """The layers that read the units of each dimension; depthwise ones as in `weighing`.

    Raises:
        InputError: No convolution or linear layer reads a dimension.
    """
    return _layers_of(space, "reads", f"{method} measures the layers that read channels")


def _layers_of(space: SearchSpace, side: Literal["reads", "writes"], rule: str) -> list[list[Layer]]:
    survey = space.survey
    weighted = [layer for layer in survey.layers if layer.kind in ("conv", "linear")]
    layers = []
    for d in space.dimensions:
        if d.kind == "gate":
            layers.append([survey.layer_at[d.name]])
            continue
        index = survey.group_index[d.name]
        there = [n for n in weighted if any(run.group == index for run in survey.forms[getattr(n, side)])]
        if not there:
            raise InputError(
                f"{rule}, and none does for {d.name!r} of space {space.name!r}; "
                "exclude it there, or use a sampler such as tpe"
            )
        layers.append([n for n in there if not n.depthwise] or there)
    return layers


def parts(form: ChannelMap, channels: npt.NDArray[Any]) -> Iterator[tuple[Span, npt.NDArray[Any]]]:
    """Views of the channels of each span of a channel map.

    Args:
        form: The map of the last axis.
        channels: Shape (..., channels).

    Yields:
        Each span and its channels, shape (..., units, repeat).
    """
    offset = 0
    for run in form:
        end = offset + run.length * run.repeat
        yield run, channels[..., offset:end].reshape(*channels.shape[:-1], run.length, run.repeat)
        offset = end


def by_unit(form: ChannelMap, group: int, units: int, channels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Sums over the channels of each unit of a group, shape (..., units); see `parts`."""
    total = np.zeros((*channels.shape[:-1], units))
    for run, part in parts(form, channels):
        if run.group == group:
            total[..., run.start : run.start + run.length] += part.sum(-1)
    return total


# From scores to counts


def capped(space: SearchSpace, scores: Scores) -> Scores:
    """The same scores, but a channel at a gate has at most its stream's: it goes when the stream loses it."""
    survey = space.survey
    streams: dict[int, npt.NDArray[np.float64]] = {}
    limited: Scores = []
    for d, score in zip(space.dimensions, scores, strict=True):  # groups come first
        if d.kind == "group":
            streams[survey.group_index[d.name]] = score
        else:
            score = score.copy()
            for run, part in parts(survey.forms[survey.gate_named[d.name].form], score):
                if run.group in streams:
                    units = streams[run.group][run.start : run.start + run.length]
                    np.minimum(part, units[:, None], out=part)
        limited.append(score)
    return limited


def structure(space: SearchSpace) -> list[tuple[object, ...]]:
    """What each dimension is made of, whatever its width: equal for those of identical structure.

    The role of a group, or that it is a gate, and the layers that write and read it in the order of execution,
    each with its kind, its kernel and whether it is depthwise.
    """
    survey = space.survey
    structures: list[tuple[object, ...]] = []
    for d in space.dimensions:
        if d.kind == "gate":
            reader, norm = survey.layer_at[d.name], survey.gate_named[d.name].norm
            structures.append((d.kind, norm is not None, reader.kind, reader.kernel))
            continue
        index = survey.group_index[d.name]
        touching = [
            (side, layer.kind, layer.kernel, layer.depthwise)
            for layer in survey.layers
            for side in ("reads", "writes")
            if any(run.group == index for run in survey.forms[getattr(layer, side)])
        ]
        structures.append((d.role, *touching))
    return structures


def comparable(space: SearchSpace, scores: Scores, scope: Scope) -> Scores:
    """Scores that one threshold may compare: as they are, or as places among those of the same structure.

    Isomorphic scope (Fang et al., Isomorphic Pruning for Vision Models, ECCV 2024, arXiv:2407.04616): units are
    ranked among dimensions of identical structure alone, and every class of those loses the same share. A unit's
    score becomes the share of its class, in (0, 1], that scores no more; equals keep being equal.

    Departure: the paper compares dependency graphs; here it is what `structure` tells apart.
    """
    if scope == "global":
        return scores
    classes: dict[tuple[object, ...], list[int]] = {}
    for i, of in enumerate(structure(space)):
        classes.setdefault(of, []).append(i)
    places = list(scores)
    for members in classes.values():
        pooled = np.sort(np.concatenate([scores[i] for i in members]))
        for i in members:
            places[i] = np.searchsorted(pooled, scores[i], side="right") / len(pooled)
    return places


def threshold(
    space: SearchSpace, scores: Scores, target: Target, method: str
) -> tuple[npt.NDArray[np.int64], bool]:
    """Counts left by the lowest threshold that meets a budget; strictly greater scores stay.

    Args:
        space: The space.
        scores: Not negative; capped where streams and gates vary, see `capped`.
        target: The budget.
        method: Its name, for a message.

    Returns:
        How many of the highest-scoring units each dimension keeps, shape (dimensions,), and whether the floor
        held any.

    Raises:
        InputError: Even the floor costs more than the budget.
    """
    candidates = np.unique(np.concatenate([[-1.0], *scores]))
    alive = np.array([len(s) - np.searchsorted(np.sort(s), candidates, side="right") for s in scores]).T
    counts = space.grid(alive)

    low, high = 0, len(candidates) - 1  # the cost falls along the candidates: bisect
    if space.measures(counts[high], target.metric)[0] > target.value:
        raise InputError(f"{method} cannot meet {target.label} of {target.metric} in space {space.name!r}")
    while low < high:
        middle = (low + high) // 2
        if space.measures(counts[middle], target.metric)[0] <= target.value:
            high = middle
        else:
            low = middle + 1
    return counts[high], bool((counts[high] > alive[high]).any())


# From counts to proposals


def highest(scores: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Where the `count` highest scores are, ascending; of equals the first stay."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def in_order_of(scores: Scores) -> Choose:
    """Keeps the highest scores."""
    return lambda dimension, there, count: highest(scores[dimension][there], count)


def proposal(
    space: SearchSpace,
    counts: npt.NDArray[np.int64],
    choose: Choose,
    target: Target,
    run: str,
    removed: Sequence[str] = (),
) -> Proposal:
    """The proposal that keeps so many of each dimension, flagged if it misses its target.

    Args:
        space: The space.
        counts: Shape (dimensions,), allowed by the space.
        choose: Which ones stay.
        target: The budget it answers.
        run: The run the weights come from.
        removed: Blocks without their branch.
    """
    survey = space.survey
    kept: dict[str, tuple[int, ...]] = {}
    selected: dict[str, list[int]] = {}
    units = [np.arange(group.units) for group in survey.groups]
    for i, (d, count) in enumerate(zip(space.dimensions, counts.tolist(), strict=True)):
        if d.kind == "group":
            stay = choose(i, np.arange(d.dense), count)
            units[survey.group_index[d.name]] = stay
            kept[d.name] = tuple(stay.tolist())
        else:  # groups come first, so that it is known here what is left of a gate's input
            there = survey.positions(survey.gate_named[d.name].form, units)
            selected[d.name] = choose(i, there, min(count, len(there))).tolist()
    arch = space.point({name: len(stay) for name, stay in kept.items()}, selected, removed)
    flags = (TARGET_MISSED,) if designs.missed(space, arch, target) else ()
    return Proposal(target, arch, flags, kept, run)


def allocated(
    brief: Brief, scores: Scores, choose: Choose, run: str, method: str, scope: Scope = "global"
) -> list[Proposal]:
    """For every target the proposal of one threshold over all that varies, flagged `floor` where that held.

    Args:
        brief: What is asked.
        scores: Not negative and comparable over dimensions; see `capped`, which is applied here.
        choose: Which ones stay, once it is known how many.
        run: The run the weights come from.
        method: Its name, for a message.
        scope: What is compared, see `comparable`.

    Raises:
        InputError: A target lies below the floor.
    """
    limited = capped(brief.space, comparable(brief.space, capped(brief.space, scores), scope))
    proposals = []
    for target in brief.targets:
        counts, floored = threshold(brief.space, limited, target, method)
        made = proposal(brief.space, counts, choose, target, run)
        proposals.append(replace(made, flags=(FLOOR, *made.flags)) if floored else made)
    return proposals


def at_given_widths(brief: Brief, preset: str | None, choose: Choose, run: str) -> list[Proposal]:
    """The user's widths with the method's channels: uniform at every target, or one preset.

    Args:
        brief: What is asked.
        preset: Name of a preset; its own cost is then the target of the only proposal.
        choose: Which ones stay.
        run: The run the weights come from.

    Raises:
        InputError: There is no such preset.
    """
    space = brief.space
    asked: list[tuple[Target, Architecture]] = [(t, designs.uniform(space, t)) for t in brief.targets]
    if preset is not None:
        arch = space.preset(preset).architecture
        metric = brief.targets[0].metric if brief.targets else space.study.metric
        asked = [(Target(metric, space.measure(arch, metric)), arch)]
    return [proposal(space, space.counts(a), choose, target, run, a.removed) for target, a in asked]
