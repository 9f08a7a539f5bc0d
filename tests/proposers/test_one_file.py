"""A method is one file and one entry: nothing else in the package knows it by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import prunas
from prunas.proposers.table import PROPOSERS

PACKAGE = Path(prunas.__file__).parent
HOMES = {name: entry.path.partition(":")[0].replace(".", "/") + ".py" for name, entry in PROPOSERS.items()}

EXCEPTIONS = {
    "prunas/proposers/table.py": "the table itself",
    "prunas/proposers/unlearnt.py": "entries of the table",
    "prunas/designs/__init__.py": "exports functions of those names, which proposers put on a budget",
    "prunas/designs/widths.py": "as above",
    "prunas/designs/kernels.py": "as above",
    "prunas/cli/design.py": "one subcommand per function of prunas.designs",
    "prunas/cli/doctor.py": "cmaes is also the name of a package to install",
    "prunas/api.py": "what proposes, and what `transfer` carries, unless told otherwise",
    "prunas/cli/search.py": "whose shapes `prunas transfer` carries unless told otherwise",
    "prunas/recipe.py": "sss is also the name of that paper's recipe",
    "prunas/training/journal.py": "random is Python's generator",
    "prunas/tracing/operations.py": "uniform is torch's, which fills a tensor",
    "prunas/proposers/pruning/netadapt.py": "random is also how its control chooses",
    "prunas/proposers/settings.py": "as above",
    "prunas/experiments/shrink_plan.py": "what `shrink` is compared with, and what matches its shapes",
    "prunas/experiments/forecast.py": "a dry run shows the cost of uniform shapes, which need no search",
    "prunas/statistics/claims.py": "random is also how a method's control chooses",
    "prunas/statistics/summary.py": "differences are taken against the taper unless told otherwise",
    "prunas/statistics/widths.py": "agreement of searches is compared with that of uniform shapes",
    "prunas/statistics/advice.py": "one of its questions is: found or uniform?",
    "prunas/report/checklist.py": "asks for uniform, random, taper and shuffled by name: good practice does",
    "prunas/report/evidence.py": "agreement of searches is compared with that of uniform shapes",
    "prunas/report/headline.py": "the three controls that a claim must beat",
    "prunas/report/page.py": "as above",
}
"""Files that name a proposer that is not theirs, and why. Controls alone, but for defaults and three homonyms."""

TABLE = ("prunas/proposers/table.py", "prunas/proposers/unlearnt.py")

METHODS_NAMED = {
    "prunas/api.py": {"slimming"},
    "prunas/cli/search.py": {"slimming"},
    "prunas/cli/doctor.py": {"cmaes"},
    "prunas/experiments/shrink_plan.py": {"l1"},
    "prunas/recipe.py": {"sss"},
}


def named(path: Path) -> Iterator[tuple[str, int]]:
    """Proposers that a file names in a constant of its own, with the line; sentences may name examples."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and node.value in PROPOSERS:
            yield str(node.value), node.lineno


NAMED = [
    (path.relative_to(PACKAGE.parent).as_posix(), name, line)
    for path in sorted(PACKAGE.rglob("*.py"))
    for name, line in named(path)
]


def test_nothing_but_its_file_and_the_table_knows_a_proposer_by_name() -> None:
    strangers = [
        f"{path}:{line} names {name!r}"
        for path, name, line in NAMED
        if path != HOMES[name] and path not in EXCEPTIONS and path.rpartition("/")[2] != "names.py"
    ]
    assert strangers == []


def test_pruning_methods_and_samplers_are_named_nowhere_else_at_all() -> None:
    """Controls are what a report compares with; a method must not be more than one of many anywhere."""
    strangers = [
        f"{path}:{line} names {name!r}"
        for path, name, line in NAMED
        if PROPOSERS[name].kind not in ("control", "design")
        and path not in (HOMES[name], *TABLE)
        and name not in METHODS_NAMED.get(path, ())
    ]
    assert strangers == []


def test_every_exception_is_needed() -> None:
    needed = {path for path, name, _ in NAMED if path != HOMES[name]}
    assert set(EXCEPTIONS) <= needed
    assert all(
        (path, name) in {(p, n) for p, n, _ in NAMED}
        for path in METHODS_NAMED
        for name in METHODS_NAMED[path]
    )


def test_every_method_has_a_file() -> None:
    assert {home for home in HOMES.values() if not (PACKAGE.parent / home).is_file()} == set()
