"""Widths above those of the network that a space is made of.

A cost is a polynomial of the widths, and a layer is constructed at whatever width it is given, so that nothing but
the network itself says whether it can be wider. So the network at the upper bound is surveyed like any other: then
every point below it is one of its narrowed networks, which that survey has verified. It must be the same survey
with other sizes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from prunas.costs.counted import CostModel
from prunas.errors import InputError
from prunas.survey import Survey

if TYPE_CHECKING:
    from torch import nn

    from prunas.spaces.space import SearchSpace

__all__ = ["check_wider"]


def check_wider(
    space: "SearchSpace", surveyed: Callable[[Callable[[], "nn.Module"], Sequence[int]], Survey]
) -> None:
    """Refuses a space whose network cannot have the widths that its ceiling allows.

    Args:
        space: The space; one with a ceiling of 1 is let pass.
        surveyed: Surveys a network of the same inputs, or fetches the survey; called with a factory and the
            widths of the groups that it makes.

    Raises:
        InputError: A wider network fails, or is another one; the message says where that shows.
    """
    if space.ceiling == 1:
        return
    survey = space.survey
    widths = [space.widest.get(group.name, group.units) for group in survey.groups]
    try:
        why = _difference(survey, surveyed(partial(_widened, space.factory, survey, widths), widths), widths)
    except InputError as error:
        why = str(error)
    if why:
        raise InputError(
            f"space {space.name!r}: its network cannot be {space.ceiling:g} times as wide: {why}; exclude what "
            "cannot widen, or leave [vary] ceiling at 1 and start from a wider network"
        )


def _widened(factory: Callable[[], "nn.Module"], survey: Survey, widths: Sequence[int]) -> "nn.Module":
    """A factory of the network at other widths. A module-level function, so that a partial of it pickles."""
    from prunas.surgery.assemble import shrink

    return shrink(factory, survey, widths)


def _difference(survey: Survey, wider: Survey, widths: Sequence[int]) -> str:
    """What shows that a wider network is not the surveyed one with other widths; empty if it is that one."""
    have = {group.name: group.units for group in wider.groups}
    for group, width in zip(survey.groups, widths, strict=True):
        if have.get(group.name) != width:
            return f"{group.name!r} would have {have.get(group.name, 'no')} units that vary, not {width}"
    for what in ("gates", "blocks"):
        names, others = ({part.name for part in getattr(made, what)} for made in (survey, wider))
        if names ^ others:
            return f"{min(names ^ others)!r} would not be there in both"
    dense = [group.units for group in wider.groups]
    for layer, other in zip(survey.layers, wider.layers, strict=True):
        sizes = [survey.size(form, widths) for form in (layer.reads, layer.writes)]
        if sizes != [wider.size(form, dense) for form in (other.reads, other.writes)]:
            return f"{layer.path!r} would have other sizes"
    if _cost(survey, widths) != _cost(wider, dense):
        return "it would cost something else"
    return ""


def _cost(survey: Survey, widths: Sequence[int]) -> list[int]:
    return [int(column[0]) for column in CostModel(survey).table([widths])]
