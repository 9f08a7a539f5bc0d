"""Data sets of a user's own arrays and Datasets."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import transforms

from prunas.data.dataset import DataSet, Indices, fingerprint
from prunas.data.in_memory import InMemory
from prunas.data.resident import resident
from prunas.data.samples import Census, Form, TargetForm, Targets, inputs_of, kind_of, targets_of
from prunas.data.splitting import check_splits, split_up
from prunas.data.streamed import Part, Reader, Stream, Streamed, usual_workers
from prunas.errors import InputError
from prunas.files import cache_folder, digest, read_json, write_json

__all__ = ["arrays", "datasets"]

RESIDENT = 2 << 30
"""Bytes up to which arrays live on the device, unless the user says otherwise."""

MANY = 20_000
"""Samples from which on a first look at all of them takes so long that it is announced."""

PROBED = 8
"""Samples from whose transforms it is told whether they are random, and which ones they are."""

_BATCH = 256
_CPU = torch.device("cpu")

Array = NDArray[Any] | Tensor
Pair = tuple[Array, Array | Mapping[str, Array]]


def arrays(
    name: str,
    train: Pair,
    val: Pair | None = None,
    test: Pair | None = None,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    pad: int = 0,
    flip: bool = False,
    split_seed: int = 0,
    resident: bool | None = None,
    workers: int | None = None,
) -> DataSet:
    """A data set of arrays; their content is its identity.

    Args:
        name: What tables call it.
        train: Inputs (samples, ...) and targets (samples, ...), numpy or torch; see `prunas.data.samples`. Inputs
            of uint8 are images (samples, C, H, W) or (samples, H, W); they are divided by 255, and normalised.
        val: Of validation; a tenth of `train` by default, evenly over the classes.
        test: Of the test; half of `val` by default, or a fifth of `train` where there is no `val`; a note says so.
        mean: Per channel, of pixels in [0, 1], that images are normalised with; 0 by default.
        std: Per channel, of pixels in [0, 1]; 1 by default.
        pad: Augmentation of images with class ids: black pixels on each side before a random crop.
        flip: Augmentation of images with class ids: whether they are mirrored at random.
        split_seed: Which samples become the validation split.
        resident: Whether they live on the device, else they are streamed; by default what takes 2 GiB at most.
        workers: Processes that read what is streamed; by default as many as pay.

    Raises:
        InputError: Lengths, shapes or values do not fit; the message names the sample.
    """
    parts = {key: pair for key, pair in (("train", train), ("val", val), ("test", test)) if pair is not None}
    held = {key: _kept(name, key, pair) for key, pair in parts.items()}
    _check_alike(name, held)
    census = _census_of(name, held)
    sizes = tuple(len(held[key][0]) if key in held else None for key in ("train", "val", "test"))
    x = torch.cat([inputs for inputs, _ in held.values()])
    bytes_held = x.numel() * x.element_size()
    stays = bytes_held <= RESIDENT if resident is None else resident
    scale = _scale(name, Form.of(x), mean, std)
    images = x.dtype == torch.uint8 and census.form is not None and kind_of(census.form) == "class"
    if (pad or flip) and not images:
        raise InputError(
            f"data set {name!r}: pad and flip are for images of bytes with class ids; augment in a Dataset, see "
            "prunas.data.datasets"
        )
    labels = census.labels
    splits, notes = split_up(name, sizes, labels, split_seed)  # type: ignore[arg-type]  # three of them
    if census.form is not None and kind_of(census.form) == "class":
        check_splits(name, splits, labels)
    if images and stays:
        return _pixels(name, x, labels, splits, scale, pad, flip, notes)
    preparation = [*map(list, scale), pad, flip]
    common: dict[str, Any] = {
        "name": name,
        "shape": tuple(x.shape[1:]),
        "classes": census.classes,
        "labels": labels,
        "splits": splits,
        "identity": _identity(name, census.content, splits, preparation),
        "notes": notes,
        "targets": census.form,
        "mean": scale[0],
        "std": scale[1],
    }
    if stays:
        targets = [y for _, y in held.values()]
        return InMemory(held=(x, _joined(targets)), **common)
    augment = _augmentation(x, pad, flip)
    streamed = tuple(
        Part(key, _Rows(x, y), _Rows(x, y, augment) if augment and key == "train" else None)
        for key, (x, y) in held.items()
    )
    usual = usual_workers(len(x)) if workers is None else workers
    return Streamed(parts=streamed, inputs=Form.of(x), workers=usual, **common)


def _pixels(
    name: str,
    x: Tensor,
    labels: Indices,
    splits: Mapping[Any, Indices],
    scale: tuple[tuple[float, ...], tuple[float, ...]],
    pad: int,
    flip: bool,
    notes: tuple[str, ...],
) -> DataSet:
    return resident(
        name,
        x.permute(0, 2, 3, 1).contiguous().numpy(),
        labels,
        {split: members for split, members in splits.items() if split != "train+val"},
        peak=255,
        mean=scale[0],
        std=scale[1],
        pad=pad,
        flip=flip,
        notes=notes,
    )


def _kept(name: str, part: str, pair: Any) -> tuple[Tensor, Targets]:
    """Inputs and targets of one split as they are kept.

    Raises:
        InputError: They are no pair, of several lengths, or of a type that is not trained on.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(
            f"data set {name!r}: {part} is a {type(pair).__name__}; give a pair (inputs, targets)"
        )
    given, wanted = pair
    try:
        x = inputs_of(torch.as_tensor(np.asarray(given) if not isinstance(given, Tensor) else given).cpu())
        if isinstance(wanted, Mapping):
            y = targets_of({key: torch.as_tensor(v).cpu() for key, v in wanted.items()})
        else:
            y = targets_of(
                torch.as_tensor(np.asarray(wanted) if not isinstance(wanted, Tensor) else wanted).cpu()
            )
    except InputError as error:
        raise InputError(f"data set {name!r}: {part} {error}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"data set {name!r}: {part} holds no arrays of numbers: {why}") from error
    lengths = {len(x), *(len(part) for part in (y.values() if isinstance(y, dict) else (y,)))}
    if len(lengths) > 1:
        count = len(y["labels"] if isinstance(y, dict) else y)
        raise InputError(f"data set {name!r}: {part} has {len(x)} inputs and {count} targets; give one each")
    return x, y


def _census_of(name: str, held: Mapping[str, tuple[Tensor, Targets]]) -> Census:
    """What all samples of arrays say.

    Raises:
        InputError: One cannot be trained on.
    """
    census = Census()
    for key, (x, y) in held.items():
        for start in range(0, len(x), _BATCH):
            at = slice(start, start + _BATCH)
            some = {k: v[at] for k, v in y.items()} if isinstance(y, dict) else y[at]
            if (problem := census.add(x[at], some)) is not None:
                raise InputError(f"data set {name!r}: sample {start + problem[0]} of {key} {problem[1]}")
    return census


def _check_alike(name: str, held: Mapping[str, tuple[Tensor, Targets]]) -> None:
    """Refuses splits of several forms."""
    first = {key: (Form.of(x), _forms(y)) for key, (x, y) in held.items()}
    for key, forms in first.items():
        if forms != first["train"]:
            raise InputError(
                f"data set {name!r}: {key} has {forms[0]} with targets {forms[1]}, and train has "
                f"{first['train'][0]} with targets {first['train'][1]}; give both one form"
            )


def _forms(y: Targets) -> str:
    parts = y if isinstance(y, dict) else {"": y}
    return ", ".join(f"{key} {Form.of(part)}".strip() for key, part in sorted(parts.items()))


def _joined(targets: Sequence[Targets]) -> Targets:
    first = targets[0]
    if isinstance(first, dict):
        return {key: torch.cat([y[key] for y in targets if isinstance(y, dict)]) for key in first}
    return torch.cat([y for y in targets if isinstance(y, Tensor)])


def _scale(
    name: str, form: Form, mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of images that are bytes.

    Raises:
        InputError: There are not as many as channels, a deviation is not above 0, or the inputs are floats.
    """
    if form.dtype != "uint8":
        if mean or std:
            raise InputError(
                f"data set {name!r}: mean and std are for images of bytes; normalise floats yourself"
            )
        return (0.0,), (1.0,)
    channels = form.shape[0]
    chosen = tuple(mean) or (0.0,) * channels, tuple(std) or (1.0,) * channels
    if {len(chosen[0]), len(chosen[1])} != {channels} or not all(value > 0 for value in chosen[1]):
        raise InputError(
            f"data set {name!r}: mean and std have a number for each of {channels} channels, and std is above 0"
        )
    return chosen


def _augmentation(x: Tensor, pad: int, flip: bool) -> Any:
    steps = [transforms.RandomCrop(tuple(x.shape[2:]), padding=pad)] if pad else []
    steps += [transforms.RandomHorizontalFlip()] if flip else []
    return transforms.Compose(steps) if steps else None


class _Rows:
    """Rows of arrays as a map-style Dataset."""

    def __init__(self, x: Tensor, y: Targets, transform: Any = None) -> None:
        self._x, self._y, self._transform = x, y, transform

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        x, y = self._x[index], self._y
        target = {key: part[index] for key, part in y.items()} if isinstance(y, dict) else y[index]
        return x if self._transform is None else self._transform(x), target


def _identity(name: str, content: str, splits: Mapping[Any, Indices], preparation: Sequence[Any]) -> str:
    return digest(
        {
            "name": name,
            "content": content,
            "splits": {
                split: fingerprint(members) for split, members in splits.items() if split != "train+val"
            },
            "preparation": preparation,
        }
    )


def datasets(
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    name: str = "own",
    version: str = "",
    plain: Any = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    split_seed: int = 0,
    workers: int | None = None,
) -> DataSet:
    """A data set of map-style Datasets, read by worker processes as they are needed.

    All samples are read once before anything trains, in every process, to check them and to know their content,
    which is the identity. Where that takes too long, state a `version`: then they are read once on a machine, and
    name and version say what they are. Random transforms draw from torch, numpy's global functions or `random`;
    they are seeded for each sample and epoch.

    Args:
        train: Dataset whose items are pairs (inputs, target): tensors, arrays or images, see
            `prunas.data.samples`. Images of bytes are divided by 255, and normalised, on the device.
        val: Of validation; a tenth of `train` by default, evenly over the classes.
        test: Of the test; half of `val` by default, or a fifth of `train` where there is no `val`; a note says so.
        name: What tables call it.
        version: Says, with the name, what the samples are: change it when they change.
        plain: `train` without its random transforms: from it validation samples are read, where they are taken
            from train, and what methods measure.
        mean: Per channel, of pixels in [0, 1], that images of bytes are normalised with; 0 by default.
        std: Per channel, of pixels in [0, 1]; 1 by default.
        split_seed: Which samples become the validation split.
        workers: Processes that read; 0 reads in the process that trains; by default as many as pay. Changes no
            result.

    Raises:
        InputError: Something is no map-style Dataset, or a sample cannot be trained on; the message names it.
    """
    given = {key: part for key, part in (("train", train), ("val", val), ("test", test)) if part is not None}
    _check_given(name, given, plain)
    parts = [
        Part(key, part) if key != "train" or plain is None else Part(key, plain, train)
        for key, part in given.items()
    ]
    sizes = tuple(len(given[key]) if key in given else None for key in ("train", "val", "test"))
    total = sum(size for size in sizes if size is not None)
    usual = usual_workers(total) if workers is None else workers
    random = _is_random(name, parts[0])
    about = _looked_at(name, version, parts, total, usual)
    scale = _scale(name, about.inputs, mean, std)
    splits, notes = split_up(name, sizes, about.labels, split_seed)  # type: ignore[arg-type]  # three of them
    if kind_of(about.targets) == "class":
        check_splits(name, splits, about.labels)
    if random and plain is None and val is None:
        notes += (
            "validation samples are read through the random transforms of train; give plain= to leave those out",
        )
    return Streamed(
        name=name,
        shape=about.inputs.shape,
        classes=about.classes,
        labels=about.labels,
        splits=splits,
        identity=_identity(name, about.content, splits, [*map(list, scale)]),
        notes=notes,
        targets=about.targets,
        parts=tuple(parts),
        inputs=about.inputs,
        mean=scale[0],
        std=scale[1],
        workers=usual,
    )


def _check_given(name: str, given: Mapping[str, Any], plain: Any) -> None:
    """Refuses what is no map-style Dataset, and a plain training set that is another one."""
    for key, part in {**given, **({"plain": plain} if plain is not None else {})}.items():
        if not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
            raise InputError(
                f"data set {name!r}: {key} is a {type(part).__name__}; give a map-style Dataset, with __len__ and "
                "__getitem__"
            )
    if plain is not None and len(plain) != len(given["train"]):
        raise InputError(
            f"data set {name!r}: plain has {len(plain)} samples and train {len(given['train'])}; give the same"
        )
    if not len(given["train"]):
        raise InputError(f"data set {name!r}: its train split is empty; give it samples")


def _is_random(name: str, part: Part) -> bool:
    """Whether samples of training are others by another seed.

    Raises:
        InputError: They are others by the same seed.
    """
    reader = Reader([part], augment=True)
    places = _spread(len(part.plain))

    def read(seed: int) -> tuple[Tensor, ...]:
        return _batch(name, reader, [(place, seed + place) for place in places])

    first, again, other = read(0), read(0), read(10**6)
    if not all(map(torch.equal, first, again)):
        raise InputError(
            f"data set {name!r}: a sample of train is another one each time, though torch, numpy.random and "
            "random are seeded; draw random numbers from one of these"
        )
    return not all(map(torch.equal, first, other))


def _spread(samples: int) -> list[int]:
    """Positions of a few samples, evenly over all."""
    return sorted({i * samples // PROBED for i in range(PROBED)})


def _batch(name: str, reader: Reader, plan: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    read = reader.__getitems__(plan)
    if isinstance(read, str):
        raise InputError(f"data set {name!r}: {read}")
    return read


class _About:
    """What a look at all samples tells, or told once."""

    def __init__(
        self, labels: Indices, classes: int, content: str, inputs: Form, targets: TargetForm
    ) -> None:
        self.labels, self.classes, self.content = labels, classes, content
        self.inputs, self.targets = inputs, targets


def _looked_at(name: str, version: str, parts: Sequence[Part], total: int, workers: int) -> _About:
    """Labels, classes, forms and content of Datasets: by reading all, or by what name and version say of them."""
    if not version:
        return _counted(name, parts, total, workers)
    stated = digest([name, version, [len(part.plain) for part in parts]], 24)
    path = cache_folder() / "data" / f"{stated}.json"
    try:
        kept = read_json(path)
        targets = {key: Form(tuple(shape), dtype) for key, (shape, dtype) in kept["targets"].items()}
        return _About(
            np.array(kept["labels"], np.int64),
            kept["classes"],
            stated,
            Form(tuple(kept["inputs"][0]), kept["inputs"][1]),
            targets.get("", targets),
        )
    except (InputError, KeyError, TypeError, ValueError):  # not looked at yet
        about = _counted(name, parts, total, workers)
    forms = about.targets if isinstance(about.targets, Mapping) else {"": about.targets}
    write_json(
        path,
        {
            "labels": about.labels.tolist(),
            "classes": about.classes,
            "inputs": [list(about.inputs.shape), about.inputs.dtype],
            "targets": {key: [list(form.shape), form.dtype] for key, form in forms.items()},
        },
    )
    about.content = stated
    return about


def _counted(name: str, parts: Sequence[Part], total: int, workers: int) -> _About:
    """What all samples say, each read once without augmentation."""
    if total >= MANY:
        print(f"reading all {total:,} samples of {name!r} once", file=sys.stderr)
    form = _form_of(_batch(name, Reader(parts, augment=False), [(0, 0)]))
    reader = Reader(parts, augment=False, inputs=form[0], targets=form[1])
    stream = Stream(name, reader, _BATCH, workers, _CPU)
    census, positions = Census(), np.arange(total)
    for start, (x, *y) in zip(
        range(0, total, _BATCH),
        stream.batches(positions, positions, torch.contiguous_format),
        strict=True,
    ):
        targets = {"boxes": y[0], "labels": y[1]} if len(y) > 1 else y[0]
        if (problem := census.add(x, targets)) is not None:
            part, index = reader.place(start + problem[0])
            raise InputError(f"data set {name!r}: sample {index} of {part.name} {problem[1]}")
    assert census.inputs is not None and census.form is not None
    content = [census.content]
    for k, part in enumerate(parts):
        if part.augmented is not None:  # which transforms there are changes what is learnt
            probe = Reader([parts[k]], augment=True)
            read = _batch(name, probe, [(place, place) for place in _spread(len(part.plain))])
            content.append(fingerprint(*(tensor.numpy() for tensor in read)))
    return _About(census.labels, census.classes, digest(content, 64), census.inputs, census.form)


def _form_of(batch: tuple[Tensor, ...]) -> tuple[Form, TargetForm | None]:
    """Forms of the first sample; None for boxes, of which there may be any number."""
    from prunas.data.samples import seen

    x, *y = batch
    return Form.of(x), Form.of(seen(y[0])) if len(y) == 1 else None  # type: ignore[arg-type]  # a tensor stays one
