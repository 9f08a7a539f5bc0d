"""What `prunas doctor` looks at."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

import prunas
from prunas.cli.doctor import EXTRAS, NEEDED, examine


def names(requirements: list[str]) -> tuple[str, ...]:
    return tuple(re.split(r"[\[<>=!~; ]", line)[0] for line in requirements)


def test_every_dependency_and_extra_is_listed() -> None:
    path = Path(prunas.__file__).parent.parent / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]
    extras = {key: names(lines) for key, lines in project["optional-dependencies"].items() if key != "dev"}
    assert (names(project["dependencies"]), extras) == (NEEDED, dict(EXTRAS))


def test_what_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in ("scipy", "onnxruntime"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("importlib.metadata.version", without)
    checks = {check["what"]: check for check in examine(None, tmp_path)}
    assert (checks["scipy"]["status"], checks["onnxruntime"]["status"]) == ("wrong", "missing")
    assert checks["onnxruntime"]["detail"] == "not installed; pip install 'prunas[export]'"


def test_a_data_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, status, says in (
        (".", "ok", ""),
        ("none", "missing", "does not exist"),
        ("file", "missing", "is no folder"),
    ):
        (check,) = (c for c in examine(tmp_path / name, tmp_path) if c["what"] == "data folder")
        assert check["status"] == status
        assert says in check["detail"]
