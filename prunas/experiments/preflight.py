"""What is looked at before anything is trained: one function for `search`, `transfer`, `train` and their dry runs.

A plan is refused here, with one line, if anything in it could only fail later:

- the space's name cannot name a folder, or another process cannot make its network;
- the environment asks for a device, threads or checkpoints that cannot be had;
- the network cannot process a batch, at its dense or at its least widths, in training or in evaluation;
- its output is not one number per image and class;
- the images of a split leave a batch of one, on which batch norm cannot train;
- a proposer cannot be made with its settings, or says itself that it cannot serve the space;
- a target lies below what a proposer can reach by what it decides;
- runs are in the folder that this version cannot continue, or the space was edited since they began.

The names in a plan and its numbers are checked where they become one: `Recipe`, `Target`, `protocol`, the options
of `prunas.proposers.registry` and `prunas.experiments.plan.make_plan`.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.experiments.search import Plan, check_unedited, proposer_of
from prunas.files import names_folder
from prunas.proposers.brief import Brief
from prunas.proposers.entry import Entry
from prunas.runs.store import Store
from prunas.spaces.space import SearchSpace
from prunas.works.trainings import Setting

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["check_setting", "preflight"]

ANSWERS_OTHERS = frozenset(("found", "found-by-all", "source"))


def preflight(plan: Plan, store: Store | None = None) -> None:
    """Refuses a plan that could only fail once trainings are under way; trains and writes nothing.

    Args:
        plan: What is to be done.
        store: Where runs would live, if that is known.

    Raises:
        InputError: The message says what to change.
    """
    space = plan.setting.space
    served = [(name, *proposer_of(plan, name)) for name in plan.proposers]
    for name, line, _ in served:
        _check_reach(space, name, line, plan.targets)
    check_setting(plan.setting, least="width" in {line.dimensions[0] for _, line, _ in served})
    for name, line, proposer in served:
        _check_settings(space, name, proposer)
        if not ANSWERS_OTHERS & set(line.needs):
            _rehearse(plan, proposer)
    if store is not None:
        check_unedited(space, store)


def check_setting(setting: Setting, *, least: bool = False) -> None:
    """Refuses a network, data, recipe and environment that cannot be trained together.

    Args:
        setting: Space, recipe and data.
        least: Whether points as narrow as the space allows may be trained.

    Raises:
        InputError: The message says what to change.
    """
    from prunas.data import load
    from prunas.training.loop import check_batches
    from prunas.works.runtime import check_environment

    space = setting.space
    if not names_folder(space.name):
        raise InputError(
            f"space {space.name!r} cannot name the folder of its runs; use letters, digits, and . _ + -"
        )
    _ = space.reference  # refuses a network that another process cannot make
    check_environment()
    batch = setting.recipe.batch
    net = _checked_network(space, space.dense, load(setting.data).classes, min(2, batch))
    for split, images in setting.images.items():
        check_batches(net, images, batch, split)
    if least and space.dimensions:
        narrowest = space.canonical(space.counted(space.grid([0] * len(space.dimensions))))
        _checked_network(space, narrowest, load(setting.data).classes, min(2, batch))


def _checked_network(space: SearchSpace, arch: Architecture, classes: int, images: int) -> "nn.Module":
    """The network of a point, once it has given one number per image and class in both modes."""
    import torch

    at = "" if arch == space.dense else f" at its least widths ([vary] floor = {space.floor})"
    try:
        net, outputs = _tried(space, arch, images)
    except InputError:
        raise
    except Exception as error:  # whatever a user's network raises
        why = " ".join(str(error).split())
        raise InputError(
            f"the network of space {space.name!r} cannot process {images} images{at}: "
            f"{type(error).__name__}: {why}"
        ) from error
    for output in outputs:
        if not isinstance(output, torch.Tensor):
            raise InputError(
                f"the network of space {space.name!r} returns a {type(output).__name__}{at}; a tensor with a "
                "number per image and class can be trained"
            )
        if output.ndim != 2 or len(output) != images:
            raise InputError(
                f"the network of space {space.name!r} returns a tensor of shape {tuple(output.shape)} for "
                f"{images} images{at}; {classes} numbers per image can be trained, one per class"
            )
        if output.shape[1] < classes:
            raise InputError(
                f"the network of space {space.name!r} has {output.shape[1]} outputs{at}, and its data have "
                f"{classes} classes; give its factory as many, as in arguments = {{ classes = {classes} }}"
            )
    return net


def _tried(space: SearchSpace, arch: Architecture, images: int) -> "tuple[nn.Module, list[Any]]":
    """A network and its outputs in training and in evaluation; without numbers, unless it reads them."""
    import torch

    def tried(device: "torch.device") -> "tuple[nn.Module, list[Any]]":
        with torch.random.fork_rng(devices=[]), torch.no_grad(), device:
            net = space.build(arch)
            batch: Tensor = torch.zeros(images, *space.survey.input)
            return net, [net.train(training)(batch) for training in (True, False)]

    with suppress(Exception):  # some networks read values of their tensors
        return tried(torch.device("meta"))
    return tried(torch.device("cpu"))


def _check_settings(space: SearchSpace, name: str, proposer: Any) -> None:
    """Refuses a preset that is not there, before the dense network is trained for it."""
    preset = getattr(proposer, "preset", None)
    if isinstance(preset, str):
        try:
            space.preset(preset)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error


def _rehearse(plan: Plan, proposer: Any) -> None:
    """Asks a proposer without the training it wants: it refuses what it cannot serve, waits, or answers."""
    recipe = plan.setting.recipe
    brief = Brief(
        space=plan.setting.space,
        targets=plan.targets,
        seed=0,
        lr_sum=recipe.lr * recipe.epochs,  # any number above 0: nothing is trained
        momentum=recipe.momentum,
        calibration=lambda images: (),
    )
    try:
        proposer.propose(brief, [])
    except InputError:
        raise
    except Exception:  # it waits for a training, or a brief without data is too little for it
        return


def _check_reach(space: SearchSpace, name: str, line: Entry, targets: Sequence[Target]) -> None:
    """Refuses targets below what a proposer can reach by what it decides."""
    if ANSWERS_OTHERS & set(line.needs):
        return
    for target in targets:
        least = _least(space, line.dimensions[0], target.metric)
        if target.value < least:
            raise InputError(
                f"{name!r} decides {line.dimensions[0]} alone and cannot reach {target.label} of {target.metric} "
                f"in space {space.name!r}, {target.value:,}: {least:,} is the least; ask for more"
            )


def _least(space: SearchSpace, decides: str, metric: str) -> int:
    """The smallest cost that one dimension can reach, 0 if only the method knows."""
    if decides == "depth":
        return space.measure(space.point(removed=space.removable), metric)
    if decides == "width":
        narrowest = space.counted(space.grid([0] * len(space.dimensions)))
        return space.measure(space.canonical(narrowest), metric)
    return 0
