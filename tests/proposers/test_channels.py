import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.pruning import responses
from prunas.proposers.pruning.channels import (
    allocated,
    at_given_widths,
    by_unit,
    capped,
    in_order_of,
    parts,
    readers,
    threshold,
    weighing,
)
from prunas.proposers.pruning.responses import Sampling, contributions, errors, grams
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.survey import Span


def test_parts_and_units_of_a_form():
    form = (Span(-1, 0, 1, 1), Span(0, 0, 2, 2), Span(1, 0, 1, 1), Span(0, 1, 2, 1))
    channels = np.arange(8.0)
    assert [part.tolist() for _, part in parts(form, channels)] == [
        [[0]],
        [[1, 2], [3, 4]],
        [[5]],
        [[6], [7]],
    ]
    assert by_unit(form, 0, 3, channels).tolist() == [1 + 2, 3 + 4 + 6, 7]
    assert by_unit(form, 1, 1, np.stack([channels, 2 * channels])).tolist() == [[5], [10]]


def test_a_threshold_meets_the_budget_and_the_next_lower_one_does_not(spaces):
    space = spaces["streams"]
    generator = np.random.default_rng(0)
    scores = capped(space, [generator.random(d.dense) for d in space.dimensions])
    target = space.target(keep=0.3)
    counts, floored = threshold(space, scores, target, "test")
    assert not floored
    assert space.measures(counts, "params")[0] <= target.value
    # By brute force: every score as a threshold.
    fitting = [
        limit
        for limit in np.unique(np.concatenate(scores))
        if space.measures([max(1, (s > limit).sum()) for s in scores], "params")[0] <= target.value
    ]
    assert counts.tolist() == [int((s > min(fitting)).sum()) for s in scores]


def test_a_gated_channel_goes_with_its_stream(spaces):
    space = spaces["stemmed"]
    scores = [np.full(d.dense, 0.8) for d in space.dimensions]
    stream = next(i for i, d in enumerate(space.dimensions) if (d.name, d.kind) == ("stem", "group"))
    scores[stream][3] = 0.1
    for d, score in zip(space.dimensions, capped(space, scores), strict=True):
        expected = [0.8] * d.dense
        if d.kind == "gate" or d.name == "stem":
            expected[3] = 0.1
        assert score.tolist() == expected
    assert scores[-1].tolist() == [0.8] * space.dimensions[-1].dense  # the given ones are left alone


def test_a_floor_that_held_is_flagged_and_an_impossible_target_refused(spaces, brief):
    space = spaces["vgg"]
    scores = [np.full(d.dense, 1.0) + i for i, d in enumerate(space.dimensions)]
    scores[2] = np.linspace(0, 0.1, space.dimensions[2].dense)
    told = brief(space, targets=(space.target(keep=0.5), space.target(keep=0.02)))
    first, second = allocated(told, scores, in_order_of(scores), "run", "test")
    assert "floor" in first.flags and "floor" in second.flags
    assert first.kept["features.8"] == (63,)
    with pytest.raises(InputError, match="test cannot meet 10 of params in space 'vgg11-digits'"):
        allocated(brief(space, targets=(Target("params", 10),)), scores, in_order_of(scores), "run", "test")


def test_a_presets_removed_blocks_stay_removed(brief):
    space = load_space("resnet56-c10")
    removable = dataclasses.replace(space, blocks=("*",))
    block = removable.removable[3]
    preset = {"cut": {"widths": {d.name: 3 for d in space.dimensions}, "removed": [block]}}
    removable = dataclasses.replace(removable, raw_presets=preset)
    scores = [np.arange(float(d.dense)) for d in removable.dimensions]
    told = brief(removable, targets=(removable.target(keep=0.5),))
    (made,) = at_given_widths(told, "cut", in_order_of(scores), "run")
    assert made.architecture == removable.preset("cut").architecture
    assert made.architecture.removed == (block,)


def separable():
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(144, 2)
    )


def test_depthwise_layers_pass_channels_on():
    space = SearchSpace.from_model(separable, (3, 8, 8), name="separable")
    assert [d.name for d in space.dimensions] == ["0", "2"]
    assert [[n.path for n in layers] for layers in weighing(space, "test")] == [["0"], ["2"]]
    assert [[n.path for n in layers] for layers in readers(space, "test")] == [["2"], ["4"]]


# Responses

LAYERS = {
    "padded": (nn.Conv2d(4, 6, 3, padding=1), (4, 5, 7)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), bias=False), (4, 6, 5)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=2), (4, 7, 6)),
    "same": (nn.Conv2d(4, 6, (4, 3), padding="same"), (4, 6, 6)),
    "valid": (nn.Conv2d(4, 6, 2, padding="valid"), (4, 6, 6)),
    "reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 5, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (4, 5, 5)),
    "one axis": (nn.Conv1d(4, 6, 3, padding=1), (4, 9)),
    "three axes": (nn.Conv3d(4, 6, 2), (4, 3, 4, 3)),
    "linear": (nn.Linear(4, 6), (4,)),
    "tokens": (nn.Linear(4, 6), (5, 4)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("case", LAYERS)
def test_contributions_of_the_channels_add_up_to_the_response(case):
    module, shape = LAYERS[case]
    module = module.double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    channel_axis = x.ndim - 1 if isinstance(module, nn.Linear) else 1
    sampling = Sampling(2, 5, 64)
    with torch.no_grad():
        bias = 0 if module.bias is None else module.bias.movedim(0, -1)
        response = module(x).movedim(1 if channel_axis == 1 else -1, -1) - bias
        rows = np.concatenate(list(contributions(module, x, sampling, np.random.default_rng(0))))
        draw = np.random.default_rng(0)
        image = np.repeat([0, 1], 5)
        place = [draw.integers(0, n, 10) for n in response.shape[1:-1]]
        assert rows.sum(1) == pytest.approx(response.numpy()[(image, *place)].ravel())
        for channel in range(4):
            alone = torch.zeros_like(x)
            alone.select(channel_axis, channel).copy_(x.select(channel_axis, channel))
            one = np.concatenate(list(contributions(module, alone, sampling, np.random.default_rng(0))))
            assert one[:, channel] == pytest.approx(rows[:, channel])
            assert not np.delete(one, channel, 1).any()


@pytest.mark.parametrize("entries", [3, 64])
def test_pieces_add_up_to_the_whole(entries, monkeypatch):
    module, x = nn.Conv2d(4, 6, 3).double(), torch.randn(5, 4, 6, 6).double()

    def pieces():
        return list(contributions(module, x, Sampling(5, 4, entries), np.random.default_rng(0)))

    (whole,) = pieces()
    monkeypatch.setattr(responses, "CHUNK", 36 * min(6, entries) * 3)  # three places at once
    assert len(pieces()) == 7
    assert np.concatenate(pieces()) == pytest.approx(whole)


def test_few_entries_are_drawn_from_all_outputs():
    module = nn.Conv2d(1, 500, 1, bias=False)
    module.weight.data = torch.arange(500.0).reshape(500, 1, 1, 1)
    (rows,) = contributions(module, torch.ones(40, 1, 2, 2), Sampling(40, 10, 1), np.random.default_rng(0))
    assert rows.shape == (400, 1)
    assert len(np.unique(rows)) > 200
    assert 200 < rows.mean() < 300


def test_errors_are_those_of_least_squares():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 6)) @ generator.normal(size=(6, 6))
    best = np.array([4, 0, 5, 2, 1, 3])
    y = x.sum(1)
    found = errors(x.T @ x, best)
    for rank, channel in enumerate(best):
        kept = x[:, best[:rank]]
        factors = np.linalg.lstsq(kept, y, rcond=None)[0]
        assert found[channel] == pytest.approx(float(((y - kept @ factors) ** 2).sum()), rel=1e-6)
    assert (np.diff(found[best]) < 0).all()


def test_the_response_of_a_stream_is_shared_out_over_its_readers(spaces, weights, brief):
    space = spaces["streams"]
    measured = grams(brief(space, weights(space)), weights(space), Sampling(24, 4, 8), "test")
    for d, gram, layers in zip(space.dimensions, measured, readers(space, "test"), strict=True):
        assert gram.shape == (d.dense, d.dense)
        assert gram == pytest.approx(gram.T)
        # All readers here read one group and nothing else: their channels make up the whole response.
        assert gram.sum() == pytest.approx(1), layers


def test_a_part_of_a_concatenation_has_its_share(spaces, weights, brief):
    space = dataclasses.replace(spaces["densenet"], groups=("*",), gates=())
    measured = dict(
        zip(
            [d.name for d in space.dimensions],
            grams(brief(space, weights(space)), weights(space), Sampling(24, 4, 8), "test"),
            strict=True,
        )
    )
    shares = [gram.sum() for gram in measured.values()]
    assert all(0 < share < 10 for share in shares)
    assert not np.allclose(shares, 1)


def test_a_dimension_nobody_reads_or_makes_is_refused(spaces):
    space = spaces["vgg"]
    survey = dataclasses.replace(
        space.survey, layers=tuple(n for n in space.survey.layers if n.path != "features.4")
    )
    broken = dataclasses.replace(space, survey=survey)
    with pytest.raises(InputError, match=r"test measures the layers that read channels, .* 'features.0'"):
        readers(broken, "test")
    with pytest.raises(InputError, match=r"test weighs the layers that make channels, .* 'features.4'"):
        weighing(broken, "test")
