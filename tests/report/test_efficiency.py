import struct
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pytest

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.report.efficiency import draw_efficiency
from prunas.results.rows import Metric
from prunas.statistics.curves import Curve, Point
from prunas.statistics.summary import summarise
from prunas.tasks.score import ACCURACY

SVG = "{http://www.w3.org/2000/svg}"


def curve(
    proposer: str,
    protocol: str = "scratch-e",
    masked: bool = False,
    metric: Metric = "params",
    n: int = 3,
    hollow: Sequence[int] = (),
    xs: Sequence[float] = (10_000, 100_000, 1_000_000),
) -> Curve:
    kind = "masked" if masked else "narrow"
    points = tuple(
        tuple(
            Point(
                x=x,
                score=80.0 + 5 * stop + seed,
                seed=seed,
                run=f"{proposer}-{protocol}-{kind}-{stop}-{seed}",
                flags=("penalty_not_acted",) if stop == 0 and seed in hollow else (),
            )
            for seed in range(n)
        )
        for stop, x in enumerate(xs)
    )
    return Curve(
        proposer=proposer,
        protocol=protocol,
        masked=masked,
        metric=metric,
        asked=tuple(Target(metric="params", value=round(x)) for x in xs),
        xs=tuple(xs),
        scores=tuple(summarise([point.score for point in stop]) for stop in points),
        points=points,
    )


def draw(folder: Path, *curves: Curve, dense: float | None = None) -> tuple[Path, Path]:
    return draw_efficiency(
        curves,
        folder,
        space="vgg11-digits",
        data="digits",
        recipe="short",
        epochs=30,
        dense=dense,
        score=ACCURACY,
    )


def texts(svg: Path) -> list[str]:
    return ["".join(element.itertext()) for element in ET.parse(svg).iter(f"{SVG}text")]


def runs(element: ET.Element) -> list[ET.Element]:
    """The groups that each draw one training."""
    return [e for e in element.iter(f"{SVG}g") if e.get("id", "").startswith("run-")]


def faces(svg: Path) -> dict[str, str]:
    """The style of the one mark of every training, by run."""
    return {
        run.get("id", ""): mark.get("style", "")
        for run in runs(ET.parse(svg).getroot())
        for mark in run.iter(f"{SVG}use")
    }


def panels(svg: Path) -> list[ET.Element]:
    return [e for e in ET.parse(svg).iter(f"{SVG}g") if e.get("id", "").startswith("axes_")]


def test_every_curve_is_named_and_every_training_drawn(tmp_path: Path) -> None:
    svg, png = draw(tmp_path, curve("slimming"), curve("uniform", n=2), curve("some-plug-in"), dense=97.25)
    assert (svg, png) == (tmp_path / "efficiency.svg", tmp_path / "efficiency.png")
    shown = texts(svg)
    assert {"slimming", "uniform", "some-plug-in"} <= set(shown)
    drawn = [run.get("id") for run in runs(ET.parse(svg).getroot())]
    expected = {
        f"run-{name}-scratch-e-narrow-{stop}-{seed}"
        for name, n in (("slimming", 3), ("uniform", 2), ("some-plug-in", 3))
        for stop in range(3)
        for seed in range(n)
    }
    assert len(drawn) == 24
    assert set(drawn) == expected == set(faces(svg))
    assert "97.2" in " ".join(shown)
    assert {"10k", "100k", "1M"} <= set(shown)


def test_the_png_is_one_print_column_wide_at_300_dpi(tmp_path: Path) -> None:
    _, png = draw(tmp_path, curve("slimming"))
    assert struct.unpack(">I", png.read_bytes()[16:20]) == (1050,)


def test_points_whose_penalty_had_not_acted_are_white(tmp_path: Path) -> None:
    svg, _ = draw(tmp_path, curve("slimming", hollow=(0, 2)), curve("uniform"))
    white = {run for run, style in faces(svg).items() if "fill: #ffffff" in style}
    assert white == {"run-slimming-scratch-e-narrow-0-0", "run-slimming-scratch-e-narrow-0-2"}
    assert "White face" in " ".join(texts(svg))
    plain, _ = draw(tmp_path / "plain", curve("slimming"))
    assert "White face" not in " ".join(texts(plain))


def test_the_same_input_gives_the_same_bytes_whatever_the_users_settings(tmp_path: Path) -> None:
    given = curve("slimming"), curve("uniform")
    first = [path.read_bytes() for path in draw(tmp_path / "a", *given, dense=98.0)]
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.facecolor": "black"}):
        second = [path.read_bytes() for path in draw(tmp_path / "b", *given, dense=98.0)]
        assert mpl.rcParams["font.size"] == 20
    assert first == second
    assert b"<dc:date>" not in first[0]


def test_masked_and_narrow_networks_never_share_a_panel(tmp_path: Path) -> None:
    svg, _ = draw(tmp_path, curve("uniform"), curve("magnitude", masked=True), curve("uniform", masked=True))
    drawn = [{run.get("id", "").split("-")[4] for run in runs(panel)} for panel in panels(svg)]
    assert drawn == [{"narrow"}, {"masked"}]
    assert [len(runs(panel)) for panel in panels(svg)] == [9, 18]
    assert {"scratch-e, narrow networks", "scratch-e, masked networks"} <= set(texts(svg))


def test_each_protocol_has_a_panel(tmp_path: Path) -> None:
    svg, _ = draw(
        tmp_path, *(curve("uniform", protocol) for protocol in ("scratch-e", "scratch-b", "finetune"))
    )
    assert len(panels(svg)) == 3


def test_the_caption_says_what_was_done(tmp_path: Path) -> None:
    svg, _ = draw(tmp_path, curve("slimming", metric="macs", n=5), curve("uniform", metric="macs", n=3))
    shown = " ".join(texts(svg))
    assert "vgg11-digits on digits, recipe short (30 epochs), scratch-e, n = 3 to 5." in shown
    assert "norms, activations and pooling are not counted" in shown
    assert "MACs per image" in shown
    single, _ = draw(tmp_path / "single", curve("slimming", n=1))
    assert "Every mark is a single training." in " ".join(texts(single))


@pytest.mark.parametrize(
    ("xs", "labels"),
    [
        ((12_000, 55_000), {"20k", "30k", "50k"}),
        ((1e4, 1e5), {"10k", "30k", "100k"}),
        ((5e5, 9e8), {"1M", "10M", "100M"}),
        ((2.5e9, 2.5e9), {"2.5G"}),
    ],
)
def test_cost_ticks_are_round_numbers(tmp_path: Path, xs: Sequence[float], labels: set[str]) -> None:
    svg, _ = draw(tmp_path, curve("slimming", xs=xs))
    assert labels <= set(texts(svg))


def test_nothing_to_plot_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to plot"):
        draw(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_different_cost_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metrics"):
        draw(tmp_path, curve("slimming"), curve("uniform", metric="macs"))


def test_the_caption_names_flags_and_what_is_left_out(tmp_path: Path) -> None:
    svg, _ = draw_efficiency(
        [curve("slimming", hollow=(0,)), curve("uniform")],
        tmp_path,
        space="vgg11-digits",
        data="digits",
        recipe="short",
        epochs=30,
        left_out=("finetune:5, finetune:20 (retraining budgets)", "2 runs without a test accuracy"),
        score=ACCURACY,
    )
    shown = " ".join(texts(svg))
    assert "White face, flagged: penalty not acted (slimming)." in shown
    assert "Left out: finetune:5, finetune:20 (retraining budgets); 2 runs without a test accuracy." in shown
    assert "flagged" in texts(svg)
