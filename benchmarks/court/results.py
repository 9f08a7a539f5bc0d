"""What is kept of a case: one JSON document, written as its trainings end; and what the claims say of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.court.cases import FOUND, Case, Claim, Trial, cases, claims, claims_digest, margin
from benchmarks.reproduce.cells import data_identity
from benchmarks.reproduce.claims import Claim as Stated
from benchmarks.reproduce.claims import Comparison, Verdict, corrected, weighed
from benchmarks.reproduce.documents import Done, made, write_cell
from benchmarks.reproduce.run import Listing
from prunas.costs.target import Target
from prunas.files import read_json
from prunas.recipe import Recipe
from prunas.runs.store import Store
from prunas.statistics.inference import gain_bounds
from prunas.statistics.summary import Summary, summarise
from prunas.tasks.score import ACCURACY

__all__ = ["HERE", "LISTING", "RESULTS", "differences", "load_results", "stranger", "verdicts"]

HERE = Path(__file__).parent
RESULTS = "results"


def _done(case: Case, data: Path | None, store: Store, into: Path) -> Done:
    """Writes what is finished of a case into its file, if anything is; trains nothing."""
    setting, trainings = case.setting(data), case.trainings(data)
    results = {key: store.result(training.job) for key, training in trainings.items()}
    there = {key: result for key, result in results.items() if result is not None}
    once = {trainings[key].job.id: key for key in there}
    if there:
        shapes, space = case.shapes(), case.space
        costs = {side: space.cost(shape.architecture) for side, shape in shapes.items()}
        document = {
            "shape": {"label": case.shape.label, "source": case.shape.source, "ours": case.shape.ours},
            "space": space.name,
            "recipe": setting.recipe.to_json(),
            "data": setting.data,
            "data_identity": setting.identity,
            "sides": {
                side: {
                    "architecture": shape.architecture.to_json(),
                    "digest": shape.architecture.digest,
                    "params": costs[side].params,
                    "macs": costs[side].macs,
                    "matched": shape.matched,
                }
                for side, shape in shapes.items()
            },
            "runs": [
                {
                    "side": side,
                    "seed": seed,
                    "score": result.values["score"],
                    "seconds": round(float(result.values["seconds"]), 1),
                    "train_macs": trainings[side, seed].macs,
                    "folder": trainings[side, seed].job.name,
                }
                for (side, seed), result in there.items()
            ],
            "cell": {"name": case.name, "protocol": case.protocol.name, "planned": len(trainings)}
            | made(
                [there[key].values for key in once.values()], [there[key].machine for key in once.values()]
            ),
            "claims": claims_digest(),
        }
        write_cell(into / RESULTS, case, document)
    seconds = sum(float(there[key].values["seconds"]) for key in once.values())
    macs = sum(trainings[key].macs for key in once.values())
    return Done(len(there) == len(trainings), len(once), macs, seconds)


def _trainings(case: Case, data: Path | None) -> list[Any]:
    """Its trainings, each once."""
    return list({training.job.id: training for training in case.trainings(data).values()}.values())


LISTING = Listing(_trainings, _done, RESULTS)
"""How the runner of benchmarks/reproduce carries out a case."""


def load_results(protocol: str, folder: Path = HERE / RESULTS) -> dict[str, dict[str, Any]]:
    """The committed results of a protocol by name of their case, without those that do not belong to it."""
    known = {case.name: case for case in cases(protocol)}
    documents = {path.stem: read_json(path) for path in sorted((folder / protocol).glob("*.json"))}
    return {
        name: document
        for name, document in documents.items()
        if name in known and stranger(known[name], document) is None
    }


def stranger(case: Case, document: Mapping[str, Any]) -> str | None:
    """Why a result does not belong to a case, and enters no table; None if it does."""
    how, space = case.protocol, case.space
    planned = _recipe(case.trial, space.cost(space.dense).params)
    if Recipe.from_json(document["recipe"]).identity != planned.identity:
        return "another recipe or precision"
    if document["data_identity"] != (data_identity(document["data"]) or document["data_identity"]):
        return "other data"
    sides = {side: shape.architecture.digest for side, shape in case.shapes().items()}
    if sides != {side: told["digest"] for side, told in document["sides"].items()}:
        return "other shapes"
    return None if document["cell"]["protocol"] == how.name else "another protocol"


def _recipe(trial: Trial, params: int) -> Recipe:
    from prunas.recipe import recipe

    assert trial.protocol.recipe is not None
    return recipe(trial.protocol.recipe).replace(**trial.protocol.changes).settled(params)


# Verdicts


def differences(document: Mapping[str, Any], left: str, right: str) -> list[float]:
    """Test accuracy of one side minus that of the other in percentage points, of the seeds that both have."""
    scores = {
        side: {run["seed"]: run["score"] for run in document["runs"] if run["side"] == side}
        for side in (left, right)
    }
    return [
        scores[left][seed] - scores[right][seed]
        for seed in sorted(scores[left].keys() & scores[right].keys())
    ]


def verdicts(protocol: str, results: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Verdict]:
    """Every claim on every case, and on all of them together, by claim and case; corrected for all of them.

    Args:
        protocol: Of the results.
        results: As of `load_results`.
    """
    every = cases(protocol)
    judged: dict[tuple[str, str], Verdict] = {}
    for claim in claims():
        if claim.scope == "all":
            judged[claim.id, ""] = _of_all(claim, every, results)
            continue
        for case in every:
            judged[claim.id, case.name] = _of_case(claim, case, results.get(case.name))
    together = corrected(list(judged.values()))
    return dict(zip(judged, together, strict=True))


def _of_case(claim: Claim, case: Case, document: Mapping[str, Any] | None) -> Verdict:
    unknown = Verdict(claim=_stated(claim), cell=case.name, row="", counts="trainings")
    if document is None or not (values := differences(document, claim.left, claim.right)):
        return unknown
    if document["sides"][claim.left]["digest"] == document["sides"][claim.right]["digest"]:
        return Verdict(
            claim=unknown.claim, cell=case.name, row="", judgement="undecided", note="the same shape"
        )
    missing = case.protocol.seeds - len(values)
    comparison = Comparison(Target("params", 1), summarise(values, gain_bounds(ACCURACY)))
    return weighed(unknown, [comparison], "more", margin(), missing=missing)


def _of_all(claim: Claim, every: Sequence[Case], results: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """A claim about published shapes in general: one mean difference for each whose seeds are all there."""
    published = [case for case in every if not case.shape.ours]
    unknown = Verdict(claim=_stated(claim), cell="", row="", counts="trainings")
    means = []
    for case in published:
        values = differences(results[case.name], claim.left, claim.right) if case.name in results else []
        if len(values) == case.protocol.seeds:
            means.append(fmean(values))
    if not means:
        return unknown
    comparison = Comparison(Target("params", 1), summarise(means, gain_bounds(ACCURACY)))
    return weighed(unknown, [comparison], "more", margin(), missing=len(published) - len(means))


def _stated(claim: Claim) -> Stated:
    sides = {"left": {"proposer": claim.left}, "right": {"proposer": claim.right}}
    return Stated(id=claim.id, says=claim.says, source="prunas", about=(), kind="automatic", **sides)


def mean_score(document: Mapping[str, Any], side: str = FOUND) -> Summary | None:
    """Test accuracy of one side in percent; None before it was trained."""
    scores = [run["score"] for run in document["runs"] if run["side"] == side]
    return summarise(scores) if scores else None
