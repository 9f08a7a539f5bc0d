"""A super-network: one network whose slices are trained together, so that each can stand for a candidate.

References:
    Yu & Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019,
    https://arxiv.org/abs/1903.05134: the sandwich rule and in-place distillation.
    Yu & Huang, AutoSlim, 2019, https://arxiv.org/abs/1903.11728: every layer has a random width of its own.

In each step the whole network learns from the labels. The smallest one and some random ones learn from what
the whole one answers; their losses are summed. A slice is made of the first units of every group: which
positions of which tensors those are, the forms of the survey say, so that any surveyed network serves, with
groups that several layers share, gates and removable blocks. A gate's channels are evenly spaced, as in every
point that is known by counts.

Two ways compute the same. `Slices` runs the network of the point, built without weights, on slices of the
super-network's own parameters: what is left out costs nothing. `Masks` runs the whole network with what the
point lacks multiplied by zero: no shape depends on what is drawn, and the draw is a tensor, so that a step
can be captured as a CUDA graph. On a CUDA device masks are used where they serve, slices everywhere else.

Departures: widths are shares of the dense width, in `quanta` steps; a removable block is there in half of the
random networks and in none of the smallest; a task that does not say how its outputs are taught trains its
slices on labels. Statistics of batch norms are those of the whole network; whoever scores a slice measures
them again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from prunas.architecture import Architecture
from prunas.proposers.supernet.quanta import quanta_point, quantised
from prunas.recipe import Recipe
from prunas.spaces.space import SearchSpace
from prunas.surgery.weights import inherit
from prunas.survey import FIXED
from prunas.tasks.base import Distillable, Network, Task, training_loss
from prunas.tracing.trace import on_meta
from prunas.training.step import Forward

__all__ = ["Masks", "Slices", "maskable", "sandwich"]

BUILT = 32
"""Networks without weights that are kept: the smallest one is used in every step."""

Draw = tuple[Tensor, Tensor]
"""Counts (dimensions,) and whether each removable block is there (blocks,)."""


class Slices:
    """Runs points of a space on slices of a network's own tensors, through which gradients pass."""

    def __init__(self, space: SearchSpace, net: nn.Module) -> None:
        """Builds nothing yet.

        Args:
            space: The space.
            net: The dense network, whose parameters are sliced at every call.
        """
        self._space, self._net = space, net
        self._built: OrderedDict[Architecture, nn.Module] = OrderedDict()

    def point(self, draw: Draw) -> Architecture:
        """The point that was drawn."""
        counts, there = draw
        kept = there.tolist()
        removed = tuple(name for name, stays in zip(self._space.removable, kept, strict=True) if not stays)
        return quanta_point(self._space, counts.cpu().numpy(), removed)

    def drawn(self, draw: Draw) -> Callable[..., Any]:
        """The network of what was drawn, as a function of its inputs."""
        return self.at(self.point(draw))

    def at(self, arch: Architecture, statistics_of_batches: bool = False) -> Callable[..., Any]:
        """The network of a point, as a function of its inputs; running statistics are left as they are.

        Args:
            arch: The point.
            statistics_of_batches: Whether batch norms use those of each batch whatever the network's mode.
        """
        net, state = self._network(arch), dict(self._net.state_dict(keep_vars=True))
        state |= {name: buffer for name, buffer in self._net.named_buffers() if name not in state}
        slices = inherit(
            self._space.survey, arch, state, {group: range(width) for group, width in arch.widths}
        )
        device = next(iter(state.values())).device
        indices = {}
        for gate, positions in arch.selected:
            path = self._space.survey.gate_named[gate].norm or gate
            indices[f"{path}.index"] = torch.tensor(positions, device=device)
        names = {*net.state_dict(keep_vars=True), *(name for name, _ in net.named_buffers())} - indices.keys()
        given = {
            name: slices[name] if isinstance(state[name], nn.Parameter) else slices[name].clone()
            for name in names
        }
        net.train(self._net.training)
        for module in net.modules() if statistics_of_batches else ():
            if isinstance(module, _BatchNorm):
                module.training = True
        return lambda *inputs: functional_call(net, given | indices, inputs)

    def _network(self, arch: Architecture) -> nn.Module:
        if arch not in self._built:
            self._built[arch] = on_meta(lambda: self._space.build(arch))
            if len(self._built) > BUILT:
                self._built.popitem(last=False)
        self._built.move_to_end(arch)
        return self._built[arch]


class Masks:
    """Runs points of a space on the whole network, with what they lack multiplied by zero; see `maskable`."""

    def __init__(self, space: SearchSpace, net: nn.Module, device: torch.device) -> None:
        """Prepares the positions of every unit.

        Args:
            space: The space.
            net: The dense network.
            device: Where it is.
        """
        survey, self._net = space.survey, net
        groups = survey.groups
        starts = np.cumsum([0, *(group.units for group in groups)])
        self._unit = torch.as_tensor(
            np.concatenate([np.arange(group.units) for group in groups] or [np.empty(0, int)]), device=device
        )
        self._group = torch.as_tensor(
            np.repeat(np.arange(len(groups)), [group.units for group in groups]), device=device
        )
        self._dense = torch.tensor([group.units for group in groups], device=device)
        self._varying = torch.tensor(
            [survey.group_index[d.name] for d in space.dimensions], dtype=torch.int64, device=device
        )
        positions = {}
        for form in {site.form for site in survey.sites}:
            units = [
                np.repeat(
                    np.full(run.length, starts[-1])
                    if run.group == FIXED
                    else starts[run.group] + run.start + np.arange(run.length),
                    run.repeat,
                )
                for run in survey.forms[form]
            ]
            positions[form] = torch.as_tensor(np.concatenate(units or [np.empty(0, int)]), device=device)
        self._axes: dict[str, list[tuple[int, Tensor]]] = {}
        for site in survey.sites:
            self._axes.setdefault(site.tensor, []).append((site.axis, positions[site.form]))
        removable = {survey.block_index[name]: i for i, name in enumerate(space.removable)}
        self._inside: dict[str, list[int]] = {}
        for name, _ in net.named_parameters():
            held = survey.blocks_of.get(name.rpartition(".")[0], frozenset())
            self._inside[name] = [removable[block] for block in sorted(held) if block in removable]

    def drawn(self, draw: Draw) -> Callable[..., Any]:
        """The network of what was drawn, as a function of its inputs; running statistics are left as they are."""
        counts, there = draw
        widths = self._dense.index_copy(0, self._varying, counts)
        alive = torch.cat((self._unit < widths[self._group], self._unit.new_ones(1, dtype=torch.bool)))
        masked: dict[str, Tensor] = {}
        for name, parameter in self._net.named_parameters():
            tensor: Tensor = parameter
            for axis, positions in self._axes.get(name, ()):
                shape = [1] * tensor.ndim
                shape[axis] = -1
                tensor = tensor * alive[positions].to(tensor.dtype).view(shape)
            for block in self._inside[name]:
                tensor = tensor * there[block].to(tensor.dtype)
            masked[name] = tensor
        masked |= {name: buffer.clone() for name, buffer in self._net.named_buffers()}
        return lambda *inputs: functional_call(self._net, masked, inputs)


def maskable(space: SearchSpace) -> bool:
    """Whether a network with masked channels computes what the narrow one does, at every point of a space."""
    gates = any(d.kind == "gate" for d in space.dimensions)
    return not gates and all(group.maskable for group in space.survey.groups)


def sandwich(
    task: Task,
    space: SearchSpace,
    net: nn.Module,
    recipe: Recipe,
    device: torch.device,
    *,
    quanta: int,
    sampled: int,
    masks: bool | None = None,
) -> Task:
    """The task with the sandwich rule: all of it is as before but the loss, which is that of several slices.

    Args:
        task: What is learnt.
        space: What slices there are.
        net: The network in training, of the dense shape.
        recipe: Decides the precision.
        device: Of the training.
        quanta: Widths of a layer.
        sampled: Random networks per step.
        masks: Whether slices are masked instead of cut out; None: on a CUDA device where that computes the same.
    """
    if masks is None:
        masks = device.type == "cuda" and maskable(space)
    slices = Masks(space, net, device) if masks else Slices(space, net)
    table = torch.as_tensor(quantised(space, quanta), device=device)
    return cast(Task, _Sandwich(task, slices, table, len(space.removable), sampled, recipe, device))


class _Sandwich:
    """Delegates to a task, but for its loss."""

    def __init__(
        self,
        task: Task,
        slices: Slices | Masks,
        table: Tensor,
        blocks: int,
        sampled: int,
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self._task, self._slices, self._table = task, slices, table
        self._blocks, self._sampled = blocks, sampled
        self._recipe, self._device = recipe, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def draws(self) -> Iterator[Draw]:
        """The smallest network, then random ones by torch's random state, which a checkpoint holds."""
        count = len(self._table)
        nobody = torch.zeros(self._blocks, dtype=torch.bool, device=self._device)
        yield self._table[:, 0], nobody
        quanta = self._table.shape[1]
        for _ in range(self._sampled):
            drawn = torch.rand(count + self._blocks, device=self._device)
            places = (drawn[:count] * quanta).long().clamp(max=quanta - 1)
            yield self._table.gather(1, places[:, None])[:, 0], drawn[count:] < 0.5

    def loss(self, net: Network, batch: Any) -> Tensor:
        """The whole network's loss and those of its slices, summed."""
        return self._summed(self._task.loss, net, batch)

    def smoothed_loss(self, net: Network, batch: Any, smoothing: float) -> Tensor:
        """The same with smoothed labels; slices learn from the whole network, not from labels."""
        return self._summed(training_loss(self._task, smoothing), net, batch)

    def _summed(self, loss: Callable[[Network, Any], Tensor], net: Network, batch: Any) -> Tensor:
        heard: list[tuple[tuple[Any, ...], Any]] = []

        def whole(*inputs: Any) -> Any:
            output = net(*inputs)
            heard.append((inputs, tree_map_only(Tensor, Tensor.detach, output)))
            return output

        total = loss(whole, batch)
        for draw in self.draws():
            student = Forward(cast(nn.Module, self._slices.drawn(draw)), self._recipe, self._device)
            if isinstance(self._task, Distillable):
                parts = [
                    self._task.distillation_loss(student(*inputs), output, 1.0) for inputs, output in heard
                ]
                total = total + torch.stack(parts).mean()
            else:
                total = total + loss(student, batch)
        return total


def options_of(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the job of a super-network's training says about it; None of another training."""
    given = spec.get("supernet")
    return None if given is None else {key: given[key] for key in ("quanta", "sampled")}
