"""`show --code`: a shape as plain Python to paste into one's own code."""

import pprint
from collections.abc import Iterator
from typing import Any

from prunas.architecture import Architecture, KernelPattern
from prunas.costs.kernels import position_counts
from prunas.spaces.space import SearchSpace

__all__ = ["shape_code"]

UNPACK = """
import base64
import zlib

import numpy as np


def mask(text: str, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)

"""


def shape_code(space: SearchSpace, arch: Architecture) -> str:
    """Python assignments that say what a point is; they need no prunas.

    - `cfg` and `classifier`, where all convolutions stand in one `nn.Sequential`, as in VGG: the list that such
      networks are made from, output channels with "M" for max pooling, and the output features of the linear
      layers. Elsewhere `widths`: output channels or features of every convolution and linear layer that the point
      has, by module path, in the order of execution.
    - `selected`, if a gate selects: the input channels that pass, by the module path of the layer that reads them
      (the norm, where one serves that layer alone), counted in the input as built.
    - `removed`, if a branch is gone: module paths of the blocks without theirs.
    - `kernels`, under a kernel pattern drawn from frequencies: how many weights each convolution has at each
      kernel position, row by row. `masks`, under exact masks: which weights exist, unpacked by a function.

    Args:
        space: The space.
        arch: A checked point.
    """
    cost = space.cost(arch)
    lines = [f"# {space.name} {arch.digest}: {cost.params:,} params, {cost.macs:,} MACs"]
    for name, value in _values(space, arch):
        if isinstance(value, dict):
            lines += [f"{name} = {{", *(f"    {key!r}: {each!r}," for key, each in value.items()), "}"]
        else:
            lines.append(f"{name} = {pprint.pformat(value, width=100, compact=True)}")
    if arch.kernels is not None and arch.kernels.masks:
        shapes = space.costs.weights(arch)
        lines += [UNPACK, "masks = {"]
        lines += [f"    {path!r}: mask({text!r}, {shapes[path]})," for path, text in arch.kernels.masks]
        lines.append("}")
    return "\n".join(lines) + "\n"


def _values(space: SearchSpace, arch: Architecture) -> Iterator[tuple[str, Any]]:
    survey = space.survey
    units = space.costs.widths(arch).tolist()
    removed = {survey.block_index[block] for block in arch.removed}
    there = [layer for layer in survey.layers if not survey.blocks_of.get(layer.path, frozenset()) & removed]
    widths = {
        layer.path: survey.size(layer.writes, units) for layer in there if layer.kind in ("conv", "linear")
    }
    cfg = None if arch.selected or removed else _cfg(space, widths)
    if cfg is None:
        yield "widths", widths
    else:
        yield "cfg", cfg
        yield "classifier", [widths[layer.path] for layer in there if layer.kind == "linear"]
    if arch.selected:
        gates = survey.gate_named
        yield "selected", {gates[name].norm or name: list(positions) for name, positions in arch.selected}
    if arch.removed:
        yield "removed", list(arch.removed)
    if arch.kernels is not None and arch.kernels.frequencies:
        yield "kernels", _kernels(space, arch, arch.kernels)


def _cfg(space: SearchSpace, widths: dict[str, int]) -> list[int | str] | None:
    """The list of a network that is one chain of convolutions and poolings, or None."""
    import torch
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    from prunas.surgery.construct import made_by
    from prunas.tracing.untouched import running, untouched

    with untouched(space.factory), running(), torch.device("meta"):
        net = made_by(space.factory)
    parents = {path.rpartition(".")[0] for path, module in net.named_modules() if isinstance(module, _ConvNd)}
    if len(parents) != 1 or not isinstance(
        chain := net.get_submodule(parent := parents.pop()), nn.Sequential
    ):
        return None
    prefix = f"{parent}." if parent else ""
    entries: list[int | str] = []
    for name, module in chain.named_children():
        if isinstance(module, nn.MaxPool2d):
            entries.append("M")
        elif isinstance(module, _ConvNd):
            entries.append(widths[prefix + name])
    return entries


def _kernels(space: SearchSpace, arch: Architecture, pattern: KernelPattern) -> dict[str, list[int]]:
    counts = {
        path: position_counts(pattern, space.survey.layer_at[path], shape)
        for path, shape in space.costs.weights(arch).items()
    }
    return {path: each.tolist() for path, each in counts.items() if each is not None}
