"""What docs/own-data.md shows, run as it stands."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import prunas
from prunas.cli import main
from prunas.data import load

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "own-data.md").read_text()
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_a_table_of_a_csv_file_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((120, 13)) + 0.1
    rows = [",".join("abcdefghijklm") + ",price", *(",".join(map(str, [*row, row.sum()])) for row in x)]
    Path("houses.csv").write_text("\n".join(rows) + "\n")
    Path("houses.toml").write_text(TOML[0])
    Path("mine.py").write_text(PYTHON[0])
    words = [
        "--proposer",
        "uniform",
        "--no-controls",
        "--seeds",
        "1",
        "--epochs",
        "2",
        "--workers",
        "1",
        "--yes",
    ]
    with pytest.raises(SystemExit) as ended:
        main(["search", "houses.toml", *words, "--data", ".", "--json"])
    assert ended.value.code == 0
    says = json.loads(capsys.readouterr().out)
    assert says["data"] == "houses"
    (row,) = says["runs"]
    assert row["status"] == "finished"


def test_a_dataset_with_random_transforms() -> None:
    scope = {"torch": torch}
    exec(compile(PYTHON[1], "docs/own-data.md", "exec"), scope)
    images = np.random.default_rng(0).random((40, 1, 4, 4), np.float32)
    data = scope["noisy"](images, np.arange(40) % 4)  # type: ignore[operator]
    x, _ = next(data.batches("train", 29, device=torch.device("cpu"), seed=0, augment=True))
    y, _ = next(data.batches("train", 29, device=torch.device("cpu"), seed=0))
    # 464 normal numbers: their deviation is within four standard errors, 0.1 / sqrt(2 * 464) each.
    assert (x - y).std().item() == pytest.approx(0.1, abs=4 * 0.1 / (2 * 464) ** 0.5)
    assert not data.notes[1:]


def test_the_options_of_a_folder_are_taken(tmp_path: Path) -> None:
    from PIL import Image

    for part in ("train", "val"):
        for label in "ab":
            (tmp_path / part / label).mkdir(parents=True)
            for k in range(10):
                Image.new("RGB", (90, 80), (k, 0, 0)).save(tmp_path / part / label / f"{k}.png")
    options = tomllib.loads(TOML[1])["data"]
    data = load(options.pop("name"), tmp_path, **options)
    assert data.shape == (1, 64, 64)
