"""Score against the retraining budget: inherited weights, rewound ones and new ones."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import offset_copy

from prunas.errors import InputError
from prunas.report.figure import (
    FAINT,
    draw_means,
    mark_look,
    score_axis,
    sheet,
    sidestep,
    styled,
)
from prunas.statistics.retraining import FAMILIES, RetrainingCurve, crossings, ordered
from prunas.statistics.summary import grouped
from prunas.statistics.text import asked_text
from prunas.statistics.wording import axis_label

__all__ = ["budget_figure"]

_BESIDE, _SINGLE = 2.3, 2.3  # points from a mean to its single trainings, and their size


@styled
def budget_figure(courses: Sequence[RetrainingCurve], *, setting: str) -> Figure:
    """Draws test scores over retraining epochs, one panel per proposer and target, the crossing marked.

    Args:
        courses: In the order of the panels, all of one score.
        setting: Space, data set and recipe, for the caption.

    Raises:
        InputError: Nothing was retrained for several budgets.
    """
    if not courses:
        raise InputError(
            "nothing to plot: no point was retrained for several budgets; try --protocol "
            "finetune:5,finetune:20,scratch-e:5,scratch-e:20"
        )
    score = courses[0].score
    panels = grouped(courses, lambda course: (course.proposer, course.asked, course.masked))
    order = ordered(course.family for course in courses)
    crossed = {
        (each.proposer, each.asked): each.at
        for each in crossings(courses)
        if each.family == FAMILIES[0] and each.at is not None and each.at > each.epochs[0]
    }
    upright = " The upright line is where scratch overtakes fine-tuning on the means." if crossed else ""
    figure, axes, looks = sheet(
        order,
        f"{setting}. Lines join means; bars are ± 1 standard deviation; small marks are single trainings; curves "
        f"are set a little apart sideways.{upright}",
        panels=len(panels),
        across=2,
        sharey=True,
    )
    for index, (ax, ((proposer, asked, masked), own)) in enumerate(zip(axes, panels.items(), strict=True)):
        ax.set_xscale("log")
        for course in own:
            look = looks[course.family]
            place = sidestep(ax, figure, order.index(course.family), len(order))
            draw_means(ax, course.epochs, course.scores, look, place, name=course.family)
            aside = offset_copy(place, figure, x=_BESIDE, units="points")
            for x, points in zip(course.epochs, course.points, strict=True):
                if len(points) > 1:
                    marks = mark_look(look, size=_SINGLE)
                    shown = list(points.values())
                    ax.plot(
                        [x] * len(shown),
                        shown,
                        linestyle="none",
                        alpha=0.75,
                        transform=aside,
                        zorder=4.5,
                        **marks,
                    )
        ticks = sorted({x for course in own for x in course.epochs})
        ax.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.set_xlabel("epochs of retraining")
        if index % 2 == 0:
            ax.set_ylabel(axis_label(score))
        if (at := crossed.get((proposer, asked))) is not None:
            ax.axvline(at, color=FAINT, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
            ax.annotate(
                f"{at:.3g}",
                xy=(at, 0),
                xycoords=("data", "axes fraction"),
                xytext=(2, 3),
                textcoords="offset points",
                fontsize=7,
                color=FAINT,
            )
        ax.set_title(f"{proposer}, {asked_text(asked)}" + (", masked" if masked else ""))
    heights = [value for course in courses for points in course.points for value in points.values()]
    means = [spread for course in courses for spread in course.scores]
    heights += [each.mean + sign * (each.std or 0) for each in means for sign in (-1, 1)]
    score_axis(axes[0], heights, score)
    return figure
