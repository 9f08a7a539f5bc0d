"""The bundled networks, their surveys, and random points of them."""

import random
from functools import cache, partial

from prunas import networks
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.survey import Survey
from prunas.tracing.survey import survey

CIFAR = (3, 32, 32)
FACTORIES = {
    "vgg11": networks.vgg11,
    "vgg11-digits": partial(networks.vgg11, channels=1, base=16, pools=2),
    "vgg16": networks.vgg16,
    "vgg16-l1": partial(networks.vgg16, head="hidden"),
    "vgg16-l1-bias": partial(networks.vgg16, head="hidden", conv_bias=True),
    "vgg19": networks.vgg19,
    "vgg19-bias": partial(networks.vgg19, classes=100, conv_bias=True, gamma=1.0, fan="in"),
    "resnet20": networks.resnet20,
    "resnet56": networks.resnet56,
    "resnet110": networks.resnet110,
    "preresnet20": networks.preresnet20,
    "preresnet110": partial(networks.preresnet110, gamma=1.0),
    "preresnet164": networks.preresnet164,
    "densenet40": networks.densenet40,
    "densenetbc100": networks.densenetbc100,
}
SHAPES = {name: (1, 8, 8) if name == "vgg11-digits" else CIFAR for name in FACTORIES}
SMALL = {name: (3, 16, 16) if name.startswith("vgg") else (3, 8, 8) for name in FACTORIES} | {
    "vgg11-digits": (1, 8, 8)
}
"""Inputs on which the deepest networks are quick, yet no map is empty."""


@cache
def surveyed(name: str) -> Survey:
    return survey(FACTORIES[name], SHAPES[name])


Kept = dict[str, tuple[int, ...]]


def random_kept(survey: Survey, chance: random.Random) -> Kept:
    """Some units of every group, anywhere among them, between a third and all but one."""
    return {
        group.name: tuple(
            sorted(chance.sample(range(group.units), chance.randint(-(-group.units // 3), group.units - 1)))
        )
        for group in survey.groups
    }


def point(
    survey: Survey, kept: Kept, removed: tuple[str, ...] = (), gates: random.Random | None = None
) -> Architecture:
    """The point that keeps `kept`; `gates` makes every gate that is left select something."""
    gone = {survey.block_index[name] for name in removed}
    widths = {
        name: len(units)
        for name, units in kept.items()
        if not survey.group_blocks[survey.group_index[name]] & gone
    }
    arch = Architecture(
        "test", survey.fingerprint, tuple(sorted(widths.items())), removed=tuple(sorted(removed))
    )
    if gates is None:
        return arch
    model = CostModel(survey)
    selected = {}
    for gate, count in zip(survey.gates, model.gate_inputs(model.widths(arch)[None])[0], strict=True):
        if not survey.blocks_of.get(gate.name, frozenset()) & gone:
            chosen = gates.sample(range(count), gates.randint(-(-int(count) // 3), int(count)))
            selected[gate.name] = tuple(sorted(chosen))
    return arch.replace(selected=tuple(sorted(selected.items())))
