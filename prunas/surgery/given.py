"""Weights that a user brings for the dense network: named, hashed by content, loaded, fitted. Torch-free."""

import hashlib
import io
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal, get_args

from prunas.errors import InputError
from prunas.files import cache_folder, write_atomic
from prunas.plugins import foreign_code

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Weights", "fitted_state", "state_bytes"]

Kind = Literal["run", "file", "call"]

FORMS = "run:ID, file:PATH or call:package.module:function"
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(\.\w+)?")
"""A function of an importable module, or a member of an enumeration of weights, as torchvision has them."""

RUN = re.compile(r"([A-Za-z0-9._+-]+-)?[0-9a-f]{12}")

WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema"),
)
"""Keys under which training scripts keep the state dict of a checkpoint; of several the first is taken."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What `DataParallel` and averaged models, `torch.compile`, and Lightning put before every name."""

COUNTER = "num_batches_tracked"
"""Of a batch norm: only one without momentum reads it. Checkpoints from before torch 0.4.1 have none."""

NAMED = 3
"""Names of each sort of difference that a refusal gives."""

SAFE = "where you trust it, write its tensors alone: torch.save(net.state_dict(), FILE), or safetensors"


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the dense network's weights come from, as any process finds them again.

    Attributes:
        kind: A `run` of the same space, a `file`, or a `call` of a function.
        name: The run's id or folder name, or "package.module:function"; "" of a file, whose content names it.
        sha256: Of the file's bytes, or of the tensors that the function returned; "" of a run, whose id says what
            it computed.
        path: Where the file lies on this machine. No part of equality.
    """

    kind: Kind
    name: str = ""
    sha256: str = ""
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def of(cls, value: "str | Path | Mapping[str, Any] | nn.Module", folder: Path | None = None) -> "Weights":
        """The reference that a user means; reads the file, or calls the function, to hash what is there.

        Args:
            value: `run:ID`, `file:PATH`, `call:package.module:function`; a path; the import path of a function or
                of a member of an enumeration, such as `torchvision.models:ResNet50_Weights.IMAGENET1K_V2`; a state
                dict, or a network that has it. A state dict is written into the cache folder, where every process
                of this user finds it.
            folder: Where a file is looked for; the current one by default.

        Raises:
            InputError: It is none of these; the file cannot be read, or the function cannot be called.
        """
        if not isinstance(value, (str, Path)):
            return cls._of_state(value)
        kind, colon, rest = str(value).partition(":")
        if isinstance(value, Path) or not colon or kind not in get_args(Kind):
            kind, rest = "file", str(value)
        path = (folder or Path()) / Path(rest).expanduser()
        if kind == "file" and not isinstance(value, Path) and FUNCTION.fullmatch(rest) and not path.exists():
            kind = "call"
        if kind == "run":
            if not RUN.fullmatch(rest):
                raise InputError(
                    f"weights {value!r}: a run is named by its id of 12 hex digits, or its folder"
                )
            return cls("run", rest)
        if kind == "call":
            if not FUNCTION.fullmatch(rest):
                raise InputError(f"weights {value!r}: name a function, as in call:package.module:function")
            return cls("call", rest, _tensors_digest(_unwrapped(_called(rest), str(value))[0]))
        path = path.absolute()
        return cls("file", sha256=hashlib.sha256(_content(path)).hexdigest(), path=path)

    @classmethod
    def _of_state(cls, value: Any) -> "Weights":
        """The reference of a state dict in memory: that of the file that it is written to."""
        content = state_bytes(_unwrapped(_state_of(value), "weights")[0])
        sha256 = hashlib.sha256(content).hexdigest()
        path = cache_folder().absolute() / "weights" / f"{sha256[:24]}.safetensors"
        if not path.is_file() or path.read_bytes() != content:
            write_atomic(path, lambda file: file.write(content))
        return cls("file", sha256=sha256, path=path)

    @property
    def label(self) -> str:
        """The reference without a folder of this machine, for records."""
        return self.path.name if self.path is not None else str(self)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name or self.path or self.sha256[:12]}"

    def to_json(self) -> dict[str, Any]:
        """All that decides the weights, as JSON values: of a file its content, not its path."""
        document = {"kind": self.kind, "name": self.name, "sha256": self.sha256}
        return {key: value for key, value in document.items() if value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], path: "Path | str | None" = None) -> "Weights":
        """The reference that `to_json` wrote.

        Args:
            document: From `to_json`.
            path: Where the file lies on this machine.

        Raises:
            InputError: A field is missing, unknown or no text.
        """
        kind = document.get("kind") if isinstance(document, Mapping) else None
        needed = {"run": {"name"}, "file": {"sha256"}, "call": {"name", "sha256"}}.get(str(kind))
        if needed is None or document.keys() != {"kind", *needed}:
            raise InputError(f"weights: {document!r} is no reference; there are {FORMS}")
        if not all(isinstance(value, str) and value for value in document.values()):
            raise InputError(f"weights: the fields of {document!r} must be texts")
        return cls(**document, path=None if path is None else Path(path))


if TYPE_CHECKING:
    GivenWeights = str | Path | Mapping[str, Any] | nn.Module | Weights
    """What a user may mean weights by; see `Weights.of`."""


def fitted_state(
    weights: Weights, dense: "Mapping[str, Tensor]", runs: Path | None = None
) -> "tuple[dict[str, Tensor], tuple[str, ...]]":
    """The state dict of the dense network, on the CPU, and what was done to get it, one line each.

    A checkpoint that keeps the state dict under one of `WRAPPERS`, or all names behind one of `PREFIXES`, is
    understood. Floating-point tensors take the precision of the network's.

    Args:
        weights: What is wanted.
        dense: A state dict of the dense network: its names, shapes and types.
        runs: Folder of the runs of the space; only a run needs it.

    Raises:
        InputError: The source cannot be read, would run code when it is loaded, is not what it was when the
            reference was made, or does not fit the network.
    """
    state, notes = _unwrapped(_loaded(weights, runs), str(weights))
    if weights.kind == "call" and _tensors_digest(state) != weights.sha256:
        raise _changed(weights)
    state, said = _without_prefix(state, dense, weights)
    notes += said
    counters = [name for name in dense if name.endswith(COUNTER) and name not in state]
    if counters and _lacks_counters_alone(state, dense):
        state |= {name: dense[name] for name in counters}
        notes += (
            f"{weights.label} has no {COUNTER}, which count the batches of batch norms; they begin at 0",
        )
    if differences := _differences(state, dense):
        raise InputError(f"{weights} does not fit the dense network: {'; '.join(differences)}")
    if unusable := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise InputError(f"{weights} has values that are not finite in {_first(unusable)}")
    if any(tensor.dtype != dense[name].dtype for name, tensor in state.items()):
        notes += (f"tensors of {weights.label} were converted to the precision of the network",)
    return {name: state[name].to(like.dtype) for name, like in dense.items()}, notes


def _lacks_counters_alone(state: Iterable[str], dense: Iterable[str]) -> bool:
    """Whether a checkpoint has every name of the network but the counters of batch norms."""
    return {name for name in dense if not name.endswith(COUNTER)} <= set(state)


def _without_prefix(
    state: "dict[str, Tensor]", dense: "Mapping[str, Tensor]", weights: Weights
) -> "tuple[dict[str, Tensor], tuple[str, ...]]":
    """The state dict with names as the network has them, and a note on what was done; as it is where nothing fits.

    What other parts of a checkpoint have beside the network, such as a loss with weights, is left out.

    Raises:
        InputError: The network is there under several prefixes.
    """
    notes: tuple[str, ...] = ()
    if _lacks_counters_alone(state, dense):
        return state, notes
    first = next((name for name in dense if not name.endswith(COUNTER)), None)
    candidates = [] if first is None else [name.removesuffix(first) for name in state if name.endswith(first)]
    behind = {
        prefix: {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
        for prefix in candidates
        if prefix.endswith(".")
    }
    fitting = [prefix for prefix, part in behind.items() if _lacks_counters_alone(part, dense)]
    if len(fitting) > 1:
        raise InputError(
            f"{weights} holds the network under {_first(map(repr, fitting))}; write the one that is meant into a "
            "file of its own"
        )
    if fitting:
        (prefix,) = fitting
        part = behind[prefix]
        notes += (f"the prefix {prefix!r} of all names in {weights.label} was left out",)
        if others := [name for name in state if not name.startswith(prefix)]:
            notes += (f"{weights.label} holds more than the network, which was left out: {_first(others)}",)
        return part, notes
    while known := [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)]:
        state = {name.removeprefix(known[0]): tensor for name, tensor in state.items()}
        notes += (f"the prefix {known[0]!r} of all names in {weights.label} was left out",)
    return state, notes


def _changed(weights: Weights) -> InputError:
    return InputError(
        f"{weights} changed since this search was planned; restore it, or repeat the command, which plans anew"
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read weights {path}: {error.strerror}; give {FORMS}") from error


def _loaded(weights: Weights, runs: Path | None) -> Any:
    """What the source holds, as it is."""
    if weights.kind == "call":
        return _called(weights.name)
    if weights.kind == "run":
        return _read(_content(path := _weights_of_run(weights.name, runs)), path)
    if weights.path is None:
        raise InputError(
            f"weights {weights.sha256[:12]}: nobody says where the file lies; repeat the command"
        )
    content = _content(weights.path)
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise _changed(weights)
    return _read(content, weights.path)


def _weights_of_run(name: str, runs: Path | None) -> Path:
    folders = [] if runs is None else sorted({*runs.glob(name), *runs.glob(f"*-{name}")})
    path = folders[0] / "weights.safetensors" if folders else None
    if path is None or not path.is_file():
        raise InputError(
            f"weights run:{name}: {runs or 'the store'} holds no run of that id that kept its weights; train one "
            "with --keep-weights, or give file:PATH"
        )
    return path


def _read(content: bytes, path: Path) -> Any:
    """What a file of weights holds; no code in it is run."""
    import safetensors.torch
    import torch

    try:
        if content[8:9] == b"{":  # a safetensors file begins with the length of a JSON header
            return safetensors.torch.load(content)
        with warnings.catch_warnings():  # about versions of pickle
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"weights {path} hold Python objects beside tensors, and loading those can run code; {SAFE}"
        ) from error
    except Exception as error:  # whatever a damaged file makes of the readers
        why = (" ".join(str(error).split()) or type(error).__name__).partition(". ")[0]
        raise InputError(
            f"weights {path} are damaged, or no file of weights ({why}); copy the file again, or {SAFE}"
        ) from error


def _called(name: str) -> Any:
    """What a user's function returns, or what a member of an enumeration of weights stands for; a state dict."""
    import torch

    what = f"weights call:{name}"
    try:
        with foreign_code(what), torch.random.fork_rng(devices=[]):
            named = pkgutil.resolve_name(name)
            if hasattr(named, "get_state_dict"):  # torchvision's enumerations, and their like
                value = named.get_state_dict(progress=False, check_hash=True, weights_only=True)
            else:
                value = named()
    except InputError:
        raise
    except Exception as error:  # whatever a user's function raises
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{what} cannot be called: {why}; it must be importable and take nothing") from error
    return _state_of(value)


def _state_of(value: Any) -> Any:
    """The state dict of a network, or the value itself."""
    torch = sys.modules.get("torch")  # whoever made a network has imported it
    return value.state_dict() if torch is not None and isinstance(value, torch.nn.Module) else value


def _unwrapped(value: Any, what: str) -> "tuple[dict[str, Tensor], tuple[str, ...]]":
    """The state dict in a checkpoint, on the CPU, and a note on where it was."""
    import torch

    notes: tuple[str, ...] = ()
    while isinstance(value, Mapping):
        inside = [key for key in WRAPPERS if isinstance(value.get(key), Mapping)]
        if not inside:
            break
        value = value[inside[0]]
        others = f", not those under {_first(map(repr, inside[1:]))}" if inside[1:] else ""
        notes += (f"the weights are those under {inside[0]!r} in {Path(what).name}{others}",)
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"weights {what}: a state dict is needed, not a {type(value).__name__}; {SAFE}")
    if odd := [str(key) for key, part in value.items() if not isinstance(part, torch.Tensor)]:
        raise InputError(
            f"weights {what}: no state dict, for {_first(odd)} {'is' if len(odd) == 1 else 'are'} no tensor; "
            f"keep it under 'state_dict'"
        )
    return {str(name): tensor.detach().cpu() for name, tensor in value.items()}, notes


def _differences(state: "Mapping[str, Tensor]", dense: "Mapping[str, Tensor]") -> list[str]:
    """The first names in which a state dict differs from the network's, in words; none if it fits."""
    lacking = [name for name in dense if name not in state]
    unknown = [name for name in state if name not in dense]
    other = [
        f"{name} is {_sizes(tensor)}, not {_sizes(dense[name])}"
        for name, tensor in state.items()
        if name in dense
        and (
            tensor.shape != dense[name].shape or tensor.is_floating_point() != dense[name].is_floating_point()
        )
    ]
    sorts = (("it lacks ", lacking), ("the network has no ", unknown), ("", other))
    return [sort + _first(names) for sort, names in sorts if names]


def _sizes(tensor: "Tensor") -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _first(names: Iterable[str]) -> str:
    """The first few, and how many there are beside them."""
    names = list(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _tensors_digest(state: "Mapping[str, Tensor]") -> str:
    """SHA-256 over names, types, shapes and values."""
    return hashlib.sha256(state_bytes(state)).hexdigest()


def state_bytes(state: "Mapping[str, Tensor]", metadata: dict[str, str] | None = None) -> bytes:
    """A state dict as the bytes of a safetensors file, the same for the same tensors and metadata."""
    import safetensors.torch

    # Copies, because tied parameters share storage, which the format does not allow.
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    return safetensors.torch.save(tensors, metadata)
