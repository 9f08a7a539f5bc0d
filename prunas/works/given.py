"""The work `given`: the dense network with weights that a user brings, scored and kept, not trained."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunas.architecture import Architecture
from prunas.files import write_atomic
from prunas.spaces.space import SearchSpace
from prunas.surgery.given import Weights, fitted_state, state_bytes
from prunas.tasks.base import Task
from prunas.works.evaluate import score_network
from prunas.works.runtime import initial

__all__ = ["run"]


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Loads given weights, as `prunas.works.trainings.Setting.given` writes them down; keeps them as a run.

    Returns:
        `score` on the validation split, the `macs` and `seconds` it took, an empty `penalty`, and `notes` on how
        the weights were read; None if `stop` said so.

    Raises:
        InputError: The weights cannot be read, changed since the job was planned, or do not fit the network.
    """
    weights = Weights.from_json(spec["weights"], spec.get("places", {}).get("weights"))
    arch = Architecture.from_json(spec["architecture"])
    notes: tuple[str, ...] = ()

    def make(space: SearchSpace, task: Task) -> nn.Module:
        nonlocal notes
        state, notes = fitted_state(weights, initial(space, spec["seed"]), folder.parent)
        write_atomic(folder / "weights.safetensors", lambda file: file.write(state_bytes(state)))
        with torch.random.fork_rng(devices=[]):
            return space.build(arch, state, {})

    values = score_network(spec, arch, make, 0, stop)
    return None if values is None else {**values, "penalty": {}, "notes": list(notes)}
