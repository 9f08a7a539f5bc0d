"""Canvases of scikit-learn's handwritten digits, whose masks and boxes are known: real images without a download.

Every canvas is a grid of cells, each empty or with one digit of a random size at a random place, on noise. A digit
covers no other one. The same seed gives the same canvases.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

CELL = 16
"""Height and width of a cell in pixels before `zoom`; a digit is 8 to 14 pixels high and wide."""

BACKGROUND = 0
ABSENT = -1


@dataclass(frozen=True)
class Canvases:
    """Images and everything that can be learnt of them.

    Attributes:
        images: uint8 (canvases, H, W, channels).
        masks: uint8 (canvases, H, W): 0 is background, 1 + d a pixel of digit d.
        boxes: float32 (canvases, M, 4) as x1 y1 x2 y2 in pixels, around a digit's pixels in the mask; 0 where
            there is none.
        labels: int64 (canvases, M): the digit, -1 where there is none. M is the number of cells.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.float32]:
        """How many digits there are, (canvases, 1)."""
        return (self.labels != ABSENT).sum(1, keepdims=True).astype(np.float32)

    @property
    def present(self) -> NDArray[np.uint8]:
        """Whether each digit is there, 0 or 1, (canvases, 10)."""
        return (self.labels[..., None] == np.arange(10)).any(1).astype(np.uint8)

    @property
    def detector_labels(self) -> NDArray[np.int64]:
        """`labels` as torchvision's detectors count them: from 1, as 0 is background."""
        return np.where(self.labels == ABSENT, ABSENT, self.labels + 1)


def canvases(
    count: int,
    *,
    cells: int = 2,
    channels: int = 1,
    seed: int = 0,
    share: tuple[float, float] = (0.0, 1.0),
    filled: float = 0.75,
    zoom: int = 1,
) -> Canvases:
    """So many canvases.

    Args:
        count: At least 1.
        cells: Along each side; a canvas is `zoom * cells * CELL` pixels high and wide.
        channels: 1, or 3 for digits in colour.
        seed: Of everything that is drawn.
        share: Which of the 1,797 digits are drawn from, for example (0.0, 0.6) to train with and (0.8, 1.0) to
            test with: they are ordered by writer.
        filled: Probability that a cell holds a digit; one does in every canvas.
        zoom: Every pixel becomes a square of so many pixels, high and wide; masks and boxes follow.
    """
    random = np.random.default_rng(seed)
    bunch = load_digits()
    pool = np.arange(*(round(end * len(bunch.target)) for end in share))
    size = cells * CELL
    images = random.integers(0, 64, (count, size, size, channels))
    masks = np.full((count, size, size), BACKGROUND, np.uint8)
    boxes = np.zeros((count, cells**2, 4), np.float32)
    labels = np.full((count, cells**2), ABSENT, np.int64)
    for n in range(count):
        places = np.flatnonzero(random.random(cells**2) < filled)
        for slot, place in enumerate(places if len(places) else [random.integers(cells**2)]):
            digit, side = random.choice(pool), random.integers(8, CELL - 1)
            row, column = CELL * np.array(divmod(place, cells)) + random.integers(0, CELL - side + 1, 2)
            nearest = np.arange(side) * 8 // side
            ink = bunch.images[digit][np.ix_(nearest, nearest)] / 16
            window = np.s_[n, row : row + side, column : column + side]
            colour = random.uniform(0.6, 1.0, channels)
            images[window] = np.maximum(images[window], 255 * ink[..., None] * colour)
            masks[window][ink > 0.25] = 1 + bunch.target[digit]
            rows, columns = np.nonzero(ink > 0.25)
            boxes[n, slot, :2] = column + columns.min(), row + rows.min()
            boxes[n, slot, 2:] = column + columns.max() + 1, row + rows.max() + 1
            labels[n, slot] = bunch.target[digit]
    square = np.ones((1, zoom, zoom), np.uint8)
    enlarged = np.kron(images.astype(np.uint8), square[..., None])
    return Canvases(enlarged, np.kron(masks, square), zoom * boxes, labels)
