"""`prunas advise`: what to do with a budget, and the evidence behind the answer."""

from pathlib import Path
from typing import Annotated

import typer

from prunas import SCHEMA
from prunas.cli.options import Json, Out, SpaceName, load
from prunas.cli.output import print_json

__all__ = ["advise"]


def advise(
    space: SpaceName,
    budget: Annotated[str, typer.Option("--budget", help="Parameters, such as 1M or 400k.")],
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="How long the small network may be trained.")
    ],
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Fine-tune, train a found shape from scratch, or take a uniform one: the answer of finished runs."""
    from prunas.costs.target import Target
    from prunas.experiments.record import committed_evidence, load_records
    from prunas.results.record import Record
    from prunas.statistics.advice import Observation, observation_table, observations
    from prunas.statistics.advice import advise as answer
    from prunas.statistics.text import as_text

    found = load(space)
    target = found.target(budget=Target.parse(budget), metric="params")
    whole = found.measure(found.dense, "params")

    def seen(record: Record, where: str, own: bool) -> list[Observation]:
        return observations(
            record.rows,
            where=where,
            own=own,
            space=record.space,
            data=record.data,
            recipe_epochs=record.epochs,
            whole=whole if own else None,
            score=record.score,
        )

    known = []
    if list(out.glob(f"{found.name}/searches/*.json")):
        for record in load_records(out, found.name):
            known += seen(record, str(out), own=True)
    for name, record in committed_evidence().items():
        known += seen(record, f"committed {name}", own=False)
    keep, usual = target.value / whole, found.study.default_recipe().epochs
    advice = answer(known, keep=keep, epochs=epochs, recipe_epochs=usual)
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "space": found.name,
                "budget": target.value,
                "keep": keep,
                "epochs": epochs,
                "answer": advice.answer,
                "basis": advice.basis,
                "reasons": list(advice.reasons),
                "evidence": [each.to_json() for each in advice.evidence],
            }
        )
        return
    told = {"own": "your runs decide", "elsewhere": "seen on other networks only", "none": "nothing decides"}
    typer.echo(f"{advice.answer} ({told[advice.basis]})\n")
    typer.echo(f"{target.value:,} parameters are {100 * keep:.3g} % of {found.name}; {epochs} epochs.")
    for reason in advice.reasons:
        typer.echo(reason)
    if advice.evidence:
        typer.echo(f"\n{as_text(observation_table(advice.evidence))}")
