"""`export`: a network with its weights as a file that needs no prunas, checked by running it.

Three forms: `onnx`, for any runtime; `pt2`, the file of torch.export, which torch alone loads; `safetensors`, the
state dict, with the architecture and its shape as plain Python (`prunas.inspection.code`) in the metadata. The
first two take any batch size and hold the network in evaluation mode.
"""

import copy
import importlib.util
import io
import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prunas import SCHEMA, __version__
from prunas.architecture import Architecture
from prunas.data.dataset import stream_seed
from prunas.errors import InputError, unknown
from prunas.files import canonical, read_json, write_atomic
from prunas.inspection.code import shape_code
from prunas.plugins import resolve
from prunas.runs.job import Job
from prunas.runs.store import Store
from prunas.spaces.load import load_point, load_space
from prunas.spaces.space import SearchSpace
from prunas.works.runtime import weights

__all__ = ["FORMATS", "TOLERANCE", "Exported", "Format", "Network", "export", "find", "form_of"]

Format = Literal["onnx", "pt2", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)

TOLERANCE = 1e-4
"""Largest difference from torch's outputs, relative to the largest of them, that rounding in float32 explains."""

TRACED, CHECKED = 2, 3
"""Images that a network is traced with, and run with to check: a file that had learnt its batch size fails."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What is exported.

    Attributes:
        space: Its search space.
        architecture: The point.
        net: The network in evaluation mode, on the CPU.
        origin: Where the weights come from.
        name: What to call it: that of the run, or space and digest.
    """

    space: SearchSpace
    architecture: Architecture
    net: nn.Module
    origin: str
    name: str


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        file: Where.
        format: `onnx`, `pt2` or `safetensors`.
        space: Name of the space.
        architecture: Digest of the point.
        origin: Where the weights come from.
        difference: Largest difference between what the file computes and what torch does, relative to the largest
            output, on random images.
    """

    file: Path
    format: Format
    space: str
    architecture: str
    origin: str
    difference: float

    def to_json(self) -> dict[str, Any]:
        """What `prunas export --json` prints."""
        return {
            "schema": SCHEMA,
            "file": str(self.file),
            "format": self.format,
            "space": self.space,
            "architecture": self.architecture,
            "origin": self.origin,
            "difference": self.difference,
        }


def form_of(text: str) -> Format:
    """The form of this name.

    Raises:
        InputError: There is none.
    """
    for form in FORMATS:
        if form == text:
            return form
    raise unknown("format of --to", text, FORMATS)


def find(what: str, root: Path, init: int | None) -> Network:
    """The network that a user means.

    Args:
        what: A run's folder, its id or the name of its folder; or, with `init`, an architecture's JSON file,
            SPACE or SPACE:PRESET.
        root: The folder that holds all runs.
        init: Seed of fresh weights: those a training with this seed starts from.

    Raises:
        InputError: There is no such run or point, or the run has no weights that could be exported.
    """
    if init is not None:
        space, arch = load_point(what)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("weights", init))
            net = space.build(arch)
        name = f"{space.name}-{arch.digest}-init{init}"
        return Network(space, arch, net.eval(), f"initial weights of seed {init}", name)
    folder = Path(what)
    if not (folder / "job.json").is_file():
        Store(root, notice=lambda text: None)
        known = {path.parent for path in root.glob("*/*/job.json")}
        found = [path for path in known if what in (path.name, path.name.rpartition("-")[2])]
        if not found:
            missing = unknown(f"run in {root}:", what, [path.name for path in known])
            raise InputError(f"{missing}; a shape without a run has no weights, add --init 0 for fresh ones")
        folder = found[0]
    return _trained(folder)


def _trained(folder: Path) -> Network:
    job = Job.from_json(read_json(folder / "job.json"))
    spec = job.spec
    if not (folder / "result.json").is_file():
        raise InputError(f"run {job.name} is not finished; repeat the command that began it")
    if not (folder / "weights.safetensors").is_file():
        raise InputError(
            f"run {job.name} kept no weights; repeat its search with --keep-weights, or use `prunas train`, which "
            "keeps them"
        )
    space, arch = load_space(spec["space"]), Architecture.from_json(spec["architecture"])
    with torch.random.fork_rng(devices=[]):
        net = space.build(arch)
    if spec["penalty"] is not None:
        _refuse_changed(net, spec["penalty"], job.name)
    try:
        net.load_state_dict(weights(folder))
    except RuntimeError as error:
        raise InputError(f"run {job.name}: its weights do not fit its network; delete {folder}") from error
    return Network(space, arch, net.eval(), str(folder), job.name)


def _refuse_changed(net: nn.Module, penalty: Mapping[str, Any], run: str) -> None:
    """Some penalties are trained with more than the network itself, such as a scale on every branch."""
    attached = copy.deepcopy(net)
    resolve("prunas.penalties", penalty["name"])(**penalty["options"]).attach(attached)
    if any(module._forward_hooks or module._forward_pre_hooks for module in attached.modules()):
        raise InputError(
            f"run {run} was trained with scales on its branches that are no part of the network; "
            "export the final training of a point instead"
        )


def export(network: Network, form: Format, file: Path) -> Exported:
    """Writes a network and runs what was written.

    Args:
        network: From `find`.
        form: The kind of file.
        file: Where it goes; nothing is left there if the check fails.

    Raises:
        InputError: The form needs a package that is not installed, or cannot hold this network.
    """
    generator = torch.Generator().manual_seed(0)
    shape = network.space.survey.input
    traced, images = (torch.randn(n, *shape, generator=generator) for n in (TRACED, CHECKED))
    with torch.no_grad():
        wanted = tree_leaves(network.net(images))
    write = {"onnx": _onnx, "pt2": _pt2, "safetensors": _safetensors}[form]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own future
        content, found = write(network, traced, images)
    difference = _difference(found, wanted)
    if not difference <= TOLERANCE:
        raise InputError(
            f"the {form} file of {network.origin} computes something else than torch (relative difference "
            f"{difference:.2g}); nothing was written, choose another format"
        )
    write_atomic(file, lambda handle: handle.write(content))
    point = network.architecture
    return Exported(file, form, network.space.name, point.digest, network.origin, difference)


def _difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest relative difference over all outputs; infinite if their number or shapes differ."""
    if [tuple(each.shape) for each in found] != [tuple(each.shape) for each in wanted]:
        return float("inf")
    pairs = list(zip(found, wanted, strict=True))
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs)


def _program(network: Network, images: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    try:
        program = torch.export.export(network.net, (images,), dynamic_shapes=({0: batch},), strict=False)
    except Exception as error:  # torch.export raises what it likes about a user's network
        why = str(error).strip().partition("\n")[0]
        raise InputError(
            f"torch.export cannot follow the network of space {network.space.name!r} for any batch size: {why}; "
            "use --to safetensors"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which are nobody else's business
    return program


def _pt2(network: Network, traced: Tensor, images: Tensor) -> tuple[bytes, list[Tensor]]:
    buffer = io.BytesIO()
    torch.export.save(_program(network, traced), buffer)
    buffer.seek(0)
    with torch.no_grad():
        found = torch.export.load(buffer).module()(images)
    return buffer.getvalue(), tree_leaves(found)


def _onnx(network: Network, traced: Tensor, images: Tensor) -> tuple[bytes, list[Tensor]]:
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}; pip install 'prunas[export]'")
    import onnxruntime

    program = _program(network, traced)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        torch.onnx.export(program, f=path, input_names=["images"], external_data=False, verbose=False)
        content = path.read_bytes()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return content, [torch.as_tensor(each) for each in session.run(None, {"images": images.numpy()})]


def _safetensors(network: Network, traced: Tensor, images: Tensor) -> tuple[bytes, list[Tensor]]:
    space, arch = network.space, network.architecture
    tensors = {name: tensor.contiguous().clone() for name, tensor in network.net.state_dict().items()}
    metadata = {
        "format": "pt",
        "written_by": f"prunas {__version__}",
        "network": space.network,
        "input": json.dumps(list(space.survey.input)),
        "architecture": canonical(arch.to_json()),
        "shape": shape_code(space, arch),
    }
    content = safetensors.torch.save(tensors, metadata)
    with torch.random.fork_rng(devices=[]):
        again = space.build(arch)
    again.load_state_dict(safetensors.torch.load(content))
    with torch.no_grad():
        return content, tree_leaves(again.eval()(images))
