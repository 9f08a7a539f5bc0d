"""How a network is trained: declared once, resolved, and hashed into the identity of a run.

The recipes of the study are those of its released code (arXiv:1810.05270, section 3 and the scripts behind
it); `prunas.protocols` says which initial weights and which budget a training starts from.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from prunas.errors import InputError, unknown
from prunas.files import digest

__all__ = [
    "PRECISIONS",
    "RECIPES",
    "FineTuning",
    "Recipe",
    "finite",
    "recipe",
    "scratch_b_epochs",
]

PRECISIONS = ("fp32", "tf32", "bf16")
"""What a recipe's `precision` can be."""


SCHEDULES = ("step", "one-cycle", "cosine", "linear", "constant")
"""What a recipe's `schedule` can be."""

OPTIMISERS = ("sgd", "adamw")
"""What a recipe's `optimizer` can be."""

FLIPS = ("random", "alternating")
"""What a recipe's `flip` can be."""


def finite(value: object) -> bool:
    """Whether a value is a number that a float can hold; truth values are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _names_transform(entry: object) -> bool:
    """Whether an entry of `transforms` is a name, or a table with one."""
    return isinstance(entry, str) or (isinstance(entry, Mapping) and isinstance(entry.get("name"), str))


_Range = tuple[type | tuple[type, ...], Callable[[Any], bool], str]
_NUMBER = (int, float)
_RANGES: Mapping[str, _Range] = MappingProxyType(
    {
        "epochs": (int, lambda value: value > 0, "a whole number above 0"),
        "batch": (int, lambda value: value > 0, "a whole number above 0"),
        "lr": (_NUMBER, lambda value: value > 0, "a finite number above 0"),
        "every": (_NUMBER, lambda value: 0 <= value < 1, "at least 0 and below 1"),
        "gamma": (_NUMBER, lambda value: value > 0, "a finite number above 0"),
        "warmup": (_NUMBER, lambda value: 0 <= value < 1, "at least 0 and below 1"),
        "momentum": (_NUMBER, lambda value: 0 <= value < 1, "at least 0 and below 1"),
        "weight_decay": (_NUMBER, lambda value: value >= 0, "a finite number from 0"),
        "images": (int, lambda value: value >= 0, "a whole number from 0 (all)"),
        "label_smoothing": (_NUMBER, lambda value: 0 <= value < 1, "at least 0 and below 1"),
        "label_smoothing_from": (int, lambda value: value >= 0, "a whole number from 0 (any network)"),
        "warmup_epochs": (_NUMBER, lambda value: value >= 0, "a finite number from 0"),
        "clip": (_NUMBER, lambda value: value >= 0, "a finite number from 0 (no limit)"),
        "ema": (_NUMBER, lambda value: 0 <= value < 1, "at least 0 and below 1"),
        "mixup": (_NUMBER, lambda value: value >= 0, "a finite number from 0 (none)"),
        "cutmix": (_NUMBER, lambda value: value >= 0, "a finite number from 0 (none)"),
        "rewound": (int, lambda value: value >= 0, "a whole number from 0 (the schedule as it is)"),
    }
)
"""Type and range of every number of a recipe; all of them are finite."""

_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"schedule": SCHEDULES, "precision": PRECISIONS, "optimizer": OPTIMISERS, "flip": FLIPS}
)
"""The words that a setting can be."""

_LISTS = frozenset({"milestones", "transforms"})
"""Settings that are tuples here and lists elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything about a training but the network, the data, the initial weights and the seed.

    Attributes:
        name: The word a user types. Not identity: two names for the same settings are the same recipe.
        epochs: Passes over the training split.
        batch: Images per step. The last step of an epoch takes what is left, however few.
        lr: Learning rate before any drop; the peak of a one-cycle schedule.
        schedule: `step` multiplies by `gamma` at every milestone; `one-cycle` rises linearly for the first
            `warmup` share of the steps and falls linearly to zero; `cosine` rises alike and falls along half a
            cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts); `linear` is `one-cycle` but for
            a `warmup` of 0, where it falls from the first step on; `constant` stays at `lr`.
        milestones: Shares of the epochs, in (0, 1), each truncated to a whole epoch, at which `step` drops.
        every: If not 0, `step` drops every int(epochs * every) epochs instead (the study's ImageNet rule: 106
            epochs drop at 35, 70 and 105).
        gamma: Factor of a drop.
        warmup: Share of the steps, in [0, 1), during which `one-cycle`, `cosine` and `linear` rise; the first two
            for one step at least.
        momentum: Of SGD; `adamw` does not read it. The pull of a penalty, as in slimming, counts with SGD's steps.
        nesterov: Whether SGD looks ahead.
        weight_decay: On every parameter, batch-norm scales and biases included, as in the study; part of the
            gradient with `sgd`, apart from it with `adamw`.
        augment: Whether training images pass through the data set's own augmentation.
        precision: `fp32`; `tf32`, which differs on CUDA only, where products are rounded to 10 bits; or `bf16` for
            autocast with fp32 weights, norms and losses.
        channels_last: Memory layout of images and convolutions.
        images: If not 0, only this many images of the training split are used (a labelled shortcut); a training
            on training and validation images gets those of validation in the splits' proportion on top.
        rewound: If not 0, the length of a schedule of which a shorter training passes through the last epochs
            (learning-rate rewinding, Renda et al. 2020, arXiv:2003.02389); a longer one passes through its own.
        fused: Whether the optimiser updates all weights in one kernel; otherwise in several, with other roundings.
        optimizer: `sgd`, with momentum; or `adamw` (Loshchilov & Hutter 2019, arXiv:1711.05101) with the betas 0.9
            and 0.999.
        label_smoothing: Share of every label's weight, in [0, 1), that is spread evenly over all classes (Szegedy
            et al. 2016, arXiv:1512.00567); of training losses only. Not every task has labels to smooth.
        label_smoothing_from: Parameters of a dense network from which labels are smoothed: smoothing lowers the
            accuracy of smaller ones. It is decided once for all shapes of a space, by `settled`; 0 smooths always.
        decay_norms: Whether weight decay pulls norms, biases and all other parameters of one axis too.
        flip: How the data set's augmentation mirrors images, where it does: `random` mirrors every image with a
            chance of a half in every epoch; `alternating` only in the first one, and from then on shows each image
            and its mirror image in turn (Jordan 2024, arXiv:2404.00498).
        warmup_epochs: Epochs during which `step` and `constant` rise linearly to their rate (Goyal et al. 2017,
            arXiv:1706.02677); the other schedules have `warmup`.
        clip: If not 0, a step's gradients, a penalty's included, are scaled down to this norm of all of them.
        ema: If not 0, the decay in (0, 1) of a running mean of all weights and batch statistics; it is what is
            scored and kept. It remembers some 1 / (1 - ema) steps, which should be a small part of the training.
        mixup: If not 0, the parameter of the beta distribution by which images of a batch, with their labels, are
            mixed (Zhang et al. 2018, arXiv:1710.09412). Only labels that are classes can be mixed.
        cutmix: The same of pasting a patch of another image (Yun et al. 2019, arXiv:1905.04899); with both, each
            step has one of the two.
        transforms: Augmentations of `torchvision.transforms.v2` by name, or tables of `name` and arguments, that
            training images pass through after the data set's own; on the CPU, image by image.

    A field born after the first release carries `metadata={"neutral": value}`, the value at which everything is as
    before: at that value it stands neither in `identity` nor in `to_json`, so that stored runs keep their names.
    """

    name: str = field(metadata={"identity": False})
    epochs: int
    batch: int
    lr: float
    schedule: Literal["step", "one-cycle", "cosine", "linear", "constant"] = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    every: float = 0.0
    gamma: float = 0.1
    warmup: float = 0.25
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    augment: bool = True
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    channels_last: bool = False
    images: int = 0
    rewound: int = field(default=0, metadata={"neutral": 0})
    fused: bool = field(default=True, metadata={"neutral": True})
    optimizer: Literal["sgd", "adamw"] = field(default="sgd", metadata={"neutral": "sgd"})
    label_smoothing: float = field(default=0.0, metadata={"neutral": 0.0})
    label_smoothing_from: int = field(default=0, metadata={"neutral": 0})
    decay_norms: bool = field(default=True, metadata={"neutral": True})
    flip: Literal["random", "alternating"] = field(default="random", metadata={"neutral": "random"})
    warmup_epochs: float = field(default=0.0, metadata={"neutral": 0.0})
    clip: float = field(default=0.0, metadata={"neutral": 0.0})
    ema: float = field(default=0.0, metadata={"neutral": 0.0})
    mixup: float = field(default=0.0, metadata={"neutral": 0.0})
    cutmix: float = field(default=0.0, metadata={"neutral": 0.0})
    transforms: tuple[str | Mapping[str, Any], ...] = field(default=(), hash=False, metadata={"neutral": ()})

    def __post_init__(self) -> None:
        """Refuses settings no training can follow."""
        for name, (types, allowed, rule) in _RANGES.items():
            value = getattr(self, name)
            if not (isinstance(value, types) and finite(value) and allowed(value)):
                raise InputError(f"recipe {self.name!r}: {name} must be {rule}, not {value!r}")
        for name in ("nesterov", "augment", "channels_last", "fused", "decay_norms"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(
                    f"recipe {self.name!r}: {name} must be true or false, not {getattr(self, name)!r}"
                )
        listed = isinstance(self.milestones, tuple)
        if not listed or not all(isinstance(m, float) and 0 < m < 1 for m in self.milestones):
            raise InputError(
                f"recipe {self.name!r}: milestones are shares of the epochs, each between 0 and 1"
            )
        if not isinstance(self.transforms, tuple) or not all(map(_names_transform, self.transforms)):
            raise InputError(
                f"recipe {self.name!r}: transforms is a list of names, or tables with a name, such as "
                '["AutoAugment", {name = "RandAugment", magnitude = 7}]'
            )
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise unknown(name, str(getattr(self, name)), words)
        if self.warmup_epochs and self.schedule not in ("step", "constant"):
            raise InputError(
                f"recipe {self.name!r}: the schedule {self.schedule} rises for a share of the steps; set warmup "
                "instead of warmup_epochs"
            )
        if self.nesterov and self.optimizer != "sgd":
            raise InputError(
                f"recipe {self.name!r}: only the optimizer sgd has nesterov; set nesterov = false"
            )

    @property
    def identity(self) -> str:
        """Twelve hex digits over every field that changes the result, defaults included."""
        named = {spec.name for spec in dataclasses.fields(self) if not spec.metadata.get("identity", True)}
        return digest({name: value for name, value in self.to_json().items() if name not in named})

    def replace(self, **changes: Any) -> "Recipe":
        """A recipe with some fields changed; milestones and transforms may be lists.

        Raises:
            InputError: A field does not exist or its value cannot be used.
        """
        known = {spec.name for spec in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise unknown("recipe setting", name, known)
        for name in _LISTS & changes.keys():
            if isinstance(changes[name], list):
                changes[name] = tuple(changes[name])
        return dataclasses.replace(self, **changes)

    @property
    def augments(self) -> bool:
        """Whether it asks for an augmentation that not all data can serve."""
        turned = self.augment and self.flip != "random"
        return turned or bool(self.transforms or self.mixup or self.cutmix)

    def settled(self, parameters: int) -> "Recipe":
        """The recipe as all networks of a space are trained with it: what hangs on the dense one is decided.

        Args:
            parameters: Of the dense network.
        """
        if parameters < self.label_smoothing_from:
            return self.replace(label_smoothing=0.0, label_smoothing_from=0)
        return self.replace(label_smoothing_from=0)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, but for those at their neutral value."""
        neutral = {
            spec.name: spec.metadata["neutral"]
            for spec in dataclasses.fields(self)
            if "neutral" in spec.metadata
        }
        values = dataclasses.asdict(self)
        kept = {name: v for name, v in values.items() if name not in neutral or v != neutral[name]}
        return {name: list(v) if name in _LISTS else v for name, v in kept.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Recipe":
        """The recipe `to_json` wrote."""
        known = {spec.name for spec in dataclasses.fields(cls)}
        for name in document:
            if name not in known:
                raise unknown("recipe setting", name, known)
        values: dict[str, Any] = {n: tuple(v) if n in _LISTS else v for n, v in document.items()}
        return cls(**values)

    def drops(self, epochs: int) -> tuple[int, ...]:
        """The epochs, counted from 0, at whose start a `step` schedule of this length drops."""
        if self.every:
            stride = int(epochs * self.every)
            return tuple(range(stride, epochs, stride)) if stride else ()
        return tuple(int(epochs * m) for m in self.milestones)

    def lr_at(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The learning rate of one step.

        Args:
            step: Counted from 0 over the whole training.
            steps_per_epoch: Steps of one epoch, the partial last one included.
            epochs: Length of this training (`epochs` of the recipe, or a Scratch-B length).
        """
        if self.rewound > epochs:
            step += (self.rewound - epochs) * steps_per_epoch
            epochs = self.rewound
        if self.schedule in ("step", "constant"):
            rise = max(1, round(self.warmup_epochs * steps_per_epoch))
            lr = self.lr * min(1.0, (step + 1) / rise)
            if self.schedule == "constant":
                return lr
            epoch = step // steps_per_epoch
            return lr * self.gamma ** sum(epoch >= drop for drop in self.drops(epochs))
        total = steps_per_epoch * epochs
        peak = max(0 if self.schedule == "linear" else 1, round(total * self.warmup))
        if step < peak:
            return self.lr * (step + 1) / peak
        left = (total - step) / max(1, total - peak)
        if self.schedule == "cosine":
            return self.lr * (1 - math.cos(math.pi * left)) / 2
        return self.lr * left

    def lr_sum(self, steps_per_epoch: int, epochs: int) -> float:
        """Sum of the learning rates of all steps: what a constant pull on a weight integrates to."""
        return sum(self.lr_at(step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs))


def _table(*recipes: Recipe) -> Mapping[str, Recipe]:
    return MappingProxyType({recipe.name: recipe for recipe in recipes})


_FAST = Recipe(
    name="fast",
    epochs=15,
    batch=128,
    lr=0.2,
    schedule="linear",
    warmup=0.2,
    nesterov=True,
    weight_decay=5e-4,
    decay_norms=False,
    flip="alternating",
    label_smoothing=0.1,
    label_smoothing_from=300_000,
)

RECIPES: Mapping[str, Recipe] = _table(
    Recipe(name="paper", epochs=160, batch=64, lr=0.1),
    Recipe(name="short", epochs=30, batch=512, lr=0.4, schedule="one-cycle", weight_decay=5e-4),
    Recipe(name="imagenet", epochs=90, batch=256, lr=0.1, every=1 / 3),
    Recipe(name="imagenet-vgg", epochs=90, batch=256, lr=0.01, every=1 / 3),
    Recipe(name="sss", epochs=100, batch=128, lr=0.1, milestones=(0.3, 0.6, 0.9), nesterov=True),
    _FAST,
    _FAST.replace(name="fast-gpu", batch=256, lr=0.4),
    Recipe(name="tiny", epochs=4, batch=128, lr=0.1, schedule="one-cycle", weight_decay=5e-4),
    Recipe(
        name="digits", epochs=15, batch=32, lr=0.05, schedule="one-cycle", weight_decay=5e-4, augment=False
    ),
)


def recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        InputError: There is none; the message names the nearest ones.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


class FineTuning(NamedTuple):
    """How long fine-tuning lasts, and at which constant rate.

    Attributes:
        epochs: Passes over the training images.
        lr: Learning rate.
    """

    epochs: int
    lr: float


def scratch_b_epochs(epochs: int, dense_macs: int, macs: int, cap: float | None = None) -> int:
    """Epochs that give a smaller network the training computation of the dense one.

    The study's Scratch-B, section 3 of arXiv:1810.05270: floor(epochs * dense_macs / macs). Its ImageNet
    scripts stop at twice the epochs, its CIFAR scripts do not stop at all; here the cap is always explicit.

    Args:
        epochs: Length of the dense training.
        dense_macs: Multiply-accumulates of the dense network, per image.
        macs: Multiply-accumulates of the smaller network, per image; above 0.
        cap: Largest factor on `epochs`, or None for no cap.
    """
    ratio = dense_macs / macs
    return int(epochs * (ratio if cap is None else min(ratio, cap)))
