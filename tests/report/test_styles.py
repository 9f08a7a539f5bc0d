import pytest

from prunas.report.styles import STYLES, styles


def test_known_proposers_differ_without_colour() -> None:
    assert len({(style.marker, style.dash) for style in STYLES.values()}) == len(STYLES)


def test_plug_ins_differ_from_each_other_and_from_known_proposers_without_colour() -> None:
    found = styles([*STYLES, "mine", "yours", "theirs"])
    assert len({(style.marker, style.dash) for style in found.values()}) == len(STYLES) + 3


def test_a_known_proposer_looks_the_same_in_every_company() -> None:
    alone = styles(["taper"])["taper"]
    assert styles(["another", "slimming", "taper", "uniform"])["taper"] == alone


def test_a_legend_begins_with_what_is_found_and_ends_with_plug_ins() -> None:
    assert list(styles(["zeta", "uniform", "alpha", "slimming"])) == ["slimming", "uniform", "alpha", "zeta"]


# Relative luminance and contrast as in WCAG 2.2, section 1.4.11: graphics need 3:1. The lightest colours of
# Okabe and Ito stay below, which is one reason why no meaning hangs on colour alone.
@pytest.mark.parametrize("name", ["slimming", "taper", "uniform", "random", "guided"])
def test_the_main_curves_stand_out_from_white_paper(name: str) -> None:
    channels = [int(STYLES[name].color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert 1.05 / (luminance + 0.05) >= 3


def test_a_crowd_of_proposers_without_a_look_can_be_told_apart() -> None:
    names = [f"other-{n:02}" for n in range(64)]
    looks = styles(names)
    assert len({(look.color, look.marker) for look in looks.values()}) == 64
