import dataclasses
import math
import re

import pytest
import torch

from prunas.errors import InputError
from prunas.protocols import PROTOCOLS, is_fresh, is_reference, protocol, untaught
from prunas.recipe import RECIPES, Recipe, recipe, scratch_b_epochs


@pytest.mark.parametrize(
    ("name", "epochs", "drops"),
    [
        ("paper", 160, (80, 120)),
        ("paper", 243, (121, 182)),  # Scratch-B of VGG-16-A: int(50 %), int(75 %)
        ("imagenet", 90, (30, 60)),
        ("imagenet", 106, (35, 70, 105)),  # Scratch-B of ResNet-34-A has an odd last epoch at a fourth rate
        ("sss", 100, (30, 60, 90)),
    ],
)
def test_step_schedules_drop_where_the_study_drops(name, epochs, drops):
    chosen, steps = recipe(name), 7
    rates = [chosen.lr_at(step, steps, epochs) for step in range(epochs * steps)]
    changes = [step for step in range(1, len(rates)) if rates[step] != rates[step - 1]]
    assert changes == [drop * steps for drop in drops]
    for k, start in enumerate((0, *changes)):
        assert rates[start] == pytest.approx(chosen.lr * 0.1**k, rel=1e-12)
    assert chosen.drops(epochs) == drops


def test_thirds_of_any_length_are_whole_epochs_in_spite_of_rounding():
    for epochs in range(3, 400):
        assert recipe("imagenet").drops(epochs)[0] == epochs // 3


def test_one_cycle_is_two_straight_lines():
    chosen = Recipe(name="x", epochs=10, batch=1, lr=0.8, schedule="one-cycle", warmup=0.25)
    rates = [chosen.lr_at(step, 4, 10) for step in range(40)]
    assert rates[:10] == pytest.approx([0.08 * k for k in range(1, 11)])
    assert rates[10:] == pytest.approx([0.8 * k / 30 for k in range(30, 0, -1)])


def test_cosine_is_torchs_after_a_straight_rise():
    chosen = Recipe(name="x", epochs=10, batch=1, lr=0.8, schedule="cosine", warmup=0.25)
    rates = [chosen.lr_at(step, 4, 10) for step in range(40)]
    assert rates[:10] == pytest.approx([0.08 * k for k in range(1, 11)])
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=30)
    expected = []
    for _ in range(30):
        expected.append(fall.get_last_lr()[0])
        optimiser.step()
        fall.step()
    assert rates[10:] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["paper", "short", "imagenet"])
def test_a_rewound_schedule_is_the_end_of_the_whole_one(name):
    """Renda et al. 2020: retraining for t epochs has the learning rates of the last t epochs of training."""
    chosen, steps = recipe(name), 5
    whole = [chosen.lr_at(step, steps, chosen.epochs) for step in range(chosen.epochs * steps)]
    rewound = chosen.replace(rewound=chosen.epochs)
    for epochs in (1, 7, chosen.epochs - 1, chosen.epochs):
        rates = [rewound.lr_at(step, steps, epochs) for step in range(epochs * steps)]
        assert rates == whole[-epochs * steps :]
    beyond = chosen.epochs + 10  # the paper knows none: a schedule of that length
    assert rewound.lr_at(3, steps, beyond) == chosen.lr_at(3, steps, beyond)
    with pytest.raises(InputError, match=r"rewound must be a whole number from 0 .*, not -1"):
        chosen.replace(rewound=-1)


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_linear_is_torchs_after_a_straight_rise(warmup):
    chosen = Recipe(name="x", epochs=10, batch=1, lr=0.8, schedule="linear", warmup=warmup)
    rates = [chosen.lr_at(step, 4, 10) for step in range(40)]
    rise = int(40 * warmup)
    assert rates[:rise] == pytest.approx([0.8 * k / rise for k in range(1, rise + 1)])
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    fall = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=40 - rise)
    expected = []
    for _ in range(40 - rise):
        expected.append(fall.get_last_lr()[0])
        optimiser.step()
        fall.step()
    assert rates[rise:] == pytest.approx(expected)
    straight = [chosen.replace(schedule="one-cycle").lr_at(step, 4, 10) for step in range(40)]
    assert (rates == straight) is (warmup > 0)


@pytest.mark.parametrize("schedule", ["step", "constant"])
def test_a_warm_up_in_epochs_is_torchs(schedule):
    chosen = recipe("paper").replace(schedule=schedule, warmup_epochs=2.5)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    rise = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / 10, 1.0, total_iters=9)  # 2.5 epochs of 4 steps
    drops = torch.optim.lr_scheduler.MultiStepLR(optimiser, [20, 28] if schedule == "step" else [], 0.1)
    expected = []
    for _ in range(40):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        rise.step()
        drops.step()
    assert [chosen.lr_at(step, 4, 10) for step in range(40)] == pytest.approx(expected)


def test_fast_is_the_recommended_recipe():
    """Linear up over a fifth of the steps and to zero, the rate in proportion to the batch."""
    fast, gpu = recipe("fast"), recipe("fast-gpu")
    rates = [fast.lr_at(step, 391, 15) for step in range(391 * 15)]
    assert rates.index(max(rates)) == 391 * 3 - 1
    assert (max(rates), rates[0]) == pytest.approx((0.2, 0.2 / 1173))
    assert rates[-1] == pytest.approx(0.2 / (391 * 12))
    assert fast.lr / fast.batch == gpu.lr / gpu.batch
    assert gpu.replace(batch=fast.batch, lr=fast.lr).identity == fast.identity


def test_labels_are_smoothed_by_the_size_of_the_dense_network():
    fast = recipe("fast")
    small, large = fast.settled(299_999), fast.settled(300_000)
    assert (small.label_smoothing, large.label_smoothing) == (0.0, 0.1)
    assert small.label_smoothing_from == large.label_smoothing_from == 0
    assert large.identity == fast.replace(label_smoothing_from=0).identity
    for name in RECIPES:
        assert recipe(name).settled(1).settled(10**9) == recipe(name).settled(1)
    assert recipe("paper").replace(label_smoothing=0.1).settled(1).label_smoothing == 0.1


def test_constant_stays():
    chosen = recipe("paper").replace(schedule="constant", lr=0.001)
    assert {chosen.lr_at(step, 3, 40) for step in range(120)} == {0.001}


def test_lr_sum_of_the_study_gives_the_pull_of_its_penalty():
    # lambda * sum(lr) / (1 - momentum) = 6.6 for lambda 1e-4 and 782 steps an epoch.
    assert 1e-4 * recipe("paper").lr_sum(782, 160) / 0.1 == pytest.approx(6.6, abs=0.01)


def test_name_is_not_identity_and_everything_else_is():
    paper = recipe("paper")
    assert paper.replace(name="mine").identity == paper.identity
    changes = {
        "epochs": 1, "batch": 1, "lr": 1.0, "schedule": "constant", "milestones": (0.4,), "every": 0.5,
        "gamma": 0.5, "warmup": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.0, "augment": False,
        "precision": "bf16", "channels_last": True, "images": 10,
    }  # fmt: skip
    assert {"name", *changes} == set(paper.to_json())
    assert "rewound" not in paper.to_json()  # born later: at 0 it leaves the names of runs alone
    later = {
        "rewound": 160, "fused": False, "optimizer": "adamw", "label_smoothing": 0.1, "label_smoothing_from": 9,
        "decay_norms": False, "flip": "alternating", "warmup_epochs": 5, "clip": 1.0, "ema": 0.5,
        "mixup": 0.2, "cutmix": 1.0, "transforms": ["AutoAugment", {"name": "RandAugment", "magnitude": 7}],
    }  # fmt: skip
    assert {*changes, *later, "name"} == {spec.name for spec in dataclasses.fields(Recipe)}
    assert not later.keys() & paper.to_json().keys()
    identities = {paper.replace(**{name: value}).identity for name, value in later.items()}
    assert len({paper.identity, *identities}) == len(later) + 1
    identities = {paper.replace(**{name: value}).identity for name, value in changes.items()}
    assert len({paper.identity, *identities}) == len(changes) + 1


def test_identity_of_the_study_recipe_is_frozen():
    known = {
        "paper": "454cce8288c8",
        "short": "bdd99b819b8d",
        "imagenet": "9cf7e6f7b743",
        "imagenet-vgg": "ca5a57ac0d4b",
        "sss": "a68d22c5ad62",
        "tiny": "c1cbdcc11081",
        "digits": "85d9b7d3d831",
        "fast": "422b8cc77d41",
        "fast-gpu": "edb4cddaaa9e",
    }  # moving these orphans stored runs
    assert {name: recipe(name).identity for name in known} == known


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name):
    averaged = {"optimizer": "adamw", "nesterov": False, "label_smoothing": 0.1, "schedule": "linear"}
    listed = {"transforms": ["AutoAugment", {"name": "RandAugment", "magnitude": 7}], "milestones": [0.25]}
    for made in (
        recipe(name),
        recipe(name).replace(rewound=3),
        recipe(name).replace(**averaged),
        recipe(name).replace(**listed),
    ):
        assert Recipe.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: recipe("papre"), "did you mean paper"),
        (lambda: recipe("paper").replace(epoch=3), "did you mean epochs"),
        (lambda: Recipe.from_json({"name": "x", "rate": 3}), "unknown recipe setting 'rate'"),
        (lambda: recipe("paper").replace(batch=0), "batch must be a whole number above 0, not 0"),
        (lambda: recipe("paper").replace(milestones=(1.5,)), "between 0 and 1"),
        (lambda: recipe("paper").replace(milestones=0.5), "between 0 and 1"),
        (lambda: recipe("paper").replace(optimizer="adamv"), "unknown optimizer 'adamv'; did you mean adamw"),
        (
            lambda: recipe("paper").replace(schedule="linaer"),
            "unknown schedule 'linaer'; did you mean linear",
        ),
        (
            lambda: recipe("paper").replace(label_smoothing=1),
            "label_smoothing must be at least 0 and below 1",
        ),
        (
            lambda: recipe("paper").replace(flip="alternate"),
            "unknown flip 'alternate'; did you mean alternating",
        ),
        (lambda: recipe("paper").replace(decay_norms=0), "decay_norms must be true or false, not 0"),
        (
            lambda: recipe("short").replace(warmup_epochs=5),
            "one-cycle rises for a share of the steps; set warmup instead",
        ),
        (lambda: recipe("paper").replace(ema=1), "ema must be at least 0 and below 1, not 1"),
        (
            lambda: recipe("paper").replace(clip=-1),
            r"clip must be a finite number from 0 \(no limit\), not -1",
        ),
        (lambda: recipe("paper").replace(mixup=math.inf), r"mixup must be a finite number from 0 \(none\)"),
        (lambda: recipe("paper").replace(transforms="AutoAugment"), "transforms is a list of names"),
        (lambda: recipe("paper").replace(transforms=[{"magnitude": 7}]), "or tables with a name"),
        (lambda: recipe("sss").replace(optimizer="adamw"), "only the optimizer sgd has nesterov"),
        (lambda: recipe("paper").replace(images=-1), "images must be a whole number from 0"),
        (lambda: protocol("scratch-c"), "did you mean scratch-e, scratch-b, scratch-b"),
        (
            lambda: protocol("scratch-e:1.5"),
            "'scratch-e:1.5': its number must be whole epochs, as in scratch-e:20",
        ),
        (lambda: protocol("scratch-b:0.5"), "a cap of 1 or more"),
        (lambda: protocol("scratch-b:two"), "a cap of 1 or more"),
        (lambda: protocol("finetune:0"), "whole epochs"),
        (lambda: protocol("finetune:inf"), "whole epochs"),
        (lambda: protocol("dsd:1"), "a share of weights, as in dsd:0.5"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    ("epochs", "dense", "pruned", "cap", "expected"),
    [  # 1e5 MACs of the study's networks and the lengths its scripts compute
        (160, 3132, 2061, None, 243),  # VGG-16-A
        (160, 1255, 1124, None, 178),  # ResNet-56-A
        (160, 1255, 909, None, 220),  # ResNet-56-B
        (160, 2529, 2128, None, 190),  # ResNet-110-A
        (160, 2529, 1551, None, 260),  # ResNet-110-B
        (90, 36440, 30800, 2.0, 106),  # ResNet-34-A
        (90, 36440, 27630, 2.0, 118),  # ResNet-34-B
        (90, 81780, 23330, 2.0, 180),  # ThiNet ResNet50-30%, capped
    ],
)
def test_scratch_b_epochs_of_the_study(epochs, dense, pruned, cap, expected):
    assert scratch_b_epochs(epochs, dense, pruned, cap) == expected


def test_protocols_are_named_as_typed():
    assert [each.name for each in PROTOCOLS.values()] == list(PROTOCOLS)


def test_a_protocol_may_carry_a_number():
    assert (protocol("scratch-b:2").name, protocol("scratch-b:2").cap) == ("scratch-b:2", 2.0)
    assert protocol("scratch-b+finetune:inf").cap == float("inf")
    assert (protocol("dsd").sparsity, protocol("dsd:0.50").sparsity) == (0.3, 0.5)
    assert protocol("dsd:0.50").name == "dsd:0.5"
    for name in ("scratch-e:20", "finetune:20", "finetune-rewound:20", "ticket:20"):
        assert (protocol(name).name, protocol(name).epochs) == (name, 20)
        assert protocol(name).family == name.removesuffix(":20")


@pytest.mark.parametrize(
    ("typed", "name", "teacher", "epochs"),
    [
        ("finetune-large+distill", "finetune-large+distill", (4.0, 0.9), None),
        ("finetune+distill=4@0.9:20", "finetune+distill:20", (4.0, 0.9), 20),
        ("finetune-rewound+distill=2:5", "finetune-rewound+distill=2@0.9:5", (2.0, 0.9), 5),
        ("scratch-e+distill=1.50@1", "scratch-e+distill=1.5@1", (1.5, 1.0), None),
        ("scratch-b+finetune+distill:2", "scratch-b+finetune+distill:2", (4.0, 0.9), None),
    ],
)
def test_a_protocol_may_have_a_teacher(typed, name, teacher, epochs):
    how = protocol(typed)
    assert (how.name, how.epochs) == (name, epochs)
    assert (how.teacher.temperature, how.teacher.weight) == teacher
    assert protocol(how.name) == how
    assert is_fresh(name) == name.startswith("scratch") and not is_reference(name)
    assert untaught(name) == name.partition("+distill")[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("finetune+distill=0", "the temperature of +distill must be above 0, not 0"),
        ("finetune+distill=nan", "the temperature of +distill must be above 0, not nan"),
        ("finetune+distill=4@0", "the weight of +distill must be above 0 and at most 1, not 0"),
        ("finetune+distill=4@nan", "the weight of +distill must be above 0 and at most 1, not nan"),
        ("finetune+distill=hot", "as in +distill=4@0.9"),
        ("finetune+distill=4@0.9@1", "as in +distill=4@0.9"),
        ("finetune+distilled", "as in +distill=4@0.9"),
        ("finetune-large:0.5", "its number must be whole epochs, as in finetune-large:20"),
        ("finetune-larg+distill", "finetune-large"),
        (
            "scratch=scratch-e:5",
            "scratch-e:5 inherits no weights; name a way that does, such as scratch=finetune-large",
        ),
        ("scratch=finetun", "finetune"),
    ],
)
def test_a_teacher_or_cost_that_cannot_be_meant_is_refused(name, reason):
    with pytest.raises(InputError, match=re.escape(reason)):
        protocol(name)


NUMBERS = ("epochs", "batch", "lr", "every", "gamma", "warmup", "momentum", "weight_decay", "images")


@pytest.mark.parametrize("name", [*NUMBERS, "rewound", "label_smoothing"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, "0.1", True, None, 10**400])
def test_every_number_is_finite_and_in_its_range(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"recipe 'paper': {name} must be "):
        recipe("paper").replace(**{name: value})


def test_every_number_of_a_recipe_has_a_range() -> None:
    numbers = {key for key, value in recipe("paper").to_json().items() if type(value) in (int, float)}
    assert numbers == set(NUMBERS)
