"""A part of a network: what it is called with, what the rest costs, and its survey as one of the whole network.

The survey of a part is made as that of any network. Then its names get the path of the part in front, the order
of construction becomes that of all layers, and the rest is a row of the cost: so it is a survey of the network in
which only the part varies, and nothing that reads surveys needs to know more.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from prunas.errors import InputError
from prunas.inputs import Inputs
from prunas.surgery.assemble import fingerprint
from prunas.survey import FIXED, CostTerm, Part, Survey
from prunas.tracing.example import Example, sample
from prunas.tracing.untouched import running

__all__ = ["Rest", "check_rest", "in_whole", "look_at_rest", "part_of"]

aten = torch.ops.aten
PRODUCTS = (aten.convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm)
"""The operations that take nearly all the time and whose results' shapes do not depend on values."""
DRAWN = 1 << 14
"""How many random numbers are drawn for a product; they are repeated."""
NOTHING_FOUND = -20.0
"""What every product is in the second run: as logits, no object anywhere."""


@dataclass(frozen=True)
class Rest:
    """What the rest of a network does for one image.

    Attributes:
        example: What the part is called with.
        macs: Multiply-accumulates, those of `uncounted` left out.
        activations: Outputs of its convolutions and linear layers, likewise.
        uncounted: Module paths whose work depends on what is in the image, or that were not reached.
        why: They are not counted.
        error: What stopped the network on a random image, or "".
        reached: Module paths inside the part that the rest calls by themselves.
    """

    example: Example
    macs: int
    activations: int
    uncounted: tuple[str, ...] = ()
    why: str = ""
    error: str = ""
    reached: tuple[str, ...] = ()


def part_of(net: nn.Module, part: str) -> nn.Module:
    """The submodule that varies.

    Raises:
        InputError: There is none of this name.
    """
    try:
        module = net.get_submodule(part)
    except AttributeError:
        children = [
            name for name, child in net.named_children() if next(child.parameters(), None) is not None
        ]
        raise InputError(
            f"the network {type(net).__name__} has no part {part!r}; it has {', '.join(children)} and what is in "
            "them, as in backbone.body"
        ) from None
    if next(module.parameters(), None) is None:
        raise InputError(f"part {part!r} has no parameters, so nothing in it can vary")
    return module


def look_at_rest(
    make: Callable[[], nn.Module],
    part: str,
    inputs: Inputs,
    part_inputs: Sequence[int] | Inputs | None = None,
) -> Rest:
    """Runs the network in eval mode on a random image, its products made up: twice, with other numbers.

    Args:
        make: Returns a fresh network, on the CPU.
        part: Module path of the part.
        inputs: What the network is called with.
        part_inputs: What the part is called with, if the user says so.

    Raises:
        InputError: The part is not reached, or called several times.
    """
    first, second = _runs(make, part, inputs, (None, NOTHING_FOUND))
    reached = first if first.calls else second
    calls = reached.calls
    if part_inputs is not None:
        calls = [sample(Inputs.of(part_inputs), 1, dtype=first.dtype, device="meta")]
    if len(calls) != 1:
        if not calls:
            stopped = f": it stops before with {first.error}" if first.error else ""
            raise InputError(
                f"the network does not call its part {part!r} for an input of shape {inputs}{stopped}; give the "
                "input as forward takes it, or what the part is called with as part_input"
            )
        raise InputError(
            f"the network calls its part {part!r} {len(calls)} times for one input; name a part that is "
            "called once, such as the one around it"
        )
    differing = tuple(
        sorted(p for p in first.work.keys() | second.work.keys() if first.work.get(p) != second.work.get(p))
    )
    same = [work for path, work in first.work.items() if path not in differing]
    macs, activations = (sum(work[i] for work in same) for i in range(2))
    why = "how much they do depends on what is in the image" if differing else ""
    if first.error:
        differing, why = (
            (*differing, "what follows"),
            f"the network stops on a random image with {first.error}",
        )
    inside = tuple(sorted(first.reached | second.reached))
    return Rest(calls[0], macs, activations, differing, why, first.error, inside)


def _runs(
    make: Callable[[], nn.Module], part: str, inputs: Inputs, values: Sequence[float | None]
) -> list["_Run"]:
    """Runs of a network in eval mode on one random image; arguments as of `look_at_rest` and `_Products`."""
    with torch.random.fork_rng(devices=[]), running():
        torch.manual_seed(0)
        net = make().eval()
        dtype = next((p.dtype for p in net.parameters() if p.dtype.is_floating_point), torch.float32)
        example = sample(inputs, 1, dtype=dtype)
        return [_Run(net, part, example, value, dtype) for value in values]


class _Run:
    """One run of a network.

    Attributes:
        calls: What the part was called with.
        work: Multiply-accumulates and outputs of the products outside the part, by the innermost module.
        error: What stopped the run, or "".
        reached: Module paths inside the part that were called while it was not.
        dtype: The floating-point type of the network.
    """

    def __init__(
        self, net: nn.Module, part: str, example: Example, value: float | None, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.calls: list[Example] = []
        self.work: dict[str, tuple[int, int]] = {}
        self.error = ""
        self.reached: set[str] = set()
        self._inside: list[str] = []
        self._part = part
        with self._watching(net), torch.no_grad():
            try:
                with _Products(value, self._note):
                    example.call(net)
            except InputError:
                raise
            except Exception as error:  # whatever a user's forward raises
                self.error = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

    def _note(self, macs: int, outputs: int) -> None:
        """Enters a product that ran."""
        if self._part in self._inside:
            return
        path = self._inside[-1] if self._inside else ""
        before = self.work.get(path, (0, 0))
        self.work[path] = before[0] + macs, before[1] + outputs

    @contextmanager
    def _watching(self, net: nn.Module) -> Iterator[None]:
        """While active, the module that runs is known."""
        handles = []

        def enter(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
                if path == self._part:
                    self.calls.append(_described(args, kwargs))
                elif path.startswith(f"{self._part}.") and self._part not in self._inside:
                    self.reached.add(path)
                self._inside.append(path)

            return hook

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            self._inside.pop()

        try:
            for path, module in net.named_modules():
                if path:
                    handles.append(module.register_forward_pre_hook(enter(path), with_kwargs=True))
                    handles.append(module.register_forward_hook(leave))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _described(args: Any, kwargs: Any) -> Example:
    """A call as the survey repeats it: tensors without data."""
    for leaf in pytree.tree_leaves((args, kwargs)):
        if not isinstance(leaf, Tensor | int | float | str | bool | None):
            raise InputError(
                f"the part is called with {type(leaf).__name__}, and a survey knows tensors, lists and "
                "dictionaries of them; name a part that takes these"
            )
    return Example(args, kwargs).on_meta()


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, products are made up in the right shape, and noted.

    Args:
        value: What their results are filled with; None for random numbers.
        note: Is told the multiply-accumulates and the size of each.
    """

    def __init__(self, value: float | None, note: Callable[[int, int], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.value, self.note = value, note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func.overloadpacket not in PRODUCTS:
            result = func(*args, **options)
            if count := flop_registry.get(func.overloadpacket):
                self.note(count(*args, **options, out_val=result) // 2, 0)
            return result
        on_meta = pytree.tree_map_only(Tensor, lambda t: t.to("meta"), (args, options))
        shape = func(*on_meta[0], **on_meta[1])
        self.note(flop_registry[func.overloadpacket](*args, **options, out_val=shape) // 2, shape.numel())
        made = torch.empty_like(shape, device="cpu")
        if self.value is not None:
            return made.fill_(self.value)
        numbers = torch.randn(DRAWN, dtype=made.dtype).repeat(-(-made.numel() // DRAWN))
        return made.copy_(numbers[: made.numel()].view(made.shape))


def in_whole(
    survey: Survey, net: nn.Module, part: str, order: Sequence[str], inputs: Inputs, rest: Rest
) -> Survey:
    """The survey of a part as one of the whole network.

    Args:
        survey: Of the part by itself.
        net: The network.
        part: Module path of the part.
        order: Module path of every layer of the network in the order of construction.
        inputs: What the network is called with.
        rest: What the rest does.
    """
    module = net.get_submodule(part)
    known = {path for path, _ in module.named_modules()} | set(module.state_dict())
    known |= {name for name, _ in (*module.named_parameters(), *module.named_buffers())}

    def full(name: str) -> str:
        return f"{part}.{name}"

    def full_if_known(name: str) -> str:
        return full(name) if name in known else name

    def listed(text: str) -> str:
        """A list of names, the last of which may have words behind it."""
        parts = [name.partition(" ") for name in text.split(", ")]
        return ", ".join(full_if_known(first) + space + words for first, space, words in parts)

    replaced = dataclasses.replace
    inside = {id(parameter) for parameter in module.parameters()}
    params = sum(p.numel() for p in net.parameters() if id(p) not in inside)
    outside = CostTerm(f"outside {part}", FIXED, FIXED, params, rest.macs)
    return replaced(
        survey,
        input=inputs.shapes[0],
        inputs=None if inputs.plain else inputs,
        fingerprint=fingerprint(net),
        order=tuple(order),
        groups=tuple(replaced(group, name=full(group.name)) for group in survey.groups),
        gates=tuple(
            replaced(gate, name=full(gate.name), norm=gate.norm and full(gate.norm)) for gate in survey.gates
        ),
        blocks=tuple(
            replaced(
                block,
                name=full(block.name),
                branch=tuple(map(full, block.branch)),
                chain=tuple(map(full, block.chain)),
            )
            for block in survey.blocks
        ),
        frozen=tuple(
            replaced(frozen, what=listed(frozen.what), where=listed(frozen.where)) for frozen in survey.frozen
        ),
        layers=tuple(replaced(layer, path=full(layer.path)) for layer in survey.layers),
        sites=tuple(replaced(site, tensor=full(site.tensor)) for site in survey.sites),
        rows=(
            *(
                replaced(
                    row,
                    layer=full_if_known(row.layer),
                    gate_reads=row.gate_reads and full(row.gate_reads),
                    gate_writes=row.gate_writes and full(row.gate_writes),
                )
                for row in survey.rows
            ),
            outside,
        ),
        attributes=survey.attributes
        and tuple(replaced(a, module=full(a.module) if a.module else part) for a in survey.attributes),
        part=Part(part, params, rest.macs, rest.activations, rest.uncounted, rest.why),
    )


def check_rest(narrowed: Callable[[], nn.Module], part: str, inputs: Inputs, rest: Rest) -> None:
    """Refuses a part whose inside the rest of the network uses: then the narrowed network does something else.

    Args:
        narrowed: Returns a narrowed network, on the CPU.
        part: Module path of the part.
        inputs: What the network is called with.
        rest: What the rest did in the dense network.

    Raises:
        InputError: It does.
    """
    (run,) = _runs(narrowed, part, inputs, (None,))
    same = [work for path, work in run.work.items() if path not in rest.uncounted]
    if run.error == rest.error and [sum(work[i] for work in same) for i in range(2)] == [
        rest.macs,
        rest.activations,
    ]:
        return
    raise InputError(
        f"the network uses what is inside its part {part!r}, which may not vary then: narrowed, it "
        + (f"stops with {run.error}" if run.error != rest.error else "does something else outside the part")
        + "; name a larger part"
    )
