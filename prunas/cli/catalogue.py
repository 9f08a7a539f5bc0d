"""What there is: spaces, presets, proposers, one network in detail, this installation."""

from pathlib import Path
from typing import Annotated

import typer

from prunas import SCHEMA
from prunas.cli.options import Data, Json, Out
from prunas.cli.output import FAILED, print_json, print_rows

__all__ = ["doctor", "presets", "proposers", "show", "spaces"]


def show(
    point: Annotated[str, typer.Argument(help="SPACE, SPACE:PRESET, or an architecture's JSON file.")],
    as_json: Json = False,
) -> None:
    """What can vary, what is frozen and why, and what it costs."""
    from prunas.experiments.show import show_document, show_text
    from prunas.space import load_point

    found, arch = load_point(point)
    document = show_document(found, arch)
    if as_json:
        print_json({"schema": SCHEMA} | document)
    else:
        typer.echo(show_text(found, arch, document))


def spaces(as_json: Json = False) -> None:
    """The bundled search spaces."""
    from prunas.space import bundled_spaces, load_space

    found = [load_space(name) for name in bundled_spaces()]
    rows = [
        {
            "name": s.name,
            "network": s.network,
            "data": s.data,
            "recipe": s.recipe,
            "params": s.cost(s.dense).params,
            "macs": s.cost(s.dense).macs,
            "dimensions": len(s.dimensions),
        }
        for s in found
    ]
    print_rows(rows, as_json)


def proposers(as_json: Json = False) -> None:
    """The methods that propose shapes."""
    from prunas.proposers import PROPOSERS

    rows = [
        {
            "name": name,
            "kind": entry.kind,
            "description": entry.description,
            "reference": entry.reference,
            "dimensions": list(entry.dimensions),
            "needs": list(entry.needs),
            "trainings_per_target": entry.trainings_per_target,
        }
        for name, entry in PROPOSERS.items()
    ]
    print_rows(rows, as_json, hide=("reference", "needs", "trainings_per_target"))


def presets(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None, as_json: Json = False
) -> None:
    """Named architectures, published ones first."""
    from prunas.space import bundled_spaces, load_space

    rows = []
    for name in [space] if space else bundled_spaces():
        found = load_space(name)
        for preset in found.presets:
            cost = found.cost(preset.architecture)
            rows.append(
                {
                    "name": preset.name,
                    "slug": preset.slug,
                    "space": found.name,
                    "params": cost.params,
                    "macs": cost.macs,
                }
            )
    print_rows(rows, as_json)


def doctor(data: Data = None, out: Out = Path("runs"), as_json: Json = False) -> None:
    """What is wrong with this installation, and what can be done about it."""
    from prunas.experiments.doctor import examine

    checks = examine(data, out)
    if as_json:
        print_json({"schema": SCHEMA, "checks": checks})
    else:
        for check in checks:
            typer.echo(f"{check['status']:>7}  {check['what']}: {check['detail']}")
    if any(check["status"] == "wrong" for check in checks):
        raise typer.Exit(FAILED)
