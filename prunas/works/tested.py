"""The work `test`: score the network of a finished run on the test split, without training it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunas.architecture import Architecture
from prunas.spaces.space import SearchSpace
from prunas.tasks.base import Task
from prunas.works.evaluate import score_network
from prunas.works.runtime import weights

__all__ = ["run"]


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Test score of what a run kept, as `prunas.works.trainings.Setting.work` writes it down.

    Its options: `architecture`; `run`: the name of the run that kept the weights of that point.

    Returns:
        `score` on the test split, the `macs` and `seconds` it took; None if `stop` said so.
    """
    options = spec["options"]
    arch = Architecture.from_json(options["architecture"])

    def make(space: SearchSpace, task: Task) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            net = space.build(arch)
        net.load_state_dict(weights(folder.parent / options["run"]))
        return net

    return score_network(spec, arch, make, 0, stop, "test")
