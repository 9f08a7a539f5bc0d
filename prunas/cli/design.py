"""`prunas design`: make a shape in a second, without training and without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunas import SCHEMA
from prunas.cli.options import Align, Json, Metric, SpaceName, To, alignment, load
from prunas.cli.output import check_file, print_json, say
from prunas.errors import InputError

if TYPE_CHECKING:
    from prunas.architecture import Architecture
    from prunas.costs.target import Target
    from prunas.spaces.space import SearchSpace

__all__ = [
    "cross",
    "erk",
    "guided",
    "shuffled",
    "taper",
    "transferred",
    "uniform",
    "uniform_depth",
    "uniform_kernel",
]

Fraction = Annotated[float | None, typer.Option("--keep", help="Fraction of the dense network.")]
Number = Annotated[str | None, typer.Option("--budget", help="Or a number, such as 1.2M.")]
FitFraction = Annotated[
    float | None, typer.Option("--keep", help="Fit to this fraction of the dense network; else as found.")
]
FitNumber = Annotated[str | None, typer.Option("--budget", help="Or to a number, such as 1.2M.")]
Seed = Annotated[int, typer.Option("--seed", help="Of what is drawn.")]
Points = Annotated[list[Path], typer.Argument(help="Architecture JSON files found in one space.")]


def uniform(
    space: SpaceName,
    keep: Fraction = None,
    budget: Number = None,
    metric: Metric = None,
    align: Align = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """One ratio for all layers, fitted to a budget."""
    from prunas import designs

    found = load(space)
    _write(found, designs.uniform(found, _target(found, keep, budget, metric)), align, to, as_json)


def taper(
    space: SpaceName,
    params: Annotated[str, typer.Option("--params", help="Parameters to reach, such as 1.2M.")],
    macs: Annotated[str, typer.Option("--macs", help="MACs to reach with them, such as 90M.")],
    align: Align = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """Widths min(W, a * b^stage) with given parameters and MACs."""
    from prunas import designs
    from prunas.costs.target import Target

    found = load(space)
    made = designs.taper(found, Target.parse(params), Target.parse(macs))
    if not made.matched:
        say("no taper has both: the parameters are met, the MACs are as near as they come")
    _write(found, made.architecture, align, to, as_json)


def uniform_depth(
    space: SpaceName,
    keep: Fraction = None,
    budget: Number = None,
    metric: Metric = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The same share of the blocks of every stage, the largest within a budget."""
    from prunas import designs

    found = load(space)
    _write(found, designs.equal_depth(found, _target(found, keep, budget, metric)), None, to, as_json)


def uniform_kernel(
    space: SpaceName,
    keep: Fraction = None,
    budget: Number = None,
    metric: Metric = None,
    seed: Seed = 0,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """One density for the weights of all convolutions, fitted to a budget."""
    from prunas.designs import kernels

    found = load(space)
    target = _target(found, keep, budget, metric)
    _write(found, kernels.uniform_kernels(found, target, seed), None, to, as_json)


def erk(
    space: SpaceName,
    keep: Fraction = None,
    budget: Number = None,
    metric: Metric = None,
    seed: Seed = 0,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """Erdos-Renyi-Kernel densities, which spare small convolutions, fitted to a budget."""
    from prunas.designs import kernels

    found = load(space)
    _write(found, kernels.erk(found, _target(found, keep, budget, metric), seed), None, to, as_json)


def cross(
    space: SpaceName,
    keep: FitFraction = None,
    budget: FitNumber = None,
    metric: Metric = None,
    seed: Seed = 0,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The centre and the four edges of every 3x3 kernel; thinned alike if a budget is given."""
    from prunas.designs import kernels

    found = load(space)
    target = _target_if_given(found, keep, budget, metric)
    _write(found, kernels.cross(found, target, seed), None, to, as_json)


def shuffled(
    point: Annotated[str, typer.Argument(help="SPACE:PRESET, or an architecture's JSON file.")],
    keep: FitFraction = None,
    budget: FitNumber = None,
    metric: Metric = None,
    seed: Seed = 0,
    align: Align = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The widths of a point dealt anew among its layers, fitted to a budget or to what the point has."""
    from prunas import designs
    from prunas.spaces.load import load_point

    space, arch = load_point(point)
    if arch.kernels is not None or arch.removed:
        raise InputError(f"{point} is not decided by widths alone, and only widths can be dealt anew")
    target = _target_if_given(space, keep, budget, metric)
    if target is None:
        target = space.target(budget=space.measure(arch, "params"), metric="params")
    _write(space, designs.shuffled(space, arch, target, seed), align, to, as_json)


def guided(
    points: Points,
    keep: FitFraction = None,
    budget: FitNumber = None,
    metric: Metric = None,
    seed: Seed = 0,
    align: Align = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The stage means of found widths, depths or kernels: as found, or fitted to a budget if one is given."""
    source, found = _found(points)
    target = _target_if_given(source, keep, budget, metric)
    _write(source, _carried(source, found, source, target, seed), align, to, as_json)


def transferred(
    points: Points,
    onto: Annotated[str, typer.Option("--onto", help="Space to carry their pattern to.")],
    keep: FitFraction = None,
    budget: FitNumber = None,
    metric: Metric = None,
    seed: Seed = 0,
    align: Align = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The stage means of widths, depths or kernels found in one space, applied to another, as `guided` does."""
    source, found = _found(points)
    space = load(onto)
    target = _target_if_given(space, keep, budget, metric)
    _write(space, _carried(source, found, space, target, seed), align, to, as_json)


def _carried(
    source: "SearchSpace",
    found: Sequence["Architecture"],
    space: "SearchSpace",
    target: "Target | None",
    seed: int,
) -> "Architecture":
    """The design by what the points decide; says how stages were matched."""
    from prunas import designs
    from prunas.designs import kernels
    from prunas.designs.stages import match

    decided = {
        "width": any(arch.widths or arch.selected for arch in found),
        "depth": any(arch.removed for arch in found),
        "kernel": any(arch.kernels for arch in found),
    }
    kinds = [kind for kind, there in decided.items() if there] or ["width"]
    if len(kinds) > 1:
        raise InputError(
            f"the points decide {' and '.join(kinds)}, and one of them can be carried; give such points"
        )
    if note := match(source, space, kinds[0]).note:  # type: ignore[arg-type]  # a key of the above
        say(note)
    if kinds == ["kernel"]:
        return kernels.transferred_kernels(source, found, space, target, seed)
    if kinds == ["depth"]:
        return designs.transferred_depth(source, found, space, target)
    return designs.transferred(source, found, space, target)


def _found(points: Sequence[Path]) -> tuple["SearchSpace", list["Architecture"]]:
    from prunas.spaces.load import load_point

    loaded = [load_point(str(path)) for path in points]
    names = {space.name for space, _ in loaded}
    if len(names) > 1:
        raise InputError(f"the points come from different spaces: {', '.join(sorted(names))}")
    return loaded[0][0], [arch for _, arch in loaded]


def _target_if_given(
    space: "SearchSpace", keep: float | None, budget: str | None, metric: str | None
) -> "Target | None":
    return None if keep is None and budget is None else _target(space, keep, budget, metric)


def _target(space: "SearchSpace", keep: float | None, budget: str | None, metric: str | None) -> "Target":
    from prunas.costs.target import Target

    if (keep is None) == (budget is None):
        raise InputError("give a budget, either --keep 0.3 or --budget 1.2M")
    number = None if budget is None else Target.parse(budget)
    return space.target(keep=keep, budget=number, metric=metric)


def _write(space: "SearchSpace", made: "Architecture", align: str | None, to: Path, as_json: bool) -> None:
    from prunas import designs
    from prunas.files import write_json
    from prunas.results.rows import Proposed

    rounding = alignment(align)
    arch = made if rounding is None else designs.align(space, made, *rounding)
    check_file(to, "--to")
    write_json(to, arch.to_json())
    cost, before = space.cost(arch), space.cost(made)
    if as_json:
        document = {
            "schema": SCHEMA,
            "space": space.name,
            "architecture": arch.to_json(),
            "digest": arch.digest,
            "reached": cost.to_json(),
            "file": str(to),
        }
        if rounding is not None:
            document["proposed"] = Proposed(made.to_json(), made.digest, before).to_json()
        print_json(document)
        return
    aligned = "" if rounding is None else f" (before aligning {before.params:,} and {before.macs:,})"
    typer.echo(f"{to}: {cost.params:,} params, {cost.macs:,} MACs{aligned}")
