"""In which precision a device is fast, and how it computes. Fast is bf16 where the device has it; never fp16.

What is set here belongs to the process, so whoever computes sets it first: somebody else may have changed it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

__all__ = ["SEARCHED", "Float32", "algorithm_search", "fast_bf16", "fastest", "float32_arithmetic"]

CPUINFO = Path("/proc/cpuinfo")
WITHOUT_BF16 = frozenset(
    {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
)
"""Values of ONEDNN_MAX_CPU_ISA that keep torch's convolutions from a processor's bf16 arithmetic."""

SEARCHED = 3
"""Algorithms that cuDNN times for one convolution, at most: a pruned network asks for hundreds of convolutions."""

Float32 = Literal["ieee", "tf32"]
"""How CUDA multiplies float32: exactly, or with the mantissa of a factor cut to 10 bits."""


def float32_arithmetic(device: torch.device, *, convolutions: Float32, products: Float32) -> None:
    """Sets how CUDA multiplies float32 from here on; torch's own default is tf32 for convolutions only.

    Args:
        device: Nothing is set for another device than CUDA.
        convolutions: Those of cuDNN, with its recurrent layers.
        products: Of matrices.
    """
    if device.type != "cuda":
        return
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    # The old switches first: in this order the getters of both kinds agree, and reading either raises nothing.
    cudnn.allow_tf32, matmul.allow_tf32 = convolutions == "tf32", products == "tf32"
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = convolutions  # there since torch 2.9
    matmul.fp32_precision = products


@contextlib.contextmanager
def algorithm_search(enabled: bool) -> Iterator[None]:
    """Inside, cuDNN times algorithms for convolutions it has not met in this thread, or takes its first guess."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster there than fp32: Ampere GPUs and later, CPUs with AVX512-BF16 or AMX.

    Other systems than Linux say no, and so does a process that ONEDNN_MAX_CPU_ISA keeps from them: a bf16 that is
    emulated runs at about a tenth of the speed of fp32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not CPUINFO.is_file() or os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_BF16:
        return False
    flags = {line.partition(":")[2] for line in CPUINFO.read_text().splitlines() if line.startswith("flags")}
    return any({"avx512_bf16", "amx_bf16"} & set(line.split()) for line in flags)


def fastest(device: torch.device) -> dict[str, Any]:
    """Settings of a recipe that make trainings fast on `device`: what precision `auto` stands for.

    bf16 keeps weights, norms and losses in fp32. Where bf16 would be emulated, all stays fp32.
    """
    return {"precision": "bf16", "channels_last": True} if fast_bf16(device) else {"precision": "fp32"}
