"""PreCrop: densities from a convex programme, before anything is trained.

Reference:
    Cai et al., Structured Pruning is All You Need for Pruning CNNs at Initialization, 2022,
    https://arxiv.org/abs/2203.02549: what matters of a network that is pruned before training is the density of
    each layer, and the best densities maximise an expectation of the network's score at initialisation, a convex
    programme. No weights, no data, no training.

The expectation, over random weights, of the sum over all paths from input to output of the product of the absolute
weights along them is a product over layers of their densities: a layer that keeps a share p of its weights keeps a
share p of the paths through it. Its logarithm, the sum of log p over all weighted layers, is maximised within the
budget.

Departures:
    - The variables are the widths, not the layers: a layer's density is what is left of its inputs times what is
      left of its outputs, so that layers that share channels agree and the budget holds for the network that is
      built. In logarithms of the shares the objective is linear and the cost a sum of exponentials: a geometric
      programme, as convex as the paper's. Where every layer's density could be chosen alone, both are the
      water-filling p = min(1, level / size).
    - Residual branches count like layers in a row, though a shortcut lets paths by; so do parallel ones.
    - Where a layer reads a concatenation, the logarithm of its input is replaced by the mean of those of its
      parts, weighted by their dense sizes: a lower bound, exact where all parts keep the same share.
    - A gate lets no larger share through than its stream keeps.
    - Biases and norms count in the budget and have no density. Budgets other than MACs are programmes in
      parameters. What the programme finds is fitted to the budget by one number, which rounds it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from prunas import designs
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import TARGET_MISSED
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.pruning.products import products
from prunas.spaces.space import SearchSpace

__all__ = ["PreCrop", "logarithm", "shares", "streams"]

Shares = npt.NDArray[np.float64]


def logarithm(space: SearchSpace) -> Shares:
    """Derivative of the sum of log densities by the logarithm of each dimension's share, shape (dimensions,).

    It is how many sides of weighted layers, inputs and outputs, a dimension has to itself.
    """
    weights = np.zeros(len(space.dimensions))
    rows = products(space, "macs")
    dense = np.append(space.dense_counts, 1.0)
    for reads, writes, depthwise in zip(rows.reads, rows.writes, rows.depthwise, strict=True):
        for side in (writes,) if depthwise else (reads, writes):
            sizes = side * dense
            weights += (sizes / sizes.sum())[:-1]
    return weights


def streams(space: SearchSpace) -> list[tuple[int, int]]:
    """Places of each gate whose input is one group that varies, and of that group, among the dimensions."""
    survey = space.survey
    at = {survey.group_index[d.name]: i for i, d in enumerate(space.dimensions) if d.kind == "group"}
    pairs = []
    for i, d in enumerate(space.dimensions):
        if d.kind == "gate":
            groups = {run.group for run in survey.forms[survey.gate_named[d.name].form]}
            pairs += [(i, at[group]) for group in groups if len(groups) == 1 and group in at]
    return pairs


def shares(space: SearchSpace, target: Target) -> Shares:
    """Shares of the dense counts that maximise the sum of log densities within a budget, shape (dimensions,).

    Args:
        space: The space.
        target: The budget. One that even the least counts exceed is met as nearly as they do.
    """
    metric = "macs" if target.metric == "macs" else "params"
    rows, gains, dense = products(space, metric), logarithm(space), space.dense_counts.astype(float)
    whole = rows.cost(dense)
    fixed = rows.cost(np.zeros_like(dense))
    # Another metric's budget is met by the fit; here its share of the dense network will do.
    budget = whole * target.value / space.measure(space.dense, target.metric)
    budget = max(budget, fixed + 1e-9 * whole)
    if budget >= whole:
        return np.ones_like(dense)
    gains = np.maximum(gains, 1e-6 * gains.max())  # what only norms see has no say and no share to lose
    least = np.log(1 / dense)
    passing = np.zeros((len(pairs := streams(space)), len(dense)))
    for row, (gate, stream) in zip(passing, pairs, strict=True):
        row[gate], row[stream] = -1, 1
    start = np.maximum(np.full_like(dense, 0.5 * np.log(budget / whole)), least)

    def cost(x: Shares) -> float:
        return rows.cost(dense * np.exp(x))

    def slopes(x: Shares) -> Shares:
        by_logarithm: Shares = rows.slopes(dense * np.exp(x)) * dense * np.exp(x)
        return by_logarithm

    solved = minimize(
        lambda x: -gains @ x / len(x),
        start,
        jac=lambda x: -gains / len(x),
        bounds=[(low, 0.0) for low in least],
        constraints=[
            {
                "type": "ineq",
                "fun": lambda x: np.log(budget / cost(x)),
                "jac": lambda x: -slopes(x) / cost(x),
            },
            *([{"type": "ineq", "fun": lambda x: passing @ x, "jac": lambda x: passing}] if pairs else []),
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    best: Shares = np.exp(np.clip(solved.x, least, 0.0))
    return best


class PreCrop:
    """The shape with the most expected paths at each budget."""

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, once.

        Raises:
            InputError: No width varies.
        """
        if trials:
            return []
        space = brief.space
        if not space.dimensions:
            raise InputError(
                f"precrop decides widths, and none vary in space {space.name!r}; sss removes blocks instead"
            )
        proposals = []
        for target in brief.targets:
            arch = designs.fit(space, shares(space, target), target)
            flags = (TARGET_MISSED,) if designs.missed(space, arch, target) else ()
            proposals.append(Proposal(target, arch, flags))
        return proposals
