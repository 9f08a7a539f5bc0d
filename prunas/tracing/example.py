"""What a network is called with while it is looked at: its arguments, with tensors for some images in them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunas.inputs import FLOATS, Inputs

__all__ = ["Example", "sample"]

STEP = re.compile(r"\[(\d+)\]|\.([^.\[\]]+)")


@dataclass(frozen=True)
class Example:
    """The arguments of one call.

    Attributes:
        args: By position.
        kwargs: By name.
        images: How many images the tensors are for; the first axis of each is that long, or a multiple of it.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    images: int = 1

    @property
    def leaves(self) -> list[Any]:
        """What the arguments hold, in order, lists and dictionaries opened."""
        return list(pytree.tree_leaves((self.args, dict(self.kwargs))))

    def mapped(self, change: Any, images: int) -> "Example":
        """The same call with other tensors."""
        args, kwargs = pytree.tree_map_only(Tensor, change, (self.args, dict(self.kwargs)))
        return Example(args, kwargs, images)

    def of(self, images: int) -> "Example":
        """The same call for another number of images."""

        def longer(tensor: Tensor) -> Tensor:
            first = tensor.shape[0] // self.images * images if tensor.ndim else 0
            return tensor.new_empty((first, *tensor.shape[1:])) if tensor.ndim else tensor

        return self.mapped(longer, images)

    def on_meta(self) -> "Example":
        """The same call without data."""
        return self.mapped(lambda tensor: torch.empty_like(tensor, device="meta"), self.images)

    def call(self, net: nn.Module) -> Any:
        """What a network returns."""
        return net(*self.args, **self.kwargs)

    def __str__(self) -> str:
        """The shapes, without the batch."""
        shapes = [tuple(leaf.shape[1:]) for leaf in self.leaves if isinstance(leaf, Tensor)]
        return " and ".join(map(str, shapes))


def sample(
    inputs: Inputs,
    images: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Example:
    """A call with random tensors: numbers from 0 to 1, integers below their bound, true and false.

    Args:
        inputs: What the network takes.
        images: How many.
        dtype: The floating-point type of the network, torch's default one by default.
        device: Where to; `meta` for tensors without data.
        generator: Draws the numbers, on the CPU; the global one by default.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, shape, wanted, below in inputs.tensors:
        kind = getattr(torch, wanted) if wanted else dtype or torch.get_default_dtype()
        size = (images, *shape)
        if str(device) == "meta":
            tensor = torch.empty(size, dtype=kind, device="meta")
        elif wanted in (*FLOATS, ""):
            tensor = torch.rand(size, dtype=kind, generator=generator).to(device)
        else:
            tensor = torch.randint(below or 2, size, generator=generator).to(device, kind)
        if not name:
            args.append(tensor)
            continue
        steps: list[int | str] = [int(i) if i else key for i, key in STEP.findall(name)]
        _put(kwargs, [re.split(r"[.\[]", name, maxsplit=1)[0], *steps], tensor)
    return Example(tuple(args), kwargs, images)


def _put(place: Any, steps: list[int | str], value: Any) -> None:
    """Puts a value into nested dictionaries and lists, which are made as they are needed."""
    step, *rest = steps
    if isinstance(place, list) and len(place) == step:
        place.append([] if rest and isinstance(rest[0], int) else {})
    elif isinstance(place, dict):
        place.setdefault(step, [] if rest and isinstance(rest[0], int) else {})
    if rest:
        _put(place[step], rest, value)
    else:
        place[step] = value
