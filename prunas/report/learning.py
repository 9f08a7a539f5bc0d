"""Learning curves: the training loss of every proposer's points, epoch by epoch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from prunas.errors import InputError
from prunas.report.evidence import Losses
from prunas.report.figure import line_look, mark_look, mark_series, nice_ticks, sheet, styled
from prunas.statistics.summary import grouped
from prunas.statistics.text import asked_text

__all__ = ["learning_figure"]


@styled
def learning_figure(logs: Sequence[Losses], *, setting: str) -> Figure:
    """Draws the mean loss per proposer and the range of its seeds, one panel per protocol and target.

    Args:
        logs: In the order of the panels; of those without an epoch the caption tells.
        setting: Space, data set and recipe, for the caption.

    Raises:
        InputError: No log has an epoch.
    """
    begun = [log for log in logs if log.losses]
    if not begun:
        raise InputError("nothing to plot: no run has a log yet")
    silent = len(logs) - len(begun)
    left_out = f" Left out: {silent} run{'s' if silent > 1 else ''} without a log." if silent else ""
    panels = grouped(begun, lambda log: (log.protocol, log.asked))
    several = len({protocol for protocol, _ in panels}) > 1
    figure, axes, looks = sheet(
        [log.proposer for log in begun],
        f"{setting}. Lines are means over seeds, bands their range; a line ends with the shortest of its "
        f"trainings. Training loss says how well a shape can be fitted, not how well it generalises.{left_out}",
        panels=len(panels),
        across=2,
        panel=(3.5, 2.0),
        sharey=True,
    )
    for ax, ((protocol, asked), own) in zip(axes, panels.items(), strict=True):
        for proposer, group in grouped(own, lambda log: log.proposer).items():
            look = looks[proposer]
            length = min(len(log.losses) for log in group)
            table = np.array([log.losses[:length] for log in group])
            epochs = np.arange(1, length + 1)
            if len(table) > 1:
                band = ax.fill_between(
                    epochs, table.min(axis=0), table.max(axis=0), color=look.color, alpha=0.15, linewidth=0
                )
                mark_series(ax, proposer, band)
            every = max(1, length // 5)
            drawn = ax.plot(
                epochs,
                table.mean(axis=0),
                color=look.color,
                markevery=(list(looks).index(proposer) * every // len(looks), every),
                **line_look(look),
                **mark_look(look, size=3.4),
            )
            mark_series(ax, proposer, *drawn)
        ax.set_title(f"{asked_text(asked)}, {protocol}" if several else asked_text(asked))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        ax.set_xlabel("epoch")
    for ax in axes[::2]:
        ax.set_ylabel("training loss")
    values = [loss for log in begun for loss in log.losses]
    bottom, top = min(values) / 1.15, max(values) * 1.15
    axes[0].set_yscale("log")
    axes[0].set_ylim(bottom, top)
    axes[0].yaxis.set_major_locator(FixedLocator(nice_ticks(bottom, top)))
    axes[0].yaxis.set_minor_locator(NullLocator())
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    return figure
