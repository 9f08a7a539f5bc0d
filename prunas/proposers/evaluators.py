"""Evaluators: how a candidate is scored without being trained whole. Torch-free.

A sampler's trials are trained from scratch unless a search names an evaluator (`--evaluator adaptive-bn`); agents
and other methods name theirs themselves, see `Brief.evaluate`. Whoever asks, an evaluation is a job: executed once
for a point, priced, and fetched the next time. What runs a loop of evaluations within one job takes
`prunas.works.evaluators.Scorer` instead, which scores the same.

Scores are on the validation split; the test split is not met.

References:
    adaptive-bn: Li et al., EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning, ECCV 2020,
    https://arxiv.org/abs/2007.02491. Filters with the largest absolute weights are kept, statistics of batch norms
    are measured again on training images. Departures: statistics are a plain mean over batches, not a running one;
    every candidate meets its target by the proposer's own rounding, not by rejection.
    reconstructed: He et al., ICCV 2017, see `prunas.proposers.pruning.refit`.
    supernet: Yu & Huang, AutoSlim, 2019, https://arxiv.org/abs/1903.11728, see `prunas.works.supernet`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from prunas.errors import InputError, unknown
from prunas.proposers.options import Option, at_least, check_options

if TYPE_CHECKING:  # the command line names evaluators in its help, without numpy
    from prunas.architecture import Architecture
    from prunas.spaces.space import SearchSpace

__all__ = ["EVALUATORS", "INHERITED", "Evaluator", "EvaluatorEntry", "evaluator", "has_batch_norms"]

Source = Literal["dense", "supernet", "none"]


@dataclass(frozen=True, slots=True)
class EvaluatorEntry:
    """One line of the table of evaluators.

    Attributes:
        description: For listings.
        source: Whose weights a candidate inherits: the trained `dense` network's, the `supernet`'s, or `none`.
        options: Its settings.
        needs_norms: Whether it means nothing in a network without batch norms.
        rebuild: Registered name of what is done to inherited weights first; "" for nothing.
    """

    description: str
    source: Source
    options: tuple[Option, ...] = ()
    needs_norms: bool = False
    rebuild: str = ""


SELECT = Option(
    "select",
    str,
    "largest",
    "which channels a candidate keeps where nobody says: those of the largest absolute weights, or the first",
    choices=("largest", "first"),
)
VALIDATION = at_least(0, "images", 0, "validation images that are scored; 0 means all")
SUPERNET = (
    at_least(2, "quanta", 8, "widths of a layer that are trained: so many even shares of the dense one"),
    at_least(0, "sampled", 2, "sampled networks per step, beside the whole and the smallest one"),
    Option(
        "lengths",
        float,
        1.0,
        "epochs of the super-network's training over those of the recipe",
        lambda lengths: lengths > 0,
        "above 0",
    ),
)


FEWER = at_least(0, "images", 1000, "validation images that are scored; 0 means all")


def _norms(images: int, least: int = 0) -> Option:
    what = "training images on which batch norms are measured again" + ("" if least else "; 0: not at all")
    return at_least(least, "norms", images, what)


EVALUATORS: Mapping[str, EvaluatorEntry] = MappingProxyType(
    {
        "inherited": EvaluatorEntry(
            "slices of the dense network's weights, as they are", "dense", (SELECT, VALIDATION)
        ),
        "adaptive-bn": EvaluatorEntry(
            "slices of the dense network's weights, batch norms measured again on training images",
            "dense",
            (_norms(640, 1), SELECT, FEWER),
            needs_norms=True,
        ),
        "reconstructed": EvaluatorEntry(
            "slices of the dense network's weights, solved for the responses of its layers by least squares",
            "dense",
            (
                at_least(1, "calibration", 256, "training images whose responses are rebuilt"),
                at_least(1, "places", 10, "entries sampled of each, per reading layer"),
                _norms(0),
                SELECT,
                VALIDATION,
            ),
            rebuild="reconstruction/refitted",
        ),
        "short-training": EvaluatorEntry(
            "a training from scratch whose schedule is passed through faster",
            "none",
            (
                Option(
                    "share",
                    float,
                    0.1,
                    "epochs of it, as a share of the recipe's",
                    lambda share: 0 < share <= 1,
                    "above 0, at most 1",
                ),
            ),
        ),
        "supernet": EvaluatorEntry(
            "slices of one network whose slices were trained together, batch norms measured again",
            "supernet",
            (*SUPERNET, _norms(640), FEWER),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Evaluator:
    """One of `EVALUATORS` with its settings; a value that plans and jobs carry.

    Attributes:
        name: In `EVALUATORS`.
        options: Settings that differ from the defaults; JSON values.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def entry(self) -> EvaluatorEntry:
        """Its line in the table."""
        return EVALUATORS[self.name]

    @property
    def label(self) -> str:
        """The name, and the settings that differ from the defaults."""
        return " ".join((self.name, *(f"{key}={value}" for key, value in sorted(self.options.items()))))

    def setting(self, name: str) -> Any:
        """A setting, or its default.

        Raises:
            KeyError: It has none of that name.
        """
        usual = {option.name: option.default for option in self.entry.options}
        return (usual | dict(self.options))[name]

    def to_json(self) -> dict[str, Any]:
        """Both fields by name."""
        return {"name": self.name, "options": dict(self.options)}

    def check(self, space: "SearchSpace") -> None:
        """Refuses a space whose points it cannot score.

        Raises:
            InputError: The message says which evaluators can.
        """
        if self.entry.needs_norms and not has_batch_norms(space):
            able = ", ".join(name for name, line in EVALUATORS.items() if not line.needs_norms)
            raise InputError(
                f"evaluator {self.name!r} measures batch norms again, and the network of space {space.name!r} has "
                f"none; these can score it: {able}"
            )
        if self.entry.source == "dense" and self.setting("select") == "largest":
            from prunas.proposers.pruning.channels import (
                weighing,
            )  # which imports briefs, and they this module

            weighing(space, f"evaluator {self.name}")

    @property
    def supernet(self) -> dict[str, Any]:
        """The settings of the super-network that it reads."""
        return {option.name: self.setting(option.name) for option in SUPERNET}

    def images(self, validation: int, training: int) -> int:
        """Images that one evaluation passes through a network, where splits have so many."""
        known = {option.name: self.setting(option.name) for option in self.entry.options}
        scored = min(known.get("images") or validation, validation)
        return min(int(known.get("norms", 0)), training) + scored

    def request(
        self,
        arch: "Architecture",
        run: str,
        kept: Mapping[str, Sequence[int]] | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """The options of the work `evaluate` that scores a point with the weights of a run.

        Args:
            arch: The point.
            run: The run whose weights it inherits.
            kept: Units of each narrowed group that stay; None leaves that to the evaluator. A super-network's
                slices are its first channels, whatever is said here.
            seed: Of what a rebuild draws.
        """
        known = {option.name for option in self.entry.options}
        inherit: dict[str, Any] = {"run": run}
        if kept is not None and self.entry.source == "dense":
            inherit["kept"] = {group: list(units) for group, units in kept.items()}
        else:
            inherit["select"] = self.setting("select") if "select" in known else "first"
        if self.entry.rebuild:
            settings = {"images": self.setting("calibration"), "places": self.setting("places"), "seed": seed}
            inherit["rebuild"] = {"name": self.entry.rebuild, "options": settings}
        options: dict[str, Any] = {"architecture": arch.to_json(), "inherit": inherit}
        options["norms"] = self.setting("norms") if "norms" in known else 0
        if images := self.setting("images") if "images" in known else 0:
            options["images"] = images
        return options


def evaluator(given: "str | Mapping[str, Any] | Evaluator", **options: Any) -> Evaluator:
    """An evaluator by name, with checked settings; those that are defaults are left out.

    Args:
        given: A name of `EVALUATORS`; or settings as a mapping, `name` among them.
        options: Settings that differ.

    Raises:
        InputError: There is none of that name, or a setting does not exist or cannot have that value.
    """
    if isinstance(given, Evaluator):
        return given
    if not isinstance(given, str):
        options = {**given, **options}
        given = str(options.pop("name", ""))
    if given not in EVALUATORS:
        raise unknown("evaluator", given, EVALUATORS)
    declared = EVALUATORS[given].options
    check_options(given, declared, options)
    usual = {option.name: option.default for option in declared}
    return Evaluator(given, {key: value for key, value in options.items() if value != usual[key]})


def has_batch_norms(space: "SearchSpace") -> bool:
    """Whether statistics of some layer's channels are measured, as batch norms do."""
    return any(site.tensor.endswith(".running_mean") for site in space.survey.sites)


INHERITED = Evaluator("inherited")
"""What scores a point where nobody names another evaluator."""
