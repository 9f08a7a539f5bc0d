"""What samplers vary: a few numbers per stage, and the shape they stand for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunas import designs
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.designs import kernels
from prunas.proposers.baselines.controls import NARROWEST
from prunas.spaces.space import SearchSpace
from prunas.surgery.masks import kernel_masks

if TYPE_CHECKING:
    pass

__all__ = ["PROFILES", "stage_ratios"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a study's parameters mean: one ratio per part that varies, and the point they are fitted to.

    Attributes:
        keys: Name of the parameter that each part shares, in the order of the parts.
        ratios: Of a point, what it keeps of each part, in [0, 1].
        point: From ratios to the point that fits the target.
    """

    keys: tuple[str, ...]
    ratios: Callable[[Architecture], npt.ArrayLike]
    fit: Callable[[npt.NDArray[np.float64]], Architecture]

    @property
    def names(self) -> list[str]:
        """The parameters, in order."""
        return list(dict.fromkeys(self.keys))

    def point(self, params: Mapping[str, float]) -> Architecture:
        """The point of a study's parameters."""
        return self.fit(np.array([params[key] for key in self.keys]))

    def means(self, arch: Architecture) -> dict[str, float]:
        """What a point keeps, by parameter."""
        kept = np.asarray(self.ratios(arch), float)
        return {name: float(kept[[key == name for key in self.keys]].mean()) for name in self.names}

    def of(self, arch: Architecture) -> dict[str, float]:
        """A point as parameters, in [NARROWEST, 1].

        Only their proportions matter, because they are fitted by one scalar: of all profiles with these
        proportions, the one in the middle of the range stands for them, so that neighbouring shapes are neighbours
        for a sampler too.
        """
        means = {name: max(mean, 1e-6) for name, mean in self.means(arch).items()}
        scale = (NARROWEST / (min(means.values()) * max(means.values()))) ** 0.5
        return {name: float(np.clip(mean * scale, NARROWEST, 1.0)) for name, mean in means.items()}


def width_profile(space: SearchSpace, level: str, target: Target, seed: int) -> Profile:
    keys = tuple(f"stage{d.stage}" if level == "stage" else d.name for d in space.dimensions)
    return Profile(keys, partial(designs.ratios, space), lambda ratios: designs.fit(space, ratios, target))


def depth_profile(space: SearchSpace, level: str, target: Target, seed: int) -> Profile:
    """Blocks go in the order of the scalar at which they would be rounded away, until the budget is met.

    At stage level the last blocks of a stage go first.
    """
    blocks = [block for block in space.survey.blocks if block.name in space.removable]
    keys = tuple(f"stage{block.stage}" if level == "stage" else block.name for block in blocks)
    turn = np.array([keys[:i].count(key) + 0.5 for i, key in enumerate(keys)])
    count = np.array([keys.count(key) for key in keys])

    def fit(ratios: npt.NDArray[np.float64]) -> Architecture:
        order = np.argsort(turn / (count * ratios), kind="stable")
        for kept in range(len(blocks), -1, -1):
            arch = space.point(removed=[blocks[i].name for i in order[kept:]])
            if space.measure(arch, target.metric) <= target.value:
                break
        return arch

    def ratios(arch: Architecture) -> list[bool]:
        return [block.name not in arch.removed for block in blocks]

    return Profile(keys, ratios, fit)


def kernel_profile(space: SearchSpace, level: str, target: Target, seed: int) -> Profile:
    layers = [layer for layer in space.survey.layers if layer.kind == "conv"]
    keys = tuple(kernels.stage_key(layer) if level == "stage" else layer.path for layer in layers)

    def fit(ratios: npt.NDArray[np.float64]) -> Architecture:
        wanted = {
            key: np.full(int(np.prod(layer.kernel)), ratio)
            for key, layer, ratio in zip(keys, layers, ratios, strict=True)
        }
        return kernels.fit_kernels(space, wanted, target, seed)

    def ratios(arch: Architecture) -> list[float]:
        masks = kernel_masks(space.survey, arch)
        return [
            float(mask.mean()) if (mask := masks.get(f"{layer.path}.weight")) is not None else 1.0
            for layer in layers
        ]

    return Profile(keys, ratios, fit)


PROFILES: Mapping[str, Callable[[SearchSpace, str, Target, int], Profile]] = {
    "width": width_profile,
    "depth": depth_profile,
    "kernel": kernel_profile,
}


def stage_ratios(space: SearchSpace, points: Sequence[Architecture]) -> list[dict[str, float]]:
    """What points of one search keep of each stage, as parameters of a study; of what the search varies."""
    vary = (
        "kernel" if any(p.masked for p in points) else "depth" if any(p.removed for p in points) else "width"
    )
    profile = PROFILES[vary](space, "stage", Target("params", 0), 0)
    return [profile.means(arch) for arch in points]
