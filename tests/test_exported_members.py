"""The public surface: every name has its type before and after a survey and a build, whatever is imported."""

import subprocess
import sys

import pytest

import prunas

TYPES = {
    "Architecture": "class",
    "Cost": "class",
    "InputError": "class",
    "KernelPattern": "class",
    "SearchSpace": "class",
    "Target": "class",
    "designs": "module",
    "load_point": "function",
    "load_results": "function",
    "load_run": "function",
    "load_space": "function",
    "search": "function",
    "shrink": "function",
    "train": "function",
    "transfer": "function",
}

# Every room is imported, so that a room that is called like an exported name takes its place.
SCRIPT = """
import importlib, inspect, pkgutil
import prunas

def kinds():
    names = {"class": inspect.isclass, "module": inspect.ismodule, "function": inspect.isfunction}
    values = {name: getattr(prunas, name) for name in prunas.__all__}
    return {name: next(kind for kind, fits in names.items() if fits(value)) for name, value in values.items()}

before = kinds()
for _, name, _ in pkgutil.walk_packages(prunas.__path__, "prunas."):
    if not name.endswith("__main__"):
        importlib.import_module(name)
space = prunas.load_space("vgg11-digits")
net = space.build(prunas.designs.uniform(space, space.target(keep=0.5)))
assert type(net).__name__ == "VGG"
assert kinds() == before
print(sorted(before.items()))
"""


def test_every_exported_name_keeps_its_type() -> None:
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == str(sorted(TYPES.items()))


def test_no_exported_name_is_missing_from_the_expected_types() -> None:
    assert sorted(TYPES) == sorted(prunas.__all__)


def test_importing_prunas_imports_nothing_heavy() -> None:
    script = (
        "import sys, prunas; print([m for m in ('torch', 'numpy', 'pydantic', 'typer') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_public_name_that_is_gone_says_what_to_use() -> None:
    with pytest.raises(AttributeError, match=r"prunas\.build is gone; use space\.build\(architecture\)"):
        _ = prunas.build
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = prunas.nothing
