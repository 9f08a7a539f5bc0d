"""The tables of README.md, of what `prunas search` wrote: `python -m benchmarks.searches [RECORD ...]`."""

import json
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import between_marks
from benchmarks.reproduce.progress import value_text
from prunas.costs.target import Target
from prunas.results.record import Record
from prunas.statistics.claims import chances
from prunas.statistics.inference import LEVEL, holm
from prunas.statistics.summary import Difference, Summary, comparisons, cost_table, table
from prunas.statistics.text import Table, as_markdown, count, duration, interval_text

HERE = Path(__file__).parent
RESULTS, PAGE, QUESTIONS = HERE / "results.json", HERE / "README.md", HERE / "questions.toml"
METHODS = HERE.parents[1] / "docs/choose/proposer.md"
EVENLY = ("uniform", "uniform-depth")


def gathered(path: Path) -> dict[str, Any]:
    """What the tables need of a record: not its trials, of which only the numbers stay, nor where it was made."""
    document = json.loads(path.read_text())
    record = Record.from_document(document, path)
    tried = Counter((trial.proposer, trial.asked.value) for trial in record.trials if not trial.duplicate)
    trials = [{"proposer": name, "asked": asked, "tried": n} for (name, asked), n in sorted(tried.items())]
    kept = {key: value for key, value in document.items() if key in record.to_json()}
    for cost in kept["cost"]:
        cost["rests_on"] = None
    for row in (*kept["runs"], *kept["dense"]):
        row["folder"] = Path(row["folder"]).name
    return kept | {"schema": document["schema"], "plan": {}, "trials": [], "tried": trials}


def pairs(questions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Question, proposer and control of every comparison; `tpe@` has the evaluations of the proposer."""
    return [
        (question["id"], left, right + left if right.endswith("@") else right)
        for question in questions
        for left in question["left"]
        for right in question["right"]
    ]


def judged(
    records: Sequence[Record], asked: Mapping[str, Any]
) -> list[tuple[str, Difference, str, float | None]]:
    """Every comparison at every target, with what it says of its question and the p value, corrected over all."""
    compared = [
        (question, difference)
        for question, left, right in pairs(asked["questions"])
        for record in records
        for difference in comparisons(record.rows, [left], [right], score=record.score)
    ]
    known = [chances(difference.summary, "more", asked["margin"]) for _, difference in compared]
    adjusted = holm([None if chance is None else min(chance) for chance in known])
    said = []
    for (question, difference), chance, p in zip(compared, known, adjusted, strict=True):
        tends = "undecided" if chance is None else "holds" if chance[0] < chance[1] else "fails"
        said.append((question, difference, tends if p is not None and p < 1 - LEVEL else "undecided", p))
    return said


def accuracies(record: Record) -> Table:
    """Test accuracy of every proposer at every target, and what one search costs."""
    targets = sorted({row.asked for row in record.rows}, key=lambda target: -target.value)
    costs = {line.proposer: line for line in cost_table(record.costs)}
    scores: dict[str, dict[Target, Summary]] = {}
    for line in table(record.rows, record.score):
        assert line.score is not None
        scores.setdefault(line.proposer, {})[line.asked] = line.score
    rows = []
    for name in sorted(scores, key=lambda name: -scores[name][targets[0]].mean):
        cost = costs[name]
        price = f"{cost.trainings:.0f}", count(cost.macs), duration(cost.seconds)
        rows.append((name, *(value_text(scores[name][target]) for target in targets), *price))
    named = [f"{target.label} of {target.metric}: test %" for target in targets]
    columns = ("proposer", *named, "jobs", "MACs", "time")
    return Table(columns=columns, align="l" + "r" * (len(columns) - 1), rows=tuple(rows))


def answers(records: Sequence[Record], asked: Mapping[str, Any]) -> str:
    """One table a question."""
    parts = []
    said = judged(records, asked)
    for question in asked["questions"]:
        rows = [(d, verdict, p) for name, d, verdict, p in said if name == question["id"]]
        verdicts = Counter(verdict for _, verdict, _ in rows)
        counts = ", ".join(f"{word} {verdicts[word]}" for word in ("holds", "fails", "undecided"))
        compared = Table(
            columns=("who", "against", "asked", "difference", "95 % interval", "p", "verdict"),
            align="lllrlrl",
            rows=tuple(
                (
                    *(difference.proposer, difference.against, difference.asked.label),
                    *(f"{difference.summary.mean:+.2f}", interval_text(difference.summary, "+")),
                    *("-" if p is None else f"{p:.2f}", verdict),
                )
                for difference, verdict, p in rows
            ),
        )
        parts.append(f"**{question['says']}** {len(rows)} comparisons: {counts}.\n\n{as_markdown(compared)}")
    return "\n".join(parts)


def methods(records: Sequence[Record], controls: Mapping[str, str]) -> Table:
    """What a search of each method costs, and what it found beside even shapes and beside its control.

    Args:
        records: The searches.
        controls: The control of each method.
    """
    rows = []
    for record in records:
        costs = {line.proposer: line for line in cost_table(record.costs)}
        for method in (method for method in controls if method in costs):
            evenly = {d.asked: d for d in comparisons(record.rows, [method], EVENLY, score=record.score)}
            beside = comparisons(record.rows, [method], [controls[method]], score=record.score)
            price = method, duration(costs[method].seconds), count(costs[method].macs)
            for difference in beside:
                gains = _gain(evenly[difference.asked]), _gain(difference)
                rows.append((*price, difference.asked.label, *gains, controls[method]))
                price = "", "", ""
    return Table(
        columns=(
            *("method", "one search", "MACs", "asked"),
            *("beside even shapes", "beside its control", "control"),
        ),
        align="lrrrlll",
        rows=tuple(rows),
    )


def _gain(difference: Difference) -> str:
    return f"{difference.summary.mean:+.2f} {interval_text(difference.summary, '+')}"


def page(text: str, records: Sequence[Record], asked: Mapping[str, Any]) -> str:
    """The page with its tables made anew.

    Args:
        text: The page as it is.
        records: What the searches found.
        asked: The questions and their margin.
    """
    tables = [f"`{record.space}`\n\n{as_markdown(accuracies(record))}" for record in records]
    return between_marks(text, "\n".join([*tables, answers(records, asked)]))


def read() -> tuple[list[Record], dict[str, Any]]:
    """What the searches found, as it is committed, and what was asked of it."""
    results = json.loads(RESULTS.read_text())
    return [Record.from_document(found, RESULTS) for found in results.values()], tomllib.loads(
        QUESTIONS.read_text()
    )


if __name__ == "__main__":
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for path in map(Path, sys.argv[1:]):
        document = gathered(path)
        results[document["space"]] = document
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    records, asked = read()
    PAGE.write_text(page(PAGE.read_text(), records, asked))
    METHODS.write_text(between_marks(METHODS.read_text(), as_markdown(methods(records, asked["controls"]))))
