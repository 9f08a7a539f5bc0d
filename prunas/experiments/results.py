"""What searches and trainings answer: values that print, draw and choose from what is stored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError, unknown
from prunas.files import read_stored
from prunas.report.headline import findings, in_one_sentence
from prunas.results.record import Record
from prunas.results.rows import TrainingRow
from prunas.runs.execute import Outcome
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.statistics import summary, tables, text
from prunas.statistics.curves import dense_score
from prunas.statistics.text import as_html

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Best", "SearchResult", "TrainingResult"]

WRITERS: Mapping[str, Callable[[text.Table], str]] = {
    "text": text.as_text,
    "markdown": text.as_markdown,
    "latex": text.as_latex,
}


@dataclass(frozen=True, slots=True)
class Best:
    """The point that a search chooses for a target.

    Attributes:
        architecture: The point.
        row: Its final training, the first where there are several. The choice does not rest on its test score.
        val_score: The score on the validation split that chose it.
        unranked: Proposers with points at this target that have no validation score, and cannot be chosen.
    """

    architecture: Architecture
    row: TrainingRow
    val_score: float
    unranked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found, or all searches of one setting.

    Attributes:
        record: Rows, costs, trials and notes: all that is stored.
        root: The folder that holds the runs.
        figures: Files that were drawn.
        trained: Trainings done by this call.
        stopped: Whether the search was asked to stop. The same call continues; nothing but its runs is stored.
        searched: The space that was searched; None where the result was read from a folder.
    """

    record: Record
    root: Path
    figures: tuple[Path, ...] = ()
    trained: int = 0
    stopped: bool = False
    searched: SearchSpace | None = field(default=None, repr=False, compare=False)

    @property
    def rows(self) -> tuple[TrainingRow, ...]:
        """One per final training."""
        return self.record.rows

    @property
    def space(self) -> SearchSpace:
        """The space; of a result that was read, as its trainings know it: without data, recipe and targets.

        Raises:
            InputError: There are no trainings, or the space has changed since.
        """
        if self.searched is not None:
            return self.searched
        for row in (*self.rows, *self.record.dense):
            return load_space(self._spec(row)["space"])
        raise InputError(f"no training of space {self.record.space!r} was begun")

    @property
    def problems(self) -> tuple[str, ...]:
        """Why something is missing, one line each."""
        return self.record.problems

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is there."""
        return not self.problems and all(row.status == "finished" for row in self.rows)

    @property
    def document(self) -> dict[str, Any]:
        """What `--json` prints and what is stored."""
        return tables.document(self.record, self.figures, self.trained)

    @property
    def sentence(self) -> str:
        """What was found, in one sentence: every proposer against the first control, with its interval."""
        dense = dense_score(self.record.dense, self.record.score)
        found = findings(self.rows, dense.mean if dense else None, self.record.score)
        return in_one_sentence(found, self.record.score)

    def table(self, form: str = "text") -> str:
        """The tables a person reads.

        Args:
            form: `text`, `markdown` or `latex`.

        Raises:
            InputError: There is no such form.
        """
        if form not in WRITERS:
            raise unknown("form of a table", form, WRITERS)
        return tables.tables(self.record, WRITERS[form])

    def frame(self) -> "DataFrame":
        """Every final training as a row of a pandas data frame, the dense ones last; needs pandas.

        Raises:
            ModuleNotFoundError: It is not installed.
        """
        import pandas

        rows = [
            {
                "proposer": row.proposer,
                "kind": row.kind,
                "asked": row.asked.label,
                "metric": row.asked.metric,
                "protocol": row.protocol,
                "search_seed": row.search_seed,
                "train_seed": row.train_seed,
                "params": row.reached.params,
                "macs": row.reached.macs,
                "epochs": row.epochs,
                "train_macs": row.train_macs,
                "score": row.score,
                "val_score": row.val_score,
                "masked": row.masked,
                "flags": ", ".join(row.all_flags(self.record.score)),
                "status": row.status,
                "architecture": row.architecture,
                "run": row.id,
                "folder": row.folder,
            }
            for row in (*self.rows, *self.record.dense)
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(row.proposer for row in self.rows))
        return (
            f"<SearchResult {self.record.space} on {self.record.data}: {len(self.rows)} trainings of {names}>"
        )

    def _repr_html_(self) -> str:
        lines = summary.table(self.rows, self.record.score)
        return (
            f"<p>{escape(self.sentence)}</p>{as_html(text.result_table(lines, self.record.score))}"
            if lines
            else f"<p>{escape(repr(self))}</p>"
        )

    def lines(self) -> list[dict[str, Any]]:
        """One mapping per line of the table of results: proposer, target and protocol, unrounded."""
        return [line.to_json() for line in summary.table(self.rows, self.record.score)]

    def plot(self, path: Path | str, metric: str = "params") -> Path:
        """Draws the efficiency figure.

        Args:
            path: The file; its suffix decides its format, such as `.svg` or `.png`.
            metric: What the x axis counts: `params` or `macs`.

        Raises:
            InputError: No run has been tested, or the file cannot be written.
        """
        from prunas.report.efficiency import record_figure
        from prunas.report.figure import save_as
        from prunas.statistics.curves import undrawn

        if metric not in ("params", "macs"):
            raise unknown("metric of a plot", metric, ("params", "macs"))
        figure = record_figure(self.record, metric)  # type: ignore[arg-type]  # checked above
        if figure is None:
            why = "; ".join(undrawn(self.rows, self.record.score)) or "no run is there yet"
            raise InputError(f"nothing to plot; left out: {why}")
        return save_as(figure, Path(path))

    def best(self, keep: float | None = None, budget: int | str | None = None) -> Best:
        """The point of a target with the best score on the validation split.

        Final trainings meet the test split and have no validation score, so that only points which a sampler tried
        can be told apart without looking at the test split; the others are named as `unranked`.

        Args:
            keep: The target as a fraction; needed only where there are several targets.
            budget: The target as a number, such as `1.2M`.

        Raises:
            InputError: There is no such target, or none of its points has a validation score.
        """
        target = self._target(keep, budget)
        rows = [row for row in self.rows if row.asked == target]
        scores = {
            trial.architecture: trial.val_score
            for trial in self.record.trials
            if trial.asked == target and trial.fraction == 1 and trial.val_score is not None
        }
        # What was tried is the point as proposed, before its widths were aligned.
        ranked = [(scores[shape], row) for row in rows if (shape := _proposed(row)) in scores]
        if not ranked:
            raise InputError(
                f"no point at {target.label} has a validation score, and nothing is chosen by its test score; add "
                "a sampler to the search, such as tpe"
            )
        better = max if self.record.score.better == "higher" else min
        score, row = better(ranked, key=lambda pair: pair[0])
        others = dict.fromkeys(row.proposer for row in rows if _proposed(row) not in scores)
        architecture = Architecture.from_json(self._spec(row)["architecture"])
        return Best(architecture, row, score, tuple(others))

    def _target(self, keep: float | None, budget: int | str | None) -> Target:
        targets = list(dict.fromkeys(row.asked for row in self.rows))
        value = Target.parse(budget) if isinstance(budget, str) else budget
        matching = [
            target
            for target in targets
            if (keep is None or target.keep == keep) and (value is None or target.value == value)
        ]
        if len(matching) != 1:
            labels = ", ".join(target.label for target in targets) or "none"
            raise InputError(
                f"best() needs one target of this search, by keep or budget; there are: {labels}"
            )
        return matching[0]

    def _spec(self, row: TrainingRow) -> Mapping[str, Any]:
        """What was trained, and how, as the folder of the run says."""
        folder = Path(row.folder)
        folder = folder if folder.is_dir() else self.root / self.record.space / folder.name
        spec: Mapping[str, Any] = read_stored(folder / "job.json")["spec"]
        return spec


def _proposed(row: TrainingRow) -> str:
    return row.architecture if row.proposed is None else row.proposed.digest


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """One training of one point.

    Attributes:
        row: Its row, whatever became of it.
        outcome: How the attempt ended.
        folder: Of the run; its weights are in it.
    """

    row: TrainingRow
    outcome: Outcome
    folder: Path
