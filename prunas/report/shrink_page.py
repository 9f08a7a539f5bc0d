"""The page beside a shrunk network: one HTML file that says what was picked, why, and what was lost."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prunas import __version__
from prunas.protocols import is_fresh
from prunas.report.figure import FAINT, line_look, mark_look, score_axis, sheet, styled
from prunas.report.page import inline
from prunas.results.shrunk import PrunedShape, Retrained, ShrinkRecord
from prunas.statistics.shrunk import cost_table, sentence, shape_table, training_table
from prunas.statistics.summary import grouped

__all__ = ["retraining_figure", "shrink_page"]


def shrink_page(record: ShrinkRecord, latency: tuple[float, float, float] | None = None) -> str:
    """The page as an HTML document.

    Args:
        record: What was tried and picked.
        latency: Seconds of a pass of the given and the picked network, and their ratio, if it was measured.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sources = files("prunas.report")
    template, css = (
        (sources / name).read_text(encoding="utf-8") for name in ("shrink_page.html", "page.css")
    )
    return environment.from_string(template).render(
        record=record,
        version=__version__,
        css=Markup(css),
        sentence=sentence(record),
        figure=inline(retraining_figure(record), "retraining"),
        tables=[
            ("Before and after", cost_table(record, latency)),
            ("Trainings", training_table(record)),
            ("Shapes right after pruning", shape_table(record)),
        ],
    )


@styled
def retraining_figure(record: ShrinkRecord) -> Figure:
    """Draws the validation score over epochs of retraining, a panel for each way, a curve for each shape."""
    score = record.score
    panels = grouped(record.trainings, lambda training: training.protocol)
    before = {(shape.proposer, shape.architecture): shape for shape in record.shapes}
    figure, axes, looks = sheet(
        [training.proposer for training in record.trainings],
        f"{record.space} at {record.asked.label} of {record.asked.metric}. At 0 epochs: right after pruning, "
        "batch norms estimated anew. Every mark is a training of its own with a schedule of that length; dashed: "
        "the given network; ring: the picked one.",
        panels=len(panels),
        across=2,
        sharey=True,
    )
    heights = [record.dense.val_score]
    for ax, (way, trainings) in zip(axes, panels.items(), strict=True):
        ax.axhline(record.dense.val_score, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        by_shape = grouped(trainings, lambda training: (training.proposer, training.architecture))
        for (proposer, architecture), of_shape in by_shape.items():
            points = _points(before[proposer, architecture], of_shape, is_fresh(way))
            heights += [height for _, height in points]
            look: Any = looks[proposer]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            ax.plot(xs, ys, color=look.color, zorder=3, **line_look(look), **mark_look(look))
        if record.picked.protocol == way and record.picked.val_score is not None:
            ring: Any = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": FAINT}
            ax.plot([record.picked.epochs], [record.picked.val_score], marker="o", zorder=4, **ring)
        ax.set_title(way)
        ax.set_xlabel("epochs of retraining")
        ax.set_xlim(left=-0.5)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    for ax in axes[::2]:
        lower = "" if score.better == "higher" else ", lower is better"
        ax.set_ylabel(f"validation {score.label}{lower}")
    score_axis(axes[0], heights, score)
    return figure


def _points(shape: PrunedShape, trainings: Sequence[Retrained], fresh: bool) -> list[tuple[float, float]]:
    """Epochs and score of a shape: right after pruning, unless it starts afresh, and after each training."""
    start = [] if fresh or shape.pruned_score is None else [(0.0, shape.pruned_score)]
    ended = [(float(each.epochs), each.val_score) for each in trainings if each.val_score is not None]
    return start + sorted(ended)
