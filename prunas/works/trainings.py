"""Trainings written down as jobs, and their results read back as rows. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunas import live
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import RowKind
from prunas.plugins import resolve
from prunas.proposers.brief import Penalty, Proposal
from prunas.proposers.evaluators import Evaluator
from prunas.proposers.supernet.quanta import mean_macs
from prunas.protocols import BACKWARD, PROTOCOLS, SCRATCH, TAUGHT, Protocol, untaught
from prunas.recipe import Recipe
from prunas.results.rows import TrainingRow
from prunas.runs.execute import Outcome
from prunas.runs.job import Job
from prunas.spaces.reference import Reference
from prunas.spaces.space import SearchSpace
from prunas.surgery.given import Weights
from prunas.tasks.load import CLASSIFICATION, TaskReference
from prunas.tasks.score import ACCURACY, Score

__all__ = ["Setting", "Training", "WorkRequest"]

WORK = "train"
GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Setting:
    """What all trainings of an experiment have in common.

    Attributes:
        space: The search space.
        recipe: The recipe.
        data: Name of the data set; "" if the task needs none.
        identity: What the data are, see `prunas.data`.
        images: Images of the splits `train` and `train+val` that an epoch passes over.
        notes: What a reader should know about the data.
        dense_training: How the dense network of pruning methods is trained: the recipe's epochs or `dsd`.
        chance: The best test score that guessing reaches by chance; None where it is not known.
        root: Folder of the data sets, absolute. It travels with every job, outside its identity; None leaves it to
            each machine, see `prunas.data.data_folder`.
        task: What networks are trained for.
        score: What their scores mean.
        data_from: What any process finds the data by, if that is more than a name.
        dense_from: Given weights of the dense network of pruning methods, which is then not trained. None has it
            trained.
    """

    space: SearchSpace
    recipe: Recipe
    data: str
    identity: str
    images: Mapping[str, int]
    notes: tuple[str, ...] = ()
    dense_training: Protocol = SCRATCH
    chance: float | None = None
    root: Path | None = None
    task: TaskReference = CLASSIFICATION
    score: Score = ACCURACY
    dense_from: Weights | None = None
    data_from: Reference | None = None

    @property
    def data_reference(self) -> Reference | None:
        """What any process finds the data by; None if the task needs none."""
        named = Reference(self.data, self.identity) if self.data else None
        return self.data_from or named

    @property
    def _data(self) -> dict[str, Any]:
        return (self.data_reference or Reference("")).to_json()

    def __post_init__(self) -> None:
        """Refuses a dense training that would need a dense training, or that given weights replace."""
        how = self.dense_training
        if not how.trains_dense or how.teacher is not None:
            able = " or ".join(name for name, entry in PROTOCOLS.items() if entry.trains_dense)
            raise InputError(
                f"the dense network cannot be trained by {how.name!r}; use {able} (and --epochs)"
            )
        if self.dense_from is not None and how != SCRATCH:
            raise InputError(
                f"the dense network has given weights ({self.dense_from}) and is not trained by {how.name!r}; "
                "leave one of the two out"
            )

    def _job(
        self,
        label: str,
        arch: Architecture,
        seed: int,
        schedule: tuple[Recipe, int],
        split: str,
        score: str,
        *,
        work: str | None = None,
        **changes: Any,
    ) -> Job:
        recipe, epochs = schedule
        data = self._data
        if recipe.images and split == "train+val":
            # The identity covers whole splits; of a part it is what both splits give that says which part.
            train = self.images["train"]
            data["images"] = {"train": train, "val": self.images[split] - train}
        spec: dict[str, Any] = {
            "space": self.space.reference,
            "architecture": arch.to_json(),
            "recipe": recipe.replace(name="").to_json(),  # what it is called changes nothing
            "epochs": epochs,
            "seed": seed,
            "split": split,
            "score": score,
            "data": data,
            "inherit": None,
            "penalty": None,
            "keep_weights": False,
        }
        return self._placed(work or WORK, spec | changes, label)

    def _placed(self, work: str, spec: Mapping[str, Any], label: str) -> Job:
        """A job with the task of this setting, and the folder of its data."""
        task = {} if self.task.implied else {"task": self.task.to_json()}
        places = {} if self.root is None else {"data": str(self.root)}
        return Job(work, {**spec, **task}, self.space.name, label, places)

    @property
    def live(self) -> list[str]:
        """Names of what exists in this process alone, see `prunas.live`."""
        return live.names_in([self.space.reference, self._data, self.task.to_json()])

    def schedule(self, how: Protocol, arch: Architecture, cap: float | None = None) -> tuple[Recipe, int]:
        """The recipe of a training, and its epochs; see `Protocol.schedule`."""
        return how.schedule(self.recipe, self.space, arch, cap)

    @property
    def lr_sum(self) -> float:
        """Sum of the learning rates of all steps of the dense training."""
        how, steps = self.dense_training, -(-self.images["train"] // self.recipe.batch)
        recipe, epochs = self.schedule(how, self.space.dense)
        if how.phases is None:
            return recipe.lr_sum(steps, epochs)
        phases = resolve("prunas.phases", how.phases["name"])(**how.phases["options"])
        return float(sum(phases.lr_at(recipe, step, steps, epochs) for step in range(steps * epochs)))

    def dense(self, seed: int, penalty: Penalty | None) -> "Training":
        """The dense network a pruning method asks for: trained on train, scored on validation.

        With given weights it is `given`, whatever the seed, and a penalty trains on from those.
        """
        if self.dense_from is not None and penalty is None:
            return self.given(self.dense_from)
        document = penalty.to_json() if penalty else None
        changes: dict[str, Any] = {"penalty": document, "keep_weights": True}
        if self.dense_from is not None:
            changes["inherit"] = {"run": self.given(self.dense_from).job.name, "kept": {}}
        if self.dense_training.phases is not None:
            changes["phases"] = self.dense_training.phases
        schedule = self.schedule(self.dense_training, self.space.dense)
        job = self._job("dense", self.space.dense, seed, schedule, "train", "val", **changes)
        return self._training(job, self.space.dense, "penalty" if penalty else "dense")

    def given(self, weights: Weights) -> "Training":
        """The dense network with given weights, scored on validation: a training of no epochs, for all seeds."""
        dense, document = self.space.dense, weights.to_json()
        changes: dict[str, Any] = {"weights": document, "keep_weights": True}
        job = self._job("given", dense, 0, (self.recipe, 0), "train", "val", work=GIVEN, **changes)
        if weights.path is not None:
            job = replace(job, places={**job.places, "weights": str(weights.path)})
        return self._training(job, dense, GIVEN)

    def work(self, name: str, options: Mapping[str, Any], seed: int) -> Job:
        """A work that a proposer asks for by name, with this space, recipe and data.

        Args:
            name: Registered, see `prunas.names`.
            options: JSON values of its own.
            seed: Of the search.
        """
        spec: dict[str, Any] = {
            "space": self.space.reference,
            "recipe": self.recipe.replace(name="").to_json(),
            "data": self._data,
            "seed": seed,
            "options": dict(options),
        }
        return self._placed(name, spec, name.replace("/", "-"))

    def candidate(self, arch: Architecture, seed: int, fraction: float = 1.0) -> "Training":
        """A sampler's trial: trained on train, scored on validation.

        Args:
            arch: The point.
            seed: Of the search.
            fraction: Share of the recipe's epochs; its schedule is passed through whole, only faster.
        """
        epochs = max(1, round(fraction * self.recipe.epochs))
        job = self._job("trial", arch, seed, (self.recipe, epochs), "train", "val")
        return self._training(job, arch, "scratch-e")

    def supernet(self, seed: int, options: Mapping[str, Any]) -> "Training":
        """The super-network that an evaluator reads: trained on train, scored on validation as a whole.

        Args:
            seed: Of the search.
            options: As `Evaluator.supernet` gives them.
        """
        epochs = max(1, round(options["lengths"] * self.recipe.epochs))
        slices = {key: options[key] for key in ("quanta", "sampled")}
        dense = self.space.dense
        changes: dict[str, Any] = {"keep_weights": True, "supernet": slices}
        job = self._job("supernet", dense, seed, (self.recipe, epochs), "train", "val", **changes)
        training = self._training(job, dense, "supernet")
        share = mean_macs(self.space, slices["quanta"], slices["sampled"]) / self.space.cost(dense).macs
        return replace(training, macs=round(training.macs * share))

    def evaluation(
        self,
        arch: Architecture,
        how: Evaluator,
        seed: int,
        run: str = "",
        kept: Mapping[str, Sequence[int]] | None = None,
    ) -> "Training":
        """A candidate that an evaluator scores on validation, instead of a whole training.

        Args:
            arch: The point.
            how: The evaluator.
            seed: Of the search.
            run: The run whose weights the point inherits, if the evaluator reads any.
            kept: See `Evaluator.request`.
        """
        if how.entry.source == "none":
            return self.candidate(arch, seed, how.setting("share"))
        job = self.work("evaluate", how.request(arch, run, kept, seed), seed)
        return Training(job, arch, how.name, 0, 0)

    def final(
        self,
        proposal: Proposal,
        how: Protocol,
        seed: int,
        cap: float | None,
        keep: bool | None = None,
        splits: tuple[str, str] = ("train+val", "test"),
    ) -> "Training":
        """The training a point is judged by: on train and validation, tested once after the last epoch.

        Args:
            proposal: The point.
            how: The protocol.
            seed: Of the initial weights and the batches.
            cap: Largest factor of Scratch-B where the protocol names none, or None.
            keep: Whether the weights are kept; None: those up to `prunas.works.train.KEPT_UP_TO`. True is another
                run, for its name says so.
            splits: What it is trained on, and what it is scored on after the last epoch.

        Raises:
            InputError: The protocol inherits weights, or has a teacher, and the proposal knows of none.
        """
        arch = proposal.architecture
        schedule = self.schedule(how, arch, cap)
        changes: dict[str, Any] = {"keep_weights": keep is True, "inherit": how.inherits(proposal)}
        if how.phases is not None:
            changes["phases"] = how.phases
        label = how.label(self.recipe, schedule[1])
        if (teacher := how.teaching(proposal)) is not None:
            changes["teacher"] = teacher
            label = untaught(label) + TAUGHT
        job = self._job(label, arch, seed, schedule, *splits, **changes)
        if keep is False:
            job = replace(job, places={**job.places, "weights_of_finals": "dropped"})
        return self._training(job, arch, how.name)

    def _training(self, job: Job, arch: Architecture, how: str) -> "Training":
        epochs = job.spec["epochs"]
        taught = self.space.cost(self.space.dense).macs if "teacher" in job.spec else 0
        image = BACKWARD * self.space.cost(arch).macs + taught
        return Training(job, arch, how, epochs, image * epochs * self.images[job.spec["split"]], self.chance)


@dataclass(frozen=True, slots=True)
class WorkRequest:
    """A work that a proposer asked for by name.

    Attributes:
        job: As any process can execute it.
    """

    job: Job


@dataclass(frozen=True, slots=True)
class Training:
    """One training, planned.

    Attributes:
        job: As any process can execute it.
        architecture: What is trained.
        protocol: How.
        epochs: How long.
        macs: Multiply-accumulates of the whole training.
        chance: The best test score that guessing reaches by chance, if it is known.
    """

    job: Job
    architecture: Architecture
    protocol: str
    epochs: int
    macs: int
    chance: float | None = None

    def row(
        self,
        space: SearchSpace,
        outcome: Outcome | None,
        *,
        proposer: str,
        kind: RowKind,
        asked: Target,
        search_seed: int,
        folder: str,
        flags: tuple[str, ...] = (),
    ) -> TrainingRow:
        """The row of this training, whatever became of it."""
        values = outcome.result.values if outcome and outcome.result else {}
        score = values.get("score")
        tested = self.job.spec["score"] == "test"
        status = "planned" if outcome is None else "finished" if outcome.result else outcome.status
        return TrainingRow(
            id=self.job.id,
            proposer=proposer,
            kind=kind,
            asked=asked,
            reached=space.cost(self.architecture),
            protocol=self.protocol,
            epochs=self.epochs,
            train_macs=self.macs,
            search_seed=search_seed,
            train_seed=self.job.spec["seed"],
            status=status,
            val_score=None if tested else score,
            test_score=score if tested else None,
            architecture=self.architecture.digest,
            folder=folder,
            flags=flags,
            chance=self.chance if tested else None,
            pruned_score=values.get("pruned_score"),
        )
