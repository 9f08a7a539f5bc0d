import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from prunas.cli import progress as module
from prunas.cli.progress import EVERY, Tally, lines, progress, span
from prunas.runs.execute import Outcome
from prunas.runs.job import Job


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def job(seed: int, epochs: int = 10) -> Job:
    return Job("train", {"epochs": epochs, "seed": seed}, "space", "scratch-e")


def epoch(number: int, epochs: int = 10, loss: float = 0.5) -> dict[str, Any]:
    return {"epoch": number, "epochs": epochs, "loss": loss, "score": 90.0}


def test_a_line_is_told_every_half_minute_until_the_work_is_over() -> None:
    clock, told = Clock(), list[str]()
    tally = Tally(4, 40, clock)

    def wait(seconds: float) -> bool:
        """Meanwhile two epochs are trained, 15 seconds each, of four trainings of ten."""
        for _ in range(2):
            clock.now += seconds / 2
            done = round((clock.now - 1000) / 15)
            training, number = divmod(done - 1, 10)
            tally(job(training), epoch(number + 1))
            if number == 9:
                tally.end(Outcome(job(training), "finished"))
        return done == 40

    lines(tally, wait, told.append)
    assert EVERY == 30
    assert len(told) == 19  # 600 seconds; nothing more to say at the end
    assert told[0] == "0 of 4 trainings in 30 s; scratch-e epoch 2/10 loss 0.500, about 10 min left"
    assert told[9] == "2 of 4 trainings in 5 min; scratch-e epoch 10/10 loss 0.500, about 5 min left"
    assert told[-1] == "3 of 4 trainings in 10 min; scratch-e epoch 8/10 loss 0.500, about 30 s left"


def test_before_the_first_epoch_there_is_a_line_without_an_estimate() -> None:
    clock = Clock()
    tally = Tally(3, 30, clock)
    clock.now += 60
    assert tally.line == "0 of 3 trainings in 60 s; starting"
    tally(job(0), {"waiting": "another process has this run"})
    assert tally.line == "0 of 3 trainings in 60 s; scratch-e another process has this run"
    assert tally.left is None
    tally(Job("supernet/greedy", {"seed": 0}, "space", "supernet-greedy"), {"step": 3, "steps": 40})
    assert tally.line == "0 of 3 trainings in 60 s; supernet-greedy step 3/40"


def test_finished_runs_and_epochs_from_a_checkpoint_do_not_count_as_speed() -> None:
    clock = Clock()
    tally = Tally(4, 40, clock)
    for seed in (0, 1):
        tally.end(Outcome(job(seed), "cached"))
    tally(job(2), epoch(8))  # seven of them were in a checkpoint
    clock.now += 10
    assert tally.left == pytest.approx(10 * (2 + 10))
    tally(job(2), epoch(9))
    tally(job(2), epoch(10))
    tally.end(Outcome(job(2), "finished"))
    clock.now += 20
    assert tally.left == pytest.approx(30 / 3 * 10)
    assert tally.line.startswith("3 of 4 trainings in 30 s;")


def test_a_training_that_failed_is_not_waited_for() -> None:
    clock = Clock()
    tally = Tally(2, 20, clock)
    tally(job(0), epoch(1))
    tally.end(Outcome(job(0), "failed", error="the loss is nan"))
    clock.now += 3
    assert tally.left == pytest.approx(30)


def test_trainings_side_by_side_and_more_than_were_foreseen() -> None:
    clock = Clock()
    tally = Tally(1, 10, clock)
    for seed in range(3):
        tally(job(seed), epoch(5))
    clock.now += 5
    assert tally.trainings == 3
    assert tally.left == 0  # never less


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (12600, "3.5 h")]
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_outcomes_are_counted_on_their_way_through_an_executor() -> None:
    closed = []
    inner = SimpleNamespace(
        capacity=2,
        completed=lambda: iter([Outcome(job(0), "finished"), Outcome(job(1), "cached")]),
        close=closed.append,
    )
    tally = Tally(2, 20)
    watched = tally.watch(inner)  # type: ignore[arg-type]  # as much of one as is used here
    assert watched.capacity == 2
    seen = [tally.ended for _ in watched.completed()]
    assert seen == [1, 2]
    watched.close(wait=True)
    assert closed == [True]


def test_off_a_terminal_the_lines_are_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.001)
    with progress(2, 20) as tally:
        tally(job(0), epoch(3))
        deadline = time.monotonic() + 60
        while not (text := capsys.readouterr()).err and time.monotonic() < deadline:
            time.sleep(0.01)
    assert re.match(
        r"0 of 2 trainings in \d+ s; scratch-e epoch 3/10 loss 0.500, about \d+ (s|min) left\n", text.err
    )
    assert text.out == ""
