import numpy as np
import pytest
from torch import nn

from prunas.survey import FIXED, Frozen, Span
from prunas.tracing.ledger import Expectation, Ledger, Mismatch

A, B, C = ("a", "writes"), ("b", "writes"), ("c", "reads")


def test_labels_of_one_producer_are_a_group() -> None:
    ledger = Ledger()
    out = ledger.produce(A, 3, 1, "a")
    assert ledger.produce(A, 3, 1, "a") is out  # the same at every call
    ledger.occur(C, out, "c")
    grouping = ledger.group()
    ((group),) = grouping.groups
    assert (group.units, group.origins, group.mixed, group.concatenated) == (3, ("a",), False, False)
    assert grouping.forms == {A: (Span(0, 0, 3, 1),), C: (Span(0, 0, 3, 1),)}
    assert grouping.frozen == ()


def test_ties_join_and_the_first_producer_names_them() -> None:
    ledger = Ledger()
    a, b = ledger.produce(A, 3, 1, "a"), ledger.produce(B, 3, 1, "b")
    ledger.tie(b, a, "add")
    (group,) = ledger.group().groups
    assert group.origins == ("a", "b")


def test_a_part_that_is_tied_is_a_group_of_its_own() -> None:
    ledger = Ledger()
    a, b = ledger.produce(A, 5, 1, "a"), ledger.produce(B, 2, 1, "b")
    ledger.tie(a[3:], b, "add")
    grouping = ledger.group()
    assert [(g.units, g.origins) for g in grouping.groups] == [(3, ("a",)), (2, ("a", "b"))]
    assert grouping.forms[A] == (Span(0, 0, 3, 1), Span(1, 0, 2, 1))
    assert grouping.forms[B] == (Span(1, 0, 2, 1),)


def test_channels_that_do_not_always_occur_together_are_different_groups() -> None:
    ledger = Ledger()
    a = ledger.produce(A, 6, 1, "a")
    ledger.occur(C, a[2:], "c")
    assert [g.units for g in ledger.group().groups] == [2, 4]
    ledger.occur(("d", "reads"), np.concatenate([a, a[4:]]), "d")  # the last two occur twice
    assert [g.units for g in ledger.group().groups] == [2, 2, 2]


def test_one_channel_tied_to_its_neighbour_halves_the_units() -> None:
    ledger = Ledger()
    a = ledger.produce(A, 6, 1, "a")
    ledger.tie(a[:3], a[3:], "grouped")
    grouping = ledger.group()
    assert [g.units for g in grouping.groups] == [3]
    assert grouping.forms[A] == (Span(0, 0, 3, 1),) * 2


def test_repeats_and_reversals_in_forms() -> None:
    ledger = Ledger()
    a = ledger.produce(A, 3, 1, "a")
    ledger.occur(C, np.repeat(a, 4), "c")
    ledger.occur(("d", "reads"), a[::-1].copy(), "d")
    forms = ledger.group().forms
    assert forms[C] == (Span(0, 0, 3, 4),)
    assert forms["d", "reads"] == (Span(0, 2, 1, 1), Span(0, 1, 1, 1), Span(0, 0, 1, 1))


def test_what_is_frozen_is_told_with_its_first_reason() -> None:
    ledger = Ledger()
    a, b = ledger.produce(A, 3, 1, "a"), ledger.produce(B, 3, 1, "b")
    ledger.freeze(b, "softmax is not understood", "net.py:3")
    ledger.freeze(a, "the network's output", "net.py:9")
    ledger.tie(a, b, "add")
    grouping = ledger.group()
    assert grouping.groups == ()
    assert grouping.frozen == (Frozen("a, b", "softmax is not understood", "net.py:3"),)
    assert grouping.forms[A] == (Span(FIXED, 0, 3, 1),)


def test_one_frozen_channel_leaves_the_others_free() -> None:
    ledger = Ledger()
    a = ledger.produce(A, 4, 1, "a")
    ledger.freeze(a[:1], "indexed", "net.py:3")
    grouping = ledger.group()
    assert [g.units for g in grouping.groups] == [3]
    assert grouping.forms[A] == (Span(FIXED, 0, 1, 1), Span(0, 0, 3, 1))


def test_fixed_channels_need_no_telling_unless_a_reason_is_given() -> None:
    ledger = Ledger()
    ledger.occur(C, ledger.fixed(3), "c")
    ledger.tie(ledger.produce(A, 2, 1, "a"), ledger.fixed(2, "zeros", "net.py:1"), "add")
    assert ledger.group().frozen == (Frozen("a", "zeros", "net.py:1"),)


def test_forbidden_layers_freeze_what_they_touch() -> None:
    ledger = Ledger()
    a = ledger.produce(A, 3, 1, "a")
    ledger.forbid("c", "it has forward hooks", "c")
    assert len(ledger.group().groups) == 1  # not met yet
    ledger.occur(C, a, "c")
    assert ledger.group().frozen == (Frozen("a", "it has forward hooks", "c"),)


def test_a_single_unit_is_named() -> None:
    ledger = Ledger()
    ledger.produce(A, 1, 1, "a")
    assert ledger.group().frozen == (Frozen("a", "it has a single unit", "a"),)


def test_long_lists_are_cut() -> None:
    ledger = Ledger()
    for i in range(6):
        ledger.freeze(ledger.produce((f"layer{i}", "writes"), 2, 1, "x"), "held", "net.py:1")
    assert ledger.group().frozen[0].what == "layer0, layer1, layer2 and 3 more"


def test_marks_reach_tied_channels() -> None:
    ledger = Ledger()
    a, b = ledger.produce(A, 3, 1, "a"), ledger.produce(B, 3, 1, "b")
    c = ledger.produce(("c", "writes"), 3, 1, "c")
    ledger.mix(a)
    ledger.concatenate(c)
    ledger.tie(b, a, "add")
    assert [(g.mixed, g.concatenated) for g in ledger.group().groups] == [(True, False), (False, True)]


def test_nothing_at_all() -> None:
    grouping = Ledger().group()
    assert (grouping.groups, grouping.frozen, grouping.forms) == ((), (), {})


def test_an_expectation_compares() -> None:
    expected = Expectation({A: np.array([0, 2, FIXED]), C: np.array([2, 2])})
    assert expected.produce(A, 3, 1, "n").tolist() == [0, 2, FIXED]
    expected.occur(C, np.array([2, 2]), "n")
    expected.tie(np.array([1, 2]), np.array([1, 2]), "n")
    assert expected.fixed(2).tolist() == [FIXED, FIXED]
    failures = [
        lambda: expected.produce(A, 2, 1, "n"),
        lambda: expected.produce(B, 2, 1, "n"),
        lambda: expected.occur(C, np.array([2, 1]), "n"),
        lambda: expected.occur(C, np.array([2]), "n"),
        lambda: expected.occur(("d", "reads"), np.array([2]), "n"),
        lambda: expected.tie(np.array([1, 2]), np.array([2, 1]), "n"),
    ]
    for failure in failures:
        with pytest.raises(Mismatch) as caught:
            failure()
        assert caught.value.node == "n"


def test_depthwise() -> None:
    assert Ledger().is_depthwise("a", nn.Conv2d(4, 8, 1, groups=4))
    assert not Ledger().is_depthwise("a", nn.Conv2d(4, 8, 1, groups=2))
    assert not Ledger().is_depthwise("a", nn.Conv2d(1, 8, 1))
    # narrowed to one channel per convolution group, a grouped convolution only looks like a depthwise one
    expected = Expectation({("a", "inner"): np.array([0])})
    assert not expected.is_depthwise("a", nn.Conv2d(2, 4, 1, groups=2))
    assert expected.is_depthwise("b", nn.Conv2d(2, 4, 1, groups=2))


def test_only_numbers_that_the_dense_network_followed_are_compared() -> None:
    ledger = Ledger()
    ledger.follow(A, ledger.produce(A, 2, 1, "a"), "view")
    expected = Expectation({A: np.array([0, 2])}, ledger.followed)
    expected.follow(A, np.array([4, 5]), "elsewhere")  # holds as many by chance
    expected.follow(A, np.array([0, 2]), "view")
    with pytest.raises(Mismatch):
        expected.follow(A, np.array([4, 5]), "view")
