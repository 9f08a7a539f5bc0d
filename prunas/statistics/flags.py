"""Flags: what a reader must know about a point before its numbers mean anything."""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from prunas.names import (
    CHANCE_LEVEL,
    FLOOR,
    MACS_NOT_MATCHED,
    ONE_GIVEN_NETWORK,
    PENALTY_NOT_ACTED,
    POLICIES_DIFFER,
    TARGET_MISSED,
)
from prunas.results.rows import TrainingRow
from prunas.statistics.wording import with_article
from prunas.tasks.score import Score

__all__ = ["FLAGS", "count_flags", "doubts", "flag_note", "flag_words", "flags_text", "ordered"]

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        TARGET_MISSED: "more than 1 % off the target that was asked for",
        MACS_NOT_MATCHED: "no such shape has the parameters and the MACs of the point it answers, to 1 %",
        PENALTY_NOT_ACTED: "fewer scales ended near 0 than were pruned, so the penalty did not decide what goes",
        POLICIES_DIFFER: "no single choice of blocks serves half of the images, so that one depth says little",
        FLOOR: "a layer would have been emptied and kept its least width",
        ONE_GIVEN_NETWORK: "seeds share one given network, so intervals speak of retraining, not of searching",
        CHANCE_LEVEL: "{score} that cannot be told from guessing",
    }
)
"""Meaning of every flag that prunas sets, in the order of a table; proposers of other packages may set others.

`{score}` stands for the score with its article; see `flag_note`.
"""


def flag_words(flag: str) -> str:
    """A flag as a table shows it: `target missed`."""
    return flag.replace("macs", "MACs").replace("_", " ")


def count_flags(rows: Iterable[TrainingRow], score: Score) -> dict[str, int]:
    """How many of the rows carry each flag, `chance_level` included; flags that none carries are left out.

    Args:
        rows: Any.
        score: What their scores mean.
    """
    counts = Counter(flag for row in rows for flag in dict.fromkeys(row.all_flags(score)))
    return {flag: counts[flag] for flag in ordered(counts)}


def flags_text(flags: Mapping[str, int], runs: int) -> str:
    """The flags of so many runs: `target missed, floor 1 of 3`; empty without any."""
    return ", ".join(
        flag_words(flag) + (f" {count} of {runs}" if count < runs else "") for flag, count in flags.items()
    )


def flag_note(flags: Iterable[str], score: Score) -> str:
    """What these flags mean, in one sentence.

    Args:
        flags: Any; those that prunas does not set have no meaning here.
        score: What the scores of the flagged rows mean.
    """
    meanings = [
        f"{flag_words(flag)}: {FLAGS[flag].format(score=with_article(score))}"
        for flag in ordered(set(flags))
        if flag in FLAGS
    ]
    return f"Flags: {'; '.join(meanings)}." if meanings else ""


def doubts(flags: Iterable[str]) -> list[str]:
    """The flags for which a mark is hollow: not `floor` and `one_given_network`, which tell its origin."""
    return [flag for flag in ordered(flags) if flag not in (FLOOR, ONE_GIVEN_NETWORK)]


def ordered(flags: Iterable[str]) -> list[str]:
    """Each flag once, in the order of a table."""
    given = set(flags)
    return [*(flag for flag in FLAGS if flag in given), *sorted(given - FLAGS.keys())]
