"""`prunas design`: make a shape in a second, without training and without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunas import SCHEMA
from prunas.cli.options import Json, Metric, SpaceName, To, load
from prunas.cli.output import print_json, say
from prunas.errors import InputError

if TYPE_CHECKING:
    from prunas.architecture import Architecture
    from prunas.space import SearchSpace

__all__ = ["guided", "taper", "transferred", "uniform"]


def uniform(
    space: SpaceName,
    keep: Annotated[float | None, typer.Option("--keep", help="Fraction of the dense network.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Or a number, such as 1.2M.")] = None,
    metric: Metric = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """One ratio for all layers, fitted to a budget."""
    from prunas import designs

    found = load(space)
    _write(found, designs.uniform(found, _target(found, keep, budget, metric)), to, as_json)


def taper(
    space: SpaceName,
    params: Annotated[str, typer.Option("--params", help="Parameters to reach, such as 1.2M.")],
    macs: Annotated[str, typer.Option("--macs", help="MACs to reach with them, such as 90M.")],
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """Widths min(W, a * b^stage) with given parameters and MACs."""
    from prunas import designs
    from prunas.costs import Target

    found = load(space)
    made = designs.taper(found, Target.parse(params), Target.parse(macs))
    if not made.matched:
        say("no taper has both: the parameters are met, the MACs are as near as they come")
    _write(found, made.architecture, to, as_json)


def guided(
    points: Annotated[list[Path], typer.Argument(help="Architecture JSON files found in one space.")],
    keep: Annotated[
        float | None, typer.Option("--keep", help="Fit to this fraction of the dense network.")
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Or to a number, such as 1.2M.")] = None,
    metric: Metric = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The mean stage ratios of found shapes; fitted to a budget if one is given."""
    from prunas import designs

    source, found = _found(points)
    target = _target(source, keep, budget, metric) if keep or budget else None
    _write(source, designs.guided(source, found, target), to, as_json)


def transferred(
    points: Annotated[list[Path], typer.Argument(help="Architecture JSON files found in one space.")],
    onto: Annotated[str, typer.Option("--onto", help="Space to carry their stage ratios to.")],
    keep: Annotated[
        float | None, typer.Option("--keep", help="Fit to this fraction of the dense network.")
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Or to a number, such as 1.2M.")] = None,
    metric: Metric = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The mean stage ratios of shapes found in one space, applied to another."""
    from prunas import designs

    source, found = _found(points)
    space = load(onto)
    target = _target(space, keep, budget, metric) if keep or budget else None
    _write(space, designs.transferred(source, found, space, target), to, as_json)


def _found(points: Sequence[Path]) -> tuple["SearchSpace", list["Architecture"]]:
    from prunas.space import load_point

    loaded = [load_point(str(path)) for path in points]
    names = {space.name for space, _ in loaded}
    if len(names) > 1:
        raise InputError(f"the points come from different spaces: {', '.join(sorted(names))}")
    return loaded[0][0], [arch for _, arch in loaded]


def _target(space: "SearchSpace", keep: float | None, budget: str | None, metric: str | None) -> Any:
    from prunas.costs import Target

    if (keep is None) == (budget is None):
        raise InputError("give a budget, either --keep 0.3 or --budget 1.2M")
    number = None if budget is None else Target.parse(budget)
    return space.target(keep=keep, budget=number, metric=metric)  # type: ignore[arg-type]  # checked there


def _write(space: "SearchSpace", arch: "Architecture", to: Path, as_json: bool) -> None:
    from prunas.files import write_json

    write_json(to, arch.to_json())
    cost = space.cost(arch)
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "space": space.name,
                "architecture": arch.to_json(),
                "digest": arch.digest,
                "reached": cost.to_json(),
                "file": str(to),
            }
        )
    else:
        typer.echo(f"{to}: {cost.params:,} params, {cost.macs:,} MACs")
