"""Figures for people: drawn from checked values, readable in print and without colour. Needs no torch."""

import importlib.util

__all__ = ["can_draw"]


def can_draw() -> bool:
    """Whether matplotlib is installed, which every other module here imports."""
    return importlib.util.find_spec("matplotlib") is not None
