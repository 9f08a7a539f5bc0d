"""How far a network's probabilities are from a teacher's."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["softened_divergence"]


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Squared temperature times KL(teacher || student) of softened probabilities, a mean over all positions.

    The square keeps the size of gradients about the same at every temperature (Hinton et al. 2015,
    arXiv:1503.02531, section 2).

    Args:
        student: Scores of classes (B, classes, ...), before a softmax.
        teacher: Of the same shape.
        temperature: Above 0.

    Returns:
        A scalar, in nats times the square.
    """
    ours = F.log_softmax(student / temperature, 1)
    theirs = F.log_softmax(teacher / temperature, 1)
    divergence = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)
    return temperature**2 * divergence.mean()
