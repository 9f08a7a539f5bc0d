"""A stand-in for CUDA graphs on the CPU: records operators on fixed tensors and runs them again without Python."""

import contextlib
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)


class Tape(TorchDispatchMode):
    """Everything that one call did, in order."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in READS:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines follow")
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, made))
        return made

    def replay(self):
        """Runs the operators on the tensors of the recording; new values go where the old ones stood."""
        for func, args, kwargs, made in self.calls:
            given = {id(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            held = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if not torch.is_tensor(old) or id(old) in given:
                    continue
                if old.numel() and old.untyped_storage().data_ptr() in held:
                    continue  # a view of what it was given
                old.copy_(new)


class Strict(TorchDispatchMode):
    """Refuses what waits for the device, as torch's mode for finding it does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in READS:
            raise RuntimeError("called a synchronizing CUDA operation")
        return func(*args, **(kwargs or {}))


class TapeRecorder:
    """A `Recorder` that counts what is asked of it."""

    def __init__(self):
        self.counts = Counter()
        self.operators = []

    @contextlib.contextmanager
    def aside(self):
        self.counts["warm-ups"] += 1
        yield

    @contextlib.contextmanager
    def strict(self):
        with Strict():
            yield

    def record(self, work):
        self.counts["captures"] += 1
        with Tape() as tape:
            work()
        self.operators.append(Counter(str(call[0].overloadpacket) for call in tape.calls))

        def replay():
            self.counts["replays"] += 1
            with torch.no_grad():
                tape.replay()

        return replay
