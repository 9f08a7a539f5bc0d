"""The YOLO-like network of the examples goes through whole, by torch.fx and by torch.export."""

import random
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

from benchmarks.support.oracle import Oracle, batch_of, counted, point, random_kept, random_selection
from examples.yolo_like import REG, STRIDES, YOLOLike, yolo_like
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.surgery.assemble import build
from prunas.survey import FIXED, Survey
from prunas.tracing.survey import survey

SHAPE = (3, 64, 64)


class Asserting(YOLOLike):
    """Asks for a length, so that torch.fx stops and torch.export has to do."""

    def forward(self, x: Tensor) -> list[Tensor]:
        assert len(x.shape) == 4
        return super().forward(x)


FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "torch.fx": partial(yolo_like, classes=3, width=8),
    "torch.export": partial(Asserting, classes=3, width=8),
}


@cache
def surveyed(way: str) -> Survey:
    return survey(FACTORIES[way], SHAPE)


def test_it_answers_with_a_map_a_scale() -> None:
    maps = yolo_like(classes=3, width=8)(torch.rand(2, *SHAPE))
    assert [tuple(m.shape) for m in maps] == [(2, 4 * REG + 3, 64 // s, 64 // s) for s in STRIDES]


@pytest.mark.parametrize("way", FACTORIES)
def test_nearly_all_of_it_can_vary(way: str) -> None:
    made, net = surveyed(way), FACTORIES[way]()
    varying = {site.tensor for site in made.sites if any(run.group != FIXED for run in made.forms[site.form])}
    share = sum(p.numel() for name, p in net.named_parameters() if name in varying)
    assert share > 0.97 * sum(p.numel() for p in net.parameters())
    (outputs,) = (frozen for frozen in made.frozen if frozen.why == "the network's output")
    assert outputs.what.startswith("head.")
    assert len(made.groups) == 51


def test_torch_fx_follows_it_and_finds_the_blocks() -> None:
    assert {block.name for block in surveyed("torch.fx").blocks} == {
        "stem.2.m.0", "p3.1.m.0", "p3.1.m.1", "p4.1.m.0", "p4.1.m.1", "p5.1.m.0",
    }  # fmt: skip
    assert len(surveyed("torch.fx").frozen) == 1


def test_both_ways_see_the_same() -> None:
    one, other = surveyed("torch.fx"), surveyed("torch.export")
    for name in ("groups", "gates", "blocks", "order", "forms", "layers", "sites", "rows", "stages", "input"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("way", FACTORIES)
def test_points_compute_what_the_masked_dense_network_does(way: str) -> None:
    made = surveyed(way)
    oracle = Oracle(FACTORIES[way], made, batch_of([SHAPE], 2))
    for seed in range(2):
        chance = random.Random(seed)
        chosen = point(made, random_kept(made, chance))
        difference = oracle.difference(random_selection(made, chosen, chance) if seed else chosen)
        assert difference.eval <= 1e-9
        assert difference.train <= 1e-9
        assert difference.effect > 1e-3


@pytest.mark.parametrize("way", FACTORIES)
def test_its_cost_is_exact(way: str) -> None:
    made, model = surveyed(way), CostModel(surveyed(way))
    arch = Architecture("test", made.fingerprint)
    for widths in ((), tuple(sorted((g.name, -(-g.units // 3)) for g in made.groups))):
        cost = model.of(arch.replace(widths=widths))
        net = build(FACTORIES[way], made, arch.replace(widths=widths))
        assert (cost.params, cost.macs) == counted(net, [SHAPE])
