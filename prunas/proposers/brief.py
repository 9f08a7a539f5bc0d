"""What a proposer is told, and what it answers. Torch-free: weights come only when they are asked for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.evaluators import INHERITED, Evaluator
from prunas.results.rows import SearchCost
from prunas.spaces.space import SearchSpace
from prunas.tasks.score import ACCURACY, Score

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Brief",
    "DenseNetwork",
    "Evaluating",
    "Penalty",
    "Pending",
    "Proposal",
    "Proposer",
    "Rebuild",
    "Source",
    "Trial",
    "penalty_strength",
]


@dataclass(frozen=True, slots=True)
class Penalty:
    """A regulariser for the dense training, by name, so that a job can carry it.

    Attributes:
        name: Registered name of its class, see `prunas.names` and `prunas.training.hooks.Regulariser`.
        options: Its keyword arguments; JSON values.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Both fields by name."""
        return {"name": self.name, "options": dict(self.options)}


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What is done to the dense weights before a point inherits them, by name, so that a job can carry it.

    The numbers themselves would depend on how a machine rounds, and with them the names of runs.

    Attributes:
        name: Registered name of a function (space, architecture, weights, kept, calibration, **options) that
            returns the changed weights; `calibration` is as in `Brief`.
        options: Its keyword arguments, a `seed` among them; JSON values.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Both fields by name."""
        return {"name": self.name, "options": dict(self.options)}


@dataclass(frozen=True, slots=True)
class DenseNetwork:
    """A trained dense network.

    Attributes:
        run: Its run, from which sliced weights can be inherited.
        weights: Loads its state dict, on the CPU.
        record: What its regulariser recorded.
    """

    run: str
    weights: Callable[[], "Mapping[str, Tensor]"]
    record: Mapping[str, float]


class Pending(Exception):
    """A training that a proposer asked for is not finished.

    Proposers let it pass: they are called again with the same brief when the training is there.
    """


@dataclass(frozen=True, slots=True)
class Proposal:
    """One answer.

    Attributes:
        target: The budget it answers.
        architecture: The point.
        flags: What a reader must know: `floor`: a layer would have been emptied; `target_missed`: further from
            the target than the tolerance; `penalty_not_acted`; `macs_not_matched`; `none_left_out`: a design made
            of the shapes of all seeds, so that several seeds share it.
        kept: Units of each narrowed group the method would keep, for inheriting weights; None if it only
            knows the shape.
        weights_of: The run those weights come from; None if the method keeps none worth inheriting.
        rebuild: What the method does to them first.
        fraction: Share of the recipe's epochs that its trial trains, in (0, 1]: a schedule of its own, drops of
            the learning rate included. What answers a target is trained whole whatever it says.
    """

    target: Target
    architecture: Architecture
    flags: tuple[str, ...] = ()
    kept: Mapping[str, tuple[int, ...]] | None = None
    weights_of: str | None = None
    rebuild: Rebuild | None = None
    fraction: float = 1.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that was trained on the training split.

    Attributes:
        proposal: The candidate, with the share of the schedule it was trained for.
        score: On the validation split; None if its training failed. `Brief.score` says what it means.
    """

    proposal: Proposal
    score: float | None


@dataclass(frozen=True, slots=True)
class Source:
    """Where transferred designs come from.

    Attributes:
        space: Another space.
        points: What was found there, by all seeds.
        proposer: Who found them; "" if nobody says.
        shipped: Whether they are those of `search_spaces/found/`.
        seeds: Of the search that found each of `points`; () if nobody says.
        costs: What those searches cost; () if nobody says.
    """

    space: SearchSpace
    points: tuple[Proposal, ...]
    proposer: str = ""
    shipped: bool = False
    seeds: tuple[int, ...] = ()
    costs: tuple[SearchCost, ...] = ()

    def without(self, seed: int) -> "Source":
        """What the searches with other seeds found; everything if there are none or the seeds are not known."""
        others = [(p, s) for p, s in zip(self.points, self.seeds, strict=False) if s != seed]
        if not others:
            return self
        return replace(
            self,
            points=tuple(point for point, _ in others),
            seeds=tuple(other for _, other in others),
            costs=tuple(cost for cost in self.costs if cost.seed != seed),
        )


def penalty_strength(pull: float, lr_sum: float, momentum: float) -> float:
    """Strength of a penalty that pulls a scale by `pull` in all, over the steps of the dense training.

    Args:
        pull: See `prunas.proposers.pruning.slimming`.
        lr_sum: Of the training, see `Brief`.
        momentum: Of the training.

    Raises:
        InputError: The sum of the learning rates is not known.
    """
    if not lr_sum > 0:
        raise InputError(
            f"a penalty acts over the steps of the dense training, and the brief's lr_sum is {lr_sum:g}; give it "
            "the sum of the learning rates, see Recipe.lr_sum"
        )
    return pull * (1 - momentum) / lr_sum


@dataclass(frozen=True, slots=True)
class Brief:
    """Everything a proposer may use.

    Attributes:
        space: The search space.
        targets: The budgets to answer, largest first.
        seed: Of this search; decides everything that is drawn.
        trials: Candidates a sampler may train per target; of shorter schedules, whole ones' worth.
        lr_sum: Sum of the learning rates of the dense training's steps.
        momentum: Of the dense training.
        score: What the scores of trials mean, and which of two is better.
        found: What pruning methods found with the same seed; to a sampler, the first points it tries.
        found_by_others: What they found with the other seeds; with its own where that is the only one.
        leaves_one_out: Whether `found_by_others` lacks what was found with `seed`.
        source: What was found in another space, if designs are to be transferred.
        work: Has a registered work done with these options, or fetches its result; raises `Pending`. See `run`.
        dense: Trains the dense network with a penalty, or fetches the run that exists; raises `Pending`.
        initial: Draws the weights that the dense network of this seed is born with, on the CPU.
        calibration: Batches (images, labels) of so many images of the training split, without augmentation, on
            the CPU; always the same ones for a seed. None if there are no data.
        evaluator: How the search scores candidates unless told otherwise; None: by training them.
        supernet: Trains the super-network with these settings, or fetches the run that exists; raises `Pending`.
        short_training: Scores a point by a training from scratch over a share of the recipe's epochs; raises
            `Pending`.
        loss: Mean loss of a network on such a batch, a scalar with a gradient. None if there is no task.
    """

    space: SearchSpace
    targets: tuple[Target, ...]
    seed: int
    trials: int = 1
    lr_sum: float = 0.0
    momentum: float = 0.9
    score: Score = ACCURACY
    found: tuple[Proposal, ...] = ()
    found_by_others: tuple[Proposal, ...] = ()
    leaves_one_out: bool = False
    source: Source | None = None
    work: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] | None = None
    dense: Callable[[Penalty | None], DenseNetwork] | None = None
    initial: "Callable[[], Mapping[str, Tensor]] | None" = None
    calibration: "Callable[[int], Iterable[tuple[Tensor, Tensor]]] | None" = None
    evaluator: Evaluator | None = None
    supernet: Callable[[Mapping[str, Any]], DenseNetwork] | None = None
    short_training: Callable[[Architecture, float], float] | None = None
    loss: "Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor] | None" = None

    def trained(self, penalty: Penalty | None = None) -> DenseNetwork:
        """The trained dense network; see `dense`."""
        if self.dense is None:
            raise Pending
        return self.dense(penalty)

    def run(self, work: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The result of a work, which is executed like a training: once, by any executor, continued when stopped.

        A work is a function `(spec, folder=, progress=, stop=)`, see `prunas.runs.execute.execute`. Its `spec`
        holds the `space`, the `recipe`, the `data` and the `seed` of this search, and these `options`. Of what it
        returns `macs` and `seconds` are the price of the search; without `seconds` the wall time counts. `worth`
        is how many evaluations would have passed as many images, which is what rivals are given (`tpe@enas`);
        without it a work counts as one. Several run side by side if all are asked for before `Pending` passes.

        Args:
            work: Registered name, of `prunas.names` or of another package's entry point in `prunas.works`.
            options: JSON values.

        Raises:
            Pending: It is not finished.
        """
        if self.work is None:
            raise Pending
        return self.work(work, options)

    def evaluate(
        self,
        arch: Architecture,
        evaluator: Evaluator | None = None,
        *,
        dense: DenseNetwork | None = None,
        kept: Mapping[str, Sequence[int]] | None = None,
    ) -> float:
        """Score of a point on the validation split by an evaluator, without a training of its own.

        The one way by which agents, samplers and other methods score candidates: a job, executed once for a point,
        priced, and fetched the next time. Several are executed side by side if all are asked for before `Pending`
        passes; see `evaluate_all`. A loop of very many evaluations is better a work of its own, which scores in
        its process by `prunas.works.evaluators.Scorer`.

        Args:
            arch: The point.
            evaluator: How, as `prunas.proposers.evaluators.evaluator("adaptive-bn", norms=640)` makes it; by
                default the one that the search names, else `inherited`.
            dense: Whose weights it inherits where the evaluator reads a dense network; by default that which is
                trained without a penalty.
            kept: Units of each narrowed group that stay; by default the evaluator chooses. Super-networks, whose
                slices are their first channels, and short trainings do without.

        Raises:
            Pending: It, or the training of the network that it reads, is not finished.
            InputError: `kept` does not fit the point, or the evaluator cannot score points of this space.
        """
        how = evaluator or self.evaluator or INHERITED
        how.check(self.space)
        if how.entry.source == "none":
            if self.short_training is None:
                raise Pending
            return self.short_training(arch, how.setting("share"))
        source = self.super_network(how) if how.entry.source == "supernet" else dense or self.trained()
        widths = {group: len(units) for group, units in (kept or {}).items()}
        for group, width in arch.widths if kept is not None else ():
            if widths.get(group) != width:
                raise InputError(
                    f"group {group!r} keeps {width} units, but {widths.get(group, 0)} are named; say in `kept` "
                    "which channels of the dense network the point inherits"
                )
        return float(self.run("evaluate", how.request(arch, source.run, kept, self.seed))["score"])

    def evaluate_all(
        self,
        archs: Sequence[Architecture],
        evaluator: Evaluator | None = None,
        *,
        dense: DenseNetwork | None = None,
        kept: Sequence[Mapping[str, Sequence[int]] | None] | None = None,
    ) -> list[float]:
        """As `evaluate` of each of several points, which are scored side by side where the executor can.

        Args:
            archs: The points.
            evaluator: As there.
            dense: As there, for all.
            kept: As there, one for each point.

        Raises:
            Pending: One of them is not finished; all were asked for.
        """
        scores, waits = [], False
        for arch, units in zip(archs, kept or [None] * len(archs), strict=True):
            try:
                scores.append(self.evaluate(arch, evaluator, dense=dense, kept=units))
            except Pending:
                waits = True
        if waits:
            raise Pending
        return scores

    def super_network(self, evaluator: Evaluator) -> DenseNetwork:
        """The super-network that an evaluator reads, see `prunas.works.supernet`.

        Raises:
            Pending: Its training is not finished.
        """
        if self.supernet is None:
            raise Pending
        return self.supernet(evaluator.supernet)

    def untrained(self) -> "Mapping[str, Tensor]":
        """The state dict of the dense network before training; see `initial`."""
        if self.initial is None:
            raise Pending
        return self.initial()


class Proposer(Protocol):
    """Finds points of a space: a pure function of the brief and the trials so far.

    It is called again after every result until it answers nothing. Pruning methods and controls answer
    everything at the first call; samplers propose the next candidates. The same brief and trials give the same
    proposals, so a search that was killed resumes by being repeated.
    """

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> Sequence[Proposal]:
        """The next points.

        Args:
            brief: What is asked.
            trials: Results of earlier proposals, in the order they were proposed.

        Raises:
            Pending: A training it needs is not finished.
            InputError: The method cannot serve this space; the message says which can.
        """


class Evaluating(Proposer, Protocol):
    """A proposer that searches by evaluations, and says by which; see `Entry.evaluates`."""

    def scored_by(self, space: SearchSpace, named: Evaluator | None = None) -> Evaluator:
        """The evaluator of its candidates, which its rivals are given too.

        Args:
            space: The space.
            named: The one that the search names, if it names any.
        """
