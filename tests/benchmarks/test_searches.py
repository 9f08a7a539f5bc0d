"""The page of the searches, and the table of methods, say what their results say."""

from benchmarks.pages import between_marks
from benchmarks.searches.__main__ import METHODS, PAGE, judged, methods, page, read
from prunas.statistics.summary import comparisons
from prunas.statistics.text import as_markdown

RECORDS, ASKED = read()


def test_the_pages_are_made_of_the_results() -> None:
    assert page(PAGE.read_text(), RECORDS, ASKED) == PAGE.read_text()
    table = as_markdown(methods(RECORDS, ASKED["controls"]))
    assert between_marks(METHODS.read_text(), table) == METHODS.read_text()


def test_no_search_beyond_pruning_is_known_to_find_more_than_its_evaluator_with_random_or_tpe() -> None:
    said = [line for line in judged(RECORDS, ASKED) if line[0] in ("proxy", "agent")]
    assert len(said) == 16
    assert {verdict for _, _, verdict, _ in said} == {"undecided"}
    means = {(d.proposer, d.against, d.asked.keep): d.summary.mean for _, d, _, _ in said}
    assert f"{min(means.values()):.1f} {max(means.values()):.1f}" == "-4.8 3.8"
    assert max(means, key=lambda key: means[key]) == ("enas", "tpe@enas", 0.1)
    assert {d.proposer for _, d, _, _ in said if d.summary.low is not None and d.summary.low > 0} == {"enas"}


def test_global_thresholds_after_three_epochs_lie_far_behind_a_convex_programme() -> None:
    (record,) = (record for record in RECORDS if record.space == "vgg16-eighth-c10")
    behind = comparisons(record.rows, ["slimming", "taylor"], ["precrop"], score=record.score)
    assert len(behind) == 4
    assert all(-32 < difference.summary.mean < -19.9 for difference in behind)
    flags = {row.proposer: set(row.flags) for row in record.rows}
    assert "floor" in flags["slimming"] & flags["taylor"]


def test_no_width_that_was_found_is_known_to_beat_a_uniform_one() -> None:
    (record,) = (record for record in RECORDS if record.space == "vgg16-eighth-c10")
    names = sorted({row.proposer for row in record.rows} - {"uniform"})
    found = comparisons(record.rows, names, ["uniform"], score=record.score)
    assert len(found) == 2 * len(names)
    for difference in found:
        assert difference.summary.low is not None
        assert difference.summary.low <= 0, difference.proposer


def test_scales_on_branches_found_more_than_an_even_depth_at_one_budget() -> None:
    (record,) = (record for record in RECORDS if record.space == "resnet20-half-depth-c10")
    beyond, level = comparisons(record.rows, ["sss"], ["uniform-depth"], score=record.score)
    assert beyond.asked.keep == 0.7
    assert f"{beyond.summary.mean:.1f} {beyond.summary.low:.1f} {beyond.summary.high:.1f}" == "2.0 1.4 2.6"
    assert level.summary.low is not None
    assert level.summary.low < 0


def test_a_policy_leaves_what_an_even_depth_leaves() -> None:
    (record,) = (record for record in RECORDS if record.space == "resnet20-half-depth-c10")
    names = ("blockdrop", "blockdrop-unlearnt", "uniform-depth")
    assert (
        len({row.architecture for row in record.rows if row.proposer in names and row.asked.keep == 0.4}) == 1
    )
    flagged = [row.search_seed for row in record.rows if "policies_differ" in row.flags]
    assert len(set(flagged)) == 2
