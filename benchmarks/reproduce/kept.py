"""Finished runs in one file beside the results, so that another machine continues where this one stopped."""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO

from prunas.errors import InputError
from prunas.files import canonical, write_atomic
from prunas.runs.job import Job
from prunas.runs.store import Result, Store

__all__ = ["KEPT", "keep_runs", "restore_runs"]

KEPT = "kept"
"""Folder of these files, one per protocol."""

_RESULT, _WEIGHTS = "result.json", "weights.safetensors"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry: the same runs make the same file


def keep_runs(path: Path, jobs: Iterable[Job], store: Store) -> int:
    """Writes the finished ones of some runs into one file; there is no file if there are none.

    Networks that runs to come prune or inherit from are kept with their weights; of others the result suffices.

    Args:
        path: The file, which is replaced.
        jobs: The runs.
        store: Where they live.

    Returns:
        How many were finished.

    Raises:
        InputError: The disk is full or the folder is not writable.
    """
    asked = {job.name: job for job in jobs}
    finished = {name: result for name in sorted(asked) if (result := store.result(asked[name])) is not None}
    if not finished:
        path.unlink(missing_ok=True)
        return 0

    def fill(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, result in finished.items():
                anywhere = replace(result, job=replace(result.job, places={}))
                folder = f"{result.job.space}/{name}"
                _add(archive, f"{folder}/{_RESULT}", canonical(anywhere.to_json()).encode())
                weights = store.folder(result.job) / _WEIGHTS
                if result.job.spec.get("keep_weights") is True and weights.exists():
                    _add(archive, f"{folder}/{_WEIGHTS}", weights.read_bytes())

    write_atomic(path, fill)
    return len(finished)


def restore_runs(path: Path, store: Store) -> int:
    """Puts the runs of such a file into a store that does not have them yet.

    Args:
        path: The file; without it nothing happens.
        store: Where they shall live.

    Returns:
        How many were missing there.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return 0
    restored = 0
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            for name in sorted(names):
                if not name.endswith(f"/{_RESULT}"):
                    continue
                result = Result.from_json(json.loads(archive.read(name)))
                weights = f"{name.removesuffix(_RESULT)}{_WEIGHTS}"
                if store.result(result.job) is None:
                    _put(store, result, archive.read(weights) if weights in names else None)
                    restored += 1
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); take it from the repository again") from error
    return restored


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)


def _put(store: Store, result: Result, weights: bytes | None) -> None:
    with store.lock(result.job):
        if weights is not None:
            write_atomic(store.folder(result.job) / _WEIGHTS, lambda file: file.write(weights))
        store.finish(result)
