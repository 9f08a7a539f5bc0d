"""`export`: a network with its weights as files that need no prunas, checked by running them.

Four forms: `onnx`, for any runtime; `pt2`, the file of torch.export, which torch alone loads; `python`, a folder
with a module that builds the network from the dense network's own factory, and its state dict; `safetensors`, the
state dict, with the architecture and that module's text in the metadata. The first two take any batch size and are
in evaluation mode.
"""

import contextlib
import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path, tree_leaves

from prunas import SCHEMA, __version__
from prunas.architecture import Architecture
from prunas.data.dataset import stream_seed
from prunas.errors import InputError, unknown
from prunas.files import canonical, write_atomic
from prunas.inspection.dense_source import dense_source
from prunas.inspection.standalone import WEIGHTS, standalone_code
from prunas.inspection.trained import load_run, run_folder
from prunas.spaces.factory import texts_beside
from prunas.spaces.load import load_point
from prunas.spaces.space import SearchSpace
from prunas.surgery.given import state_bytes

__all__ = ["FORMATS", "TOLERANCE", "Exported", "Format", "Network", "export", "find", "form_of"]

Format = Literal["onnx", "pt2", "python", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)

TOLERANCE = 1e-4
"""Largest difference from torch's outputs, relative to the largest of them, that rounding in float32 explains."""

READABLE = 200
"""Characters of torch's own reason that a message repeats."""

TRACED, CHECKED = 2, 3
"""Inputs that a network is traced with, and run with to check: a file that had learnt its batch size fails."""

MODULES = ("network", "smaller_network")
"""What the module of the form `python` is called; the second where the user's own file has the first name."""

Tensors = tuple[Tensor, ...]
Written = tuple[bytes, list[Tensor]]

WITHOUT_PRUNAS = """
import importlib, sys
sys.modules["prunas"] = None  # from here on an import of it fails, as where it is not installed
module, threads = sys.argv[1:]
sys.path.insert(0, "")
import torch
from torch.utils._pytree import tree_leaves
torch.set_num_threads(int(threads))
net = importlib.import_module(module).load()
with torch.no_grad():
    outputs = net(*torch.load("inputs.pt", weights_only=True))
torch.save([leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)], "outputs.pt")
"""
"""Runs the form `python` in the folder that it lies in."""


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
        file: Where; of the form `python` the folder.
        format: `onnx`, `pt2`, `python` or `safetensors`.
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
    hint = "; a shape without a run has no weights, add --init 0 for fresh ones"
    run = load_run(run_folder(what, root, hint))
    return Network(run.space, run.architecture, run.network, str(run.folder), run.name)


def export(network: Network, form: Format, file: Path) -> Exported:
    """Writes a network and runs what was written.

    Args:
        network: From `find`.
        form: The kind of file.
        file: Where it goes, of the form `python` the folder; nothing is left there if the check fails.

    Raises:
        InputError: The form needs a package that is not installed, or cannot hold this network.
    """
    generator = torch.Generator().manual_seed(0)
    traced, inputs = (_inputs(network.space, n, generator) for n in (TRACED, CHECKED))
    with torch.no_grad():
        wanted = _tensors(network.net(*inputs))
    with warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")  # torch's, about its own future
        if form == "python":
            contents, computed = _python(network, inputs)
        else:
            writers: Mapping[str, Callable[[Network, Tensors, Tensors], Written]]
            writers = {"onnx": _onnx, "pt2": _pt2, "safetensors": _safetensors}
            content, computed = writers[form](network, traced, inputs)
            contents = {"": content}
    difference = _difference(computed, wanted)
    if not difference <= TOLERANCE:
        raise InputError(
            f"the {form} file of {network.origin} computes something else than torch (relative difference "
            f"{difference:.2g}); nothing was written, choose another format"
        )
    for name, part in contents.items():
        write_atomic(file / name if name else file, lambda handle, part=part: handle.write(part))  # type: ignore[misc]
    point = network.architecture
    return Exported(file, form, network.space.name, point.digest, network.origin, difference)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps torch from printing graphs that it could not follow: what matters is in the error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _inputs(space: SearchSpace, batch: int, generator: torch.Generator) -> Tensors:
    """Random tensors that a network of a space is called with."""
    shapes = (space.survey.input,)
    return tuple(torch.randn(batch, *shape, generator=generator) for shape in shapes)


def _tensors(outputs: Any) -> list[Tensor]:
    """The tensors of what a network returns, in any containers."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _difference(computed: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest relative difference over all outputs; infinite if their number or shapes differ."""
    if [tuple(each.shape) for each in computed] != [tuple(each.shape) for each in wanted]:
        return float("inf")
    pairs = [pair for pair in zip(computed, wanted, strict=True) if pair[0].numel()]
    return max((float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs), default=0.0)


def _program(network: Network, inputs: Tensors) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in inputs)
    try:
        program = torch.export.export(network.net, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises what it likes about a user's network
        why = str(error).strip().partition("\n")[0].partition(" (unhinted")[0]
        why = why if len(why) <= READABLE else f"{why[:READABLE]}..."
        raise InputError(
            f"torch.export cannot follow the network of space {network.space.name!r} for any batch size: {why}; "
            "use --to python or safetensors"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which are nobody else's business
    return program


def _pt2(network: Network, traced: Tensors, inputs: Tensors) -> Written:
    buffer = io.BytesIO()
    torch.export.save(_program(network, traced), buffer)
    buffer.seek(0)
    with torch.no_grad():
        outputs = torch.export.load(buffer).module()(*inputs)
    return buffer.getvalue(), _tensors(outputs)


def _onnx(network: Network, traced: Tensors, inputs: Tensors) -> Written:
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}; pip install 'prunas[export]'")
    import onnxruntime

    program = _program(network, traced)
    with torch.no_grad():
        outputs = _output_names(network.net(*traced))
    names = ["images"] if len(inputs) == 1 else [f"input_{i}" for i in range(len(inputs))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        try:
            torch.onnx.export(
                program, f=path, input_names=names, output_names=outputs, external_data=False, verbose=False
            )
        except Exception as error:  # an operation that ONNX does not have
            why = str(error).strip().partition("\n")[0]
            raise InputError(
                f"the network of space {network.space.name!r} cannot be written as ONNX: {why}; use --to pt2 or "
                "python"
            ) from error
        content = path.read_bytes()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    arrays = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return content, [torch.as_tensor(each) for each in session.run(None, arrays)]


def _output_names(outputs: Any) -> list[str] | None:
    """Names of a network's outputs by their keys, such as `out` and `aux`; None for a single tensor."""
    if isinstance(outputs, Tensor):
        return None
    places = [path for path, leaf in tree_flatten_with_path(outputs)[0] if isinstance(leaf, Tensor)]
    parts = [[str(getattr(key, "key", getattr(key, "idx", ""))) for key in path] for path in places]
    return [name if name[0].isalpha() else f"output_{name}" for name in map("_".join, parts)]


def python_files(network: Network) -> dict[str, bytes]:
    """The files of the form `python` by name: the module first, the weights, and what the factory is made from."""
    source = dense_source(network.space)
    module = next(name for name in MODULES if f"{name}.py" != source.file)
    state = io.BytesIO()
    torch.save(network.net.state_dict(), state)
    code = standalone_code(network.space, network.architecture)
    contents = {f"{module}.py": code.encode(), WEIGHTS: state.getvalue()}
    if source.file:
        contents[source.file] = source.content.encode()
        contents |= texts_beside(source.file, source.content)
    return contents


def _python(network: Network, inputs: Tensors) -> tuple[dict[str, bytes], list[Tensor]]:
    """The files of the form `python` by name, and what they compute in a process that cannot import prunas."""
    space, source, contents = network.space, dense_source(network.space), python_files(network)
    file, module = next(iter(contents)), next(iter(contents)).removesuffix(".py")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for name, content in contents.items():
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_bytes(content)
        if not source.function:  # nobody else can call the factory
            names: dict[str, Any] = {"__file__": str(folder / file)}
            exec(compile(contents[file].decode(), file, "exec"), names)
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                return contents, _tensors(names["load"](factory=space.factory)(*inputs))
        torch.save(inputs, folder / "inputs.pt")
        command = [sys.executable, "-c", WITHOUT_PRUNAS, module, str(torch.get_num_threads())]
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        ended = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
        )
        if ended.returncode:
            why = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
            raise InputError(
                f"the network of space {space.name!r} cannot be made where prunas is not installed: {why}; use "
                "--to onnx, pt2 or safetensors"
            )
        return contents, torch.load(folder / "outputs.pt", weights_only=True)


def _safetensors(network: Network, traced: Tensors, inputs: Tensors) -> Written:
    space, arch = network.space, network.architecture
    metadata = {
        "format": "pt",
        "written_by": f"prunas {__version__}",
        "network": space.network,
        "input": json.dumps(list(space.survey.input)),
        "architecture": canonical(arch.to_json()),
        "python": standalone_code(space, arch),
    }
    content = state_bytes(network.net.state_dict(), metadata)
    with torch.random.fork_rng(devices=[]):
        again = space.build(arch)
    again.load_state_dict(safetensors.torch.load(content))
    with torch.no_grad():
        return content, _tensors(again.eval()(*inputs))
