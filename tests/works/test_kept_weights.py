"""Which final trainings keep their weights: all that are small, unless told otherwise; no result depends on it."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

import prunas
from prunas.api import prepare_search
from prunas.works import train

QUICK: dict[str, Any] = {"keep": 0.5, "seeds": 1, "recipe": {"epochs": 1, "images": 64}, "controls": False}


def kept(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/weights.safetensors"))


def test_small_networks_keep_their_weights(small_space: Path, tmp_path: Path) -> None:
    found = prunas.search(str(small_space), "uniform", out=tmp_path, **QUICK)
    assert len(kept(tmp_path)) == 2  # the dense network and the point
    (row,) = found.rows
    state = safetensors.torch.load_file(Path(row.folder) / "weights.safetensors")
    point = prunas.designs.uniform(found.space, found.space.target(keep=0.5))
    net = found.space.build(point)
    net.load_state_dict(state)
    assert sum(parameter.numel() for parameter in net.parameters()) >= row.reached.params


def test_none_are_kept_where_that_is_asked(small_space: Path, tmp_path: Path) -> None:
    usual = prepare_search(str(small_space), "uniform", out=tmp_path, **QUICK).plan
    found = prunas.search(str(small_space), "uniform", keep_weights=False, out=tmp_path, **QUICK)
    assert kept(tmp_path) == []
    # The same runs by name: what is kept decides no result, and nothing is trained again for it.
    again = prunas.search(str(small_space), "uniform", out=tmp_path, **QUICK)
    assert (again.trained, again.rows) == (0, found.rows)
    assert usual.keep_weights is None
    assert found.record.plan["keep_weights"] is again.record.plan["keep_weights"] is False


@pytest.mark.parametrize(("asked", "files"), [(None, 0), (True, 2)])
def test_large_networks_keep_them_where_that_is_asked(
    asked: bool | None, files: int, small_space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "KEPT_UP_TO", 1000)
    prunas.search(str(small_space), "uniform", keep_weights=asked, out=tmp_path, **QUICK)
    assert len(kept(tmp_path)) == files


def test_trials_keep_none(small_space: Path, tmp_path: Path) -> None:
    prunas.search(str(small_space), "tpe", trials=2, out=tmp_path, dense=False, **QUICK)
    assert [path.parent.name.partition("-")[0] for path in kept(tmp_path)] == ["scratch"]
