"""The same networks through Torch-Pruning, judged by the same oracle: `python -m benchmarks.support.peer`.

Torch-Pruning (VainF/Torch-Pruning) is used as its README says: `BasePruner` with group magnitude, half of the
channels, the output layers ignored, the heads of attention given. What it made is compared with the dense network
whose readers' slices of the channels it dropped are zero. Every network runs in a process of its own.
"""

import argparse
import copy
import multiprocessing
import resource
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torchvision.models import VisionTransformer

from benchmarks.support import page
from benchmarks.support.networks import NETWORKS, Network
from benchmarks.support.oracle import KeptNorms, batch_of, dense_network, quick, relative, tensors
from benchmarks.support.row import TOLERANCE, Row, processor, sources, surveyed
from prunas.errors import InputError
from prunas.survey import Survey

LIMIT = 90
"""Processor seconds that a network may take."""

UNITS = 3
"""Units of every group whose channels are compared."""

PEERS = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_large", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32",
    "wide_resnet50_2",
)  # fmt: skip
"""torchvision's families, a small member each; the networks of the study and the small families come on top."""

SHARE = 4
"""One of how many networks of timm and of transformers is measured, in the order of the table."""

OUTPUTS = ("last", "low", "high", "aux.2", "fc", "linear", "classifier")

Positions = npt.NDArray[np.intp]
Element = tuple[str, str, int]
"""A channel: module path, `in` or `out`, position."""


def main() -> int:
    """Measures what is missing or out of date."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.support.peer", description=__doc__)
    parser.add_argument("name", nargs="*", help="networks; all if none is named")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    names = _names()
    rows = {row["network"]: row for row in page.read(page.PEER) if row["network"] in names}
    where = f"torch-pruning {version('torch-pruning')}, torch {version('torch')}, {processor()}, one thread"
    stamp = {"sources": sources(), "date": str(date.today()), "where": where}
    for name in chosen.name or names:
        if rows.get(name, {}).get("sources") != stamp["sources"] or rows[name]["where"] != where:
            rows[name] = {"network": name, "kind": NETWORKS[name].kind} | _apart(name) | stamp
            page.write(page.PEER, [rows[other] for other in names if other in rows])
            print(f"{name}: {rows[name]['outcome']}", flush=True)
    page.README.write_text(page.page(page.read(page.ROWS), page.read(page.PEER)), encoding="utf-8")
    print(f"{len(rows)} rows, {len(names) - len(rows)} missing")
    return 0


def _names() -> list[str]:
    """The networks that are measured, in the order of the table."""
    of_libraries = [n.name for n in NETWORKS.values() if n.kind in ("timm", "transformers")]
    some = {*PEERS, *of_libraries[::SHARE]}
    return [n.name for n in NETWORKS.values() if n.kind in ("bundled", "family", "task") or n.name in some]


def _apart(name: str) -> Row:
    """`measure` in a process of its own, which a graph walk without end cannot outlive."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(name, sender))
    process.start()
    sender.close()
    try:
        row: Row = receiver.recv()
    except EOFError:
        row = {"outcome": "the process died"}
    process.join()
    return {"outcome": f"no end in {LIMIT} processor seconds"} if process.exitcode == -signal.SIGXCPU else row


def _send(name: str, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
    sender.send(measure(NETWORKS[name]))


def measure(network: Network) -> Row:
    """What Torch-Pruning makes of a network."""
    warnings.simplefilter("ignore")
    factory = quick(network.factory)
    images = batch_of(network.probe, network.batch, network.below)
    dense = dense_network(factory, images).requires_grad_(True).eval()
    row: Row = _agreement(network, dense, images)
    net = copy.deepcopy(dense)
    try:
        _halve(net, images)
    except Exception as error:  # whatever another library raises
        return row | {"outcome": f"does not build: {_line(error)}"}
    left, whole = (sum(p.numel() for p in some.parameters()) for some in (net, dense))
    row["params"] = round(left / whole, 4)
    if left == whole:
        return row | {"outcome": "nothing narrowed"}
    try:
        with torch.no_grad(), _masked(dense, net) as reference:
            for mode in ("eval", "train"):
                reference.train(mode == "train"), net.train(mode == "train")
                expected = reference(*images)
                row[mode] = "runs not"
                output = net(*images)
                if [t.shape for t in tensors(output)] != [t.shape for t in tensors(expected)]:
                    return row | {"outcome": "narrows the network's outputs", mode: ""}
                row[mode] = float(f"{relative(output, expected):.1e}")
    except Exception as error:
        return row | {
            "outcome": f"does not run in {'train' if 'train' in row else 'eval'} mode: {_line(error)}"
        }
    for mode in ("eval", "train"):
        if not row[mode] <= TOLERANCE:
            return row | {"outcome": f"another function: {row[mode]:.2g} apart in {mode} mode"}
    return row | {"outcome": "right"}


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:120]


def _outputs(net: nn.Module) -> list[nn.Module]:
    """The layers that write the network's outputs."""
    layers: list[tuple[str, nn.Module]] = [
        (n, m) for n, m in net.named_modules() if isinstance(m, _ConvNd | nn.Linear)
    ]
    classes = [m for _, m in layers if getattr(m, "out_features", getattr(m, "out_channels", 0)) == 1000]
    return classes or [m for n, m in layers if n in OUTPUTS] or [layers[-1][1]]


def _halve(net: nn.Module, images: Sequence[Tensor]) -> None:
    import torch_pruning as tp  # type: ignore[import-untyped]

    attentions = {m: _projections(m) for m in net.modules()}
    heads = {m: m.num_heads for m in net.modules() if isinstance(m, nn.MultiheadAttention)}
    heads |= {layer: count for layers, count in attentions.values() for layer in layers}
    example = tuple(image[:1] for image in images)
    tp.pruner.BasePruner(
        net,
        example if len(example) > 1 else example[0],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=_outputs(net),
        num_heads=heads,
    ).step()
    if isinstance(net, VisionTransformer):  # its examples do so, and what follows
        net.hidden_dim = net.conv_proj.out_channels
    for module, (layers, count) in attentions.items():
        if layers:
            width = layers[0].out_features // (3 if hasattr(module, "qkv") else 1)
            sizes = {"head_dim": width // count, "attention_head_size": width // count}
            for name, size in {**sizes, "all_head_size": width, "attn_dim": width}.items():
                if hasattr(module, name):
                    setattr(module, name, size)


def _projections(module: nn.Module) -> tuple[list[nn.Linear], int]:
    """The layers of an attention of timm or transformers that write its heads, and how many these are."""
    count = getattr(module, "num_heads", getattr(module, "num_attention_heads", None))
    layers = [getattr(module, name, None) for name in ("qkv", "query", "key", "value")]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return (linear, count) if isinstance(count, int) else ([], 0)


# The oracle


@contextmanager
def _masked(dense: nn.Module, net: nn.Module) -> Iterator[nn.Module]:
    """The dense network whose weights read only what `net` kept, which the values of its weights tell."""
    reference = copy.deepcopy(dense)
    modules = dict(net.named_modules())
    norms: dict[int, Tensor] = {}
    projections = {layer for module in reference.modules() for layer in _projections(module)[0]}
    for path, module in reference.named_modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm) and module.weight is not None:
            kept, _ = _found(module.weight[:, None], modules[path].weight[:, None])
            norms[id(module.weight)] = torch.as_tensor(kept[:, 0])
        for name, weight in module.named_parameters(recurse=False):
            if isinstance(module, _ConvNd | nn.Linear | nn.MultiheadAttention | nn.LSTM) and weight.ndim > 1:
                first = tuple([slice(None)] * 2 + [0] * (weight.ndim - 2))
                rows, columns = _found(weight[first], getattr(modules[path], name)[first])
                mask = np.ones(weight.shape[:2])
                if isinstance(module, _ConvTransposeNd):
                    mask[np.setdiff1d(np.arange(len(weight)), rows)] = 0
                else:
                    mask[np.unique(rows)] = 0
                    mask[rows, columns] = 1
                if module in projections:  # queries and keys meet in a product, where no weights read them
                    dropped = torch.as_tensor(np.setdiff1d(np.arange(len(weight)), rows))
                    mask[dropped] = 0
                    if isinstance(module.bias, Tensor):
                        module.bias.index_fill_(0, dropped, 0.0)
                weight.mul_(torch.as_tensor(mask)[(...,) + (None,) * (weight.ndim - 2)])
    with KeptNorms(norms):
        yield reference


def _found(dense: Tensor, narrow: Tensor) -> tuple[Positions, Positions]:
    """Row and column in `dense` of every value of `narrow`; both broadcast to its shape."""
    values, wanted = dense.detach().numpy(), narrow.detach().numpy()
    corner = np.argwhere(values == wanted[0, 0])
    if len(corner):  # most often whole rows and columns went
        row, column = corner[0]
        rows, columns = _place(values[:, column], wanted[:, 0]), _place(values[row], wanted[0])
        if np.array_equal(values[np.ix_(rows, columns)], wanted):
            return rows[:, None], columns[None]
    place = _place(values.ravel(), wanted)
    if (values.ravel()[place] != wanted).any():
        raise LookupError("its weights are no slices of the dense ones")
    return place // values.shape[1], place % values.shape[1]


def _place(values: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> Positions:
    """Where each value of `wanted` stands among `values`."""
    order = np.argsort(values)
    place: Positions = order[np.searchsorted(values[order], wanted).clip(max=len(order) - 1)]
    return place


# Coupled channels


def _agreement(network: Network, dense: nn.Module, images: Sequence[Tensor]) -> Row:
    """Which channels go along with some units of every group, by both."""
    import torch_pruning as tp

    try:
        made, _ = surveyed(network)
    except InputError:
        return {"groups": 0, "compared": 0, "equal": 0, "different": None}
    row: Row = {"groups": len(made.groups), "compared": 0, "equal": 0, "different": None}
    net = copy.deepcopy(dense)
    names = {module: path for path, module in net.named_modules()}
    example = tuple(image[:1] for image in images)
    try:
        graph = tp.DependencyGraph().build_dependency(net, example if len(example) > 1 else example[0])
    except Exception:
        return row
    for i, group in enumerate(made.groups):
        path = group.name.partition("#")[0]
        root = net.get_submodule(path)
        for unit in sorted({0, group.units // 2, group.units - 1}):
            ours = _elements(made, net, i, unit)
            positions = sorted(p for where, side, p in ours if (where, side) == (path, "out"))
            try:
                found = graph.get_pruning_group(
                    root, graph.get_pruner_of_module(root).prune_out_channels, positions
                )
            except Exception as error:
                row["different"] = row["different"] or f"{path}: {_line(error)}"
                continue
            theirs = {
                (names[dep.target.module], side, int(getattr(index, "idx", index)))
                for dep, indices in found
                if dep.target.module in names
                for side in [_side(dep.target.module, graph.is_out_channel_pruning_fn(dep.handler))]
                for index in indices
            }
            row["compared"] += 1
            row["equal"] += ours == theirs
            if ours != theirs:
                some = sorted(ours ^ theirs)[0]
                by = "prunas" if some in ours else "Torch-Pruning"
                row["different"] = (
                    row["different"] or f"{path}[{unit}]: {some[0]}.{some[1]}[{some[2]}] only in {by}"
                )
    return row


def _side(module: nn.Module, out: bool) -> str:
    """A layer that maps channels one by one has one side."""
    plain = isinstance(module, nn.Linear) or (
        isinstance(module, _ConvNd) and not 1 < module.groups == module.in_channels
    )
    return "out" if out or not plain else "in"


def _elements(made: Survey, net: nn.Module, group: int, unit: int) -> set[Element]:
    """Every channel of a unit."""
    none = [np.empty(0, np.int64) for _ in made.groups]
    some = [np.array([unit]) if i == group else empty for i, empty in enumerate(none)]
    found = set()
    for layer in made.layers:
        module = net.get_submodule(layer.path)
        for side, form in (("in", layer.reads), ("out", layer.writes)):
            positions = np.setdiff1d(made.positions(form, some), made.positions(form, none))
            found |= {(layer.path, _side(module, side == "out"), int(p)) for p in positions}
    return found


if __name__ == "__main__":
    sys.exit(main())
