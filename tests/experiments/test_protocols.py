"""Every protocol with every way to find a point: what is trained, for how long, from which weights."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from prunas.costs.target import Target
from prunas.designs import uniform
from prunas.errors import InputError
from prunas.experiments.forecast import forecast
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.record import record_of
from prunas.experiments.search import Findings, Plan, search
from prunas.proposers.brief import Proposal
from prunas.protocols import PROTOCOLS, finetuning, protocol
from prunas.recipe import recipe
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_point, load_space
from prunas.works.trainings import Setting

METHODS = ("slimming", "l1-global", "thinet-global", "reconstruction-global", "magnitude", "sss")
BUDGETS = ("scratch-e:3", "finetune:2", "finetune-rewound:3", "ticket:2")
TAUGHT = ("finetune+distill", "finetune-large+distill=2@0.5:2", "scratch-e+distill", "ticket+distill:2")
EQUAL = ("scratch=finetune", "scratch=finetune-large+distill:2")
HOW = (*PROTOCOLS, "scratch-b:1.25", "scratch-b:inf", "dsd:0.5", *BUDGETS, *TAUGHT, *EQUAL)
EPOCHS = 4


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, Findings]:
    changes = {"epochs": EPOCHS, "images": 32, "batch": 32}  # a step an epoch
    setting = make_setting(load_space("preresnet20-digits"), changes=changes, dense_training="dsd")
    plan = make_plan(setting, METHODS, protocols=HOW, keep=[0.7], seeds=1, controls=False, cap=1.5)
    root = tmp_path_factory.mktemp("runs")
    return plan, root, search(plan, Store(root), lambda: executor("serial", Store(root)))


def test_every_method_is_trained_by_every_protocol(searched: tuple[Plan, Path, Findings]) -> None:
    _, _, findings = searched
    assert findings.problems == ()
    done = {(row.proposer, row.protocol) for row in findings.rows if row.status == "finished"}
    # A branch without its scale is another branch: sss finds shapes and no weights.
    inheriting = {how for how in HOW if protocol(how).weights == "sliced" or "+distill" in how} - {*EQUAL}
    assert done == {(m, how) for m in METHODS for how in HOW if m != "sss" or how not in inheriting}
    assert len(findings.rows) == len(done)


def test_epochs_are_those_of_the_protocol(searched: tuple[Plan, Path, Findings]) -> None:
    plan, _, findings = searched
    space = plan.setting.space
    dense = space.cost(space.dense).macs
    for row in findings.rows:
        ratio = dense / row.reached.macs  # of a masked network the weights that exist
        assert row.masked == (row.proposer == "magnitude")
        assert (
            row.epochs
            == {
                "scratch-e": 4,
                "scratch-b": int(4 * min(ratio, 1.5)),
                "scratch-b+finetune": int(4 * min(ratio, 1.5)) + 1,
                "scratch-b:1.25": int(4 * min(ratio, 1.25)),
                "scratch-b:inf": int(4 * ratio),
                "finetune": 1,
                "finetune-large": 1,
                "finetune+distill": 1,
                "finetune-large+distill=2@0.5:2": 2,
                "scratch-e+distill": 4,
                "ticket+distill:2": 2,
                "scratch=finetune": int(4 * ratio) + 1,
                # A teacher's forward pass is a third of a training step of the dense network.
                "scratch=finetune-large+distill:2": int((4 + 2 / 3) * ratio) + 2,
                "finetune-rewound": 4,
                "ticket": 4,
                "dsd": 6,
                "dsd:0.5": 6,
                "scratch-e:3": 3,
                "finetune:2": 2,
                "finetune-rewound:3": 3,
                "ticket:2": 2,
            }[row.protocol]
        ), row.protocol


def test_what_a_training_is_stands_in_its_job(searched: tuple[Plan, Path, Findings]) -> None:
    _, _, findings = searched
    for row in findings.rows:
        spec = json.loads((Path(row.folder) / "result.json").read_text())["spec"]
        how = protocol(row.protocol)
        # A budget below the recipe's epochs passes through the last epochs of its schedule.
        rewound = {"finetune-rewound:3": EPOCHS}.get(row.protocol, 0)
        assert spec["recipe"].get("rewound", 0) == rewound
        assert spec.get("phases") == how.phases
        assert (spec["inherit"] is None) == (how.weights == "fresh")
        if "+distill" in row.protocol and row.protocol not in EQUAL:
            temperature, weight = (2.0, 0.5) if "=2@0.5" in row.protocol else (4.0, 0.9)
            run = spec["teacher"].pop("run")
            assert spec["teacher"] == {"temperature": temperature, "weight": weight}
            assert json.loads((Path(row.folder).parent / run / "result.json").read_text())["work"] == "train"
            assert how.weights != "sliced" or run == spec["inherit"]["run"]
            assert Path(row.folder).name == f"{row.protocol.partition('+')[0]}+distill-{row.id}"
        else:
            assert "teacher" not in spec
        if how.weights == "sliced":
            assert spec["inherit"]["run"].startswith("dense-")
            rescaled = row.proposer in ("thinet-global", "reconstruction-global")
            assert ("rebuild" in spec["inherit"]) == rescaled
    ids = {(row.id, row.folder) for row in findings.rows}
    assert len({run for run, _ in ids}) == len(ids)  # a run has one folder, whatever asked for it


def test_the_dense_network_is_trained_as_asked_and_as_the_points_are(
    searched: tuple[Plan, Path, Findings],
) -> None:
    plan, _, findings = searched
    tested = {row.protocol: row.epochs for row in findings.dense if row.test_score is not None}
    assert tested == {"scratch-e": 4, "dsd": 6}
    searching = [row for row in findings.dense if row.test_score is None]
    assert {row.protocol for row in searching} == {"dense", "penalty"}
    for row in searching:
        result = json.loads((Path(row.folder) / "result.json").read_text())
        assert (result["spec"]["phases"]["options"], row.epochs) == ({"sparsity": 0.3}, 6)
    plain = make_plan(
        Setting(*(getattr(plan.setting, f) for f in ("space", "recipe", "data", "identity", "images"))),
        METHODS,
        controls=False,
    )
    assert findings.setting != record_of(plain).setting  # no table holds both


def test_the_forecast_counts_them(searched: tuple[Plan, Path, Findings]) -> None:
    plan, _, findings = searched
    repeated = 6 + len(findings.rows) + 2 - findings.trained  # one training that several asked for
    assert forecast(plan).trainings == findings.trained + repeated


def test_factors_decide_what_finetuning_starts_from(searched: tuple[Plan, Path, Findings]) -> None:
    """Without the factors the same job ends in other losses."""
    from prunas.works import train as work

    _, _, findings = searched
    (row,) = (r for r in findings.rows if (r.proposer, r.protocol) == ("thinet-global", "finetune"))
    result = json.loads((Path(row.folder) / "result.json").read_text())
    quiet = {"progress": lambda message: None, "stop": lambda: False}
    folder = Path(row.folder).parent / "again"
    folder.mkdir()
    again = work.run(result["spec"], folder=folder, **quiet)
    assert again is not None
    assert again["losses"] == pytest.approx(result["result"]["losses"])
    inherit = {k: v for k, v in result["spec"]["inherit"].items() if k != "rebuild"}
    plain = work.run(result["spec"] | {"inherit": inherit}, folder=folder, **quiet)
    assert plain is not None
    assert plain["losses"] != pytest.approx(
        again["losses"]
    )  # the tolerance within which the same job repeats


def test_a_killed_training_with_a_teacher_ends_as_one_that_was_not(
    searched: tuple[Plan, Path, Findings],
) -> None:
    from prunas.works import train as work

    _, _, findings = searched
    (row,) = (r for r in findings.rows if (r.proposer, r.protocol) == ("slimming", TAUGHT[1]))
    result = json.loads((Path(row.folder) / "result.json").read_text())
    folder = Path(row.folder).parent / "stopped"
    folder.mkdir()
    told: list[Any] = []
    assert work.run(result["spec"], folder=folder, progress=told.append, stop=lambda: True) is None
    ended = work.run(result["spec"], folder=folder, progress=told.append, stop=lambda: False)
    assert ended is not None
    assert len(told) == 2  # each epoch once
    assert (ended["losses"], ended["score"]) == (result["result"]["losses"], result["result"]["score"])
    alone = {key: value for key, value in result["spec"].items() if key != "teacher"}
    untaught = work.run(alone, folder=folder, progress=told.append, stop=lambda: False)
    assert untaught is not None
    assert untaught["losses"] != pytest.approx(ended["losses"], rel=1e-3)


# The study's numbers


@cache
def of(name: str, epochs: int) -> Setting:
    space = load_space(name)
    return Setting(space, recipe(space.study.recipe).replace(epochs=epochs), "none", "none", {"train+val": 1})


@pytest.mark.parametrize(
    ("name", "preset", "base", "plain", "with_tuning", "uncapped"),
    [  # base * dense MACs / MACs, capped at twice the base on ImageNet; fine-tuning is 40 epochs there and 20 here
        ("vgg16-l1-c10", "VGG-16-A", 160, 243, 283, 243),
        ("resnet56-c10", "ResNet-56-A", 160, 178, 218, 178),
        ("resnet56-c10", "ResNet-56-B", 160, 220, 260, 220),
        ("resnet34-imagenet", "ResNet-34-A", 90, 106, 126, 106),
        ("resnet50-thinet-imagenet", "ResNet50-70%", 90, 141, 161, 141),
        ("resnet50-thinet-imagenet", "ResNet50-30%", 90, 180, 200, 315),  # 5.203 / ... = 3.505 times 90
    ],
)
def test_scratch_b_with_and_without_tuning_and_cap(
    name: str, preset: str, base: int, plain: int, with_tuning: int, uncapped: int
) -> None:
    space, arch = load_point(f"{name}:{preset}")
    epochs = [
        of(name, base).schedule(protocol(how), arch, space.study.cap)[1]
        for how in ("scratch-b", "scratch-b+finetune", "scratch-b:inf", "scratch-b:2")
    ]
    assert epochs == [plain, with_tuning, uncapped, min(uncapped, 2 * base)]


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("vgg16-l1-c10", 40),
        ("vgg19-c10", 40),
        ("vgg19-bias-c10", 40),
        ("resnet34-imagenet", 20),
        ("vgg11-imagenet", 5),
        ("vgg16-bn-imagenet", 10),
        ("resnet50-imagenet", 10),
        ("vgg16-imagenet", 20),  # whose recipe trains at 0.01
    ],
)
def test_fine_tuning_is_as_long_as_the_studys_and_at_its_rate(name: str, epochs: int) -> None:
    """L1 20, slimming 5, unstructured 10 epochs on ImageNet, 40 on CIFAR, all at a constant 0.001."""
    space = load_space(name)
    setting = of(name, recipe(space.study.recipe).epochs)
    tuned, length = setting.schedule(protocol("finetune"), space.dense)
    assert (length, tuned.schedule) == (epochs, "constant")
    assert tuned.lr == pytest.approx(0.001, rel=1e-12)
    assert setting.schedule(protocol("finetune:7"), space.dense)[1] == 7


def test_fine_tuning_is_in_proportion_for_another_recipe() -> None:
    setting = of("resnet34-imagenet", 45)
    assert finetuning(setting.recipe, setting.space) == pytest.approx((10, 0.001))
    halved = Setting(setting.space, setting.recipe.replace(lr=0.05), "none", "none", {"train+val": 1})
    assert finetuning(halved.recipe, halved.space) == pytest.approx((10, 0.0005))


def test_one_cycle_goes_up_to_the_full_rate_and_down_to_zero() -> None:
    setting = of("vgg16-c10", 160)  # fine-tuned for 40 epochs, at 0.1
    large, length = setting.schedule(protocol("finetune-large"), setting.space.dense)
    assert length == large.epochs == setting.schedule(protocol("finetune"), setting.space.dense)[1] == 40
    steps, total, rise = 7, 7 * 40, 28
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    up = torch.optim.lr_scheduler.LinearLR(sgd, 1 / rise, 1.0, rise - 1)
    down = torch.optim.lr_scheduler.LinearLR(sgd, 1.0, 0.0, total - rise)
    scheduler = torch.optim.lr_scheduler.SequentialLR(sgd, [up, down], [rise])
    for step in range(total):
        assert large.lr_at(step, steps, 40) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9)
        sgd.step()
        scheduler.step()
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)
    assert setting.schedule(protocol("finetune-large:7"), setting.space.dense)[1] == 7


@pytest.mark.parametrize(
    "way", ["finetune:20", "finetune-large+distill:20", "finetune-rewound+distill", "ticket"]
)
def test_scratch_at_equal_cost_pays_for_the_dense_network_and_its_teaching(way: str) -> None:
    """The costs of the rows themselves: a dense training and the way, up to one epoch of the smaller network."""
    setting = of("vgg16-c10", 160)
    space = setting.space
    point = Proposal(
        space.target(keep=0.2), uniform(space, space.target(keep=0.2)), kept={}, weights_of="dense-0"
    )
    dense = setting.final(Proposal(point.target, space.dense), protocol("scratch-e"), 0, None, False).macs
    tuned = setting.final(point, protocol(way), 0, None, False)
    scratch = setting.final(point, protocol(f"scratch={way}"), 0, None, False)
    plain = setting.final(point, protocol("scratch-e:1"), 0, None, False).macs
    assert 0 <= dense + tuned.macs - scratch.macs < plain
    assert scratch.job.label == "scratch-b"
    # What a teacher costs: a forward pass of the dense network for each image, a third of a step.
    untaught = setting.final(point, protocol(way.replace("+distill", "")), 0, None, False).macs
    assert tuned.macs - untaught == (tuned.epochs * dense / 160 / 3 if "+distill" in way else 0)
    share = space.cost(point.architecture).macs / space.cost(space.dense).macs
    length = protocol(f"scratch={way}").length(setting.recipe, space, share)
    assert int(length) == scratch.epochs


def test_a_run_is_named_by_its_teacher_and_by_what_it_says() -> None:
    setting = of("vgg16-c10", 160)
    space = setting.space

    def run(how: str, dense: str = "dense-0") -> str:
        point = Proposal(space.target(keep=1.0), space.dense, kept={}, weights_of=dense)
        return setting.final(point, protocol(how), 0, None, False).job.name

    ways = ("scratch-e", "scratch-e+distill", "scratch-e+distill=2", "scratch-e+distill=4@0.5")
    assert len({*map(run, ways), run("scratch-e+distill", "dense-1")}) == 5
    assert run("scratch-e", "dense-1") == run("scratch-e")
    assert run("scratch-e+distill=4@0.9") == run("scratch-e+distill") == run("scratch-b+distill")
    assert run("scratch-e+distill").startswith("scratch-e+distill-")


def test_a_point_without_a_dense_network_has_no_teacher() -> None:
    setting = of("vgg16-c10", 160)
    point = Proposal(setting.space.target(keep=1.0), setting.space.dense)
    assert not protocol("scratch-e+distill").serves(point)
    with pytest.raises(
        InputError, match=r"'scratch-e\+distill' has the dense network teach, and this point comes"
    ):
        setting.final(point, protocol("scratch-e+distill"), 0, None, False)
    plan = make_setting(load_space("vgg11-digits"))
    with pytest.raises(InputError, match="'tpe' proposes shapes without the weights"):
        make_plan(plan, ["tpe"], protocols=["scratch-e+distill"], controls=False)
    with pytest.raises(InputError, match="dense network cannot be trained by 'scratch-e\\+distill'"):
        make_setting(load_space("vgg11-digits"), dense_training="scratch-e+distill")


def test_scratch_b_counts_the_weights_that_exist() -> None:
    from prunas.designs import kernels

    space = load_space("vgg16-c10")
    arch = kernels.uniform_kernels(space, Target("macs", space.cost(space.dense).macs // 5), 0)
    cost = space.cost(arch)
    assert cost.dense_macs == space.cost(space.dense).macs
    assert of("vgg16-c10", 160).schedule(protocol("scratch-b"), arch)[1] == pytest.approx(800, abs=4)


def test_the_same_training_has_one_name() -> None:
    space = load_space("vgg16-c10")
    setting, whole = of("vgg16-c10", 160), Proposal(space.target(keep=1.0), space.dense)
    jobs = [setting.final(whole, protocol(how), 0, None, False).job for how in ("scratch-e", "scratch-b")]
    assert jobs[0].name == jobs[1].name


@pytest.mark.parametrize("how", ["finetune", "scratch-b", "ticket"])
def test_a_dense_training_needs_no_dense_training(how: str) -> None:
    with pytest.raises(InputError, match=f"dense network cannot be trained by '{how}'; use scratch-e or dsd"):
        make_setting(load_space("vgg11-digits"), dense_training=how)


@pytest.mark.parametrize("cap", [0.5, float("inf"), float("nan")])
def test_a_cap_that_cannot_be_meant_is_refused(searched: tuple[Plan, Path, Findings], cap: float) -> None:
    with pytest.raises(InputError, match=r"--cap must be 1 or more, not .*scratch-b:inf"):
        make_plan(searched[0].setting, ["uniform"], cap=cap)


def test_a_masked_network_starts_from_its_mask(searched: tuple[Plan, Path, Findings]) -> None:
    """Of a mask, fine-tuning keeps the dense weights that exist and scratch draws its own."""
    from prunas.surgery.masks import kernel_masks
    from prunas.works.runtime import weights

    plan, root, findings = searched
    (point,) = findings.points["magnitude"]
    space = plan.setting.space
    dense = weights(root / space.name / str(point.weights_of))
    net = space.build(point.architecture, dense, point.kept)
    for name, mask in kernel_masks(space.survey, point.architecture).items():
        assert torch.equal(net.get_parameter(name), dense[name] * torch.as_tensor(mask))
