"""The work of a search, with a record of every step that any attempt takes."""

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from prunas.works import train as work

RECORD = "steps.jsonl"


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """`prunas.works.train.run`, which asks after every step whether to stop: that is written down.

    One line when an attempt begins, with the step it takes up, then one with the time of every step.
    """
    with (folder / RECORD).open("a", encoding="utf-8", buffering=1) as record:
        record.write(json.dumps({"from": _steps_saved(folder / "checkpoint.pt")}) + "\n")

        def asked() -> bool:
            record.write(f"{time.time():.6f}\n")
            return stop()

        return work.run(spec, folder=folder, progress=progress, stop=asked)


def _steps_saved(path: Path) -> int:
    """Where the checkpoint stands; its first 32 bytes are a seal."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(32)
        content = file.read()
    return int(torch.load(io.BytesIO(content), weights_only=True)["facts"]["done"])
