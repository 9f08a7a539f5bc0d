"""Cheap scores against those of trained candidates, one panel per target."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from prunas.errors import InputError
from prunas.report.figure import COLUMN, mark_look, score_axis, sheet, styled
from prunas.statistics.proxy import Proxy
from prunas.statistics.summary import grouped
from prunas.statistics.text import asked_text
from prunas.tasks.score import Score

__all__ = ["proxy_figure"]


@styled
def proxy_figure(found: Sequence[Proxy], *, setting: str, score: Score) -> Figure:
    """Draws every candidate by what an evaluator says of it and what it trains to.

    Args:
        found: One per evaluator and target.
        setting: Space, data set and recipe, for the caption.
        score: What the scores mean.

    Raises:
        InputError: There is nothing to draw.
    """
    if not found:
        raise InputError("nothing to plot: no candidates were both trained and scored by an evaluator")
    panels = grouped(sorted(found, key=lambda each: -each.asked.value), lambda each: each.asked)
    figure, axes, looks = sheet(
        [each.evaluator for each in found],
        f"{setting}. Every mark is a candidate, scored on the validation split by an evaluator (across) and after "
        f"a whole training (up). In the titles, Kendall's tau of the two. {_regrets(found, score)}",
        panels=len(panels),
        across=2,
        panel=(COLUMN, 2.6),
    )
    for ax, (asked, own) in zip(axes, panels.items(), strict=True):
        for each in own:
            look = looks[each.evaluator]
            ax.plot(each.cheap, each.trained, linestyle="none", color=look.color, **mark_look(look))
        score_axis(ax, [value for each in own for value in each.trained], score)
        ax.set_xlabel(f"validation {score.label} by the evaluator")
        ax.set_ylabel(f"validation {score.label}, trained")
        taus = ", ".join(f"{each.evaluator} {_tau(each)}" for each in own)
        ax.set_title(f"{asked_text(asked)}: {taus}")
    return figure


def _tau(each: Proxy) -> str:
    if each.tau is None:
        return "-"
    ends = "" if each.low is None or each.high is None else f" ({each.low:.2f} to {each.high:.2f})"
    return f"{each.tau:.2f}{ends}"


def _regrets(found: Sequence[Proxy], score: Score) -> str:
    said = "; ".join(f"{each.evaluator} at {asked_text(each.asked)} {each.regret:.2f}" for each in found)
    return f"Regret of choosing by the evaluator{f' in {score.unit}' if score.unit else ''}: {said}."
