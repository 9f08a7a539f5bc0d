"""Forms in which people keep trained weights: enumerations, state dicts in memory, prefixes, old checkpoints."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from prunas.errors import InputError
from prunas.spaces.load import load_space
from prunas.surgery.given import Weights, fitted_state
from tests.works.test_given import SPACE, network


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        return dict(network().state_dict())


class Member:
    """A member of an enumeration of weights, as torchvision has them, without a network behind it."""

    def get_state_dict(self, *, progress: bool, check_hash: bool, weights_only: bool) -> dict[str, Tensor]:
        assert (progress, check_hash, weights_only) == (False, True, True)
        return dict(network().state_dict())


class Digits_Weights:  # torchvision calls them so
    """Such an enumeration."""

    MINE_V1 = Member()


def test_a_member_of_an_enumeration_gives_weights(state: dict[str, Tensor]) -> None:
    named = Weights.of(f"{__name__}:Digits_Weights.MINE_V1")
    assert (named.kind, named.name) == ("call", f"{__name__}:Digits_Weights.MINE_V1")
    assert named.sha256 == Weights.of(f"call:{__name__}:network").sha256
    assert all(torch.equal(t, state[n]) for n, t in fitted_state(named, state)[0].items())


def test_a_state_dict_in_memory_is_found_by_every_process(state: dict[str, Tensor], tmp_path: Path) -> None:
    given = Weights.of(state)
    assert given == Weights.of(network())
    assert given.path is not None
    assert given == Weights.of(given.path)
    safetensors.torch.save_file(state, file := tmp_path / "mine.safetensors")
    assert given.path.read_bytes() == file.read_bytes()
    given.path.write_bytes(b"damaged")
    assert all(torch.equal(t, state[n]) for n, t in fitted_state(Weights.of(state), state)[0].items())
    with pytest.raises(InputError, match="a state dict is needed, not a int"):
        Weights.of(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("model.", {"loss.weight": torch.ones(10)}),  # a LightningModule and its loss
        ("module.", {"n_averaged": torch.tensor(3)}),  # torch.optim.swa_utils.AveragedModel
        ("_orig_mod.module.", {}),  # torch.compile over DataParallel
        ("student.backbone.", {"head.weight": torch.ones(3)}),
    ],
)
def test_names_behind_a_prefix_are_read_and_said(
    prefix: str, others: dict[str, Tensor], state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(
        {"state_dict": {prefix + n: t for n, t in state.items()} | others}, file := tmp_path / "mine.ckpt"
    )
    fitted, notes = fitted_state(Weights.of(file), state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in fitted.items())
    assert notes[:2] == (
        "the weights are those under 'state_dict' in mine.ckpt",
        f"the prefix {prefix!r} of all names in mine.ckpt was left out",
    )
    left = f"mine.ckpt holds more than the network, which was left out: {next(iter(others), '')}"
    assert notes[2:] == ((left,) if others else ())


def test_a_network_that_is_there_twice_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    twice = {prefix + name: tensor for name, tensor in state.items() for prefix in ("model.", "teacher.")}
    torch.save(twice, file := tmp_path / "mine.ckpt")
    with pytest.raises(InputError, match=r"holds the network under 'model\.', 'teacher\.'; write the one"):
        fitted_state(Weights.of(file), state)


def test_of_several_state_dicts_the_one_taken_is_said(state: dict[str, Tensor], tmp_path: Path) -> None:
    averaged = {name: tensor * 0 for name, tensor in state.items()}
    torch.save({"ema": averaged, "net": state}, file := tmp_path / "mine.pth")
    fitted, notes = fitted_state(Weights.of(file), state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in fitted.items())
    assert notes == ("the weights are those under 'net' in mine.pth, not those under 'ema'",)


def test_checkpoints_without_counters_of_batches_are_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    torch.save({f"net.{name}": tensor for name, tensor in old.items()}, file := tmp_path / "old.pth")
    fitted, notes = fitted_state(Weights.of(file), load_space(SPACE).build().state_dict())
    assert all(torch.equal(fitted[name], tensor) for name, tensor in old.items())
    assert all(int(fitted[name]) == 0 for name in state.keys() - old.keys())
    assert any(note.startswith("old.pth has no num_batches_tracked") for note in notes)
    name = next(iter(old))
    torch.save({key: tensor for key, tensor in old.items() if key != name}, file)
    with pytest.raises(InputError, match=f"it lacks {name}, "):
        fitted_state(Weights.of(file), state)
