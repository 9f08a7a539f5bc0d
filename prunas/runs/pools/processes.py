"""Workers on this machine: processes that live on from job to job, because importing torch costs seconds."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from prunas.errors import InputError
from prunas.runs.driver import Driver, Ended
from prunas.runs.execute import Outcome, Stop, never
from prunas.runs.executors import Report, number, silent, whole
from prunas.runs.job import Job
from prunas.runs.store import Store
from prunas.runs.worker import Answer, Mailbox, attempt

__all__ = ["PREEMPTED", "processes"]

PREEMPTED = 75
"""Exit code of a worker that was told to leave and saved its state."""

_GRACE = 3.0  # seconds to save in
_BEAT = 5.0  # seconds between two signs of life, at most


class _Slot:
    """One worker process with a pipe of its own: when it dies, no other shares anything with it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None
        self.job: Job | None = None

    def start(self, job: Job, task: tuple[object, ...]) -> None:
        if self.process is not None and not self.process.is_alive():
            self.forget()
        if self.pipe is None:
            self._spawn()
        assert self.pipe is not None
        self.job = job
        with suppress(BrokenPipeError):  # it died this moment, which `end` will see
            self.pipe.send(task)

    def _spawn(self) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        with _children_ignore_ctrl_c():
            self.process = context.Process(target=_serve, args=(theirs, self.environment), daemon=False)
            self.process.start()
        theirs.close()  # so that the worker's end is closed when the worker is gone

    def end(self) -> Ended | None:
        """What came of the job, once its process has answered or died."""
        assert self.process is not None and self.pipe is not None and self.job is not None
        alive = self.process.is_alive()  # first: what it sent before it died is still read
        answer: Answer | str | None = None
        try:
            if self.pipe.poll():
                answer = self.pipe.recv()
            elif alive:
                return None
        except (EOFError, OSError):
            pass
        job, self.job = self.job, None
        if answer is None:
            self.process.join()
            code = self.process.exitcode
            answer = Answer(Outcome(job, "preempted")) if code == PREEMPTED else _how(code or 0)
            self.forget()
        return Ended(job, answer)

    def hang_up(self) -> None:
        """Lets a worker that has nothing to do end by itself."""
        if self.pipe is not None:
            self.pipe.close()

    def forget(self) -> None:
        self.hang_up()
        if self.process is not None:
            self.process.join()
        self.process = self.pipe = self.job = None


class _Processes:
    """A pool of them."""

    def __init__(self, root: Path, environments: Sequence[Mapping[str, str]], beat: float) -> None:
        self._slots = [_Slot(environment) for environment in environments]
        self._messages = tempfile.TemporaryDirectory(prefix="prunas-")
        self._mailbox = Mailbox(Path(self._messages.name))
        self._root, self._beat = root, beat

    @property
    def capacity(self) -> int:
        return len(self._slots)

    def start(self, job: Job) -> None:
        self._mailbox.clear(job)
        slot = next(slot for slot in self._slots if slot.job is None)
        slot.start(job, (job.to_json(), self._root, self._mailbox.folder, self._beat))

    def wait(self, seconds: float) -> list[Ended]:
        busy = [slot for slot in self._slots if slot.job is not None]
        ends = [end for s in busy if s.pipe and s.process for end in (s.pipe, s.process.sentinel)]
        if not ends:
            time.sleep(seconds)
        else:
            connection.wait(ends, seconds)
        return [ended for slot in busy if (ended := slot.end()) is not None]

    def said(self, job: Job) -> str:
        return self._mailbox.said(job)

    def stop(self, jobs: Sequence[Job]) -> None:
        names = {job.id for job in jobs}
        self._end([slot for slot in self._slots if slot.job is not None and slot.job.id in names])

    def kill(self, job: Job) -> None:
        for slot in self._slots:
            if slot.job is not None and slot.job.id == job.id and slot.process is not None:
                slot.process.kill()
                slot.forget()

    def close(self) -> None:
        self._end(self._slots)
        self._messages.cleanup()

    def _end(self, slots: Sequence[_Slot]) -> None:
        deadline = time.monotonic() + _GRACE
        there = [(slot, slot.process) for slot in slots if slot.process is not None]
        for slot, process in there:
            process.terminate()
            slot.hang_up()
        for slot, process in there:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            slot.forget()


def processes(
    store: Store,
    report: Report = silent,
    stop: Stop = never,
    *,
    workers: int | None = None,
    threads: int = 1,
    retries: int = 1,
    timeout: float = 1800.0,
    per_gpu: int = 1,
) -> Driver:
    """An executor with worker processes on this machine; starts none before the first job that needs one.

    Where there are GPUs, each worker sees one of them; otherwise each has `threads` cores. A worker that
    receives SIGTERM lets its work save and exits with `PREEMPTED`. A worker whose driver has died does the same.

    Args:
        store: Where the runs live.
        report: Told (job, message) while `completed` is iterated.
        stop: When it turns true, running jobs save and stop; all outstanding ones are `preempted`.
        workers: How many; by default as many as there are slots.
        threads: OMP_NUM_THREADS and MKL_NUM_THREADS of each.
        retries: How often a job is started again after its worker died, before it is `lost`.
        timeout: Seconds without a sign of life after which a worker is killed.
        per_gpu: Workers that share one GPU.

    Raises:
        InputError: A number is too small, or there are more workers than slots.
    """
    for name, value, least in (("threads", threads, 1), ("retries", retries, 0), ("per_gpu", per_gpu, 1)):
        whole("processes", name, value, least)
    number("processes", "timeout", timeout)
    cores, gpus = os.cpu_count() or 1, visible_gpus()
    slots: list[dict[str, str]] = [{"CUDA_VISIBLE_DEVICES": gpu} for _ in range(per_gpu) for gpu in gpus]
    slots = slots or [{} for _ in range(max(1, cores // threads))]
    if workers is not None and whole("processes", "workers", workers, 1) > len(slots):
        had = f"{len(gpus)} GPUs with per_gpu={per_gpu}" if gpus else f"{cores} cores with threads={threads}"
        raise InputError(
            f"executor 'processes': {workers} workers, but {had} give {len(slots)}; lower workers"
        )
    pinned = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    pool = _Processes(store.root, [pinned | slot for slot in slots[:workers]], min(_BEAT, timeout / 4))
    return Driver(store, pool, report, stop, retries=retries, timeout=timeout)


def visible_gpus() -> list[str]:
    """Names of the GPUs a worker may be given, as CUDA_VISIBLE_DEVICES understands them; imports no torch."""
    if os.environ.get("PRUNAS_DEVICE") == "cpu":
        return []
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, timeout=20, check=True)
        return _listed(found.stdout)
    return []


def _listed(text: str) -> list[str]:
    """The devices that `nvidia-smi --list-gpus` names: a GPU by its number, a divided one by its MIG instances."""
    devices: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("GPU "):
            devices.append([])
        elif devices and (instance := re.search(r"UUID: (MIG-[^)\s]+)", line)):
            devices[-1].append(instance[1])
    return [name for number, parts in enumerate(devices) for name in parts or [str(number)]]


@contextmanager
def _children_ignore_ctrl_c() -> Iterator[None]:
    """What starts inside never receives SIGINT: a driver at the terminal decides when its workers stop."""
    resource_tracker.ensure_running()  # started along with the first worker, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    """What a worker process does, until its driver hangs up."""
    driver = os.getppid()
    with suppress(EOFError, ConnectionError):
        while True:
            document, root, mailbox, beat = pipe.recv()
            answer = attempt(document, root, mailbox, beat, environment, lambda: os.getppid() != driver)
            if isinstance(answer.outcome, Outcome) and answer.outcome.status == "preempted":
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(PREEMPTED)
            with suppress(BrokenPipeError):
                pipe.send(answer)


def _how(exitcode: int) -> str:
    return f"of {signal.Signals(-exitcode).name}" if exitcode < 0 else f"with exit code {exitcode}"
