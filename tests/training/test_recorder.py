"""What a capture asks of CUDA, on a stand-in for it that fails as torch does."""

import pytest
import torch

from prunas.training.capture import cuda_recorder

OUTSIDE = object()


class Cuda:
    """The state of torch that a capture changes.

    Attributes:
        current: Stream of this thread.
        allocating: Pool that the allocator serves a capture from; None when none is under way.
        pools: How many hold the pool.
        repaired: Whether a capture that fails closes its pool itself, as torch does later than 2.11.
    """

    def __init__(self):
        self.current, self.allocating, self.pools = OUTSIDE, None, 0
        self.repaired, self.events = False, []

    def release(self, index, pool):
        assert (index, pool) == (0, (0, 7))
        self.pools -= 1

    def end(self, index, pool):
        assert (index, pool) == (0, (0, 7))
        if self.allocating != pool:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.allocating = None


class Stream:
    device_index = 0


@pytest.fixture
def cuda(monkeypatch):
    state = Cuda()

    class Graph:
        def replay(self):
            state.events.append("replay")

    class Capture:
        """In the order of `torch.cuda.graph`: the end of a capture raises before the stream is left."""

        def __init__(self, graph, pool, stream, capture_error_mode):
            assert capture_error_mode == "thread_local"
            self.pool, self.stream = pool, stream

        def __enter__(self):
            state.current, state.allocating = self.stream, self.pool
            state.pools += 1
            state.events.append("begin")

        def __exit__(self, kind, error, trace):
            state.events.append("end")
            if error is not None and not isinstance(error, KeyboardInterrupt):
                if state.repaired:
                    state.end(0, self.pool)
                    state.release(0, self.pool)
                raise RuntimeError("operation failed due to a previous error during capture")
            state.end(0, self.pool)
            state.current = OUTSIDE

    def set_stream(stream):
        state.current = stream

    for name, stand_in in {
        "Stream": lambda device: Stream(),
        "graph_pool_handle": lambda: (0, 7),
        "CUDAGraph": Graph,
        "graph": Capture,
        "current_stream": lambda device: state.current,
        "set_stream": set_stream,
        "reset_peak_memory_stats": lambda device: state.events.append("peak"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for name, stand_in in {
        "_cuda_clearCublasWorkspaces": lambda: state.events.append("clear"),
        "_cuda_endAllocateToPool": state.end,
        "_cuda_releasePool": state.release,
    }.items():
        monkeypatch.setattr(torch._C, name, stand_in, raising=False)
    return state


@pytest.fixture
def recorder(cuda):
    return cuda_recorder(torch.device("cuda", 0))


def test_a_capture_has_a_cublas_workspace_of_its_own(cuda, recorder):
    replay = recorder.record(lambda: cuda.events.append("work"))
    replay()
    # Neither what was there before is used in the capture, nor is what the capture took used after it.
    assert cuda.events == ["clear", "begin", "work", "end", "clear", "peak", "replay"]
    assert (cuda.current, cuda.allocating, cuda.pools) == (OUTSIDE, None, 1)


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operation not permitted when stream is capturing"),
        torch.OutOfMemoryError("CUDA out of memory"),
        KeyboardInterrupt(),
    ],
    ids=["waits", "memory", "interrupted"],
)
def test_a_failed_capture_leaves_nothing_behind_and_says_why(cuda, recorder, error, repaired):
    cuda.repaired = repaired

    def work():
        raise error

    with pytest.raises(type(error)) as raised:
        recorder.record(work)
    assert raised.value is error  # not that of the end of the capture
    assert cuda.current is OUTSIDE
    assert (cuda.allocating, cuda.pools) == (None, 0 if not isinstance(error, KeyboardInterrupt) else 1)
    assert cuda.events == ["clear", "begin", "end", "clear"]


def test_an_error_of_the_capture_itself_is_not_lost(cuda, recorder, monkeypatch):
    def leave(self, *_):
        raise RuntimeError("CUDA error: operation would make the legacy stream depend on a capturing stream")

    monkeypatch.setattr(torch.cuda.graph, "__exit__", leave)
    with pytest.raises(RuntimeError, match="legacy stream"):
        recorder.record(lambda: None)
    assert (cuda.current, cuda.allocating, cuda.pools) == (OUTSIDE, None, 0)
