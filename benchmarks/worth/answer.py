"""From what was measured to the answer: arithmetic on JSON values, without torch."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from scipy.stats import kendalltau

from prunas.statistics.inference import Bounds, gain_bounds, score_bounds
from prunas.statistics.summary import summarise
from prunas.statistics.text import count
from prunas.tasks.score import ACCURACY

__all__ = [
    "SPLITS",
    "answer",
    "crossing",
    "curves",
    "markdown",
    "point_macs",
    "pruning_costs",
    "pruning_tests",
]

SPLITS = (1, 3, 10)
"""Targets that share the cost of one dense training."""

RESTS_ON = {"taper": "slimming"}
"""Whose points a control answers: it trains nothing itself, and has nothing to answer before they are found."""
RANK_CORRELATION: Bounds = (-1.0, 1.0)
_GAINS = gain_bounds(ACCURACY)


def tests_of(found: Mapping[str, Any]) -> dict[tuple[int, str], float]:
    """Mean test accuracy in percent of the fresh trainings, by search and point."""
    return {(entry["search"], entry["architecture"]): fmean(entry["test"]) for entry in found["tests"]}


def curves(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """One list per sampler, a course per search: test accuracy of the best and MACs spent, after every trial.

    The MACs are those of the trials; `before`, what finding the start cost, stands beside them. A search that has
    run out of new shapes stays where it is.
    """
    tests = tests_of(found)
    length = max(len(course["trials"]) for course in found["courses"])
    drawn: dict[str, list[dict[str, Any]]] = {}
    for course in found["courses"]:
        spent, macs = 0, []
        for trial in course["trials"]:
            spent += trial["training macs"]
            macs.append(spent)
        accuracy = [tests[course["search"], trial["best"]] for trial in course["trials"]]
        missing = length - len(macs)
        own = {
            "search": course["search"],
            "before": course["before"],
            "accuracy": accuracy + accuracy[-1:] * missing,
            "macs": macs + macs[-1:] * missing,
        }
        drawn.setdefault(course["proposer"], []).append(own)
    return drawn


def _by_search(found: Mapping[str, Any]) -> dict[int, list[Mapping[str, Any]]]:
    own: dict[int, list[Mapping[str, Any]]] = {}
    for entry in found["pruned"]:
        own.setdefault(entry["search"], []).append(entry)
    return dict(sorted(own.items()))


def pruning_tests(found: Mapping[str, Any]) -> dict[str, list[float]]:
    """Test accuracies of slimming, one per search: at its first pull, and at the pull that validates best."""
    tests = tests_of(found)
    searches = _by_search(found)
    tuned = {s: max(own, key=lambda entry: entry["val"]) for s, own in searches.items()}
    return {
        "slimming": [tests[s, own[0]["architecture"]] for s, own in searches.items()],
        "slimming, tuned": [tests[s, tuned[s]["architecture"]] for s in searches],
    }


def pruning_costs(found: Mapping[str, Any], split: int) -> dict[str, float]:
    """Training MACs of one slimming search for one target, when `split` targets share its dense trainings.

    Untuned, that is one dense training. Tuned, one for each pull, and a trial of each pull's point besides.
    """
    searches = _by_search(found).values()
    return {
        "slimming": fmean(own[0]["dense training macs"] for own in searches) / split,
        "slimming, tuned": fmean(
            sum(entry["dense training macs"] / split + entry["training macs"] for entry in own)
            for own in searches
        ),
    }


def point_macs(found: Mapping[str, Any]) -> dict[str, float]:
    """MACs per image of what each proposer answers in the end, mean over the searches."""
    searches = _by_search(found)
    tuned = [max(own, key=lambda entry: entry["val"]) for own in searches.values()]
    macs = {
        "slimming": [own[0]["macs"] for own in searches.values()],
        "slimming, tuned": [entry["macs"] for entry in tuned],
    }
    for entry in found["fixed"]:
        macs.setdefault(entry["proposer"], []).append(entry["macs"])
    for course in found["courses"]:
        tried = course["trials"]
        best = next(trial for trial in tried if trial["architecture"] == tried[-1]["best"])
        macs.setdefault(course["proposer"], []).append(best["macs"])
    return {name: fmean(values) for name, values in macs.items()}


def crossing(differences: Sequence[Sequence[float]]) -> dict[str, int | None]:
    """After how many trials a sampler has reached what it is compared with; None if it never does.

    Args:
        differences: For every number of trials, the sampler's accuracy minus the other's, one per search.

    Returns:
        `mean`: the first number of trials at which the mean difference is not below 0. `not worse` and `better`:
        the first at which its 95 % t interval reaches 0, and lies above 0.
    """
    found: dict[str, int | None] = {"not worse": None, "mean": None, "better": None}
    for trials, values in enumerate(differences, 1):
        summary = summarise(values)
        ends = {"not worse": summary.high, "mean": summary.mean, "better": summary.low}
        for name, end in ends.items():
            reached = end is not None and (end > 0 if name == "better" else end >= 0)
            if found[name] is None and reached:
                found[name] = trials
    return found


def answer(found: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the page."""
    drawn = curves(found)
    pruned = pruning_tests(found)
    trial = fmean(t["training macs"] for c in found["courses"] if c["proposer"] == "tpe" for t in c["trials"])
    tests = tests_of(found)
    fixed: dict[str, list[float]] = {}
    for entry in found["fixed"]:
        fixed.setdefault(entry["proposer"], []).append(tests[entry["search"], entry["architecture"]])
    length = len(drawn["tpe"][0]["accuracy"])
    ends = {name: [own["accuracy"][length - 1] for own in courses] for name, courses in drawn.items()}
    warm, cold = ends["tpe+slimming"], ends["tpe"]
    taus = [float(kendalltau(pair["whole"], pair["short"]).statistic) for pair in found["proxy"]]
    return {
        "trials": length,
        "training macs of a trial": trial,
        "macs of the point": point_macs(found),
        "accuracy": {
            name: _document(values, score_bounds(ACCURACY))
            for name, values in {**pruned, **fixed, **ends}.items()
        },
        "after one trial": {
            name: _document([own["accuracy"][0] for own in courses], score_bounds(ACCURACY))
            for name, courses in drawn.items()
        },
        "trials that reach": {
            method: {
                name: crossing(
                    [[own["accuracy"][k] - values[i] for i, own in enumerate(courses)] for k in range(length)]
                )
                for name, courses in drawn.items()
                if name != "tpe+slimming"
            }
            for method, values in pruned.items()
        },
        "trials that cost as much": {
            method: {split: pruning_costs(found, split)[method] / trial for split in SPLITS}
            for method in pruned
        },
        "warm start": {
            "against slimming": _document([w - p for w, p in zip(warm, pruned["slimming"], strict=True)]),
            "against tpe": _document([w - c for w, c in zip(warm, cold, strict=True)]),
        },
        "rank correlation of the short schedule": _document(taus, RANK_CORRELATION),
        "random, best of its trials against taper": _document(
            [r - t for r, t in zip(ends["random"], fixed["taper"], strict=True)]
        ),
    }


def _document(values: Sequence[float], bounds: Bounds = _GAINS) -> dict[str, Any]:
    summary = summarise(values, bounds)
    return {
        "mean": summary.mean,
        "std": summary.std,
        "low": summary.low,
        "high": summary.high,
        "n": summary.n,
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The tables of the page."""
    says = answer(found)
    trials = says["trials"]
    lines = [
        "| proposer | training MACs for one target of 1 / 3 / 10 | MACs of the point | test % | 95 % interval |",
        "| :-- | :-- | --: | --: | :-- |",
    ]
    drawn, macs = curves(found), point_macs(found)
    for name, accuracy in says["accuracy"].items():
        searched = RESTS_ON.get(name, name)
        if searched in says["trials that cost as much"]:
            costs = [pruning_costs(found, split)[searched] for split in SPLITS]
        elif name in drawn:
            costs = [
                fmean(own["before"] / split + own["macs"][trials - 1] for own in drawn[name])
                for split in SPLITS
            ]
        else:
            costs = [0.0]
        shown = " / ".join(dict.fromkeys(map(count, costs)))
        label = f"{name}, {trials} trials" if name in drawn else name
        lines.append(
            f"| {label} | {shown} | {count(macs[name])} | {accuracy['mean']:.2f} | {_interval(accuracy)} |"
        )
    lines += [
        "",
        "| to reach | trials of | not worse | mean | better |",
        "| :-- | :-- | --: | --: | --: |",
    ]
    for method, samplers in says["trials that reach"].items():
        for name, reached in samplers.items():
            numbers = [str(reached[key] or f"> {trials}") for key in ("not worse", "mean", "better")]
            lines.append(f"| {method} | {name} | {' | '.join(numbers)} |")
    lines += ["", "| cost in trials of tpe | at 1 target | 3 | 10 |", "| :-- | --: | --: | --: |"]
    for method, splits in says["trials that cost as much"].items():
        lines.append(f"| {method} | {' | '.join(f'{splits[split]:.0f}' for split in SPLITS)} |")
    lines += ["", "| difference | mean | 95 % interval |", "| :-- | --: | :-- |"]
    for name, difference in says["warm start"].items():
        lines.append(
            f"| tpe+slimming {name}, after {trials} trials | {difference['mean']:+.2f} | {_interval(difference)} |"
        )
    tau = says["rank correlation of the short schedule"]
    epochs = found["epochs"]
    lines += [
        "",
        f"Kendall's tau between validation after {epochs['short']} and after {epochs['whole']} epochs, over "
        f"the random points of each search: {tau['mean']:.2f} {_interval(tau)}.",
    ]
    return "\n".join(lines) + "\n"


def _interval(summary: Mapping[str, Any]) -> str:
    return "-" if summary["low"] is None else f"[{summary['low']:.2f}, {summary['high']:.2f}]"
