"""Dense networks in which it is known which channels the next layer hardly hears."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from prunas.proposers.pruning.channels import parts, readers
from prunas.spaces.space import SearchSpace

QUIET = 1e-3


def plant(space: SearchSpace, state: dict[str, Tensor], seed: int = 0) -> tuple[SearchSpace, dict, dict]:
    """Scales the slices that read some channels down; gates that varying streams feed keep all their input.

    Returns:
        The space with the preset `planted`, the units of every group that is heard, and the channels of the dense
        input of every gate.
    """
    survey = space.survey
    generator = np.random.default_rng(seed)
    heard: dict[str, tuple[int, ...]] = {}
    passing: dict[str, tuple[int, ...]] = {}
    for d, layers in zip(space.dimensions, readers(space, "test"), strict=True):
        stay = np.sort(generator.permutation(d.dense)[: max(1, int(generator.uniform(0.3, 0.7) * d.dense))])
        (heard if d.kind == "group" else passing)[d.name] = tuple(stay.tolist())
        for layer in layers:
            weight = state[f"{layer.path}.weight"]
            loud = np.ones(weight.shape[1])
            if d.kind == "gate":
                loud = np.full(d.dense, QUIET)
                loud[stay] = 1
            else:
                for run, part in parts(survey.forms[layer.reads], loud):
                    if run.group == survey.group_index[d.name]:
                        part[:] = QUIET
                        part[np.isin(np.arange(run.start, run.start + run.length), stay)] = 1
            weight *= torch.as_tensor(loud, dtype=weight.dtype).reshape(1, -1, *[1] * (weight.ndim - 2))
    settle(space, state)
    widths = {name: len(stay) for name, stay in heard.items()}
    selected = {name: len(stay) for name, stay in passing.items()}
    presets = {"planted": {"widths": widths, "selected": selected}}
    return dataclasses.replace(space, raw_presets=presets), heard, passing


def settle(space: SearchSpace, state: dict[str, Tensor]) -> None:
    """Gives norms sizeable scales and real statistics: no channel that is heard may be silent by chance."""
    norms = [name.removesuffix(".running_mean") for name in state if name.endswith("running_mean")]
    for norm in norms:
        scale = state[f"{norm}.weight"]
        scale.copy_(torch.where(scale < 0, -0.5, 0.5) * (1 + scale.abs()))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        net = space.build(weights=state).train()
        for module in net.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
        net(torch.randn(64, *space.survey.input, generator=torch.Generator().manual_seed(5)))
    for name, tensor in net.state_dict().items():
        state[name].copy_(tensor)


def twinned(space: SearchSpace, state: dict[str, Tensor], loud: float = 0.5) -> None:
    """Every second channel of the first three groups says what the one before it says, less loud."""
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    for d in space.dimensions[:3]:
        at = names.index(d.name)
        for tensor, t in state.items():
            path = tensor.rpartition(".")[0]
            if path in (d.name, names[at + 1]) and t.ndim:
                t[1::2] = t[::2]
        reading = state[f"{names[at + 2]}.weight"]
        reading[:, 1::2] = loud * reading[:, ::2]


def change(space: SearchSpace, state: dict[str, Tensor], proposal, inherited=None) -> float:
    """Relative squared change of the output on held-out images when the proposal's slices are inherited.

    Args:
        inherited: What they are slices of, if not of the dense network's weights.
    """
    images = torch.randn(16, *space.survey.input, generator=torch.Generator().manual_seed(99))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        dense = space.build(weights=state).eval()(images)
        narrow = space.build(proposal.architecture, weights=inherited or state, kept=proposal.kept).eval()(
            images
        )
    return float(((narrow - dense) ** 2).sum() / ((dense - dense.mean(0)) ** 2).sum())
