"""The closed vocabulary is written down once."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import prunas
from prunas import names
from prunas.names import FINDERS, ROW_KINDS, SEARCHERS, Decision, Kind, Need, RowKind

PACKAGE = Path(prunas.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "names.py"
}
FLAGS = {
    names.CHANCE_LEVEL,
    names.MACS_NOT_MATCHED,
    names.NONE_LEFT_OUT,
    names.PENALTY_NOT_ACTED,
    names.POLICIES_DIFFER,
    names.TARGET_MISSED,
}  # FLOOR is also the name of a space's setting


def literals(tree: ast.AST) -> Iterator[tuple[int, list[str]]]:
    """Line and members of every tuple, list and set that is spelt out in texts alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set) and len(node.elts) > 1:
            texts = [part.value for part in node.elts if isinstance(part, ast.Constant)]
            if len(texts) == len(node.elts) and all(isinstance(text, str) for text in texts):
                yield node.lineno, [str(text) for text in texts]


def test_kinds_and_dimensions_are_listed_in_one_file() -> None:
    words = set(get_args(Kind)), set(get_args(Decision)), set(get_args(Need))
    copies = [
        f"{path}:{line}: {members}"
        for path, tree in TREES.items()
        for line, members in literals(tree)
        if any(set(members) <= known for known in words)
    ]
    assert copies == []


def test_flags_are_spelt_in_one_file() -> None:
    copies = [
        f"{path}:{node.lineno}: {node.value}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in FLAGS
    ]
    assert copies == []


def test_what_searches_is_what_prunes_and_what_samples() -> None:
    assert set(FINDERS) == {"automatic", "predefined"}
    assert set(SEARCHERS) - set(FINDERS) == {"sampler"}
    assert set(ROW_KINDS) == set(get_args(RowKind)) == {"dense", *get_args(Kind)}
