"""The page of the shrink benchmark says what its results say."""

import json

from benchmarks.shrink.__main__ import PAGE, RESULTS, page


def test_the_page_is_made_of_the_results() -> None:
    text = PAGE.read_text()
    assert page(text, json.loads(RESULTS.read_text())) == text


def test_what_the_page_claims_holds_in_its_results() -> None:
    rows = json.loads(RESULTS.read_text())
    assert {(row["asked"]["keep"], row["seed"]) for row in rows} == {
        (k, s) for k in (0.5, 0.3) for s in range(3)
    }
    for row in rows:
        assert row["picked"]["test_score"] > row["control"]["test_score"]
        full = [training["val_score"] for training in row["trainings"] if training["round"] == "full"]
        assert row["picked"]["val_score"] == max(full)
        cost = next(
            s["cost"]["macs"] for s in row["shapes"] if s["architecture"] == row["picked"]["architecture"]
        )
        assert abs(cost / row["dense"]["cost"]["macs"] - row["asked"]["keep"]) < 0.01
