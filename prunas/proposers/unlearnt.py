"""Controls of single methods: everything that a method has, but what it learns or is told."""

from types import MappingProxyType

from prunas.names import Decision
from prunas.proposers.agents.options import POLICY
from prunas.proposers.entry import Entry
from prunas.proposers.options import Option
from prunas.proposers.references import (
    GORDON,
    HAN,
    HE,
    HU,
    LI,
    LUO,
    MOLCHANOV,
    SLIMMING,
    SSS,
    WU,
    YANG,
)
from prunas.proposers.settings import GATES, MORPHNET_UNWEIGHTED, NETADAPT, SCOPE

__all__ = ["UNLEARNT"]


def _untrained(method: str, reference: str, dimension: Decision = "width", draws: bool = False) -> Entry:
    return Entry(
        "prunas.proposers.baselines.untrained:Untrained",
        "control",
        f"what {method} proposes if nobody has trained the network it reads",
        reference,
        dimensions=(dimension,),
        needs=("initial",),
        controls=method,
        fixed=MappingProxyType({"method": method}),
        draws=draws,
    )


def _unpenalised(
    path: str,
    method: str,
    reference: str,
    dimension: Decision = "width",
    options: tuple[Option, ...] | None = None,
) -> Entry:
    return Entry(
        path,
        "control",
        f"what {method} proposes if its penalty does not pull",
        reference,
        dimensions=(dimension,),
        needs=("dense",),
        controls=method,
        fixed=MappingProxyType({"pull": 0.0}),
        options=options,
    )


UNLEARNT = {
    "slimming-unpenalised": _unpenalised(
        "prunas.proposers.pruning.slimming:Slimming", "slimming", SLIMMING, options=(SCOPE,)
    ),
    "netadapt-random": Entry(
        "prunas.proposers.pruning.netadapt:NetAdapt",
        "control",
        "what netadapt proposes if it takes any candidate",
        YANG,
        needs=("dense",),
        controls="netadapt",
        fixed=MappingProxyType({"rule": "random"}),
        options=NETADAPT,
        draws=True,
    ),
    "se-unlearnt": Entry(
        "prunas.proposers.pruning.se:SqueezeExcitation",
        "control",
        "what se proposes if its gates do not learn",
        HU,
        needs=("dense",),
        controls="se",
        fixed=MappingProxyType({"rate": 0.0}),
        options=GATES,
        weights=("initial",),
        draws=True,
    ),
    "morphnet-unweighted": Entry(
        "prunas.proposers.pruning.morphnet:MorphNet",
        "control",
        "what morphnet proposes if its penalty does not know what a channel costs",
        GORDON,
        needs=("dense",),
        controls="morphnet",
        fixed=MappingProxyType({"cost": "channels"}),
        options=MORPHNET_UNWEIGHTED,
    ),
    "l1-global-untrained": _untrained("l1-global", LI),
    "taylor-untrained": _untrained("taylor", MOLCHANOV),
    "thinet-global-untrained": _untrained("thinet-global", LUO, draws=True),
    "reconstruction-global-untrained": _untrained("reconstruction-global", HE, draws=True),
    "sss-unpenalised": _unpenalised(
        "prunas.proposers.pruning.sss:SparseStructureSelection", "sss", SSS, dimension="depth"
    ),
    "blockdrop-unlearnt": Entry(
        "prunas.proposers.agents.blockdrop:BlockDrop",
        "control",
        "what blockdrop proposes if its policy has learnt nothing",
        WU,
        dimensions=("depth",),
        needs=("dense",),
        controls="blockdrop",
        fixed=MappingProxyType({"epochs": 0}),
        options=POLICY,
    ),
    "magnitude-untrained": _untrained("magnitude", HAN, dimension="kernel"),
}
"""By name; `Entry.controls` says of which method."""
