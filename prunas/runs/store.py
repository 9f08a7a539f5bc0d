"""Where runs live: one folder each, finished when its `result.json` exists."""

import errno
import fcntl
import itertools
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from prunas import __version__
from prunas.errors import InputError
from prunas.files import FORMAT, check_format, write_json
from prunas.runs.job import Job

__all__ = ["Result", "Run", "Store"]

_POLL = 0.2  # seconds between two looks at a lock that another process holds
_WEIGHTS = "weights.safetensors"  # what a work may leave beside its result
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished run left behind.

    Attributes:
        job: What was computed.
        values: What the work returned; JSON values.
        seconds: Wall time of the call that finished it; earlier calls that were interrupted do not count.
        finished: When, ISO 8601 in UTC.
        machine: Where, and with which versions; never part of any identity.
    """

    job: Job
    values: Mapping[str, Any]
    seconds: float
    finished: str
    machine: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The content of `result.json`."""
        return self.job.to_json() | {
            "result": self.values,
            "seconds": self.seconds,
            "finished": self.finished,
            "machine": self.machine,
        }

    @classmethod
    def from_json(cls, document: Any) -> "Result":
        """The result `to_json` wrote.

        Raises:
            InputError: A field is missing, unknown or unusable, or the format is another one.
        """
        own = ("result", "seconds", "finished", "machine")
        if not isinstance(document, Mapping):
            raise InputError(f"result: expected a JSON object, not {type(document).__name__}")
        job = Job.from_json({name: value for name, value in document.items() if name not in own})
        if missing := [name for name in own if name not in document]:
            raise InputError(f"result: {', '.join(missing)} missing")
        if not isinstance(document["result"], Mapping):
            raise InputError("result: 'result' must be a JSON object")
        return cls(job, *(document[name] for name in own))


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder as `Store.runs` found it.

    Attributes:
        job: What it computes.
        folder: Where.
        status: `running`: a process holds its lock now; `failed`: its last recorded end is an error.
        result: If finished.
        error: One line, if failed.
    """

    job: Job
    folder: Path
    status: Literal["finished", "running", "failed", "unfinished"]
    result: Result | None = None
    error: str | None = None


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of runs, safe to share between processes and machines.

    Every file is replaced in one step (`prunas.files.write_atomic`), so that a reader never sees half of one. A
    run is written by whoever holds `flock` on its `.lock`, which the system releases with the process; NFS since
    Linux 2.6.12 and most cluster file systems pass it on to other machines. Where a file system has no locks,
    `notice` says so and one driver per folder keeps runs apart: it never has two attempts at a run under way,
    save one on a machine that it has lost sight of, and both of those would write the same.

    Attributes:
        root: The folder; made when the first run begins.
        notice: Told, in one line, about everything that was repaired: a damaged file set aside.

    Raises:
        InputError: On construction, if `root` is a file or was written in another format version.
    """

    root: Path
    notice: Callable[[str], object] = _warn

    def __post_init__(self) -> None:
        """Refuses a root that cannot be used, before any work is done."""
        object.__setattr__(self, "root", Path(self.root))
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file; choose a folder with --out")
        self._load(self._marker, _marker, repair=False)

    @property
    def _marker(self) -> Path:
        return self.root / "prunas.json"

    def folder(self, job: Job) -> Path:
        """Where `job` lives, whether it exists or not."""
        return self.root / job.space / job.name

    def result(self, job: Job) -> Result | None:
        """The stored result of `job`, or None while there is none.

        A damaged `result.json` is renamed to `result.json.damaged-N`, told to `notice`, and counts as absent. So
        does one whose weights are damaged, together with them.

        Raises:
            InputError: It was written in another format version, or cannot be read.
        """
        folder = self.folder(job)
        result = self._result(folder, job.id)
        if result is not None and (reason := _unreadable(folder / _WEIGHTS)):
            # The result first: without it the run is not finished, whatever stops this process now.
            self._set_aside(folder / "result.json", "its weights cannot be read")
            self._set_aside(folder / _WEIGHTS, reason)
            return None
        return result

    def begin(self, job: Job) -> Path:
        """Writes `job.json`, adds a line to `attempts.jsonl` and returns the folder; with the lock held.

        Raises:
            InputError: The disk is full, the folder is not writable or of another format version.
        """
        if self._load(self._marker, _marker) is None:
            write_json(self._marker, {"format": FORMAT, "written_by": f"prunas {__version__}"})
        path = self.folder(job) / "job.json"
        if self._load(path, Job.from_json) is None:
            write_json(path, job.to_json())
        line = {"started": now(), "host": platform.node(), "process": os.getpid()}
        try:
            with (path.parent / "attempts.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {path.parent}: {error.strerror}; choose another --out") from error
        return path.parent

    def finish(self, result: Result) -> None:
        """Writes `result.json`, atomically and last: from here on the run is finished.

        Raises:
            InputError: The disk is full or the folder is not writable.
        """
        write_json(self.folder(result.job) / "result.json", result.to_json())

    def fail(self, job: Job, error: str, traceback: str) -> None:
        """Records a failure beside the run; the run can be tried again.

        Raises:
            InputError: The disk is full or the folder is not writable.
        """
        path = self.folder(job) / "failure.json"
        before = self._load(path, _failure)
        write_json(
            path,
            {
                "format": FORMAT,
                "id": job.id,
                "error": error,
                "traceback": traceback,
                "failed": now(),
                "attempts": 1 + (before["attempts"] if before else 0),
            },
        )

    @contextmanager
    def lock(self, job: Job, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Holds the run, so that no other process writes it; the system lets go if this process dies.

        Args:
            job: Whose run.
            waiting: Called five times a second while another process holds it; may raise to give up.

        Raises:
            InputError: The folder is not writable.
        """
        folder = self.folder(job)
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                handle = _acquire(folder / ".lock")
                break
            except BlockingIOError:
                waiting()
                time.sleep(_POLL)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    self.notice(
                        f"{self.root} is on a file system without locks; do not start two searches on it at once"
                    )
                    handle = None
                    break
                raise InputError(
                    f"cannot write {folder}: {error.strerror or error}; choose another --out"
                ) from error
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def runs(self, space: str | None = None) -> Iterator[Run]:
        """All runs that were ever begun, in order of their folders. Only looks: what is damaged stays as it is.

        A finished run is listed by its result if its `job.json` is damaged.

        Args:
            space: Only this one's.

        Raises:
            InputError: A folder was written in another format version.
        """
        written = (self.root.glob(f"{space or '*'}/*/{name}.json") for name in ("job", "result"))
        for folder in sorted({path.parent for path in itertools.chain(*written)}):
            if (run := self.run_in(folder)) is not None:
                yield run

    def run_in(self, folder: Path) -> Run | None:
        """The run of one folder, as `runs` lists it; None if neither of its documents can be read."""
        if (job := self._load(folder / "job.json", Job.from_json, repair=False)) is not None:
            return self._run(job, folder)
        result = self._load(folder / "result.json", Result.from_json, repair=False)
        return None if result is None else Run(result.job, folder, "finished", result=result)

    def _run(self, job: Job, folder: Path) -> Run:
        # The lock first: a run that finishes between the two looks is then seen as finished, not as left.
        held = _held(folder / ".lock")
        if (result := self._result(folder, job.id, repair=False)) is not None:
            return Run(job, folder, "finished", result=result)
        if held:
            return Run(job, folder, "running")
        if (failure := self._load(folder / "failure.json", _failure, repair=False)) is not None:
            return Run(job, folder, "failed", error=failure["error"])
        return Run(job, folder, "unfinished")

    def _result(self, folder: Path, identity: str, repair: bool = True) -> Result | None:
        def parse(document: Any) -> Result:
            result = Result.from_json(document)
            if result.job.id != identity:
                raise InputError(f"it belongs to run {result.job.id}")
            return result

        return self._load(folder / "result.json", parse, repair)

    def _load(self, path: Path, parse: Callable[[Any], Value], repair: bool = True) -> Value | None:
        """What `parse` makes of the JSON in `path`; None if it is missing or damaged.

        Args:
            path: The file.
            parse: Raises InputError if the document is not what it should be.
            repair: Whether a damaged file is set aside; otherwise it is only told.
        """

        def damaged(reason: str) -> None:
            if repair:
                self._set_aside(path, reason)
            else:
                self.notice(f"{path} is damaged ({reason}); a search that needs it sets it aside")

        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; choose another --out") from error
        except ValueError as error:
            damaged(f"not valid JSON: {error}")
            return None
        if isinstance(document, dict) and "format" in document:
            check_format(document, path.parent)
        try:
            return parse(document)
        except InputError as error:
            damaged(str(error))
            return None

    def _set_aside(self, path: Path, reason: str) -> None:
        names = (path.with_name(f"{path.name}.damaged-{n}") for n in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        try:
            path.rename(aside)
        except FileNotFoundError:
            return  # another process was faster, and tells
        except OSError as error:
            raise InputError(f"{path} is damaged ({reason}) and cannot be set aside; delete it") from error
        self.notice(f"{path} is damaged ({reason}); set aside as {aside.name}")


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _failure(document: Any) -> dict[str, Any]:
    match document:
        case {"error": str(), "attempts": int()}:
            return dict(document)
    raise InputError("not a failure record")


def _marker(document: Any) -> Mapping[str, Any]:
    if not isinstance(document, Mapping) or "format" not in document:
        raise InputError("it names no format")
    return document


def _unreadable(weights: Path) -> str:
    """Why a file of weights cannot be read; empty if it can or is not there. Its numbers are not looked at."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy"):
            return ""
    except FileNotFoundError:
        return ""
    except (SafetensorError, OSError) as error:
        return str(error)


def _held(path: Path) -> bool:
    """Whether some process holds the lock at `path` now."""
    if not path.exists():
        return False
    try:
        os.close(_acquire(path))
    except BlockingIOError:
        return True
    except OSError:
        return False  # somebody else's folder, which may be read but not locked
    return False


def _acquire(path: Path) -> int:
    """A descriptor that holds the lock at `path` until it is closed.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The file cannot be written, or its file system has no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle
