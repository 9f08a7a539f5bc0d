"""Who proposes architectures: the table. A method is one file and one line here."""

import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from prunas.errors import unknown
from prunas.proposers.brief import Proposer

__all__ = ["PROPOSERS", "Entry", "entry"]

Kind = Literal["predefined", "automatic", "sampler", "design", "control"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        path: Import path of the class.
        kind: `predefined`: the user gives the widths; `automatic`: the method finds them; `sampler`: it is asked
            again after every result; `design`: made of found points; `control`: what the others are compared with.
        description: For listings.
        reference: Where the method comes from.
        dimensions: What it can decide: `width`, `depth`, `kernel`.
        needs: What it asks of its brief: `dense` training, `found` points of others with the same seed, or
            `found-by-all` seeds, a `source` in another space, `trials`.
        trainings_per_target: Trainings of its own that one more target costs; those that serve all targets
            alike do not count.
    """

    path: str
    kind: Kind
    description: str
    reference: str
    dimensions: tuple[str, ...] = ("width",)
    needs: tuple[str, ...] = ()
    trainings_per_target: int = 0

    def build(self, **options: Any) -> Proposer:
        """The proposer with its options.

        Raises:
            InputError: It does not take one of them, or not that value.
        """
        make = pkgutil.resolve_name(self.path)
        known = inspect.signature(make).parameters
        for option in options:
            if option not in known:
                raise unknown(f"option of proposer {make.__name__}:", option, known)
        made: Proposer = make(**options)
        return made


STUDY = "Liu et al., Rethinking the Value of Network Pruning, ICLR 2019, arXiv:1810.05270"

LI = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710"
LUO = (
    "Luo et al., ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression, ICCV 2017, "
    "arXiv:1707.06342"
)
HE = "He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, arXiv:1707.06168"

PROPOSERS: Mapping[str, Entry] = MappingProxyType(
    {
        "slimming": Entry(
            "prunas.proposers.slimming:Slimming",
            "automatic",
            "L1 penalty on batch-norm scales, one threshold for all layers",
            "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, "
            "arXiv:1708.06519",
            needs=("dense",),
        ),
        "l1": Entry(
            "prunas.proposers.l1:L1",
            "predefined",
            "filters with the largest absolute weights, at widths that are given",
            LI,
            needs=("dense",),
        ),
        "l1-global": Entry(
            "prunas.proposers.l1:GlobalL1",
            "automatic",
            "one threshold on the mean absolute weight of filters",
            LI,
            needs=("dense",),
        ),
        "thinet": Entry(
            "prunas.proposers.thinet:ThiNet",
            "predefined",
            "channels the next layer would miss, at widths that are given",
            LUO,
            needs=("dense",),
        ),
        "thinet-global": Entry(
            "prunas.proposers.thinet:GlobalThiNet",
            "automatic",
            "one threshold on the next layer's relative error, channels in ThiNet's order",
            LUO,
            needs=("dense",),
        ),
        "reconstruction": Entry(
            "prunas.proposers.reconstruction:Reconstruction",
            "predefined",
            "channels from which the Lasso rebuilds the next layer's response, at widths that are given",
            HE,
            needs=("dense",),
        ),
        "reconstruction-global": Entry(
            "prunas.proposers.reconstruction:GlobalReconstruction",
            "automatic",
            "one threshold on the next layer's relative error, channels in the order of the Lasso's path",
            HE,
            needs=("dense",),
        ),
        "sss": Entry(
            "prunas.proposers.sss:SparseStructureSelection",
            "automatic",
            "scales on residual branches, driven to zero by accelerated proximal gradient",
            "Huang & Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018, "
            "arXiv:1707.01213",
            dimensions=("depth",),
            needs=("dense",),
        ),
        "magnitude": Entry(
            "prunas.proposers.magnitude:Magnitude",
            "automatic",
            "one global threshold over the weights of all convolutions",
            "Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015, "
            "arXiv:1506.02626",
            dimensions=("kernel",),
            needs=("dense",),
        ),
        "tpe": Entry(
            "prunas.proposers.tpe:TPE",
            "sampler",
            "tree-structured Parzen estimator over stage profiles (Optuna)",
            "Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011",
            needs=("trials",),
            trainings_per_target=16,
        ),
        "guided": Entry(
            "prunas.proposers.carried:Guided",
            "design",
            "mean stage ratios of what was found here",
            STUDY,
            needs=("found-by-all",),
        ),
        "transferred": Entry(
            "prunas.proposers.carried:Transferred",
            "design",
            "mean stage ratios of what was found on another network or data set",
            STUDY,
            needs=("source",),
        ),
        "guided-kernel": Entry(
            "prunas.proposers.carried:GuidedKernels",
            "design",
            "mean kernel patterns of what was found here",
            STUDY,
            dimensions=("kernel",),
            needs=("found-by-all",),
        ),
        "transferred-kernel": Entry(
            "prunas.proposers.carried:TransferredKernels",
            "design",
            "mean kernel patterns of what was found on another network or data set",
            STUDY,
            dimensions=("kernel",),
            needs=("source",),
        ),
        "uniform": Entry(
            "prunas.proposers.controls:Uniform",
            "control",
            "one ratio for all layers",
            STUDY,
        ),
        "random": Entry(
            "prunas.proposers.controls:Random",
            "control",
            "a log-uniform profile over stages; with --trials, the best of so many",
            "Li & Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, "
            "arXiv:1902.07638",
            needs=("trials",),
        ),
        "taper": Entry(
            "prunas.proposers.controls:Taper",
            "control",
            "widths min(W, a * b^stage) with the params and MACs of a found point",
            "prunas",
            needs=("found",),
        ),
        "uniform-depth": Entry(
            "prunas.proposers.controls:UniformDepth",
            "control",
            "equally many blocks per stage, at the cost that was reached",
            STUDY,
            dimensions=("depth",),
            needs=("found",),
        ),
        "uniform-kernel": Entry(
            "prunas.proposers.controls:UniformKernel",
            "control",
            "one density for all convolution weights",
            STUDY,
            dimensions=("kernel",),
        ),
        "erk": Entry(
            "prunas.proposers.controls:ErdosRenyiKernel",
            "control",
            "densities that spare small convolutions",
            "Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020, arXiv:1911.11134",
            dimensions=("kernel",),
        ),
        "shuffled": Entry(
            "prunas.proposers.controls:Shuffled",
            "control",
            "a found point's ratios dealt anew among its layers",
            "prunas",
            needs=("found",),
        ),
    }
)


def entry(name: str) -> Entry:
    """The proposer called `name`.

    Raises:
        InputError: There is none; the message names the nearest ones.
    """
    if name not in PROPOSERS:
        raise unknown("proposer", name, PROPOSERS)
    return PROPOSERS[name]
