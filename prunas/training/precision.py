"""In which precision a device is fast: bf16 where it has arithmetic of its own for it, never fp16."""

import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["fast_bf16", "fastest"]

CPUINFO = Path("/proc/cpuinfo")
WITHOUT_BF16 = frozenset(
    {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
)
"""Values of ONEDNN_MAX_CPU_ISA that keep torch's convolutions from a processor's bf16 arithmetic."""


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
