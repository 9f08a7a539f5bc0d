"""Options that several commands share, and what their texts mean."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from prunas.errors import InputError, unknown
from prunas.names import METRIC_NAMES
from prunas.recipe import PRECISIONS, Recipe

if TYPE_CHECKING:
    from prunas.designs.align import Rounding
    from prunas.spaces.space import SearchSpace

__all__ = [
    "Align",
    "Batch",
    "Budget",
    "ChannelsLast",
    "Data",
    "Deterministic",
    "Download",
    "Eager",
    "Epochs",
    "ExecutorName",
    "ExecutorSet",
    "Images",
    "Json",
    "Keep",
    "Latency",
    "Metric",
    "Out",
    "Precision",
    "Rate",
    "RecipeName",
    "RecipeSet",
    "SpaceName",
    "TimedBatch",
    "TimedOn",
    "To",
    "WeightsFile",
    "Workers",
    "alignment",
    "computing",
    "controls_of",
    "evaluator_of",
    "listed",
    "load",
    "number",
    "options_of",
    "recipe_of",
    "sizes",
]

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before long work.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Out = Annotated[Path, typer.Option("--out", help="Folder that holds all runs.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data sets; PRUNAS_DATA does the same.")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch a data set that is not there.")]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="Instead of the space's own recipe.")]
RecipeSet = Annotated[
    list[str] | None,
    typer.Option("--recipe-set", help="Any setting of the recipe, such as optimizer=adamw; repeat it."),
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Epochs of the recipe.")]
Batch = Annotated[int | None, typer.Option("--batch", help="Batch size of the recipe.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate of the recipe.")]
Images = Annotated[int | None, typer.Option("--images", help="Train on this many training images only.")]
Precision = Annotated[
    str | None,
    typer.Option("--precision", help="fp32, tf32, bf16, or auto: bf16 and channels-last where that is fast."),
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="The same bits on every run on a GPU, at some cost.")
]
Eager = Annotated[bool, typer.Option("--eager", help="Do not capture training steps as CUDA graphs.")]
ChannelsLast = Annotated[
    bool | None, typer.Option("--channels-last/--channels-first", help="Memory layout of the recipe.")
]
WeightsFile = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="Trained weights of the dense network: a file (safetensors, or a state dict by torch.save), run:ID, "
        "or an import path such as torchvision.models:ResNet50_Weights.IMAGENET1K_V2; none trains it.",
    ),
]
ExecutorName = Annotated[
    str | None,
    typer.Option("--executor", help="serial, streams (what a GPU gets by default), processes, ray or slurm."),
]
ExecutorSet = Annotated[
    list[str] | None,
    typer.Option("--executor-set", help="Setting of the executor, such as gpus=0.5; repeat it."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Trainings at a time; on this machine unless --executor says.")
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", help=f"What targets count: {', '.join(METRIC_NAMES)}, or a package's."),
]
Keep = Annotated[str | None, typer.Option("--keep", help="Targets as fractions, such as 0.3,0.1.")]
Budget = Annotated[str | None, typer.Option("--budget", help="Targets as numbers, such as 1.2M,400k.")]
Align = Annotated[
    str | None,
    typer.Option(
        "--align", help="Round widths to multiples, such as 8, 8:up or 16:down; both shapes are kept."
    ),
]
Latency = Annotated[
    bool, typer.Option("--latency", help="Time a pass, beside the dense network; takes seconds per point.")
]
TimedBatch = Annotated[int, typer.Option("--batch", help="With --latency: images in a pass.")]
TimedOn = Annotated[
    str | None, typer.Option("--device", help="With --latency: cpu or cuda; where trainings run by default.")
]
To = Annotated[Path, typer.Option("--to", help="File the architecture is written to.")]
SpaceName = Annotated[str, typer.Argument(help="Name of a bundled space, or a TOML file.")]


def listed(given: str | Sequence[str] | None, flag: str) -> list[str]:
    """The parts of a repeated or comma-separated option; none if it was not given.

    Raises:
        InputError: It was given, and holds nothing.
    """
    texts = [given] if isinstance(given, str) else list(given or ())
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if texts and not parts:
        raise InputError(f"{flag} is empty; name something, or leave it out")
    return parts


def number(text: str, flag: str) -> float:
    """A number, or an `InputError` that names its flag."""
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{flag}: {text!r} is not a number") from error


def sizes(text: str) -> tuple[int, ...]:
    """The value of --input: `3,224,224`."""
    try:
        shape = tuple(map(int, text.split(",")))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(f"--input must be sizes such as 3,224,224, not {text!r}")
    return shape


def alignment(text: str | None) -> "tuple[int, Rounding] | None":
    """`8`, `16:up` and the like; to the nearest multiple by default."""
    if text is None:
        return None
    to, _, mode = text.partition(":")
    if not to.isdecimal():
        raise InputError(f"--align {text!r} is not a number of channels, such as 8 or 16:up")
    return int(to), mode or "nearest"  # type: ignore[return-value]  # checked by what aligns


def options_of(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`slimming.pull=1` and the like, by proposer."""
    from prunas.proposers.registry import entry

    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, _, value = text.partition("=")
        name, _, field = key.partition(".")
        if not (value and field):
            raise InputError(f"--set {text!r} does not read PROPOSER.SETTING=VALUE")
        entry(name)
        options.setdefault(name, {})[field] = _value(value)
    return options


def controls_of(name: str, without: bool) -> "bool | Literal['proxy']":
    """The value of --controls, and of --no-controls, as `prunas.search` takes them.

    Raises:
        InputError: It is no set of controls, or none are wanted and some are named.
    """
    if name not in ("usual", "proxy"):
        raise unknown("controls", name, ("usual", "proxy"))
    if without and name == "proxy":
        raise InputError("--no-controls and --controls proxy contradict each other; leave one out")
    return "proxy" if name == "proxy" else not without


def evaluator_of(name: str | None, settings: Sequence[str]) -> dict[str, Any] | None:
    """An evaluator as `prunas.search` takes it, of --evaluator and --evaluator-set.

    Raises:
        InputError: There are settings without an evaluator, or one is not of the form NAME=VALUE.
    """
    if name is None:
        if settings:
            raise InputError("--evaluator-set sets what --evaluator names; add --evaluator adaptive-bn, say")
        return None
    options: dict[str, Any] = {"name": name}
    for text in settings:
        key, _, value = text.partition("=")
        if not value:
            raise InputError(f"--evaluator-set {text!r} does not read SETTING=VALUE")
        options[key] = _value(value)
    return options


def recipe_of(
    recipe: str | None,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    images: int | None,
    precision: str | None,
    channels_last: bool | None,
    settings: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A recipe by name and what differs from it; None leaves a setting as it is.

    A precision of `auto` is what this machine is fast in.

    Args:
        recipe: Its name.
        epochs: As all that follow up to `channels_last`, a setting with a flag of its own.
        batch: See `Recipe`.
        lr: See `Recipe`.
        images: See `Recipe`.
        precision: See `Recipe`; or `auto`.
        channels_last: See `Recipe`.
        settings: Any settings, as `optimizer=adamw`; a value is JSON, or a word.

    Raises:
        InputError: A setting is not of that form, is none, or is given twice.
    """
    if precision not in (None, "auto", *PRECISIONS):
        raise unknown("precision", str(precision), ("auto", *PRECISIONS))
    changes = {
        "name": recipe,
        "epochs": epochs,
        "batch": batch,
        "lr": lr,
        "images": images,
        "precision": precision,
        "channels_last": channels_last,
    }
    known = {spec.name for spec in dataclasses.fields(Recipe)} - {"name"}
    for text in settings or ():
        key, _, value = text.partition("=")
        if not value:
            raise InputError(f"--recipe-set {text!r} does not read SETTING=VALUE")
        if key not in known:
            raise unknown("recipe setting", key, known)
        if changes.get(key) is not None:
            raise InputError(f"the recipe's {key} is given twice; leave --recipe-set {text} out")
        changes[key] = _value(value)
    return changes


def _value(text: str) -> Any:
    """A JSON value, or the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def computing(deterministic: bool, eager: bool) -> None:
    """Tells trainings, in this process and in workers, how to compute."""
    for name, wanted in (("PRUNAS_DETERMINISTIC", deterministic), ("PRUNAS_EAGER", eager)):
        if wanted:
            os.environ[name] = "1"


def load(space: str) -> "SearchSpace":
    """A bundled space, or that of a TOML file."""
    from prunas.spaces.load import load_space

    return load_space(space)
