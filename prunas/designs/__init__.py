"""Designs: pure functions from a space, and perhaps found shapes, to a shape. No torch, no training.

They all speak of one number per dimension of a space, its *ratio*: the share of the dense units (or passing
channels) that is kept. `fit` brings a vector of ratios to a budget; the other files say where ratios come from.
"""

from prunas.designs.align import Rounding, align
from prunas.designs.depth import equal_depth, transferred_depth
from prunas.designs.fit import TOLERANCE, fit, missed, ratios, scaled
from prunas.designs.widths import Taper, guided, shuffled, stage_means, taper, transferred, uniform

__all__ = [
    "TOLERANCE",
    "Rounding",
    "Taper",
    "align",
    "equal_depth",
    "fit",
    "guided",
    "missed",
    "ratios",
    "scaled",
    "shuffled",
    "stage_means",
    "taper",
    "transferred",
    "transferred_depth",
    "uniform",
]
