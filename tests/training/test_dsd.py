"""Dense-sparse-dense training: what holds in each phase, and that it continues in the middle of one."""

import json

import pytest
import torch
from torch import nn

from prunas.data import load
from prunas.recipe import Recipe, recipe
from prunas.tasks.classification import Classification
from prunas.training.hooks import Regulariser
from prunas.training.loop import Preempted, train
from prunas.training.phases import DenseSparseDense

CPU = torch.device("cpu")
RECIPE = Recipe(name="test", epochs=99, batch=64, lr=0.1, images=320, weight_decay=1e-3)
EPOCHS, STEPS = 6, 5  # four dense epochs, a sparse one, a dense one again


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 5, 3),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(180, 10),
        )


class Watch(Regulariser):
    """Looks at the weights after every step, masks applied or not."""

    def attach(self, net):
        self.net, self.zeros, self.seen = net, [], []

    def gradients(self):
        # Before the update: what the masks left after the step before.
        weights = {"0": self.net[0].weight, "5": self.net[5].weight}
        self.seen.append({name: w.detach().clone() for name, w in weights.items()})
        self.zeros.append({name: int((w == 0).sum()) for name, w in weights.items()})


def run(net, watch, folder=None, stop=None, masks=None, recipe=RECIPE, sparsity=0.3):
    return train(
        net, Classification(load("digits")), recipe, epochs=EPOCHS, seed=0, split="train", score=None, device=CPU,
        regulariser=watch, phases=DenseSparseDense(sparsity), folder=folder, stop=stop, masks=masks,
    )  # fmt: skip


def test_the_smallest_weights_of_each_layer_are_zero_in_the_middle_phase_and_free_after(tmp_path):
    watch = Watch()
    run(network(), watch, tmp_path)
    assert watch.zeros[: 4 * STEPS] == [{"0": 0, "5": 0}] * (4 * STEPS)
    assert watch.zeros[4 * STEPS : 5 * STEPS] == [{"0": 13, "5": 540}] * STEPS  # int(0.3 * 45), 0.3 * 1800
    # The masks are lifted before the first step of the last phase, which starts from zero.
    assert watch.zeros[5 * STEPS] == {"0": 13, "5": 540}
    assert watch.zeros[5 * STEPS + 1 :] == [{"0": 0, "5": 0}] * (STEPS - 1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["dense"] * 4 + ["sparse", "re-dense"]
    # A constant tenth, then hundredth, after a whole schedule of four epochs.
    assert [line["lr"] for line in lines] == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.01, 0.001])


def test_planted_small_weights_go_and_a_shuffled_choice_would_not_pass():
    net = network()
    small = torch.rand(10, 180, generator=torch.Generator().manual_seed(3)) < 0.3
    with torch.no_grad():
        net[5].weight[:] = torch.where(small, 0.001, 1.0)
    watch = Watch()
    share = int(small.sum()) / 1800 + 1e-6
    run(net, watch, recipe=RECIPE.replace(lr=1e-6, weight_decay=0.0), sparsity=share)
    gone = watch.seen[4 * STEPS]["5"] == 0
    assert torch.equal(gone, small)


def test_what_a_network_never_had_does_not_come_back():
    net, watch = network(), Watch()
    mask = (torch.arange(1800).view(10, 180) % 2).float()
    run(net, watch, masks={"5.weight": mask})
    assert watch.zeros[4 * STEPS]["5"] == 900 + 270  # 30 % of the weights that exist
    assert torch.equal(net[5].weight != 0, mask.bool())


@pytest.mark.parametrize("at", [4 * STEPS, 4 * STEPS + 2, 5 * STEPS, 5 * STEPS + 3])
def test_it_continues_in_the_middle_of_a_phase_to_the_same_bits(tmp_path, at):
    whole = network()
    run(whole, Watch(), tmp_path / "whole")
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked == at

    with pytest.raises(Preempted, match=f"after {at} of 30 steps"):
        run(network(), Watch(), tmp_path / "halves", stop=stop)
    net, watch = network(), Watch()
    run(net, watch, tmp_path / "halves")
    assert len(watch.zeros) == 30 - at
    assert all(torch.equal(net.state_dict()[k], v) for k, v in whole.state_dict().items())


def test_dense_sparse_dense_is_a_whole_schedule_and_two_quarters():
    made, paper = DenseSparseDense(0.3), recipe("paper")
    assert made.starts(240) == (160, 200)
    rates = [made.lr_at(paper, epoch, 1, 240) for epoch in range(240)]
    assert rates[:160] == pytest.approx([0.1] * 80 + [0.01] * 40 + [0.001] * 40)
    assert rates[160:] == pytest.approx([0.01] * 40 + [0.001] * 40)
    for epochs in range(1, 100):  # any length: K + 2 * (a quarter of K, or 1)
        quarter = max(1, epochs // 4)
        assert made.starts(epochs + 2 * quarter) == (epochs, epochs + quarter)
