"""Weights that a user brings for the dense network: named, hashed by content, loaded, fitted. Torch-free."""

import hashlib
import io
import pkgutil
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal, get_args

from prunas.errors import InputError
from prunas.plugins import foreign_code

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Weights", "fitted_state"]

Kind = Literal["run", "file", "call"]

FORMS = "run:ID, file:PATH or call:package.module:function"
FUNCTION = re.compile(r"[\w.]+:\w+")
RUN = re.compile(r"([A-Za-z0-9._+-]+-)?[0-9a-f]{12}")

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts keep the state dict of a checkpoint."""

PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel`, `DistributedDataParallel` and `torch.compile` put before every name."""

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
    def of(cls, text: "str | Path") -> "Weights":
        """The reference that a user means; reads the file, or calls the function, to hash what is there.

        Args:
            text: `run:ID`, `file:PATH`, `call:package.module:function`, or a path.

        Raises:
            InputError: It is none of these; the file cannot be read, or the function cannot be called.
        """
        kind, colon, rest = str(text).partition(":")
        if isinstance(text, Path) or not colon or kind not in get_args(Kind):
            kind, rest = "file", str(text)
        if kind == "run":
            if not RUN.fullmatch(rest):
                raise InputError(
                    f"weights {text!r}: a run is named by its id of 12 hex digits, or its folder"
                )
            return cls("run", rest)
        if kind == "call":
            if not FUNCTION.fullmatch(rest):
                raise InputError(f"weights {text!r}: name a function, as in call:package.module:function")
            return cls("call", rest, _tensors_digest(_unwrapped(_called(rest), str(text))[0]))
        path = Path(rest).expanduser().absolute()
        return cls("file", sha256=hashlib.sha256(_content(path)).hexdigest(), path=path)

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
    for prefix in PREFIXES:
        if not dense.keys() <= state.keys() and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            notes += (f"the prefix {prefix!r} of all names in {weights.label} was left out",)
    if differences := _differences(state, dense):
        raise InputError(f"{weights} does not fit the dense network: {'; '.join(differences)}")
    if unusable := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise InputError(f"{weights} has values that are not finite in {_first(unusable)}")
    if any(tensor.dtype != dense[name].dtype for name, tensor in state.items()):
        notes += (f"tensors of {weights.label} were converted to the precision of the network",)
    return {name: state[name].to(like.dtype) for name, like in dense.items()}, notes


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
    """What a user's function returns; the state dict of a network."""
    import torch

    what = f"weights call:{name}"
    try:
        with foreign_code(what), torch.random.fork_rng(devices=[]):
            value = pkgutil.resolve_name(name)()
    except InputError:
        raise
    except Exception as error:  # whatever a user's function raises
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{what} cannot be called: {why}; it must be importable and take nothing") from error
    return value.state_dict() if isinstance(value, torch.nn.Module) else value


def _unwrapped(value: Any, what: str) -> "tuple[dict[str, Tensor], tuple[str, ...]]":
    """The state dict in a checkpoint, on the CPU, and a note on where it was."""
    import torch

    notes: tuple[str, ...] = ()
    while isinstance(value, Mapping):
        inside = [key for key in WRAPPERS if isinstance(value.get(key), Mapping)]
        if not inside:
            break
        value = value[inside[0]]
        notes += (f"the weights are those under {inside[0]!r} in {Path(what).name}",)
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
    import safetensors.torch

    # Copies, because tied parameters share storage, which the format does not allow.
    return hashlib.sha256(
        safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in state.items()})
    ).hexdigest()
