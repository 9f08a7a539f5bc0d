import math

import pytest

from prunas.statistics.patterns import pattern_spread, pattern_table
from prunas.statistics.text import as_text
from tests.statistics.result_rows import keeping


def kernel(centre: float, edge: float, corner: float) -> list[float]:
    return [corner, edge, corner, edge, centre, edge, corner, edge, corner]


def test_centre_and_edges_against_corners_with_its_interval() -> None:
    points = [
        {"0/3x3": kernel(1.0, 0.5, 0.4), "1/3x3": kernel(0.5, 0.25, 0.1), "1/1x1": [0.9]},
        {"0/3x3": kernel(0.5, 0.5, 0.4), "1/3x3": kernel(0.25, 0.25, 0.05), "1/1x1": [0.8]},
    ]
    found = pattern_spread("magnitude", keeping(0.3), points)
    assert found is not None
    assert (found.n, found.stages) == (2, (0, 1))
    assert found.mean[0] == pytest.approx(kernel(0.75, 0.5, 0.4))
    assert found.std[1] == pytest.approx(kernel(0.25 / math.sqrt(2), 0, 0.05 / math.sqrt(2)))
    # (1 + 4 * 0.5) / 5 - 0.4 = 0.2 and (0.5 + 4 * 0.25) / 5 - 0.1 = 0.2; then 0.1 and 0.2.
    assert [each.mean for each in found.by_stage] == pytest.approx([0.15, 0.2])
    assert found.contrast.mean == pytest.approx(0.175)
    half = 12.7062 * (0.05 / math.sqrt(2)) / math.sqrt(2)  # t of one degree of freedom
    assert found.contrast.low == pytest.approx(0.175 - half, rel=1e-4)
    assert (found.cross, found.corners) == (
        pytest.approx((0.55 + 0.275) / 2),
        pytest.approx((0.4 + 0.075) / 2),
    )
    assert "+17.50" in as_text(pattern_table([found]))


def test_a_flat_pattern_has_no_contrast_and_other_sizes_no_pattern() -> None:
    flat = pattern_spread("magnitude", keeping(0.3), [{"2/3x3": [0.3] * 9}])
    assert flat is not None
    assert flat.contrast.mean == pytest.approx(0)
    assert (flat.contrast.low, flat.n) == (None, 1)
    assert pattern_spread("magnitude", keeping(0.3), [{"0/1x1": [0.3]}]) is None
