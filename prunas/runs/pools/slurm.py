"""Jobs of a SLURM cluster, by submitit."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunas.errors import InputError
from prunas.runs.driver import Driver, Ended
from prunas.runs.execute import Outcome, Stop, never
from prunas.runs.executors import Report, number, package, silent, whole
from prunas.runs.job import Job
from prunas.runs.pools.remote import Remote, poll
from prunas.runs.store import Store
from prunas.runs.worker import Answer, attempt

__all__ = ["slurm"]

_LATE = 30.0  # seconds by which a shared disk may show an answer after its job has ended


class _Jobs(Remote[Any]):
    """One SLURM job per attempt; `workers` of them are in its queue or running at a time."""

    def __init__(
        self, submitit: Any, cluster: str, root: Path, timeout: float, workers: int, **has: Any
    ) -> None:
        self.capacity = workers
        self._local = cluster == "local"
        self._ended: dict[str, float] = {}
        self._submitit = submitit
        try:
            self._executor = submitit.AutoExecutor(folder=root / ".slurm", cluster=cluster)
        except RuntimeError as error:
            raise InputError(
                "executor 'slurm': there is no sbatch here; run this on a login node of the cluster"
            ) from error
        self._executor.update_parameters(name="prunas", **has)
        super().__init__(root, timeout, has["cpus_per_task"])

    def launch(self, job: Job) -> Any:
        """Submits a job; it inherits this process's environment."""
        self._ended.pop(job.id, None)
        try:
            return self._executor.submit(attempt, *self.arguments(job))
        except self._submitit.core.utils.FailedJobError as error:  # what sbatch says: a partition, a limit
            line = " ".join(str(error).split())
            raise InputError(f"executor 'slurm': sbatch refuses the job: {line}") from error

    def force(self, handles: Sequence[Any]) -> None:
        """Cancels jobs; SLURM gives them half a minute to save."""
        for handle in handles:
            handle.cancel(check=False)
        if self._local:
            poll(lambda: ["all"] if all(handle.done() for handle in handles) else [], 5.0, 0.05)

    def ready(self, seconds: float) -> Sequence[str]:
        """Ids of jobs that ended."""
        return poll(self._over, seconds, 0.05 if self._local else 1.0)

    def _over(self) -> list[str]:
        now, over = time.monotonic(), []
        for name, (_, handle) in self.under_way.items():
            if not handle.done():
                continue
            since = self._ended.setdefault(name, now)
            if self._local or handle.paths.result_pickle.exists() or now - since > _LATE:
                over.append(name)
        for name in over:
            del self._ended[name]
        return over

    def ended(self, job: Job, handle: Any) -> Ended:
        """The answer, or how the job ended without one."""
        if not handle.paths.result_pickle.exists():
            return Ended(job, f"in state {handle.state}")
        try:
            return Ended(job, handle.result())
        except self._submitit.core.utils.FailedJobError as error:  # the worker could not begin
            text = str(error).strip()
            return Ended(job, Answer(Outcome(job, "failed", error=text.splitlines()[-1], traceback=text)))


def slurm(
    store: Store,
    report: Report = silent,
    stop: Stop = never,
    *,
    workers: int = 32,
    retries: int = 5,
    timeout: float = 1800.0,
    cluster: str = "slurm",
    cpus: int = 1,
    gpus: int = 0,
    minutes: int = 240,
    memory: float = 8.0,
    partition: str | None = None,
    account: str | None = None,
) -> Driver:
    """An executor whose workers are SLURM jobs, one for each attempt.

    A job that nears its time limit or is preempted saves and comes back to the queue. Jobs outlive a driver that
    is killed: what they finish meanwhile is found by the next.

    Args:
        store: Where the runs live; the folder must be the same on every machine.
        report: Told (job, message) while `completed` is iterated.
        stop: When it turns true, running jobs save and stop; all outstanding ones are `preempted`.
        workers: How many are queued or running at once.
        retries: How often a job is started again after its worker or machine died, before it is `lost`.
        timeout: Seconds without a sign of life after which a job that has begun is cancelled.
        cluster: "slurm", or "local": the same with processes on this machine, to try it out.
        cpus: Of each job; its threads, too.
        gpus: Of each job.
        minutes: Time limit of each job; a training may need several.
        memory: GB of each job.
        partition: Where jobs are queued.
        account: Who is charged.

    Raises:
        InputError: Submitit is not installed, there is no SLURM here, or an option is unusable.
    """
    for name, value, least in (
        ("workers", workers, 1),
        ("retries", retries, 0),
        ("cpus", cpus, 1),
        ("gpus", gpus, 0),
        ("minutes", minutes, 1),
    ):
        whole("slurm", name, value, least)
    for name, amount in (("timeout", timeout), ("memory", memory)):
        number("slurm", name, amount)
    if cluster not in ("slurm", "local"):
        raise InputError(f"executor 'slurm': cluster must be slurm or local, not {cluster!r}")
    submitit = package("slurm", "submitit", "slurm")
    has = {"timeout_min": minutes, "cpus_per_task": cpus, "mem_gb": memory, "gpus_per_node": gpus}
    queue = {"slurm_partition": partition, "slurm_account": account}
    chosen = {name: value for name, value in queue.items() if value is not None}
    pool = _Jobs(submitit, cluster, store.root, timeout, workers, **has, **chosen)
    return Driver(store, pool, report, stop, retries=retries, timeout=timeout)
