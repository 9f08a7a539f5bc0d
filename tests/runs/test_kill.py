"""A search that is killed again and again ends as one that is not; `benchmarks/kill` does this a hundred times."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "benchmarks" / "kill" / "run.py"
SEARCH = (
    "--proposer",
    "slimming",
    "--no-controls",
    "--no-dense",
    "--keep",
    "0.02",
    "--seeds",
    "1",
    "--epochs",
    "3",
)


def test_a_search_survives_the_death_of_drivers_and_workers(tmp_path):
    spec = importlib.util.spec_from_file_location("kill", PATH)
    kill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kill)
    every_step = 1e-6  # seconds between checkpoints
    campaign = kill.Campaign(tmp_path, SEARCH, checkpoint=every_step, seed=3)
    found = campaign.under_fire(tmp_path / "under-fire", kills=3, steps=40)
    assert len(found["kills"]) == 3
    assert {entry["who"] for entry in found["kills"]} == {"driver", "worker"}
    assert found["problems"] == []
    assert (found["same table"], found["same runs"]) == (True, True)
    assert len(campaign.peace["runs"]) == 2
    assert found["results lost"] == []
    assert found["runs trained after they were finished"] == 0
    assert all(again["steps"] <= 1 for again in found["attempts that repeated steps"])
