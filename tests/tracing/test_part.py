"""A part of a network varies, and the rest is built, counted and fed as it is."""

import random
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from benchmarks.support.oracle import counted, masked, random_kept, random_selection, relative
from benchmarks.support.oracle import point as point_of
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.errors import InputError
from prunas.spaces.space import SearchSpace
from prunas.surgery.assemble import build
from prunas.survey import Survey
from prunas.tracing.survey import survey

Factory = Callable[[], nn.Module]
NO_WEIGHTS: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 5}
SMALL: dict[str, Any] = {**NO_WEIGHTS, "min_size": 64, "max_size": 64}


def frozen_norms() -> nn.Module:
    """Faster R-CNN as it comes with weights: its norms hold buffers, which they reshape."""
    body = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    return detection.FasterRCNN(body, num_classes=5, min_size=64, max_size=64)


DETECTORS: dict[str, tuple[Factory, str, int]] = {
    # factory, part, side of an image
    "faster rcnn": (partial(detection.fasterrcnn_mobilenet_v3_large_320_fpn, **SMALL), "backbone", 64),
    "faster rcnn's body": (
        partial(detection.fasterrcnn_mobilenet_v3_large_320_fpn, **SMALL),
        "backbone.body",
        64,
    ),
    "frozen norms": (frozen_norms, "backbone", 64),
    "retinanet": (partial(detection.retinanet_resnet50_fpn, **SMALL), "backbone", 64),
    "fcos": (partial(detection.fcos_resnet50_fpn, **SMALL), "backbone.body", 64),
    "ssdlite": (partial(detection.ssdlite320_mobilenet_v3_large, **NO_WEIGHTS), "backbone", 320),
}


@cache
def surveyed(name: str) -> Survey:
    factory, part, side = DETECTORS[name]
    return survey(factory, (3, side, side), part=part)


def randomised(net: nn.Module) -> nn.Module:
    """Scales, shifts and statistics are constants at first, which hide errors."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            for tensor, least in ((module.weight, 0.5), (module.running_var, 0.5)):
                tensor.data.uniform_(least, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(0, 0.3)
    return net


def seen(net: nn.Module, part: str, run: Callable[[], Any]) -> tuple[Any, Any]:
    """What a part and its network return."""
    outputs: list[Any] = []
    handle = net.get_submodule(part).register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    try:
        result = run()
    finally:
        handle.remove()
    return outputs[-1], result


@pytest.mark.parametrize("name", DETECTORS)
def test_the_masked_dense_network_says_what_the_smaller_one_computes(name: str) -> None:
    factory, part, side = DETECTORS[name]
    made = surveyed(name)
    torch.manual_seed(0)
    dense = randomised(factory()).double().eval()
    kept = random_kept(made, random.Random(name))
    chosen = random_selection(made, point_of(made, kept), random.Random(name))
    net = build(lambda: factory().double(), made, chosen.arch, weights=dense.state_dict(), kept=kept).eval()
    assert type(net) is type(dense)
    images = torch.rand(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad(), masked(dense, made, chosen) as reference:
        expected = seen(dense, part, lambda: reference(False, [images]))[0]
        actual, detected = seen(net, part, lambda: net(images))
    assert relative(actual, expected) <= 1e-9
    assert len(detected) == 2
    with torch.no_grad():
        assert relative(actual, seen(dense, part, lambda: dense(images))[0]) > 1e-3


@pytest.mark.parametrize("name", DETECTORS)
def test_the_cost_is_the_whole_networks(name: str) -> None:
    factory, part, side = DETECTORS[name]
    made = surveyed(name)
    model = CostModel(made)
    dense = Architecture("test", made.fingerprint)
    half = dense.replace(widths=tuple(sorted((g.name, -(-g.units // 2)) for g in made.groups)))
    assert made.part is not None and made.part.path == part
    for arch in (dense, half):
        net = build(factory, made, arch).eval()
        assert model.of(arch).params == sum(parameter.numel() for parameter in net.parameters())
        with torch.no_grad(), FlopCounterMode(display=False, depth=9) as counter:
            net(torch.rand(1, 3, side, side))
        by_module = {path: sum(counts.values()) // 2 for path, counts in counter.get_flop_counts().items()}
        missing = sum(by_module[f"{type(net).__name__}.{path}"] for path in made.part.uncounted)
        assert model.of(arch).macs == counter.get_total_flops() // 2 - missing
    assert model.of(half).macs < model.of(dense).macs
    boxes = (
        {"roi_heads.box_head.fc6", "roi_heads.box_head.fc7"} if "rcnn" in name or "norms" in name else set()
    )
    assert boxes <= set(made.part.uncounted)
    assert bool(boxes) == bool(made.part.uncounted)


def test_frozen_norms_are_followed() -> None:
    made = surveyed("frozen norms")
    sites = {site.tensor: site.axis for site in made.sites}
    assert sites["backbone.body.layer1.0.bn1.running_var"] == 0
    assert not any("norm" in frozen.why or "fixed size" in frozen.why for frozen in made.frozen)
    assert sum(group.units for group in made.groups) > 2000


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x)).relu()


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, self.out = (
            nn.Conv2d(8, 16, 3),
            nn.Sequential(*map(Residual, (16, 16))),
            nn.Conv2d(16, 6, 1),
        )

    def forward(self, x: Tensor, scale: float, others: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        h = self.blocks(self.stem(x) * scale)
        return {"far": self.out(h), "near": others["near"][0]}


class Whole(nn.Module):
    """Asks its tensors for their values, so that no graph of it can be made."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.body, self.after = nn.Conv2d(3, 8, 1), Body(), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        if float(h.mean()) > 1e9:
            return h
        found = self.body(h, 0.5, others={"near": [h]})
        return self.after(found["far"]).mean((2, 3)) + found["near"].mean()


def test_a_part_is_called_with_anything() -> None:
    made = survey(Whole, (3, 8, 8), part="body")
    assert [group.name for group in made.groups] == ["body.stem"]
    assert {block.name for block in made.blocks} == {"body.blocks.0", "body.blocks.1"}
    assert made.part is not None and made.part.params == 3 * 8 + 8 + 6 * 2 + 2
    assert made.part.macs == 64 * 3 * 8 + 36 * 6 * 2 and not made.part.uncounted


def test_blocks_of_a_part() -> None:
    made = survey(Whole, (3, 8, 8), part="body")
    dense = randomised(Whole()).double().eval()
    arch = Architecture("test", made.fingerprint, removed=("body.blocks.1",))
    net = build(lambda: Whole().double(), made, arch, weights=dense.state_dict()).eval()
    norm = dense.get_submodule("body.blocks.1.norm")
    for tensor in norm.parameters():
        tensor.data.zero_()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    norm.running_mean.zero_()  # type: ignore[operator, union-attr]
    with torch.no_grad():
        assert relative(net(x), dense(x)) <= 1e-12


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)
        )
        self.other = nn.Conv2d(8, 8, 1)
        self.other.weight = self.body[2].weight

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean() + self.other(x.repeat(1, 3, 1, 1)[:, :8]).mean()


class Intruding(Shared):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean() + self.other(self.body[0](x)).mean()


class Twice(Shared):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean() + self.body(x).mean()


def test_what_the_rest_shares_is_held() -> None:
    made = survey(Shared, (3, 8, 8), part="body")
    assert not made.groups
    assert any("other" in frozen.why for frozen in made.frozen)


@pytest.mark.parametrize(
    ("factory", "part", "message"),
    [
        (Whole, "head", r"has no part 'head'; it has before, body, after"),
        (Whole, "body.blocks.1.norm.x", "has no part"),
        (Twice, "body", "calls its part 'body' 2 times"),
        (nn.Sequential, "body", "has no part"),
    ],
)
def test_a_part_that_cannot_vary_is_refused(factory: Factory, part: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        survey(factory, (3, 8, 8), part=part)
    assert "\n" not in str(caught.value)


class Untied(Intruding):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(8, 8, 1)


def test_what_the_rest_calls_is_held_and_its_work_there_is_counted() -> None:
    made = survey(Untied, (3, 8, 8), part="body")
    held = {frozen.what: frozen.why for frozen in made.frozen}
    assert held["body.0"] == "the network calls it outside the part too"
    assert not [group for group in made.groups if group.name == "body.0"]
    cost = CostModel(made).of(Architecture("test", made.fingerprint))
    assert (cost.params, cost.macs) == counted(Untied(), [(3, 8, 8)])


class Reading(Untied):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean() + self.other(F.conv2d(x, self.body[0].weight)).mean()


def test_a_rest_that_reads_what_is_inside_is_refused() -> None:
    with pytest.raises(InputError, match=r"uses what is inside its part 'body'.*name a larger part"):
        survey(Reading, (3, 8, 8), part="body")


def test_a_space_of_a_part() -> None:
    space = SearchSpace.from_model(Whole, (3, 8, 8), name="mine", part="body")
    dense = space.cost(space.dense)
    target = space.target(keep=0.9, metric="macs")
    assert target.value == round(0.9 * dense.macs)  # of the whole network
    assert dense.macs == space.measure(space.dense, "macs") > space.survey.part.macs  # type: ignore[union-attr]
    assert isinstance(space.build(), Whole)
