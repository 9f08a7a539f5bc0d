"""The study reproduced: a grid of cells as data, a runner that continues, claims fixed before any run."""
