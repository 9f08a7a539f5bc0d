"""One line of the support table: what a survey says of a network, and whether it is right."""

import gc
import hashlib
import importlib.metadata
import math
import platform
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import prunas
from benchmarks.support.networks import LARGE, Network
from benchmarks.support.oracle import (
    Difference,
    Oracle,
    Point,
    batch_of,
    counted,
    point,
    random_kept,
    random_selection,
)
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.errors import InputError
from prunas.inspection.show import varying_share
from prunas.surgery.assemble import build
from prunas.surgery.construct import CONSTRUCTORS
from prunas.survey import Survey
from prunas.tracing.survey import survey

__all__ = ["LIBRARIES", "TOLERANCE", "Row", "measure", "processor", "sources", "surveyed", "wrong"]

TOLERANCE = 1e-9
"""Relative difference above which two networks are different functions."""

VISIBLE = 1e-4
"""Least effect on the output that at least one point of a network must have for a comparison to say something."""

REPEATS, AT_ONCE = 3, 1.0
"""How often a survey is timed, and from how many seconds only once."""

COMPARED = 1.6e10
"""Most multiply-accumulates of a batch of a library's network whose function is compared."""

SINGLY = (45, 15_000_000)
"""Most groups, gates and blocks together, and most parameters, of a network of which each is tried by itself."""

LIBRARIES = ("task", "timm", "transformers")

Row = dict[str, Any]


def sources() -> str:
    """Digest of everything a row depends on: this folder, the code it tries, networks, torch."""
    package, here = Path(prunas.__file__).parent, Path(__file__).parent
    files = [
        f
        for room in ("tracing", "graphs", "surgery", "costs", "networks")
        for f in sorted((package / room).rglob("*.py"))
    ]
    files += [package / name for name in ("architecture.py", "survey.py")]
    files += [here / name for name in ("families.py", "libraries.py", "networks.py", "oracle.py", "row.py")]
    versions = [importlib.metadata.version(name) for name in ("torch", "torchvision")]
    text = "".join([*versions, *(hashlib.sha256(f.read_bytes()).hexdigest() for f in files)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def surveyed(network: Network) -> tuple[Survey, Row]:
    """A network's survey, and what it says in numbers.

    Raises:
        InputError: The network is refused.
    """
    made = survey(network.factory, _inputs(network))
    share = varying_share(made)
    cost = CostModel(made).of(Architecture("support", made.fingerprint))
    return made, {
        "params": cost.params,
        "macs": cost.macs,
        "varying": {name: round(float(value), 4) for name, value in share.items()},
        "groups": len(made.groups),
        "maskable": sum(group.maskable for group in made.groups),
        "units": sum(group.units for group in made.groups),
        "gates": len(made.gates),
        "blocks": len(made.blocks),
        "frozen": [
            {"what": frozen.what, "why": frozen.why, "where": frozen.where, "params": frozen.params}
            for frozen in sorted(made.frozen, key=lambda frozen: -frozen.params)
            if frozen.why != "the network's output"
        ],
    }


def measure(network: Network) -> Row:
    """Surveys a network and checks everything that is promised of it.

    Returns:
        The row. `refused` holds the one line of a refusal; `error` whatever else went wrong.
    """
    row: Row = {"network": network.name, "kind": network.kind, "inputs": network.inputs}
    start = time.process_time()
    try:
        made, said = surveyed(network)
        before = _world()  # only now: torch.export keeps the last graph it made, so its first use adds one
        row["seconds"], row["making"] = _seconds(network)
        row |= said | {"left_behind": [name for name, value in _world().items() if value != before[name]]}
        row |= _compared(network, made, _points(made, random.Random(network.name)))
    except InputError as error:
        row["refused"] = str(error)
    except Exception as error:  # an error in one network must not hide the others
        row["error"] = f"{type(error).__name__}: {error}".partition("\n")[0]
    row["took"] = round(time.process_time() - start, 1)
    return row


def wrong(row: Row) -> list[str]:
    """What is wrong with a row, for a person; empty if nothing is."""
    if "error" in row:
        return [row["error"]]
    if "refused" in row:
        return ["torchvision's classification models must survey"] if row["kind"] == "torchvision" else []
    points = row["points"] | ({"singly": row["singly"]} if row["singly"] else {})
    faults = [
        f"{name}: another function in {mode} mode ({found[mode]:.0e})"
        for name, found in points.items()
        for mode in ("eval", "train")
        if not found[mode] <= TOLERANCE
    ]
    if row["points"] and row["groups"] and max(found["effect"] for found in row["points"].values()) < VISIBLE:
        faults.append("no point changes the output: the comparison says nothing")
    faults += [f"another cost than torch counts: {text}" for text in row["inexact"]]
    faults += [f"the survey changes {name}" for name in row["left_behind"]]
    faults += row["extraordinary"]
    if not row["points"] and not row.get("reason", row["params"] >= LARGE):
        faults.append("its function was not compared")
    return faults


def _points(made: Survey, chance: random.Random) -> dict[str, Point]:
    """Random points: every group, each to another width; every group and gate, and a third of the blocks."""
    points = {"groups": point(made, random_kept(made, chance))}
    if made.gates or made.blocks:
        blocks = [block.name for block in made.blocks]
        removed = chance.sample(blocks, -(-len(blocks) // 3))
        points["combined"] = random_selection(made, point(made, random_kept(made, chance), removed), chance)
    return points


def _uncompared(network: Network, params: int, macs: int) -> str:
    """Why the function of a network's points is not compared; empty if it is."""
    if params >= LARGE:
        return "too many parameters"
    positions = math.prod(network.probe[0][1:]) / math.prod(network.inputs[0][1:])
    if network.kind in LIBRARIES and macs * positions * network.batch > COMPARED:
        return "too much work"
    return ""


def _single_points(made: Survey, chance: random.Random) -> list[Point]:
    """Every group, gate and block by itself."""
    kept = random_kept(made, chance)
    selected = random_selection(made, point(made, {}), chance).arch
    return [
        *(point(made, {name: units}) for name, units in kept.items()),
        *(Point(selected.replace(selected=(gate,)), {}) for gate in selected.selected),
        *(point(made, {}, (block.name,)) for block in made.blocks),
    ]


def _compared(network: Network, made: Survey, points: dict[str, Point]) -> Row:
    """Cost, function and make of the built networks."""
    model = CostModel(made)
    row: Row = {"inexact": [], "extraordinary": [], "points": {}, "singly": None}
    own = type(_on_meta(network.factory))
    for name, arch in {"dense": point(made, {}).arch, **{n: p.arch for n, p in points.items()}}.items():
        make = partial(build, network.factory, made, arch)
        net = _on_meta(make)
        cost = model.of(arch)
        try:
            there = counted(net, network.inputs, bool(network.below))
        except RuntimeError:  # it asks tensors for their numbers
            there = counted(make(), network.inputs, bool(network.below), "cpu")
        if (cost.dense_params, cost.dense_macs) != there:
            row["inexact"].append(f"{name}: {cost.dense_params, cost.dense_macs} for {there}")
        if type(net) is not own:
            row["extraordinary"].append(f"{name}: the built network is a {type(net).__name__}")
        if not all(isinstance(value, Tensor) for value in net.state_dict().values()):
            row["extraordinary"].append(
                f"{name}: the state dict of the built network holds more than tensors"
            )
    cost = model.of(Architecture("support", made.fingerprint))
    row["reason"] = _uncompared(network, cost.params, cost.macs)
    if row["reason"]:
        return row
    oracle = Oracle(network.factory, made, batch_of(network.probe, network.batch, network.below))
    row["points"] = {name: _plain([oracle.difference(some)]) for name, some in points.items()}
    single = _single_points(made, random.Random(network.name))
    if single and len(single) <= SINGLY[0] and cost.params <= SINGLY[1] and network.kind not in LIBRARIES:
        row["singly"] = {"points": len(single)} | _plain([oracle.difference(some) for some in single])
    return row


def _plain(found: Sequence[Difference]) -> dict[str, float]:
    """The worst of some differences, in two digits."""
    worst = {"eval": max(f.eval for f in found), "train": max(f.train for f in found)}
    return {name: float(f"{value:.1e}") for name, value in (worst | {"effect": found[0].effect}).items()}


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):  # a factory that reads values of tensors it makes
        return make()


def _inputs(network: Network) -> Any:
    """What `survey` takes: one shape, or one for each of several inputs, or integers."""
    if network.below:
        return [{"": list(size), "dtype": "int64", "below": network.below} for size in network.inputs]
    return network.inputs if len(network.inputs) > 1 else network.inputs[0]


def _seconds(network: Network) -> tuple[float, float]:
    """Processor seconds of a survey, best of some, and of these the ones in which the factory made networks."""
    making = 0.0

    def factory() -> nn.Module:
        nonlocal making
        start = time.process_time()
        net = network.factory()
        making += time.process_time() - start
        return net

    found = []
    for _ in range(REPEATS):
        making, start = 0.0, time.process_time()
        survey(factory, _inputs(network))
        found.append((time.process_time() - start, making))
        if found[0][0] > AT_ONCE:
            break
    best, made = min(found)
    return round(best, 3), round(made, 3)


def _world() -> dict[str, Any]:
    """What a survey must leave as it was."""
    gc.collect()
    return {
        "torch's random state": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "numpy's random state": str(np.random.get_state()),  # noqa: NPY002 (the state a user may rely on)
        "python's random state": hash(random.getstate()),
        "the default device or type": (torch.get_default_device(), torch.get_default_dtype()),
        "gradient recording": torch.is_grad_enabled(),
        "constructors": [cls.__init__ for cls in CONSTRUCTORS],
        "the number of living modules": sum(issubclass(type(thing), nn.Module) for thing in gc.get_objects()),
    }
