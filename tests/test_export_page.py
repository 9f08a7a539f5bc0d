"""The code of docs/export.md, run in the folder that the command writes."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import prunas
from prunas.cli import main

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "export.md").read_text()


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["export", "vgg11-digits", "--init", "0", "--to", "python", "--file", "smaller"])
    assert ended.value.code == 0
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    monkeypatch.syspath_prepend(tmp_path / "smaller")
    monkeypatch.delitem(sys.modules, "network", raising=False)
    exec(compile(code, "docs/export.md", "exec"), names)
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(names["net"](images), names["again"].eval()(images))


def test_it_names_every_format() -> None:
    from prunas.inspection.export import FORMATS

    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == ["python", "onnx", "pt2", "safetensors"]
    assert set(FORMATS) == {"python", "onnx", "pt2", "safetensors"}
