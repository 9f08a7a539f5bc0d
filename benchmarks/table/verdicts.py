"""Everything that is judged on the table, as one JSON document, and the tables of the page made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from benchmarks.table.judge import (
    Budget,
    Course,
    Search,
    budgets_of,
    judge_score,
    judge_search,
    lookup_regret,
)
from benchmarks.table.scores import SCORES, Sources
from benchmarks.table.searches import SEARCHES, in_order
from benchmarks.table.space import SEEDS, setting_of
from benchmarks.table.table import Table
from prunas.errors import InputError
from prunas.experiments.plan import make_plan
from prunas.experiments.search import search
from prunas.proposers.table import PROPOSERS
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.statistics.summary import summarise

__all__ = ["ADVANCE", "EVALUATIONS", "JUDGED", "judged", "markdown", "noise"]

EVALUATIONS, ADVANCE = 32, (1, 2, 4, 8, 16, 32)
"""Of every search, and after how many of them the page tells its regret."""

SEARCH_SEEDS = 9
"""Of every search: three for each seed of the table."""

JUDGED = (
    "precrop",
    "uniform",
    "taper",
    *(
        name
        for name, line in PROPOSERS.items()
        if line.kind == "automatic" and "kernel" not in line.dimensions
    ),
)
"""Proposers that are judged: the methods that find widths or blocks, and the controls that need no search."""


def judged(
    table: Table, data: Path | None, out: Path, say: Callable[[str], None], only: Sequence[str] = ()
) -> dict[str, Any]:
    """Judges every score, search and proposer.

    Args:
        table: The table.
        data: Folder of the data sets.
        out: Folder that holds the runs of dense networks.
        say: Told what is being judged.
        only: Names of the proposers that are judged; by default `JUDGED`.

    Raises:
        InputError: The data are not there, or a dense network cannot be trained.
    """
    setting, store = setting_of(data), Store(out, notice=say)
    budgets = budgets_of(table)
    document: dict[str, Any] = {
        "points": len(table.points),
        "about": dict(table.about),
        "noise": noise(table),
        "budgets": [
            {
                "keep": budget.keep,
                "points": len(budget.within),
                "best": len(budget.best(table.truth())),
                "widths_alone": regret_of_widths(budget),
            }
            for budget in budgets
        ],
        "scores": {},
        "searches": {},
    }
    searches: dict[str, Search] = dict(SEARCHES)
    for name, make in SCORES.items():
        say(f"score {name}")
        values = [_values(make(Sources(setting, store, seed)), table) for seed in range(SEEDS)]
        document["scores"][name] = [asdict(judge_score(table, own, budgets)) for own in values]
        searches[f"in the order of {name}"] = partial(_by_seed, values)
    losses = table.losses.shape[2]
    for epochs in range(1, losses):
        document["scores"][f"loss of epoch {epochs} of {losses}"] = [
            asdict(judge_score(table, -table.losses[:, seed, epochs - 1], budgets, unseen=seed))
            for seed in range(SEEDS)
        ]
    document["scores"]["one training"] = [
        asdict(judge_score(table, table.val[:, seed], budgets, unseen=seed)) for seed in range(SEEDS)
    ]
    for name, how in searches.items():
        say(f"search {name}")
        document["searches"][name] = [
            [_advance(judge_search(budget, how, seed, EVALUATIONS)) for seed in range(SEARCH_SEEDS)]
            for budget in budgets
        ]
    document["proposers"] = _proposers(table, only or JUDGED, data, store, say)
    return document


def regret_of_widths(budget: Budget) -> float:
    """What the best point that keeps every branch lacks of the best one: widths alone can do no more."""
    truth = budget.table.truth()[budget.within]
    return float(
        truth.max() - max(a for a, arch in zip(truth, budget.points, strict=True) if not arch.removed)
    )


def _advance(course: Course) -> dict[str, Any]:
    """A search's regret after each number of evaluations of `ADVANCE`, and its evaluations to the best."""
    return {"regret": [course.regret[n - 1] for n in ADVANCE], "needed": course.needed}


def _values(score: Callable[[Any], float], table: Table) -> Any:
    return np.array([score(arch) for arch in table.points])


def _by_seed(values: Sequence[Any], budget: Any, evaluate: Any, seed: int) -> None:
    in_order(values[seed % len(values)], budget, evaluate, seed)


def _proposers(
    table: Table, names: Sequence[str], data: Path | None, store: Store, say: Callable[[str], None]
) -> dict[str, Any]:
    """Regret of the points of every proposer, or why it has none."""
    verdicts: dict[str, Any] = {}
    for name in names:
        say(f"proposer {name}")
        companions = ("l1-global",) if "found" in PROPOSERS[name].needs else ()
        try:
            plan = make_plan(
                setting_of(data), (name, *companions), protocols=(), seeds=SEEDS, controls=False, dense=False
            )
            findings = search(plan, store, lambda: executor("serial", store))
        except InputError as error:
            verdicts[name] = {"problem": str(error)}
            continue
        rows, missing = [], 0
        points, seeds = findings.points.get(name, ()), findings.point_seeds.get(name, ())
        for made, seed in zip(points, seeds, strict=True):
            if made.architecture.digest not in table.place:
                missing += 1
                continue
            found = lookup_regret(table, made.architecture, made.target)
            rows.append({"keep": made.target.keep, "seed": seed, "flags": list(made.flags), **found})
        problem = "; ".join(findings.problems) or (
            f"{missing} points are not in the table" if missing else ""
        )
        verdicts[name] = {"points": rows, "problem": problem}
    return verdicts


def noise(table: Table) -> dict[str, float]:
    """What separates points, and what chance does: standard deviations, and Kendall's tau of two seeds."""
    pairs = list(combinations(range(table.val.shape[1]), 2))
    return {
        "between points": float(table.test.mean(1).std(ddof=1)),
        "between seeds": float(np.sqrt(table.test.var(1, ddof=1).mean())),
        "tau of two seeds": float(
            np.mean([kendalltau(table.test[:, a], table.test[:, b]).statistic for a, b in pairs])
        ),
        "lowest": float(table.truth().min()),
        "highest": float(table.truth().max()),
        "seconds": float(table.seconds.mean()),
    }


# The tables of the page


def markdown(document: Mapping[str, Any]) -> str:
    """The tables of the page."""
    keeps = [f"{budget['keep']:.0%}" for budget in document["budgets"]]
    some = [
        f"{keep} ({b['points']}, {b['best']})" for keep, b in zip(keeps, document["budgets"], strict=True)
    ]
    spread = document["noise"]
    about = document["about"]
    parts = [
        f"{document['points']} points; test accuracy {spread['lowest']:.2f} to {spread['highest']:.2f} %. "
        f"Standard deviation between points {spread['between points']:.2f}, between seeds of a point "
        f"{spread['between seeds']:.2f} points; Kendall's tau of two seeds {spread['tau of two seeds']:.2f}. "
        f"Budgets in MACs (points within, best 1 % of them): {', '.join(some)}. {', '.join(about['device'])}; "
        f"{'; '.join(about['versions'])}; {about['written']}.\n",
        "### Scores\n",
        _scores(document["scores"], keeps),
        "### Searches\n",
        _searches(document["searches"], keeps),
        "### Points that proposers answer\n",
        _points(document["proposers"], document["budgets"]),
    ]
    return "\n".join(parts)


def _scores(scores: Mapping[str, Sequence[Mapping[str, Any]]], keeps: Sequence[str]) -> str:
    lines = [
        "| score | tau | at equal MACs | "
        + " | ".join(f"regret at {keep}" for keep in keeps)
        + " | trainings to the best 1 % |",
        "| :-- | --: | --: |" + " --: |" * len(keeps) + " :-- |",
    ]
    for name, own in scores.items():
        equal = [each["tau_equal_cost"] for each in own]
        cells = [
            f"{np.mean([each['tau'] for each in own]):.2f}",
            "-" if None in equal else f"{np.mean(equal):.2f}",
            *(f"{np.mean([each['regret'][i] for each in own]):.2f}" for i in range(len(keeps))),
            " / ".join(f"{median(each['needed'][i] for each in own):g}" for i in range(len(keeps))),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _searches(searches: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], keeps: Sequence[str]) -> str:
    lines = [
        "| search | "
        + " | ".join(f"after {n}" for n in ADVANCE)
        + " | evaluations to the best 1 % at "
        + " / ".join(keeps)
        + " |",
        "| :-- |" + " --: |" * len(ADVANCE) + " :-- |",
    ]
    for name, by_budget in searches.items():
        courses = [course["regret"] for own in by_budget for course in own]
        means = [np.mean([course[i] for course in courses]) for i in range(len(ADVANCE))]
        reached = [_median([course["needed"] for course in own]) for own in by_budget]
        cells = [*(f"{value:.2f}" for value in means), " / ".join(reached)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _median(needed: Sequence[int | None]) -> str:
    """Median of the evaluations; `>` their number where fewer than half of the searches got there."""
    middle = median(EVALUATIONS + 1 if each is None else each for each in needed)
    return f"> {EVALUATIONS}" if middle > EVALUATIONS else f"{middle:g}"


def _points(proposers: Mapping[str, Mapping[str, Any]], budgets: Sequence[Mapping[str, Any]]) -> str:
    keeps = [budget["keep"] for budget in budgets]
    best = " | ".join(f"{budget['widths_alone']:.2f}" for budget in budgets)
    lines = [
        "| proposer | "
        + " | ".join(f"regret at {keep:.0%}" for keep in keeps)
        + " | share of the budget used | n |",
        "| :-- |" + " --: |" * len(keeps) + " :-- | --: |",
        f"| *the best point with all branches* | {best} | | |",
    ]
    for name, verdict in proposers.items():
        rows = verdict.get("points", [])
        if not rows:
            lines.append(f"| {name} |" + " - |" * len(keeps) + f" {verdict['problem']} | 0 |")
            continue
        cells = []
        for keep in keeps:
            regrets = [row["regret"] for row in rows if row["keep"] == keep]
            made = summarise(regrets) if regrets else None
            spread = "" if made is None or made.std is None else f" ± {made.std:.2f}"
            cells.append("-" if made is None else f"{made.mean:.2f}{spread}")
        reached = [row["reached"] for row in rows]
        seeds = len({row["seed"] for row in rows})
        lines.append(f"| {name} | {' | '.join(cells)} | {min(reached):.2f} to {max(reached):.2f} | {seeds} |")
    return "\n".join(lines) + "\n"
