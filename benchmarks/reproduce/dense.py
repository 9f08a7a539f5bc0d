"""Results of dense networks under several settings of the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reproduce.cells import Dense, every_cell
from prunas.files import read_json
from prunas.statistics.summary import Summary, grouped, summarise
from prunas.statistics.text import Table, duration

__all__ = ["DenseResult", "dense_results", "dense_table"]

HERE = Path(__file__).parent
SCORED = {"val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class DenseResult:
    """What was committed of one cell.

    Attributes:
        of: The cell.
        document: All of it.
    """

    of: Dense
    document: Mapping[str, Any]

    @property
    def cell(self) -> Mapping[str, Any]:
        """Name, protocol and what it took."""
        told: Mapping[str, Any] = self.document["cell"]
        return told

    @property
    def runs(self) -> Sequence[Mapping[str, Any]]:
        """One per training that is finished."""
        runs: Sequence[Mapping[str, Any]] = self.document["runs"]
        return runs

    def about(self, command: str) -> str:
        """How far it is, and where it was trained."""
        told = self.cell
        done, planned = len(self.runs), told["planned"]
        far = (
            f"All {planned} trainings."
            if done == planned
            else f"**Under way: {done} of {planned} trainings.**"
        )
        device = ", ".join(told["device"]).replace("cpu", "CPU")
        return (
            f"Dense networks on {SCORED[self.of.scored]} images; {', '.join(self.of.shows)}. {far} {device}; "
            f"{'; '.join(told['versions'])}; {told['written']}; "
            f"{duration(told['seconds'])} of training. `{command}`\n"
        )


def dense_results(protocol: str, folder: Path = HERE / "dense") -> dict[str, DenseResult]:
    """The committed results of a protocol by name of their cell, without runs that the grid does not ask for."""
    found = {}
    for cell in every_cell(protocol):
        path = folder / protocol / f"{cell.name}.json"
        if isinstance(cell, Dense) and path.exists():
            document = read_json(path)
            wanted = [run for run in document["runs"] if run["settings"] in cell.settings]
            found[cell.name] = DenseResult(cell, {**document, "runs": wanted})
    return found


def dense_table(result: DenseResult) -> Table:
    """One row per network, one column per setting."""
    settings = result.of.settings
    shared = {key for key, value in settings[0].items() if all(each.get(key) == value for each in settings)}
    rows = []
    for space, runs in grouped(result.runs, lambda run: run["space"]).items():
        scores = [[run["score"] for run in runs if run["settings"] == each] for each in settings]
        rows.append((space, f"{runs[0]['params']:,}", *(_mean(each) for each in scores)))
    held = "; ".join(f"{key} {settings[0][key]}" for key in settings[0] if key in shared)
    return Table(
        columns=("network", "parameters", *(_named(each, shared) for each in settings)),
        align="lr" + "r" * len(settings),
        rows=tuple(rows),
        notes=(
            f"Accuracy in percent on {SCORED[result.of.scored]} images, mean ± standard deviation (n); "
            f"- is still to come{f'; {held}' if held else ''}.",
        ),
    )


def _named(settings: Mapping[str, Any], shared: set[str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key not in shared)


def _mean(scores: Sequence[float]) -> str:
    if not scores:
        return "-"
    made: Summary = summarise(list(scores))
    spread = "" if made.std is None else f" ± {made.std:.2f}"
    return f"{made.mean:.2f}{spread} ({made.n})"
