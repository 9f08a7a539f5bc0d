"""Whether a proposer can serve a network, asked before anything is trained; and if not, which can."""

import math

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import READS_WEIGHTS, SEARCHERS
from prunas.proposers.brief import Brief, Pending
from prunas.proposers.registry import entry, installed_proposers
from prunas.spaces.space import SearchSpace

__all__ = ["check_served", "refusal", "serving"]


def refusal(name: str, space: SearchSpace, decides: str | None = None) -> str | None:
    """Why a proposer cannot serve a space, or None if it can.

    What it decides must vary there. A method that wants a dense training is asked for its points without one: it
    refuses an unfit network, or waits.
    """
    line = entry(name)
    survey = space.survey
    match decides or line.dimensions[0]:
        case "width" if not space.dimensions:
            return "it decides widths, and " + (
                "none vary there (see its [vary])" if survey.groups else "none can vary there"
            )
        case "width" if len(space.dimensions) < line.least:
            return f"it decides at least {line.least} dimensions, one after another, and 1 varies there"
        case "depth" if not space.removable:
            return "it removes residual branches, and " + (
                "none vary there (see its [vary])" if survey.blocks else "there are none"
            )
        case "kernel" if not any(math.prod(at.kernel) > 1 for at in survey.layers if at.kind == "conv"):
            return "it decides which positions of a kernel exist, and no kernel there is larger than 1x1"
    if not READS_WEIGHTS & set(line.needs):
        return None
    unpruned = Target("params", space.measure(space.dense, "params"))
    try:
        line.build().propose(Brief(space, (unpruned,), 0, lr_sum=1.0, calibration=lambda images: ()), [])
    except Pending:
        return None
    except InputError as error:
        return str(error)
    return None


def serving(space: SearchSpace) -> list[str]:
    """The methods and samplers that can serve a space."""
    lines = installed_proposers()[0]
    return [name for name, line in lines.items() if line.kind in SEARCHERS and refusal(name, space) is None]


def check_served(name: str, space: SearchSpace, decides: str | None = None) -> None:
    """Refuses a proposer that cannot serve a space.

    Args:
        name: The proposer.
        space: The space.
        decides: Width, depth or kernel, if it is not the first of what it can decide.

    Raises:
        InputError: It cannot; the message says why, and which methods can.
    """
    why = refusal(name, space, decides)
    if why is not None:
        able = serving(space)
        raise InputError(
            f"{name!r} cannot serve space {space.name!r}: {why}; "
            + (f"these can: {', '.join(able)}" if able else "no method can")
        )
