import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.report.budget import budget_figure
from prunas.report.efficiency import efficiency_figure
from prunas.report.evidence import Evidence
from prunas.report.figure import as_svg, save
from prunas.report.learning import Losses, learning_figure
from prunas.report.pareto import pareto_figure
from prunas.report.price import price_figure
from prunas.report.widths import widths_figure
from prunas.statistics.curves import curves
from prunas.statistics.prices import prices
from prunas.statistics.summary import table
from prunas.statistics.widths import width_spread
from prunas.tasks.score import ACCURACY
from tests.report.made_runs import made

SVG = "{http://www.w3.org/2000/svg}"
FIGURES: dict[str, Callable[[Evidence], Figure]] = {
    "pareto": lambda e: pareto_figure(table(e.rows, score=ACCURACY), setting=e.setting, score=ACCURACY),
    "cost": lambda e: price_figure(
        prices(e.rows, e.costs, score=ACCURACY), setting=e.setting, score=ACCURACY
    ),
    "widths": lambda e: widths_figure(e.spreads(), [at.stage for at in e.layers], setting=e.setting),
    "curves": lambda e: learning_figure(e.logs(), setting=e.setting),
}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return made(tmp_path_factory.mktemp("runs"))


def texts(figure: Figure) -> list[str]:
    root = ET.fromstring(as_svg(figure))
    return ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_names_its_proposers_and_its_setting(name: str, evidence: Evidence) -> None:
    shown = texts(FIGURES[name](evidence))
    assert {"slimming", "taper", "uniform", "random"} <= set(shown)
    assert "vgg11-digits on digits, recipe digits (3 epochs)" in " ".join(shown)


@pytest.mark.parametrize("name", FIGURES)
def test_same_bytes_whatever_the_users_settings(name: str, evidence: Evidence, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in save(FIGURES[name](evidence), tmp_path, name)]
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "lines.linewidth": 9}):
        second = [path.read_bytes() for path in save(FIGURES[name](evidence), tmp_path, name)]
    assert first == second
    width, _ = struct.unpack(">II", first[1][16:24])
    assert width == 2100  # two print columns at 300 dots an inch


def test_the_front_carries_its_targets_and_no_other_point_does(evidence: Evidence) -> None:
    # slimming is best at both targets and cheapest, so the two panels label its two points and nothing else.
    shown = texts(FIGURES["pareto"](evidence))
    assert (shown.count("10 %"), shown.count("5 %")) == (2, 2)
    assert {"parameters", "MACs per image"} <= set(shown)


def test_a_free_search_stands_at_zero_and_a_paid_one_at_its_price(evidence: Evidence) -> None:
    figure = FIGURES["cost"](evidence)
    for ax, price in zip(figure.axes, (1, 10**9, 1), strict=True):
        marks = {
            line.get_markerfacecolor(): line.get_xdata()[0]  # type: ignore[index]
            for line in ax.lines
            if line.get_marker() not in ("None", "", None)
        }
        assert marks.pop("#D55E00") == price  # slimming's colour
        assert len(marks) == 3
        assert max(marks.values()) < price / 1.6  # on the strip left of every price
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1G" if price > 1 else "1"]


def test_widths_stand_with_their_spread_and_ratio() -> None:
    asked = Target(metric="params", value=1000, keep=0.1)
    # Shares (1, 0.5) and (0.5, 1) have means 0.75, 0.75; (1, 0.25), (0.5, 0.25) give means 0.75, 0.25.
    spreads = [
        width_spread("slimming", asked, [[16, 4], [8, 4]], (16, 16)),
        width_spread("uniform", asked, [[8, 8]], (16, 16)),
    ]
    figure = widths_figure(spreads, [0, 1], setting="here")
    # Root mean square of sqrt(0.125), 0 is 0.25; the standard deviation of 0.75, 0.25 is 0.5 / sqrt(2).
    assert f"slimming\u00a0{0.25 / (0.5 / 2**0.5):.2f}" in [text.get_text() for text in figure.axes[0].texts]
    drawn = [line.get_ydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "o"]  # type: ignore[union-attr]
    assert drawn == [[75.0, 25.0]]


@pytest.mark.parametrize("narrowest", [12, 1])
def test_widths_above_the_dense_networks_are_within_the_axis(narrowest: int) -> None:
    asked = Target(metric="params", value=1000, keep=1.0)
    spreads = [width_spread("morphnet", asked, [[40, narrowest]], (16, 16))]
    ax = widths_figure(spreads, [0, 1], setting="here").axes[0]
    assert ax.get_ylim()[1] > 250
    assert ax.get_ylabel() == "width (% of the dense network's)"


def test_learning_curves_are_means_as_long_as_the_shortest() -> None:
    asked = Target(metric="params", value=1000, keep=0.1)
    logs = [
        Losses(proposer="slimming", protocol="scratch-e", asked=asked, losses=losses)
        for losses in ((2.0, 1.0, 0.5), (4.0, 2.0), ())
    ]
    figure = learning_figure(logs, setting="here")
    (line,) = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[1, 3.0], [2, 1.5]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pareto_figure([], setting="", score=ACCURACY),
        lambda: price_figure([], setting="", score=ACCURACY),
        lambda: widths_figure([], [], setting=""),
        lambda: learning_figure([], setting=""),
    ],
)
def test_nothing_to_plot_is_said(draw: Callable[[], Figure]) -> None:
    with pytest.raises(InputError, match="nothing to plot"):
        draw()


def test_many_proposers_deep_networks_and_two_protocols_still_draw(tmp_path: Path) -> None:
    names = ("slimming", "tpe", "l1", "guided", "transferred", "uniform", "random", "taper", "plug-in")
    both = [made(tmp_path / how, names, seeds=2, protocol=how) for how in ("scratch-e", "scratch-b")]
    rows = both[0].rows + both[1].rows
    figure = pareto_figure(table(rows, score=ACCURACY), setting="here", score=ACCURACY)
    assert [ax.get_title(loc="left") for ax in figure.axes[::2]] == [
        "scratch-b, narrow networks",
        "scratch-e, narrow networks",
    ]
    assert (
        len(price_figure(prices(rows, both[0].costs, score=ACCURACY), setting="here", score=ACCURACY).axes)
        == 6
    )
    crowded = widths_figure(both[0].spreads(), [at.stage for at in both[0].layers], setting="here")
    save(crowded, tmp_path, "widths")  # a layout that does not fit is a warning
    asked = Target(metric="params", value=1000, keep=0.1)
    deep = width_spread("slimming", asked, [[8] * 100, [7] * 100], [16] * 100)
    assert widths_figure([deep], [i // 33 for i in range(100)], setting="here").get_figwidth() == 7


@pytest.mark.parametrize("accuracy", [0.0, 10.02227171492205, 99.9, 100.0])
def test_one_point_has_an_axis_that_can_be_read(accuracy: float, tmp_path: Path) -> None:
    evidence = made(tmp_path, ("slimming",), keeps=(0.1,), seeds=1, test_score=accuracy)
    figures = [
        efficiency_figure(
            curves(evidence.rows, score=ACCURACY), space="s", data="d", recipe="r", epochs=3, score=ACCURACY
        ),
        FIGURES["pareto"](evidence),
        FIGURES["cost"](evidence),
    ]
    for figure in figures:
        shown = texts(figure)
        ax = figure.axes[0]
        low, high = ax.get_ylim()
        ticks = [tick.get_text() for tick in ax.get_yticklabels()]
        assert low < accuracy < high and high - low >= 1
        assert len(set(ticks)) >= 3  # before: 0.000000000000000 at every tick, and an offset beside the axis
        assert all(low <= float(text) <= high and len(text) <= 5 for text in ticks)
        assert not any("e+" in text or "1e" in text for text in shown)


def test_the_front_draws_flagged_points_hollow_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    evidence = made(tmp_path)
    rows = [
        replace(row, flags=("target_missed",)) if row.proposer == "taper" else row
        for row in evidence.rows
        if row.proposer != "random"
    ]
    rows[0] = replace(rows[0], status="failed")
    lone = [replace(row, proposer="cross", status="failed", kind="design") for row in rows[:2]]
    shown = " ".join(
        texts(pareto_figure(table([*rows, *lone], score=ACCURACY), setting="here", score=ACCURACY))
    )
    assert "White face, flagged: target missed (taper)." in shown
    assert "flagged" in texts(pareto_figure(table(rows, score=ACCURACY), setting="here", score=ACCURACY))
    assert "Left out: 3 runs without a test accuracy, all of 1 point." in shown
    plain = texts(pareto_figure(table(evidence.rows, score=ACCURACY), setting="here", score=ACCURACY))
    assert "flagged" not in plain and "Left out" not in " ".join(plain)


# Retraining budgets


def retrained(root: Path) -> Evidence:
    """Four budgets and three ways; scratch starts 12 points behind fine-tuning and ends 4 ahead."""
    rows = []
    for family, start, slope in (("finetune", 80, 1), ("finetune-rewound", 78, 3), ("scratch-e", 68, 6)):
        for step, epochs in enumerate((5, 10, 20, 40)):
            evidence = made(
                root / f"{family}-{epochs}",
                ("slimming",),
                keeps=(0.1,),
                protocol=f"{family}:{epochs}",
                epochs=epochs,
            )
            rows += [
                replace(
                    row, test_score=start + slope * step + row.search_seed / 2, id=f"{family}{epochs}{row.id}"
                )
                for row in evidence.rows
            ]
    return replace(evidence, record=replace(evidence.record, rows=tuple(rows)), runs={})


def test_the_crossing_is_drawn_and_named(tmp_path: Path) -> None:
    evidence = retrained(tmp_path)
    figure = budget_figure(evidence.budgets(), setting=evidence.setting)
    shown = texts(figure)
    assert {"finetune", "finetune-rewound", "scratch-e", "slimming, 10 %"} <= set(shown)
    assert {"5", "10", "20", "40"} <= set(shown)
    # -12, -7, -2 and 3 points at 5, 10, 20 and 40 epochs: two fifths of the way from 20 to 40.
    assert f"{20 * 2**0.4:.3g}" in shown


def test_nothing_retrained_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no point was retrained for several budgets"):
        budget_figure(made(tmp_path).budgets(), setting="x")
