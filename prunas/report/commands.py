"""The commands that repeat a search, rebuilt from what it left behind."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunas.recipe import RECIPES
from prunas.report.evidence import Evidence
from prunas.statistics.rows import Row
from prunas.statistics.summary import grouped

__all__ = ["commands"]

_ALWAYS = ("uniform", "random", "taper")  # what `prunas search` adds unless told otherwise
_FLAGS = ("epochs", "batch", "lr", "images", "precision")


def commands(evidence: Evidence, out: Path) -> list[str]:
    """One `prunas search` for each stored search, then the commands that print and draw.

    Settings of a proposer (`--set`) and a cap on Scratch-B are not rebuilt.

    Args:
        evidence: Of one setting.
        out: The folder that holds all runs.
    """
    tail = ["--out", str(out)]
    searches = [_search(evidence, document) for document in evidence.searches]
    lines = [["prunas", "search", *words, *tail] for words in searches if words]
    figures = ["efficiency", "pareto", "cost"]
    figures += ["widths"] * bool(evidence.spreads()) + ["kernels"] * bool(evidence.patterns()) + ["curves"]
    views = [["compare"], *(["plot", figure] for figure in figures), ["report"]]
    lines += [["prunas", *view, evidence.space, *tail] for view in views]
    return [shlex.join(line) for line in lines]


def _search(evidence: Evidence, document: Mapping[str, Any]) -> list[str]:
    rows = [Row.from_json(row) for row in document.get("runs", ())]
    if not rows:
        return []
    names = list(dict.fromkeys(row.proposer for row in rows))
    controls = [name for name in names if name in _ALWAYS]
    given = [name for name in names if name not in _ALWAYS] or controls
    full = set(controls) == set(_ALWAYS) or given == controls
    spec = next((run.spec for row in rows if (run := evidence.runs.get(row.id)) and run.spec), {})
    words = [str(spec.get("space", evidence.space)), "--proposer", ",".join(given if full else names)]
    targets = sorted({row.asked for row in rows}, key=lambda target: -target.value)
    if all(target.keep is not None for target in targets):
        words += ["--keep", ",".join(f"{target.keep:g}" for target in targets)]
    else:
        words += ["--budget", ",".join(str(target.value) for target in targets)]
    words += ["--metric", targets[0].metric]
    words += ["--protocol", ",".join(dict.fromkeys(row.protocol for row in rows))]
    words += ["--seeds", str(1 + max(row.search_seed for row in rows))]
    words += _trials(document, rows, len(targets))
    words += [] if full else ["--no-controls"]
    words += [] if any(row["proposer"] == "dense" for row in document.get("dense", ())) else ["--no-dense"]
    return words + _recipe(evidence, spec, rows)


def _trials(document: Mapping[str, Any], rows: Sequence[Row], targets: int) -> list[str]:
    samplers = {row.proposer for row in rows if row.kind == "sampler"} | {"random"}
    costs = [cost for cost in document.get("cost", ()) if cost["proposer"] in samplers]
    most = max(
        (max(c["trainings"] for c in own) for own in grouped(costs, lambda c: c["proposer"]).values()),
        default=0,
    )
    return ["--trials", str(max(1, round(most / targets)))] if most else []


def _recipe(evidence: Evidence, spec: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    words = ["--recipe", evidence.recipe] if evidence.recipe in RECIPES else []
    used = spec.get("recipe", {}) | ({"epochs": evidence.epochs} if spec else {})
    usual = RECIPES[evidence.recipe].to_json() if words else {}
    for name in _FLAGS:
        if name in used and used[name] != usual.get(name):
            words += [f"--{name}", str(used[name])]
    return words
