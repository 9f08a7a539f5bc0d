"""Canvases: the README says what was measured, and every network learns from a batch."""

import json

import pytest
import torch

from benchmarks.canvases.table import HERE, NAMES, README, results, written


def test_the_readme_has_the_table_of_the_results() -> None:
    assert set(results()) <= set(NAMES)
    assert results()
    assert written() in README.read_text()


def test_a_result_holds_three_seeds_and_what_was_picked_by_validation() -> None:
    for name, result in results().items():
        assert [run["seed"] for run in result["runs"]] == [0, 1, 2], name
        assert result["pruned"]["macs"] <= 0.4 * result["dense"]["macs"], name
        for run in result["runs"]:
            assert run["picked"]["way"] == max(run["val"], key=run["val"].__getitem__), name


def test_the_documents_are_json_of_numbers() -> None:
    for name in results():
        text = (HERE / f"{name}.json").read_text()
        assert "NaN" not in text
        assert json.loads(text)["dense"]["test"] is not None


@pytest.mark.parametrize("name", NAMES)
def test_every_network_learns_from_a_batch(name: str) -> None:
    train = pytest.importorskip("benchmarks.canvases.train")  # detectors need the extra `detection`
    make, _, loss_of = train.KINDS[name]
    images, targets = train.tensors(_canvases(train.networks, name)["train"])
    torch.manual_seed(0)
    net = make().train()
    loss = loss_of(net, images / 255, targets)
    assert loss.isfinite()
    loss.backward()
    assert all(weights.grad is not None for weights in net.parameters())


def _canvases(networks, name: str) -> dict[str, tuple]:
    if name in ("unet", "lraspp"):
        return networks.masks(4, 2)
    return networks.boxes(4, 2, first_label=int(name == "fcos"))
