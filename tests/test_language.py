"""The source says what it means: no arithmetic on truth values, no words that a reader must look up."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import prunas

SOURCES = sorted(Path(prunas.__file__).parent.rglob("*.py"))
BANNED = re.compile(
    r"\b(lest|mend(s|ed|ing)?|loud(ly)?|aloud|house|in vain|hence|thereby|whence|guilty)\b", re.I
)


def is_truth_value(node: ast.expr) -> bool:
    match node:
        case ast.Compare() | ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Call(func=ast.Name(id="bool" | "isinstance" | "any" | "all" | "callable" | "hasattr")):
            return True
        case ast.BoolOp():
            return all(map(is_truth_value, node.values))
    return False


def truth_value_arithmetic(source: str) -> list[str]:
    problems = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.BinOp(op=ast.Mult() | ast.Add() | ast.Sub()):
                operands = [node.left, node.right]
            case ast.AugAssign(op=ast.Mult() | ast.Add() | ast.Sub()):
                operands = [node.value]
            case _:
                continue
        if any(map(is_truth_value, operands)):
            problems.append(f"{node.lineno}: {ast.unparse(node)}")
    return problems


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings and comments, with their lines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def banned_words(source: str) -> list[str]:
    return [f"{line}: {word[0]}" for line, text in prose(source) for word in BANNED.finditer(text)]


def test_no_truth_value_arithmetic_and_no_banned_words() -> None:
    problems = {}
    for path in SOURCES:
        source = path.read_text("utf-8")
        if lines := truth_value_arithmetic(source) + banned_words(source):
            problems[str(path)] = lines
    assert problems == {}


@pytest.mark.parametrize(
    "source",
    [
        "text = 'macs' + ', heads' * (name in ATTENTION)",
        "remaining -= not narrowest",
        "area = size * isinstance(tensor, Parameter)",
        "figures = ['budget'] * bool(budgets)",
        "count += a < b and c < d",
    ],
)
def test_truth_value_arithmetic_is_seen(source: str) -> None:
    assert truth_value_arithmetic(source)


@pytest.mark.parametrize("source", ["x = 2 * size", "y = a if b < c else 0", "z = sum(v > 0 for v in w) * 2"])
def test_other_arithmetic_is_allowed(source: str) -> None:
    assert truth_value_arithmetic(source) == []


@pytest.mark.parametrize("source", ['"""Copied, lest it changes."""', "x = 1  # mended later"])
def test_banned_words_are_seen(source: str) -> None:
    assert banned_words(source)
