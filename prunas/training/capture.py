"""A training step captured once as a CUDA graph and replayed: hundreds of kernels for the price of one launch.

The loop asks for a `StepRunner`, calls its `advance` after every draw, and does not know whether that runs a step
or replays one. `StepCache` keeps captured steps for the next training of the same architecture.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunas.data.dataset import Draw
from prunas.recipe import Recipe
from prunas.tasks.base import Task
from prunas.training.hooks import Regulariser
from prunas.training.step import Step

__all__ = [
    "Recorder",
    "Replay",
    "RunnerFactory",
    "StepCache",
    "StepRunner",
    "cuda_recorder",
    "eager",
    "random_layers",
]

WARM_UP = 3
"""Steps before a capture: the first ones choose convolution algorithms and allocate what lives on."""

IDLE = 32
"""Captured steps that may wait; each holds the memory of one step."""

_HOST = frozenset(
    {
        "name",
        "epochs",
        "batch",
        "lr",
        "schedule",
        "milestones",
        "every",
        "gamma",
        "warmup",
        "warmup_epochs",
        "images",
        "flip",
    }
)
"""Fields of a recipe that only the loop reads: captured kernels do not depend on them."""


class Recorder(Protocol):
    """What can record work on a device and do it again."""

    def aside(self) -> contextlib.AbstractContextManager[object]:
        """Inside, work is kept apart from what the device still has to do."""

    def strict(self) -> contextlib.AbstractContextManager[object]:
        """Inside, work that could not be recorded because it waits for the device raises a RuntimeError."""

    def record(self, work: Callable[[], object]) -> Callable[[], object]:
        """Records `work` without changing a value that matters later, and gives back what replays it.

        Raises:
            RuntimeError: `work` does something that cannot be recorded, such as waiting for the device. If `work`
                itself raises, its own error.
        """


class _CudaRecorder:
    """Captures on a stream of its own; all captures share one pool of memory.

    They may: only one of them runs at a time, and each reads nothing that another has written into the pool.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            here.wait_stream(self._stream)

    @contextlib.contextmanager
    def strict(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls the mode a prototype that does not see every wait
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(before)

    def record(self, work: Callable[[], object]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        here = torch.cuda.current_stream(self._device)
        reason: BaseException | None = None
        # cuBLAS has a workspace for each stream, and torch hands out 32 streams in turn. Without one at hand the
        # capture takes its workspace from its own pool, and no other stream or graph shares or frees it.
        torch._C._cuda_clearCublasWorkspaces()
        try:
            # thread_local: what another thread does meanwhile, such as pinning a batch, is not captured.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                try:
                    work()
                except BaseException as error:
                    reason = error
                    raise
        except BaseException as error:
            self._abandon(here)
            raise (reason or error) from None  # closing a failed capture raises once more
        finally:
            reason = None  # its traceback holds this frame
            torch._C._cuda_clearCublasWorkspaces()
        # What came before the capture, such as a search for algorithms, says nothing of the steps to come.
        torch.cuda.reset_peak_memory_stats(self._device)
        return graph.replay

    def _abandon(self, here: torch.cuda.Stream) -> None:
        """After a failed capture, does what torch then leaves undone: the stream is left, and the pool closed.

        As long as the allocator believes that a capture is under way, it gives no cached memory back.
        """
        torch.cuda.set_stream(here)
        with contextlib.suppress(
            RuntimeError
        ):  # the first raises where torch, later than 2.11, has done both
            torch._C._cuda_endAllocateToPool(self._stream.device_index, self._pool)
            torch._C._cuda_releasePool(self._stream.device_index, self._pool)


def cuda_recorder(device: torch.device) -> Recorder | None:
    """CUDA graphs on a CUDA device, None elsewhere."""
    return _CudaRecorder(device) if device.type == "cuda" else None


class Replay:
    """Takes a step by replaying what was recorded of it; one recording for each shape of a draw.

    A step that cannot be recorded is taken as it is from then on, with the same numbers.

    Attributes:
        failure: Why it cannot be recorded, one line; None as long as it can.
    """

    def __init__(
        self, step: Step, recorder: Recorder, device: torch.device, captured: Callable[[], None] | None = None
    ) -> None:
        """Records nothing yet.

        Args:
            captured: Called after every attempt to record.
        """
        self._captured = captured
        self._step, self._recorder, self._device = step, recorder, device
        self._recorded: dict[Hashable, tuple[Draw, Callable[[], object]]] = {}
        self.failure: str | None = None

    @property
    def captures(self) -> int:
        """Recordings made so far."""
        return len(self._recorded)

    def __call__(self, draw: Draw) -> None:
        """Trains on one batch."""
        if self.failure is None:
            shape = tuple((tensor.shape, tensor.dtype) for tensor in draw)
            if shape not in self._recorded:
                self._record(shape, draw)
        if self.failure is not None:
            self._step(draw)
            return
        static, replay = self._recorded[shape]
        for own, given in zip(static, draw, strict=True):
            own.copy_(given, non_blocking=True)
        replay()

    def _record(self, shape: Hashable, draw: Draw) -> None:
        """Warms up and records on a copy of the draw; everything a step changes is then as before."""
        static = tuple(tensor.clone() for tensor in draw)
        state = {name: (tensor, tensor.detach().clone()) for name, tensor in self._step.state().items()}
        random = _random_state(self._device)
        with self._recorder.aside():
            for _ in range(WARM_UP - 1):
                self._step(static)
        try:
            with self._recorder.aside(), self._recorder.strict():
                self._step(static)
            self._recorded[shape] = static, self._recorder.record(lambda: self._step(static))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.failure = f"the training step cannot be captured and runs eagerly: {lines[0]}"
            self._step.release()
            _replace_generator(self._device)
        with torch.no_grad():
            for tensor, before in state.values():
                tensor.copy_(before)
        _set_random_state(random, self._device)
        if self._captured is not None:
            self._captured()


@dataclass(slots=True)
class StepRunner:
    """What one training works with.

    Attributes:
        step: State and settings of the step.
        advance: Takes one step with a draw: the step itself, or a replay of it.
        generator: What random layers draw from on a CUDA device; a recording is tied to it.
    """

    step: Step
    advance: Callable[[Draw], None]
    generator: torch.Generator | None = None

    @property
    def notice(self) -> str | None:
        """What a reader of the run's log should know."""
        return self.advance.failure if isinstance(self.advance, Replay) else None

    @property
    def execution(self) -> dict[str, Any]:
        """How steps were taken, as JSON values."""
        captured = isinstance(self.advance, Replay) and self.advance.failure is None
        return {"step": "captured" if captured else "eager", "notice": self.notice}


class RunnerFactory(Protocol):
    """Gives a training its bench."""

    def __call__(
        self,
        net: nn.Module,
        task: Task,
        gather: Callable[[Draw], Any],
        recipe: Recipe,
        device: torch.device,
        regulariser: Regulariser | None,
        masks: Mapping[str, Tensor] | None,
    ) -> contextlib.AbstractContextManager[StepRunner]:
        """While the context is open the bench belongs to the caller; arguments as those of `Step`."""


@contextlib.contextmanager
def eager(
    net: nn.Module,
    task: Task,
    gather: Callable[[Draw], Any],
    recipe: Recipe,
    device: torch.device,
    regulariser: Regulariser | None,
    masks: Mapping[str, Tensor] | None,
) -> Iterator[StepRunner]:
    """A bench whose steps run operator by operator."""
    step = Step(net, task, gather, recipe, device, regulariser, masks)
    yield StepRunner(step, step, _new_generator(device))


class StepCache:
    """The captured steps of a process: all seeds and protocols of an architecture share one.

    A step that is taken up again gets the new network's weights, an optimiser that remembers nothing, and the new
    masks, in place. One training at a time holds it; a second one at the same time gets another. Trainings with a
    regulariser do not share theirs: a regulariser may have changed its network, and there is one such training per
    search.

    Attributes:
        captures: Recordings made so far, by all of them.
    """

    def __init__(self, recorder: Callable[[torch.device], Recorder | None] = cuda_recorder) -> None:
        """Starts empty.

        Args:
            recorder: Called with a device, gives what records there; None means eager steps.
        """
        self._recorder = recorder
        self.captures = 0
        self._idle: list[tuple[Hashable, StepRunner]] = []

    @contextlib.contextmanager
    def bench(
        self,
        shape: Hashable,
        net: nn.Module,
        task: Task,
        gather: Callable[[Draw], Any],
        recipe: Recipe,
        device: torch.device,
        regulariser: Regulariser | None,
        masks: Mapping[str, Tensor] | None,
    ) -> Iterator[StepRunner]:
        """A `RunnerFactory` once `shape` is given.

        Args:
            shape: Names the network's architecture and the task: whatever captured kernels depend on that the
                other arguments do not say. `task` and `gather` must do the same for all that use the same name.
        """
        read = [(f.name, getattr(recipe, f.name)) for f in dataclasses.fields(recipe) if f.name not in _HOST]
        key = (shape, device, tuple(read), tuple(sorted(masks or ())))
        found = None if regulariser is not None else self._take(key)
        if found is not None:
            found.step.begin(net, masks)
        else:
            if (recorder := self._recorder(device)) is not None:
                self._make_room(device)
            step = Step(net, task, gather, recipe, device, regulariser, masks)
            advance = step if recorder is None else Replay(step, recorder, device, self._count)
            found = StepRunner(step, advance, _new_generator(device))
        _wait(device)  # what this stream has made, such as the resident images, other streams may read
        try:
            yield found
        except BaseException:
            with contextlib.suppress(RuntimeError):
                _wait(device)  # its memory must not go to others while it still computes
            raise  # and the bench with it: nobody knows what state it is in
        _wait(device)
        if regulariser is None and isinstance(found.advance, Replay) and found.notice is None:
            self._idle = [*self._idle[1 - IDLE :], (key, found)]

    def _count(self) -> None:
        self.captures += 1

    def _take(self, key: Hashable) -> StepRunner | None:
        for place in reversed(range(len(self._idle))):
            if self._idle[place][0] == key:
                return self._idle.pop(place)[1]
        return None

    def _make_room(self, device: torch.device) -> None:
        """Lets idle ones go, the oldest first, while less than a quarter of the device's memory is free."""
        while self._idle and device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            if free >= total / 4:
                return
            del self._idle[0]
            torch.cuda.empty_cache()

    def drop(self) -> bool:
        """Lets all idle ones go; whether there were any."""
        had = bool(self._idle)
        self._idle.clear()
        return had


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _default_generator(device: torch.device) -> torch.Generator:
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def _new_generator(device: torch.device) -> torch.Generator | None:
    return torch.Generator(device) if device.type == "cuda" else None


@contextlib.contextmanager
def random_layers(seed: int, generator: torch.Generator | None) -> Iterator[None]:
    """Random layers draw from `seed` inside; the caller's random state is as before afterwards.

    Args:
        seed: Of 64 bits at most.
        generator: Stands in for the CUDA device's own inside. A graph keeps the seed and offset of its generator
            on the device, so two trainings that replay at the same time must not share one.
    """
    with torch.random.fork_rng(devices=[]), contextlib.ExitStack() as after:
        torch.default_generator.manual_seed(seed)
        if generator is not None:
            default = _default_generator(generator.device)
            after.callback(default.graphsafe_set_state, default.graphsafe_get_state())
            default.graphsafe_set_state(generator)
            default.manual_seed(seed)
        yield


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def _replace_generator(device: torch.device) -> None:
    """After a failed capture: the generator it was tied to believes that it is still captured."""
    if device.type == "cuda":
        _default_generator(device).graphsafe_set_state(torch.Generator(device))
