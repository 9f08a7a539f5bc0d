"""A recurrent controller that chooses widths and blocks in a super-network, taught by REINFORCE.

References:
    Pham et al., Efficient Neural Architecture Search via Parameter Sharing, ICML 2018,
    https://arxiv.org/abs/1802.03268.

One LSTM of 64 units decides, in the order of the network, the width of every layer that varies (one of
`quanta` shares of the dense one) and whether each removable block is there; logits are 1.5 tanh(.). In each
of `steps` steps it samples `samples` shapes, each scored on one batch of the validation split, and descends
the mean of -(R - b) log p minus 1e-4 times the entropy; b is a running mean of rewards (0.99), Adam's rate is
1e-3. At the end `finalists` shapes are sampled, brought to the target and scored by the evaluator `supernet`;
the best is the answer.

Departures: the choices are those of a pruning space, not operations. The shared weights are trained first and
whole, by the sandwich rule (`prunas.works.supernet`, the same training that other searches in the space
read), and do not change while the controller learns, so that it cannot lock on what it happened to train
early. The paper adds the entropy of sampled choices to the reward; here it is the entropy of the
distribution, in the loss. Shapes further than 5 % from the target are drawn again, 20 times at most, and then
pay 2 per unit of the relative excess; the paper has no budget. Batch norms use the statistics of the batch
while the controller learns.
"""

from collections.abc import Sequence

from prunas.architecture import Architecture
from prunas.proposers.baselines.controls import flagged
from prunas.proposers.brief import Brief, Pending, Proposal, Trial
from prunas.proposers.evaluators import Evaluator, evaluator
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace

__all__ = ["ENAS"]


class ENAS:
    """Widths and blocks that a controller learns to choose.

    Args:
        steps: Steps of the controller, per target.
        samples: Shapes per step.
        finalists: Shapes that are sampled at the end and scored whole.
        lr: Adam's rate.
        images: Validation images that rewards are measured on, in batches.
        quanta: Widths of a layer; as of the evaluator `supernet`, which reads the same training.
        sampled: Random networks per training step.
        lengths: Epochs of the super-network's training over those of the recipe.
    """

    def __init__(
        self,
        steps: int = 100,
        samples: int = 20,
        finalists: int = 100,
        lr: float = 1e-3,
        images: int = 1024,
        quanta: int = 8,
        sampled: int = 2,
        lengths: float = 1.0,
    ) -> None:
        settings = {"steps": steps, "samples": samples, "finalists": finalists, "lr": lr, "images": images}
        check_values("enas", **settings, quanta=quanta, sampled=sampled, lengths=lengths)
        self.steps, self.samples, self.finalists, self.lr = steps, samples, finalists, lr
        self.images, self.quanta, self.sampled, self.lengths = images, quanta, sampled, lengths

    def scored_by(self, space: SearchSpace, named: Evaluator | None = None) -> Evaluator:
        """What scores single points of the same super-network, whatever the search names."""
        return evaluator("supernet", quanta=self.quanta, sampled=self.sampled, lengths=self.lengths)

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, each from a controller of its own."""
        if trials:
            return []
        how = self.scored_by(brief.space)
        run = brief.super_network(how).run
        results, waits = [], False
        for target in brief.targets:
            options = {
                "run": run,
                "evaluator": how.to_json(),
                "target": target.to_json(),
                "steps": self.steps,
                "samples": self.samples,
                "finalists": self.finalists,
                "lr": self.lr,
                "images": self.images,
            }
            try:
                results.append(brief.run("supernet/controller", options))
            except Pending:
                waits = True
        if waits:
            raise Pending
        points = [Architecture.from_json(result["architecture"]) for result in results]
        return [flagged(brief.space, arch, t) for arch, t in zip(points, brief.targets, strict=True)]
