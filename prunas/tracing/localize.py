"""Fault localization: which groups or gates make a narrowed network fail.

A network fails at one place at a time, and what meets there is at fault, rarely anything else. So the point is
tried again without the nearest candidates, until it passes; halves are tried only where the place says nothing, as
in delta debugging (Zeller and Hildebrandt, 2002).
"""

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from torch import fx, nn

from prunas.survey import FIXED, Survey
from prunas.tracing.labels import vectors
from prunas.tracing.ledger import NOTHING, Grouping
from prunas.tracing.propagate import LabelPass

__all__ = ["Narrowable", "Nearness", "failure_inducing", "near_error", "near_layers", "near_node"]

Narrowable = int | str
"""The index of a group, or the name of a gate."""

Nearness = tuple[tuple[Narrowable, ...], ...]
"""Candidates in the order of their distance from a place, those of one distance together."""


class Placed(Protocol):
    """A failure that knows what is near to its place."""

    @property
    def near(self) -> Nearness:
        """The candidates, nearest first; none if the place says nothing."""


F = TypeVar("F", bound=Placed)


def near_node(dense: LabelPass, grouping: Grouping, draft: Survey, name: str) -> Nearness:
    """What is near to a node of the dense graph.

    What its operands carry, then what theirs do, within its module; then whatever belongs to this module; and the
    same for every module around it.

    Args:
        dense: The pass over the graph.
        grouping: What its labels condense to.
        draft: The survey with the gates.
        name: Of the node.
    """
    axes = {axis: labels for axis, labels in dense.ledger.axes.items() if len(labels)}
    group_of = np.full(max((int(labels.max()) for labels in axes.values()), default=0) + 1, FIXED)
    for axis, labels in axes.items():
        group_of[labels] = grouping.axes[axis][0]
    start = next(node for node in dense.graph.nodes if node.name == name)
    levels: list[Iterable[Narrowable]] = []
    for module in reversed(_modules_of(start)):
        seen, frontier = {start}, [start]
        while frontier:
            carried = [labels for node in frontier for labels in vectors(dense.labels.get(node))]
            groups = [np.unique(group_of[labels[labels < len(group_of)]]).tolist() for labels in carried]
            levels.append([group for row in groups for group in row])
            inside = [node for node in frontier if module in _modules_of(node)]
            frontier = list(dict.fromkeys(b for n in inside for b in n.all_input_nodes if b not in seen))
            seen.update(frontier)
        levels.append(_within(module, grouping, draft))
    return _ordered(levels)


def _modules_of(node: fx.Node) -> list[str]:
    """Module paths of the modules in which a node runs, outermost first, but for the network itself."""
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return list(dict.fromkeys(path for path in (*paths, *_called(node)) if path))


def _called(node: fx.Node) -> tuple[str, ...]:
    return (str(node.target),) if node.op == "call_module" else ()


def near_layers(nested: Sequence[Sequence[str]], grouping: Grouping, draft: Survey) -> Nearness:
    """The channels and gates of some layers.

    Args:
        nested: Module paths, those nearest to the place first.
        grouping: What the labels condense to.
        draft: The survey with the gates.
    """
    within = [
        [candidate for layer in layers for candidate in _within(layer, grouping, draft)] for layers in nested
    ]
    return _ordered(within)


def near_error(
    error: BaseException | None, paths: Mapping[int, str], grouping: Grouping, draft: Survey
) -> Nearness:
    """The channels and gates of the layers in the modules whose code raised an error, innermost module first.

    Args:
        error: What was raised.
        paths: Module paths of layers by their identity.
        grouping: What the labels condense to.
        draft: The survey with the gates.
    """
    frames: list[types.FrameType] = []
    traceback = error.__traceback__ if error else None
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    nested = []
    for frame in reversed(frames):
        modules = [value for value in frame.f_locals.values() if isinstance(value, nn.Module)]
        inside = [[paths[id(m)] for m in module.modules() if id(m) in paths] for module in modules]
        nested += sorted(filter(None, inside), key=len)
    return near_layers(nested, grouping, draft)


def _within(module: str, grouping: Grouping, draft: Survey) -> list[Narrowable]:
    """The gates of a module, and the channels of its layers, tensors and attributes."""

    def inside(path: str) -> bool:
        return path == module or path.startswith(f"{module}.")

    groups = [row for (owner, _), (row, _) in grouping.axes.items() if inside(owner)]
    gates = [gate for gate in draft.gate_named if inside(gate)]
    return [*gates, *np.unique(np.concatenate([NOTHING, *groups])).tolist()]


def _ordered(levels: Iterable[Iterable[Narrowable]]) -> Nearness:
    """The levels, each candidate where it occurs first."""
    seen: set[Narrowable] = {FIXED}
    nearness = []
    for level in levels:
        fresh = tuple(candidate for candidate in dict.fromkeys(level) if candidate not in seen)
        seen.update(fresh)
        if fresh:
            nearness.append(fresh)
    return tuple(nearness)


def failure_inducing(
    fails: Callable[[Sequence[Narrowable]], F | None],
    candidates: Sequence[Narrowable],
    names: Mapping[Narrowable, str],
    failed: F,
) -> dict[Narrowable, F]:
    """The candidates without which a point passes, each with its failure; every other one passes beside the rest.

    Args:
        fails: The failure of a point in which only some of the candidates are narrow.
        candidates: All of them.
        names: Of each; those that differ in numbers only are tried together, as they tend to share their fate.
        failed: The failure of all together.
    """
    failing: dict[Narrowable, F] = {}
    _divide(fails, [], list(candidates), names, failed, failing)
    return failing


def _divide(
    fails: Callable[[Sequence[Narrowable]], F | None],
    passing: list[Narrowable],
    candidates: list[Narrowable],
    names: Mapping[Narrowable, str],
    failed: F,
    failing: dict[Narrowable, F],
) -> None:
    """Enters every candidate among the passing, which pass together, or the failing; all together fail."""
    if len(candidates) == 1:
        failing[candidates[0]] = failed
        return
    remaining, undecided = candidates, list[Narrowable]()
    failure: F | None = failed
    while failure is not None and (nearest := _nearest(failure.near, remaining)):
        remaining = [candidate for candidate in remaining if candidate not in nearest]
        after = fails([*passing, *remaining]) if passing or remaining else None
        if len(nearest) == 1 and (after is None or after.near != failure.near):
            failing[nearest[0]] = failure
        else:
            undecided += nearest
        failure = after
    parts = list(_by_kind(undecided, names).values())
    if failure is None:
        passing += remaining
    else:  # its place says nothing
        parts += _halves(remaining)
    if len(parts) == 1 and len(parts[0]) == len(candidates):
        parts = _halves(candidates)
    for part in filter(None, parts):
        again = fails([*passing, *part])
        if again is None:
            passing += part
        else:
            _divide(fails, passing, part, names, again, failing)


def _nearest(near: Nearness, candidates: Sequence[Narrowable]) -> list[Narrowable]:
    """The nearest of some candidates; none if the place knows none of them, or more than half at once."""
    among = set(candidates)
    nearest = next((some for level in near if (some := [s for s in level if s in among])), [])
    return nearest if len(nearest) == 1 or 2 * len(nearest) <= len(candidates) else []


def _by_kind(
    candidates: Sequence[Narrowable], names: Mapping[Narrowable, str]
) -> dict[str, list[Narrowable]]:
    """Candidates by their names without numbers."""
    kinds: dict[str, list[Narrowable]] = {}
    for candidate in candidates:
        kinds.setdefault(re.sub(r"\d+", "", names[candidate]), []).append(candidate)
    return kinds


def _halves(candidates: Sequence[Narrowable]) -> list[list[Narrowable]]:
    return [list(candidates[: len(candidates) // 2]), list(candidates[len(candidates) // 2 :])]
