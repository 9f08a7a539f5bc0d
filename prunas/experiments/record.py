"""What a search leaves behind for people and programs: one JSON document, its tables and its figure. Torch-free.

The run folders hold the trainings; this document says which of them belong together, who proposed what, and what
finding it cost. `compare` and `plot` read nothing else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas import SCHEMA
from prunas.costs.metrics import metric as named_metric
from prunas.costs.target import Target
from prunas.errors import InputError, unknown
from prunas.experiments.repeat import command_of, plan_document
from prunas.experiments.search import Findings, Plan
from prunas.experiments.steps import few_steps
from prunas.experiments.transfer import stage_notes
from prunas.files import digest, read_json, write_json
from prunas.proposers.registry import entry
from prunas.protocols import SCRATCH
from prunas.results.rows import Metric, SearchCost, TrainingRow, TrialRow
from prunas.runs.store import Store
from prunas.spaces.load import installed_spaces
from prunas.statistics import curves, summary, text
from prunas.statistics.alignment import alignment_table

if TYPE_CHECKING:
    from prunas.inspection.latency import Latency

__all__ = ["Record", "check_known", "committed_evidence", "load_records", "merge", "record_of", "save"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A search's outcome, or several of one setting merged.

    Attributes:
        space: Name of the space.
        data: Name of the data set.
        recipe: Name of the recipe.
        epochs: Its epochs.
        setting: Digest of recipe, data and network: only records that share it may share a table.
        rows: One per final training.
        dense: Trainings of the dense network.
        costs: What finding the points cost.
        trials: What samplers tried, search by search, in the order of proposals.
        notes: What a reader should know about the data.
        plan: What was asked, and the command that asks it again; see `prunas.experiments.repeat`. Empty where
            different searches are merged.
    """

    space: str
    data: str
    recipe: str
    epochs: int
    setting: str
    rows: tuple[TrainingRow, ...]
    dense: tuple[TrainingRow, ...]
    costs: tuple[SearchCost, ...]
    trials: tuple[TrialRow, ...] = ()
    notes: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def document(
        self, figures: Sequence[Path] = (), trained: int = 0, problems: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The record as `--json` prints it and as it is stored."""
        return {
            "schema": SCHEMA,
            "space": self.space,
            "data": self.data,
            "recipe": self.recipe,
            "epochs": self.epochs,
            "setting": self.setting,
            "plan": dict(self.plan),
            "runs": [row.to_json() for row in self.rows],
            "dense": [row.to_json() for row in self.dense],
            "table": [line.to_json() for line in summary.table(self.rows)],
            "differences": [d.to_json() for d in self.differences()],
            "cost": [cost.to_json() for cost in self.costs],
            "trials": [trial.to_json() for trial in self.trials],
            "figures": [str(path) for path in figures],
            "notes": list(self.notes),
            "trained": trained,
            "problems": list(problems),
        }

    @classmethod
    def from_document(cls, document: Any, source: Path) -> "Record":
        """The record in a stored document.

        Raises:
            InputError: It was written by another version, or is damaged.
        """
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise InputError(
                f"{source} was written by another version of prunas; repeat the search to replace it"
            )
        try:
            return cls(
                **{key: document[key] for key in ("space", "data", "recipe", "epochs", "setting")},
                rows=tuple(map(TrainingRow.from_json, document["runs"])),
                dense=tuple(map(TrainingRow.from_json, document["dense"])),
                costs=tuple(filter(_priced, map(SearchCost.from_json, document["cost"]))),
                trials=tuple(map(TrialRow.from_json, document.get("trials", ()))),
                notes=tuple(document["notes"]),
                plan=document.get("plan", {}),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{source} is damaged ({error}); repeat the search to replace it") from error

    def differences(self) -> list[summary.Difference]:
        """What was found against the tapered shape with its params and MACs, paired by seed."""
        found = [row.proposer for row in self.rows if row.kind in ("automatic", "sampler", "predefined")]
        return summary.comparisons(self.rows, list(dict.fromkeys(found)))

    def tables(
        self,
        write: Callable[[text.Table], str] = text.as_text,
        timed: "Mapping[str, Latency] | None" = None,
    ) -> str:
        """The tables a person reads.

        Args:
            write: Writes one table: `as_text`, `as_markdown` or `as_latex` of `prunas.statistics.text`.
            timed: Latency of every point by digest, if it was asked for.
        """
        results = text.result_table(summary.table(self.rows))
        if timed:
            from prunas.inspection.latency import with_latency

            results = with_latency(results, self.rows, timed)
        parts = [write(results)]
        if differences := self.differences():
            parts.append(write(text.difference_table(differences)))
        if self.costs:
            parts.append(write(text.cost_text(summary.cost_table(self.costs))))
        if any(row.proposed for row in self.rows):
            parts.append(write(alignment_table(self.rows)))
        return "\n".join(parts)

    def draw(self, folder: Path, metric: Metric = "params") -> tuple[Path, ...]:
        """The efficiency figure as SVG and PNG; nothing if no run has been tested.

        Args:
            folder: Where the files go.
            metric: What the x axis counts.
        """
        drawn = curves.curves(self.rows, metric)
        if not drawn:
            return ()
        from prunas.report.efficiency import draw_efficiency

        dense = curves.dense_accuracy(self.dense)
        return draw_efficiency(
            drawn,
            folder,
            space=self.space,
            data=self.data,
            recipe=self.recipe,
            epochs=self.epochs,
            dense=dense.mean if dense else None,
            left_out=curves.undrawn(self.rows),
            name="efficiency" if metric == "params" else f"efficiency-{metric}",
        )


def record_of(plan: Plan, findings: Findings) -> Record:
    """The record of a search."""
    setting, notes = plan.setting, plan.setting.notes
    if plan.align is not None:
        to, mode = plan.align
        notes += (f"widths were aligned to multiples of {to} ({mode}) after they were proposed",)
    if few := few_steps(
        setting, plan.protocols, any("dense" in entry(name).needs for name in plan.proposers)
    ):
        notes += (few,)
    if plan.source is not None:
        notes += stage_notes(plan.source.space, setting.space, plan.proposers)
    return Record(
        space=setting.space.name,
        data=setting.data,
        recipe=setting.recipe.name,
        epochs=setting.recipe.epochs,
        setting=setting_digest(plan),
        rows=findings.rows,
        dense=findings.dense,
        costs=findings.costs,
        trials=findings.trials,
        notes=notes,
        plan=plan_document(plan) | {"command": command_of(plan)},
    )


def setting_digest(plan: Plan) -> str:
    """Twelve hex digits over what rows must share to be compared."""
    setting = plan.setting
    shared: list[Any] = [setting.space.survey.fingerprint, setting.recipe.identity, setting.identity]
    if setting.dense_training != SCRATCH:  # what is found in another dense network is not the same finding
        shared.append(setting.dense_training.name)
    identities = {named_metric(target.metric).identity for target in plan.targets} - {""}
    shared += sorted(identities)  # budgets of other measurements are other budgets
    if plan.align is not None:
        shared.append(list(plan.align))
    return digest(shared)


def save(record: Record, document: dict[str, Any], root: Path, plan: Plan) -> Path:
    """Stores a search's document under a name that its plan decides, so that a repeated search replaces it."""
    key = digest([record.setting, plan_document(plan)])
    path = root / record.space / "searches" / f"{key}.json"
    write_json(path, document)
    return path


def load_records(root: Path, space: str | None = None) -> list[Record]:
    """Every stored search, merged by setting.

    Args:
        root: The folder given as --out.
        space: Only this space's.

    Raises:
        InputError: There is none, one is damaged, or the folder is no store that this version reads.
    """
    Store(root, notice=lambda text: None)
    paths = sorted(root.glob("*/searches/*.json"))
    searched = {path.parent.parent.name for path in paths}
    if space is not None and space not in searched and not (root / space).is_dir():
        check_known(space, searched, root)
    chosen = [path for path in paths if space in (None, path.parent.parent.name)]
    if not chosen:
        what = f"space {space!r}" if space else "any space"
        command = f"prunas search {space}" if space else "prunas search"
        raise InputError(f"{root} holds no finished search of {what}; run `{command}` first")
    return merge([Record.from_document(read_json(path), path) for path in chosen])


def check_known(space: str, stored: Iterable[str], root: Path) -> None:
    """Refuses a name that neither a stored space nor a bundled or installed one has, with the nearest ones.

    Args:
        space: What the user typed.
        stored: Names of the spaces that have something in `root`.
        root: The folder given as --out.

    Raises:
        InputError: Nothing is called so.
    """
    names, offered = set(stored), installed_spaces()[0]
    if space in names or space in offered:
        return
    if names:
        raise unknown(f"space in {root}:", space, names)
    raise unknown("space", space, offered)


def committed_evidence() -> dict[str, Record]:
    """What was measured on the study's questions and committed, by protocol and cell: `reduced/efficiency-left`.

    It lies inside an installed package, or in `benchmarks/reproduce/results` of a checkout.
    """
    package = Path(__file__).parent.parent
    inside = package / "evidence"
    folder = inside if inside.is_dir() else package.parent / "benchmarks" / "reproduce" / "results"
    return {
        f"{path.parent.name}/{path.stem}": Record.from_document(read_json(path), path)
        for path in sorted(folder.glob("*/*.json"))
    }


def merge(records: Iterable[Record]) -> list[Record]:
    """One record per setting; what two searches share is counted once.

    Designs that were carried over from several spaces are told apart by name.
    """
    merged: dict[tuple[str, str], Record] = {}
    for record in _told_apart(list(records)):
        key = (record.space, record.setting)
        before = merged.get(key, record)
        merged[key] = Record(
            space=record.space,
            data=record.data,
            recipe=record.recipe,
            epochs=record.epochs,
            setting=record.setting,
            rows=_once(before.rows + record.rows),
            dense=_once(before.dense + record.dense),
            costs=tuple(dict.fromkeys(before.costs + record.costs)),
            trials=_courses(before.trials, record.trials),
            notes=tuple(dict.fromkeys(before.notes + record.notes)),
            plan=record.plan if before.plan == record.plan else {},
        )
    return list(merged.values())


def _told_apart(records: Sequence[Record]) -> list[Record]:
    """The records, `transferred` renamed to `transferred from SPACE` where a setting has it from several."""
    sources: dict[str, set[tuple[str, bool]]] = {}
    for record in records:
        if source := record.plan.get("source"):
            sources.setdefault(record.setting, set()).add((source["space"], source["shipped"]))
    return [
        _renamed(record) if record.plan.get("source") and len(sources[record.setting]) > 1 else record
        for record in records
    ]


def _renamed(record: Record) -> Record:
    source = record.plan["source"]
    where = source["space"] + (" (shipped)" if source["shipped"] else "")

    def named(name: str) -> str:
        return f"{name} from {where}" if "source" in entry(name).needs else name

    return replace(
        record,
        rows=tuple(replace(row, proposer=named(row.proposer)) for row in record.rows),
        costs=tuple(replace(cost, proposer=named(cost.proposer)) for cost in record.costs),
    )


def _priced(cost: SearchCost) -> bool:
    """Whether a stored cost holds all that its search rests on.

    Records from before prices held the searches that an answer rests on gave those trainings to nobody but the
    searches themselves: there, a control that answers found points costs nothing.
    """
    return cost.rests_on is not None or not {"found", "found-by-others", "source"} & set(
        entry(cost.proposer).needs
    )


def _once(rows: Iterable[TrainingRow]) -> tuple[TrainingRow, ...]:
    """Rows without repetitions; the later one wins, for it may be finished by now."""
    return tuple({(r.id, r.proposer, r.asked, r.search_seed, r.flags): r for r in rows}.values())


def _courses(*several: Iterable[TrialRow]) -> tuple[TrialRow, ...]:
    """Each search's trials once: of a search that several hold, those of the one that tried most."""
    longest: dict[tuple[str, int, Target], list[TrialRow]] = {}
    for trials in several:
        courses: dict[tuple[str, int, Target], list[TrialRow]] = {}
        for trial in trials:
            courses.setdefault((trial.proposer, trial.search_seed, trial.asked), []).append(trial)
        for key, course in courses.items():
            longest[key] = max(longest.get(key, []), course, key=len)
    return tuple(trial for course in longest.values() for trial in course)
