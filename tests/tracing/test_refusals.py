"""Every reason that a survey can give for refusing or holding has a network that brings it about."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from torch import nn

import prunas
from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.surgery.assemble import build
from prunas.tracing.survey import survey
from tests.tracing.refused import HELD, REFUSED, UNBUILT, Case

PACKAGE = Path(prunas.__file__).parent
SOURCES = (*sorted((PACKAGE / "tracing").rglob("*.py")), PACKAGE / "surgery" / "construct.py")
ANYTHING = "..."


def reasons(case: Case) -> list[str]:
    """What the survey of a network gives as reasons."""
    try:
        made = survey(case.factory, case.inputs, part=case.part)
    except InputError as error:
        return [str(error)]
    return [frozen.why for frozen in made.frozen] + ([made.part.why] if made.part else [])


@cache
def said(case: Case) -> list[str]:
    return reasons(case)


def pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split(ANYTHING))))


@pytest.mark.parametrize("case", [*HELD, *REFUSED], ids=lambda case: case.says[:60])
def test_a_network_brings_its_reason_about(case: Case) -> None:
    told = said(case)
    assert any(pattern(case.says).fullmatch(text) for text in told), told
    assert not any("\n" in text for text in told)


@pytest.mark.parametrize("case", HELD, ids=lambda case: case.says[:60])
def test_what_is_held_does_not_refuse_the_network(case: Case) -> None:
    survey(case.factory, case.inputs, part=case.part)


def unbuilt(factory: Callable[[], nn.Module]) -> str:
    """What a point of seven channels is refused with."""
    made = survey(factory, (3, 6, 6))
    with pytest.raises(InputError) as caught:
        build(factory, made, Architecture("test", made.fingerprint, ((made.groups[0].name, 7),)))
    return str(caught.value)


@pytest.mark.parametrize(("says", "factory"), UNBUILT)
def test_a_point_that_the_factory_does_not_make_is_refused(
    says: str, factory: Callable[[], nn.Module]
) -> None:
    assert pattern(says).fullmatch(unbuilt(factory))


def texts(path: Path) -> Iterator[str]:
    """The texts of a file that are sentences, with `...` for what is filled in; docstrings are none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    within = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(tree):
        if id(node) in within:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else ANYTHING for p in node.values]
            text = "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.replace("{}", ANYTHING)
        else:
            continue
        if re.search(r"[a-z]+ [a-z]+", text):
            yield text


NO_REASONS = {
    "(str call, Tensor[] inputs) -> Tensor[]",  # how an operator is called
    "attribute num_heads",  # names of what a number holds
    "meta tensor",  # sought in errors of torch
    "other parameters",  # a row of the cost
    "what follows",  # a place
}
UNSHOWN = {
    "the survey did not settle after ... random points; exclude more layers",  # a guard: every failure holds some
    "forward uses an object that torch.export lifts as ...",  # of a class that is registered with torch in C++
    "forward also takes ..., which the input does not have",  # shows where the other ways of tracing fail too
}
"""Reasons that no network of a few lines brings about."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_reason_has_a_network(path: Path) -> None:
    told = [text for case in (*HELD, *REFUSED) for text in said(case)] + [
        unbuilt(make) for _, make in UNBUILT
    ]
    missing = [
        text
        for text in texts(path)
        if text not in NO_REASONS | UNSHOWN and not any(pattern(text).search(some) for some in told)
    ]
    assert not missing
