"""ThiNet: channels go that the next layer does not miss.

Reference:
    Luo et al., ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression, ICCV 2017,
    https://arxiv.org/abs/1707.06342, section 3.2.

Every output entry of a layer is a sum of contributions of its input channels. Over sampled entries, the channel
goes whose contribution, added to those that have gone, keeps their sum smallest; then the next (equation 6,
algorithm 1). `ThiNet` takes the widths as given, as the paper does; `GlobalThiNet` also finds them: the relative
squared error of the next layer's response, its kept channels scaled by least squares (equation 7), may be at most
t, the same t everywhere.

Departures:
    - All layers are measured in the trained network, so that one training serves all targets and no group's choice
      depends on another's. The paper goes from layer to layer with an epoch or two of fine-tuning after each.
    - The least-squares factors come after all choices, layer after layer on the inputs of the network pruned so
      far, from up to 64 outputs at each place, with a small ridge; see `refit`. Each reader
      has its own, and `finetune` starts from weights they are multiplied into.
    - 256 images for all classes together instead of ten per class, and ten entries of each, at random places.
    - Where several layers read the same channels (a residual stream, a concatenation), they count alike, each
      with the energy of its response as unit. A gate is measured by its one reader. Fully connected readers are
      measured as convolutions are; the paper stops in front of them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.pruning.channels import Scope, allocated, at_given_widths, in_order_of
from prunas.proposers.pruning.refit import rebuild
from prunas.proposers.pruning.responses import Matrix, Sampling, check, errors, grams
from prunas.proposers.registry import check_values

__all__ = ["GlobalThiNet", "ThiNet", "greedy"]


def greedy(gram: Matrix) -> npt.NDArray[np.int64]:
    """The order in which channels go.

    Args:
        gram: Gram matrix of their contributions.

    Returns:
        Positions, the first to go first.
    """
    order = np.empty(len(gram), np.int64)
    added = np.diagonal(gram).copy()  # to the squared sum of those that have gone, if this channel goes too
    for i in range(len(order)):
        order[i] = int(added.argmin())
        added += 2 * gram[order[i]]
        added[order[i]] = np.inf
    return order


class _Measured:
    """What both scopes share.

    Args:
        images: Images of the training split that are looked at.
        places: Entries sampled of each, per reading layer.
    """

    name = ""

    def __init__(self, images: int = 256, places: int = 10) -> None:
        check_values(self.name, images=images, places=places)
        self.images = images
        self.places = places

    def measure(self, brief: Brief) -> tuple[list[Matrix], str]:
        """Scores of everything that varies, see `errors`, and the run they were measured in."""
        check(brief, self.name)
        trained = brief.trained()
        sampling = Sampling(self.images, self.places, 1)
        measured = grams(brief, trained.weights(), sampling, self.name)
        return [errors(gram, greedy(gram)[::-1]) for gram in measured], trained.run

    def rescaling(self, brief: Brief, proposals: Sequence[Proposal]) -> list[Proposal]:
        """The proposals, to be inherited with factors."""
        how = rebuild("thinet/rescaled", self.images, self.places, brief.seed)
        return [replace(made, rebuild=how) for made in proposals]


class ThiNet(_Measured):
    """Keeps the channels the next layer would miss, at widths that are given.

    Args:
        images: Images of the training split that are looked at.
        places: Entries sampled of each, per reading layer.
        preset: A preset of the space whose widths are used; by default they are uniform at each target.
    """

    name = "thinet"

    def __init__(self, images: int = 256, places: int = 10, preset: str | None = None) -> None:
        super().__init__(images, places)
        check_values(self.name, preset=preset)
        self.preset = preset

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, or the preset, from one dense training, once."""
        if trials:
            return []
        scores, run = self.measure(brief)
        return self.rescaling(brief, at_given_widths(brief, self.preset, in_order_of(scores), run))


class GlobalThiNet(_Measured):
    """One threshold on the relative error of the next layer decides the widths too.

    Args:
        images: Images of the training split that are looked at.
        places: Entries sampled of each, per reading layer.
        scope: What is compared, see `prunas.proposers.pruning.channels.comparable`.
    """

    name = "thinet-global"

    def __init__(self, images: int = 256, places: int = 10, scope: Scope = "global") -> None:
        super().__init__(images, places)
        check_values(self.name, scope=scope)
        self.scope = scope

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once."""
        if trials:
            return []
        scores, run = self.measure(brief)
        proposals = allocated(brief, scores, in_order_of(scores), run, self.name, self.scope)
        return self.rescaling(brief, proposals)
