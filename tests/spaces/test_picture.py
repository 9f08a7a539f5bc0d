"""A point drawn: every width is there, at its size, and a reader is told what it is."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

import prunas
from prunas.architecture import KernelPattern
from prunas.errors import InputError
from prunas.spaces.picture import KEPT, bars_of
from prunas.spaces.space import SearchSpace

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def vgg() -> SearchSpace:
    return prunas.load_space("vgg11-digits")


@pytest.fixture(scope="module")
def residual() -> SearchSpace:
    return prunas.load_space("preresnet20-digits")


def drawn(space: SearchSpace, arch: prunas.Architecture) -> ET.Element:
    return ET.fromstring(str(space.picture(arch)))


def rectangles(group: ET.Element) -> tuple[ET.Element | None, ET.Element]:
    """What is filled of a bar, and its outline."""
    *inside, outline = group.findall(f"{SVG}rect")
    return (inside[0] if inside else None), outline


def test_what_is_filled_of_an_outline_is_the_share_that_is_kept(vgg: SearchSpace) -> None:
    arch = vgg.point({"features.0": 4, "features.4": 24})  # of 16 and of 32
    picture = drawn(vgg, arch)
    titles = {title.text: group for group in picture.iter(f"{SVG}g") for title in group.iter(f"{SVG}title")}
    heights = {}
    for name, share in (("features.0: 4 of 16", 0.25), ("features.4: 24 of 32", 0.75)):
        (group,) = (group for text, group in titles.items() if text and text.startswith(name))
        filled, outline = rectangles(group)
        assert filled is not None
        assert float(filled.attrib["height"]) == pytest.approx(
            share * float(outline.attrib["height"]), abs=0.1
        )
        heights[name] = float(outline.attrib["height"])
        assert filled.attrib["fill"] == KEPT
    first, second = heights.values()
    assert second / first == pytest.approx(2**0.5, rel=0.01)  # 32 against 16, by the square root
    assert len(picture.findall(f"{SVG}g")) == len(vgg.survey.groups)


def test_bars_are_those_of_the_point_in_the_order_of_the_network(residual: SearchSpace) -> None:
    gate = next(d for d in residual.dimensions if d.kind == "gate")
    block = residual.removable[1]
    arch = residual.point(selected={gate.name: [0, gate.dense - 1]}, removed=[block])
    bars = bars_of(residual, arch)
    order = [layer.path for layer in residual.survey.layers]
    places = [order.index(bar.name.partition("#")[0]) for bar in bars]
    assert places == sorted(places)
    (selecting,) = (bar for bar in bars if bar.name == gate.name and bar.kind == "gate")
    assert (selecting.kept, selecting.dense) == (2, gate.dense)
    assert selecting.passing == (0.0, (gate.dense - 1) / gate.dense)
    gone = [bar for bar in bars if bar.removed]
    assert gone
    assert all(bar.kept == 0 and bar.name.startswith(block) for bar in gone)
    dense = bars_of(residual, residual.dense)
    assert all(bar.kept == bar.dense and not bar.removed for bar in dense)


def test_a_removed_block_is_dashed_and_crossed_and_said(residual: SearchSpace) -> None:
    arch = residual.point(removed=[residual.removable[0]])
    picture = drawn(residual, arch)
    titles = [title.text for title in picture.iter(f"{SVG}title")]
    assert titles.count(f"block {residual.removable[0]}: removed") == 1
    assert sum(str(text).endswith(": there") for text in titles) == len(residual.survey.blocks) - 1
    assert "1 of 6 blocks are removed" in picture.attrib["aria-label"]


FREQUENCIES = KernelPattern(frequencies=(("0/3x3", (0.0, 0.5, 1.0) * 3),))
MASKS = KernelPattern(masks=(("features.0", KernelPattern.pack(np.ones((16, 1, 3, 3), bool))),))


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (FREQUENCIES, "kernels 0/3x3: keep frequencies 0.00, 0.50, 1.00"),
        (MASKS, "exact masks of 1 convolution"),
    ],
    ids=["frequencies", "masks"],
)
def test_kernel_patterns_are_drawn_or_counted(vgg: SearchSpace, pattern: KernelPattern, says: str) -> None:
    text = "".join(drawn(vgg, vgg.point(kernels=pattern)).itertext())
    assert says in text


@pytest.mark.parametrize("name", ["densenet40-c10", "resnet56-c10"])
def test_a_network_of_many_layers_stays_small_enough_to_be_embedded(name: str) -> None:
    space = prunas.load_space(name)
    half = space.counted([max(1, d.dense // 2) for d in space.dimensions])
    assert len(str(space.picture(half))) < 100_000
    assert drawn(space, half).attrib["role"] == "img"


def test_a_point_of_another_space_is_refused(vgg: SearchSpace, residual: SearchSpace) -> None:
    with pytest.raises(InputError, match="preresnet20-digits"):
        vgg.picture(residual.dense)


def test_notebooks_show_short_texts_and_pictures(vgg: SearchSpace) -> None:
    arch = vgg.point({"features.0": 4})
    assert repr(arch) == f"<Architecture {arch.digest} of vgg11-digits: 1 width>"
    assert repr(vgg.dense) == f"<Architecture {vgg.dense.digest} of vgg11-digits: dense>"
    assert "features.0" in arch._repr_html_() and "4 wide" in arch._repr_html_()
    assert repr(vgg).startswith("<SearchSpace vgg11-digits: prunas.networks:vgg11, 8 dimensions")
    assert len(repr(vgg)) < 200
    assert vgg._repr_html_().count("<svg") == 1
    assert vgg.picture(arch)._repr_svg_().startswith("<svg")


def test_a_layer_that_is_wider_than_the_dense_one_reaches_beyond_its_outline(vgg: SearchSpace) -> None:
    wide = replace(vgg, ceiling=4.0)
    picture = drawn(wide, wide.point({"features.0": 64}))  # of 16
    (group,) = (
        group
        for group in picture.iter(f"{SVG}g")
        if "".join(group.itertext()).startswith("features.0: 64 of 16 ")
    )
    filled, outline = rectangles(group)
    assert filled is not None
    assert float(filled.attrib["height"]) == pytest.approx(2 * float(outline.attrib["height"]), abs=0.2)
    assert "1 are above" in picture.attrib["aria-label"]
