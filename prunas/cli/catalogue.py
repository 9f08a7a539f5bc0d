"""What there is: spaces, presets, proposers, tasks, one network in detail, this installation."""

import hashlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunas import SCHEMA
from prunas.cli.options import Data, Json, Latency, Out, TimedBatch, TimedOn, load, sizes
from prunas.cli.output import FAILED, check_file, print_json, print_rows, say
from prunas.errors import InputError

if TYPE_CHECKING:
    from prunas.cli.documents import PresetRow, ProposerRow, SpaceRow, TaskRow
    from prunas.spaces.space import SearchSpace

__all__ = ["doctor", "presets", "proposers", "show", "spaces", "tasks"]


def show(
    point: Annotated[
        str,
        typer.Argument(
            help="SPACE, SPACE:PRESET, an architecture's JSON file, a run (its folder, id or name), or with "
            "--input any network: torchvision.models:resnet50, net.py:make."
        ),
    ],
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of one input of a network, such as 3,224,224.")
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Only a Python module that builds the shape without prunas.")
    ] = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw the shape into this file, as SVG.")] = None,
    latency: Latency = False,
    batch: TimedBatch = 1,
    device: TimedOn = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """What can vary, what is frozen and why, and what it costs; of a run also how far it came."""
    from prunas.experiments.record import load_records
    from prunas.files import write_atomic
    from prunas.inspection.runs import is_run, shown_run
    from prunas.inspection.show import show_document, show_text
    from prunas.spaces.load import load_network, load_point
    from prunas.spaces.picture import LEGEND

    if svg is not None:
        check_file(svg, "--svg")
    run = shown_run(point, out, load_records) if shape is None and is_run(point, out) else None
    if run is not None:
        found, arch = run.space, run.architecture
    elif shape is None:
        found, arch = load_point(point)
    else:
        found = load_network(point, sizes(shape))
        arch = found.dense
    if code:
        from prunas.inspection.standalone import standalone_code

        text = standalone_code(found, arch)
        if as_json:
            print_json({"schema": SCHEMA, "space": found.name, "digest": arch.digest, "code": text})
        else:
            typer.echo(text, nl=False)
        return
    if svg is not None:
        drawing = str(found.picture(arch)).encode()
        write_atomic(svg, lambda file: file.write(drawing))
    document = show_document(found, arch)
    timed = None
    if latency:
        from prunas.inspection.latency import latency_of, latency_text, place

        timed = latency_of(found, arch, batch=batch, device=place(device))
    if as_json:
        trained = {"run": run.document} if run else {}
        print_json({"schema": SCHEMA} | document | trained | ({"latency": timed.to_json()} if timed else {}))
        return
    if run is not None:
        typer.echo(f"{run.text}\n")
    typer.echo(show_text(found, arch, document, with_thop=run is None))
    if timed:
        typer.echo(f"\n{latency_text(timed)}")
    if svg is not None:
        typer.echo(f"\n{svg}: {LEGEND}")


def spaces(as_json: Json = False) -> None:
    """The search spaces: the bundled ones and those of installed packages."""
    found = _usable_spaces()
    rows: list[SpaceRow] = [
        {
            "name": s.name,
            "network": s.network,
            "data": s.study.data,
            "recipe": s.study.recipe,
            "params": s.cost(s.dense).params,
            "macs": s.cost(s.dense).macs,
            "dimensions": len(s.dimensions),
        }
        for s in found
    ]
    print_rows(rows, as_json)


def proposers(as_json: Json = False) -> None:
    """The methods that propose shapes: prunas's own and those of installed packages."""
    from prunas.proposers.registry import installed_proposers

    known, problems = installed_proposers()
    for problem in problems:
        say(problem)
    rows: list[ProposerRow] = [
        {
            "name": name,
            "kind": entry.kind,
            "description": entry.description,
            "reference": entry.reference,
            "dimensions": list(entry.dimensions),
            "needs": list(entry.needs),
            "trainings_per_target": entry.trainings_per_target,
            "options": None if entry.options is None else [option.to_json() for option in entry.options],
        }
        for name, entry in known.items()
    ]
    print_rows(rows, as_json, hide=("reference", "needs", "trainings_per_target", "options"))


def presets(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None, as_json: Json = False
) -> None:
    """Named architectures, published ones first."""
    rows: list[PresetRow] = []
    for found in [load(space)] if space else _usable_spaces():
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


def tasks(as_json: Json = False) -> None:
    """What networks can be trained for: prunas's own tasks and those of installed packages."""
    from prunas.names import REGISTERED
    from prunas.plugins import load_all, resolve
    from prunas.spaces.cache import remembered

    bundled = REGISTERED["prunas.tasks"]
    offered, problems = load_all("prunas.tasks", bundled, lambda plugin: plugin.load())
    for problem in problems:
        say(problem)
    sources = [
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((Path(__file__).parent.parent / "tasks").glob("*.py"))
    ]
    rows: list[TaskRow] = remembered(
        "tasks", sources, lambda: [_task(name, resolve("prunas.tasks", name)) for name in bundled]
    )
    print_rows([*rows, *(_task(name, make) for name, make in offered.items())], as_json)


def _task(name: str, make: object) -> "TaskRow":
    """The row of one task."""
    from prunas.tasks.score import Score

    declared = getattr(make, "score", None)
    score = declared if isinstance(declared, Score) else None
    return {
        "name": name,
        "description": (inspect.getdoc(make) or "").partition("\n")[0],
        "score": score.name if score else None,
        "unit": score.unit if score else None,
        "better": score.better if score else None,
    }


def _usable_spaces() -> "list[SearchSpace]":
    """Every space that can be loaded; what cannot is told, for one broken package must not hide the others."""
    from prunas.spaces.load import installed_spaces, load_space

    names, problems = installed_spaces()
    for problem in problems:
        say(problem)
    found = []
    for name in names:
        try:
            found.append(load_space(name))
        except InputError as error:
            say(f"space {name!r}: {error}")
    return found


def doctor(data: Data = None, out: Out = Path("runs"), as_json: Json = False) -> None:
    """What is wrong with this installation, and what can be done about it."""
    from prunas.cli.doctor import examine

    checks = examine(data, out)
    if as_json:
        print_json({"schema": SCHEMA, "checks": checks})
    else:
        for check in checks:
            typer.echo(f"{check['status']:>7}  {check['what']}: {check['detail']}")
    if any(check["status"] == "wrong" for check in checks):
        raise typer.Exit(FAILED)
