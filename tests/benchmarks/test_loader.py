"""How much of a step waits for data: the benchmark at a tiny size, and what its README says of the stored one."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.loader import run

HERE = Path(run.__file__).parent


def test_the_benchmark_measures_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNAS_CACHE", str(tmp_path / "cache"))
    words = [
        "--images",
        "150",
        "--side",
        "16",
        "--batch",
        "8",
        "--steps",
        "1",
        "--rounds",
        "1",
        "--workers",
        "0,1",
    ]
    document = run.main([*words, "--json", str(tmp_path / "loader.json")])
    assert json.loads((tmp_path / "loader.json").read_text()) == document
    assert [row["workers"] for row in document["rows"]] == [0, 1]
    assert all(0 <= row["waiting_share"] <= 1 for row in document["rows"])
    assert document["reading_processor_seconds_per_batch"] > 0


def test_the_readme_says_what_was_measured() -> None:
    document = json.loads((HERE / "loader.json").read_text())
    page = (HERE / "README.md").read_text()
    rows = re.findall(r"^\| (\d) \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.MULTILINE)
    assert len(rows) == len(document["rows"])
    for (workers, median, worst), row in zip(rows, document["rows"], strict=True):
        assert int(workers) == row["workers"]
        assert float(median) == round(100 * row["waiting_share"], 2)
        assert float(worst) == round(100 * max(row["waiting_shares"]), 2)
    assert max(row["waiting_share"] for row in document["rows"]) < 0.2
