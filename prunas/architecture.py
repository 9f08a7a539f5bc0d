"""One point of a search space: a shape, never weights.

Everything here is plain data: no torch, no network. What a name means is the business of the `Survey` the
point belongs to (`prunas.survey`); whether the point is legal is the business of its `SearchSpace`.
"""

import base64
import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from prunas.errors import InputError, unknown
from prunas.files import canonical, digest

__all__ = ["Architecture", "KernelPattern"]

FORMAT = 1
MASK_BYTES = 4 << 20
DECIMALS = 6


@dataclass(frozen=True, slots=True)
class KernelPattern:
    """Which weights of each convolution exist, in one of two forms.

    Attributes:
        frequencies: Keep frequency of every kernel position, as sorted (key, values) pairs. A key is
            `<stage>/<height>x<width>`, or the module path of one convolution, which comes first. Values run row by
            row over the kernel and lie in [0, 1], rounded once, here, to six decimals. A convolution without a key
            stays dense. The weights are drawn with exact counts: round(frequency * filters * inputs) of each
            position, chosen by `seed`.
        masks: An exact mask per convolution, as sorted (module path, base64 text) pairs, made by `pack`; at
            most 4 MB in all. A convolution that is missing stays dense.
        seed: Chooses among the masks that have the frequencies.
    """

    frequencies: tuple[tuple[str, tuple[float, ...]], ...] = ()
    masks: tuple[tuple[str, str], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Rounds and checks the values."""
        if bool(self.frequencies) == bool(self.masks):
            raise InputError("a kernel pattern has either frequencies or masks")
        rounded = tuple((k, tuple(round(float(v), DECIMALS) for v in vs)) for k, vs in self.frequencies)
        if not all(0 <= v <= 1 for _, vs in rounded for v in vs):
            raise InputError("kernel frequencies lie in [0, 1]")
        if sum(len(text) for _, text in self.masks) > MASK_BYTES:
            raise InputError("kernel masks take more than 4 MB; give frequencies per stage instead")
        object.__setattr__(self, "frequencies", tuple(sorted(rounded)))
        object.__setattr__(self, "masks", tuple(sorted(self.masks)))

    @staticmethod
    def pack(mask: npt.NDArray[np.bool_]) -> str:
        """The text form of a boolean mask of any shape."""
        return base64.b64encode(zlib.compress(np.packbits(mask.ravel()).tobytes(), 9)).decode()

    @staticmethod
    def unpack(text: str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """The mask `pack` was given.

        Raises:
            InputError: The text does not hold a mask of this shape.
        """
        count = int(np.prod(shape))
        try:
            bits = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
        except (ValueError, zlib.error) as error:
            raise InputError(f"a kernel mask is damaged ({error})") from error
        if bits.size != (count + 7) // 8:
            raise InputError(f"a kernel mask does not fit weights of shape {'x'.join(map(str, shape))}")
        return np.unpackbits(bits, count=count).astype(bool).reshape(shape)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One point of a search space.

    Only what differs from the dense network is stored. Make one with `SearchSpace.point`, which checks it and
    brings it into canonical form: nothing inside a removed branch, no full widths, no full selections.

    Attributes:
        space: Name of the search space.
        network: Fingerprint of the dense network: a digest of its parameter names and shapes.
        widths: Units kept, as sorted (group, units) pairs; a group that is missing is dense.
        selected: Channels a gate lets through, as sorted (gate, positions) pairs. Positions count in the
            gate's input as built, after `widths`, ascending; a gate that is missing lets all through.
        removed: Blocks whose branch is gone, sorted.
        kernels: Which weights of each convolution exist; None means all of them.
    """

    space: str
    network: str
    widths: tuple[tuple[str, int], ...] = ()
    selected: tuple[tuple[str, tuple[int, ...]], ...] = ()
    removed: tuple[str, ...] = ()
    kernels: KernelPattern | None = None

    @property
    def digest(self) -> str:
        """Twelve hex digits that name this point, the same on every machine and Python."""
        return digest(self.to_json())

    @property
    def masked(self) -> bool:
        """Whether some weights are zero by pattern: such a network never shares a panel with narrow ones."""
        return self.kernels is not None

    def width(self, group: str, dense: int) -> int:
        """Units of `group`, where `dense` is the number it has in the dense network."""
        return dict(self.widths).get(group, dense)

    def to_json(self) -> dict[str, Any]:
        """A JSON document with only the fields that say something."""
        document: dict[str, Any] = {"format": FORMAT, "space": self.space, "network": self.network}
        if self.widths:
            document["widths"] = dict(self.widths)
        if self.selected:
            document["selected"] = {gate: list(positions) for gate, positions in self.selected}
        if self.removed:
            document["removed"] = list(self.removed)
        if self.kernels is not None:
            kernels: dict[str, Any] = {"seed": self.kernels.seed}
            if self.kernels.frequencies:
                kernels["frequencies"] = {key: list(values) for key, values in self.kernels.frequencies}
            else:
                kernels["masks"] = dict(self.kernels.masks)
            document["kernels"] = kernels
        return document

    @classmethod
    def from_json(cls, document: Any, source: str = "architecture") -> "Architecture":
        """The architecture `to_json` wrote.

        Args:
            document: The parsed JSON.
            source: What to call the document in an error, usually its path.

        Raises:
            InputError: A field is unknown, missing or of the wrong type, or the format is not this one's.
        """
        if not isinstance(document, dict):
            raise InputError(f"{source}: not an architecture (a JSON object is expected)")
        known = {"format", "space", "network", "widths", "selected", "removed", "kernels"}
        for key in document:
            if key not in known:
                raise InputError(f"{source}: {unknown('architecture field', key, known)}")
        if document.get("format") != FORMAT:
            raise InputError(
                f"{source}: format {document.get('format')!r}; this prunas reads format {FORMAT}"
            )
        try:
            for key in ("space", "network"):
                if not isinstance(document[key], str):
                    raise TypeError(f"{key} is not text")
            return cls(
                space=document["space"],
                network=document["network"],
                widths=tuple(sorted((g, _whole(n)) for g, n in document.get("widths", {}).items())),
                selected=tuple(
                    sorted(
                        (g, tuple(_whole(p) for p in ps)) for g, ps in document.get("selected", {}).items()
                    )
                ),
                removed=tuple(sorted(_texts(document.get("removed", [])))),
                kernels=_pattern(document["kernels"]) if "kernels" in document else None,
            )
        except KeyError as error:
            raise InputError(f"{source}: the field {error} is missing") from error
        except InputError:
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{source}: damaged ({error})") from error

    def replace(self, **changes: Any) -> "Architecture":
        """A copy with some fields changed, not yet checked."""
        return dataclasses.replace(self, **changes)

    def __str__(self) -> str:
        return canonical(self.to_json())

    def __repr__(self) -> str:
        counts = ((self.widths, "width"), (self.selected, "gate"), (self.removed, "removed block"))
        parts = [f"{len(items)} {what}{'s' if len(items) > 1 else ''}" for items, what in counts if items]
        parts += ["kernel pattern"] if self.kernels is not None else []
        return f"<Architecture {self.digest} of {self.space}: {', '.join(parts) or 'dense'}>"

    def _repr_html_(self) -> str:
        """What differs from the dense network, as a table; `SearchSpace.picture` draws it."""
        rows = [(group, f"{units:,} wide") for group, units in self.widths]
        rows += [(gate, f"passes {len(positions):,} inputs") for gate, positions in self.selected]
        rows += [(block, "removed") for block in self.removed]
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{what}</td></tr>" for name, what in rows)
        return f"<p><code>{escape(repr(self))}</code></p><table>{cells}</table>"


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _texts(values: object) -> Iterable[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("removed is not a list of names")
    return values


def _pattern(document: Mapping[str, Any]) -> KernelPattern:
    extra = set(document) - {"frequencies", "masks", "seed"}
    if extra:
        raise TypeError(f"unknown kernel field {min(extra)!r}")
    return KernelPattern(
        frequencies=tuple((k, tuple(vs)) for k, vs in document.get("frequencies", {}).items()),
        masks=tuple(document.get("masks", {}).items()),
        seed=_whole(document.get("seed", 0)),
    )
