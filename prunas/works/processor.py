"""How trainings use the processor of this machine: threads, convolution kernels, how many side by side.

Threads and kernels round differently, so both are part of how a run was executed and stand in its result, not in
its identity. Which kernels a training gets depends on nothing but the training: the same on every machine.

The limits were measured on two AMD virtual cores held to AVX2, in processor time; see benchmarks/speed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.recipe import Recipe
from prunas.spaces.space import SearchSpace

__all__ = ["convolutions", "cores", "onednn_pays", "threads", "workers"]

ONE_THREAD = 500_000_000
"""MACs of a batch, forward, below which a second thread costs more than it brings: a small VGG on digits trains as
fast with one thread and spends half the processor time."""

ONEDNN = 250_000
"""MACs of a batch and layer, forward, above which oneDNN's convolutions are faster than torch's own. Below, what
oneDNN does around each convolution costs more than the convolution: steps at 40,000 to 130,000 take 0.63 to 0.69
of the time without it, at 170,000 0.87, at 340,000 1.05, at 850,000 1.3."""

STEPS_OF_A_WORKER = 2_500
"""Training steps that are worth a worker process of their own, which takes some seconds to start."""


def cores() -> int:
    """Cores this process may use: OMP_NUM_THREADS, else those it is confined to.

    Raises:
        InputError: OMP_NUM_THREADS is no whole number above 0.
    """
    if given := os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]:
        if not (given.isdecimal() and int(given) > 0):
            raise InputError(f"OMP_NUM_THREADS must be a whole number above 0, not {given!r}")
        return int(given)
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads(macs: int) -> int:
    """CPU threads of a training.

    Args:
        macs: Of one batch, forward.
    """
    return 1 if macs < ONE_THREAD else cores()


def workers(macs: int, steps: int) -> int:
    """Worker processes, of one thread each, that a search on the CPU gets unless told otherwise; 1 means none.

    Args:
        macs: Of one batch of the largest network, forward: a training that can use all cores leaves none idle.
        steps: Training steps of the whole search.
    """
    most = min(cores(), os.cpu_count() or 1)
    return 1 if macs >= ONE_THREAD else max(1, min(most, steps // STEPS_OF_A_WORKER))


def onednn_pays(space: SearchSpace, arch: Architecture, recipe: Recipe) -> bool:
    """Whether a training on a CPU is faster with oneDNN's convolutions than with torch's own.

    Torch's own are for the plain case only: fp32, contiguous, two spatial axes, one group.
    """
    layers = [layer for layer in space.survey.layers if layer.kind in ("conv", "linear")]
    plain = all(
        layer.groups == 1 and not layer.depthwise and len(layer.kernel) == 2
        for layer in layers
        if layer.kind == "conv"
    )
    if not layers or not plain or recipe.precision == "bf16" or recipe.channels_last:
        return True
    return space.cost(arch).macs * recipe.batch >= ONEDNN * len(layers)


@contextmanager
def convolutions(onednn: bool) -> Iterator[None]:
    """While open, CPU convolutions are oneDNN's, where torch has it, or torch's own."""
    import torch

    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = onednn and before  # type: ignore[assignment]  # a property of the module
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
