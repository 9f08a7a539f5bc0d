"""Means and their uncertainty: a line per proposer and target, differences of pairs, what searching cost."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, TypeVar

from prunas.costs.target import Target
from prunas.names import ROW_KINDS, RowKind
from prunas.results.rows import SearchCost, Spent, TrainingRow
from prunas.statistics.flags import count_flags
from prunas.statistics.inference import (
    LEVEL,
    UNBOUNDED,
    Bounds,
    gain_bounds,
    holm,
    paired_p,
    score_bounds,
    t_interval,
)
from prunas.tasks.score import Score

__all__ = [
    "LEVEL",
    "CostLine",
    "Difference",
    "Line",
    "Spread",
    "Summary",
    "comparisons",
    "cost_table",
    "differences",
    "grouped",
    "seed_order",
    "spent",
    "spread_of",
    "summarise",
    "table",
]

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A sample in three numbers, which take no distribution to compute.

    Attributes:
        mean: Of the sample.
        std: With n - 1 in the denominator; None for n = 1.
        n: Size of the sample, at least 1.
    """

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Spread):
    """A sample in five numbers: a `Spread` and the interval of its mean.

    Attributes:
        low: Lower end of the two-sided t interval of the mean, at `LEVEL`; see `t_interval`. None for n = 1 and
            where all values are equal, which is no certainty.
        high: Its upper end.
    """

    low: float | None
    high: float | None


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of a sample, of at least one value."""
    n = len(values)
    return Spread(mean=fmean(values), std=stdev(values) if n > 1 else None, n=n)


def summarise(values: Sequence[float], bounds: Bounds = UNBOUNDED) -> Summary:
    """Mean, standard deviation and t interval of a sample.

    Args:
        values: At least one.
        bounds: Between which the mean must lie, such as `score_bounds`: the interval ends there.
    """
    spread = spread_of(values)
    low, high = t_interval(values, bounds) or (None, None)
    return Summary(mean=spread.mean, std=spread.std, n=spread.n, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """All trainings of one proposer under one protocol at one target.

    The means are over the runs that have a test score, or over all runs where none has one yet.

    Attributes:
        proposer: Who proposed the points.
        kind: What sort of proposer that is.
        protocol: How the points were trained.
        masked: Whether the networks are masked; masked and narrow ones never share a line.
        asked: The target.
        params: Mean parameters reached.
        macs: Mean multiply-accumulates per image reached.
        score: Test score; None if no run has one.
        points: Every single test score, in order of the seeds.
        train_macs: Mean multiply-accumulates of one training.
        left_out: Runs without a test score: not finished, or not tested.
        flags: How many of the runs behind the means carry each flag, `chance_level` included.
        pruned: Mean validation score right after pruning, before any retraining, of the runs that inherit weights;
            None if none has one.
    """

    proposer: str
    kind: RowKind
    protocol: str
    masked: bool
    asked: Target
    params: float
    macs: float
    score: Summary | None
    points: tuple[float, ...]
    train_macs: float
    left_out: int
    flags: Mapping[str, int] = field(default_factory=dict, hash=False)
    pruned: float | None = None

    def to_json(self) -> dict[str, Any]:
        """One record, the numbers of `score` spread into it; None where there is no such number."""
        return _record(self, self.score, "score")


def table(rows: Iterable[TrainingRow], score: Score) -> list[Line]:
    """The table of a comparison, target by target from the largest, controls last within each.

    Args:
        rows: Trainings of one space under one recipe, in any order.
        score: What their scores mean.
    """
    lines = []
    for (proposer, kind, protocol, masked, asked), group in grouped(
        rows, lambda row: (row.proposer, row.kind, row.protocol, row.masked, row.asked)
    ).items():
        tested = sorted((row for row in group if row.score is not None), key=seed_order)
        counted = tested or group
        points = tuple(row.score for row in tested if row.score is not None)
        pruned = [row.pruned_score for row in counted if row.pruned_score is not None]
        lines.append(
            Line(
                proposer=proposer,
                kind=kind,
                protocol=protocol,
                masked=masked,
                asked=asked,
                params=fmean(row.reached.params for row in counted),
                macs=fmean(row.reached.macs for row in counted),
                score=summarise(points, score_bounds(score)) if points else None,
                points=points,
                train_macs=fmean(row.train_macs for row in counted),
                left_out=len(group) - len(tested),
                flags=count_flags(counted, score),
                pruned=fmean(pruned) if pruned else None,
            )
        )
    return sorted(lines, key=_reading_order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much better one proposer's points train than another's, at one target.

    Attributes:
        proposer: Whose points.
        against: Compared with whose.
        protocol: How both were trained.
        masked: Whether the networks are masked.
        asked: The target of both.
        seeds: The search seeds both have, ascending.
        values: One gain in the test score per seed, in its units; above 0 where `proposer` is better.
        summary: Of `values`.
        params_off: Parameters of the control over those of the proposer's point, minus 1, in the pair where they
            are furthest apart.
        macs_off: The same of the multiply-accumulates per image.
        p: Two-sided p value of the paired t test; None where the values have no spread.
        p_holm: The same, corrected over all differences that were asked for together.
    """

    proposer: str
    against: str
    protocol: str
    masked: bool
    asked: Target
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    summary: Summary
    params_off: float = 0.0
    macs_off: float = 0.0
    p: float | None = None
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        """One record, the numbers of `summary` spread into it."""
        return _record(self, self.summary, "summary")


def differences(
    rows: Iterable[TrainingRow], proposer: str, against: str = "taper", *, score: Score
) -> list[Difference]:
    """Differences paired by search seed, at every target both proposers were tested at.

    Several trainings of one proposer that share a search seed (draws of `shuffled`, say) count as their mean,
    so that a pair is one search against one control. Of several tapers of a seed, one for every pruning method,
    the one with the cost of the proposer's point counts.

    Args:
        rows: Trainings of one space under one recipe.
        proposer: Whose points are to be better.
        against: The control. `taper` is the primary one: it asks whether a search found more than "keep the
            early layers wide".
        score: What the scores of the rows mean.
    """
    return comparisons(rows, [proposer], [against], score=score)


def comparisons(
    rows: Iterable[TrainingRow],
    proposers: Sequence[str],
    controls: Sequence[str] = ("taper",),
    *,
    score: Score,
) -> list[Difference]:
    """The differences of several proposers from several controls, their p values corrected over all of them.

    Args:
        rows: Trainings of one space under one recipe.
        proposers: Whose points are to be better.
        controls: What each is compared with.
        score: What the scores of the rows mean.

    Returns:
        Control by control, proposer by proposer, target by target from the largest.
    """
    rows = list(rows)
    pairs = [(proposer, against) for against in controls for proposer in proposers]
    together = [each for proposer, against in pairs for each in _differences(rows, proposer, against, score)]
    adjusted = holm([each.p for each in together])
    return [dataclasses.replace(each, p_holm=p) for each, p in zip(together, adjusted, strict=True)]


def _differences(rows: Sequence[TrainingRow], proposer: str, against: str, score: Score) -> list[Difference]:
    paired = []
    tested = [row for row in rows if row.score is not None]
    groups = grouped(tested, lambda row: (row.asked, row.protocol, row.masked))
    for (asked, protocol, masked), group in groups.items():
        ours, theirs = _by_seed(group, proposer), _by_seed(group, against)
        seeds = tuple(sorted(ours.keys() & theirs.keys()))
        if not seeds:
            continue
        if against == "taper":
            theirs = {seed: _nearest(theirs[seed], ours[seed]) for seed in seeds}
        values = tuple(score.gain(_mean_score(ours[seed]), _mean_score(theirs[seed])) for seed in seeds)
        paired.append(
            Difference(
                proposer=proposer,
                against=against,
                protocol=protocol,
                masked=masked,
                asked=asked,
                seeds=seeds,
                values=values,
                summary=summarise(values, gain_bounds(score)),
                params_off=max((_params(theirs[s]) / _params(ours[s]) - 1 for s in seeds), key=abs),
                macs_off=max((_macs(theirs[s]) / _macs(ours[s]) - 1 for s in seeds), key=abs),
                p=paired_p(values),
            )
        )
    return sorted(paired, key=_target_order)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """What the answers of one search of a proposer rest on, mean over its seeds.

    Attributes:
        proposer: Who searched.
        n: Searches.
        trainings: Trainings that the answers of one search rest on.
        macs: Their multiply-accumulates.
        seconds: Their wall time.
        targets: Budgets that one search answers; None in records that do not say.
        seeds: Search seeds whose trainings one search rests on; None likewise.
        together: Trainings that all its searches rest on, those that they share counted once; None likewise.
        complete: Whether the cost of everything they rest on is known.
    """

    proposer: str
    n: int
    trainings: float
    macs: float
    seconds: float
    targets: float | None = None
    seeds: float | None = None
    together: int | None = None
    complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return dataclasses.asdict(self)


def cost_table(costs: Iterable[SearchCost]) -> list[CostLine]:
    """One line per proposer, the dearest first.

    Several records of one search (other targets, say) are one search: what they rest on counts once.
    """
    lines = []
    for proposer, own in grouped(costs, lambda cost: cost.proposer).items():
        itemised = [cost for cost in own if cost.rests_on is not None]
        group = list(map(_joined, grouped(itemised, lambda cost: cost.seed).values())) or own
        lines.append(
            CostLine(
                proposer=proposer,
                n=len(group),
                trainings=fmean(cost.trainings for cost in group),
                macs=fmean(cost.macs for cost in group),
                seconds=fmean(cost.seconds for cost in group),
                targets=fmean(len(cost.targets) for cost in group) if itemised else None,
                seeds=fmean(len(cost.seeds) for cost in group) if itemised else None,
                together=len(spent(group)) if itemised else None,
                complete=all(cost.complete for cost in group),
            )
        )
    return sorted(lines, key=lambda line: (-line.macs, line.proposer))


def spent(costs: Iterable[SearchCost]) -> tuple[Spent, ...]:
    """Every training that some searches rest on, once."""
    return tuple({each.id: each for cost in costs for each in cost.rests_on or ()}.values())


def _joined(costs: Sequence[SearchCost]) -> SearchCost:
    """Several records of one search, which have items, as one."""
    trainings = spent(costs)
    return dataclasses.replace(
        costs[0],
        macs=sum(each.macs for each in trainings),
        seconds=sum(each.seconds for each in trainings),
        trainings=len(trainings),
        rests_on=trainings,
        targets=tuple(dict.fromkeys(target for cost in costs for target in cost.targets)),
        seeds=tuple(sorted({seed for cost in costs for seed in cost.seeds})),
        complete=all(cost.complete for cost in costs),
    )


def grouped(values: Iterable[_V], key: Callable[[_V], _K]) -> dict[_K, list[_V]]:
    """The values that share a key, keys in order of appearance."""
    groups: dict[_K, list[_V]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def seed_order(row: TrainingRow) -> tuple[int, int, str]:
    """Sorting key: by search seed, then training seed."""
    return row.search_seed, row.train_seed, row.id


def _record(line: Line | Difference, summary: Summary | None, name: str) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for item in dataclasses.fields(line):
        value = getattr(line, item.name)
        if item.name == name:
            record |= dict.fromkeys(("mean", "std", "n", "low", "high"))
            record |= dataclasses.asdict(summary) if summary else {"n": 0}
        elif isinstance(value, Target):
            record[item.name] = value.to_json()
        else:
            record[item.name] = _plain(value)
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _by_seed(rows: Sequence[TrainingRow], proposer: str) -> dict[int, list[TrainingRow]]:
    return grouped((row for row in rows if row.proposer == proposer), lambda row: row.search_seed)


def _nearest(rows: Sequence[TrainingRow], points: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Those of `rows` whose cost is nearest to that of `points`; several only where they cost the same."""
    params, macs = _params(points), _macs(points)

    def apart(row: TrainingRow) -> float:
        return max(abs(row.reached.params / params - 1), abs(row.reached.macs / macs - 1))

    least = min(map(apart, rows))
    return [row for row in rows if apart(row) == least]


def _mean_score(rows: Sequence[TrainingRow]) -> float:
    return fmean(row.score for row in rows if row.score is not None)


def _params(rows: Sequence[TrainingRow]) -> float:
    return fmean(row.reached.params for row in rows)


def _macs(rows: Sequence[TrainingRow]) -> float:
    return fmean(row.reached.macs for row in rows)


def _target_order(line: Line | Difference) -> tuple[str, bool, str, int]:
    return line.protocol, line.masked, line.asked.metric, -line.asked.value


def _reading_order(line: Line) -> tuple[tuple[str, bool, str, int], int, str]:
    return _target_order(line), ROW_KINDS.index(line.kind), line.proposer
