"""How far a cheap score may be trusted: its rank correlation with trainings, and the regret of choosing by it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean
from typing import Any

from scipy.stats import kendalltau

from prunas.costs.target import Target
from prunas.results.rows import FINISHED, TrialRow
from prunas.statistics.inference import LEVEL
from prunas.statistics.summary import grouped
from prunas.statistics.text import Table, asked_text
from prunas.tasks.score import Score

__all__ = ["Proxy", "proxies", "proxy_table", "tau_interval"]

INTERVAL_FROM = 10
"""Pairs from which an interval is given: Fieller's approximation was found good from there on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One evaluator against trainings, over the candidates of one target that both scored.

    Attributes:
        evaluator: The evaluator, with its settings.
        asked: The target.
        cheap: What it says of each candidate, on the validation split.
        trained: Validation score of each after a whole training, mean over trainings.
        tau: Kendall's tau-b of the two; None where one of them is the same for all.
        low: Lower end of its interval at `LEVEL`; None of fewer than `INTERVAL_FROM` candidates.
        high: Upper end.
        regret: What the best candidate, trained, is better than the one that the evaluator would choose; 0 or
            more, in the unit of the score. Of several that it likes alike, their mean.
    """

    evaluator: str
    asked: Target
    cheap: tuple[float, ...]
    trained: tuple[float, ...]
    tau: float | None
    low: float | None
    high: float | None
    regret: float

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        scores = {"cheap": list(self.cheap), "trained": list(self.trained)}
        return asdict(self) | scores | {"asked": self.asked.to_json()}


def tau_interval(tau: float, pairs: int) -> tuple[float, float] | None:
    """Interval of Kendall's tau at `LEVEL`, by its inverse hyperbolic tangent.

    Fieller, Hartley & Pearson, Tests for rank correlation coefficients I, Biometrika 44, 1957: the transformed tau
    has a variance of 0.437 / (n - 4).

    Args:
        tau: In [-1, 1].
        pairs: How many pairs it is of.

    Returns:
        Its ends; None for fewer than `INTERVAL_FROM` pairs, and for -1 and 1, whose transform is infinite.
    """
    if pairs < INTERVAL_FROM or abs(tau) >= 1:
        return None
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(0.437 / (pairs - 4))
    centre = math.atanh(tau)
    return math.tanh(centre - half), math.tanh(centre + half)


def proxies(trials: Iterable[TrialRow], score: Score) -> list[Proxy]:
    """Every evaluator at every target where it and whole trainings scored at least two of the same candidates.

    Args:
        trials: Of searches of one space under one recipe, with and without evaluators.
        score: What their scores mean.
    """
    whole = [trial for trial in trials if trial.status == FINISHED and trial.fraction == 1]
    scored = grouped(whole, lambda trial: (trial.evaluator, trial.asked))
    found = []
    for (name, asked), own in scored.items():
        if not name:
            continue
        cheap, trained = _means(own), _means(scored.get(("", asked), []))
        shared = sorted(cheap.keys() & trained.keys())
        if len(shared) > 1:
            found.append(_proxy(name, asked, [cheap[a] for a in shared], [trained[a] for a in shared], score))
    return sorted(found, key=lambda each: (each.evaluator, -each.asked.value))


def _means(trials: Iterable[TrialRow]) -> dict[str, float]:
    by_point = grouped(
        (trial for trial in trials if trial.val_score is not None), lambda trial: trial.architecture
    )
    return {
        point: fmean(trial.val_score for trial in own if trial.val_score is not None)
        for point, own in by_point.items()
    }


def _proxy(name: str, asked: Target, cheap: Sequence[float], trained: Sequence[float], score: Score) -> Proxy:
    liked, gained = ([score.gain(value, 0.0) for value in values] for values in (cheap, trained))
    tau = float(kendalltau(liked, gained).statistic)
    known = None if math.isnan(tau) else round(tau, 12)  # ranks that agree give a little less than 1
    ends = None if known is None else tau_interval(known, len(cheap))
    chosen = [gain for like, gain in zip(liked, gained, strict=True) if like == max(liked)]
    return Proxy(
        evaluator=name,
        asked=asked,
        cheap=tuple(cheap),
        trained=tuple(trained),
        tau=known,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        regret=max(gained) - fmean(chosen),
    )


def proxy_table(found: Sequence[Proxy], score: Score) -> Table:
    """The numbers of evaluators as a table."""
    unit = f" {score.unit}" if score.unit else ""
    return Table(
        columns=("evaluator", "asked", "candidates", "tau", "95 % interval", f"regret{unit}"),
        align="llrrrr",
        rows=tuple(
            (
                each.evaluator,
                asked_text(each.asked),
                str(len(each.cheap)),
                "-" if each.tau is None else f"{each.tau:.2f}",
                "-" if each.low is None or each.high is None else f"{each.low:.2f} to {each.high:.2f}",
                f"{each.regret:.2f}",
            )
            for each in found
        ),
        notes=(
            "Kendall's tau-b of an evaluator's scores and those of the same candidates trained whole, both on the "
            "validation split; its interval after Fieller et al. (1957), from 10 candidates on. Regret: what the "
            "best of them is better, trained, than the one that the evaluator would choose.",
        ),
    )
