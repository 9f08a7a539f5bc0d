import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from prunas.errors import InputError
from prunas.survey import FIXED, Block, ChannelAxis, CostTerm, Frozen, Gate, Group, Layer, Span, Survey

A, B = 0, 1
"""Two groups, of 4 and 3 units."""

FORMS = (
    (Span(FIXED, 0, 2, 1),),
    (Span(A, 0, 4, 1),),
    (Span(A, 0, 4, 1), Span(FIXED, 0, 2, 1), Span(B, 0, 3, 2)),
    (Span(B, 0, 3, 1), Span(B, 0, 3, 1)),  # two convolution groups
    (Span(B, 1, 2, 1), Span(B, 0, 1, 1)),  # in another order
)
SURVEY = Survey(
    input=(2, 8, 8),
    fingerprint="0123456789ab",
    order=("a", "b", ""),
    groups=(Group("a", 4, 1, 0, "plain"), Group("b", 3, 1, 1, "residual", False)),
    gates=(Gate("c", "norm", 2, 1),),
    blocks=(Block("inner", 0, ("inner.a",)), Block("outer", 1, ("b", "c", "inner.a"))),
    frozen=(Frozen("fc", "the network's output", "forward"),),
    stages=((8, 8), (4, 4), ()),
    forms=FORMS,
    layers=(
        Layer("inner.a", "conv", 0, 0, 1, (3, 3), positions=64),
        Layer("b", "norm", 1, 1, 4),
        Layer("c", "linear", 1, 2, 0),
    ),
    sites=(ChannelAxis("inner.a.weight", 0, 1), ChannelAxis("b.weight", 0, 4)),
    rows=(CostTerm("inner.a", 0, 1, 9, 576, None, None, (0, 1), True), CostTerm("b", FIXED, 4, 2, 0)),
)
DOCUMENT = SURVEY.to_json()


def test_json_round_trip() -> None:
    again = Survey.from_json(json.loads(json.dumps(DOCUMENT)))
    assert again == SURVEY
    assert isinstance(again.forms[0][0], Span)
    assert again.digest == SURVEY.digest
    assert len(SURVEY.digest) == 12
    assert dataclasses.replace(SURVEY, input=(2, 9, 8)).digest != SURVEY.digest


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "s.json: not a survey of format 1"),
        ([], "s.json: not a survey of format 1"),
        ({**DOCUMENT, "format": 2}, "s.json: not a survey of format 1"),
        ({**DOCUMENT, "group": []}, "unknown survey field 'group'; did you mean groups"),
        ({key: DOCUMENT[key] for key in DOCUMENT if key != "rows"}, r"s.json: damaged \(.*'rows'"),
        ({**DOCUMENT, "gates": [["c", "norm"]]}, r"s.json: damaged \(.*'form' and 'stage'"),
        ({**DOCUMENT, "gates": [1]}, "s.json: damaged"),
        ({**DOCUMENT, "layers": None}, "s.json: damaged"),
        ({**DOCUMENT, "forms": [[[0, 1]]]}, "s.json: damaged"),
    ],
)
def test_damage_is_refused_by_name(document: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Survey.from_json(document, "s.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "widths", "size"),
    [
        (0, (1, 1), 2),
        (1, (3, 1), 3),
        (2, (4, 3), 12),
        (2, (1, 2), 7),
        (3, (4, 2), 4),
        (4, (4, 2), 2),
        (4, (4, 1), 1),
    ],
)
def test_sizes(form: int, widths: tuple[int, int], size: int) -> None:
    assert SURVEY.size(form, widths) == size


@pytest.mark.parametrize(
    ("form", "kept", "positions"),
    [
        (0, ([0], [0]), [0, 1]),
        (1, ([1, 3], [0]), [1, 3]),
        (1, ([3, 0], [0]), [0, 3]),
        (2, ([0, 2], [1]), [0, 2, 4, 5, 8, 9]),
        (3, ([0], [0, 2]), [0, 2, 3, 5]),
        (4, ([0], [0, 2]), [1, 2]),
    ],
)
def test_positions(form: int, kept: tuple[list[int], list[int]], positions: list[int]) -> None:
    units = [np.array(chosen) for chosen in kept]
    assert SURVEY.positions(form, units).tolist() == positions
    assert SURVEY.size(form, [len(chosen) for chosen in kept]) == len(positions)


def test_tables_by_name() -> None:
    assert SURVEY.group_index == {"a": 0, "b": 1}
    assert SURVEY.gate_named["c"].norm == "norm"
    assert SURVEY.layer_at["b"].kind == "norm"
    assert SURVEY.block_index == {"inner": 0, "outer": 1}
    assert SURVEY.blocks_of == {"inner.a": {0, 1}, "b": {1}, "c": {1}}


def test_groups_that_go_with_a_block() -> None:
    # Group a occurs in inner.a (blocks 0 and 1), b and c (block 1); group b in b and c.
    assert SURVEY.group_blocks == ({1}, {1})
    free = dataclasses.replace(SURVEY, blocks=(SURVEY.blocks[0],))
    assert free.group_blocks == (frozenset(), frozenset())
