"""What was found over what was spent: by trials, and by training MACs where targets share a dense training."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.worth.answer import RESTS_ON, SPLITS, answer, curves, pruning_costs
from prunas.report.figure import cost_axis, line_look, mark_look, sheet, styled

__all__ = ["draw"]


@styled
def draw(found: Mapping[str, Any], about: str) -> Figure:
    """Four panels.

    Args:
        found: As `measure` returns it.
        about: Space, budget and schedule, for the caption.
    """
    says, drawn = answer(found), curves(found)
    length, searches = says["trials"], says["accuracy"]["tpe"]["n"]
    figure, axes, looks = sheet(
        list(says["accuracy"]),
        f"{about}. Test accuracy of what is best on validation by then, trained anew with fresh seeds; mean of "
        f"{searches} searches, bands are ± 1 standard error. A trial is one training from scratch; short: "
        f"{found['epochs']['short']} of {found['epochs']['whole']} epochs. Pruning's dense trainings are shared "
        "by 1, 3 or 10 targets; taper answers the params and MACs of slimming's points and costs what they do; "
        "uniform is a line: it rests on no training.",
        panels=1 + len(SPLITS),
        across=2,
        panel=(3.5, 2.5),
        sharey=True,
    )
    for name in ("slimming", "slimming, tuned", "taper", "uniform"):
        axes[0].axhline(says["accuracy"][name]["mean"], color=looks[name].color, **line_look(looks[name]))
    for name, courses in drawn.items():
        _course(axes[0], courses, range(1, length + 1), looks[name])
    axes[0].set_xlabel("trials")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax, split in zip(axes[1:], SPLITS, strict=True):
        costs = pruning_costs(found, split)
        spent = []
        for name, courses in drawn.items():
            macs = [fmean(own["before"] / split + own["macs"][k] for own in courses) for k in range(length)]
            _course(ax, courses, macs, looks[name])
            spent += macs
        costs |= {control: costs[searched] for control, searched in RESTS_ON.items()}
        for name, cost in costs.items():
            at = says["accuracy"][name]
            error = (at["std"] or 0.0) / at["n"] ** 0.5
            ax.errorbar(cost, at["mean"], yerr=error, fmt="none", ecolor=looks[name].color, elinewidth=0.8)
            ax.plot(cost, at["mean"], linestyle="none", **mark_look(looks[name], size=6.0))
        ax.axhline(
            says["accuracy"]["uniform"]["mean"], color=looks["uniform"].color, **line_look(looks["uniform"])
        )
        cost_axis(ax, [*spent, *costs.values()])
        ax.set_xlabel(f"training MACs for one target of {split}")
    for ax in axes[::2]:
        ax.set_ylabel("test accuracy (%)")
    return figure


def _course(ax: Axes, courses: Any, xs: Any, look: Any) -> None:
    xs = list(xs)
    columns = [[own["accuracy"][k] for own in courses] for k in range(len(xs))]
    means = [fmean(values) for values in columns]
    errors = [
        (sum((v - m) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5
        if len(values) > 1
        else 0.0
        for values, m in zip(columns, means, strict=True)
    ]
    ax.plot(xs, means, color=look.color, **line_look(look))
    low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
    ax.fill_between(xs, low, high, color=look.color, alpha=0.12, linewidth=0)
    ax.plot(xs[-1], means[-1], linestyle="none", **mark_look(look))
