"""Which stages of two networks correspond, so that what was found in one can be carried to the other."""

from typing import NamedTuple

from prunas.errors import InputError
from prunas.names import Decision
from prunas.spaces.space import SearchSpace
from prunas.survey import Survey

__all__ = ["Match", "decided", "match"]

_WHAT: dict[Decision, str] = {
    "width": "widths that vary",
    "depth": "blocks that may be removed",
    "kernel": "convolutions",
}


class Match(NamedTuple):
    """Which stages correspond.

    Attributes:
        stages: For each stage of the network that is designed for, the stage of the source.
        note: How they were matched, in one sentence; "" where both networks have the same maps one to one.
    """

    stages: dict[int, int]
    note: str


def decided(space: SearchSpace, decision: Decision) -> list[int]:
    """The stages in which a space has something to decide, ascending."""
    if decision == "width":
        found = {d.stage for d in space.dimensions}
    elif decision == "depth":
        found = {block.stage for block in space.survey.blocks if block.name in space.removable}
    else:
        found = {layer.stage for layer in space.survey.layers if layer.kind == "conv"}
    return sorted(found)


def match(source: SearchSpace, space: SearchSpace, decision: Decision) -> Match:
    """The stage of `source` that each stage of `space` takes its pattern from.

    Where both have as many stages with something to decide, these correspond in their order. Else a stage takes
    the one whose maps have shrunk as much from the input, and stages of the source without a counterpart are
    left out. Layers behind the last map correspond to one another.

    Raises:
        InputError: A stage of `space` has no counterpart; the message says which maps the source has.
    """
    ours, theirs = decided(space, decision), decided(source, decision)
    if not theirs or not ours:
        bare = source if not theirs else space
        raise InputError(f"space {bare.name!r} has no {_WHAT[decision]}, so that nothing can be carried over")
    maps = [[bool(s.survey.stages[stage]) for stage in some] for s, some in ((space, ours), (source, theirs))]
    if maps[0] == maps[1]:
        stages = dict(zip(ours, theirs, strict=True))
        if all(space.survey.stages[o] == source.survey.stages[t] for o, t in stages.items()):
            return Match(stages, "")
        how = "in their order"
    else:
        shrunk = {_shrinkage(source.survey, stage): stage for stage in reversed(theirs)}
        for stage in ours:
            if _shrinkage(space.survey, stage) not in shrunk:
                raise InputError(
                    f"stages of {source.name!r} and {space.name!r} do not correspond: no stage of {source.name!r} "
                    f"with {_WHAT[decision]} has its maps as far shrunk as the {_map(space.survey, stage)} of "
                    f"{space.name!r} (it has {', '.join(_map(source.survey, t) for t in theirs)}); "
                    "choose networks with as many stages, or exclude that stage"
                )
        stages = {stage: shrunk[_shrinkage(space.survey, stage)] for stage in ours}
        how = "by how far their maps have shrunk"
    pairs = ", ".join(f"{_map(source.survey, t)} to {_map(space.survey, o)}" for o, t in stages.items())
    unused = [_map(source.survey, t) for t in theirs if t not in stages.values()]
    rest = f"; {', '.join(unused)} of {source.name} not used" if unused else ""
    return Match(stages, f"stages of {source.name} and {space.name} matched {how}: {pairs}{rest}")


def _shrinkage(survey: Survey, stage: int) -> tuple[int, ...]:
    """Extents of the input over those of a stage's maps; empty for layers behind the last map."""
    size = survey.stages[stage]
    extents = survey.input[len(survey.input) - len(size) :]
    return tuple(round(whole / here) for whole, here in zip(extents, size, strict=True))


def _map(survey: Survey, stage: int) -> str:
    return "x".join(map(str, survey.stages[stage])) or "head"
