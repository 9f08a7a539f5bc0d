"""The page of this folder, from its results."""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.support.row import Row, wrong
from prunas.files import write_atomic

__all__ = ["FAULTS", "KINDS", "PEER", "README", "ROWS", "page", "read", "write"]

HERE = Path(__file__).parent
ROWS, PEER, README = HERE / "support.jsonl", HERE / "torch_pruning.jsonl", HERE / "README.md"
FAULTS = HERE / "faults.toml"

KINDS = {
    "torchvision": "torchvision's classification models",
    "bundled": "The networks of the study",
    "family": "One construct each",
    "task": "torchvision's other tasks",
    "timm": "timm",
    "transformers": "transformers",
}

USED = ("torchvision", "task", "timm", "transformers")
"""Kinds of networks that people use; the others stand for one construct each, or belong to the study."""

INTRODUCTION = """\
# Which networks does prunas survey, and is what it builds right?

{verdict}

```sh
python -m benchmarks.support            # what is missing or out of date; exits 1 if a row is wrong
python -m benchmarks.support 'resnet*'  # some of it
python -m benchmarks.support --processes 4  # at once; one that dies or takes 5 minutes costs its row only
python -m benchmarks.support.peer       # the same networks through Torch-Pruning
```

Every row is a fresh survey and random points of the network that was surveyed: `groups` keeps another
number of units of every group, `combined` selects at every gate and removes a third of the blocks
besides. A point is right when the network that `prunas.surgery.assemble.build` makes of it computes, in float64
and to a relative 1e-9, in eval and in train mode (with running statistics; dropout and stochastic depth off), what
the dense network computes once the weight slices that read dropped channels are zero, norms over channels
and other statistics that scale them again run over the kept ones, computed weights are computed from the columns
that are kept, and the branches of removed blocks are multiplied by zero (`oracle.py`, `modes.py`). Weights,
scales, shifts and statistics are random and nowhere constant; a row whose points leave the output as it
was counts as wrong, because it shows nothing.

- *varies*: the share of the parameters that widths or selections decide; the rest is held for the reasons
  under *frozen*, which counts the network's outputs and what reads the channels of its inputs too.
- *groups*: widths that vary independently, of them in brackets those under a norm over channels, which
  have no masked equal in the dense network and are compared with the norm taken over the kept channels;
  *units*: their widths added.
- *singly*: how many groups, gates and blocks were also tried each by itself (networks with few of them).
- *cost*: parameters and multiply-accumulates of the dense network and of the points equal, to the unit,
  the built network's parameters and `torch.utils.flop_counter` on the meta device.
- *survey*: processor seconds with one thread, best of three where it takes less than one, the networks made for
  it on the meta device and its verification included; *making*: the share of it that the factory takes.
- A survey must leave random states, default device and type, gradient recording, torch's constructors and
  the number of living modules as they were; a built network is of the factory's class and its state dict
  holds tensors only.
- Networks of timm, transformers and torchvision's other tasks are made without weights, those of transformers with
  four layers (`libraries.py`). The function of their points is compared where a batch takes at most 1.6e10
  multiply-accumulates; *cost only* says where it is not.

A head of an attention is a unit and goes as a whole, in torch's own attention and where it is written out with the
number of heads in an attribute, which the built network has changed. Its size stays, and so does the scale, the
root of that size.

A constant that a factory computes from a width and keeps in a buffer outside the state dict is the narrowed
network's own. No shape shows that; numbers that stand in the graph, and channels it multiplies, are checked.
"""

PEER_INTRODUCTION = """\
## Side by side with Torch-Pruning

{verdict}

Torch-Pruning is used as its README says: `BasePruner`, group magnitude, `pruning_ratio=0.5`, the output
layers ignored, `num_heads` given, all parameters requiring gradients, `hidden_dim` of torchvision's ViT
set afterwards. What it made is held against the same oracle: which rows and columns of every weight it
kept is read off the values. *same channels*: of the first, the middle and the last unit of every group
that prunas finds, how many take along the same channels of the same layers in Torch-Pruning's dependency
graph. *parameters*: what is left of them. It narrows heads themselves: where the attention takes its scale from
their size, as torch's own does, the narrowed network computes another function, though it can be trained.
Measured are torchvision's families, the networks of the study, the small ones, torchvision's other tasks, and of
timm and transformers one in four, as far as they stand below. Our side of the same networks is in the tables
above.
"""


def read(path: Path) -> list[Row]:
    """The rows of a file, one JSON document a line; none if there is no file."""
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def write(path: Path, rows: Sequence[Row]) -> None:
    """Replaces a file by rows."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(path, lambda file: file.write(text.encode()))


def page(rows: Sequence[Row], peer: Sequence[Row]) -> str:
    """The README."""
    parts = [INTRODUCTION.format(verdict=_verdict(rows))]
    for kind, title in KINDS.items():
        some = [row for row in rows if row["kind"] == kind]
        if some:
            parts.append(f"## {title}\n\n{_times(some)}{_support(some)}")
    if peer:
        right = sum(row["outcome"] == "right" for row in peer)
        compared, equal = (sum(row.get(name, 0) for row in peer) for name in ("compared", "equal"))
        verdict = (
            f"Of {len(peer)} networks, Torch-Pruning narrows {right} to a network that computes what it must. "
            f"Of {compared} units compared, {equal} couple the same channels. {_measured(peer)}"
        )
        parts.append(PEER_INTRODUCTION.format(verdict=verdict) + "\n" + _peers(peer))
    return "\n".join(parts)


def _verdict(rows: Sequence[Row]) -> str:
    refused = sum("refused" in row for row in rows)
    shares = [row["varying"]["params"] for row in rows if "varying" in row]
    varies = (
        f"Of the parameters of {len(shares)} of them, {median(shares):.3f} can vary (median). "
        if shares
        else ""
    )
    old = sum(not {"varying", "refused", "error"} & row.keys() for row in rows)
    if old:
        varies += f"{old} rows are of an earlier survey, which held more: they say nothing under *varies*. "
    faulty = {row["network"]: faults for row in rows if (faults := wrong(row))}
    judged = f"**{len(faulty)} are wrong**, below" if faulty else "**none is wrong**"
    right = [row for row in rows if "refused" not in row and row["network"] not in faulty]
    compared = sum(bool(row["points"]) for row in right)
    used = [row for row in rows if row["kind"] in USED]
    exact = [row for row in right if row["kind"] in USED]
    alone = sum(not row["points"] for row in exact)
    answer = (
        f"**Of {len(used)} networks that people use, of torchvision, timm and transformers, prunas reshapes "
        f"{len(exact)} exactly**, {alone} of them compared in cost alone. In all "
        if used
        else ""
    )
    return (
        f"{answer}{len(rows)} networks: what is built of {compared} is right in function and in cost, of "
        f"{len(right) - compared} in cost (their function was not compared), "
        f"{refused} are refused by name, {judged}. {varies}{_measured(rows)}\n{_causes(faulty)}"
    )


def _causes(faulty: Mapping[str, Sequence[str]]) -> str:
    """Which rows are wrong, by cause where it is known."""
    left, lines = dict(faulty), []
    for cause in tomllib.loads(FAULTS.read_text(encoding="utf-8"))["faults"]:
        names = [name for name in cause["networks"] if left.pop(name, None)]
        if names:
            whose = "a fault of prunas" if cause["where"] == "prunas" else "a fault of the measurement"
            lines.append(f"- {len(names)}, {whose}: {cause['says']} ({', '.join(names)}).\n")
    lines += [f"- {name}: {'; '.join(faults)}.\n" for name, faults in left.items()]
    return "".join(["\n", *lines]) if lines else ""


def _measured(rows: Iterable[Row]) -> str:
    """When and where."""
    dates = sorted({row["date"] for row in rows})
    places = sorted({row["where"] for row in rows})
    return f"Measured {' and '.join(dates)} with {'; '.join(places)}."


def _times(rows: Sequence[Row]) -> str:
    seconds = sorted((row["seconds"], row["network"]) for row in rows if "seconds" in row)
    if not seconds:
        return ""
    typical = median(value for value, _ in seconds)
    slowest, name = seconds[-1]
    return f"A survey takes {typical:.2f} s (median), {slowest:.2f} s at most ({name}).\n\n"


def _support(rows: Sequence[Row]) -> str:
    head = (
        "network",
        "params",
        "varies",
        "groups",
        "units",
        "gates",
        "blocks",
        "eval",
        "train",
        "singly",
        "cost",
        "survey s",
    )
    lines = [_line((*head, "making s", "frozen")), _line((":--", *["--:"] * 12, ":--"))]
    for row in rows:
        name = row["network"]
        if "refused" in row or "error" in row:
            said = f"refused: {row['refused']}" if "refused" in row else f"**{row['error']}**"
            lines.append(_line((name, *[""] * 12, _cell(said))))
            continue
        points = [*row["points"].values(), *([row["singly"]] if row["singly"] else [])]
        worst = [
            f"{max(p[mode] for p in points):.0e}" if points else "cost only" for mode in ("eval", "train")
        ]
        mixed = row["groups"] - row["maskable"]
        lines.append(
            _line(
                (
                    name,
                    f"{row['params']:,}",
                    f"{row['varying']['params']:.3f}" if "varying" in row else "",
                    f"{row['groups']}" + (f" ({mixed})" if mixed else ""),
                    f"{row['units']:,}",
                    row["gates"],
                    row["blocks"],
                    *worst,
                    row["singly"]["points"] if row["singly"] else "",
                    "**wrong**" if row["inexact"] else "exact",
                    f"{row['seconds']:.2f}",
                    f"{row['making']:.2f}",
                    _frozen(row["frozen"]),
                )
            )
        )
    return "\n".join(lines) + "\n"


def _frozen(frozen: Sequence[Row]) -> str:
    """Every reason once, with the first layer and place it was met at."""
    first: dict[str, list[Row]] = {}
    for item in frozen:
        first.setdefault(item["why"], []).append(item)
    told = []
    for why, items in first.items():
        more = f" and {len(items) - 1} more" if len(items) > 1 else ""
        told.append(f"{why} ({items[0]['what']}{more})")
    return _cell("; ".join(told))


def _peers(rows: Sequence[Row]) -> str:
    head = (
        "network",
        "Torch-Pruning's network",
        "parameters",
        "eval",
        "train",
        "same channels",
        "first difference",
    )
    lines = [_line(head), _line((":--", ":--", "--:", "--:", "--:", "--:", ":--"))]
    for row in rows:
        apart = [
            f"{row[mode]:.0e}" if isinstance(row.get(mode), float) else row.get(mode, "")
            for mode in ("eval", "train")
        ]
        share = f"{row['params']:.3f}" if "params" in row else ""
        same = f"{row['equal']} of {row['compared']}" if row.get("compared") else ""
        outcome = row["outcome"] if row["outcome"] == "right" else f"**{row['outcome']}**"
        lines.append(
            _line((row["network"], _cell(outcome), share, *apart, same, _cell(row.get("different") or "")))
        )
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
