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

Kind = Literal["predefined", "automatic", "sampler", "control"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        path: Import path of the class.
        kind: `predefined`: the user gives the widths; `automatic`: the method finds them; `sampler`: it is asked
            again after every result; `control`: what the others are compared with.
        description: For listings.
        reference: Where the method comes from.
        dimensions: What it can decide: `width`, `depth`, `kernel`.
        needs: What it asks of its brief: `dense` training, `found` points of others, `trials`.
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
        "tpe": Entry(
            "prunas.proposers.tpe:TPE",
            "sampler",
            "tree-structured Parzen estimator over stage profiles (Optuna)",
            "Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011",
            needs=("trials",),
            trainings_per_target=16,
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
