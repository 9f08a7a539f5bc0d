"""Parameter efficiency: test score over what a network costs, one curve per proposer.

After figures 3 and 5 of the study (arXiv:1810.05270), with every single training drawn, and with masked
networks in a panel of their own.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from prunas.errors import InputError
from prunas.report.figure import (
    FAINT,
    cost_axis,
    draw_means,
    flag_sentences,
    mark_look,
    save,
    score_axis,
    sheet,
    sidestep,
    styled,
)
from prunas.report.styles import Style
from prunas.results.record import Record
from prunas.results.rows import Metric
from prunas.statistics.curves import Curve, dense_score, undrawn
from prunas.statistics.curves import curves as curves_of
from prunas.statistics.flags import doubts, ordered
from prunas.statistics.wording import axis_label, decimals
from prunas.tasks.score import Score

__all__ = ["draw_efficiency", "draw_record", "efficiency_figure", "record_figure"]

_BESIDE = 2.3  # points from a mean to its single trainings
_SINGLE = 2.3  # size of a single training in points
_AXIS = {"params": "parameters", "macs": "MACs per image"}


def record_figure(record: Record, metric: Metric = "params", left_out: Sequence[str] = ()) -> Figure | None:
    """The efficiency figure of a record; None if no run has been tested.

    Args:
        record: The record.
        metric: What the x axis counts.
        left_out: What was taken out of the record before, for the caption.
    """
    drawn = curves_of(record.rows, record.score, metric)
    if not drawn:
        return None
    dense = dense_score(record.dense, record.score)
    return efficiency_figure(
        drawn,
        space=record.space,
        data=record.data,
        recipe=record.recipe,
        epochs=record.epochs,
        score=record.score,
        dense=dense.mean if dense else None,
        left_out=(*left_out, *undrawn(record.rows, record.score)),
    )


def draw_record(record: Record, folder: Path, metric: Metric = "params") -> tuple[Path, ...]:
    """The efficiency figure of a record as SVG and PNG; no file if no run has been tested.

    Args:
        record: The record.
        folder: Where the files go; made if missing.
        metric: What the x axis counts.
    """
    figure = record_figure(record, metric)
    name = "efficiency" if metric == "params" else f"efficiency-{metric}"
    return () if figure is None else save(figure, folder, name)


def draw_efficiency(
    curves: Sequence[Curve],
    folder: Path,
    *,
    space: str,
    data: str,
    recipe: str,
    epochs: int,
    score: Score,
    dense: float | None = None,
    left_out: Sequence[str] = (),
    name: str = "efficiency",
) -> tuple[Path, ...]:
    """Draws the curves into `folder` as SVG and PNG, the same bytes for the same input.

    There is one panel for each protocol and sort of network (masked or narrow). A mark with a white face
    stands for a flagged point, and the caption names the flags. In the SVG every single training is a group with
    the id `run-<id of the run>`.

    Args:
        curves: At least one, all over the same metric, at most one for each proposer in a panel.
        folder: Where the files go; made if missing.
        space: Search space, for the caption.
        data: Data set, for the caption.
        recipe: Name of the recipe, for the caption.
        epochs: Of the recipe.
        score: What the curves show.
        dense: Score of the dense network, drawn as a reference line.
        left_out: What the curves do not show, for the caption; see `prunas.statistics.curves.undrawn`.
        name: Of the files, without suffix.

    Returns:
        The paths of the SVG and the PNG.

    Raises:
        InputError: There are no curves, or a file cannot be written.
    """
    figure = efficiency_figure(
        curves,
        space=space,
        data=data,
        recipe=recipe,
        epochs=epochs,
        score=score,
        dense=dense,
        left_out=left_out,
    )
    return save(figure, folder, name)


@styled
def efficiency_figure(
    curves: Sequence[Curve],
    *,
    space: str,
    data: str,
    recipe: str,
    epochs: int,
    score: Score,
    dense: float | None = None,
    left_out: Sequence[str] = (),
) -> Figure:
    """The figure that `draw_efficiency` writes; arguments and errors as there."""
    if not curves:
        raise InputError(f"nothing to plot: no finished run has a test {score.name} yet")
    if len({curve.metric for curve in curves}) > 1:
        raise ValueError("curves over different metrics cannot share a figure")
    panels = sorted({(curve.masked, curve.protocol) for curve in curves})
    flags = _flags(curves)
    # One digit less than in tables: it stands beside the axis.
    dense_label = None if dense is None else f"dense\n{dense:.{max(0, decimals(score) - 1)}f}"
    figure, axes, looks = sheet(
        [curve.proposer for curve in curves],
        _caption(curves, f"{space} on {data}, recipe {recipe} ({epochs} epochs)", flags, left_out),
        panels=len(panels),
        across=2,
        flagged=bool(flags),
        sharex=True,
        sharey=True,
    )
    for index, (ax, (masked, protocol)) in enumerate(zip(axes, panels, strict=True)):
        own = [curve for curve in curves if (curve.masked, curve.protocol) == (masked, protocol)]
        last = index % 2 == 1 or index == len(panels) - 1
        _panel(figure, ax, own, looks, dense, dense_label if last else None)
        ax.set_xlabel(_AXIS[own[0].metric])
        ax.tick_params(labelbottom=True)
        if index % 2 == 0:
            ax.set_ylabel(axis_label(score))
        if len(panels) > 1:
            ax.set_title(f"{protocol}, {'masked' if masked else 'narrow'} networks")
    cost_axis(axes[0], [point.x for curve in curves for points in curve.points for point in points])
    spreads = [spread for curve in curves for spread in curve.scores]
    heights = [point.score for curve in curves for points in curve.points for point in points]
    heights += [spread.mean + sign * (spread.std or 0) for spread in spreads for sign in (-1, 1)]
    score_axis(axes[0], heights + ([] if dense is None else [dense]), score)
    return figure


def _panel(
    figure: Figure,
    ax: Axes,
    curves: Sequence[Curve],
    looks: Mapping[str, Style],
    dense: float | None,
    dense_label: str | None,
) -> None:
    order = [name for name in looks if name in {curve.proposer for curve in curves}]
    if dense is not None:
        ax.axhline(dense, color=FAINT, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
        if dense_label is not None:
            ax.annotate(
                dense_label,
                xy=(1, dense),
                xycoords=("axes fraction", "data"),
                xytext=(2, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=FAINT,
            )
    for curve in curves:
        look = looks[curve.proposer]
        place = sidestep(ax, figure, order.index(curve.proposer), len(order))
        hollow = [any(point.hollow for point in points) for points in curve.points]
        draw_means(ax, curve.xs, curve.scores, look, place, hollow, curve.proposer)
        singles = list(chain.from_iterable(curve.points))
        beside = _BESIDE if len(singles) > len(curve.points) else 0  # a lone training is its own mean
        for point in singles:
            (drawn,) = ax.plot(
                [point.x],
                [point.score],
                linestyle="none",
                alpha=0.75,
                transform=offset_copy(place, figure, x=beside, units="points"),
                zorder=4.5,
                **mark_look(look, point.hollow, _SINGLE),
            )
            drawn.set_in_layout(False)  # far cheaper for a thousand of them, and they widen nothing
            drawn.set_gid(f"run-{point.run}")


def _flags(curves: Sequence[Curve]) -> dict[str, list[str]]:
    """The proposers whose points carry each flag that makes a mark hollow."""
    names: dict[str, list[str]] = {}
    for curve in curves:
        for flag in {flag for points in curve.points for point in points for flag in doubts(point.flags)}:
            names.setdefault(flag, []).append(curve.proposer)
    return {flag: names[flag] for flag in ordered(names)}


def _caption(
    curves: Sequence[Curve], setting: str, flags: Mapping[str, Sequence[str]], left_out: Sequence[str]
) -> str:
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
    sentences += flag_sentences(flags)
    if any(curve.masked for curve in curves):
        sentences.append("Masked networks count the weights that exist; a dense device executes all of them.")
    if curves[0].metric == "macs":
        sentences.append(
            "MACs of convolutions and linear layers; norms, activations and pooling are not counted."
        )
    if left_out:
        sentences.append(f"Left out: {'; '.join(left_out)}.")
    return " ".join(sentences)
