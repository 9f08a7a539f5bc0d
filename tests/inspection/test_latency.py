"""Latency: what is timed and what is said about it; never how fast it was."""

import contextlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunas import designs
from prunas.architecture import KernelPattern
from prunas.cli import main
from prunas.errors import InputError
from prunas.inspection import latency as timing
from prunas.inspection.latency import conditions, latency_of, place
from prunas.spaces.load import load_space

CPU = torch.device("cpu")


class Clock:
    """Stands in for torch's timer: a pass takes a microsecond per parameter, or twice that in every other turn."""

    turns = 0

    def __init__(self, statement: str, globals: dict[str, Any], num_threads: int) -> None:
        self.run = globals["run"]
        self.net = self.run.func
        assert (statement, num_threads) == ("run()", torch.get_num_threads())
        assert not self.net.training

    def timeit(self, passes: int) -> Any:
        assert torch.is_inference_mode_enabled()
        self.run()
        Clock.turns += 1
        seconds = 1e-6 * sum(p.numel() for p in self.net.parameters())
        slow = 1 + (Clock.turns // 2) % 2  # neighbours share it
        return type("Measurement", (), {"mean": slow * seconds})


def test_the_ratio_is_that_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space("vgg11-digits")
    arch = designs.uniform(space, space.target(keep=0.25))
    monkeypatch.setattr(timing, "Timer", Clock)
    monkeypatch.setattr(timing, "SECONDS", 60.0)
    Clock.turns = 0  # the first call, which is not a turn, makes it odd
    found = latency_of(space, arch, batch=2, device=CPU)
    dense, narrow = space.cost(space.dense).params, space.cost(arch).params
    assert Clock.turns == 1 + 2 * 15
    assert found.ratio == pytest.approx(narrow / dense, rel=1e-9)
    assert found.dense_seconds in (pytest.approx(1e-6 * dense), pytest.approx(2e-6 * dense))
    assert (found.batch, found.device, found.masked, found.architecture) == (2, "cpu", False, arch.digest)


def test_masked_networks_are_timed_without_their_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space("vgg11-digits")
    mask = np.zeros((16, 1, 3, 3), bool)
    mask[0, 0, 0, 0] = True
    pattern = KernelPattern(masks=(("features.0", KernelPattern.pack(mask)),))
    monkeypatch.setattr(timing, "Timer", Clock)
    found = latency_of(space, space.point(kernels=pattern), batch=1, device=CPU)
    assert (found.ratio, found.masked) == (1.0, True)


class Recorder:
    """Replays by calling again; cannot record the given one of what it is asked for."""

    def __init__(self, fails: int | None = None) -> None:
        self.fails, self.replays = fails, []

    aside = strict = staticmethod(contextlib.nullcontext)

    def record(self, work: Any) -> Any:
        if self.fails == len(self.replays):
            raise RuntimeError("operation not permitted when stream is capturing")
        work()  # while it records
        self.replays.append(partial(work.func, *work.args))  # where the clock finds the network
        return self.replays[-1]


@pytest.mark.parametrize(("fails", "captured"), [(None, True), (0, False), (1, False)])
def test_a_gpu_replays_both_networks_or_neither(
    monkeypatch: pytest.MonkeyPatch, fails: int | None, captured: bool
) -> None:
    space = load_space("vgg11-digits")
    recorder, timed = Recorder(fails), []

    class Noting(Clock):
        def __init__(self, statement: str, globals: dict[str, Any], num_threads: int) -> None:
            super().__init__(statement, globals, num_threads)
            timed.append(self.run)

    monkeypatch.setattr(timing, "Timer", Noting)
    monkeypatch.setattr(timing, "cuda_recorder", lambda device: recorder)
    found = latency_of(space, designs.uniform(space, space.target(keep=0.25)), batch=2, device=CPU)
    assert found.captured is captured
    assert len(timed) == 2
    assert [run in recorder.replays for run in timed] == [captured, captured]
    said = conditions(found)
    assert ("replayed as a CUDA graph" in said) is captured
    assert ("eager" in said) is not captured


def test_precision_is_set_whatever_was_computed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    space, asked = load_space("vgg11-digits"), []
    monkeypatch.setattr(timing, "Timer", Clock)
    monkeypatch.setattr(timing, "float32_arithmetic", lambda device, **how: asked.append((device, how)))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []
    monkeypatch.setattr(Clock, "timeit", _noting_search(Clock.timeit, seen))
    latency_of(space, space.dense, batch=1, device=CPU)
    assert asked == [(CPU, {"convolutions": "ieee", "products": "ieee"})]
    assert set(seen) == {False}
    assert torch.backends.cudnn.benchmark


def _noting_search(timeit: Any, seen: list[bool]) -> Any:
    def noting(self: Clock, passes: int) -> Any:
        seen.append(torch.backends.cudnn.benchmark)
        return timeit(self, passes)

    return noting


def test_show_and_compare_on_request(
    small_space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunas.experiments.plan import make_plan, make_setting
    from prunas.experiments.record import record_of, save
    from prunas.experiments.search import search
    from prunas.runs.executors import executor
    from prunas.runs.store import Store

    monkeypatch.setattr(timing, "SECONDS", 0.0)

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out

    shown = json.loads(call("show", small_space, "--latency", "--batch", "3", "--device", "cpu", "--json"))
    assert shown["latency"]["ratio"] == 1.0  # the dense network beside itself
    assert (shown["latency"]["batch"], shown["latency"]["precision"]) == (3, "fp32")
    assert "a pass of 3 images on cpu" in call(
        "show", small_space, "--latency", "--batch", "3", "--device", "cpu"
    )
    assert "latency" not in json.loads(call("show", small_space, "--json"))

    setting = make_setting(load_space(str(small_space)), changes={"epochs": 1, "images": 64})
    plan = make_plan(setting, ["uniform"], seeds=2, controls=False, dense=False, align=(4, "down"))
    store = Store(tmp_path)
    findings = search(plan, store, lambda: executor("serial", store))
    record = findings.record
    save(record, tmp_path)
    (document,) = json.loads(call("compare", "--out", tmp_path, "--latency", "--device", "cpu", "--json"))[
        "records"
    ]
    points = {row["architecture"] for row in document["runs"]}
    assert {each["architecture"] for each in document["latency"]} == points
    assert len(points) == len(plan.targets)
    table = call("compare", "--out", tmp_path, "--latency", "--device", "cpu")
    assert "x dense" in table
    assert "1 thread" in table
    assert "x dense" not in call("compare", "--out", tmp_path)

    # Both shapes stand in the result, and what was trained is the aligned one.
    for row, asked in zip(findings.rows, [t for t in plan.targets for _ in (0, 1)], strict=True):
        proposed = designs.uniform(setting.space, asked)
        aligned = designs.align(setting.space, proposed, 4, "down")
        assert aligned != proposed
        assert row.proposed is not None
        assert row.proposed.architecture == proposed.to_json()
        assert (row.proposed.digest, row.architecture) == (proposed.digest, aligned.digest)
        assert row.proposed.reached == setting.space.cost(proposed)
        assert row.reached == setting.space.cost(aligned) != row.proposed.reached
        job = json.loads((Path(row.folder) / "job.json").read_text())
        assert job["spec"]["architecture"] == aligned.to_json()
    assert "MACs proposed" in table
    plain = make_plan(setting, ["uniform"], seeds=2, controls=False, dense=False)
    assert record_of(plain).setting != record.setting  # aligned and other points share no table


def test_aligning_what_inherits_channels_is_refused(small_space: Path) -> None:
    from prunas.experiments.plan import make_plan, make_setting

    setting = make_setting(load_space(str(small_space)), changes={"epochs": 1})
    with pytest.raises(InputError, match="'finetune' inherits"):
        make_plan(setting, ["slimming"], protocols=["scratch-e", "finetune"], align=(8, "nearest"))
    with pytest.raises(InputError, match="8 and 16"):
        make_plan(setting, ["slimming"], align=(0, "nearest"))


def test_bad_conditions_are_one_line() -> None:
    space = load_space("vgg11-digits")
    with pytest.raises(InputError, match="--batch"):
        latency_of(space, space.dense, batch=0, device=CPU)
    with pytest.raises(InputError, match="--device cpu"):
        place("gpu")
    assert place("cpu") == CPU
