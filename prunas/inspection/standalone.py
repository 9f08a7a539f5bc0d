"""A shape as a Python module that builds the smaller network from the dense network's own factory, without prunas.

The module does what `prunas.surgery` does, and nothing else: the factory runs unchanged while the constructors of
its layers are given the smaller sizes, so that its own initialisation draws the weights; then layers select their
inputs and branches go. What it says is read off the two networks, as built here.
"""

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from prunas import __version__
from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.graphs.layers import SELECTING, HeadAttention
from prunas.inspection.dense_source import DenseSource, definitions_of, dense_source, with_needed
from prunas.spaces.space import SearchSpace
from prunas.surgery.construct import CONSTRUCTORS, constructed_layers, made_by
from prunas.surgery.remove import Nothing, PassThrough
from prunas.tracing.trace import on_meta
from prunas.tracing.untouched import untouched

__all__ = ["WEIGHTS", "standalone_code"]

WEIGHTS = "weights.pth"
"""The file beside the module that its `load` reads."""

LINE = 100
"""Characters of a long line of the module."""

SIZED = '''
def sized(factory):
    """What the factory makes while the constructors of its layers are given SIZES."""
    numbers = itertools.count()
    originals = {kind: kind.__init__ for kind in KINDS}

    def smaller(original):
        signature = inspect.signature(original)

        def init(self, *args, **kwargs):
            bound = signature.bind(self, *args, **kwargs)
            bound.arguments.update(SIZES.get(next(numbers), {}))
            original(*bound.args, **bound.kwargs)

        return init

    try:
        for kind, original in originals.items():
            kind.__init__ = smaller(original)
        net = factory()
    finally:
        for kind, original in originals.items():
            kind.__init__ = original
    if (made := next(numbers)) != LAYERS:
        raise RuntimeError(f"the factory makes {made} layers, and made {LAYERS} when this file was written")
    return net
'''

CUT = '''
def cut(net, name, shape):
    """Keeps the first entries of a parameter or buffer along every axis."""
    path, _, name = name.rpartition(".")
    owner = net.get_submodule(path)
    tensor = getattr(owner, name)
    smaller = tensor.detach()[tuple(map(slice, shape))].clone()
    setattr(owner, name, nn.Parameter(smaller, tensor.requires_grad) if name in owner._parameters else smaller)
'''

SELECT = '''
def select(net, path, index):
    """Lets only some input channels of a layer pass."""
    layer = net.get_submodule(path)
    layer.__class__ = SELECTING[type(layer)]
    layer.register_buffer("index", torch.tensor(index))
'''

REPLACE = '''
def replace(net, path, module):
    """Puts another module at a path."""
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, module)
'''

SHORTEN = '''
def shorten(net, path, branch, shortcut):
    """Takes the modules of a branch out of a block, which then computes its shortcut alone."""
    for name in branch:
        parent, _, child = f"{path}.{name}".rpartition(".")
        delattr(net.get_submodule(parent), child)
    net.get_submodule(path).__class__ = shortcut
'''

LOAD = f'''
def load(file=Path(__file__).with_name("{WEIGHTS}"){{argument}}):
    """The smaller network with the weights of a file, in evaluation mode."""
    net = make({{given}})
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return net.eval()
'''


@dataclass(slots=True)
class _Module:
    """The text of a Python module in the making.

    Attributes:
        imports: Statements that import one name each.
        constants: Assignments, and classes that they need.
        helpers: Functions.
        steps: Lines of `make`, behind the one that runs the factory.
        call: What runs the factory, on a function that makes the dense network.
    """

    imports: set[str] = field(default_factory=set)
    constants: list[str] = field(default_factory=list)
    helpers: dict[str, None] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    call: str = "{factory}()"

    def step(self, line: str, helper: str = "", loop: str = "") -> None:
        """Adds a line to `make`, inside a loop if there is one, and the function that it calls."""
        self.steps += [f"    {loop}", f"        {line}"] if loop else [f"    {line}"]
        if helper:
            self.helpers[helper] = None

    def define(self, *classes: type) -> None:
        """Adds classes of prunas's, with what they need."""
        for cls in classes:
            imports, text = with_needed({cls.__name__}, definitions_of(cls))
            self.imports.update(imports)
            self.constants += [part for part in text.split("\n\n\n") if part not in self.constants]


def standalone_code(space: SearchSpace, arch: Architecture) -> str:
    """A Python module that builds the network of a point where prunas is not installed.

    It needs torch, and the package or file that the space's network comes from; a bundled network is written out.
    Its `make()` builds the network with fresh weights: from the same random state those of `space.build`, but for
    a kernel pattern. Its `load()` reads the weights from `WEIGHTS` beside it, in evaluation mode: the names and
    shapes of a state dict are those of `space.build`. Where only this process can call the factory, both take it
    as an argument.

    A kernel pattern is no part of the code: the weights that do not exist are zeros in a state dict.

    Args:
        space: The space.
        arch: A point.

    Raises:
        InputError: The point does not lie in this space, or has an attention that torch has not.
    """
    space.check(arch)
    arch = space.canonical(arch)
    source, module = dense_source(space), _Module()
    with untouched(space.factory):
        dense, dense_layers = on_meta(lambda: constructed_layers(partial(made_by, space.factory)))
        small, layers = on_meta(lambda: constructed_layers(partial(space.build, arch)))
    _sizes(module, source.text, dense, dense_layers, layers)
    _tensors(module, dense, small, {id(layer) for layer, _ in dense_layers})
    _selections(module, space, arch, small)
    for block in arch.removed:
        if chain := space.survey.blocks[space.survey.block_index[block]].chain:
            _pass_through(module, dense, chain)
        else:
            _shorten(module, block, dense.get_submodule(block), small.get_submodule(block))
    if cfg := _cfg(dense, small):
        module.constants.append(
            _assigned("cfg", cfg, "the same as the list that such networks are made from")
        )
    return _text(module, source, _title(space, arch, source))


def _sizes(
    module: _Module,
    text: str,
    dense: nn.Module,
    before: Sequence[tuple[nn.Module, Mapping[str, Any]]],
    after: Sequence[tuple[nn.Module, Mapping[str, Any]]],
) -> None:
    """Arguments of constructors that differ, by the order of construction."""
    paths = {id(layer): path for path, layer in dense.named_modules()}
    lines = []
    for i, ((layer, given), (_, smaller)) in enumerate(zip(before, after, strict=True)):
        if changed := {name: n for name, n in smaller.items() if _number(n) != _number(given[name])}:
            lines.append(
                f"    {i}: {_literal(changed)},  # {paths.get(id(layer), 'not part of the network')}"
            )
    if not lines:
        return
    kinds = [kind for kind in CONSTRUCTORS if any(isinstance(layer, kind) for layer, _ in before)]
    names = [kind.__name__ for kind in kinds]
    for i, kind in enumerate(kinds):
        if kind.__module__.startswith("torch."):
            names[i] = f"nn.{names[i]}" if hasattr(nn, names[i]) else f"{kind.__module__}.{names[i]}"
        elif f"class {names[i]}(" not in text:
            module.imports.add(f"from {kind.__module__} import {names[i]}")
    module.constants += [
        f"KINDS = [{', '.join(names)}]\nLAYERS = {len(before)}  # of these kinds that the factory makes",
        "# New arguments of their constructors, by the order in which the factory makes them.\n"
        + "\n".join(["SIZES = {", *lines, "}"]),
    ]
    module.imports |= {"import inspect", "import itertools"}
    module.helpers[SIZED] = None
    module.call = "sized({factory})"


def _number(count: Any) -> Any:
    """A count; of a shape of one axis, its length."""
    return count[0] if isinstance(count, Sequence) and len(count) == 1 else count


def _tensors(module: _Module, dense: nn.Module, small: nn.Module, constructed: set[int]) -> None:
    """What no constructor knows of: parameters, buffers and numbers that other modules hold."""
    shapes, after = {}, dict(small.named_modules())
    for path, owner in dense.named_modules():
        counterpart = after.get(path)
        if id(owner) in constructed or counterpart is None:
            continue
        if isinstance(counterpart, HeadAttention):
            raise InputError(
                f"{path!r} has another number of heads, or a narrower stream, than torch's attention can have, "
                "and its code is not written out yet; build the network with prunas, or export it to ONNX"
            )
        for name, tensor in (*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)):
            smaller = getattr(counterpart, name, tensor)
            if smaller.shape != tensor.shape:
                shapes[f"{path}.{name}" if path else name] = tuple(smaller.shape)
        if type(owner) is type(counterpart):
            for name, value in vars(owner).items():
                changed = getattr(counterpart, name, value)
                if name[0] != "_" and isinstance(value, (int, tuple)) and changed != value:
                    module.step(f"net.get_submodule({_literal(path)}).{name} = {changed!r}")
    if shapes:
        module.constants.append(_assigned("SHAPES", shapes, "of tensors that no constructor knows of"))
        module.step("cut(net, name, shape)", CUT, "for name, shape in SHAPES.items():")


def _selections(module: _Module, space: SearchSpace, arch: Architecture, small: nn.Module) -> None:
    """Layers that select their inputs, as `prunas.surgery.assemble.select_inputs` makes them."""
    gates = space.survey.gate_named
    selected = {gates[name].norm or name: list(positions) for name, positions in arch.selected}
    if not selected:
        return
    kinds = {type(small.get_submodule(path)) for path in selected}
    pairs = [(kind, selecting) for kind, selecting in SELECTING.items() if selecting in kinds]
    module.define(*(selecting for _, selecting in pairs))
    table = ", ".join(f"nn.{kind.__name__}: {selecting.__name__}" for kind, selecting in pairs)
    module.constants += [
        f"SELECTING = {{{table}}}",
        _assigned("SELECTED", selected, "input channels that pass, by the layer that reads them"),
    ]
    module.step("select(net, path, index)", SELECT, "for path, index in SELECTED.items():")


def _pass_through(module: _Module, dense: nn.Module, chain: Sequence[str]) -> None:
    """A removed branch that is a chain of modules, as `prunas.surgery.remove.pass_through` takes it away."""
    module.define(PassThrough, Nothing)
    for path in chain:
        last, attention = path == chain[-1], isinstance(dense.get_submodule(path), nn.MultiheadAttention)
        stands = f"Nothing(attention={attention})" if last else "PassThrough()"
        module.step(f"replace(net, {_literal(path)}, {stands})", REPLACE)


def _shorten(module: _Module, path: str, block: nn.Module, rest: nn.Module) -> None:
    """A block without its branch, as `prunas.surgery.remove.without_branch` leaves it."""
    if not isinstance(rest, fx.GraphModule):
        module.step(f"replace(net, {_literal(path)}, nn.Identity())", REPLACE)
        return
    code = rest.graph.python_code("self")
    forward = re.sub(r";  (\w+ = )+None", "", code.src.strip())  # only frees memory a little earlier
    for name, value in code.globals.items():
        if name != "torch" and re.search(rf"(?<![.\w]){name}\b", forward):
            module.imports.add(_import_of(name, value))
    doc = f'"""{type(block).__name__} without its branch."""'
    text = "\n".join([doc, "", *forward.splitlines()])
    shortcuts = [
        each for each in module.constants if each.startswith(f"class {type(block).__name__}Shortcut")
    ]
    name = f"{type(block).__name__}Shortcut{len(shortcuts) + 1}"
    for shortcut in shortcuts:
        if shortcut.partition("\n")[2] == _indented(text):
            name = shortcut.partition("(")[0].removeprefix("class ")
            break
    else:
        module.constants.append(f"class {name}(nn.Module):\n{_indented(text)}")
    module.step(f"shorten(net, {_literal(path)}, {_literal(_gone(block, rest))}, {name})", SHORTEN)


def _gone(block: nn.Module, rest: nn.Module) -> list[str]:
    """Modules and tensors of a block that `rest` does not have, each as the outermost one."""
    kept = dict(rest.named_modules(remove_duplicate=False))
    gone = []
    for path, owner in block.named_modules(remove_duplicate=False):
        if path in kept:
            tensors = (*owner._parameters, *owner._buffers)
            gone += [f"{path}.{name}".lstrip(".") for name in tensors if not hasattr(kept[path], name)]
        elif path.rpartition(".")[0] in kept:
            gone.append(path)
    return gone


def _import_of(name: str, value: Any) -> str:
    """The statement that binds a global of a graph's code."""
    if name in ("inf", "nan"):
        return f"from math import {name}"
    if name == "NoneType":
        return "from types import NoneType"
    if isinstance(value, type(re)):
        parent, _, last = value.__name__.rpartition(".")
        return f"from {parent} import {last} as {name}"
    return f"from {value.__module__} import {value.__name__} as {name}"


def _cfg(dense: nn.Module, small: nn.Module) -> list[int | str]:
    """Output channels and "M" for max pooling of a network that is one chain of these; else nothing."""
    parents = {
        path.rpartition(".")[0] for path, module in dense.named_modules() if isinstance(module, _ConvNd)
    }
    if len(parents) != 1 or type(chain := small.get_submodule(parents.pop())) is not nn.Sequential:
        return []
    entries = [
        "M" if isinstance(module, nn.MaxPool2d) else getattr(module, "out_channels", None) for module in chain
    ]
    return [entry for entry in entries if entry is not None]


def _title(space: SearchSpace, arch: Architecture, source: DenseSource) -> str:
    """The docstring of the module."""
    cost = space.cost(arch)
    needs = f"torch and {source.needs}" if source.needs else "torch"
    argument = "" if source.function else "factory"
    lines = [
        f'"""{space.name} {arch.digest}: {cost.params:,} parameters, {cost.macs:,} multiply-accumulates.',
        "",
        f"The network {source.network}, made smaller by prunas {__version__}. It needs {needs};",
        f"it does not need prunas. One input has the shape {space.survey.input}, without the batch.",
        "",
        f"    net = load({argument and f'factory={argument}'})  # with the weights of {WEIGHTS} beside this file",
        f"    net = make({argument})  # with fresh weights, as the dense network's factory draws them",
    ]
    if arch.kernels is not None:
        lines += [
            "",
            "Of its convolutions some weights do not exist: they are zeros in the file of weights, and a further",
            "training has to keep them so. Fresh weights know nothing of it.",
        ]
    return "\n".join([*lines, '"""'])


def _text(module: _Module, source: DenseSource, title: str) -> str:
    """The module, put together."""
    module.imports |= {"from pathlib import Path", "import torch", "from torch import nn", *source.imports}
    factory = "dense" if source.function else "factory"
    parameter = "" if source.function else "factory"
    helpers = [each.strip() for each in module.helpers]
    if source.function:
        arguments = ", ".join(f"{name}={value!r}" for name, value in source.arguments)
        helpers.insert(
            0, f'def dense():\n    """The dense network."""\n    return {source.function}({arguments})'
        )
    make = [
        f"def make({parameter}):",
        '    """The smaller network with fresh weights."""',
        f"    net = {module.call.format(factory=factory)}",
        *module.steps,
        "    return net",
    ]
    load = LOAD.strip().format(argument=parameter and ", *, factory", given=parameter)
    parts = [title + "\n\n" + _merged(module.imports), source.text, *module.constants, *helpers]
    return "\n\n\n".join([*(part for part in parts if part), "\n".join(make), load]) + "\n"


def _merged(imports: set[str]) -> str:
    """Import statements, those from one module in one line, the standard library's first."""
    lines: dict[str, list[str]] = {}
    for each in sorted(imports, key=lambda each: (each.startswith("from "), each)):
        start, _, name = each.partition(" import ")
        lines.setdefault(start, []).append(name)
    standard: list[str] = []
    others: list[str] = []
    for start, names in lines.items():
        block = standard if start.split()[1].partition(".")[0] in sys.stdlib_module_names else others
        block.append(f"{start} import {', '.join(names)}" if names[0] else start)
    return "\n\n".join("\n".join(block) for block in (standard, others) if block)


def _assigned(name: str, value: Any, comment: str) -> str:
    """An assignment; a mapping has one line an entry."""
    if isinstance(value, dict):
        entries = [f"    {_literal(key)}: {_literal(each)}," for key, each in value.items()]
        return "\n".join([f"{name} = {{  # {comment}", *entries, "}"])
    return f"# {comment[0].upper()}{comment[1:]}.\n{name} = {_literal(value)}"


def _literal(value: Any) -> str:
    """A value as Python writes it; numbers that do not fit into a line in several."""
    text = repr(value).replace("'", '"')
    if not isinstance(value, list) or len(text) < LINE:
        return text
    return "\n".join(
        ["[", *textwrap.wrap(text[1:-1], LINE, initial_indent=" " * 8, subsequent_indent=" " * 8), "    ]"]
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.splitlines())
