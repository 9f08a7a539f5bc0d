"""`doctor`: the ways an installation can be wrong, looked at one by one."""

import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from typing_extensions import TypedDict

from prunas import __version__
from prunas.data import DATASETS, data_folder, load
from prunas.errors import InputError
from prunas.plugins import plugins
from prunas.proposers.registry import installed_proposers
from prunas.spaces.load import installed_spaces

__all__ = ["EXTRAS", "NEEDED", "Check", "examine"]

Status = Literal["ok", "missing", "wrong"]


class Check(TypedDict):
    """One thing that was looked at; `missing` is what not all need."""

    what: str
    status: Status
    detail: str


NEEDED = (
    "torch", "torchvision", "numpy", "scipy", "scikit-learn", "networkx", "optuna", "matplotlib", "jinja2",
    "pydantic", "typer", "rich", "safetensors", "thop", "platformdirs", "threadpoolctl",
    "typing-extensions",
)  # fmt: skip
"""Packages that prunas does not work without."""

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "detection": ("torchmetrics", "pycocotools"),
    "ray": ("ray",),
    "samplers": ("cmaes", "greenlet"),
    "postgres": ("psycopg",),
    "dashboard": ("optuna-dashboard",),
    "slurm": ("submitit",),
    "datasets": ("datasets",),
}
"""Packages of each extra, `pip install 'prunas[EXTRA]'`."""


def examine(data: Path | None, out: Path) -> list[Check]:
    """Every check."""
    checks = [_check("python", "ok", f"{platform.python_version()} on {platform.platform()}")]
    checks.append(_check("prunas", "ok", __version__))
    checks += [_package(name, "wrong", name) for name in NEEDED]
    checks += [
        _package(name, "missing", f"'prunas[{extra}]'") for extra, names in EXTRAS.items() for name in names
    ]
    checks += [_torch(), _torchvision()]
    for name in dict.fromkeys((*DATASETS, *plugins("prunas.data"))):
        if name == "folder":
            continue
        try:
            found = load(name, data)
            checks.append(
                _check(f"data {name}", "ok", "; ".join(found.notes) or f"{found.sizes['train']} images")
            )
        except InputError as error:
            checks.append(_check(f"data {name}", "missing", str(error)))
    for problem in (*installed_proposers()[1], *installed_spaces()[1]):
        checks.append(_check("plug-in", "wrong", problem))
    checks.append(_data_folder(data_folder(data)))
    checks.append(_writable(out))
    return checks


def _check(what: str, status: Status, detail: str) -> Check:
    return {"what": what, "status": status, "detail": detail}


def _package(name: str, absent: Status, install: str) -> Check:
    """Whether a package is installed; `absent` is the status if not, `install` what pip is given."""
    try:
        return _check(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return _check(name, absent, f"not installed; pip install {install}")


def _data_folder(folder: Path) -> Check:
    if folder.is_dir():
        return _check("data folder", "ok", str(folder))
    what = "is no folder" if folder.exists() else "does not exist"
    return _check("data folder", "missing", f"{folder} {what}; give another with --data DIR or PRUNAS_DATA")


def _torch() -> Check:
    try:
        import torch
    except ImportError as error:
        return _check("device", "wrong", f"torch cannot be imported: {error}")
    if torch.cuda.is_available():
        return _check("device", "ok", torch.cuda.get_device_name(0))
    return _check("device", "ok", f"CPU with {os.cpu_count()} cores; trainings run here")


def _torchvision() -> Check:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return _check(
            "torchvision import",
            "wrong",
            f"{error}; torch and torchvision come from different builds: install both from the same index",
        )
    return _check("torchvision import", "ok", "works")


def _writable(out: Path) -> Check:
    folder = next((parent for parent in (out, *out.absolute().parents) if parent.exists()), Path())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return _check("output folder", "wrong", f"{folder}: {error.strerror}; choose another --out")
    return _check("output folder", "ok", str(out.absolute()))
