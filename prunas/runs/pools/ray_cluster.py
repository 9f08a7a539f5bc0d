"""Jobs as tasks on the machines of a ray cluster."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prunas.errors import InputError
from prunas.runs.driver import Driver, Ended
from prunas.runs.execute import Outcome, Stop, never
from prunas.runs.executors import Report, number, package, silent, whole
from prunas.runs.job import Job
from prunas.runs.pools.remote import Remote
from prunas.runs.store import Store
from prunas.runs.worker import Answer, attempt

__all__ = ["ray_cluster"]

_LOOK = 5.0  # seconds between two looks at what the cluster has


class _Tasks(Remote[Any]):
    """One task per attempt. Ray never retries: the driver does, and counts."""

    def __init__(
        self, ray: Any, root: Path, timeout: float, workers: int | None, cpus: int, gpus: float
    ) -> None:
        self._ray, self._workers, self._cpus, self._gpus = ray, workers, cpus, gpus
        self._looked, self._slots = time.monotonic(), self.slots()
        if self._slots < max(1, workers or 1):
            asked = f"{workers} workers of {cpus} CPUs and {gpus:g} GPUs" if workers else "one worker"
            raise InputError(
                f"executor 'ray': the cluster has room for {self._slots} workers of {cpus} CPUs and {gpus:g} "
                f"GPUs, not for {asked}; lower workers, cpus or gpus, or add machines with ray start"
            )
        super().__init__(root, timeout, cpus)
        self._task = ray.remote(
            max_retries=0,
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy="SPREAD",
            max_calls=1 if gpus else 0,
        )(attempt)

    def slots(self) -> int:
        """Attempts that the machines alive now can hold; an attempt does not span machines."""
        total = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                by_gpu = has.get("GPU", 0) // self._gpus if self._gpus else float("inf")
                total += int(min(has.get("CPU", 0) // self._cpus, by_gpu))
        return total

    @property
    def capacity(self) -> int:
        """Workers there are now."""
        if time.monotonic() - self._looked > _LOOK:
            self._looked, self._slots = time.monotonic(), self.slots()
        return min(self._slots, self._workers or self._slots)

    def launch(self, job: Job) -> Any:
        """Submits a task."""
        return self._task.remote(*self.arguments(job))

    def force(self, handles: Sequence[Any]) -> None:
        """Kills the workers of tasks; the cluster takes a moment to have them gone."""
        for handle in handles:
            self._ray.cancel(handle, force=True)
        if handles:
            self._ray.wait(list(handles), num_returns=len(handles), timeout=5.0)

    def ready(self, seconds: float) -> Sequence[str]:
        """Ids of tasks that ended."""
        if not self.under_way:
            time.sleep(seconds)
            return []
        names = {handle: name for name, (_, handle) in self.under_way.items()}
        if self._ray.wait(list(names), num_returns=1, timeout=seconds)[0]:
            done, _ = self._ray.wait(list(names), num_returns=len(names), timeout=0)
            return [names[handle] for handle in done]
        return []

    def ended(self, job: Job, handle: Any) -> Ended:
        """The answer, or how the worker or its machine died."""
        errors = self._ray.exceptions
        try:
            return Ended(job, self._ray.get(handle))
        except errors.RayTaskError as error:  # not the work, which answers for itself: the worker could not
            line = str(error).strip().splitlines()[-1]
            return Ended(job, Answer(Outcome(job, "failed", error=line, traceback=str(error))))
        except errors.RayError as error:
            return Ended(job, f"with {type(error).__name__}")


def ray_cluster(
    store: Store,
    report: Report = silent,
    stop: Stop = never,
    *,
    workers: int | None = None,
    retries: int = 5,
    timeout: float = 1800.0,
    address: str = "auto",
    cpus: int = 1,
    gpus: float = 0.0,
) -> Driver:
    """An executor whose workers are tasks of a ray cluster, spread over its machines.

    A connection to ray that is open already is used and left open.

    Args:
        store: Where the runs live; the folder must be the same on every machine.
        report: Told (job, message) while `completed` is iterated.
        stop: When it turns true, running jobs save and stop; all outstanding ones are `preempted`.
        workers: How many at once; by default as many as the cluster holds, while machines come and go.
        retries: How often a job is started again after its worker or machine died, before it is `lost`.
        timeout: Seconds without a sign of life after which a worker is killed.
        address: HOST:PORT of the cluster; "auto" finds the one on this machine.
        cpus: Of each worker; its threads, too.
        gpus: Of each worker; a fraction lets several share one.

    Raises:
        InputError: Ray is not installed, the address does not answer, or the cluster has too little.
    """
    whole("ray", "retries", retries, 0)
    whole("ray", "cpus", cpus, 1)
    number("ray", "timeout", timeout)
    if gpus:
        number("ray", "gpus", gpus)
    if workers is not None:
        whole("ray", "workers", workers, 1)
    ray = package("ray", "ray", "ray")
    _connect(ray, address)
    pool = _Tasks(ray, store.root, timeout, workers, cpus, gpus)
    return Driver(store, pool, report, stop, retries=retries, timeout=timeout)


def _connected(ray: Any) -> bool:
    return bool(ray.is_initialized())


def _connect(ray: Any, address: str) -> None:
    if _connected(ray):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():
            socket.create_connection(
                (host, int(port)), timeout=5
            ).close()  # ray itself would try for a minute
        elif address != "auto":
            raise InputError(f"executor 'ray': address must read HOST:PORT or auto, not {address!r}")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        with _sigterm_as_before():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"executor 'ray': no cluster answers at {address!r}; start one with ray start --head, and give its "
            "HOST:PORT as address"
        ) from error


@contextmanager
def _sigterm_as_before() -> Iterator[None]:
    """Ray's own handler would end the driver before its workers have saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(TypeError):  # one that was not set from Python
            signal.signal(signal.SIGTERM, before)
