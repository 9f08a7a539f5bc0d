"""How far the grid is, how long it takes, and what the study's critics are answered."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reproduce.cells import Dense, Protocol, every_cell, gpu
from benchmarks.reproduce.claims import Result, Verdict, load_critics, load_results
from benchmarks.reproduce.dense import dense_results
from benchmarks.reproduce.plan import PLAN
from prunas.files import read_json
from prunas.results.rows import FINISHED
from prunas.statistics.curves import dense_score
from prunas.statistics.summary import Spread
from prunas.statistics.text import Table, as_markdown, duration

__all__ = [
    "ORDER",
    "critics_heard",
    "device_text",
    "far",
    "finished",
    "planned",
    "progress",
    "unpruned",
    "value_text",
]

ORDER = ("reduced", "early", "fast", "paper")
"""Protocols in the order of the page."""


def planned() -> str:
    """How fast the machine is, and what the reduced protocol was made for."""
    document = read_json(PLAN)
    measured, hours = document["measured"], document["hours"]
    rates = measured["images_per_core_second"]
    first = ("efficiency-left", "retraining")
    two = sum(hours["reduced"][name][1] for name in first) / 2
    wider = two * rates["vgg16-eighth-c10"] / rates["vgg16-quarter-c10"]
    at = measured["written"], measured["processor"]
    eighth, quarter = (f"{rates[f'vgg16-{width}-c10']:,}" for width in ("eighth", "quarter"))
    return (
        "Machines differ by a factor of five, so the width of `reduced` was chosen by what `plan` measured on "
        f"{at[0]}: a core of {at[1]} trains {eighth} images per second of its own time on VGG-16 at an eighth of "
        f"its width, {quarter} at a quarter. {' and '.join(first)} together then take two free cores {two:.1f} "
        f"hours at an eighth and {wider:.1f} at a quarter; six were allowed, so it is an eighth. Hours on "
        f"{gpu().name} are estimates from its bandwidth and launch times, doubled, and were not measured."
    )


def progress(known: Sequence[Protocol]) -> Table:
    rows = []
    hours = read_json(PLAN)["hours"]
    for protocol in known:
        results, dense = load_results(protocol.name), dense_results(protocol.name)
        for cell in every_cell(protocol.name):
            result: Any = dense.get(cell.name) if isinstance(cell, Dense) else results.get(cell.name)
            told = result.cell if result else {}
            done = finished(result) if result else 0
            ahead = hours.get(protocol.name, {}).get(cell.name)
            rows.append(
                (
                    protocol.name,
                    cell.name,
                    ", ".join(cell.shows),
                    f"{done} of {told['planned']}" if told else "-",
                    duration(told["seconds"]) if told else "-",
                    "-" if ahead is None else f"{ahead[1]:.1f}",
                    ", ".join(told["device"]).replace("cpu", "CPU") if told else "-",
                    told["written"] if told else "-",
                )
            )
    return Table(
        columns=("protocol", "cell", "answers", "final trainings", "time", "hours planned", "device", "date"),
        align="lllrrrll",
        rows=tuple(rows),
        notes=(
            "Time: of all trainings added up, those that searches needed included, those of a transfer's "
            "source "
            "not; - means not run yet. Hours planned: of one core for reduced, of "
            f"{gpu().name} for the others, one training after another, as if no cell shared trainings with "
            f"another; "
            "- where the data were not at hand.",
        ),
    )


def finished(result: Any) -> int:
    if isinstance(result, Result):
        return sum(row.status == FINISHED for row in result.record.rows)
    return len(result.runs)


def far(result: Result) -> str:
    """How far a cell is, in words."""
    done, planned = finished(result), result.cell["planned"]
    if done >= planned:
        return f"All {planned} final trainings."
    return f"**Under way: {done} of {planned} final trainings**, so the numbers will change."


def unpruned(result: Result) -> str:
    dense = dense_score(result.record.dense, result.record.score)
    return "" if dense is None else f"Unpruned: {value_text(dense)} (n = {dense.n})."


def critics_heard(by_protocol: Mapping[str, Sequence[Verdict]]) -> str:
    """What later work objects, beside what our cells say of it."""
    rows = []
    for critic in load_critics():
        said = [
            f"{each.claim.id}, {name}: {_verdict(each)}"
            for name, own in by_protocol.items()
            for each in own
            if each.claim.id in critic.claims and each.judgement != "not run"
        ]
        rows.append((critic.who, critic.says, ", ".join(critic.claims), "; ".join(said) or "not run yet"))
    made = Table(columns=("who", "objection", "claims", "here"), align="llll", rows=tuple(rows))
    return "## The study's critics\n\n" + as_markdown(made)


def _verdict(verdict: Verdict) -> str:
    shown = "" if verdict.difference is None else f" ({verdict.difference.mean:+.2f})"
    return f"**{verdict.judgement}**{shown}"


def device_text(result: Result) -> str:
    return ", ".join(result.cell["device"]).replace("cpu", "CPU")


def value_text(value: Spread) -> str:
    """Mean and standard deviation."""
    return f"{value.mean:.2f}" + ("" if value.std is None else f" ± {value.std:.2f}")
