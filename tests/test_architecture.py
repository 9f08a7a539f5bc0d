import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunas.architecture import Architecture, KernelPattern
from prunas.errors import InputError

DOCUMENT = {
    "format": 1,
    "space": "vgg16-c10",
    "network": "0123456789ab",
    "widths": {"features.0": 32, "features.3": 7},
    "selected": {"fc": [0, 2, 5]},
    "removed": ["layer1.0"],
    "kernels": {"seed": 2, "frequencies": {"0/3x3": [0.5, 1.0, 0.333333]}},
}
ARCHITECTURE = Architecture(
    space="vgg16-c10",
    network="0123456789ab",
    widths=(("features.0", 32), ("features.3", 7)),
    selected=(("fc", (0, 2, 5)),),
    removed=("layer1.0",),
    kernels=KernelPattern(frequencies=(("0/3x3", (0.5, 1.0, 1 / 3)),), seed=2),
)


def test_json_form() -> None:
    assert ARCHITECTURE.to_json() == DOCUMENT
    assert Architecture.from_json(json.loads(json.dumps(DOCUMENT))) == ARCHITECTURE
    assert json.loads(str(ARCHITECTURE)) == DOCUMENT


def test_only_what_differs_from_dense_is_written() -> None:
    assert Architecture("s", "n").to_json() == {"format": 1, "space": "s", "network": "n"}


def test_digests() -> None:
    # sha256 of the canonical JSON. Moving these orphans stored runs.
    assert ARCHITECTURE.digest == "1a1fedd17d5b"
    assert Architecture("vgg16-c10", "0123456789ab").digest == "f1a0cd54a562"


names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5)


@given(
    st.dictionaries(names, st.integers(0, 999)),
    st.dictionaries(names, st.lists(st.integers(0, 99), unique=True).map(sorted).map(tuple)),
    st.sets(names),
)
def test_round_trip(widths: dict[str, int], selected: dict[str, tuple[int, ...]], removed: set[str]) -> None:
    arch = Architecture(
        "s", "n", tuple(sorted(widths.items())), tuple(sorted(selected.items())), tuple(sorted(removed))
    )
    again = Architecture.from_json(json.loads(json.dumps(arch.to_json())))
    assert again == arch
    assert again.digest == arch.digest
    assert hash(again) == hash(arch)


def test_order_in_the_file_does_not_matter() -> None:
    shuffled = {key: DOCUMENT[key] for key in reversed(DOCUMENT)}
    shuffled["widths"] = {"features.3": 7, "features.0": 32}
    assert Architecture.from_json(shuffled).digest == ARCHITECTURE.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "a.json: format 2; this prunas reads format 1"),
        ({"width": {}}, "a.json: unknown architecture field 'width'; did you mean widths"),
        ({"space": 3}, r"a.json: damaged \(space is not text\)"),
        ({"widths": {"features.0": "32"}}, r"a.json: damaged \('32' is not a whole number\)"),
        ({"widths": {"features.0": True}}, r"a.json: damaged \(True is not a whole number\)"),
        ({"widths": {"features.0": 1.5}}, r"a.json: damaged \(1.5 is not a whole number\)"),
        ({"widths": [1]}, "a.json: damaged"),
        ({"selected": {"fc": 3}}, "a.json: damaged"),
        ({"removed": "layer1.0"}, r"a.json: damaged \(removed is not a list of names\)"),
        ({"kernels": {"masks": {}, "bits": 1}}, r"a.json: damaged \(unknown kernel field 'bits'\)"),
        ({"kernels": {"seed": 1}}, "either frequencies or masks"),
        ({"kernels": {"frequencies": {"0/3x3": 1.0}}}, "a.json: damaged"),
        ({"kernels": {"frequencies": {"0/3x3": ["x"]}}}, "a.json: damaged"),
        ({"kernels": {"masks": {"conv": 5}}}, "a.json: damaged"),
        ({"kernels": [1]}, "a.json: damaged"),
    ],
)
def test_damage_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Architecture.from_json(DOCUMENT | change, "a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["space", "network"])
def test_missing_fields_are_named(missing: str) -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != missing}
    with pytest.raises(InputError, match=f"the field '{missing}' is missing"):
        Architecture.from_json(document)


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_other_documents_are_refused(document: object) -> None:
    with pytest.raises(InputError, match="not an architecture"):
        Architecture.from_json(document)


def test_frequencies_are_rounded_once_and_sorted() -> None:
    pattern = KernelPattern(frequencies=(("1/3x3", (1 / 3,)), ("0/3x3", (0.1234567,))))
    assert pattern.frequencies == (("0/3x3", (0.123457,)), ("1/3x3", (0.333333,)))
    assert KernelPattern(frequencies=pattern.frequencies) == pattern


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_frequencies_lie_between_0_and_1(value: float) -> None:
    with pytest.raises(InputError, match=r"lie in \[0, 1\]"):
        KernelPattern(frequencies=(("0/3x3", (value,)),))


def test_a_pattern_has_one_form() -> None:
    with pytest.raises(InputError, match="either frequencies or masks"):
        KernelPattern()
    with pytest.raises(InputError, match="either frequencies or masks"):
        KernelPattern(frequencies=(("0/3x3", (1.0,)),), masks=(("conv", ""),))


@pytest.mark.parametrize("shape", [(3, 5, 3, 3), (1,), (2, 4)])
def test_masks_survive_packing(shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    text = KernelPattern.pack(mask)
    assert np.array_equal(KernelPattern.unpack(text, shape), mask)
    with pytest.raises(InputError, match="does not fit weights of shape 100x2"):
        KernelPattern.unpack(text, (100, 2))


@pytest.mark.parametrize("text", ["!", "AAAA", "é"])
def test_damaged_masks_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="damaged"):
        KernelPattern.unpack(text, (2, 2))


def test_too_many_masks_are_refused() -> None:
    with pytest.raises(InputError, match="more than 4 MB"):
        KernelPattern(masks=(("conv", "A" * (4 << 20)), ("other", "A")))


def test_masked_and_width() -> None:
    assert ARCHITECTURE.masked and not Architecture("s", "n").masked
    assert ARCHITECTURE.width("features.3", 64) == 7
    assert ARCHITECTURE.width("features.7", 128) == 128
