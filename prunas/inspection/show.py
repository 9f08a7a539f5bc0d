"""`show`: what a space lets vary and what a point of it costs. Torch-free once surveyed and counted."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from typing_extensions import TypedDict

from prunas.architecture import Architecture
from prunas.spaces.cache import remembered
from prunas.spaces.space import SearchSpace
from prunas.statistics.text import count
from prunas.survey import FIXED, Survey

__all__ = ["ShowDocument", "VaryingRow", "show_document", "show_text", "varying_share"]


class GroupRow(TypedDict):
    """Channels that one width decides."""

    name: str
    units: int
    dense: int
    stage: int
    role: str
    maskable: bool
    varies: bool


class GateRow(TypedDict):
    """A selection of channels before a layer; `norm` names the normalisation in front of it."""

    name: str
    norm: str | None
    channels: int
    dense: int
    stage: int
    varies: bool


class BlockRow(TypedDict):
    """A residual block."""

    name: str
    stage: int
    removed: bool
    varies: bool


class FrozenRow(TypedDict):
    """What cannot vary, and why; the parameters and MACs that never vary for it."""

    what: str
    why: str
    where: str
    params: int
    macs: int


class VaryingRow(TypedDict):
    """How much of the dense network is decided by widths or selections, as shares from 0 to 1."""

    params: float
    macs: float


class PartRow(TypedDict):
    """The submodule that varies; the other numbers are of what lies outside it and is counted with it."""

    path: str
    params: int
    macs: int
    uncounted: list[str]
    why: str


class ShowDocument(TypedDict):
    """A point of a space: what varies in it, and what it costs."""

    space: str
    network: str
    data: str
    recipe: str
    input: list[int]
    part: PartRow | None
    params: int
    macs: int
    dense_params: int
    dense_macs: int
    digest: str
    groups: list[GroupRow]
    gates: list[GateRow]
    blocks: list[BlockRow]
    stages: list[list[int]]
    varying: VaryingRow
    frozen: list[FrozenRow]


def show_document(space: SearchSpace, arch: Architecture) -> ShowDocument:
    """Everything `prunas show --json` prints, apart from the schema version."""
    survey, cost = space.survey, space.cost(arch)
    widths, selected = dict(arch.widths), dict(arch.selected)
    varying = {d.name for d in space.dimensions if d.kind == "group"}
    gated = {d.name for d in space.dimensions if d.kind == "gate"}
    built = space.gate_inputs(arch)
    return {
        "space": space.name,
        "network": space.network,
        "data": space.study.data,
        "recipe": space.study.recipe,
        "input": list(survey.input),
        "part": _part(survey),
        "params": cost.params,
        "macs": cost.macs,
        "dense_params": cost.dense_params,
        "dense_macs": cost.dense_macs,
        "digest": arch.digest,
        "groups": [
            {
                "name": g.name,
                "units": widths.get(g.name, g.units),
                "dense": g.units,
                "stage": g.stage,
                "role": g.role,
                "maskable": g.maskable,
                "varies": g.name in varying,
            }
            for g in survey.groups
        ],
        "gates": [
            {
                "name": gate.name,
                "norm": gate.norm,
                "channels": len(selected.get(gate.name, ())) or built[gate.name],
                "dense": built[gate.name],
                "stage": gate.stage,
                "varies": gate.name in gated,
            }
            for gate in survey.gates
        ],
        "blocks": [
            {
                "name": block.name,
                "stage": block.stage,
                "removed": block.name in arch.removed,
                "varies": block.name in space.removable,
            }
            for block in survey.blocks
        ],
        "stages": [list(size) for size in survey.stages],
        "varying": varying_share(survey),
        "frozen": [
            {"what": f.what, "why": f.why, "where": f.where, "params": f.params, "macs": f.macs}
            for f in sorted(survey.frozen, key=lambda frozen: (-frozen.params, -frozen.macs))
        ],
    }


def varying_share(survey: Survey) -> VaryingRow:
    """The shares of the dense network's parameters and MACs in products of which a factor can vary."""
    dense = [group.units for group in survey.groups]
    total, varying = [0, 0], [0, 0]
    for row in survey.rows:
        forms = [i for i in (row.reads, row.writes) if i != FIXED]
        size = math.prod(survey.size(i, dense) for i in forms)
        varies = (
            row.gate_reads or row.gate_writes or any(r.group != FIXED for i in forms for r in survey.forms[i])
        )
        for i, per_product in enumerate((row.params, row.macs)):
            total[i] += size * per_product
            varying[i] += size * per_product if varies else 0
    return {"params": varying[0] / max(1, total[0]), "macs": varying[1] / max(1, total[1])}


def _part(survey: Survey) -> PartRow | None:
    """The part of a space, if it has one."""
    if (part := survey.part) is None:
        return None
    return {
        "path": part.path,
        "params": part.params,
        "macs": part.macs,
        "uncounted": list(part.uncounted),
        "why": part.why,
    }


def show_text(
    space: SearchSpace, arch: Architecture, document: Mapping[str, Any], *, with_thop: bool = True
) -> str:
    """The same for a person.

    Args:
        space: Of the point.
        arch: The point.
        document: As `show_document` makes it.
        with_thop: Whether thop's count stands beside ours, because published numbers are often like it; it
            imports torch where it is not remembered.
    """
    lines = [
        f"{space.name}: {space.network} on {space.study.data or 'no data set'}, recipe {space.study.recipe}",
        f"params {document['params']:,}   MACs {document['macs']:,} "
        "(norms, activations, pooling and biases not counted)",
        *([_thop(space, arch)] if with_thop else []),
        *([str(space.survey.part)] if space.survey.part else []),
        f"targets {', '.join(f'{100 * k:g} %' for k in space.study.keep)} of {space.study.metric}",
        "",
        "stage  map      groups                  gates                   blocks",
    ]
    for stage, size in enumerate(document["stages"]):
        cells = []
        for kind, width in (("groups", "units"), ("gates", "channels"), ("blocks", None)):
            here = [item for item in document[kind] if item["stage"] == stage]
            varies = sum(item["varies"] for item in here)
            text = f"{len(here)} ({varies} vary)" if here else "-"
            if here and width:
                text += f" {count(sum(i[width] for i in here))}/{count(sum(i['dense'] for i in here))}"
            cells.append(text)
        shape = "x".join(map(str, size)) or "head"
        lines.append(f"{stage:>5}  {shape:<7}  {cells[0]:<22}  {cells[1]:<22}  {cells[2]}")
    lines += ["", "group or gate                     width      dense  stage  role"]
    for item in document["groups"]:
        mark = "" if item["varies"] else "  (does not vary)"
        lines.append(
            f"{item['name']:<30} {item['units']:>8} {item['dense']:>10} {item['stage']:>6}  {item['role']}{mark}"
        )
    for item in document["gates"]:
        mark = "" if item["varies"] else "  (does not vary)"
        lines.append(
            f"{item['name']:<30} {item['channels']:>8} {item['dense']:>10} {item['stage']:>6}  gate{mark}"
        )
    varying, dense = document["varying"], max(1, space.cost(Architecture(space.name, arch.network)).params)
    lines += [
        "",
        f"{100 * varying['params']:.1f} % of the parameters and {100 * varying['macs']:.1f} % of the MACs "
        "can vary",
        "frozen   of the parameters",
    ]
    lines += [
        f"{100 * item['params'] / dense:>7.2f} %  {item['what']}: {item['why']} [{item['where']}]"
        for item in document["frozen"]
    ]
    return "\n".join(lines)


def _thop(space: SearchSpace, arch: Architecture) -> str:
    """thop's count, remembered where the network's source is known: counting imports torch and builds it."""
    if arch.selected:
        return "thop cannot count layers that select their inputs"
    if space.survey.part or space.survey.inputs:
        return "thop counts whole networks of one image only"
    network = [space.known_as, space.survey.fingerprint, arch.to_json(), version("thop")]
    macs: int = (
        remembered("thop", network, lambda: _thop_macs(space, arch))
        if space.known_as
        else _thop_macs(space, arch)
    )
    return f"thop counts {macs:,} MACs (norms among them)"


def _thop_macs(space: SearchSpace, arch: Architecture) -> int:
    """Counts on a network of its own, on the meta device: thop leaves buffers behind in what it counts."""
    import warnings

    import torch

    from prunas.tracing.example import sample
    from prunas.tracing.untouched import running, untouched

    with untouched(space.factory), running(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        import thop

        with torch.device("meta"):
            net = space.build(arch).eval()
            example = sample(space.survey.called_with, 1, device="meta")
        macs, _ = thop.profile(net, example.args, verbose=False)
    counted: int = round(macs)
    return counted
