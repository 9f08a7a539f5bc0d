"""What a search cost against what it found: test score over trainings, MACs and seconds of one search."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, NullLocator

from prunas.errors import InputError
from prunas.report.figure import FAINT, GRID, mark_look, mark_series, nice_ticks, score_axis, sheet, styled
from prunas.report.styles import Style
from prunas.statistics.prices import Price
from prunas.statistics.summary import grouped
from prunas.statistics.wording import axis_label, title_of
from prunas.tasks.score import Score

__all__ = ["price_figure"]

_UNITS = (
    ("trainings", "trainings per search"),
    ("macs", "MACs per search"),
    ("seconds", "seconds per search"),
)


@styled
def price_figure(prices: Sequence[Price], *, setting: str, score: Score) -> Figure:
    """Draws the prices, a row of panels for each protocol and sort of network.

    Args:
        prices: At least one.
        setting: Space, data set and recipe, for the caption.
        score: What was found is judged by.

    Raises:
        InputError: There is no price.
    """
    if not prices:
        raise InputError("nothing to plot: no proposers share a target at which their runs are finished")
    panels = sorted(grouped(prices, lambda price: (price.masked, price.protocol)).items())
    sizes = sorted({len(price.targets) for price in prices})
    figure, axes, looks = sheet(
        [price.proposer for price in prices],
        f"{setting}. {title_of(score)} is the mean over the {' or '.join(map(str, sizes))} targets that all "
        "proposers share; bars are ± 1 standard deviation over seeds. A price is what the answers of one search "
        "rest on, the searches it answers included, and serves all its targets; final trainings are not in it. On "
        "grey: what rests on no training.",
        panels=3 * len(panels),
        across=3,
        panel=(7 / 3, 2.3),
        sharey="row",
    )
    for row, ((masked, protocol), own) in enumerate(panels):
        for ax, (unit, label) in zip(axes[3 * row : 3 * row + 3], _UNITS, strict=True):
            _panel(ax, own, looks, unit)
            ax.set_xlabel(label)
        axes[3 * row].set_ylabel(axis_label(score))
        if len(panels) > 1:
            axes[3 * row].set_title(f"{protocol}, {'masked' if masked else 'narrow'} networks")
        heights = [p.score.mean + sign * (p.score.std or 0) for p in own for sign in (-1, 1)]
        score_axis(axes[3 * row], heights, score)
    return figure


def _panel(ax: Axes, prices: Sequence[Price], looks: Mapping[str, Style], unit: str) -> None:
    costs = [float(getattr(price.cost, unit)) for price in prices]
    paid = [cost for cost in costs if cost > 0] or [1.0]
    free = [price for price, cost in zip(prices, costs, strict=True) if cost == 0]
    low, high = min(paid) / 1.6, max(paid) * 1.6
    # What is free has no place on a logarithmic axis; it gets a strip of its own, a mark apart from the next.
    strip = (high / low) ** 0.55 if free else 1.0
    places = {
        price.proposer: low / strip ** ((i + 1.2) / (len(free) + 1)) for i, price in enumerate(free[::-1])
    }
    left = low / strip ** ((len(free) + 1.3) / (len(free) + 1)) if free else low
    ax.set_xscale("log")
    ax.set_xlim(left, high)
    ticks = sorted(set(paid)) if len(set(paid)) == 1 else nice_ticks(low, high)
    ticks = [tick for tick in ticks if any(costs) and (unit != "trainings" or tick >= 1)]
    zero = [(left * low) ** 0.5] if free else []
    ax.xaxis.set_major_locator(FixedLocator(zero + ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    named = EngFormatter(sep="", places=None)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if x < low else named(float(f"{x:.3g}"))))
    if free:
        ax.axvspan(left, low, color=GRID, alpha=0.5, linewidth=0, zorder=0)
        ax.axvline(low, color=FAINT, linewidth=0.6, linestyle=(0, (2, 2)), zorder=1)
    for price, cost in zip(prices, costs, strict=True):
        look = looks[price.proposer]
        x = cost or places[price.proposer]
        bars = ax.errorbar(
            x,
            price.score.mean,
            yerr=price.score.std or 0,
            fmt="none",
            ecolor=look.color,
            elinewidth=0.8,
            capsize=0,
            zorder=3,
        )
        marks = ax.plot(x, price.score.mean, linestyle="none", zorder=4, **mark_look(look, size=5.0))
        mark_series(ax, price.proposer, bars, *marks)
