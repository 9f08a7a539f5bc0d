"""The tables of this folder's README, from the committed results and the found shapes alone."""

from collections.abc import Mapping
from typing import Any

from benchmarks.court.cases import (
    TAPER,
    UNIFORM_MACS,
    UNIFORM_PARAMS,
    Found,
    cases,
    claims,
    claims_digest,
    found_shapes,
    margin,
    protocols,
    shapes_of,
)
from benchmarks.court.results import HERE, load_results, mean_score, verdicts
from benchmarks.pages import between_marks
from benchmarks.reproduce.claims import Verdict
from prunas.statistics.text import Table, as_markdown, count, duration, interval_text

__all__ = ["README", "counted", "page", "summary", "tried"]

README = HERE / "README.md"
ALIKE = 0.05
"""How far the MACs of the uniform shape of the same parameters are off where a found one costs as it does."""

SIDES = {
    UNIFORM_PARAMS: "uniform, equal params",
    UNIFORM_MACS: "uniform, equal MACs",
    TAPER: "taper, both equal",
}


def page(text: str) -> str:
    """The page with its tables made anew."""
    parts = [
        "## What the claims say\n",
        *(tried(name) for name in protocols()),
        "## What the shapes cost\n",
        summary(costs := counted()),
        as_markdown(costs),
    ]
    return between_marks(text, "\n".join(parts) + "\n")


def tried(name: str) -> str:
    """The verdicts of one protocol."""
    how, every, results = protocols()[name].protocol, cases(name), load_results(name)
    trained = sum(len({(run["folder"]) for run in document["runs"]}) for document in results.values())
    whole = sum(len(document["runs"]) == document["cell"]["planned"] for document in results.values())
    lines = [f"### Protocol {name}\n", f"{how.says}; {how.seeds} seeds. "]
    lines[-1] += f"**{whole} of {len(every)} shapes are complete**, {trained} trainings are finished.\n"
    if not results:
        return "\n".join(lines)
    judged = verdicts(name, results)
    rows = []
    for case in every:
        document = results.get(case.name)
        found = None if document is None else mean_score(document)
        cells = [_cell(judged[claim.id, case.name]) for claim in claims() if claim.scope == "shape"]
        score = (
            "-"
            if found is None
            else f"{found.mean:.2f}" + ("" if found.std is None else f" ± {found.std:.2f}")
        )
        ours = " (prunas)" if case.shape.ours else ""
        rows.append((f"{case.shape.label}{ours}", score, *cells))
    general = [judged[claim.id, ""] for claim in claims() if claim.scope == "all"]
    rows.append(("**all published**", "", *map(_cell, general)))
    lines.append(
        as_markdown(
            Table(
                columns=("found shape", "test %", *SIDES.values()),
                align="lrlll",
                rows=tuple(rows),
                notes=(
                    "Found minus control in percentage points, paired by seed, with its own 95 % interval; the "
                    f"claim is that it lies above {margin()}. Verdicts are corrected for all of this table "
                    "(Holm). - is not run yet.",
                ),
            )
        )
    )
    lines += [_made(results)]
    return "\n".join(lines)


def _cell(verdict: Verdict) -> str:
    if verdict.difference is None:
        return verdict.note or "-"
    interval = interval_text(verdict.difference, "+")
    note = (
        f", {verdict.note}".replace("targets", "to train").replace("target", "to train")
        if verdict.note
        else ""
    )
    return f"{verdict.difference.mean:+.2f} {interval} (n = {verdict.difference.n}) **{verdict.judgement}**{note}"


def _made(results: Mapping[str, Mapping[str, Any]]) -> str:
    cells = [document["cell"] for document in results.values()]
    devices = sorted({device for cell in cells for device in cell["device"]})
    versions = sorted({version for cell in cells for version in cell["versions"]})
    took = duration(sum(cell["seconds"] for cell in cells))
    text = (
        f"{', '.join(devices).replace('cpu', 'CPU')}; {'; '.join(versions)}; "
        f"{max(cell['written'] for cell in cells)}; {took} of training.\n"
    )
    if any(document["claims"] != claims_digest() for document in results.values()):
        text += "\n**The claims have changed since the first run.**\n"
    return text


def summary(costs: Table) -> str:
    """What the costs say, in words."""
    tapered = sum(row[-1] == "yes" for row in costs.rows)
    factors = sorted((float(row[4].rstrip("*")), row[0]) for row in costs.rows)
    (least, narrowest), (most, widest) = factors[0], factors[-1]
    alike = sum(abs(factor - 1) <= ALIKE for factor, _ in factors)
    return (
        f"**{tapered} of {len(costs.rows)} found shapes have a taper of the same parameters and MACs** to 1 %. "
        f"The uniform shape of the same parameters has from {least:.2f} ({narrowest}) to {most:.2f} times "
        f"({widest}) the MACs of the found one; {alike} are within {ALIKE:.0%} of it, and so nearly uniform in "
        "cost.\n"
    )


def counted(shapes: tuple[Found, ...] | None = None) -> Table:
    """What every found shape costs as published, beside its controls."""
    rows = []
    for found in shapes or found_shapes():
        space, sides = found.space, shapes_of(found.space, found.architecture)
        cost, dense = space.cost(found.architecture), space.cost(space.dense)
        params, macs, tapered = (sides[side] for side in (UNIFORM_PARAMS, UNIFORM_MACS, TAPER))
        rows.append(
            (
                found.label,
                space.name,
                f"{count(cost.params)} ({cost.params / dense.params:.0%})",
                f"{count(cost.macs)} ({cost.macs / dense.macs:.0%})",
                f"{space.cost(params.architecture).macs / cost.macs:.2f}" + ("" if params.matched else "*"),
                f"{space.cost(macs.architecture).params / cost.params:.2f}" + ("" if macs.matched else "*"),
                "yes" if tapered.matched else "no",
            )
        )
    return Table(
        columns=(
            "found shape",
            "space",
            "params",
            "MACs",
            "MACs of uniform at equal params",
            "params of uniform at equal MACs",
            "a taper has both",
        ),
        align="llrrrrl",
        rows=tuple(rows),
        notes=(
            "Counted by prunas, of the networks as published; in brackets the share of the dense network; the "
            "controls' costs in multiples of the found shape's. * it misses the found cost by more than 1 %.",
        ),
    )
