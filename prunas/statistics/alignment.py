"""What aligning widths changed: both shapes of every point side by side."""

from collections.abc import Sequence
from statistics import fmean

from prunas.results.rows import TrainingRow
from prunas.statistics.summary import grouped
from prunas.statistics.text import Table, asked_text, count

__all__ = ["alignment_table"]


def alignment_table(rows: Sequence[TrainingRow]) -> Table:
    """Mean cost of the points as proposed and as trained, one line per target and proposer.

    Args:
        rows: Trainings; those of points that were not aligned are left out.
    """
    points = {(row.asked, row.proposer, row.search_seed): row for row in rows if row.proposed is not None}
    lines = []
    for (asked, proposer), group in grouped(points.values(), lambda row: (row.asked, row.proposer)).items():
        pairs = [(row.proposed.reached, row.reached) for row in group if row.proposed is not None]
        lines.append(
            (
                asked_text(asked),
                proposer,
                str(len(pairs)),
                *(
                    count(fmean(getattr(pair[i], metric) for pair in pairs))
                    for metric in ("params", "macs")
                    for i in (0, 1)
                ),
            )
        )
    return Table(
        columns=("asked", "proposer", "n", "params proposed", "aligned", "MACs proposed", "aligned"),
        align="llrrrrr",
        rows=tuple(lines),
        notes=("Means over the points as they were proposed and as they were aligned and trained.",),
    )
