"""Whether a recipe has steps enough: a large batch on few images starves a training, at the same cost."""

from collections.abc import Iterable, Sequence

from prunas.proposers.evaluators import Evaluator
from prunas.proposers.registry import entry
from prunas.protocols import Protocol
from prunas.works.trainings import Setting

__all__ = ["FEWEST_STEPS", "few_steps", "reads_dense", "trains_dense", "warnings_of"]

FEWEST_STEPS = 500
"""Optimiser steps below which a training from scratch is far from done, about. A small ResNet-20 on 5,000 images
of CIFAR-10 reached 32.9 % in 60 steps of batch 512, 44.4 % at batch 128 and 53.4 % at batch 64, at equal cost."""

_SMALLEST_BATCH = 16


def warnings_of(
    setting: Setting,
    protocols: Sequence[Protocol],
    proposers: Sequence[str] = (),
    evaluator: Evaluator | None = None,
) -> tuple[str, ...]:
    """What a person should know before anything is trained: trainings too short, or slow by what is emulated.

    Args:
        setting: Space, recipe and data.
        protocols: How points are trained.
        proposers: Who proposes them.
        evaluator: How candidates are scored; None trains them.
    """
    notes = []
    scored_dense = evaluator is not None and evaluator.entry.source == "dense"
    if few := few_steps(setting, protocols, trains_dense(setting, proposers)):
        notes.append(f"{setting.space.name}: {few}")
    if proposers and setting.dense_from is not None and not (scored_dense or reads_dense(proposers)):
        notes.append(
            "nobody in this search reads the given weights; add a method that does, such as --proposer l1-global"
        )
    if setting.recipe.precision == "bf16":
        from prunas.training.precision import fast_bf16
        from prunas.works.runtime import device

        if not fast_bf16(device()):
            notes.append(
                "bf16 will be slow, a tenth of fp32's speed: a processor without AVX512-BF16 or AMX emulates it; "
                "--precision auto takes what is fast"
            )
    return tuple(notes)


def reads_dense(proposers: Iterable[str]) -> bool:
    """Whether one of these proposers asks for the dense network."""
    return any("dense" in entry(name).needs for name in proposers)


def trains_dense(setting: Setting, proposers: Iterable[str]) -> bool:
    """Whether a dense network is trained from new weights for these proposers; given ones are at most tuned."""
    return setting.dense_from is None and reads_dense(proposers)


def few_steps(setting: Setting, protocols: Iterable[Protocol], dense: bool) -> str | None:
    """One line for the shortest training from scratch, if it takes fewer than about `FEWEST_STEPS` steps.

    Trainings that inherit weights are short on purpose and have no say.

    Args:
        setting: Space, recipe and data.
        protocols: How points are trained.
        dense: Whether dense networks are trained on the training split, for what inherits or prunes them.
    """
    lengths = [(how, setting.images["train+val"]) for how in protocols if how.weights == "fresh"]
    lengths += [(setting.dense_training, setting.images["train"])] if dense else []
    trainings = [(setting.schedule(how, setting.space.dense)[1], images) for how, images in lengths]
    batch = setting.recipe.batch
    if not trainings:
        return None
    epochs, images = min(trainings, key=lambda training: training[0] * _batches(training[1], batch))
    steps = epochs * _batches(images, batch)
    if steps >= FEWEST_STEPS:
        return None
    smaller = batch
    while smaller // 2 >= _SMALLEST_BATCH and epochs * _batches(images, smaller) < FEWEST_STEPS:
        smaller //= 2
    enough = epochs * _batches(images, smaller) >= FEWEST_STEPS
    remedies = [f"--batch {smaller}"] if smaller < batch else []
    remedies += (
        [] if enough else ["more --epochs" if setting.recipe.images == 0 else "more --epochs or --images"]
    )
    cost = ", at equal cost" if enough else ""
    length = f"{epochs} epoch{'s' if epochs > 1 else ''} of {_batches(images, batch)} batches of {batch}"
    return (
        f"a training takes {steps} steps ({length}), and "
        f"below about {FEWEST_STEPS} networks learn little; give it more with {' and '.join(remedies)}{cost}"
    )


def _batches(images: int, batch: int) -> int:
    return -(-images // batch)
