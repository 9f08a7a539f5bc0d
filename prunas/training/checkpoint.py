"""Checkpoints: whole, of this very training, or not there."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunas.files import write_atomic

__all__ = ["Unusable", "read_checkpoint", "write_checkpoint"]


class Unusable(Exception):
    """A checkpoint is damaged or belongs to another training; the message says which."""


def write_checkpoint(path: Path, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes the state of a training atomically.

    Args:
        key: Names the training; a reader with another key is refused.
        tensors: Live state.
        facts: JSON-able values beside it.
    """
    buffer = io.BytesIO()
    torch.save({"key": key, "tensors": dict(tensors), "facts": dict(facts)}, buffer)
    content = buffer.getbuffer()
    seal = hashlib.sha256(content).digest()
    write_atomic(path, lambda file: (file.write(seal), file.write(content)))


def read_checkpoint(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors (on the CPU) and facts `write_checkpoint` was given, or None where there is no file.

    Raises:
        Unusable: Not the bytes that were written, or another training's.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise Unusable("the checkpoint is damaged")
    found = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    if found["key"] != key:
        raise Unusable("the checkpoint belongs to another training")
    return found["tensors"], found["facts"]
