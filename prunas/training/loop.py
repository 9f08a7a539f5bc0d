"""The training loop: every network, protocol and pruning method passes through here."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunas.data.dataset import fingerprint, stream_seed
from prunas.errors import InputError
from prunas.files import write_atomic
from prunas.recipe import Recipe
from prunas.tasks.base import Task, judge
from prunas.training.capture import RunnerFactory, eager, random_layers
from prunas.training.determinism import refusal
from prunas.training.evaluate import evaluate
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
        masks: By parameter name; where a mask is 0 the weight stays 0.
        folder: Where `log.jsonl`, the checkpoint and the weights go; None writes nothing.
        checkpoint_every: Seconds.
        keep_weights: Whether `weights.safetensors` is written at the end.
        every_epoch: Whether the validation score is also measured after every epoch; needs score="val".
        progress: Told after every epoch.
        stop: Asked after every step; True ends the training with `Preempted`.
        prepare: Gives the training its steps; see `prunas.training.capture`.

    Raises:
        InputError: The arguments do not fit together, deterministic algorithms are wanted that a layer lacks, or a
            score is no number of its range.
        Diverged: The loss of an epoch is not finite.
        Preempted: `stop` said so; a checkpoint was written.
        KeyboardInterrupt: Ctrl-C; with a folder, a checkpoint was written.
    """
    if score == "val" and split != "train":
        raise InputError('validation images are in the training split "train+val"; score on "test" instead')
    if every_epoch and score != "val":
        raise InputError('a score after every epoch is for validation only; use score="val"')
    if epochs < 1:
        raise InputError(f"a training needs at least 1 epoch, not {epochs}")
    members = task.members(split, recipe.images)
    per_epoch = -(-len(members) // recipe.batch)
    total = per_epoch * epochs
    check_batches(net, len(members), recipe.batch, split)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    net.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # a documented overload
    hook = regulariser
    if phases is not None:
        hook = phases if regulariser is None else Combined(regulariser, phases)
    if hook is not None:
        hook.attach(net)
    feed = task.feed(
        members, recipe.batch, device=device, augment=recipe.augment, channels_last=recipe.channels_last
    )
    lr_at = recipe.lr_at if phases is None else partial(phases.lr_at, recipe)
    key = [recipe.identity, epochs, seed, split, task.identity]
    if recipe.images:
        key.append(fingerprint(members))  # the task's identity covers whole splits, not a part of one

    with (
        prepare(net, task, feed.gather, recipe, device, hook, masks) as bench,
        random_layers(stream_seed("layers", seed), bench.generator),
        interrupts(enabled=folder is not None) as interrupted,
    ):
        step = bench.step
        record = Journal(folder, key, step, device)
        record.resume()
        saved = time.monotonic()

        def pause() -> None:
            """Between two steps: saves where it is time to, and stops where it was asked to."""
            nonlocal saved
            stopping = stop is not None and stop()
            due = time.monotonic() - saved >= checkpoint_every and record.done < total
            if not (stopping or due or interrupted()):
                return
            record.save()
            saved = time.monotonic()
            if interrupted():
                raise KeyboardInterrupt
            if stopping:
                raise Preempted(f"stopped after {record.done} of {total} steps; the same call continues")

        while record.done < total:
            epoch, first = divmod(record.done, per_epoch)
            started = time.perf_counter() - record.spent
            if phases is not None and not first and phases.begin(epoch, epochs, masks or {}):
                step.forget()
            step.net.train()
            for draw in feed.draws(seed, epoch, first):
                step.set_lr(lr := lr_at(record.done, per_epoch, epochs))
                try:
                    bench.advance(draw)
                except RuntimeError as error:
                    # About the whole process's setting, so no other training would fare better.
                    again = partial(task.loss, step.net, feed.gather(draw))
                    if (refused := refusal(error, step.net, again)) is not None:
                        raise refused from error
                    raise
                record.done += 1
                record.spent = time.perf_counter() - started
                if record.done % per_epoch:
                    pause()
            loss_sum, totals = step.totals()
            if not math.isfinite(loss_sum):
                raise Diverged(
                    f"the loss is {loss_sum} in epoch {epoch + 1} of {epochs}, try a lower learning rate "
                    f"(last good checkpoint: {record.last or 'none'})"
                )
            line: dict[str, Any] = {
                "epoch": epoch + 1,
                "lr": lr,
                "loss": loss_sum / len(members),
                "train_score": judge(task, totals, "training samples") if task.scores_training else None,
                "seconds": time.perf_counter() - started,
            }
            if phases is not None:
                line["phase"] = phases.phase(epoch, epochs)
            if every_epoch:
                line["val_score"] = evaluate(step.net, task, "val", device=device, recipe=recipe)
            record.end_epoch(line)
            if bench.notice is not None:
                record.warn(bench.notice)
            if progress is not None:
                progress(
                    EpochReport(
                        epoch=epoch + 1,
                        epochs=epochs,
                        loss=line["loss"],
                        score=line["train_score"],
                        score_name=task.score.name,
                    )
                )
            pause()
        step.release()
        if step.net is not net:
            step.deliver(net)
        net.eval()
        lines = record.epochs
        if every_epoch:
            measured: float | None = lines[-1]["val_score"]
        else:
            measured = evaluate(net, task, score, device=device, recipe=recipe) if score else None
        seconds = sum(line["seconds"] for line in lines)
        trained = TrainingOutcome(
            epochs=epochs,
            steps=total,
            seconds=seconds,
            losses=tuple(line["loss"] for line in lines),
            train_scores=tuple(line["train_score"] for line in lines),
            val_scores=tuple(line["val_score"] for line in lines if "val_score" in line),
            score=measured,
            score_name=task.score.name,
            regulariser=regulariser.record() if regulariser is not None else {},
            images_per_second=len(members) * epochs / seconds,
            execution=bench.execution,
        )
        if keep_weights and folder is not None:
            # Copies, because tied parameters share storage, which the format does not allow.
            weights = {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}
            write_atomic(folder / "weights.safetensors", lambda f: f.write(safetensors.torch.save(weights)))
        pause()
    record.finish()
    return trained


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
