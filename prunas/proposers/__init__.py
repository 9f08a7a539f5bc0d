"""Who proposes architectures: the table. A method is one file and one line here."""

import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from prunas.errors import InputError, unknown
from prunas.plugins import Plugin, load_all, plugins
from prunas.proposers.brief import Proposer
from prunas.proposers.options import Option, at_least, check_options
from prunas.recipe import Protocol

__all__ = [
    "FINDERS",
    "PROPOSERS",
    "Entry",
    "Option",
    "check_values",
    "configured",
    "entry",
    "installed_proposers",
]

Kind = Literal["predefined", "automatic", "sampler", "design", "control"]
DIMENSIONS = ("width", "depth", "kernel")
FINDERS = ("automatic", "predefined")
"""Kinds that find points by pruning."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        path: Import path of the class.
        kind: `predefined`: the user gives the widths; `automatic`: the method finds them; `sampler`: it is asked
            again after every result; `design`: made of found points; `control`: what the others are compared with.
        description: For listings.
        reference: Where the method comes from.
        dimensions: What it can decide: `width`, `depth`, `kernel`; one at a time, by default the first.
        needs: What it asks of its brief: `dense` training, `initial` weights, `found` points of others with the
            same seed, or `found-by-others`: with other seeds, a `source` in another space, `trials`.
        trainings_per_target: Trainings of its own that one more target costs; those that serve all targets
            alike do not count.
        starts: Pruning methods whose points are its first trials.
        controls: Of a control that repeats a method without what the method finds by: that method. Its settings
            are the control's too.
        fixed: Settings that nobody may change.
        options: Its settings; None: those that its constructor takes, which then checks their values itself.
        weights: Which weights its points can inherit, see `Protocol.weights`; None: `sliced` and `initial` ones if
            it has a `dense` training, else none.
    """

    path: str
    kind: Kind
    description: str
    reference: str
    dimensions: tuple[str, ...] = ("width",)
    needs: tuple[str, ...] = ()
    trainings_per_target: int = 0
    starts: tuple[str, ...] = ()
    controls: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict, hash=False)
    options: tuple[Option, ...] | None = None
    weights: tuple[Literal["sliced", "initial"], ...] | None = None

    def serves(self, how: Protocol) -> bool:
        """Whether its points can be trained by a protocol: they may have no weights to inherit."""
        inherited = ("sliced", "initial") if "dense" in self.needs else ()
        return how.weights in ("fresh", *(inherited if self.weights is None else self.weights))

    def build(self, **options: Any) -> Proposer:
        """The proposer with its options.

        Raises:
            InputError: It does not take one of them, or not that value, or its class cannot be imported.
        """
        try:
            make = pkgutil.resolve_name(self.path)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"proposer class {self.path!r} cannot be imported: {error}") from error
        known = inspect.signature(make).parameters
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        for option in options:
            if option in self.fixed:
                raise InputError(f"{option} is always {self.fixed[option]} in this control; leave it out")
            if option not in known and not passes_on:
                raise unknown(f"option of proposer {make.__name__}:", option, known)
        made: Proposer = make(**options, **self.fixed)
        return made


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

PRESET = Option(
    "preset", str, None, "a preset of the space whose widths are used, instead of uniform ones at each target"
)
FORM = Option(
    "form", str, "fitted", "fitted to the target by one number, or as-found", choices=("fitted", "as-found")
)
RESPONSES = at_least(1, "responses", 400, "responses sampled of every reading layer, each in another image")
THINET = (
    at_least(1, "images", 256, "images of the training split that are looked at"),
    at_least(1, "places", 10, "entries sampled of each, per reading layer"),
)
STARTUP = at_least(1, "startup", 5, "trials drawn at random before the model is used")
SAMPLER = (
    Option("vary", str, "width", "what the profile scales", choices=DIMENSIONS),
    Option("level", str, "stage", "one parameter per stage or per layer", choices=("stage", "layer")),
    Option(
        "neighbourhood",
        float,
        0.0,
        "if above 0, ratios lie within this share of those of the best found point",
        lambda share: 0 <= share < 1,
        "at least 0 and below 1",
    ),
    at_least(1, "batch", 1, "candidates per target that may be trained at the same time"),
    Option(
        "halving",
        int,
        0,
        "if not 0, trials are stopped early by successive halving at this rate",
        lambda rate: rate == 0 or 2 <= rate <= 10,
        "0 (off) or 2 to 10",
    ),
    Option(
        "shortest",
        float,
        0.1,
        "the shortest schedule of halving, as a share of the whole one",
        lambda share: 0 < share < 1,
        "between 0 and 1",
    ),
)


def _pull(default: float | None, help: str) -> Option:
    return Option("pull", float, default, help, lambda pull: pull >= 0, "0 or more")


def _untrained(method: str, reference: str, dimension: str = "width") -> Entry:
    return Entry(
        "prunas.proposers.untrained:Untrained",
        "control",
        f"what {method} proposes if nobody has trained the network it reads",
        reference,
        dimensions=(dimension,),
        needs=("initial",),
        controls=method,
        fixed=MappingProxyType({"method": method}),
    )


def _unpenalised(path: str, method: str, reference: str, dimension: str = "width") -> Entry:
    return Entry(
        path,
        "control",
        f"what {method} proposes if its penalty does not pull",
        reference,
        dimensions=(dimension,),
        needs=("dense",),
        controls=method,
        fixed=MappingProxyType({"pull": 0.0}),
    )


PROPOSERS: Mapping[str, Entry] = MappingProxyType(
    {
        "slimming": Entry(
            "prunas.proposers.slimming:Slimming",
            "automatic",
            "L1 penalty on batch-norm scales, one threshold for all layers",
            SLIMMING,
            needs=("dense",),
            options=(
                _pull(None, "total pull of the penalty on one scale; 6.6, or 0.66 where there are gates"),
            ),
        ),
        "l1": Entry(
            "prunas.proposers.l1:L1",
            "predefined",
            "filters with the largest absolute weights, at widths that are given",
            LI,
            needs=("dense",),
            options=(PRESET,),
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
            options=(*THINET, PRESET),
        ),
        "thinet-global": Entry(
            "prunas.proposers.thinet:GlobalThiNet",
            "automatic",
            "one threshold on the next layer's relative error, channels in ThiNet's order",
            LUO,
            needs=("dense",),
            options=THINET,
        ),
        "reconstruction": Entry(
            "prunas.proposers.reconstruction:Reconstruction",
            "predefined",
            "channels from which the Lasso rebuilds the next layer's response, at widths that are given",
            HE,
            needs=("dense",),
            options=(RESPONSES, PRESET),
        ),
        "reconstruction-global": Entry(
            "prunas.proposers.reconstruction:GlobalReconstruction",
            "automatic",
            "one threshold on the next layer's relative error, channels in the order of the Lasso's path",
            HE,
            needs=("dense",),
            options=(RESPONSES,),
        ),
        "sss": Entry(
            "prunas.proposers.sss:SparseStructureSelection",
            "automatic",
            "scales on residual branches, driven to zero by accelerated proximal gradient",
            SSS,
            dimensions=("depth",),
            needs=("dense",),
            options=(_pull(10.0, "total pull of the penalty on one scale, in units of its initial 1"),),
            weights=("initial",),  # a branch without its scale is another branch
        ),
        "magnitude": Entry(
            "prunas.proposers.magnitude:Magnitude",
            "automatic",
            "one global threshold over the weights of all convolutions",
            HAN,
            dimensions=("kernel",),
            needs=("dense",),
        ),
        "tpe": Entry(
            "prunas.proposers.samplers:TPE",
            "sampler",
            "tree-structured Parzen estimator over stage profiles (Optuna)",
            "Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=(*SAMPLER, STARTUP),
        ),
        "gp": Entry(
            "prunas.proposers.samplers:GP",
            "sampler",
            "Gaussian process over stage profiles (Optuna)",
            "Snoek et al., Practical Bayesian Optimization of Machine Learning Algorithms, NeurIPS 2012, "
            "arXiv:1206.2944",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=(*SAMPLER, STARTUP),
        ),
        "cmaes": Entry(
            "prunas.proposers.samplers:CMAES",
            "sampler",
            "covariance matrix adaptation over stage profiles (Optuna)",
            "Hansen & Ostermeier, Completely Derandomized Self-Adaptation in Evolution Strategies, Evolutionary "
            "Computation 9(2), 2001",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=(*SAMPLER, at_least(1, "population", 8, "points per generation")),
        ),
        "nsga2": Entry(
            "prunas.proposers.samplers:NSGA2",
            "sampler",
            "genetic algorithm over stage profiles, for accuracy and the cost left open (Optuna)",
            "Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE Transactions on "
            "Evolutionary Computation 6(2), 2002",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=(*SAMPLER, at_least(2, "population", 8, "points per generation")),
        ),
        "qmc": Entry(
            "prunas.proposers.samplers:QMC",
            "sampler",
            "quasi-random stage profiles (Optuna)",
            "Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13, 2012",
            dimensions=DIMENSIONS,
            needs=("trials",),
            trainings_per_target=16,
            options=SAMPLER,
        ),
        "guided": Entry(
            "prunas.proposers.carried:Guided",
            "design",
            "mean stage ratios of what was found here",
            STUDY,
            needs=("found-by-others",),
            options=(FORM,),
        ),
        "transferred": Entry(
            "prunas.proposers.carried:Transferred",
            "design",
            "mean stage ratios of what was found on another network or data set",
            STUDY,
            needs=("source",),
            options=(FORM,),
        ),
        "guided-depth": Entry(
            "prunas.proposers.carried:GuidedDepth",
            "design",
            "mean share of blocks per stage of what was found here",
            "prunas",
            dimensions=("depth",),
            needs=("found-by-others",),
            options=(FORM,),
        ),
        "transferred-depth": Entry(
            "prunas.proposers.carried:TransferredDepth",
            "design",
            "mean share of blocks per stage of what was found on another network or data set",
            "prunas",
            dimensions=("depth",),
            needs=("source",),
            options=(FORM,),
        ),
        "guided-kernel": Entry(
            "prunas.proposers.carried:GuidedKernels",
            "design",
            "mean kernel patterns of what was found here",
            STUDY,
            dimensions=("kernel",),
            needs=("found-by-others",),
            options=(FORM,),
        ),
        "transferred-kernel": Entry(
            "prunas.proposers.carried:TransferredKernels",
            "design",
            "mean kernel patterns of what was found on another network or data set",
            STUDY,
            dimensions=("kernel",),
            needs=("source",),
            options=(FORM,),
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
            options=(at_least(1, "draws", 1, "shuffles per found point; each is trained"),),
        ),
        "random-channels": Entry(
            "prunas.proposers.controls:RandomChannels",
            "control",
            "a found point's widths with channels drawn at random, for protocols that inherit weights",
            "prunas",
            needs=("found",),
            options=(at_least(1, "draws", 1, "draws per found point; each is trained"),),
            weights=("sliced", "initial"),
        ),
        "slimming-unpenalised": _unpenalised("prunas.proposers.slimming:Slimming", "slimming", SLIMMING),
        "l1-global-untrained": _untrained("l1-global", LI),
        "thinet-global-untrained": _untrained("thinet-global", LUO),
        "reconstruction-global-untrained": _untrained("reconstruction-global", HE),
        "sss-unpenalised": _unpenalised(
            "prunas.proposers.sss:SparseStructureSelection", "sss", SSS, dimension="depth"
        ),
        "magnitude-untrained": _untrained("magnitude", HAN, dimension="kernel"),
    }
)


def entry(name: str) -> Entry:
    """The proposer called `name`: one of `PROPOSERS`, or what an installed package offers.

    `tpe+slimming` is a sampler whose first trials are what slimming found; several methods are joined alike.

    Raises:
        InputError: There is none, and the message names the nearest ones; or the package's cannot be used.
    """
    if name in PROPOSERS:
        return PROPOSERS[name]
    base, *starts = name.split("+")
    if starts:
        return _started(name, entry(base), starts)
    offered = plugins("prunas.proposers")
    if name not in offered:
        raise unknown("proposer", name, {*PROPOSERS, *offered})
    return _offered(offered[name])


def _started(name: str, line: Entry, starts: list[str]) -> Entry:
    if line.kind != "sampler":
        raise InputError(
            f"proposer {name!r}: only a sampler can start from found points, such as tpe+slimming"
        )
    for start in starts:
        if entry(start).kind not in FINDERS:
            raise InputError(f"proposer {name!r}: {start!r} finds nothing by pruning; try tpe+slimming")
    return replace(line, needs=(*line.needs, "found"), starts=tuple(dict.fromkeys(starts)))


def check_values(name: str, **values: Any) -> None:
    """Refuses values of a bundled proposer's settings that its entry does not allow; for its constructor.

    Raises:
        InputError: As `prunas.proposers.options.check_options`.
    """
    line = PROPOSERS.get(name)
    if line is not None and line.options is not None:  # a class that an installed package derives has its own
        check_options(name, line.options, values)


def configured(name: str, *tables: Mapping[str, Mapping[str, Any]]) -> tuple[Entry, dict[str, Any]]:
    """A proposer with what it decides, and its settings.

    Args:
        name: As `entry` takes it; `tpe+slimming` has the settings of `tpe` too, and a control those of the method
            that it repeats, but for what is fixed.
        tables: Settings by name of proposer; later ones win.

    Raises:
        InputError: As `entry`, or a setting does not exist or cannot have that value.
    """
    line = entry(name)
    method = line.controls or name.partition("+")[0]
    settings = {
        key: value
        for table in tables
        for owner in dict.fromkeys((method, name))
        for key, value in table.get(owner, {}).items()
        if owner == name or key not in line.fixed
    }
    if line.options is not None:
        check_options(name, line.options, settings)
    if line.kind == "sampler" and "vary" in settings:
        if settings["vary"] not in line.dimensions:
            raise unknown(f"{name}: vary", str(settings["vary"]), line.dimensions)
        line = replace(line, dimensions=(settings["vary"],))
    return line, settings


def installed_proposers() -> tuple[dict[str, Entry], tuple[str, ...]]:
    """`PROPOSERS` and what installed packages add, and one line about each addition that cannot be used."""
    added, problems = load_all("prunas.proposers", PROPOSERS, _offered)
    return {**PROPOSERS, **added}, problems


def _offered(plugin: Plugin) -> Entry:
    line = plugin.load()
    if not isinstance(line, Entry):
        raise InputError(f"{plugin}: its entry point names a {type(line).__name__}, not an Entry")
    if line.kind not in get_args(Kind):
        raise InputError(f"{plugin}: {unknown('kind', line.kind, get_args(Kind))}")
    if not line.dimensions or not set(line.dimensions) <= set(DIMENSIONS):
        raise InputError(f"{plugin}: it decides {line.dimensions}; of {DIMENSIONS} there must be one")
    return line
