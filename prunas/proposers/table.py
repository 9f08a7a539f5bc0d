"""Who proposes architectures: the table. A method is one file and one entry here."""

from collections.abc import Mapping
from types import MappingProxyType

from prunas.names import DIMENSIONS, Decision
from prunas.proposers.entry import Entry
from prunas.proposers.look import (
    BLACK,
    BLUE,
    DASHDOT,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SOLID,
    VERMILLION,
    Style,
)
from prunas.proposers.options import Option, at_least
from prunas.proposers.settings import (
    CHANNEL_COST,
    FORM,
    GATES,
    MORPHNET_PULL,
    NETADAPT,
    PRESET,
    RESPONSES,
    SAMPLER,
    SCOPE,
    STARTUP,
    STEP_RULE,
    TAYLOR,
    THINET,
    pull,
)

__all__ = ["PROPOSERS"]

STUDY = "Liu et al., Rethinking the Value of Network Pruning, ICLR 2019, arXiv:1810.05270"

SLIMMING = (
    "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, "
    "arXiv:1708.06519"
)
SSS = (
    "Huang & Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018, "
    "arXiv:1707.01213"
)
HAN = (
    "Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015, "
    "arXiv:1506.02626"
)
LI = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710"
LUO = (
    "Luo et al., ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression, ICCV 2017, "
    "arXiv:1707.06342"
)
HE = "He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, arXiv:1707.06168"
MOLCHANOV = "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771"
YANG = (
    "Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications, ECCV 2018, "
    "arXiv:1804.03230"
)
GORDON = (
    "Gordon et al., MorphNet: Fast & Simple Resource-Constrained Structure Learning of Deep Networks, CVPR 2018, "
    "arXiv:1711.06798"
)
HU = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507"


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


PROPOSERS: Mapping[str, Entry] = MappingProxyType(
    {
        "slimming": Entry(
            "prunas.proposers.pruning.slimming:Slimming",
            "automatic",
            "L1 penalty on batch-norm scales, one threshold for all layers",
            SLIMMING,
            needs=("dense",),
            options=(
                pull(None, "total pull of the penalty on one scale; 6.6, or 0.66 where there are gates"),
                SCOPE,
            ),
            look=Style(VERMILLION, "o", SOLID),
        ),
        "l1": Entry(
            "prunas.proposers.pruning.l1:L1",
            "predefined",
            "filters with the largest absolute weights, at widths that are given",
            LI,
            needs=("dense",),
            options=(PRESET,),
            look=Style(GREEN, "s", SOLID),
        ),
        "l1-global": Entry(
            "prunas.proposers.pruning.l1:GlobalL1",
            "automatic",
            "one threshold on the mean absolute weight of filters",
            LI,
            needs=("dense",),
            options=(SCOPE,),
            look=Style(GREEN, "D", SOLID),
        ),
        "thinet": Entry(
            "prunas.proposers.pruning.thinet:ThiNet",
            "predefined",
            "channels the next layer would miss, at widths that are given",
            LUO,
            needs=("dense",),
            options=(*THINET, PRESET),
            draws=True,
            look=Style(SKY, "^", SOLID),
        ),
        "thinet-global": Entry(
            "prunas.proposers.pruning.thinet:GlobalThiNet",
            "automatic",
            "one threshold on the next layer's relative error, channels in ThiNet's order",
            LUO,
            needs=("dense",),
            options=(*THINET, SCOPE),
            draws=True,
            look=Style(SKY, "p", SOLID),
        ),
        "reconstruction": Entry(
            "prunas.proposers.pruning.reconstruction:Reconstruction",
            "predefined",
            "channels from which the Lasso rebuilds the next layer's response, at widths that are given",
            HE,
            needs=("dense",),
            options=(RESPONSES, PRESET),
            draws=True,
            look=Style(PURPLE, "v", SOLID),
        ),
        "reconstruction-global": Entry(
            "prunas.proposers.pruning.reconstruction:GlobalReconstruction",
            "automatic",
            "one threshold on the next layer's relative error, channels in the order of the Lasso's path",
            HE,
            needs=("dense",),
            options=(RESPONSES, SCOPE),
            draws=True,
            look=Style(PURPLE, "h", SOLID),
        ),
        "taylor": Entry(
            "prunas.proposers.pruning.taylor:Taylor",
            "automatic",
            "one threshold on the squared first-order change of the loss if a channel went",
            MOLCHANOV,
            needs=("dense",),
            options=TAYLOR,
        ),
        "netadapt": Entry(
            "prunas.proposers.pruning.netadapt:NetAdapt",
            "automatic",
            "greedy: of all single layers narrowed by a step, the one that costs least score per saved cost",
            YANG,
            needs=("dense",),
            options=(
                *NETADAPT,
                STEP_RULE,
            ),
        ),
        "morphnet": Entry(
            "prunas.proposers.pruning.morphnet:MorphNet",
            "automatic",
            "L1 penalty on batch-norm scales by what their channel costs, then one factor up to the budget",
            GORDON,
            needs=("dense",),
            options=(
                MORPHNET_PULL,
                CHANNEL_COST,
            ),
        ),
        "se": Entry(
            "prunas.proposers.pruning.se:SqueezeExcitation",
            "automatic",
            "gates trained beside the network, one threshold on what they let pass; trained on without them",
            HU,
            needs=("dense",),
            options=(
                *GATES,
                Option(
                    "rate",
                    float,
                    1.0,
                    "rate of the gates' steps, as a share of the network's",
                    lambda rate: rate >= 0,
                    "0 or more",
                ),
            ),
            weights=("initial",),  # a network without its gates is another network
            draws=True,
        ),
        "sss": Entry(
            "prunas.proposers.pruning.sss:SparseStructureSelection",
            "automatic",
            "scales on residual branches, driven to zero by accelerated proximal gradient",
            SSS,
            dimensions=("depth",),
            needs=("dense",),
            options=(pull(10.0, "total pull of the penalty on one scale, in units of its initial 1"),),
            weights=("initial",),  # a branch without its scale is another branch
            look=Style(ORANGE, "P", SOLID),
        ),
        "magnitude": Entry(
            "prunas.proposers.pruning.magnitude:Magnitude",
            "automatic",
            "one global threshold over the weights of all convolutions",
            HAN,
            dimensions=("kernel",),
            needs=("dense",),
            look=Style(VERMILLION, "X", SOLID),
        ),
        "tpe": Entry(
            "prunas.proposers.optuna.samplers:TPE",
            "sampler",
            "tree-structured Parzen estimator over stage profiles (Optuna)",
            "Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=(*SAMPLER, STARTUP),
            draws=True,
            look=Style(PURPLE, "P", DASHED),
        ),
        "gp": Entry(
            "prunas.proposers.optuna.samplers:GP",
            "sampler",
            "Gaussian process over stage profiles (Optuna)",
            "Snoek et al., Practical Bayesian Optimization of Machine Learning Algorithms, NeurIPS 2012, "
            "arXiv:1206.2944",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=(*SAMPLER, STARTUP),
            draws=True,
        ),
        "cmaes": Entry(
            "prunas.proposers.optuna.samplers:CMAES",
            "sampler",
            "covariance matrix adaptation over stage profiles (Optuna)",
            "Hansen & Ostermeier, Completely Derandomized Self-Adaptation in Evolution Strategies, Evolutionary "
            "Computation 9(2), 2001",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=(*SAMPLER, at_least(1, "population", 8, "points per generation")),
            draws=True,
        ),
        "nsga2": Entry(
            "prunas.proposers.optuna.samplers:NSGA2",
            "sampler",
            "genetic algorithm over stage profiles, for the score and the cost left open (Optuna)",
            "Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE Transactions on "
            "Evolutionary Computation 6(2), 2002",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=(*SAMPLER, at_least(2, "population", 8, "points per generation")),
            draws=True,
        ),
        "qmc": Entry(
            "prunas.proposers.optuna.samplers:QMC",
            "sampler",
            "quasi-random stage profiles (Optuna)",
            "Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13, 2012",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=SAMPLER,
            draws=True,
        ),
        "guided": Entry(
            "prunas.proposers.baselines.carried:Guided",
            "design",
            "mean stage ratios of what was found here",
            STUDY,
            needs=("found-by-others",),
            options=(FORM,),
            look=Style(GREEN, "D", DASHED),
        ),
        "transferred": Entry(
            "prunas.proposers.baselines.carried:Transferred",
            "design",
            "mean stage ratios of what was found on another network or data set",
            STUDY,
            needs=("source",),
            options=(FORM,),
            look=Style(SKY, "v", DASHED),
        ),
        "guided-depth": Entry(
            "prunas.proposers.baselines.carried:GuidedDepth",
            "design",
            "mean share of blocks per stage of what was found here",
            "prunas",
            dimensions=("depth",),
            needs=("found-by-others",),
            options=(FORM,),
        ),
        "transferred-depth": Entry(
            "prunas.proposers.baselines.carried:TransferredDepth",
            "design",
            "mean share of blocks per stage of what was found on another network or data set",
            "prunas",
            dimensions=("depth",),
            needs=("source",),
            options=(FORM,),
        ),
        "guided-kernel": Entry(
            "prunas.proposers.baselines.carried:GuidedKernels",
            "design",
            "mean kernel patterns of what was found here",
            STUDY,
            dimensions=("kernel",),
            needs=("found-by-others",),
            options=(FORM,),
            draws=True,
            look=Style(GREEN, "X", DASHED),
        ),
        "transferred-kernel": Entry(
            "prunas.proposers.baselines.carried:TransferredKernels",
            "design",
            "mean kernel patterns of what was found on another network or data set",
            STUDY,
            dimensions=("kernel",),
            needs=("source",),
            options=(FORM,),
            draws=True,
            look=Style(SKY, "d", DASHED),
        ),
        "uniform": Entry(
            "prunas.proposers.baselines.controls:Uniform",
            "control",
            "one ratio for all layers",
            STUDY,
            joins=True,
            look=Style(BLACK, "^", DASHDOT),
        ),
        "random": Entry(
            "prunas.proposers.baselines.controls:Random",
            "control",
            "a log-uniform profile over stages; with --trials, the best of so many",
            "Li & Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, "
            "arXiv:1902.07638",
            needs=("trials",),
            joins=True,
            draws=True,
            look=Style(GREY, "D", DOTTED),
        ),
        "taper": Entry(
            "prunas.proposers.baselines.controls:TaperControl",
            "control",
            "widths min(W, a * b^stage) with the params and MACs of a found point",
            "prunas",
            needs=("found",),
            joins=True,
            look=Style(BLUE, "s", DASHED),
        ),
        "uniform-depth": Entry(
            "prunas.proposers.baselines.controls:UniformDepth",
            "control",
            "equally many blocks per stage, at the cost that was reached",
            STUDY,
            dimensions=("depth",),
            needs=("found",),
            joins=True,
            look=Style(BLACK, ">", DASHDOT),
        ),
        "uniform-kernel": Entry(
            "prunas.proposers.baselines.controls:UniformKernel",
            "control",
            "one density for all convolution weights",
            STUDY,
            dimensions=("kernel",),
            joins=True,
            draws=True,
            look=Style(BLACK, "<", DASHDOT),
        ),
        "erk": Entry(
            "prunas.proposers.baselines.controls:ErdosRenyiKernel",
            "control",
            "densities that spare small convolutions",
            "Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020, arXiv:1911.11134",
            dimensions=("kernel",),
            joins=True,
            draws=True,
            look=Style(BLUE, "v", DASHDOT),
        ),
        "precrop": Entry(
            "prunas.proposers.pruning.precrop:PreCrop",
            "control",
            "widths that maximise the expected paths at initialisation, by a convex programme",
            "Cai et al., Structured Pruning is All You Need for Pruning CNNs at Initialization, 2022, "
            "arXiv:2203.02549",
        ),
        "shuffled": Entry(
            "prunas.proposers.baselines.controls:Shuffled",
            "control",
            "a found point's ratios dealt anew among its layers",
            "prunas",
            needs=("found",),
            options=(at_least(1, "draws", 1, "shuffles per found point; each is trained"),),
            draws=True,
            look=Style(ORANGE, "o", DOTTED),
        ),
        "random-channels": Entry(
            "prunas.proposers.baselines.controls:RandomChannels",
            "control",
            "a found point's widths with channels drawn at random, for protocols that inherit weights",
            "prunas",
            needs=("found",),
            options=(at_least(1, "draws", 1, "draws per found point; each is trained"),),
            weights=("sliced", "initial"),
            draws=True,
            look=Style(GREY, "X", DOTTED),
        ),
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
            options=(MORPHNET_PULL,),
        ),
        "l1-global-untrained": _untrained("l1-global", LI),
        "taylor-untrained": _untrained("taylor", MOLCHANOV),
        "thinet-global-untrained": _untrained("thinet-global", LUO, draws=True),
        "reconstruction-global-untrained": _untrained("reconstruction-global", HE, draws=True),
        "sss-unpenalised": _unpenalised(
            "prunas.proposers.pruning.sss:SparseStructureSelection", "sss", SSS, dimension="depth"
        ),
        "magnitude-untrained": _untrained("magnitude", HAN, dimension="kernel"),
    }
)
