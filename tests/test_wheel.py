"""What is released: a wheel and a source distribution that work where there is no checkout."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path

import pytest

import prunas

ROOT = Path(prunas.__file__).parent.parent
SMALL = """
network = "prunas.networks:vgg11"
arguments = { channels = 1, base = 4, pools = 2 }
input = [1, 8, 8]
data = "digits"
recipe = { name = "tiny", epochs = 1, images = 128 }
keep = [0.5]
"""


def built(what: str, source: Path, into: Path) -> Path:
    script = f"import hatchling.build; print(hatchling.build.build_{what}({str(into)!r}))"
    made = subprocess.run(
        [sys.executable, "-c", script], cwd=source, capture_output=True, text=True, check=True
    )
    return into / made.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what installing the wheel puts into site-packages."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(installed: Path, folder: Path, arguments: Sequence[str]) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_spaces_schema_evidence_and_types(wheel: Path) -> None:
    held = names(wheel)
    for folder, there in (
        ("search_spaces", "prunas/search_spaces"),
        ("benchmarks/reproduce/results", "prunas/evidence"),
    ):
        files = {
            path.relative_to(ROOT / folder).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file()
        }
        assert {f"{there}/{file}" for file in files} <= held
    assert {"prunas/schema.json", "prunas/py.typed"} <= held
    assert not [
        name
        for name in held
        if name.split("/")[0] not in ("prunas", f"prunas-{prunas.__version__}.dist-info")
    ]


def test_an_installed_wheel_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    where, fingerprint = python(
        installed,
        tmp_path,
        [
            "-c",
            "import prunas; print(prunas.__file__); print(prunas.load_space('vgg16-c10').survey.fingerprint)",
        ],
    ).split()
    assert where.startswith(str(installed))
    assert fingerprint == prunas.load_space("vgg16-c10").survey.fingerprint
    assert python(installed, tmp_path, ["-m", "prunas", "--version"]) == f"prunas {prunas.__version__}\n"
    (tmp_path / "small.toml").write_text(SMALL)
    search = [
        "-m",
        "prunas",
        "search",
        "small.toml",
        "--proposer",
        "l1-global",
        "--seeds",
        "1",
        "--executor",
        "serial",
    ]
    assert "l1-global" in python(installed, tmp_path, search)
    assert (tmp_path / "runs" / "small" / "figures" / "efficiency.svg").is_file()
    assert python(installed, tmp_path, ["-m", "prunas", "report", "--to", "report.html"])


def test_a_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = built("sdist", ROOT, tmp_path)
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    assert names(built("wheel", source, tmp_path)) == names(wheel)
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= {
        path.name for path in source.iterdir()
    }


def test_the_version_has_one_place(installed: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    (folder,) = installed.glob("*.dist-info")
    metadata = Parser().parsestr((folder / "METADATA").read_text())
    assert metadata["Version"] == prunas.__version__
    assert f"\nversion: {prunas.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^prunas = prunas.cli:main$", (folder / "entry_points.txt").read_text(), re.M)
    assert {each.split(" :: ")[0] for each in metadata.get_all("Classifier")} >= {
        "Development Status",
        "Typing",
    }


def test_the_changelog_has_the_usual_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    versions = re.findall(r"^## \[?([^\]\n ]+)\]?(?: - \d{4}-\d\d-\d\d)?$", text, re.M)
    assert versions[0] == "Unreleased"
    kinds = re.findall(r"^### (.*)$", text, re.M)
    assert kinds
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_badges_say_what_is_true() -> None:
    from badges import FOLDER, badges

    for name, text in badges().items():
        assert (FOLDER / name).read_text() == text
    shown = re.findall(r"docs/assets/(\w+\.svg)", (ROOT / "README.md").read_text())
    assert sorted(shown) == sorted(badges())
