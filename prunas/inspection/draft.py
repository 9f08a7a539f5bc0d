"""`new`: the first TOML file of a network, with what can vary in it, what that saves, and what is held and why."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunas.costs.metrics import metric as named_metric
from prunas.errors import InputError
from prunas.files import names_folder, write_atomic
from prunas.spaces.file import parse
from prunas.spaces.load import load_network, load_space
from prunas.spaces.space import SearchSpace
from prunas.survey import Frozen

__all__ = ["Draft", "draft", "write_draft"]

NEGLIGIBLE = 0.001
"""A width is held if halving it saves less than this share of the parameters and of the MACs."""

LISTED = 40
"""Lines of a list in the file; `prunas show` has all."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The first file of a space.

    Attributes:
        name: Of the space; the file is called after it.
        network: As its TOML file names it.
        params: Parameters of the dense network.
        macs: Its multiply-accumulates for one input.
        varying: How many widths vary.
        excluded: Names of the widths that are held because they save next to nothing.
        text: Of the file.
        next: The command to continue with.
    """

    name: str
    network: str
    params: int
    macs: int
    varying: int
    excluded: tuple[str, ...]
    text: str
    next: str

    def to_json(self) -> dict[str, Any]:
        """All but the text, as JSON values."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name != "text"}
        return values | {"excluded": list(self.excluded)}


def draft(
    network: str,
    shape: Sequence[int],
    *,
    name: str = "",
    data: str = "",
    task: str = "classification",
    recipe: str = "paper",
    keep: Sequence[float] = (0.5,),
    metric: str = "macs",
) -> Draft:
    """The first file of a network, surveyed now.

    All widths vary but those that save next to nothing when they are halved: the squeezed channels of an attention
    over channels, say, which cost accuracy and no time. Selected inputs and removed blocks are left to the user.

    Args:
        network: "package.module:factory", or "path/to/file.py:factory" as seen from where the file will lie.
        shape: Shape of one input without the batch.
        name: Of the space; by default after the file or the factory.
        data: Name of a data set, or what makes one; may be filled in later.
        task: Name of a task, or what makes one.
        recipe: Name of the recipe.
        keep: Targets as fractions.
        metric: What they count.

    Raises:
        InputError: The network cannot be surveyed, a target cannot be reached, or a name is unusable.
    """
    place, _, factory = network.partition(":")
    name = name or _name(Path(place).stem if place.endswith(".py") else factory)
    if not names_folder(name):
        raise InputError(
            f"--name {name!r} must be letters, digits, and . _ + -; it names the file and its runs"
        )
    surveyed = load_network(network, shape)
    if not surveyed.survey.groups:
        held = "; ".join(_reason(frozen) for frozen in surveyed.survey.frozen[:3])
        raise InputError(
            f"nothing can vary in {network}: {held}; `prunas show {network} --input ...` says more"
        )
    space = replace(surveyed, name=name, gates=(), blocks=())
    savings = _savings(space)
    excluded = [
        dim.name for dim, saved in zip(space.dimensions, savings, strict=True) if saved.max() < NEGLIGIBLE
    ]
    if len(excluded) == len(space.dimensions):
        excluded = []
    space = replace(space, exclude=tuple(excluded))
    metric = named_metric(metric).name
    for fraction in keep:
        space.target(keep=fraction, metric=metric)
    cost = space.cost(space.dense)
    settings: dict[str, object] = {
        "network": network,
        "input": list(shape),
        "data": data,
        "task": task,
        "recipe": recipe,
        "metric": metric,
        "keep": list(keep),
    }
    text = _text(space, savings, settings)
    shrink = f"prunas shrink {name}.toml --weights FILE --keep {keep[0]:g} --metric {metric}"
    return Draft(name, network, cost.params, cost.macs, len(space.dimensions), tuple(excluded), text, shrink)


def write_draft(made: Draft, folder: Path) -> Path:
    """Writes the file, and reads it as any command does.

    Args:
        made: From `draft`.
        folder: Where it goes: from there the network's file is found.

    Raises:
        InputError: There is such a file, which may hold somebody's work; or what was written does not load.
    """
    file = folder / f"{made.name}.toml"
    if file.exists():
        raise InputError(f"{file} is there already; delete it, or choose another --name")
    parse(made.text, file)
    write_atomic(file, lambda handle: handle.write(made.text.encode()))
    try:
        load_space(str(file))
    except InputError:
        file.unlink()
        raise
    return file


def _name(text: str) -> str:
    """A name made of the characters that names have."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text.replace("_", "-")).strip("-") or "network"


def _savings(space: SearchSpace) -> npt.NDArray[np.float64]:
    """Shares of parameters and MACs that halving each width alone saves, shape (dimensions, 2)."""
    dense = space.dense_counts
    halves = np.tile(dense, (len(dense), 1))
    np.fill_diagonal(halves, -(-dense // 2))
    cost = space.cost(space.dense)
    shares = [
        1 - space.measures(halves, name) / whole
        for name, whole in (("params", cost.params), ("macs", cost.macs))
    ]
    return np.stack(shares, 1)


def _text(space: SearchSpace, savings: npt.NDArray[np.float64], settings: dict[str, object]) -> str:
    """The file: settings, what varies as comments, and the table `[vary]`."""
    cost, survey = space.cost(space.dense), space.survey
    least = {name: space.least(name) / space.measure(space.dense, name) for name in ("params", "macs")}
    comments = {
        "data": 'a name (cifar10, folder, ...), or your own: "mine.py:data"',
        "task": "what it is trained for, and how it is scored",
        "recipe": 'or a table: [recipe], with name = "paper" and what differs: epochs, batch, lr, ...',
        "metric": "what targets count",
        "keep": "targets, as fractions of it",
    }
    lines = [f"# {cost.params:,} parameters, {cost.macs:,} multiply-accumulates (MACs) for one input."]
    for key, value in settings.items():
        comment = f"  # {comments[key]}" if key in comments else ""
        empty = "" if value else "# "
        lines.append(f"{empty}{key} = {json.dumps(value)}{comment}")
    lines += [
        "",
        f"# All at their least: {least['params']:.1%} of the parameters, {least['macs']:.1%} of the MACs.",
        "#",
        "# A width and the layers it binds     dense   halved alone, it saves",
        "#                                             parameters   MACs",
    ]
    rows = [
        f"# {dim.name:<34} {dim.dense:>6} {params:>9.2%} {macs:>9.2%}"
        + ("  of several layers" if dim.role == "residual" else "")
        + ("  held" if dim.name in space.exclude else "")
        for dim, (params, macs) in zip(replace(space, exclude=()).dimensions, savings, strict=True)
    ]
    lines += _cut(rows, "# ... and {} more: prunas show names all")
    held = [f"#   {_reason(frozen)}" for frozen in survey.frozen]
    if held:
        lines += ["#", "# Held, because the network needs them as they are:"]
        lines += _cut(list(dict.fromkeys(held)), "#   ... and {} more")
    lines += ["", "[vary]", 'groups = ["*"]  # widths, by shell patterns over the names above']
    if space.exclude:
        names = ", ".join(json.dumps(name) for name in space.exclude)
        lines.append(f"exclude = [{names}]  # halving one saves less than {NEGLIGIBLE:.1%} of anything")
    if survey.gates:
        lines.append(
            f'# gates = ["*"]  # {len(survey.gates)} layers can select their inputs, which costs a copy'
        )
    if survey.blocks:
        lines.append(f'# blocks = ["*"]  # {len(survey.blocks)} residual branches can be removed as a whole')
    lines.append("# step = 8  # widths in multiples of 8, which devices prefer; floor = 8 is the least width")
    return "\n".join(lines) + "\n"


def _reason(frozen: Frozen) -> str:
    """What is held, and why, in one line of text."""
    return " ".join(f"{frozen.what}: {frozen.why} [{frozen.where}]".split())


def _cut(rows: list[str], more: str) -> list[str]:
    """The first rows, and how many were left out."""
    return rows if len(rows) <= LISTED else [*rows[:LISTED], more.format(len(rows) - LISTED)]
