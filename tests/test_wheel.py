import os
import subprocess
import sys
import zipfile
from pathlib import Path

import prunas

ROOT = Path(prunas.__file__).parent.parent


def test_an_installed_wheel_finds_its_search_spaces(tmp_path: Path) -> None:
    script = f"import hatchling.build; print(hatchling.build.build_wheel({str(tmp_path)!r}))"
    built = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wheel = tmp_path / built.stdout.split()[-1]
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    names = {path.relative_to(ROOT / "search_spaces") for path in (ROOT / "search_spaces").rglob("*.toml")}
    found = installed / "prunas" / "search_spaces"
    assert names == {path.relative_to(found) for path in found.rglob("*.toml")}
    assert (installed / "prunas" / "schema.json").is_file()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = (
        "import prunas; print(prunas.__file__); print(prunas.load_space('vgg16-c10').survey.fingerprint)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    where, fingerprint = printed.stdout.split()
    assert where.startswith(str(installed))
    assert fingerprint == prunas.load_space("vgg16-c10").survey.fingerprint
