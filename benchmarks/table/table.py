"""The table: what every point of a small space scored, in one file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.table.space import parts, points, the_space
from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.files import write_atomic

__all__ = ["TABLE", "Table", "load", "write"]

TABLE = Path(__file__).parent / "three-stages.npz"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """Scores of every point of a space.

    Attributes:
        points: The points.
        val: Validation accuracy in percent, shape (points, seeds): what a search sees.
        test: Test accuracy in percent, shape (points, seeds): what judges it. See `truth`.
        losses: Mean training loss of every epoch, shape (points, seeds, epochs).
        seconds: Of every training, shape (points, seeds).
        about: Space, data, recipe, device, versions and date.
    """

    points: tuple[Architecture, ...]
    val: Floats
    test: Floats
    losses: Floats
    seconds: Floats
    about: Mapping[str, Any]

    def truth(self, unseen: int | None = None) -> Floats:
        """Mean test accuracy of every point in percent, shape (points,).

        Args:
            unseen: The seed that a search or a score has seen: the others judge it. None: all seeds.
        """
        others = [seed for seed in range(self.test.shape[1]) if seed != unseen]
        return np.asarray(self.test[:, others].mean(1))

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Position of every point by its digest."""
        return {arch.digest: i for i, arch in enumerate(self.points)}

    def at(self, arch: Architecture) -> int:
        """Position of a point.

        Raises:
            InputError: It is not in the table.
        """
        if arch.digest not in self.place:
            raise InputError(f"point {arch.digest} of space {arch.space!r} is not in the table")
        return self.place[arch.digest]

    def cost(self, metric: str) -> npt.NDArray[np.int64]:
        """What every point costs, by the name of a metric of prunas, shape (points,)."""
        if metric not in self._costs:
            self._costs[metric] = np.array(
                [the_space().measure(arch, metric) for arch in self.points], np.int64
            )
        return self._costs[metric]

    @cached_property
    def _costs(self) -> dict[str, npt.NDArray[np.int64]]:
        return {}


def load(path: Path = TABLE) -> Table:
    """The table as far as it is exhaustive: the largest space of `parts` whose points all have every seed.

    Args:
        path: Its file.

    Raises:
        InputError: It is not there, was made of another network, or holds none of these spaces yet.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise InputError(
            f"the table {path} cannot be read ({error}); python -m benchmarks.table build"
        ) from error
    about = json.loads(str(held.pop("about")))
    if about["network"] != the_space().survey.fingerprint:
        raise InputError(f"the table {path} was made of another network; python -m benchmarks.table build")
    trained = ~np.isnan(held["test"]).any(1)
    there: list[int] = []
    for part in parts():
        if not trained[list(part)].all():
            break
        there = sorted([*there, *part])
    if not there:
        raise InputError(f"the table {path} is not far enough yet; python -m benchmarks.table build goes on")
    arrays = {name: values[there].astype(float) for name, values in held.items()}
    return Table(tuple(points()[i] for i in there), about=about, **arrays)


def write(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes the file of a table, compressed, in one go."""
    write_atomic(path, lambda file: np.savez_compressed(file, **arrays))
