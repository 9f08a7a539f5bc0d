"""Parameter efficiency: accuracy over what a network costs, one curve per proposer.

After figures 3 and 5 of the study (arXiv:1810.05270), with every single training drawn, and with masked
networks in a panel of their own.
"""

import math
import textwrap
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Transform, offset_copy

from prunas.errors import InputError
from prunas.files import write_atomic
from prunas.report.drawable import Curve
from prunas.report.styles import Style, styles

__all__ = ["draw_efficiency"]

_COLUMN = 3.5  # inches, one column of a printed page
_PANEL = 2.5  # inches, height of a panel with its labels
_SIDESTEP = 3.2  # points between neighbouring curves, so that none hides another
_SPREAD = 14.0  # points from the first curve to the last, at most
_BESIDE = 2.3  # points from a mean to its single trainings
_INK, _FAINT, _GRID = "#222222", "#6B6B6B", "#E6E6E6"
_AXIS = {"params": "parameters", "macs": "MACs per image"}
_STYLE: Any = {  # matplotlib types the keys as literals
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "text.color": _INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "prunas",
}


def draw_efficiency(
    curves: Sequence[Curve],
    folder: Path,
    *,
    space: str,
    data: str,
    recipe: str,
    epochs: int,
    dense: float | None = None,
    name: str = "efficiency",
) -> tuple[Path, Path]:
    """Draws the curves into `folder` as SVG and PNG, the same bytes for the same input.

    There is one panel for each protocol and sort of network (masked or narrow). A mark with a white face
    stands for a search whose penalty had not acted. In the SVG every single training is a group with the id
    `run-<id of the run>`.

    Args:
        curves: At least one, all over the same metric, at most one for each proposer in a panel.
        folder: Where the files go; made if missing.
        space: Search space, for the caption.
        data: Data set, for the caption.
        recipe: Name of the recipe, for the caption.
        epochs: Of the recipe.
        dense: Accuracy of the dense network in percent, drawn as a reference line.
        name: Of the files, without suffix.

    Returns:
        The paths of the SVG and the PNG.

    Raises:
        InputError: There are no curves, or a file cannot be written.
    """
    if not curves:
        raise InputError("nothing to plot: no finished run has a test accuracy yet")
    if len({curve.metric for curve in curves}) > 1:
        raise ValueError("curves over different metrics cannot share a figure")
    caption = _caption(curves, f"{space} on {data}, recipe {recipe} ({epochs} epochs)")
    paths = folder / f"{name}.svg", folder / f"{name}.png"
    with mpl.rc_context():
        # A user's own matplotlibrc must not change the figure.
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = _figure(curves, dense, caption)
        write_atomic(paths[0], lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))
        write_atomic(
            paths[1], lambda file: figure.savefig(file, format="png", dpi=300, metadata={"Software": None})
        )
    return paths


def _figure(curves: Sequence[Curve], dense: float | None, caption: str) -> Figure:
    panels = sorted({(curve.masked, curve.protocol) for curve in curves})
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    looks = styles(curve.proposer for curve in curves)
    columns = _columns(list(looks), across * _COLUMN)
    legend = 0.17 * math.ceil(len(looks) / columns) + 0.06
    lines = textwrap.wrap(caption, width=int(across * _COLUMN * 22.5))
    foot = 0.118 * len(lines) + 0.05
    height = down * _PANEL + legend + foot
    figure = Figure(figsize=(across * _COLUMN, height))
    FigureCanvasAgg(figure)
    figure.set_layout_engine(
        ConstrainedLayoutEngine(rect=(0, foot / height, 1, 1 - foot / height), w_pad=0.03, h_pad=0.04)
    )
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat
    for index, ax in enumerate(axes):
        if index >= len(panels):
            ax.remove()
            continue
        masked, protocol = panels[index]
        own = [curve for curve in curves if (curve.masked, curve.protocol) == panels[index]]
        last = index % across == across - 1 or index == len(panels) - 1
        _panel(figure, ax, own, looks, dense, label_dense=last)
        ax.set_xlabel(_AXIS[own[0].metric])
        ax.tick_params(labelbottom=True)
        if index % across == 0:
            ax.set_ylabel("test accuracy (%)")
        if len(panels) > 1:
            ax.set_title(f"{protocol}, {'masked' if masked else 'narrow'} networks")
    _scale(figure.axes[0], curves, dense)
    handles = [
        Line2D([], [], color=look.color, label=proposer, **_line(look), **_mark(look))
        for proposer, look in looks.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=columns,
        handlelength=2.5,
        handletextpad=0.4,
        columnspacing=1.0,
        borderaxespad=0.2,
    )
    figure.text(
        0.012, 0.04 / height, "\n".join(lines), fontsize=6, color=_FAINT, linespacing=1.25, va="bottom"
    )
    return figure


def _panel(
    figure: Figure,
    ax: Axes,
    curves: Sequence[Curve],
    looks: dict[str, Style],
    dense: float | None,
    label_dense: bool,
) -> None:
    order = [name for name in looks if name in {curve.proposer for curve in curves}]
    if dense is not None:
        ax.axhline(dense, color=_FAINT, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
        if label_dense:
            ax.annotate(
                f"dense\n{dense:.1f}",
                xy=(1, dense),
                xycoords=("axes fraction", "data"),
                xytext=(2, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=_FAINT,
            )
    for curve in curves:
        look = looks[curve.proposer]
        gap = min(_SIDESTEP, _SPREAD / len(order))
        step = (order.index(curve.proposer) - (len(order) - 1) / 2) * gap
        place = offset_copy(ax.transData, figure, x=step, units="points")
        _curve(ax, curve, look, place)
        singles = list(chain.from_iterable(curve.points))
        beside = _BESIDE if len(singles) > len(curve.points) else 0  # a lone training is its own mean
        for point in singles:
            mark = _mark(look, point.hollow) | {
                "markersize": 2.3,
                "markeredgewidth": 0.6 if point.hollow else 0.25,
            }
            (drawn,) = ax.plot(
                [point.x],
                [point.accuracy],
                linestyle="none",
                alpha=0.75,
                transform=offset_copy(place, figure, x=beside, units="points"),
                zorder=4.5,
                **mark,
            )
            drawn.set_gid(f"run-{point.run}")


def _curve(ax: Axes, curve: Curve, look: Style, place: Transform) -> None:
    means = [spread.mean for spread in curve.accuracy]
    ax.errorbar(
        curve.xs,
        means,
        yerr=[spread.std or 0 for spread in curve.accuracy],
        fmt="none",
        ecolor=look.color,
        elinewidth=0.8,
        capsize=0,
        transform=place,
        zorder=2,
    )
    ax.plot(curve.xs, means, color=look.color, transform=place, zorder=4, **_line(look))
    for x, mean, points in zip(curve.xs, means, curve.points, strict=True):
        hollow = any(point.hollow for point in points)
        ax.plot([x], [mean], color=look.color, transform=place, zorder=5, **_mark(look, hollow))


def _line(look: Style) -> dict[str, Any]:
    return {"linestyle": look.dash, "linewidth": 1.1}


def _mark(look: Style, hollow: bool = False) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markersize": 4.2,
        "markerfacecolor": "white" if hollow else look.color,
        "markeredgecolor": look.color if hollow else "white",
        "markeredgewidth": 1.0 if hollow else 0.5,
    }


def _scale(ax: Axes, curves: Sequence[Curve], dense: float | None) -> None:
    """Limits and ticks; the panels share them."""
    xs = [point.x for curve in curves for points in curve.points for point in points]
    low, high = math.log10(min(xs)), math.log10(max(xs))
    margin = max(0.05 * (high - low), 0.02)
    left, right = 10 ** (low - margin), 10 ** (high + margin)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.xaxis.set_major_locator(FixedLocator(_ticks(left, right)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ys = [point.accuracy for curve in curves for points in curve.points for point in points]
    spreads = [spread for curve in curves for spread in curve.accuracy]
    ys += [spread.mean + sign * (spread.std or 0) for spread in spreads for sign in (-1, 1)]
    ys += [] if dense is None else [dense]
    bottom, top = max(0.0, min(ys)), min(100.0, max(ys))
    room = max(0.06 * (top - bottom), 0.05)
    ax.set_ylim(bottom - room, top + room)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(bottom, top)
    ax.yaxis.set_major_locator(
        FixedLocator([tick for tick in ticks if bottom - room <= tick <= min(100, top + room)])
    )


def _ticks(left: float, right: float) -> list[float]:
    """Round numbers between `left` and `right`, at least three unless the axis is very short."""
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), range(1, 10)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if left <= tick <= right]
        if len(ticks) >= 3:
            return ticks
    return [
        tick
        for tick in MaxNLocator(nbins=4, steps=[1, 2, 5, 10]).tick_values(left, right)
        if left <= tick <= right
    ]


def _columns(names: Sequence[str], inches: float) -> int:
    """As many legend columns as fit, by an estimate of their width in points."""
    for columns in range(len(names), 1, -1):
        parts = np.array_split(np.array(names), columns)
        if sum(28 + 4.4 * max(map(len, part)) for part in parts) <= 72 * inches:
            return columns
    return 1


def _caption(curves: Sequence[Curve], setting: str) -> str:
    sizes = sorted({len(points) for curve in curves for points in curve.points})
    n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    protocols = sorted({curve.protocol for curve in curves})
    sentences = [f"{setting}, {' and '.join(protocols)}, n = {n}."]
    if sizes[-1] > 1:
        sentences.append(
            "Lines join means; bars are ± 1 standard deviation; small marks are single trainings."
        )
    else:
        sentences.append("Every mark is a single training.")
    if len({curve.proposer for curve in curves}) > 1:
        sentences.append("Curves are set a little apart sideways.")
    if any(point.hollow for curve in curves for points in curve.points for point in points):
        sentences.append("White face: the sparsity penalty had not acted.")
    if any(curve.masked for curve in curves):
        sentences.append("Masked networks count the weights that exist; a dense device executes all of them.")
    if curves[0].metric == "macs":
        sentences.append(
            "MACs of convolutions and linear layers; norms, activations and pooling are not counted."
        )
    return " ".join(sentences)
