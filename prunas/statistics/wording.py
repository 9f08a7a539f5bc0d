"""A score in words and digits, for heads, axes and sentences. Differences are gains: above 0 is better."""

import math

from prunas.tasks.score import ACCURACY, Score

__all__ = [
    "area_unit",
    "axis_label",
    "better_words",
    "column_head",
    "decimals",
    "difference_words",
    "direction_note",
    "gain_text",
    "margin_text",
    "number",
    "pruned_head",
    "quantity",
    "title_of",
    "value_text",
    "with_article",
]

_PERCENT = "%"


def decimals(score: Score) -> int:
    """Digits behind the point that a table shows: one beyond the first of the margin, 4 without a margin."""
    return max(0, 1 - math.floor(math.log10(score.margin))) if score.margin else 4


def number(value: float, score: Score, sign: str = "") -> str:
    """A value or a gain without its unit.

    Args:
        value: In units of the score.
        score: What it is.
        sign: `+` to write the sign of numbers above 0 too.
    """
    return f"{value:{sign}.{decimals(score)}f}"


def value_text(value: float, score: Score) -> str:
    """A value with its unit: `91.20 %`."""
    return f"{number(value, score)} {score.unit}".rstrip()


def title_of(score: Score) -> str:
    """The name at the start of a sentence: `Accuracy`."""
    return score.name[0].upper() + score.name[1:]


def with_article(score: Score) -> str:
    """The name with its article: `an accuracy`, `an RMSE`."""
    word = score.name.split()[0]
    spelt = any(letter.isupper() or letter.isdigit() for letter in word[1:])  # letter by letter, as in RMSE
    return f"{'an' if word[0].lower() in ('aefhilmnorsx' if spelt else 'aeiou') else 'a'} {score.name}"


def axis_label(score: Score) -> str:
    """For an axis of test scores; where lower is better it says so."""
    return f"test {score.label}" + ("" if score.better == "higher" else ", lower is better")


def column_head(score: Score) -> str:
    """For a column of test scores; of accuracy in percent, which every reader expects, only the unit."""
    return f"test {score.unit if _is_accuracy(score) else score.label}"


def pruned_head(score: Score) -> str:
    """For a column of validation scores right after pruning."""
    return f"pruned {score.unit if _is_accuracy(score) else score.label}"


def quantity(score: Score) -> str:
    """What a table or a curve shows: `test accuracy in percent`."""
    return f"test {score.name}" + _in_units(score, "percent")


def difference_words(score: Score) -> str:
    """What a difference is of: `test accuracy in percentage points`; where lower is better, how it is signed."""
    signed = "" if score.better == "higher" else ", above 0 where the first is better (lower)"
    return f"test {score.name}" + _in_units(score, "percentage points") + signed


def area_unit(score: Score) -> str:
    """Of heights in a volume: `percentage points`; the name of a score without a unit."""
    return "percentage points" if score.unit == _PERCENT else score.unit or score.name


def direction_note(score: Score) -> list[str]:
    """A sentence for a table whose better numbers are the lower ones; nothing for others."""
    return [] if score.better == "higher" else [f"Lower {score.name} is better."]


def gain_text(gain: float, score: Score) -> str:
    """A signed gain inside a sentence: `+1.20 points`, `-0.031 in error`."""
    text = f"{number(gain, score, '+')} {_points(score)}".rstrip()
    return text if _is_accuracy(score) else f"{text} in {score.name}"


def better_words(gain: float, score: Score) -> str:
    """How shapes with this gain do, before the others are named.

    `score 1.20 points more than`, `are 0.031 better in test error than`; `score the same on average as` where the
    gain is printed as 0.
    """
    size = f"{number(abs(gain), score)} {_points(score)}".rstrip()
    same = number(abs(gain), score) == number(0.0, score)
    if _is_accuracy(score):
        return (
            "score the same on average as" if same else f"score {size} {'more' if gain > 0 else 'less'} than"
        )
    if same:
        return f"are the same on average in test {score.name} as"
    return f"are {size} {'better' if gain > 0 else 'worse'} in test {score.name} than"


def margin_text(score: Score) -> str:
    """The margin with the unit of a difference: `0.2 points`."""
    return f"{score.margin:g} {_points(score)}".rstrip()


def _is_accuracy(score: Score) -> bool:
    return (score.name, score.unit, score.better) == (ACCURACY.name, ACCURACY.unit, ACCURACY.better)


def _points(score: Score) -> str:
    return "points" if score.unit == _PERCENT else score.unit


def _in_units(score: Score, percent: str) -> str:
    unit = percent if score.unit == _PERCENT else score.unit
    return f" in {unit}" if unit else ""
