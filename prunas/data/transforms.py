"""Augmentations by the names of torchvision's, as a recipe lists them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torchvision.transforms import v2

from prunas.data.dataset import Feed
from prunas.errors import InputError, unknown

__all__ = ["Transformable", "make_transforms"]


@runtime_checkable
class Transformable(Protocol):
    """A feed whose images can pass through further augmentations, each with a random stream of its own."""

    def transformed(self, transform: Callable[[Tensor], Tensor]) -> Feed:
        """The feed whose images do, after the data's own augmentation and before they are normalised.

        Args:
            transform: From one image, uint8 (C, H, W), to one of that shape; draws from torch's random state.
        """


def make_transforms(
    settings: Sequence[str | Mapping[str, Any]], shape: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """The augmentations of a recipe's `transforms`, one after the other.

    Args:
        settings: Names of `torchvision.transforms.v2`, or tables of a name and its arguments.
        shape: Channels, height and width of an image.

    Raises:
        InputError: There is no such augmentation, its arguments do not fit, or it changes the form of an image.
    """
    made = [_made({"name": entry} if isinstance(entry, str) else entry) for entry in settings]
    transform = v2.Compose(made)
    image = torch.zeros(tuple(shape), dtype=torch.uint8)
    try:
        with torch.random.fork_rng(devices=()):
            result = transform(image)
    except Exception as error:  # whatever an augmentation raises
        why = " ".join(str(error).split())
        raise InputError(f"transforms cannot serve images of {tuple(shape)}: {why}") from error
    if not isinstance(result, Tensor) or (result.shape, result.dtype) != (image.shape, image.dtype):
        raise InputError(
            f"transforms must turn an image, uint8 {tuple(shape)}, into one; leave out what resizes or normalises"
        )
    return transform  # type: ignore[no-any-return]  # torchvision has no types


def _made(entry: Mapping[str, Any]) -> Any:
    """One augmentation of torchvision."""
    names = [name for name in dir(v2) if _is_transform(name)]
    if entry["name"] not in names:
        raise unknown("transform", str(entry["name"]), names)
    try:
        return getattr(v2, entry["name"])(**{key: value for key, value in entry.items() if key != "name"})
    except Exception as error:  # whatever a constructor raises
        why = " ".join(str(error).split())
        raise InputError(f"transform {entry['name']}: {why}") from error


def _is_transform(name: str) -> bool:
    value = getattr(v2, name)
    return isinstance(value, type) and issubclass(value, v2.Transform) and value is not v2.Transform
