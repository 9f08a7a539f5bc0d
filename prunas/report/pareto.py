"""Which points nobody beats: mean test score over parameters and over MACs, with the Pareto front."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunas.errors import InputError
from prunas.report.figure import (
    FAINT,
    INK,
    cost_axis,
    flag_sentences,
    mark_look,
    mark_series,
    score_axis,
    sheet,
    styled,
)
from prunas.statistics.flags import doubts
from prunas.statistics.summary import Line, grouped
from prunas.statistics.text import asked_text
from prunas.statistics.trade import front
from prunas.statistics.wording import axis_label
from prunas.tasks.score import ACCURACY, Score

__all__ = ["pareto_figure"]

_AXES = (("params", "parameters"), ("macs", "MACs per image"))


@styled
def pareto_figure(lines: Sequence[Line], *, setting: str, score: Score) -> Figure:
    """Draws the means of `lines`, a row of panels for each protocol and sort of network.

    Args:
        lines: Those without a score are ignored.
        setting: Space, data set and recipe, for the caption.
        score: What the lines are summaries of.

    Raises:
        InputError: No line has a score.
    """
    tested = [line for line in lines if line.score is not None]
    if not tested:
        raise InputError(f"nothing to plot: no finished run has a test {score.name} yet")
    panels = sorted(grouped(tested, lambda line: (line.masked, line.protocol)).items())
    flags: dict[str, list[str]] = {
        flag: [line.proposer for line in tested if flag in line.flags]
        for flag in doubts(flag for line in tested for flag in line.flags)
    }
    figure, axes, looks = sheet(
        [line.proposer for line in tested],
        f"{setting}. Marks are means over seeds, bars ± 1 standard deviation. The line is the Pareto front of "
        f"the means: no other point costs no more and is at least as {_good(score)}. Points off the front are "
        "small, pale and without a bar; those on it carry their target where there is room."
        + "".join(f" {sentence}" for sentence in (*flag_sentences(flags), *_left_out(lines, score))),
        panels=2 * len(panels),
        across=2,
        flagged=bool(flags),
        sharey=True,
    )
    for row, ((masked, protocol), own) in enumerate(panels):
        for ax, (metric, label) in zip(axes[2 * row : 2 * row + 2], _AXES, strict=True):
            _panel(ax, own, looks, metric, score)
            ax.set_xlabel(label)
            if len(panels) > 1:
                ax.set_title(f"{protocol}, {'masked' if masked else 'narrow'} networks")
        axes[2 * row].set_ylabel(axis_label(score))
    means = [line.score.mean for line in tested if line.score]
    best = max(means, key=lambda mean: score.gain(mean, 0.0))
    spread = [line.score.std or 0 for line in tested if line.score and line.score.mean == best]
    score_axis(axes[0], [*means, best + score.gain(1.2 * max(spread), 0.0)], score)
    return figure


def _good(score: Score) -> str:
    return "accurate" if score.name == ACCURACY.name else "good"


def _panel(ax: Axes, lines: Sequence[Line], looks: Any, metric: str, score: Score) -> None:
    points = [(getattr(line, metric), line.score.mean) for line in lines if line.score]
    best = front(points, score)
    cost_axis(ax, [cost for cost, _ in points])
    ax.step(
        [points[i][0] for i in best] + [ax.get_xlim()[1]],
        [points[i][1] for i in best] + [points[best[-1]][1]],
        where="post",
        color=INK,
        linewidth=0.9,
        zorder=2,
    )
    span = math.log(ax.get_xlim()[1] / ax.get_xlim()[0])
    # Of neighbours whose labels would touch only the best one has a label: the last.
    following = [*best[1:], None]
    labelled = [
        i for i, j in zip(best, following, strict=True) if j is None or _apart(points[i], points[j], span)
    ]
    for i, line in enumerate(lines):
        assert line.score is not None
        look, on = looks[line.proposer], i in best
        if on:
            bars = ax.errorbar(
                *points[i],
                yerr=line.score.std or 0,
                fmt="none",
                ecolor=look.color,
                elinewidth=0.8,
                capsize=0,
                zorder=3,
            )
            mark_series(ax, line.proposer, bars)
        marks = ax.plot(
            *points[i],
            linestyle="none",
            alpha=1 if on else 0.5,
            zorder=5 if on else 4,
            **mark_look(look, bool(doubts(line.flags)), size=5.2 if on else 3.4),
        )
        mark_series(ax, line.proposer, *marks)
        if i in labelled:  # on the side where no point of the front is in the way: that of the better scores
            up = 1 if score.better == "higher" else -1
            ax.annotate(
                asked_text(line.asked),
                (points[i][0], points[i][1] + up * (line.score.std or 0)),
                xytext=(0, 3 * up),
                textcoords="offset points",
                ha="center",
                va="baseline" if up > 0 else "top",
                fontsize=6,
                color=FAINT,
            )


def _left_out(lines: Sequence[Line], score: Score) -> list[str]:
    """What is not drawn: points without a tested run, and runs that the means do without."""
    points, runs = sum(line.score is None for line in lines), sum(line.left_out for line in lines)
    if not runs:
        return []
    return [
        f"Left out: {runs} run{'s' if runs > 1 else ''} without a test {score.name}"
        + (f", all of {points} point{'s' if points > 1 else ''}." if points else ".")
    ]


def _apart(before: tuple[float, float], point: tuple[float, float], span: float) -> bool:
    """Whether two labels side by side would not touch."""
    return math.log(point[0] / before[0]) > 0.08 * span
