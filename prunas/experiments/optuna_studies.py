"""Optuna studies of finished searches, derived from what searches left behind, for optuna-dashboard and the like.

The run folders are the truth; a study can be thrown away and made again at any time. Nothing here is read when a
search runs, and workers open no database.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.files import read_stored
from prunas.proposers.optuna.profiles import stage_ratios
from prunas.proposers.optuna.replay import quiet
from prunas.proposers.registry import entry
from prunas.results.record import Record
from prunas.results.rows import TrialRow
from prunas.spaces.load import load_space

if TYPE_CHECKING:
    import optuna

__all__ = ["Written", "open_storage", "write_studies"]

MARK = "prunas"
"""Attribute of our studies and trials; studies without it are somebody else's and stay as they are."""

WAIT = 10
"""Seconds for a database server to answer."""


class Written(NamedTuple):
    """One study.

    Attributes:
        study: Its name: space, setting, proposer, seed and target.
        trials: How many it holds.
    """

    study: str
    trials: int


def open_storage(url: str) -> "optuna.storages.RDBStorage":
    """A database by its SQLAlchemy URL, such as `sqlite:///studies.db` or `postgresql://user@host/name`.

    Raises:
        InputError: It does not answer, the URL is not one, or its driver is missing.
    """
    import optuna
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    with quiet():
        try:
            parsed = make_url(url)
            if parsed.drivername in ("postgres", "postgresql"):
                parsed = parsed.set(drivername="postgresql+psycopg")
            postgres = parsed.get_backend_name() == "postgresql"
            return optuna.storages.RDBStorage(
                parsed.render_as_string(hide_password=False),
                engine_kwargs={"connect_args": {"connect_timeout": WAIT}} if postgres else None,
            )
        except ImportError as error:
            raise InputError(
                f"--storage {_shown(url)} needs a driver that is not installed ({error}); for PostgreSQL: "
                "pip install 'prunas[postgres]'"
            ) from error
        except (SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
            cause = getattr(error, "orig", None) or error
            why = " ".join(str(cause).split("\n(Background")[0].split())
            raise InputError(f"--storage {_shown(url)} does not answer: {why}") from error


def write_studies(
    records: Sequence[Record], root: Path, storage: "optuna.storages.BaseStorage"
) -> list[Written]:
    """Writes one study for every search that tried candidates, in place of what an earlier call wrote.

    A parameter is the share of a stage that is kept, whatever the sampler's own were. A candidate whose schedules
    were stopped early is one pruned trial; its steps are percent of the schedule.

    Args:
        records: What to write.
        root: The folder that holds the runs.
        storage: Where to.

    Raises:
        InputError: A run folder is gone, or a study of that name is not ours.
    """
    import optuna

    written = []
    with quiet():
        known = {study.study_name: study for study in optuna.get_all_study_summaries(storage)}
        for record in records:
            made_with = {(cost.proposer, cost.seed): cost.made_with for cost in record.costs}
            for (proposer, seed, asked), trials in groupby(
                record.trials, lambda trial: (trial.proposer, trial.search_seed, trial.asked)
            ):
                label = f"{asked.metric}-{asked.label.replace(' ', '')}"
                name = f"{record.space}/{record.setting}/{proposer}/seed{seed}/{label}"
                if name in known:
                    if MARK not in known[name].user_attrs:
                        raise InputError(
                            f"--storage holds a study {name!r} that prunas did not write; rename it"
                        )
                    optuna.delete_study(study_name=name, storage=storage)
                two = _has_two_objectives(proposer)
                directions = optuna.study.StudyDirection
                direction = directions.MAXIMIZE if record.score.better == "higher" else directions.MINIMIZE
                study = optuna.create_study(
                    study_name=name,
                    storage=storage,
                    directions=[direction, directions.MINIMIZE] if two else [direction],
                )
                other = "params" if asked.metric == "macs" else "macs"
                scored = f"validation {record.score.name}"
                study.set_metric_names([scored, other] if two else [scored])
                about = {"data": record.data, "recipe": record.recipe, "epochs": record.epochs}
                study.set_user_attr(MARK, about | {"made_with": made_with.get((proposer, seed), "")})
                frozen = list(_frozen(list(trials), root / record.space, other if two else None))
                study.add_trials(frozen)
                written.append(Written(name, len(frozen)))
    return written


def _frozen(
    trials: Sequence[TrialRow], runs: Path, other: str | None
) -> "Iterator[optuna.trial.FrozenTrial]":
    """The trials of one study; `other` is the second objective."""
    import optuna

    candidates: dict[tuple[str, int], list[TrialRow]] = {}
    for i, trial in enumerate(trials):
        candidates.setdefault((trial.architecture, i if trial.duplicate else 0), []).append(trial)
    folders = [runs / Path(attempts[-1].folder).name for attempts in candidates.values()]
    specs = [read_stored(folder / "job.json")["spec"] for folder in folders]
    points = [Architecture.from_json(spec["architecture"]) for spec in specs]
    space = load_space(specs[0]["space"])
    shares = stage_ratios(space, points)
    whole = optuna.distributions.FloatDistribution(0.0, space.ceiling)
    for own, folder, params in zip(candidates.values(), folders, shares, strict=True):
        last = own[-1]
        score = last.val_score
        done = last.fraction == 1 and score is not None
        cost = last.reached.to_json()
        states = optuna.trial.TrialState
        made = optuna.trial.create_trial(
            state=states.FAIL if score is None else states.COMPLETE if done else states.PRUNED,
            values=None if score is None or not done else [score, *([cost[other]] if other else [])],
            params=params,
            distributions=dict.fromkeys(params, whole),
            intermediate_values={
                round(100 * t.fraction): t.val_score for t in own if other is None and t.val_score is not None
            },
            user_attrs={
                MARK: {
                    "run": last.id,
                    "architecture": last.architecture,
                    "params": cost["params"],
                    "macs": cost["macs"],
                    "train_macs": sum(trial.train_macs for trial in own if not trial.duplicate),
                    "duplicate": last.duplicate,
                }
                | ({"error": last.error} if score is None else {})
            },
        )
        if score is not None:
            result = read_stored(folder / "result.json")
            made.datetime_complete = datetime.fromisoformat(result["finished"])
            made.datetime_start = made.datetime_complete - timedelta(seconds=result["seconds"])
        yield made


def _shown(url: str) -> str:
    """A URL without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return json.dumps(url)


def _has_two_objectives(proposer: str) -> bool:
    """Whether a sampler weighs the cost left open beside the score; False if it is no longer installed."""
    with suppress(InputError):
        return bool(getattr(entry(proposer).resolved(), "two_objectives", False))
    return False
