"""Everything a report rests on: the rows of a search, and what the run folders say about them."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from prunas import designs
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.designs.kernels import frequencies
from prunas.errors import InputError
from prunas.files import check_format, read_json
from prunas.names import SEARCHERS
from prunas.results.record import Record
from prunas.results.rows import SearchCost, TrainingRow
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.statistics.claims import controls_of
from prunas.statistics.curves import dense_score
from prunas.statistics.patterns import PatternSpread, pattern_spread
from prunas.statistics.retraining import RetrainingCurve, course_protocols, courses
from prunas.statistics.summary import grouped
from prunas.statistics.widths import Agreement, WidthSpread, agreement, width_spread
from prunas.tasks.score import Score

__all__ = ["Evidence", "Layer", "Losses", "RunFolder", "gather"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One number that the space lets vary.

    Attributes:
        name: Of the group or gate.
        stage: Its stage.
        dense: The number in the dense network.
    """

    name: str
    stage: int
    dense: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """What a run's folder says.

    Attributes:
        folder: Where it lies.
        job: The content of its job.json, or else what its result.json repeats of it; {} if neither can be read.
        result: The content of its result.json, {} if it has not finished.
        widths: One number per layer of the space, () if the space cannot be loaded any more.
        stored: In what the point differs from the dense network, as text.
        kernels: Keep frequency of every kernel position by stage and kernel size, such as `2/3x3`; {} if the point
            has no kernel pattern, or the space cannot be loaded any more.
    """

    folder: Path
    job: Mapping[str, Any]
    result: Mapping[str, Any]
    widths: tuple[int, ...]
    stored: str
    kernels: Mapping[str, Sequence[float]]

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was trained, and how."""
        spec: Mapping[str, Any] = self.job.get("spec", {})
        return spec

    @property
    def values(self) -> Mapping[str, Any]:
        """What the training measured."""
        values: Mapping[str, Any] = self.result.get("result", {})
        return values

    def losses(self) -> tuple[float, ...]:
        """Training loss of every epoch in its log; what comes after a value that is no loss is left out."""
        try:
            text = (self.folder / "log.jsonl").read_text(encoding="utf-8")
        except OSError:
            return ()
        by_epoch: dict[int, float] = {}
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                by_epoch[entry["epoch"]] = entry["loss"]  # an epoch repeated after a stop replaces the first
            except (ValueError, KeyError, TypeError):
                break  # the last line of a run that was killed
        found = []
        for epoch in sorted(by_epoch):
            if not (isinstance(by_epoch[epoch], float) and 0 < by_epoch[epoch] < math.inf):
                break
            found.append(by_epoch[epoch])
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """One training as its log tells it.

    Attributes:
        proposer: Who proposed the point.
        protocol: How it was trained.
        asked: Its target.
        losses: Mean training loss of every epoch, finite and above 0.
    """

    proposer: str
    protocol: str
    asked: Target
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One setting: everything that was compared under it.

    Attributes:
        record: What its searches found, as one record.
        searches: The stored documents of the searches.
        layers: What the space lets vary, () if it cannot be loaded any more.
        maps: Size of each stage's maps, such as `32x32`, () likewise.
        uniform: Widths of the uniform shape at each target at which widths were searched.
        runs: What the folders say, by id of the run, dense runs included.
        space: The search space, None if it cannot be loaded any more.
    """

    record: Record
    searches: tuple[Mapping[str, Any], ...]
    layers: tuple[Layer, ...]
    maps: tuple[str, ...]
    uniform: Mapping[Target, tuple[int, ...]]
    runs: Mapping[str, RunFolder]
    space: SearchSpace | None = None

    def picture(self, run: str) -> str:
        """The shape of a run as an SVG document; empty if its space cannot be loaded any more, or it does not fit.

        Args:
            run: Its id.
        """
        document = self.runs[run].spec.get("architecture")
        if self.space is None or document is None:
            return ""
        try:
            return str(self.space.picture(Architecture.from_json(document)))
        except InputError:
            return ""

    @property
    def rows(self) -> tuple[TrainingRow, ...]:
        """One per final training."""
        return self.record.rows

    @property
    def dense(self) -> tuple[TrainingRow, ...]:
        """Trainings of the dense network."""
        return self.record.dense

    @property
    def costs(self) -> tuple[SearchCost, ...]:
        """What finding the points cost."""
        return self.record.costs

    @property
    def score(self) -> Score:
        """What the scores of the rows mean."""
        return self.record.score

    @property
    def setting(self) -> str:
        """Space, data set and recipe in words."""
        record = self.record
        return f"{record.space} on {record.data}, recipe {record.recipe} ({record.epochs} epochs)"

    @property
    def dense_mean(self) -> float | None:
        """Mean test score of the dense network, if it was tested."""
        summary = dense_score(self.dense, self.score)
        return summary.mean if summary else None

    def spreads(self) -> list[WidthSpread]:
        """Widths per layer, by target from the largest and by proposer; masked networks are left out."""
        readable = [row for row in self.rows if self.layers and not row.masked and self.runs[row.id].widths]
        dense = [layer.dense for layer in self.layers]
        ordered = sorted(readable, key=lambda row: (row.asked.metric, -row.asked.value))
        groups = grouped(ordered, lambda row: (row.asked, row.proposer))
        return [
            width_spread(proposer, asked, _distinct(self.runs, own), dense)
            for (asked, proposer), own in groups.items()
        ]

    def agreements(self) -> list[Agreement]:
        """How far searches with different seeds agree, against every other proposer of the same target.

        The uniform shape is always among the others. By target from the largest; points whose blocks were removed
        are left out, for widths say little about them.
        """
        rows = [
            row
            for row in self.rows
            if not row.masked
            and self.runs[row.id].widths
            and not self.runs[row.id].spec["architecture"].get("removed")
        ]
        dense = [layer.dense for layer in self.layers]
        found = []
        rows.sort(key=lambda row: (row.asked.metric, -row.asked.value))
        for asked, group in grouped(rows, lambda row: row.asked).items():
            shapes = {
                name: {
                    seed: _distinct(self.runs, some)
                    for seed, some in grouped(own, lambda row: row.search_seed).items()
                }
                for name, own in grouped(group, lambda row: row.proposer).items()
            }
            if asked in self.uniform:
                seeds = {row.search_seed for row in group}
                shapes.setdefault("uniform", {seed: [self.uniform[asked]] for seed in seeds})
            for name, other in permutations(shapes, 2):
                if name != "uniform":
                    found.append(agreement(name, other, asked, shapes[name], shapes[other], dense))
        return [each for each in found if each is not None]

    def search_agreements(self) -> list[Agreement]:
        """How far found shapes agree, against what a claim of agreement must name: uniform and the controls."""
        finders = {row.proposer for row in self.rows if row.kind in SEARCHERS}
        return [
            each
            for each in self.agreements()
            if each.proposer in finders and each.against in ("uniform", *controls_of(each.proposer))
        ]

    def patterns(self) -> list[PatternSpread]:
        """Patterns of 3x3 kernels that were found, or read without training; by target and by proposer."""
        finders = {row.proposer for row in self.rows if row.kind in SEARCHERS}
        shown = finders.union(*map(controls_of, finders))
        readable = [row for row in self.rows if row.proposer in shown and self.runs[row.id].kernels]
        ordered = sorted(readable, key=lambda row: (row.asked.metric, -row.asked.value))
        groups = grouped(ordered, lambda row: (row.asked, row.proposer))
        found = []
        for (asked, proposer), own in groups.items():
            points = {(row.search_seed, row.architecture): self.runs[row.id].kernels for row in own}
            found.append(pattern_spread(proposer, asked, list(points.values())))
        return [each for each in found if each is not None]

    def budgets(self) -> list[RetrainingCurve]:
        """How well points retrain by budget, where several budgets were tried."""
        return courses(self.rows, self.score)

    def logs(self) -> list[Losses]:
        """Training losses of all final trainings but those of a retraining budget, by target from the largest."""
        of_courses = course_protocols(self.rows)
        rows = [row for row in self.rows if row.protocol not in of_courses]
        ordered = sorted(rows, key=lambda row: (row.protocol, row.asked.metric, -row.asked.value))
        return [
            Losses(
                proposer=row.proposer,
                protocol=row.protocol,
                asked=row.asked,
                losses=self.runs[row.id].losses(),
            )
            for row in ordered
        ]


def _distinct(runs: Mapping[str, RunFolder], rows: Iterable[TrainingRow]) -> list[tuple[int, ...]]:
    """Widths of the points of one proposer, each once however many trainings it had."""
    return list({(row.search_seed, row.architecture): runs[row.id].widths for row in rows}.values())


def gather(out: Path, record: Record) -> Evidence:
    """Reads what the run folders add to a record.

    A folder that is gone, a space that has changed since: both leave gaps in the evidence, never an error.

    Args:
        out: The folder that holds all runs; tried where a row's own folder has moved.
        record: All that was found under one setting.

    Raises:
        InputError: A folder was written in another format version.
    """
    rows = record.rows
    found: dict[str, tuple[Path, Mapping[str, Any], Mapping[str, Any]]] = {}
    for row in (*rows, *record.dense):
        if row.id not in found:
            folder = _folder(row, out / record.space)
            result = _read(folder / "result.json")
            found[row.id] = folder, _read(folder / "job.json") or result, result  # a result repeats its job
    loaded = _space(job for _, job, _ in found.values())
    shapes: dict[str, tuple[tuple[int, ...], Mapping[str, Sequence[float]]]] = {}
    runs = {}
    for run, (folder, job, result) in found.items():
        document = job.get("spec", {}).get("architecture")
        key = json.dumps(document)
        if key not in shapes:
            shapes[key] = _shape(document, loaded)
        widths, kernels = shapes[key]
        stored = _stored(document)
        runs[run] = RunFolder(
            folder=folder, job=job, result=result, widths=widths, stored=stored, kernels=kernels
        )
    searches = [_read(path) for path in sorted((out / record.space / "searches").glob("*.json"))]
    searches = [document for document in searches if document.get("setting") == record.setting]
    return Evidence(
        record=record,
        searches=tuple(searches),
        layers=tuple(Layer(d.name, d.stage, d.dense) for d in loaded.dimensions) if loaded else (),
        maps=tuple("x".join(map(str, size)) or "head" for size in loaded.survey.stages) if loaded else (),
        uniform=_uniform(loaded, [row.asked for row in rows if not row.masked]) if loaded else {},
        runs=runs,
        space=loaded,
    )


def _folder(row: TrainingRow, root: Path) -> Path:
    folder = Path(row.folder)
    return folder if folder.is_dir() else root / folder.name


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = read_json(path)
    except InputError:
        return {}
    if not isinstance(document, dict):
        return {}
    if "format" in document:
        check_format(document, path.parent)
    return document


def _space(jobs: Iterable[Mapping[str, Any]]) -> SearchSpace | None:
    for job in jobs:
        if "spec" in job:
            try:
                return load_space(job["spec"]["space"])
            except InputError:
                return None
    return None


def _shape(document: Any, space: SearchSpace | None) -> tuple[tuple[int, ...], Mapping[str, Sequence[float]]]:
    """Widths and kernel frequencies of a point."""
    if space is None or document is None:
        return (), {}
    try:
        point = Architecture.from_json(document)
        space.check(point)
    except InputError:
        return (), {}
    kernels = frequencies(space, [point]) if point.masked else {}
    return tuple(space.counts(point).tolist()), {key: values.tolist() for key, values in kernels.items()}


def _uniform(space: SearchSpace, targets: Iterable[Target]) -> dict[Target, tuple[int, ...]]:
    return {
        target: tuple(space.counts(designs.uniform(space, target)).tolist())
        for target in dict.fromkeys(targets)
    }


def _stored(document: Any) -> str:
    if not isinstance(document, dict):
        return ""
    parts = [f"{name} {width}" for name, width in document.get("widths", {}).items()]
    parts += [f"{gate} lets {len(passing)} through" for gate, passing in document.get("selected", {}).items()]
    parts += [f"{block} removed" for block in document.get("removed", ())]
    parts += ["kernel pattern"] if "kernels" in document else []
    return ", ".join(parts)
