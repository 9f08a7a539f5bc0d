"""A point as a picture: every width inside the outline of the dense network, as SVG. Torch-free.

One bar for each group and each gate, in the order of the network. Its outline is the dense width, with the height
going by the square root so that 16 channels are seen beside 512; what is filled of it is the share that is kept. A
gate shows which of its inputs pass. What lies in a removed branch is dashed and empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from prunas.architecture import Architecture
from prunas.spaces.points import inside_removed

if TYPE_CHECKING:
    from prunas.spaces.space import SearchSpace

__all__ = ["LEGEND", "Bar", "Picture", "bars_of", "picture"]

LEGEND = (
    "Outlines are the dense network's widths, their height by the square root; filled is the share that is kept, "
    "beyond the outline where a layer is wider, grey where the space holds it. Stripes: the inputs that a gate "
    "passes. Dashed: in a removed block."
)
"""What a reader of a picture must know."""

KEPT, HELD = "#0072b2", "#8c8c8c"
"""Fill of what is kept where it may vary, and where the space holds it."""

_TALL = 120.0  # height of the widest bar
_LABELLED = 28  # bars up to which each carries its name and its number
_FULL, _THIN, _GATE = 22.0, 8.0, 0.55  # width of a bar with and without a label, and of a gate's in these
_GAP, _STAGE = 0.35, 1.2  # space behind a bar and before a new stage, in widths of a bar
_STRIPES, _LEVELS = 30, 4  # stripes of a gate at most, and how strong they can be


@dataclass(frozen=True, slots=True)
class Bar:
    """One width of a point.

    Attributes:
        name: Of the group or the gate.
        kind: Which of the two.
        stage: Ordinal of its feature-map size.
        dense: Its number in the dense network.
        kept: Its number here, above `dense` where the space lets widths grow; 0 inside a removed branch.
        varies: Whether the space lets it vary.
        removed: Whether it lies in a removed branch.
        passing: Of a gate that selects, the shares of its height at which inputs pass, in [0, 1); else empty.
    """

    name: str
    kind: Literal["group", "gate"]
    stage: int
    dense: int
    kept: int
    varies: bool
    removed: bool
    passing: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """What it is, in words."""
        if self.removed:
            return f"{self.name}: in a removed branch, {self.dense} in the dense network"
        held = "" if self.varies else ", does not vary"
        what = "inputs pass" if self.kind == "gate" else "channels"
        return f"{self.name}: {self.kept} of {self.dense} {what}, stage {self.stage}{held}"


def bars_of(space: "SearchSpace", arch: Architecture) -> list[Bar]:
    """Every group of a point, and every gate that varies or selects, in the order of the network."""
    survey = space.survey
    widths, selected = dict(arch.widths), dict(arch.selected)
    groups, layers = inside_removed(survey, arch)
    built, dense = space.gate_inputs(arch), space.gate_inputs(space.dense)
    bars = [
        Bar(
            group.name,
            "group",
            group.stage,
            group.units,
            0 if group.name in groups else widths.get(group.name, group.units),
            group.name in space.varying["group"],
            group.name in groups,
        )
        for group in survey.groups
    ]
    for gate in survey.gates:
        gone, positions = gate.name in layers, selected.get(gate.name, ())
        if gate.name not in space.varying["gate"] and not positions:
            continue  # it passes all of its input, whatever the point
        inputs = built[gate.name]
        passing = len(positions) or inputs
        shares = tuple(position / inputs for position in positions)
        varies = gate.name in space.varying["gate"]
        count = 0 if gone else passing
        bars.append(Bar(gate.name, "gate", gate.stage, dense[gate.name], count, varies, gone, shares))
    order = {layer.path: index for index, layer in enumerate(survey.layers)}
    return sorted(
        bars, key=lambda bar: (order.get(bar.name.partition("#")[0], len(order)), bar.kind == "group")
    )


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing that notebooks show; `str` of it is the SVG document."""

    svg: str

    def __str__(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg


def picture(space: "SearchSpace", arch: Architecture) -> Picture:
    """The picture of a point.

    Args:
        space: The point lies in it.
        arch: The point.
    """
    bars = bars_of(space, arch)
    widest = max((max(bar.dense, bar.kept) for bar in bars), default=1)
    labelled = len(bars) <= _LABELLED
    unit = _FULL if labelled else _THIN
    below = _names_height(bars) if labelled else 18.0
    middle = 26 + _TALL / 2 + (12 if labelled else 0)
    left = 4 + (2.2 * len(bars[0].name) if labelled and bars else 0)  # the first name leans out to the left
    parts, spans, x, stage = [], dict[str, tuple[float, float]](), left, -1
    for bar in bars:
        if bar.stage != stage:
            x += unit * _STAGE if stage >= 0 else 0.0
            parts.append(_stage_label(space, bar.stage, x, middle))
            stage = bar.stage
        width = unit * (_GATE if bar.kind == "gate" else 1)
        height = _TALL * (bar.dense / widest) ** 0.5
        parts.append(_bar(bar, x, middle, width, height))
        if labelled:
            parts.append(_label(bar, x + width / 2, middle, height))
        spans[bar.name] = (x, x + width)
        x += width + unit * _GAP
    bottom = middle + _TALL / 2 + 6
    parts += _blocks(space, arch, spans, bottom)
    tall = bottom + (14 if space.survey.blocks else 0) + below
    parts += _patterns(arch, tall)
    tall += 70 if arch.kernels is not None else 0
    wide = max(x + 28, 220.0)  # the last size is wider than a thin bar
    label = escape(_summary(space, arch, bars), quote=True)
    return Picture(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 0 {wide:.0f} {tall:.0f}" width="{wide:.0f}" height="{tall:.0f}" '
        f'font-family="sans-serif" font-size="9" fill="currentColor" '
        f'style="max-width:100%;height:auto">{"".join(parts)}</svg>'
    )


def _summary(space: "SearchSpace", arch: Architecture, bars: Sequence[Bar]) -> str:
    """The picture in words, for who cannot see it."""
    narrowed = sum(bar.kept < bar.dense and not bar.removed for bar in bars)
    wider = sum(bar.kept > bar.dense for bar in bars)
    parts = [f"{narrowed} of {len(bars)} widths and gates are below the dense network's"]
    if wider:
        parts.append(f"{wider} are above")
    if arch.removed:
        parts.append(f"{len(arch.removed)} of {len(space.survey.blocks)} blocks are removed")
    if arch.kernels is not None:
        parts.append("some weights of kernels do not exist")
    return f"{space.name}, point {arch.digest}: {', '.join(parts)}"


def _bar(bar: Bar, x: float, middle: float, width: float, height: float) -> str:
    """Outline and filled share of a bar around the middle line."""
    dash = ' stroke-dasharray="2 2"' if bar.removed else ""
    inside = ""
    if not bar.removed:
        color = KEPT if bar.varies else HELD
        if bar.passing:
            inside = _stripes(bar.passing, x, middle - height / 2, width, height, color)
        else:
            share = bar.kept / bar.dense
            filled = height * (share if share <= 1 else share**0.5)  # beyond the outline, as outlines grow
            inside = _rect(x, middle - filled / 2, width, filled, f'fill="{color}"')
    outline = _rect(
        x, middle - height / 2, width, height, f'fill="none" stroke="currentColor" stroke-width="0.8"{dash}'
    )
    return f"<g><title>{escape(bar.title)}</title>{inside}{outline}</g>"


def _stripes(passing: Sequence[float], x: float, top: float, width: float, height: float, color: str) -> str:
    """Where the inputs of a gate pass, in steps of its height: a stripe is as strong as many pass there."""
    steps = min(_STRIPES, max(1, int(height)))
    here = [0] * steps
    for share in passing:
        here[int(share * steps)] += 1
    most, tall = max(here), height / steps
    drawn = []
    for level in range(1, _LEVELS + 1):
        at = [step for step, number in enumerate(here) if number and round(_LEVELS * number / most) == level]
        if at:
            path = "".join(
                f"M{x:.1f} {top + step * tall:.1f}h{width:.1f}v{tall:.1f}h-{width:.1f}z" for step in at
            )
            drawn.append(f'<path d="{path}" fill="{color}" fill-opacity="{level / _LEVELS:.2f}"/>')
    return "".join(drawn)


def _rect(x: float, y: float, width: float, height: float, look: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {look}/>'


def _label(bar: Bar, x: float, middle: float, height: float) -> str:
    """The number above a bar, and its name below all bars."""
    number = "" if bar.removed else f"{bar.kept:,}"
    above = f'<text x="{x:.1f}" y="{middle - height / 2 - 4:.1f}" text-anchor="middle">{number}</text>'
    y = middle + _TALL / 2 + 26
    turned = f'transform="rotate(-60 {x:.1f} {y:.1f})"'
    return above + f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="end" {turned}>{escape(bar.name)}</text>'


def _names_height(bars: Sequence[Bar]) -> float:
    """Room for the longest turned name."""
    return 24 + 4.4 * max((len(bar.name) for bar in bars), default=0)


def _stage_label(space: "SearchSpace", stage: int, x: float, middle: float) -> str:
    sizes = space.survey.stages
    size = "×".join(map(str, sizes[stage])) if stage < len(sizes) else ""
    y = middle - _TALL / 2 - 18
    return f'<text x="{x:.1f}" y="{y:.1f}" font-weight="600">{escape(size or "head")}</text>'


def _blocks(
    space: "SearchSpace", arch: Architecture, spans: dict[str, tuple[float, float]], y: float
) -> list[str]:
    """A bracket below the widths inside each block's branch; of a removed one dashed, with a cross."""
    drawn = []
    for block in space.survey.blocks:
        inside = [span for name, span in spans.items() if name.partition("#")[0] in block.branch]
        if not inside:
            continue
        left, right = min(span[0] for span in inside), max(span[1] for span in inside)
        gone = block.name in arch.removed
        path = f'<path d="M{left:.1f} {y:.1f}v5h{right - left:.1f}v-5" fill="none" stroke="currentColor"'
        dash = ' stroke-dasharray="2 2"' if gone else ""
        at = (left + right) / 2
        cross = f'<path d="M{at - 3:.1f} {y + 2:.1f}l6 6m0 -6l-6 6" stroke="#a33f00" stroke-width="1.4"/>'
        title = escape(f"block {block.name}: {'removed' if gone else 'there'}")
        drawn.append(f"<g><title>{title}</title>{path}{dash}/>{cross if gone else ''}</g>")
    return drawn


def _patterns(arch: Architecture, y: float) -> list[str]:
    """Keep frequencies of kernel positions, a grid for each key; of exact masks, how many there are."""
    if arch.kernels is None:
        return []
    if arch.kernels.masks:
        return [
            f'<text x="6" y="{y + 14:.1f}">kernels: exact masks of {len(arch.kernels.masks)} convolutions</text>'
        ]
    drawn, x = [], 6.0
    for key, values in arch.kernels.frequencies:
        size = key.rpartition("/")[2].partition("x")[2]
        across = int(size) if size.isdecimal() else max(1, round(len(values) ** 0.5))
        cells = [
            _rect(
                x + 10 * (i % across),
                y + 18 + 10 * (i // across),
                10,
                10,
                f'fill="{KEPT}" fill-opacity="{value:.2f}" stroke="currentColor" stroke-width="0.4"',
            )
            for i, value in enumerate(values)
        ]
        title = escape(f"kernels {key}: keep frequencies {', '.join(f'{value:.2f}' for value in values)}")
        drawn.append(
            f'<g><title>{title}</title><text x="{x:.1f}" y="{y + 12:.1f}">{escape(key)}</text>{"".join(cells)}</g>'
        )
        x += max(10.0 * across, 5.0 * len(key)) + 10
    return drawn
