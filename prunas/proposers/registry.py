"""Proposers by name: those of the table and those that other packages add, with their options."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from prunas.errors import InputError, unknown
from prunas.names import DIMENSIONS, FINDERS, Decision, Kind, Need
from prunas.plugins import Plugin, load_all, plugins
from prunas.proposers.entry import Entry
from prunas.proposers.options import check_options
from prunas.proposers.table import PROPOSERS, PROXY_CONTROLS

__all__ = [
    "check_values",
    "configured",
    "designs_for",
    "entry",
    "finder_of",
    "installed_proposers",
    "joining_controls",
    "proxy_controls",
]


def entry(name: str) -> Entry:
    """The proposer called `name`: one of `PROPOSERS`, or what an installed package offers.

    `tpe+slimming` is a sampler whose first trials are what slimming found; several methods are joined alike.
    `tpe@enas` is a control: the sampler with the evaluator of enas and as many evaluations.

    Raises:
        InputError: There is none, and the message names the nearest ones; or the package's cannot be used.
    """
    if name in PROPOSERS:
        return PROPOSERS[name]
    base, at, method = name.partition("@")
    if at:
        return _rivalling(name, entry(base), method)
    base, *starts = name.split("+")
    if starts:
        return _started(name, entry(base), starts)
    offered = plugins("prunas.proposers")
    if name not in offered:
        raise unknown("proposer", name, {*PROPOSERS, *offered})
    return _offered(offered[name])


def _rivalling(name: str, line: Entry, method: str) -> Entry:
    if "trials" not in line.needs or line.starts:
        raise InputError(f"proposer {name!r}: only what tries candidates can be given those of {method!r}")
    if not entry(method).evaluates:
        raise InputError(
            f"proposer {name!r}: {method!r} does not search by evaluations that others could make"
        )
    return replace(
        line,
        kind="control",
        description=f"{line.description}; with the evaluator of {method} and as many evaluations",
        rivals=method,
        joins=False,
        look=None,
    )


def proxy_controls(names: Iterable[str]) -> tuple[str, ...]:
    """The controls with the evaluator of a method and as many evaluations, of each of these that evaluates."""
    methods = [name for name in names if entry(name).evaluates]
    return tuple(f"{control}@{method}" for method in methods for control in PROXY_CONTROLS)


def _started(name: str, line: Entry, starts: list[str]) -> Entry:
    if line.kind != "sampler":
        raise InputError(
            f"proposer {name!r}: only a sampler can start from found points, such as tpe+slimming"
        )
    for start in starts:
        if entry(start).kind not in FINDERS:
            raise InputError(f"proposer {name!r}: {start!r} finds nothing by pruning; try tpe+slimming")
    return replace(line, needs=(*line.needs, "found"), starts=tuple(dict.fromkeys(starts)))


def check_values(name: str, **values: Any) -> None:
    """Refuses values of a bundled proposer's settings that its entry does not allow; for its constructor.

    Raises:
        InputError: As `prunas.proposers.options.check_options`.
    """
    line = PROPOSERS.get(name)
    if line is not None and line.options is not None:  # a class that an installed package derives has its own
        check_options(name, line.options, values)


def configured(name: str, *tables: Mapping[str, Mapping[str, Any]]) -> tuple[Entry, dict[str, Any]]:
    """A proposer with what it decides, and its settings.

    Args:
        name: As `entry` takes it; `tpe+slimming` has the settings of `tpe` too, and a control those of the method
            that it repeats, but for what is fixed.
        tables: Settings by name of proposer; later ones win.

    Raises:
        InputError: As `entry`, or a setting does not exist or cannot have that value.
    """
    line = entry(name)
    method = line.controls or name.partition("+")[0].partition("@")[0]
    settings = {
        key: value
        for table in tables
        for owner in dict.fromkeys((method, name))
        for key, value in table.get(owner, {}).items()
        if owner == name or key not in line.fixed
    }
    if line.options is not None:
        check_options(name, line.options, settings)
    if "trials" in line.needs and "vary" in settings:
        if settings["vary"] not in line.dimensions:
            raise unknown(f"{name}: vary", str(settings["vary"]), line.dimensions)
        line = replace(line, dimensions=(settings["vary"],))
    return line, settings


def joining_controls(decision: Decision) -> tuple[str, ...]:
    """The bundled controls that join every search of what they decide, unless told otherwise."""
    return tuple(name for name, line in PROPOSERS.items() if line.joins and line.dimensions[0] == decision)


def designs_for(decision: Decision) -> tuple[str, ...]:
    """The bundled designs of what was found, here or elsewhere."""
    return _deciding("design", decision)


def finder_of(decision: Decision) -> str:
    """A method that finds by pruning, to name in a message."""
    return _deciding("automatic", decision)[0]


def _deciding(kind: Kind, decision: Decision) -> tuple[str, ...]:
    lines = PROPOSERS.items()
    return tuple(name for name, line in lines if (line.kind, line.dimensions[0]) == (kind, decision))


def installed_proposers() -> tuple[dict[str, Entry], tuple[str, ...]]:
    """`PROPOSERS` and what installed packages add, and one line about each addition that cannot be used."""
    added, problems = load_all("prunas.proposers", PROPOSERS, _offered)
    return {**PROPOSERS, **added}, problems


def _offered(plugin: Plugin) -> Entry:
    line = plugin.load()
    if not isinstance(line, Entry):
        raise InputError(f"{plugin}: its entry point names a {type(line).__name__}, not an Entry")
    if line.kind not in get_args(Kind):
        raise InputError(f"{plugin}: {unknown('kind', line.kind, get_args(Kind))}")
    if not line.dimensions or not set(line.dimensions) <= set(DIMENSIONS):
        raise InputError(f"{plugin}: it decides {line.dimensions}; of {DIMENSIONS} there must be one")
    for need in line.needs:
        if need not in get_args(Need):
            raise InputError(f"{plugin}: {unknown('need', need, get_args(Need))}")
    return line
