"""Surveys, and other answers that torch is slow to give, kept as long as nothing they depend on changes."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas.errors import InputError
from prunas.files import cache_folder, digest, read_json, write_json
from prunas.inputs import Inputs
from prunas.spaces.factory import file_hash, import_factory
from prunas.survey import Survey

if TYPE_CHECKING:
    from torch import nn

__all__ = ["cached_survey", "remembered", "surveyed"]


def surveyed(
    name: str, factory: Callable[[], "nn.Module"], inputs: Any, part: str = "", part_inputs: Any = None
) -> Survey:
    """The survey of the network of a space.

    Args:
        name: Of the space, for messages.
        factory: Returns a fresh network.
        inputs: What it is called with; see `prunas.inputs.Inputs.of`.
        part: Module path of the submodule that varies; "" for all of the network.
        part_inputs: What the part is called with, where that does not show.

    Raises:
        InputError: As `prunas.tracing.survey.survey`, with the name of the space; or the factory loads weights.
    """
    from prunas.tracing.survey import survey

    with _loads() as places:
        try:
            made = survey(
                factory, Inputs.of(inputs), 0, part, Inputs.of(part_inputs) if part_inputs else None
            )
        except InputError as error:
            if not places:
                raise InputError(f"space {name!r}: {error}") from error
    if places:
        raise InputError(
            f"space {name!r}: its factory loads weights by itself ({places[0]}), which a smaller network cannot "
            'have; let it return the network without them, and name their file: weights = "FILE" in the TOML '
            "file, or --weights FILE"
        )
    return made


@contextmanager
def _loads() -> Iterator[list[str]]:
    """Notes the lines at which a state dict is loaded into a network meanwhile, as `net.py:12`."""
    from torch import nn

    places: list[str] = []
    load = nn.Module.load_state_dict

    def noted(net: nn.Module, *args: Any, **options: Any) -> Any:
        caller = sys._getframe(1)
        places.append(f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}")
        return load(net, *args, **options)

    nn.Module.load_state_dict = noted  # type: ignore[assignment,method-assign]  # put back below
    try:
        yield places
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def cached_survey(content: Mapping[str, Any], factory: Callable[[], "nn.Module"]) -> Survey:
    """The survey of a network, from the cache if nothing it depends on has changed."""
    network = {key: value for key, value in content.items() if key not in ("name", "vary")}
    key = digest([network, _own_sources()], 24)
    path = cache_folder() / "surveys" / f"{key}.json"
    with suppress(InputError):  # an entry that is missing or damaged is made anew
        return Survey.from_json(read_json(path))
    # Imported here, so that no module's tensors are made on the meta device.
    import_factory(content["network"], content.get("source", ""))
    parted = content.get("part", ""), content.get("part_input")
    made = surveyed(content["name"], factory, content["input"], *parted)
    with suppress(InputError):  # a cache that cannot be written only costs time
        write_json(path, made.to_json())
    return made


def remembered(kind: str, content: Any, make: Callable[[], Any]) -> Any:
    """What `make` returns, from the cache if it was made before of the same content by the same sources.

    Args:
        kind: Folder of the cache.
        content: JSON values that decide it, beside the sources of surveys and networks and the version of torch.
        make: Makes it: JSON values.
    """
    path = cache_folder() / kind / f"{digest([content, _own_sources()], 24)}.json"
    with suppress(InputError):  # an entry that is missing or damaged is made anew
        return read_json(path)["value"]
    value = make()
    with suppress(InputError):  # a cache that cannot be written only costs time
        write_json(path, {"value": value})
    return value


def _own_sources() -> list[str]:
    """What every survey depends on: torch, and our own sources."""
    here = Path(__file__).parent.parent
    files = [
        *sorted(
            f for room in ("tracing", "graphs", "surgery", "networks") for f in (here / room).rglob("*.py")
        )
    ]
    files += [here / "survey.py", here / "inputs.py"]
    return [importlib.metadata.version("torch"), *map(file_hash, files)]
