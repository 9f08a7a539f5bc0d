"""How image files become inputs: size, channels, normalisation, augmentation. Transforms are torchvision's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision import transforms

from prunas.errors import InputError, unknown

__all__ = ["AUGMENTATIONS", "Preparation"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GREY = (0.449,), (0.226,)
"""Means over the channels of ImageNet's."""

AUGMENTATIONS: Mapping[str, str] = MappingProxyType(
    {
        "crop": "a random part, of 8 to 100 % of the area, resized (as for ImageNet)",
        "shift": "a random crop of the image with an eighth of its size in black around it (as for CIFAR)",
        "flip": "mirrored at random",
        "trivial": "TrivialAugmentWide, arXiv:2103.10158",
        "rand": "RandAugment, arXiv:1909.13719",
        "none": "nothing; stands alone",
    }
)
"""What `augment` is made of, joined by `+`."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done to an image. Defaults are those of ImageNet.

    Attributes:
        size: Height and width of an input in pixels.
        resize: Short side in pixels that the middle is cropped from; 256/224 of the size by default.
        channels: 3, or 1 for grey.
        mean: Per channel, of pixels in [0, 1]; ImageNet's by default.
        std: Per channel, of pixels in [0, 1]; ImageNet's by default.
        augment: Names of `AUGMENTATIONS`, such as `crop+flip`.
    """

    size: int = 224
    resize: int | None = None
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: str = "crop+flip"

    @classmethod
    def of(cls, **options: Any) -> "Preparation":
        """The preparation that a user means; what is None is as usual.

        Raises:
            InputError: A value cannot be used.
        """
        given = {key: value for key, value in options.items() if value is not None}
        for key in ("mean", "std"):
            if key in given:
                given[key] = _numbers(key, given[key])
        for key in ("size", "resize", "channels"):
            if key in given and (
                not isinstance(given[key], int) or isinstance(given[key], bool) or given[key] < 1
            ):
                raise InputError(f"{key} must be a whole number of at least 1, not {given[key]!r}")
        made = cls(**given)
        made._check()
        return made

    def _check(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f"channels must be 1 (grey) or 3 (colours), not {self.channels}")
        if self.resize is not None and self.resize < self.size:
            raise InputError(f"resize must be {self.size} at least, as size is, not {self.resize}")
        mean, std = self.scale
        if {len(mean), len(std)} != {self.channels} or min(std) <= 0:
            raise InputError(f"mean and std need {self.channels} numbers, one a channel, and std is above 0")
        if not isinstance(self.augment, str):
            raise InputError(f"augment is a text such as 'crop+flip', not {self.augment!r}")
        names = self.augment.split("+")
        for name in names:
            if name not in AUGMENTATIONS:
                raise unknown("augmentation", name, AUGMENTATIONS)
        if ("none" in names and len(names) > 1) or {"crop", "shift"} <= {*names}:
            raise InputError(
                f"augment = {self.augment!r} contradicts itself; none stands alone, crop replaces shift"
            )

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON values; part of a data set's identity."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an input."""
        return self.channels, self.size, self.size

    @property
    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel."""
        mean, std = _IMAGENET if self.channels == 3 else _GREY
        return self.mean or mean, self.std or std

    def plain(self, image: Image.Image) -> Tensor:
        """The middle of an image, as bytes (channels, size, size)."""
        return _bytes([*self._middle(), transforms.PILToTensor()], self._coloured(image))

    def augmented(self, image: Image.Image) -> Tensor:
        """An image with random transforms, which draw from torch."""
        names = self.augment.split("+")
        steps: list[Any] = [transforms.RandomResizedCrop(self.size)] if "crop" in names else [*self._middle()]
        steps += [transforms.RandomCrop(self.size, padding=self.size // 8)] if "shift" in names else []
        steps += [transforms.RandomHorizontalFlip()] if "flip" in names else []
        steps += [transforms.TrivialAugmentWide()] if "trivial" in names else []
        steps += [transforms.RandAugment()] if "rand" in names else []
        return _bytes([*steps, transforms.PILToTensor()], self._coloured(image))

    def _middle(self) -> tuple[Any, Any]:
        resize = self.resize or round(self.size * 256 / 224)
        return transforms.Resize(resize), transforms.CenterCrop(self.size)

    def _coloured(self, image: Image.Image) -> Image.Image:
        return image.convert("RGB" if self.channels == 3 else "L")


def _bytes(steps: Sequence[Any], image: Image.Image) -> Tensor:
    pixels: Tensor = transforms.Compose(steps)(image)
    return pixels


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    values = [value] if isinstance(value, int | float) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, int | float) for v in values):
        raise InputError(f"{key} must be numbers, one a channel, not {value!r}")
    return tuple(float(v) for v in values)
