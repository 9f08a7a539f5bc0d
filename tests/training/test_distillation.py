"""A trained network as teacher: the formula, whom the student believes, and that a kill changes nothing."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prunas.errors import InputError
from prunas.tasks.classification import Classification
from prunas.tasks.distillation import softened_divergence
from prunas.training.distillation import Teacher
from prunas.training.loop import Preempted, train
from tests.training.test_loop import (
    CPU,
    RECIPE,
    Double,
    Pull,
    counted,
    data,
    logged,
    network,
    resumable,
    run,
    same,
)


def scores(*shape, seed=0):
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 2.5, 20.0])
def test_the_formula_is_that_of_torch_and_of_the_paper(temperature):
    student, teacher = scores(7, 4), scores(7, 4, seed=1)
    ours = softened_divergence(student, teacher, temperature)
    soft = F.softmax(teacher / temperature, 1)
    theirs = F.kl_div(F.log_softmax(student / temperature, 1), soft, reduction="batchmean")
    torch.testing.assert_close(ours, temperature**2 * theirs, rtol=1e-12, atol=0.0)
    # Hinton et al., equation 2: the gradient of one score is (q - p) / T before the factor of T^2.
    (gradient,) = torch.autograd.grad(
        softened_divergence(student.requires_grad_(), teacher, temperature), student
    )
    expected = temperature * (F.softmax(student.detach() / temperature, 1) - soft) / len(student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


def test_maps_of_scores_are_compared_position_by_position():
    student, teacher = scores(2, 5, 3, 4), scores(2, 5, 3, 4, seed=1)
    flat = [each.permute(0, 2, 3, 1).reshape(-1, 5) for each in (student, teacher)]
    torch.testing.assert_close(softened_divergence(student, teacher, 4.0), softened_divergence(*flat, 4.0))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_agrees_with_a_plain_pytorch_loop(smoothing):
    recipe = RECIPE.replace(schedule="constant", lr=0.125, momentum=0.0, weight_decay=0.0, fused=False)
    images, recipe = data(kind=Double), recipe.replace(label_smoothing=smoothing)
    ours, net, teacher = network().double(), network().double(), network(seed=3, dropout=0.5).double()
    run(ours, recipe, images, epochs=2, teacher=Teacher(teacher.train(), 3.0, 0.75))
    teacher.eval()
    sgd = torch.optim.SGD(net.parameters(), 0.125)
    for epoch in range(2):
        for x, y in images.batches("train", 8, device=CPU, seed=1, epoch=epoch, augment=True):
            output = net(x)
            soft = F.softmax(teacher(x).detach() / 3, 1)
            taught = F.kl_div(F.log_softmax(output / 3, 1), soft, reduction="batchmean")
            loss = 0.25 * F.cross_entropy(output, y, label_smoothing=smoothing) + 0.75 * 9 * taught
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-11)


def believed(weight):
    """How many of 300 images a student of noisy labels sees as its teacher does, who knows."""
    known = data(600)
    taught = network()
    run(taught, RECIPE.replace(lr=0.05), known, epochs=30)
    noisy = data(600)
    object.__setattr__(noisy, "labels", np.random.default_rng(1).integers(0, 3, 600))
    student = network(seed=1)
    teacher = Teacher(taught, 4.0, weight) if weight else None
    run(student, RECIPE.replace(lr=0.05), noisy, epochs=30, teacher=teacher)
    (x, _), *_ = known.batches("test", 300, device=CPU)
    return int((student.eval()(x).argmax(1) == taught.eval()(x).argmax(1)).sum()), len(x)


def test_a_student_of_noisy_labels_follows_a_teacher_who_knows():
    followed, images = believed(1.0)
    alone, _ = believed(0.0)
    assert followed > 0.95 * images
    assert alone < 0.7 * images


def test_the_teacher_learns_nothing():
    net, before = network(seed=3), network(seed=3)
    run(network(), teacher=Teacher(net, 4.0, 0.9))
    assert same(net, before)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("at", [1, 8, 15])
def test_a_stopped_training_continues_to_the_same_bits(tmp_path, at):
    def teacher():
        return Teacher(network(seed=3), 4.0, 0.9)

    asked = itertools.count(1)
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    alone.mkdir()
    stopped.mkdir()
    undisturbed, net = network(dropout=0.5), network(seed=9, dropout=0.5)
    trained = resumable(alone, undisturbed, teacher=teacher())
    with pytest.raises(Preempted, match=f"after {at} of 18 steps"):
        resumable(stopped, network(dropout=0.5), teacher=teacher(), stop=lambda: next(asked) == at)
    pull = Pull()
    continued = resumable(stopped, net, teacher=teacher(), regulariser=pull)
    assert pull.calls.count("gradients") == 18 - at  # it did continue
    assert same(net, undisturbed)
    assert counted(continued) == counted(trained)
    assert logged(stopped) == logged(alone)


@pytest.mark.parametrize(("temperature", "weight", "steps"), [(4.0, 0.9, 10), (2.0, 0.9, 18), (4.0, 0.5, 18)])
def test_a_checkpoint_of_another_teaching_is_not_continued(tmp_path, temperature, weight, steps):
    asked, pull = itertools.count(1), Pull()
    with pytest.raises(Preempted):
        resumable(tmp_path, network(), teacher=Teacher(network(3), 4.0, 0.9), stop=lambda: next(asked) == 8)
    resumable(tmp_path, network(), teacher=Teacher(network(3), temperature, weight), regulariser=pull)
    assert pull.calls.count("gradients") == steps


def test_a_task_that_cannot_be_taught_is_refused_in_one_line():
    class Labels(Classification):
        distillation_loss = None

    task = Labels(data())
    with pytest.raises(InputError, match=r"without \+distill, or give the task distillation_loss"):
        train(
            network(), task, RECIPE, epochs=1, seed=0, split="train", score=None, device=CPU,
            teacher=Teacher(network(), 4.0, 0.9),
        )  # fmt: skip
