"""Widths per layer with their spread over seeds, after table 8 of the study (arXiv:1810.05270)."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from prunas.errors import InputError
from prunas.report.figure import COLUMN, FAINT, GRID, line_look, mark_look, nice_ticks, sheet, styled
from prunas.report.styles import Style, styles
from prunas.statistics.summary import grouped
from prunas.statistics.text import asked_text
from prunas.statistics.widths import WidthSpread

__all__ = ["widths_figure"]

_WIDE = 24  # layers above which one panel takes the whole width of a page


@styled
def widths_figure(spreads: Sequence[WidthSpread], stages: Sequence[int], *, setting: str) -> Figure:
    """Draws the share of each layer that is kept, one panel per target.

    Args:
        spreads: At least one, all of the same network, in the order of the panels.
        stages: Stage of each layer.
        setting: Space, data set and recipe, for the caption.

    Raises:
        InputError: There is nothing to draw.
    """
    if not spreads:
        raise InputError("nothing to plot: no finished run has a shape that can be read")
    panels = list(grouped(spreads, lambda spread: spread.asked).items())
    wide = len(stages) > _WIDE
    width = 2 * COLUMN if wide else COLUMN
    ratios = {asked: _ratios(own, width) for asked, own in panels}
    figure, axes, looks = sheet(
        [spread.proposer for spread in spreads],
        f"{setting}. Layers in the order of the network, gaps between stages; marks are means over seeds, "
        "bars ± 1 standard deviation. The number behind a name is the spread between seeds over the spread "
        "between layers: near 0 the searches agree on a profile, at 1 their differences are as large as the "
        "profile itself.",
        panels=len(panels),
        across=1 if wide else 2,
        panel=(width, 2.3 + 0.1 * max(map(len, ratios.values()))),
        sharey=True,
    )
    shares = [share for spread in spreads for share in spread.shares if share > 0]
    for ax, (asked, own) in zip(axes, panels, strict=True):
        order = [name for name in looks if name in {spread.proposer for spread in own}]
        for spread in own:
            _profile(ax, spread, looks, order, stages)
        ax.set_title(asked_text(asked), pad=2 + 7 * len(ratios[asked]))
        text = ax.text(
            *(0, 1.02, "\n".join(ratios[asked])),
            transform=ax.transAxes,
            fontsize=6,
            linespacing=1.1,
            color=FAINT,
        )
        text.set_in_layout(False)  # it is as wide as its panel, but an estimate may be a little off
        _layer_axis(ax, stages)
        ax.set_xlabel("layer")
    for ax in axes[:: 1 if wide else 2]:
        ax.set_ylabel("width kept (%)" if max(shares, default=0) <= 1 else "width (% of the dense network's)")
    _share_axis(axes[0], shares)
    return figure


def _ratios(spreads: Sequence[WidthSpread], width: float) -> list[str]:
    """Spread between seeds over spread between layers of every proposer, in lines of at most `width` inches."""
    ratios = {spread.proposer: spread.ratio for spread in spreads}
    words = [f"{name}\u00a0{ratios[name]:.2f}" for name in styles(ratios) if ratios[name] is not None]
    return textwrap.wrap("  ".join(words), width=int(18 * width))


def _profile(
    ax: Axes, spread: WidthSpread, looks: Mapping[str, Style], order: Sequence[str], stages: Sequence[int]
) -> None:
    look = looks[spread.proposer]
    step = (order.index(spread.proposer) - (len(order) - 1) / 2) * min(0.09, 0.5 / len(order))
    xs = _places(stages) + step
    shares, bars = (100 * np.array(values) / np.array(spread.dense) for values in (spread.mean, spread.std))
    shares = np.where(shares > 0, shares, np.nan)  # a layer that is gone has no place on the axis
    for stage in dict.fromkeys(stages):
        inside = np.array(stages) == stage
        ax.plot(xs[inside], shares[inside], color=look.color, zorder=3, **line_look(look))
    ax.errorbar(
        xs,
        shares,
        # On a logarithmic axis a bar must end above 0.
        yerr=[np.minimum(bars, 0.9 * shares), bars],
        fmt="none",
        ecolor=look.color,
        elinewidth=0.7 if len(stages) <= _WIDE else 0.4,
        capsize=0,
        zorder=2,
    )
    size = 3.4 if len(stages) <= _WIDE else 2.4
    ax.plot(xs, shares, linestyle="none", color=look.color, zorder=4, **mark_look(look, size=size))


def _places(stages: Sequence[int]) -> np.ndarray:
    """x of every layer: 1, 2, ... with a gap before each stage."""
    new = np.array([0] + [int(a != b) for a, b in pairwise(stages)])
    return np.arange(1, len(stages) + 1) + 0.6 * np.cumsum(new)


def _layer_axis(ax: Axes, stages: Sequence[int]) -> None:
    places = _places(stages)
    every = max(1, round(len(stages) / 16))
    ax.set_xlim(0.3, places[-1] + 0.7)
    ax.xaxis.set_major_locator(FixedLocator(places[::every].tolist()))
    ax.set_xticklabels([str(i + 1) for i in range(0, len(stages), every)])
    for left, right, before, after in zip(places, places[1:], stages, stages[1:], strict=False):
        if before != after:
            ax.axvline((left + right) / 2, color=GRID, linewidth=0.6, zorder=1)


def _share_axis(ax: Axes, shares: Sequence[float]) -> None:
    top = 100 * max((1.0, *shares))  # above 1 where a layer is wider than in the dense network
    if shares and max(shares) / min(shares) > 8:
        bottom = 100 * min(shares) / 1.8
        ax.set_yscale("log")
        ax.set_ylim(bottom, 1.2 * top)
        ax.yaxis.set_major_locator(FixedLocator(nice_ticks(bottom, 1.2 * top)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    else:
        ax.set_ylim(0, 1.04 * top)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
