"""Reconstruction: the Lasso chooses the channels from which the next layer's response can be rebuilt.

Reference:
    He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017,
    https://arxiv.org/abs/1707.06168, section 3; with the penalty found as in the released code.

Over sampled responses of the next layer, minimise |y - X b|^2 + penalty * |b|_1, where column c of X is what
channel c contributes and y = X 1 is the response (equation 1). The penalty is doubled until few enough
coefficients survive, then bisected until their number lies between the width asked for and 1.1 times that; of
those the largest stay. Then all weights of the next layer are solved by least squares for the response of the
dense network, layer after layer on the inputs of the network pruned so far: see `refit`; what
inherits weights starts from these. `Reconstruction` takes the widths as given; `GlobalReconstruction` also
finds them: channels are ordered by the penalty at which they appear on the Lasso's path, and the relative
squared error of the least squares may be at most t, the same t everywhere.

Departures:
    - Channels are chosen in the trained network, so that one training serves all targets and no group's choice
      depends on another's. The paper chooses, too, on the inputs of what is already pruned. It keeps the inputs of
      residual sums whole and samples what a branch reads: gates do that here.
    - `GlobalReconstruction`'s errors are those of one factor per channel: all weights of a layer would fit too
      well the few responses there are.
    - Channels are chosen from 400 responses at as many images, rather than 400 of 5,000 (10 places in each of 500
      images); of a layer with more than 64 outputs, from 64 drawn for each response. Weights are solved from 10
      places in each of the 400 images, and a small ridge holds those that they say nothing about.
    - The Lasso is solved on the Gram matrix (see `responses`), which has the same solution.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, lasso_path

from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.pruning.channels import Choose, Scope, allocated, at_given_widths, highest
from prunas.proposers.pruning.refit import rebuild
from prunas.proposers.pruning.responses import Matrix, Sampling, check, errors, grams, root
from prunas.proposers.registry import check_values

__all__ = ["GlobalReconstruction", "Reconstruction", "appearance", "survivors"]

ENTRIES = 64
PLACES = 10
"""In the map of every layer and each image, that weights are solved from: they are more than choices need."""
SLACK = 1.1
STEPS = 40
"""Penalties tried: the number of survivors may jump past the width, and then too many are cut to it."""
MAX_SWEEPS = 500


def survivors(gram: Matrix, there: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Which channels the Lasso keeps.

    Args:
        gram: Gram matrix of the contributions of all channels.
        there: The channels there are to choose from.
        count: How many.

    Returns:
        `count` positions in `there`, ascending.
    """
    if count == len(there):
        return np.arange(count)
    design, response = _problem(gram, there)
    weak, penalty, strong = 0.0, 1e-3 * _strongest(design, response), np.inf
    lasso = Lasso(fit_intercept=False, precompute=True, warm_start=True, max_iter=MAX_SWEEPS, random_state=0)
    coefficients = enough = np.zeros(len(there))
    for _ in range(STEPS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near the solution is near enough
            coefficients = np.abs(lasso.set_params(alpha=penalty).fit(design, response).coef_)
        alive = np.count_nonzero(coefficients)
        if alive >= count:
            enough = coefficients
            if alive <= SLACK * count:
                break
            weak = penalty
        else:
            strong = penalty
        penalty = 2 * weak if strong == np.inf else (weak + strong) / 2
    return highest(enough if enough.any() else coefficients, count)


def appearance(gram: Matrix) -> npt.NDArray[np.int64]:
    """All channels in the order in which they appear as the Lasso's penalty falls.

    Those that appear together, or never, come by the size of their coefficient at the end of the path.
    """
    design, response = _problem(gram, np.arange(len(gram)))
    penalties = _strongest(design, response) * np.geomspace(1, 1e-4, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, path, _ = lasso_path(
            design, response, alphas=penalties, precompute=True, max_iter=MAX_SWEEPS, random_state=0
        )
    alive = np.abs(path) > 1e-6 * np.abs(path).max()  # of twins, rounding lets the second appear as well
    first = np.where(alive.any(1), alive.argmax(1), len(penalties))
    return np.lexsort((-np.abs(path[:, -1]), first))


def _problem(gram: Matrix, there: npt.NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """The contributions of the channels there are, and the response of all: as few rows as channels."""
    rows = root(gram)
    return np.asfortranarray(rows[:, there]), rows.sum(1)


def _strongest(design: Matrix, response: Matrix) -> float:
    """The smallest penalty that no coefficient survives, in scikit-learn's scale."""
    return max(float(np.abs(design.T @ response).max()) / len(design), np.finfo(float).tiny)


class _Measured:
    """What both scopes share.

    Args:
        responses: Responses sampled of every reading layer, each in another training image.
    """

    name = ""

    def __init__(self, responses: int = 400) -> None:
        check_values(self.name, responses=responses)
        self.responses = responses

    def measure(self, brief: Brief) -> tuple[list[Matrix], str]:
        """Gram matrix of everything that varies, and the run they were measured in."""
        check(brief, self.name)
        trained = brief.trained()
        sampling = Sampling(self.responses, 1, ENTRIES)
        return grams(brief, trained.weights(), sampling, self.name), trained.run

    def refitting(self, brief: Brief, proposals: Sequence[Proposal]) -> list[Proposal]:
        """The proposals, to be inherited with the weights that least squares give."""
        how = rebuild("reconstruction/refitted", self.responses, PLACES, brief.seed)
        return [replace(made, rebuild=how) for made in proposals]


def _by_lasso(measured: Sequence[Matrix]) -> Choose:
    return lambda dimension, there, count: survivors(measured[dimension], there, count)


class Reconstruction(_Measured):
    """Keeps the channels the Lasso chooses, at widths that are given.

    Args:
        responses: Responses sampled of every reading layer, each in another training image.
        preset: A preset of the space whose widths are used; by default they are uniform at each target.
    """

    name = "reconstruction"

    def __init__(self, responses: int = 400, preset: str | None = None) -> None:
        super().__init__(responses)
        check_values(self.name, preset=preset)
        self.preset = preset

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, or the preset, from one dense training, once."""
        if trials:
            return []
        measured, run = self.measure(brief)
        return self.refitting(brief, at_given_widths(brief, self.preset, _by_lasso(measured), run))


class GlobalReconstruction(_Measured):
    """One threshold on the relative error of the next layer decides the widths too.

    Args:
        responses: Responses sampled of every reading layer, each in another training image.
        scope: What is compared, see `prunas.proposers.pruning.channels.comparable`.
    """

    name = "reconstruction-global"

    def __init__(self, responses: int = 400, scope: Scope = "global") -> None:
        super().__init__(responses)
        check_values(self.name, scope=scope)
        self.scope = scope

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once."""
        if trials:
            return []
        measured, run = self.measure(brief)
        scores = [errors(gram, appearance(gram)) for gram in measured]
        proposals = allocated(brief, scores, _by_lasso(measured), run, self.name, self.scope)
        return self.refitting(brief, proposals)
