"""What a budget counts."""

from typing import Literal, get_args

__all__ = ["METRICS", "Metric"]

Metric = Literal["params", "macs", "channels", "conv-params"]
METRICS: tuple[Metric, ...] = get_args(Metric)
