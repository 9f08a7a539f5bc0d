"""Measures rows in processes side by side: one that dies or takes too long costs its own row and no other."""

import math
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

import torch

from benchmarks.support.networks import NETWORKS, Network
from benchmarks.support.row import LIBRARIES, Row, measure

__all__ = ["TIMEOUT", "measured", "rows_of"]

TIMEOUT = 300.0
"""Seconds after which a network is given up."""

Measure = Callable[[Network], Row]


def measured(network: Network, measure: Measure = measure) -> Row:
    """The row of a network, measured in this process with one thread; its warnings are errors."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore" if network.kind in LIBRARIES else "error"
        )  # they warn of their own accord
        return measure(network)


def rows_of(
    names: Sequence[str], processes: int, timeout: float = TIMEOUT, measure: Measure = measure
) -> Iterator[Row]:
    """Rows as they come, in any order.

    A network whose process ends, or that is not done after `timeout` seconds, has a row whose `error` says so.

    Args:
        names: Of the networks.
        processes: How many are measured at a time.
        timeout: Seconds for each.
        measure: Measures one; it must be importable, for the processes are started anew.
    """
    waiting = list(reversed(names))
    workers = [_Worker(measure) for _ in range(min(processes, len(names)))]
    try:
        while waiting or any(worker.name for worker in workers):
            busy = [worker for worker in workers if worker.name]
            first = min((worker.since for worker in busy), default=math.inf) + timeout
            left = max(0.0, first - time.monotonic()) if busy else None
            ready = wait([worker.pipe for worker in workers if worker.name or not worker.ready], left)
            for worker in workers:
                if worker.pipe in ready and not worker.ready:
                    worker.is_ready()
                elif worker.pipe in ready:
                    yield worker.result()
                elif worker.name and time.monotonic() - worker.since >= timeout:
                    yield worker.give_up(f"it was not done after {timeout:g} s")
                if worker.ready and not worker.name and waiting:
                    worker.begin(waiting.pop())
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that measures one network after the other; a new one takes its place when it ends.

    Attributes:
        ready: Whether it has imported what it needs, and takes networks.
        name: The network that it measures now, or "".
        since: When it began with that one, on the monotonic clock.
        pipe: To it and from it.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure, self.name, self.since = measure, "", 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.ready = False
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, self.measure), daemon=True)
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # it is read when torch is imported
        try:
            self.process.start()
        finally:
            os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
        other.close()

    def is_ready(self) -> None:
        """Takes note that the process has said so."""
        self.pipe.recv()
        self.ready = True

    def begin(self, name: str) -> None:
        """Hands a network over."""
        self.name, self.since = name, time.monotonic()
        self.pipe.send(name)

    def result(self) -> Row:
        """The row of the present network, which is there, or which the end of the process makes impossible."""
        try:
            row: Row = self.pipe.recv()
        except EOFError:
            self.process.join()
            return self.give_up(f"its process ended with code {self.process.exitcode}")
        self.name = ""
        return row

    def give_up(self, why: str) -> Row:
        """A row that says why there is none; a new process takes the place of the present one."""
        network, took = NETWORKS[self.name], time.monotonic() - self.since
        self.stop()
        self.name = ""
        self._start()
        return {
            "network": network.name,
            "kind": network.kind,
            "inputs": network.inputs,
            "error": why,
            "took": round(took, 1),
        }

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, measure: Measure) -> None:
    """Says that it is ready, and measures what it is told to, until nobody tells it any more."""
    pipe.send("")
    while True:
        try:
            name = pipe.recv()
        except EOFError:
            return
        pipe.send(measured(NETWORKS[name], measure))
