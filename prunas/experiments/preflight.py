"""What is looked at before anything is trained: one function for `search`, `transfer`, `train` and their dry runs.

A plan is refused here, with one line, if anything in it could only fail later:

- the space's name cannot name a folder;
- the environment asks for a device, threads or checkpoints that cannot be had;
- the network cannot process a batch, at its dense or at its least widths, in training or in evaluation;
- its output is none that the task can be trained on, or loss and score of a task cannot be computed;
- the data cannot be augmented as the recipe says;
- the dense network is to teach, and the task does not say how outputs are taught;
- the images of a split leave a batch of one, on which batch norm cannot train;
- a proposer cannot be made with its settings, or says itself that it cannot serve the space;
- a target lies below what a proposer can reach by what it decides;
- given weights of the dense network are of a run that is not there, or do not fit;
- runs are in the folder that this version cannot continue, or the space was edited since they began.

The names in a plan and its numbers are checked where they become one: `Recipe`, `Target`, `protocol`, the options
of `prunas.proposers.registry` and `prunas.experiments.plan.make_plan`.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.experiments.plan import Plan
from prunas.experiments.sessions import proposer_of
from prunas.files import names_folder, read_json
from prunas.plugins import foreign_code
from prunas.proposers.brief import Brief, DenseNetwork, Penalty, Pending
from prunas.proposers.entry import Entry
from prunas.runs.store import Store
from prunas.spaces.space import SearchSpace
from prunas.surgery.given import fitted_state
from prunas.tasks.base import Task
from prunas.works.trainings import Setting

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "asks_penalty",
    "bounds_of",
    "check_given",
    "check_setting",
    "check_taught",
    "check_unedited",
    "preflight",
]


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
    if any(how.teacher is not None for how in plan.protocols):
        check_taught(plan.setting)
    for name, line, proposer in served:
        _check_settings(space, name, proposer)
        if not line.answers_found_points:
            _rehearse(plan, proposer)
    if store is not None:
        check_unedited(space, store)
        check_given(plan.setting, store)


def check_given(setting: Setting, store: Store) -> None:
    """Refuses given weights that are not there or do not fit, those of a run included."""
    from prunas.works.runtime import initial

    if setting.dense_from is not None:
        fitted_state(setting.dense_from, initial(setting.space, 0), store.root / setting.space.name)


def check_setting(setting: Setting, *, least: bool = False) -> None:
    """Refuses a network, data, recipe and environment that cannot be trained together.

    Args:
        setting: Space, recipe and data.
        least: Whether points as narrow as the space allows may be trained.

    Raises:
        InputError: The message says what to change.
    """
    import torch

    from prunas.training.feeds import training_feed
    from prunas.training.loop import check_batches
    from prunas.works.runtime import check_environment, task_of

    space = setting.space
    if not names_folder(space.name):
        raise InputError(
            f"space {space.name!r} cannot name the folder of its runs; use letters, digits, and . _ + -"
        )
    check_environment()
    batch = setting.recipe.batch
    task = task_of(setting.task, setting.data_reference, setting.root)
    net = _checked_network(space, space.dense, task, min(2, batch))
    for split, images in setting.images.items():
        check_batches(net, images, batch, split)
    if least and space.dimensions:
        narrowest = space.canonical(space.counted(space.grid([0] * len(space.dimensions))))
        _checked_network(space, narrowest, task, min(2, batch))
    if setting.recipe.augments:
        training_feed(task, setting.recipe, task.members("train")[:batch], torch.device("cpu"))
    if not setting.task.implied:
        _rehearse_task(setting, task, min(2, batch))


def _checked_network(space: SearchSpace, arch: Architecture, task: Task, images: int) -> "nn.Module":
    """The network of a point, once it has given what the task can be trained on in both modes."""
    at = "" if arch == space.dense else f" at its least widths ([vary] floor = {space.floor})"
    try:
        net, outputs = _tried(space, arch, images, (True, False) if task.loss_of_outputs else (False,))
    except InputError:
        raise
    except Exception as error:  # whatever a user's network raises
        why = " ".join(str(error).split())
        raise InputError(
            f"the network of space {space.name!r} cannot process {images} images{at}: "
            f"{type(error).__name__}: {why}"
        ) from error
    for output in outputs:
        if (why_not := task.unfit(output, images)) is not None:
            raise InputError(f"the network of space {space.name!r}{at} {why_not}")
    return net


def _rehearse_task(setting: Setting, task: Task, images: int) -> None:
    """Takes a step with a task and judges the network, on the CPU, and keeps nothing of it."""
    import torch

    from prunas.training.evaluate import Tally
    from prunas.training.step import Forward, Step

    space, cpu = setting.space, torch.device("cpu")
    recipe = setting.recipe.replace(precision="fp32")
    try:
        with torch.random.fork_rng(devices=[]), foreign_code(f"task {task.name!r}"):
            net = space.build()
            feed = task.feed(task.example(images), images, device=cpu)
            draw = next(iter(feed.draws(None)))
            step = Step(net, task, feed.gather, recipe, cpu)
            step(draw)
            loss, _ = step.totals()
            tally = Tally(task, cpu)
            with torch.no_grad():
                tally.add(task.totals(Forward(net.eval(), recipe, cpu), feed.gather(draw)))
            float(task.result(tally.totals()))
    except InputError:
        raise
    except Exception as error:  # whatever a user's task raises
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"task {task.name!r} cannot train the network of space {space.name!r}: {why}"
        ) from error
    if not math.isfinite(loss):
        raise InputError(
            f"task {task.name!r}: the loss of the untrained network of space {space.name!r} is {loss / images}; "
            "look at its targets and its loss"
        )


def check_taught(setting: Setting) -> None:
    """Refuses a task that no network can teach; takes a step with a teacher and keeps nothing of it."""
    import torch

    from prunas.training.distillation import Teacher, taught
    from prunas.works.runtime import task_of

    task = task_of(setting.task, setting.data_reference, setting.root)
    recipe = setting.recipe.replace(precision="fp32")
    with torch.random.fork_rng():
        teacher = Teacher(setting.space.build(), temperature=1.0, weight=0.5)
    learnt = taught(task, teacher, recipe, torch.device("cpu"))
    _rehearse_task(setting, learnt, min(2, recipe.batch))


def _tried(
    space: SearchSpace, arch: Architecture, images: int, modes: Sequence[bool]
) -> "tuple[nn.Module, list[Any]]":
    """A network and its outputs in training (True) and in evaluation; without numbers, unless it reads them."""
    import torch

    from prunas.tracing.example import sample

    def tried(device: "torch.device") -> "tuple[nn.Module, list[Any]]":
        with torch.random.fork_rng(devices=[]), torch.no_grad(), device:
            net = space.build(arch)
            batch = sample(space.survey.called_with, images, device=device)
            return net, [batch.call(net.train(training)) for training in modes]

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


def asks_penalty(plan: Plan, name: str) -> bool:
    """Whether a proposer asks for a dense training with a penalty; trains nothing."""
    penalties: list[Penalty] = []

    def dense(penalty: Penalty | None) -> DenseNetwork:
        penalties.extend([] if penalty is None else [penalty])
        raise Pending

    _rehearse(plan, proposer_of(plan, name)[1], dense)
    return bool(penalties)


def _rehearse(
    plan: Plan, proposer: Any, dense: Callable[[Penalty | None], DenseNetwork] | None = None
) -> None:
    """Asks a proposer without the training it wants: it refuses what it cannot serve, waits, or answers."""
    recipe = plan.setting.recipe
    brief = Brief(
        space=plan.setting.space,
        targets=plan.targets,
        seed=0,
        lr_sum=recipe.lr * recipe.epochs,  # any number above 0: nothing is trained
        momentum=recipe.momentum,
        score=plan.setting.score,
        calibration=lambda images: (),
        dense=dense,
    )
    try:
        proposer.propose(brief, [])
    except InputError:
        raise
    except Exception:  # it waits for a training, or a brief without data is too little for it
        return


def _check_reach(space: SearchSpace, name: str, line: Entry, targets: Sequence[Target]) -> None:
    """Refuses targets below what a proposer can reach by what it decides."""
    if line.answers_found_points:
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


def bounds_of(space: SearchSpace) -> dict[str, Any]:
    """What may vary in a space, as it is written down when its first search begins."""
    return {
        "network": space.survey.fingerprint,
        **{key: list(getattr(space, key)) for key in ("groups", "gates", "blocks", "exclude")},
        "floor": space.floor,
        "step": space.step,
        **({} if space.ceiling == 1 else {"ceiling": space.ceiling}),
    }


def check_unedited(space: SearchSpace, store: Store) -> None:
    """Refuses a space whose file was edited since its first search began.

    The same command would find other points in it than those it had begun to try.

    Raises:
        InputError: It was.
    """
    path = store.root / space.name / "space.json"
    if not path.exists():
        return
    before, bounds = read_json(path), bounds_of(space)
    if not isinstance(before, dict):
        raise InputError(f"{path} is damaged; delete it")
    if edited := [key for key, value in bounds.items() if before.get(key) != value]:
        raise InputError(
            f"space {space.name!r} was edited ({', '.join(edited)}) since searches in {store.root} began; undo "
            "that, give the file another name, or choose another --out"
        )
