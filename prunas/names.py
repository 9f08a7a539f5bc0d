"""The closed vocabulary: what is known by a word, wherever its code lives today. Torch-free.

Runs are named by what they compute. What enters that name is a word of this table, never an import path, so that a
room can be renamed and every finished run is still found.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

__all__ = [
    "ANSWERS_OTHERS",
    "CHANCE_LEVEL",
    "DIMENSIONS",
    "FINDERS",
    "FLOOR",
    "MACS_NOT_MATCHED",
    "METRIC_NAMES",
    "NONE_LEFT_OUT",
    "ONE_GIVEN_NETWORK",
    "PENALTY_NOT_ACTED",
    "POLICIES_DIFFER",
    "READS_WEIGHTS",
    "REGISTERED",
    "RESTS_ON_OTHERS",
    "ROW_KINDS",
    "SEARCHERS",
    "TARGET_MISSED",
    "Decision",
    "Kind",
    "Need",
    "Registry",
    "RowKind",
]

Registry = Literal[
    "prunas.works", "prunas.penalties", "prunas.phases", "prunas.rebuilds", "prunas.tasks", "prunas.data"
]

_TABLES: dict[Registry, dict[str, str]] = {
    "prunas.works": {
        "blockdrop/policy": "prunas.works.policy:run",
        "evaluate": "prunas.works.evaluate:run",
        "given": "prunas.works.given:run",
        "supernet/controller": "prunas.works.controller:run",
        "supernet/greedy": "prunas.works.greedy:run",
        "test": "prunas.works.tested:run",
        "train": "prunas.works.train:run",
    },
    "prunas.penalties": {
        "slimming/scale": "prunas.proposers.pruning.slimming:ScalePenalty",
        "morphnet/cost": "prunas.proposers.pruning.morphnet:CostWeightedScales",
        "morphnet/latency": "prunas.proposers.pruning.morphnet:LatencyWeightedScales",
        "se/gates": "prunas.proposers.pruning.se:TrainedGates",
        "sss/branch": "prunas.proposers.pruning.sss:BranchScales",
    },
    "prunas.phases": {"dsd": "prunas.training.phases:DenseSparseDense"},
    "prunas.rebuilds": {
        "thinet/rescaled": "prunas.proposers.pruning.refit:rescaled",
        "reconstruction/refitted": "prunas.proposers.pruning.refit:refitted",
    },
    "prunas.tasks": {
        "classification": "prunas.tasks.classification:Classification",
        "multilabel": "prunas.tasks.multilabel:Multilabel",
        "regression": "prunas.tasks.regression:Regression",
        "segmentation": "prunas.tasks.segmentation:Segmentation",
        "detection": "prunas.tasks.detection:Detection",
    },
    "prunas.data": {
        "digits": "prunas.data.digits:digits",
        "cifar10": "prunas.data.cifar:cifar10",
        "cifar100": "prunas.data.cifar:cifar100",
        "folder": "prunas.data.folder:folder",
    },
}

REGISTERED: Mapping[Registry, Mapping[str, str]] = MappingProxyType(
    {registry: MappingProxyType(_TABLES[registry]) for registry in get_args(Registry)}
)
"""Import paths by name; other packages add theirs by entry points of the same groups."""


# Kinds of proposers

Kind = Literal["predefined", "automatic", "sampler", "design", "control"]
"""What sort of proposer it is. `predefined`: the user gives the widths; `automatic`: the method finds them;
`sampler`: it is asked again after every result; `design`: made of found points; `control`: what the others are
compared with."""

RowKind = Literal["dense", Kind]
"""What sort of proposer a row is of; `dense` is the unpruned network itself."""

ROW_KINDS: tuple[RowKind, ...] = ("dense", *get_args(Kind))
"""In the order of a table."""

FINDERS: tuple[Kind, ...] = ("automatic", "predefined")
"""Kinds that find points by pruning."""

SEARCHERS: tuple[Kind, ...] = (*FINDERS, "sampler")
"""Kinds whose points are a result, by pruning or by trials, as opposed to designs and controls."""


# What a proposer asks for, and what it decides

Need = Literal["dense", "initial", "found", "found-by-others", "source", "trials"]
"""What a proposer asks of its brief: a `dense` training, `initial` weights, `found` points of others with the same
seed, or `found-by-others`: with other seeds, a `source` in another space, `trials`."""

ANSWERS_OTHERS: frozenset[Need] = frozenset(("found", "found-by-others"))
"""Needs of a proposer that waits for the points of others in its search."""

RESTS_ON_OTHERS: frozenset[Need] = ANSWERS_OTHERS | {"source"}
"""Needs of a proposer whose points are made of the points of others, there or elsewhere."""

READS_WEIGHTS: frozenset[Need] = frozenset(("dense", "initial"))
"""Needs of a proposer that reads the weights of the dense network."""

Decision = Literal["width", "depth", "kernel"]
"""Units of groups and gates; which residual branches stay; which weights of a convolution exist."""

DIMENSIONS: tuple[Decision, ...] = get_args(Decision)


# Flags

TARGET_MISSED = "target_missed"
"""Further from the target than the tolerance."""

MACS_NOT_MATCHED = "macs_not_matched"
"""No such shape has the parameters and the MACs of the point it answers."""

PENALTY_NOT_ACTED = "penalty_not_acted"
"""The penalty did not decide what goes."""

POLICIES_DIFFER = "policies_differ"
"""No single choice of blocks serves half of the images."""

FLOOR = "floor"
"""A layer would have been emptied and kept its least width."""

CHANCE_LEVEL = "chance_level"
"""A result that cannot be told from guessing; set by the row, not by a proposer."""

NONE_LEFT_OUT = "none_left_out"
"""A design made of the shapes of all seeds, so that n counts trainings and not searches."""

ONE_GIVEN_NETWORK = "one_given_network"
"""Several seeds share one given dense network, so that n counts trainings and not searches in other networks."""

METRIC_NAMES = ("params", "macs", "channels", "conv-params", "activations", "memory")
"""The metrics of `prunas.costs.metrics`, for help that must not import it."""
