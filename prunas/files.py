"""Files that are either whole or absent."""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import platformdirs

from prunas.errors import InputError

__all__ = [
    "FORMAT",
    "cache_folder",
    "canonical",
    "check_format",
    "digest",
    "names_folder",
    "read_json",
    "read_stored",
    "write_atomic",
    "write_json",
]

FORMAT = 2
"""Version of everything written into a run folder. It is part of every job's id."""

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def cache_folder() -> Path:
    """Where what can be made anew is kept: PRUNAS_CACHE, else the user's cache folder."""
    return Path(os.environ.get("PRUNAS_CACHE") or platformdirs.user_cache_dir("prunas"))


def names_folder(name: str) -> bool:
    """Whether a name can be a folder's on every system and stand in a page: ASCII letters, digits, and . _ + -."""
    return _FOLDER.fullmatch(name) is not None


def canonical(document: Any) -> str:
    """JSON text with one spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(document: Any, length: int = 12) -> str:
    """The first `length` hex digits of the sha256 of `document`'s canonical JSON."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()[:length]


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Creates or replaces `path` in one step: a reader finds the old file, the new one, or none.

    Args:
        path: Where the file goes. Missing parent folders are made.
        write: Called once with a binary file to fill.

    Raises:
        InputError: The disk is full or the folder is not writable. Nothing is left behind.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if full else "make its folder writable"
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; {remedy} or choose another --out"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, document: Any) -> None:
    """Writes `document` to `path` as indented JSON, atomically."""
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> Any:
    """The JSON document at `path`.

    Raises:
        InputError: The file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); delete it or restore it") from error


def check_format(document: Mapping[str, Any], where: object) -> None:
    """Refuses a document of another format version.

    Args:
        document: What was read; its "format" is compared with `FORMAT`.
        where: Names the document in the message.

    Raises:
        InputError: The version differs or is absent.
    """
    version = document.get("format")
    if version != FORMAT:
        raise InputError(
            f"{where} was written in format {version}, this prunas reads format {FORMAT}; "
            "choose another --out or use the prunas that wrote it"
        )


def read_stored(path: Path) -> Any:
    """The JSON document of a run folder at `path`.

    Raises:
        InputError: The file is missing, unreadable, not JSON, or was written in another format version.
    """
    document = read_json(path)
    if isinstance(document, dict) and "format" in document:
        check_format(document, path.parent)
    return document
