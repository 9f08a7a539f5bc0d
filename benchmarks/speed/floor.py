"""What the device can do: matrix products, copies, convolutions; and what one training step asks of it."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from prunas.training.precision import float32_arithmetic

FREE = frozenset(
    [
        "view",
        "t",
        "detach",
        "expand",
        "transpose",
        "permute",
        "slice",
        "alias",
        "unsqueeze",
        "squeeze",
        "select",
        "_unsafe_view",
        "as_strided",
        "split",
        "split_with_sizes",
        "unbind",
        "empty",
        "empty_like",
        "unfold",
    ]
)
READS = {"native_batch_norm": 2, "native_batch_norm_backward": 2, "convolution_backward": 2}
"""Passes over the inputs; one for all others."""


def best_seconds(work: Callable[[], object], device: torch.device, seconds: float = 0.5) -> float:
    """The shortest of repeated calls; on one thread of a CPU in processor time, blind to other work."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    best, end = float("inf"), clock() + seconds
    work()
    while clock() < end:
        many = 10 if device.type == "cuda" else 1
        _wait(device)
        start = clock()
        for _ in range(many):
            work()
        _wait(device)
        best = min(best, (clock() - start) / many)
    return best


def rates(device: torch.device) -> dict[str, float]:
    """FLOP/s of a large matrix product in three precisions, bytes/s of a copy (read and written)."""
    cuda = device.type == "cuda"
    n = 8192 if cuda else 1024
    found = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
        float32_arithmetic(device, convolutions="ieee", products="ieee")
        found[f"gemm {name}"] = 2 * n**3 / best_seconds(lambda a=a, b=b: a @ b, device)
        if cuda and kind == torch.float32:
            float32_arithmetic(device, convolutions="tf32", products="tf32")
            found["gemm tf32"] = 2 * n**3 / best_seconds(lambda a=a, b=b: a @ b, device)
    x = torch.zeros((1 << 30) if cuda else (1 << 26), dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    found["copy"] = 2 * x.numel() / best_seconds(lambda: y.copy_(x), device)
    return found


def convolution_seconds(
    net: nn.Module, x: Tensor, device: torch.device, *, bf16: bool, channels_last: bool, seconds: float
) -> float:
    """Time of the convolutions of one training step, each alone: forward and backward, nothing else."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    kind = torch.bfloat16 if bf16 else torch.float32
    seen: dict[tuple[Any, ...], list[Any]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        key = (
            tuple(inputs[0].shape),
            tuple(module.weight.shape),
            module.stride,
            module.padding,
            module.groups,
        )
        seen.setdefault(key, [module, not seen, 0])[2] += 1

    hooks = [m.register_forward_hook(note) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net(x[:2])
    for hook in hooks:
        hook.remove()
    total = 0.0
    for (shape, _, stride, padding, groups), (module, first, count) in seen.items():
        inputs = torch.randn(len(x), *shape[1:], device=device, dtype=kind).to(memory_format=layout)
        weight = module.weight.detach().to(kind).to(memory_format=layout)
        output = torch.nn.functional.conv2d(inputs, weight, None, stride, padding, 1, groups)
        gradient = torch.randn_like(output)

        def both(
            inputs: Tensor = inputs,
            weight: Tensor = weight,
            gradient: Tensor = gradient,
            how: tuple[Any, ...] = (stride, padding, groups),
            first: bool = first,
        ) -> None:
            stride, padding, groups = how
            torch.nn.functional.conv2d(inputs, weight, None, stride, padding, 1, groups)
            torch.ops.aten.convolution_backward(
                gradient,
                inputs,
                weight,
                None,
                stride,
                padding,
                (1, 1),
                False,
                (0, 0),
                groups,
                (not first, True, False),
            )

        total += count * best_seconds(both, device, seconds / len(seen))
    return total


class Traffic(TorchDispatchMode):
    """Elements that operators on activations read and write: those with the batch dimension first."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.elements, self.operators = batch, 0, 0

    def _size(self, values: Any) -> int:
        tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor) and t.ndim == 4]
        return sum(t.numel() for t in tensors if t.shape[0] == self.batch)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name.rstrip("_") not in FREE:
            self.operators += 1
            self.elements += READS.get(name, 1) * self._size((args, kwargs or {})) + self._size(made)
        return made


def demand(make: Callable[[], nn.Module], shape: tuple[int, int, int]) -> dict[str, float]:
    """FLOPs and activation elements moved per image, and operators, of forward and backward passes."""
    net, batch = make(), 2
    x, y = torch.randn(batch, *shape), torch.zeros(batch, dtype=torch.int64)
    with FlopCounterMode(display=False) as flops, Traffic(batch) as traffic:
        torch.nn.functional.cross_entropy(net(x), y).backward()
    return {
        "flops_per_image": flops.get_total_flops() / batch,
        "elements_per_image": traffic.elements / batch,
        "operators": traffic.operators,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
