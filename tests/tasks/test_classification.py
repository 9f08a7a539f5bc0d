"""The bundled task."""

import math
from fractions import Fraction

import pytest

from prunas.tasks.classification import chance_ceiling


@pytest.mark.parametrize(
    ("share", "images", "hits"),
    [
        # Smallest k with P(X <= k) >= 0.95, summed in exact fractions.
        *((share, images, None) for share in (0.1, 0.01, 0.5) for images in (1, 20, 450)),
        (0.1, 20, 4),  # any table of the binomial distribution: P(X <= 3) = 0.867, P(X <= 4) = 0.957
        (0.1, 10_000, 1050),  # 1000 + 1.645 * 30 = 1049.3 and a half for continuity
    ],
)
def test_guessing_reaches_its_quantile(share: float, images: int, hits: int | None) -> None:
    if hits is None:
        p, total, hits = Fraction(share), Fraction(0), -1
        while total < Fraction(95, 100):
            hits += 1
            total += math.comb(images, hits) * p**hits * (1 - p) ** (images - hits)
    assert chance_ceiling(share, images) == pytest.approx(100 * hits / images)
