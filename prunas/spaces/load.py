"""Search spaces by name, file or content, and points of them."""

import hashlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas import live
from prunas.architecture import Architecture
from prunas.errors import InputError, unknown
from prunas.files import canonical, digest, read_json
from prunas.inputs import Inputs
from prunas.plugins import Plugin, load_all, plugins
from prunas.spaces.cache import cached_survey
from prunas.spaces.factory import (
    distribution_versions,
    file_hash,
    import_path,
    imported_beside,
    make_network,
    read_source,
)
from prunas.spaces.file import NETWORK, Vary, parse
from prunas.spaces.presets import slug
from prunas.spaces.space import SearchSpace
from prunas.spaces.study import Study
from prunas.spaces.wider import check_wider

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "bundled_spaces",
    "installed_spaces",
    "live_content",
    "load_network",
    "load_point",
    "load_space",
    "space_folder",
    "space_from_model",
]


# Files


def space_folder() -> Path:
    """The folder of the bundled spaces: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def bundled_spaces() -> dict[str, Path]:
    """The bundled spaces by name."""
    return {path.stem: path for path in sorted(space_folder().glob("*.toml"))}


def installed_spaces() -> tuple[dict[str, Path], tuple[str, ...]]:
    """The bundled spaces and what installed packages add, and one line about each addition that cannot be used."""
    bundled = bundled_spaces()
    added, problems = load_all("prunas.spaces", bundled, _offered)
    return {**bundled, **added}, problems


def _file_of(name: str) -> Path | None:
    """The file of a bundled space or of one that an installed package offers; None if there is no such name."""
    if (path := bundled_spaces().get(name)) is not None:
        return path
    plugin = plugins("prunas.spaces").get(name)
    return None if plugin is None else _offered(plugin)


def _offered(plugin: Plugin) -> Path:
    path = plugin.load()
    if not isinstance(path, (str, Path)):
        raise InputError(f"{plugin}: its entry point names a {type(path).__name__}, not a path")
    path = Path(path)
    if path.name != f"{plugin.name}.toml" or not path.is_file():
        raise InputError(f"{plugin}: {path} must be a file called {plugin.name}.toml")
    return path


def load_space(name: str | Mapping[str, Any]) -> SearchSpace:
    """A bundled space by name, one that an installed package offers, the one in a TOML file, or of such content.

    The first call for a network imports torch to survey it; later ones read the survey from a cache in the
    user's cache folder, or in PRUNAS_CACHE.

    Raises:
        InputError: There is no such space, or the file is not one.
    """
    if not isinstance(name, str):
        return _from_content(name)
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no file {name}")
        return _read(path)
    found = _file_of(name)
    if found is None:
        raise unknown("space", name, {*bundled_spaces(), *plugins("prunas.spaces")})
    return _read(found)


def load_point(text: str) -> tuple[SearchSpace, Architecture]:
    """The point that a user means by `SPACE`, `SPACE:PRESET` or the path of an architecture's JSON file.

    An architecture of a user's own space is read with the space's TOML file beside it.

    Raises:
        InputError: It is none of these.
    """
    if text.endswith(".json"):
        arch = Architecture.from_json(read_json(Path(text)), text)
        beside = Path(text).with_name(f"{arch.space}.toml")
        space = load_space(str(beside) if beside.is_file() else arch.space)
        space.check(arch)
        return space, space.canonical(arch)
    name, _, preset = text.partition(":")
    file = name.endswith(".toml")
    if preset and not file and (name.endswith(".py") or ("." in name and _file_of(name) is None)):
        raise InputError(
            f"{text!r} is a network, not a space: show it with --input, such as --input 3,224,224; to search or "
            f'train, write a TOML file with network = "{text}", input, data and recipe'
        )
    space = load_space(name)
    return space, space.preset(preset).architecture if preset else space.dense


def _read(path: Path) -> SearchSpace:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    spec = parse(text, path)
    content = _content(
        path.stem,
        spec.network,
        path.parent,
        spec.arguments,
        spec.input,
        spec.vary.model_dump(),
        spec.part,
        spec.part_input,
    )
    known_as: str | Mapping[str, Any] = content
    with suppress(InputError):  # an installed package's name that cannot be used: the content serves
        if _file_of(path.stem) == path:
            known_as = path.stem
    return replace(_from_content(content), source=str(path), known_as=known_as, **spec.settings())


def load_network(network: str, input_shape: Any, part: str = "") -> SearchSpace:
    """The space of a network by its import path or file, to look at: everything varies, and there are no data.

    Args:
        network: "package.module:factory", or "path/to/file.py:factory".
        input_shape: Shape of one input without the batch, or what else `prunas.inputs.Inputs.of` reads.
        part: Module path of the submodule that varies; "" for all of it.

    Raises:
        InputError: It cannot be imported, made or surveyed.
    """
    if not re.fullmatch(NETWORK, network):
        raise InputError(f"{network!r} is no network; write package.module:function or file.py:function")
    name = slug(network.partition(":")[2]) or "network"
    vary = Vary(gates=("*",), blocks=("*",)).model_dump()
    return _from_content(_content(name, network, Path(), {}, input_shape, vary, part))


def _content(
    name: str,
    network: str,
    folder: Path,
    arguments: Mapping[str, Any],
    inputs: Any,
    vary: Mapping[str, Any],
    part: str = "",
    part_inputs: Any = None,
) -> dict[str, Any]:
    """What makes a space again in any process: network, its source or version, arguments, input and [vary].

    Args:
        name: Of the space.
        network: Import path, or a file in `folder`, and the factory's name.
        folder: Where the space's file lies.
        arguments: Of the factory.
        inputs: What the network is called with.
        vary: The table [vary].
        part: Module path of the submodule that varies; "" for all of the network.
        part_inputs: What the part is called with, where that does not show.

    Raises:
        InputError: The file cannot be read, or JSON cannot hold the arguments.
    """
    place, _, attribute = network.partition(":")
    content: dict[str, Any] = {"name": name, "network": network, "arguments": dict(arguments)}
    if place.endswith(".py"):
        content["source"] = read_source(f"network {network!r}", folder / place)
        if beside := [file_hash(file) for file in imported_beside(folder / place)]:
            content["versions"] = beside
        content["network"] = f"{Path(place).name}:{attribute}"  # where it lies does not matter
    else:
        content["versions"] = distribution_versions(place)
    content |= {"input": Inputs.of(inputs).to_json()}
    content |= {
        "vary": {key: _listed(value) for key, value in vary.items() if (key, value) != ("ceiling", 1)}
    }
    if part:
        content["part"] = part
    if part_inputs is not None:
        content["part_input"] = Inputs.of(part_inputs).to_json()
    try:
        canonical(content)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"space {name!r}: arguments must be numbers, texts, lists and tables: {error}"
        ) from error
    return content


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _from_content(content: Mapping[str, Any]) -> SearchSpace:
    network, source = content["network"], content.get("source", "")
    factory = partial(make_network, network, source, dict(content["arguments"]))
    survey = cached_survey(content, factory)
    vary: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content["vary"].items()
    }
    space = SearchSpace(
        name=content["name"], survey=survey, factory=factory, network=network, known_as=content, **vary
    )
    check_wider(space, lambda wider, widths: cached_survey({**content, "widths": [*widths]}, wider))
    return space


# Python


def space_from_model(
    factory: "Callable[[], nn.Module]",
    input_shape: Any,
    *,
    name: str,
    part: str = "",
    part_input: Any = None,
    **settings: Any,
) -> SearchSpace:
    """A space over any network.

    Args:
        factory: Returns a fresh network at every call, always the same one.
        input_shape: Shape of one input without the batch, or what else `prunas.inputs.Inputs.of` reads.
        name: What to call the space.
        part: Module path of the submodule that varies, its inputs and outputs held; "" for all of the network.
        part_input: What the part is called with, where that does not show when the network runs once.
        settings: Any further attribute of `SearchSpace`, or of its `Study`: `data="cifar10"`. `data` may be a data
            set itself, and `task` a function that makes one of it.

    Raises:
        InputError: The network cannot be traced or does not accept such an input.
    """
    from prunas.spaces.cache import surveyed

    data = settings.get("data", "")
    if not isinstance(data, str):
        settings["data"] = live.name_of_data(data)
    if callable(task := settings.get("task")):
        settings["task"] = live.name_of("task", task)
    given = {field.name: settings.pop(field.name) for field in fields(Study) if field.name in settings}
    settings["study"] = replace(settings.get("study", Study()), **given)
    made = surveyed(name, factory, input_shape, part, part_input)
    space = SearchSpace(name=name, survey=made, factory=factory, network=import_path(factory), **settings)
    check_wider(space, lambda wider, _: surveyed(name, wider, input_shape, part, part_input))
    known_as = _importable(space, part_input)
    if not known_as and part_input is not None:
        known_as = live_content(space, part_input)  # no attribute of the space tells it later
    return replace(space, known_as=known_as)


def live_content(space: SearchSpace, part_input: Any = None) -> dict[str, Any]:
    """The content of a space whose factory exists in this process alone, which is told by what it makes.

    That is: the structure and the layers of the network, the code of its classes, and the weights that it is born
    with from one seed.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = space.factory()
    classes = {type(module) for module in net.modules()}
    own = sorted(live.code_digest(kind) for kind in classes if kind.__module__.partition(".")[0] != "torch")
    layers = re.sub(r"0x[0-9a-f]+", "", repr(net))
    born = hashlib.sha256()
    for tensor in net.state_dict().values():
        born.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    code = live.code_digest(space.factory)
    identity = digest([space.survey.fingerprint, code, own, layers, born.hexdigest()])
    vary = {key: getattr(space, key) for key in Vary.model_fields}
    network = live.name_of("network", space.factory, identity)
    survey, part = space.survey, space.survey.part.path if space.survey.part else ""
    return _content(space.name, network, Path(), {}, survey.called_with, vary, part, part_input)


def _importable(space: SearchSpace, part_input: Any) -> dict[str, Any]:
    """The content of a space made in Python; empty if another process cannot import its factory."""
    factory: Any = space.factory
    arguments: Mapping[str, Any] = {}
    if isinstance(factory, partial) and not factory.args:
        factory, arguments = factory.func, factory.keywords
    network = import_path(factory)
    vary = {key: getattr(space, key) for key in Vary.model_fields}
    try:
        if network.startswith("__main__") or pkgutil.resolve_name(network) is not factory:
            return {}
        survey, part = space.survey, space.survey.part.path if space.survey.part else ""
        return _content(space.name, network, Path(), arguments, survey.called_with, vary, part, part_input)
    except (
        ImportError,
        AttributeError,
        ValueError,
    ):  # a local function, a lambda, arguments JSON cannot hold
        return {}
