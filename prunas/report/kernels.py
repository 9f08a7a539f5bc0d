"""3x3 keep frequencies by stage and target, after figure 4 of the study (arXiv:1810.05270)."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator

from prunas.errors import InputError
from prunas.report.figure import COLUMN, FAINT, styled
from prunas.report.styles import styles
from prunas.statistics.patterns import PatternSpread
from prunas.statistics.summary import grouped
from prunas.statistics.text import asked_text, interval_text

__all__ = ["kernels_figure"]

_SHADES = colormaps["Blues"]
_DARK, _LIGHT = "#1B1B1B", "#FDFDFD"  # on shades of blue: these must not follow a page's dark scheme
_DEEP = 0.69  # of the shades: from here on light letters have the greater contrast
_PITCH = 3.45  # positions from one kernel to the next
_CELL = 0.205  # inches of one position
_LABELS = 0.55  # inches left of the kernels


@styled
def kernels_figure(spreads: Sequence[PatternSpread], maps: Sequence[str], *, setting: str) -> Figure:
    """Draws how often each position of 3x3 kernels is kept: a row per stage, a column per target.

    Args:
        spreads: At least one, all of the same network; each proposer has a panel, columns are in their order.
        maps: Size of each stage's maps, for the labels.
        setting: Space, data set and recipe, for the caption.

    Raises:
        InputError: There is nothing to draw.
    """
    if not spreads:
        raise InputError(
            "nothing to plot: no finished run has found a pattern of 3x3 kernels; magnitude, say, finds some"
        )
    panels = grouped(spreads, lambda spread: spread.proposer)
    names = list(styles(panels))
    across = max(map(len, panels.values()))
    width = max(COLUMN, _LABELS + _CELL * _PITCH * across + 0.05)
    width = 2 * COLUMN if COLUMN < width <= 2 * COLUMN else width
    heights = [_CELL * _PITCH * max(len(each.stages) for each in panels[name]) + 0.62 for name in names]
    caption = textwrap.wrap(
        f"{setting}. Keep frequency in percent of each position of 3x3 kernels, mean over searches; darker is "
        "more, in each kernel from 0 to its largest. Rows are stages by the size of their maps. Under each "
        "target: centre and edges minus corners in percentage points, mean over stages, with its 95 % interval "
        f"over {_searches(spreads)}.",
        width=int(width * 22.5),
    )
    foot = 0.118 * len(caption) + 0.05
    height = sum(heights) + foot
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.set_layout_engine(
        ConstrainedLayoutEngine(rect=(0, foot / height, 1, 1 - foot / height), w_pad=0.03, h_pad=0.04)
    )
    axes = figure.subplots(len(names), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, name in zip(axes, names, strict=True):
        _panel(ax, panels[name], maps, (width - _LABELS) / _CELL)
        ax.set_title(name)
    figure.text(
        0.012, 0.04 / height, "\n".join(caption), fontsize=6, color=FAINT, linespacing=1.25, va="bottom"
    )
    return figure


def _searches(spreads: Sequence[PatternSpread]) -> str:
    numbers = sorted({each.n for each in spreads})
    return f"{' to '.join(map(str, numbers[:: max(1, len(numbers) - 1)]))} searches"


def _panel(ax: Axes, spreads: Sequence[PatternSpread], maps: Sequence[str], room: float) -> None:
    """Kernels side by side on one pair of axes, whose unit is a position; `room` is how many fit."""
    stages = sorted({stage for each in spreads for stage in each.stages})
    for column, each in enumerate(spreads):
        for stage, mean in zip(each.stages, each.mean, strict=True):
            _kernel(ax, np.array(mean).reshape(3, 3), column * _PITCH, stages.index(stage) * _PITCH)
    ax.set_xlim(-0.2, max(room, len(spreads) * _PITCH))
    ax.set_ylim(len(stages) * _PITCH - 0.3, -0.15)
    ax.set_aspect("equal", anchor="NW")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(
        [column * _PITCH + 1.5 for column in range(len(spreads))],
        [
            f"{asked_text(each.asked)}\n{100 * each.contrast.mean:+.2f}\n{interval_text(each.contrast, '+', 100)}"
            for each in spreads
        ],
        fontsize=5.5,
        linespacing=1.15,
    )
    ax.set_yticks([i * _PITCH + 1.5 for i in range(len(stages))], [maps[stage] for stage in stages])
    ax.tick_params(length=0, pad=2)


def _kernel(ax: Axes, frequencies: np.ndarray, left: float, top: float) -> None:
    shares = frequencies / max(frequencies.max(), 1e-12)
    edges = np.arange(4)
    ax.pcolormesh(
        left + edges, top + edges, shares, cmap=_SHADES, vmin=0, vmax=1, edgecolors="#ffffff", linewidth=0.5
    )
    for row, column in np.ndindex(3, 3):
        percent = 100 * frequencies[row, column]
        ax.text(
            *(left + column + 0.5, top + row + 0.53),
            f"{percent:.0f}" if percent >= 9.95 or percent == 0 else f"{percent:.1f}",
            fontsize=5,
            color=_LIGHT if shares[row, column] > _DEEP else _DARK,
            ha="center",
            va="center",
        )
