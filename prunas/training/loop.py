"""The training loop: every network, protocol and pruning method passes through here."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunas.data.dataset import Draw, Indices, fingerprint, stream_seed
from prunas.errors import InputError
from prunas.files import write_atomic
from prunas.recipe import Recipe
from prunas.surgery.given import state_bytes
from prunas.tasks.base import Feed, Task, judge
from prunas.training.capture import RunnerFactory, StepRunner, eager, random_layers
from prunas.training.determinism import refusal
from prunas.training.distillation import Teacher, taught
from prunas.training.evaluate import evaluate
from prunas.training.feeds import training_feed
from prunas.training.hooks import Combined, Regulariser
from prunas.training.journal import Journal, interrupts
from prunas.training.phases import Phases

__all__ = ["Diverged", "EpochReport", "Preempted", "TrainingOutcome", "check_batches", "train"]


class Diverged(InputError):
    """The loss is no longer a number, mostly because the learning rate is too high.

    The message names the epoch and the last good checkpoint.
    """


class Preempted(Exception):
    """Training stopped because it was asked to; the same call continues it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """How far a training is.

    Attributes:
        epoch: Epochs finished.
        epochs: Epochs there will be.
        loss: Mean loss of the last epoch.
        score: Of the last epoch's (augmented) training samples, each judged before its step; None if the task
            does not judge them.
        score_name: What that number is, for example `accuracy`.
    """

    epoch: int
    epochs: int
    loss: float
    score: float | None
    score_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutcome:
    """What a training leaves behind, besides the weights.

    Attributes:
        epochs: Passes over the training images.
        steps: Optimiser steps.
        seconds: Spent on training, evaluations and time between two sessions of it not counted.
        losses: Mean training loss of each epoch.
        train_scores: Of each epoch, as in `EpochReport`.
        val_scores: After each epoch; empty unless asked for.
        score: After the last epoch, on the split that was asked for.
        score_name: What scores are, for example `accuracy`.
        regulariser: What the regulariser recorded.
        images_per_second: Training images over `seconds`.
        execution: How steps were taken: captured or eager, and why not captured.
    """

    epochs: int
    steps: int
    seconds: float
    losses: tuple[float, ...]
    train_scores: tuple[float | None, ...]
    val_scores: tuple[float, ...]
    score: float | None
    score_name: str
    regulariser: Mapping[str, float]
    images_per_second: float
    execution: Mapping[str, Any]


def train(
    net: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    split: Literal["train", "train+val"],
    score: Literal["val", "test"] | None,
    device: torch.device,
    regulariser: Regulariser | None = None,
    phases: Phases | None = None,
    teacher: Teacher | None = None,
    masks: Mapping[str, Tensor] | None = None,
    folder: Path | None = None,
    checkpoint_every: float = 30.0,
    keep_weights: bool = False,
    every_epoch: bool = False,
    progress: Callable[[EpochReport], None] | None = None,
    stop: Callable[[], bool] | None = None,
    prepare: RunnerFactory = eager,
) -> TrainingOutcome:
    """Trains `net` in place and leaves it on `device`, in evaluation mode.

    A training that was stopped continues from the checkpoint in `folder` and, on a CPU, ends in the same bits
    as one that was not.

    Args:
        net: With its initial weights.
        task: Gives batches, loss and score.
        epochs: Length of this training; `recipe.epochs` is not read.
        seed: Of shuffling, augmentation and random layers. The caller's random state is left alone.
        split: What is trained on.
        score: What `TrainingOutcome.score` is measured on, once, after the last epoch.
        regulariser: A pruning method's penalty.
        phases: What divides the training into phases, with learning rates of its own.
        teacher: A trained network that is listened to beside the labels; None: there is none.
        masks: By parameter name; where a mask is 0 the weight stays 0.
        folder: Where `log.jsonl`, the checkpoint and the weights go; None writes nothing.
        checkpoint_every: Seconds.
        keep_weights: Whether `weights.safetensors` is written at the end.
        every_epoch: Whether the validation score is also measured after every epoch; needs score="val".
        progress: Told after every epoch.
        stop: Asked after every step; True ends the training with `Preempted`.
        prepare: Gives the training its steps; see `prunas.training.capture`.

    Raises:
        InputError: The arguments do not fit together, the task cannot be taught, deterministic algorithms are
            wanted that a layer lacks, or a score is no number of its range.
        Diverged: The loss of an epoch is not finite.
        Preempted: `stop` said so; a checkpoint was written.
        KeyboardInterrupt: Ctrl-C; with a folder, a checkpoint was written.
    """
    _check_arguments(epochs, split, score, every_epoch)
    members = task.members(split, recipe.images)
    check_batches(net, len(members), recipe.batch, split)
    training = _Training(
        task=task,
        recipe=recipe,
        members=members,
        epochs=epochs,
        seed=seed,
        split=split,
        score=score,
        device=device,
        regulariser=regulariser,
        phases=phases,
        teacher=teacher,
        masks=masks,
        folder=folder,
        checkpoint_every=checkpoint_every,
        keep_weights=keep_weights,
        every_epoch=every_epoch,
        progress=progress,
        stop=stop,
    )
    return training.run(net, prepare)


def check_batches(net: nn.Module, images: int, batch: int, split: str) -> None:
    """Refuses epochs that end with a batch of one image, where a network has batch norms.

    Args:
        net: The network.
        images: Of the split.
        batch: Images per step.
        split: Its name, for the message.

    Raises:
        InputError: They do.
    """
    if images % batch == 1 and any(isinstance(module, _BatchNorm) for module in net.modules()):
        raise InputError(
            f"{images} images in batches of {batch} leave a batch of one (in {split}), on which batch norm cannot "
            "train; choose another --batch"
        )


def _check_arguments(epochs: int, split: str, score: str | None, every_epoch: bool) -> None:
    """Refuses arguments of `train` that do not fit together."""
    if score == "val" and split != "train":
        raise InputError('validation images are in the training split "train+val"; score on "test" instead')
    if every_epoch and score != "val":
        raise InputError('a score after every epoch is for validation only; use score="val"')
    if epochs < 1:
        raise InputError(f"a training needs at least 1 epoch, not {epochs}")


@dataclass(frozen=True, kw_only=True)
class _Training:
    """The arguments of `train`, and the parts of a training that read them.

    Attributes:
        members: Positions of the samples that are trained on; the other attributes are as in `train`.
    """

    task: Task
    recipe: Recipe
    members: Indices
    epochs: int
    seed: int
    split: Literal["train", "train+val"]
    score: Literal["val", "test"] | None
    device: torch.device
    regulariser: Regulariser | None
    phases: Phases | None
    teacher: Teacher | None
    masks: Mapping[str, Tensor] | None
    folder: Path | None
    checkpoint_every: float
    keep_weights: bool
    every_epoch: bool
    progress: Callable[[EpochReport], None] | None
    stop: Callable[[], bool] | None

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch takes what is left."""
        return -(-len(self.members) // self.recipe.batch)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.steps_per_epoch * self.epochs

    @property
    def key(self) -> list[Any]:
        """What a checkpoint must agree in to be continued from."""
        key = [self.recipe.identity, self.epochs, self.seed, self.split, self.task.identity]
        if self.recipe.images:
            key.append(
                fingerprint(self.members)
            )  # the task's identity covers whole splits, not a part of one
        if self.teacher is not None:
            key.append([self.teacher.temperature, self.teacher.weight])
        return key

    @cached_property
    def learnt(self) -> Task:
        """What steps descend: the task, with the teacher where there is one."""
        if self.teacher is None:
            return self.task
        return taught(self.task, self.teacher, self.recipe, self.device)

    def run(self, net: nn.Module, prepare: RunnerFactory) -> TrainingOutcome:
        """Trains, or continues, from the first step to the score; see `train`."""
        task, recipe, device, folder = self.task, self.recipe, self.device, self.folder
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        net.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # a documented overload
        hook = self._attach(net)
        feed = training_feed(task, recipe, self.members, device)
        key = self.key
        with (
            prepare(net, self.learnt, feed.gather, recipe, device, hook, self.masks) as runner,
            random_layers(stream_seed("layers", self.seed), runner.generator),
            interrupts(enabled=folder is not None) as interrupted,
        ):
            step = runner.step
            journal = Journal(folder, key, step, device)
            journal.resume()
            pause = _Pause(journal, self.steps, self.checkpoint_every, self.stop, interrupted)
            while journal.done < self.steps:
                self._epoch(feed, runner, journal, pause)
                pause()
            step.release()
            step.settle()
            if step.net is not net:
                step.deliver(net)
            net.eval()
            outcome = self._outcome(net, journal.epochs, runner.execution)
            if self.keep_weights and folder is not None:
                _write_weights(net, folder / "weights.safetensors")
            pause()
        journal.finish()
        return outcome

    def _attach(self, net: nn.Module) -> Regulariser | None:
        """Regulariser and phases as one hook, attached to the network; None if there is neither."""
        hook = self.regulariser
        if self.phases is not None:
            hook = self.phases if hook is None else Combined(hook, self.phases)
        if hook is not None:
            hook.attach(net)
        return hook

    def _epoch(self, feed: Feed, runner: StepRunner, journal: Journal, pause: "_Pause") -> None:
        """One epoch, or what is left of it, up to its line in the log."""
        task, phases, step = self.task, self.phases, runner.step
        epoch, first = divmod(journal.done, self.steps_per_epoch)
        started = time.perf_counter() - journal.spent
        if phases is not None and not first and phases.begin(epoch, self.epochs, self.masks or {}):
            step.forget()
        step.net.train()
        lr = self._steps(feed.draws(self.seed, epoch, first), feed, runner, journal, started, pause)
        loss_sum, totals = step.totals()
        if not math.isfinite(loss_sum):
            raise Diverged(
                f"the loss is {loss_sum} in epoch {epoch + 1} of {self.epochs}, try a lower learning rate "
                f"(last good checkpoint: {journal.last or 'none'})"
            )
        line: dict[str, Any] = {
            "epoch": epoch + 1,
            "lr": lr,
            "loss": loss_sum / len(self.members),
            "train_score": judge(task, totals, "training samples") if task.scores_training else None,
            "seconds": time.perf_counter() - started,
        }
        if phases is not None:
            line["phase"] = phases.phase(epoch, self.epochs)
        if self.every_epoch:
            with step.judged():
                line["val_score"] = evaluate(step.net, task, "val", device=self.device, recipe=self.recipe)
        journal.end_epoch(line)
        if runner.notice is not None:
            journal.warn(runner.notice)
        if self.progress is not None:
            report = EpochReport(
                epoch=epoch + 1,
                epochs=self.epochs,
                loss=line["loss"],
                score=line["train_score"],
                score_name=task.score.name,
            )
            self.progress(report)

    def _steps(
        self,
        draws: Iterable[Draw],
        feed: Feed,
        runner: StepRunner,
        journal: Journal,
        started: float,
        pause: "_Pause",
    ) -> float:
        """A step for each draw, with a pause after all but the epoch's last; returns the last learning rate."""
        lr_at = self.recipe.lr_at if self.phases is None else partial(self.phases.lr_at, self.recipe)
        steps_per_epoch = self.steps_per_epoch
        for draw in draws:
            runner.step.set_lr(lr := lr_at(journal.done, steps_per_epoch, self.epochs))
            try:
                runner.advance(draw)
            except RuntimeError as error:
                # About the whole process's setting, so no other training would fare better.
                again = partial(self.learnt.loss, runner.step.net, feed.gather(draw))
                if (refused := refusal(error, runner.step.net, again)) is not None:
                    raise refused from error
                raise
            journal.done += 1
            journal.spent = time.perf_counter() - started
            if journal.done % steps_per_epoch:
                pause()
        return lr

    def _outcome(
        self, net: nn.Module, lines: Sequence[Mapping[str, Any]], execution: Mapping[str, Any]
    ) -> TrainingOutcome:
        """Scores the trained network, and sums up the log's lines about epochs."""
        score: float | None = None
        if self.every_epoch:
            score = lines[-1]["val_score"]
        elif self.score:
            score = evaluate(net, self.task, self.score, device=self.device, recipe=self.recipe)
        seconds = sum(line["seconds"] for line in lines)
        return TrainingOutcome(
            epochs=self.epochs,
            steps=self.steps,
            seconds=seconds,
            losses=tuple(line["loss"] for line in lines),
            train_scores=tuple(line["train_score"] for line in lines),
            val_scores=tuple(line["val_score"] for line in lines if "val_score" in line),
            score=score,
            score_name=self.task.score.name,
            regulariser=self.regulariser.record() if self.regulariser is not None else {},
            images_per_second=len(self.members) * self.epochs / seconds,
            execution=execution,
        )


class _Pause:
    """Between two steps: saves where it is time to, and stops where it was asked to."""

    def __init__(
        self,
        journal: Journal,
        steps: int,
        checkpoint_every: float,
        stop: Callable[[], bool] | None,
        interrupted: Callable[[], bool],
    ) -> None:
        self._journal, self._steps = journal, steps
        self._checkpoint_every, self._stop, self._interrupted = checkpoint_every, stop, interrupted
        self._saved = time.monotonic()

    def __call__(self) -> None:
        done = self._journal.done
        stopping = self._stop is not None and self._stop()
        due = time.monotonic() - self._saved >= self._checkpoint_every and done < self._steps
        if not (stopping or due or self._interrupted()):
            return
        self._journal.save()
        self._saved = time.monotonic()
        if self._interrupted():
            raise KeyboardInterrupt
        if stopping:
            raise Preempted(f"stopped after {done} of {self._steps} steps; the same call continues")


def _write_weights(net: nn.Module, path: Path) -> None:
    weights = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    write_atomic(path, lambda file: file.write(state_bytes(weights)))
