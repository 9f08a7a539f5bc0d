"""Light works, importable by worker processes; most count their starts in a file."""

import os
import signal
import threading
import time
from pathlib import Path

from prunas.errors import InputError


def starts(file):
    """How often a work that was given this file has begun."""
    return len(Path(file).read_text().splitlines()) if Path(file).exists() else 0


def _count(spec):
    with Path(spec["starts"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return starts(spec["starts"])


def square(spec, folder, progress, stop):
    _count(spec)
    progress({"epoch": 1})
    return {"square": spec["x"] ** 2, "pair": (1, 2)}


def slow(spec, folder, progress, stop):
    _count(spec)
    progress({"epoch": 1})
    time.sleep(spec["seconds"])
    return {"square": spec["x"] ** 2}


def raises(spec, folder, progress, stop):
    _count(spec)
    raise ZeroDivisionError("planted\nfailure")


def bad_input(spec, folder, progress, stop):
    _count(spec)
    raise InputError("no such data set; pass --data")


def leaves(spec, folder, progress, stop):
    _count(spec)
    raise SystemExit(3)


def returns_a_number(spec, folder, progress, stop):
    return 7


def returns_nan(spec, folder, progress, stop):
    return {"loss": float("nan")}


def interrupted_once(spec, folder, progress, stop):
    if _count(spec) == 1:
        raise KeyboardInterrupt
    return {"square": spec["x"] ** 2}


def killed(spec, folder, progress, stop):
    """Kills its own process during the first `spec["deaths"]` starts."""
    if _count(spec) <= spec["deaths"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": spec["x"] ** 2}


def exits(spec, folder, progress, stop):
    """Leaves without a word, and without an error, during its first start."""
    if _count(spec) == 1:
        os._exit(0)
    return {"square": spec["x"] ** 2}


def hangs(spec, folder, progress, stop):
    """Neither tells nor asks anything for a minute, during its first start."""
    if _count(spec) == 1:
        time.sleep(60)
    return {"square": spec["x"] ** 2}


def busy(spec, folder, progress, stop):
    """Says nothing but is alive: it asks whether to stop."""
    _count(spec)
    end = time.monotonic() + spec["seconds"]
    while time.monotonic() < end and not stop():
        time.sleep(0.01)
    return {"square": spec["x"] ** 2}


def awaits(spec, folder, progress, stop):
    """Runs until there is a file."""
    _count(spec)
    progress({"epoch": 1})
    deadline = time.monotonic() + 240
    while not Path(spec["file"]).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return {"square": spec["x"] ** 2}


def terminated(spec, folder, progress, stop):
    """Receives SIGTERM during its first start, as from a scheduler that wants the machine back."""
    if _count(spec) == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        if stop():
            (folder / "checkpoint").write_text("half")
            return None
    return {"square": spec["x"] ** 2, "continued": (folder / "checkpoint").read_text()}


def patient(spec, folder, progress, stop):
    """Runs until stopped, then saves; when it finds what it saved, it finishes."""
    _count(spec)
    checkpoint = folder / "checkpoint"
    if checkpoint.exists():
        return {"square": spec["x"] ** 2, "continued": checkpoint.read_text()}
    progress({"epoch": 1})
    deadline = time.monotonic() + 20
    while not stop():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody stopped this")
        time.sleep(0.01)
    checkpoint.write_text("half")
    return None


def abandoned(spec, folder, progress, stop):
    """Runs during its first start until it is stopped or killed, whichever its executor does without a driver."""
    if _count(spec) == 1:
        progress({"epoch": 1})
        deadline = time.monotonic() + 60
        while not stop():
            if time.monotonic() > deadline:
                raise TimeoutError("nobody stopped this")
            time.sleep(0.01)
        return None
    return {"square": spec["x"] ** 2}


def environment(spec, folder, progress, stop):
    return {name: os.environ.get(name) for name in spec["names"]} | {"pid": os.getpid()}


def deaf_to_ctrl_c(spec, folder, progress, stop):
    """Whether SIGINT is blocked here: a mask is inherited, so this process was born with it."""
    return {"blocked": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def paces(spec, folder, progress, stop):
    """Takes some steps and writes down its name before each; saves where it is when it is stopped."""
    done = folder / "done"
    for step in range(int(done.read_text()) if done.exists() else 0, spec["steps"]):
        with Path(spec["diary"]).open("a") as file:
            file.write(spec["name"])
        done.write_text(str(step + 1))
        if stop() and step + 1 < spec["steps"]:
            return None
    return {"steps": spec["steps"], "memory": spec.get("memory")}


def thread(spec, folder, progress, stop):
    """Which thread of its process it runs in."""
    for _ in range(3):
        stop()
    return {"thread": threading.get_ident()}


def tells(spec, folder, progress, stop):
    """Sends messages, and takes a step after each."""
    for message in spec["messages"]:
        progress(message)
        stop()
    if spec.get("fails"):
        raise ZeroDivisionError("planted")
    return {}


def hungry(spec, folder, progress, stop):
    """Needs a share of a memory of 1 that all who run at the same time have together."""
    with Path(spec["starts"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if sum(HELD) + spec["needs"] > 1:
        raise MemoryError("CUDA out of memory; lower --batch")
    HELD.append(spec["needs"])
    progress({"epoch": 1, "memory": spec["needs"]})
    try:
        for _ in range(spec["steps"]):
            if stop():
                return None
    finally:
        HELD.remove(spec["needs"])
    return {"needs": spec["needs"]}


HELD = []
"""What is taken of that memory now."""
