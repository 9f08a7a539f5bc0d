"""What a budget can count: one entry a metric, exact, of one point and of many at once. Torch-free.

Another package adds one by an entry point of the group `prunas.metrics`, which names a `Metric`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.errors import InputError, unknown
from prunas.plugins import plugins

__all__ = ["METRICS", "Counted", "Metric", "check_thinned", "metric", "metric_names"]

Counts = npt.NDArray[np.int64]


class Counted(Protocol):
    """What a metric reads of a search space; see `prunas.spaces.space.SearchSpace`."""

    @property
    def costs(self) -> CostModel:
        """Cost of every point of the network."""

    def channels(self, arch: Architecture) -> int:
        """Units and passing channels of a point that the space lets vary."""

    def channels_table(self, counts: npt.ArrayLike) -> Counts:
        """The same of many points, shape (points,)."""

    def sizes(self, counts: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Widths (points, groups) and passing channels (points, gates) of many points; see `CostModel.table`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a network that a budget can limit.

    Attributes:
        name: The word a user types.
        label: Behind a number in a sentence: 1.2M `MACs`.
        unit: Of one count, for an axis.
        table: Space and counts of shape (points, dimensions), kernels dense and all blocks whole, to integers of
            shape (points,).
        of: Space and one point, of any kind, to the exact number.
        monotone: Whether more units never cost less; designs and methods bisect on it.
        thinned: Whether masking weights of convolutions lowers it, so that a kernel pattern can meet a budget.
        identity: What the numbers depend on besides the network, such as the digest of a table of measurements;
            "" for what is counted.
    """

    name: str
    label: str
    unit: str
    table: Callable[[Counted, npt.ArrayLike], Counts]
    of: Callable[[Counted, Architecture], int]
    monotone: bool = True
    thinned: bool = False
    identity: str = ""


def _params_table(space: Counted, counts: npt.ArrayLike) -> Counts:
    return space.costs.table(*space.sizes(counts))[0]


def _activations_table(space: Counted, counts: npt.ArrayLike) -> Counts:
    return space.costs.activations_table(*space.sizes(counts))


def _memory(space: Counted, arch: Architecture) -> int:
    return 4 * (space.costs.of(arch).dense_params + space.costs.activations(arch))


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Metric(
                name="params",
                label="params",
                unit="parameters",
                table=_params_table,
                of=lambda space, arch: space.costs.of(arch).params,
                thinned=True,
            ),
            Metric(
                name="macs",
                label="MACs",
                unit="MACs per image",
                table=lambda space, counts: space.costs.table(*space.sizes(counts))[1],
                of=lambda space, arch: space.costs.of(arch).macs,
                thinned=True,
            ),
            Metric(
                name="channels",
                label="channels",
                unit="channels",
                table=lambda space, counts: space.channels_table(counts),
                of=lambda space, arch: space.channels(arch),
            ),
            Metric(
                name="conv-params",
                label="convolution weights",
                unit="convolution weights",
                table=lambda space, counts: space.costs.conv_params_table(*space.sizes(counts)),
                of=lambda space, arch: space.costs.conv_params(arch),
                thinned=True,
            ),
            Metric(
                name="activations",
                label="activations",
                unit="activations per image",
                table=_activations_table,
                of=lambda space, arch: space.costs.activations(arch),
            ),
            Metric(
                name="memory",
                label="bytes",
                unit="bytes per image",
                table=lambda space, counts: (
                    4 * (_params_table(space, counts) + _activations_table(space, counts))
                ),
                of=_memory,
            ),
        )
    }
)
"""prunas's own, by name.

`params`, `macs`: weights that exist, and multiply-accumulates of one image. `channels`: units of the groups and
channels of the gates that a space lets vary, as the study counts them. `conv-params`: weights of convolutions
without their biases, what the study's table 6 prunes shares of. `activations`: numbers that all convolutions and
linear layers write for one image in eval mode, over all calls. `memory`: bytes of float32 that all parameters and
these activations fill together, masked weights included; norms, workspaces and gradients are not in it.
"""


def metric(name: str) -> Metric:
    """The metric called `name`, of prunas or of another package.

    Raises:
        InputError: There is none, and the message names the nearest ones; or the package's cannot be used.
    """
    if name in METRICS:
        return METRICS[name]
    offers = plugins("prunas.metrics")
    if name not in offers:
        raise unknown("metric", str(name), metric_names())
    made = offers[name].load()
    if not isinstance(made, Metric) or made.name != name:
        raise InputError(f"{offers[name]} is no Metric called {name!r}; it names {made!r}")
    if not made.monotone:
        raise InputError(
            f"{offers[name]} is not monotone, and budgets are met by bisection; make it so there"
        )
    return made


def metric_names() -> tuple[str, ...]:
    """The names of all metrics: prunas's, then those that other packages offer."""
    return (*METRICS, *plugins("prunas.metrics"))


def check_thinned(name: str, what: str) -> None:
    """Refuses a metric that masks of weights do not lower.

    Args:
        name: Of the metric.
        what: What masks, for the message.

    Raises:
        InputError: It is one; the message says which metrics masks lower.
    """
    if not metric(name).thinned:
        *others, last = (entry.name for entry in METRICS.values() if entry.thinned)
        raise InputError(f"{what} keeps all {metric(name).label}; ask for {', '.join(others)} or {last}")
