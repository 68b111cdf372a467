"""Scores that look at what neurons do on calibration samples."""

import math
from dataclasses import replace

import pytest
import torch
from support.sampled_field import network_samples, points, relu_field, samples_of
from support.tiny_field import GROUP_NAMES, PREFIX, TinyField
from torch import Tensor

from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.propagation import Propagation
from nerfstudio_prune.neurons.samples import Samples, recorded_layers
from nerfstudio_prune.neurons.scores import SCORES, needs, needs_of, score_by_name, weight_scores
from nerfstudio_prune.neurons.strategies import Selection

every_group = pytest.mark.parametrize("index", range(len(GROUP_NAMES)), ids=GROUP_NAMES)


def with_statistics(field: TinyField, samples: Samples) -> list[NeuronGroup]:
    """The groups as `select_neurons` hands them to a score when nothing is cut yet."""
    walk, found = Propagation(field.groups(), samples, 1e-3), []
    for group in field.groups():
        found.append(replace(group, statistics=walk.statistics(group)))
        walk.commit(group, Selection(torch.arange(group.width)))
    return found


def activations(field: TinyField, gates: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Name of the group -> activations, from the network itself."""
    with recorded_layers(field.groups()) as records:
        field(*points(), gates)
    return {name: torch.relu(records[name][0].output.detach()) for name in GROUP_NAMES}


@every_group
def test_activation_equals_a_loop(index: int) -> None:
    """The mean squared change of the readers' pre-activations when the neuron is dropped, weighted by samples and rows,
    computed by dropping it: one neuron, one sample, one row at a time."""
    field = relu_field(seed=4)
    samples = samples_of(field, points())
    group = with_statistics(field, samples)[index]
    neurons, expected = activations(field)[group.name], []
    for j in range(group.width):
        total = 0.0
        for consumer in group.consumers:
            weights, rows = samples.weights[consumer.name].tolist(), samples.rows[consumer.name].tolist()
            column = consumer.linear.weight[:, consumer.column_offset + j].tolist()
            for s, a in zip(weights, neurons[:, j].tolist(), strict=True):
                total += sum(s * r * (w * a) ** 2 for r, w in zip(rows, column, strict=True)) / sum(weights)
        expected.append(math.sqrt(total))
    assert SCORES["activation"](group).tolist() == pytest.approx(expected, rel=1e-10)


@every_group
def test_apoz_equals_a_loop(index: int) -> None:
    """The share of samples at which a neuron is active, every sample counted alike, as in the literature."""
    field = relu_field(seed=4)
    group = with_statistics(field, samples_of(field, points()))[index]
    columns = activations(field)[group.name].T.tolist()
    expected = [sum(a > 0 for a in column) / len(column) for column in columns]
    assert SCORES["apoz"](group).tolist() == pytest.approx(expected) and len(set(expected)) > 2


@every_group
def test_obs_equals_fits_without_each_neuron(index: int) -> None:
    """The error that is left when one neuron goes and all readers are fitted anew, by explicit least squares over
    stacked rows: samples, and one row per weight for the ridge. Nothing is lost with all neurons, so this is all."""
    field = relu_field(seed=4)
    samples = samples_of(field, points())
    group = with_statistics(field, samples)[index]
    neurons, expected = activations(field)[group.name], torch.zeros(group.width, dtype=torch.float64)
    for consumer in group.consumers:
        share = (samples.weights[consumer.name] / samples.weights[consumer.name].sum()).sqrt()[:, None]
        x = torch.cat([samples.extra[consumer.name], torch.ones(len(neurons), 1), neurons], dim=1) * share
        bias = consumer.linear.bias.detach()[:, None]
        others = consumer.linear.weight.detach()[:, : consumer.column_offset]
        own = consumer.linear.weight.detach()[:, consumer.column_offset :]
        present = torch.cat([others, bias, own], dim=1)
        pull = (1e-3 * x.square().sum(dim=0).mean()).sqrt() * torch.eye(x.shape[1], dtype=torch.float64)
        stacked = torch.cat([x, pull])
        target = stacked @ present.T
        for j in range(group.width):
            stay = [i for i in range(x.shape[1]) if i != x.shape[1] - group.width + j]
            fit = torch.linalg.lstsq(stacked[:, stay], target, driver="gelsd").solution
            errors = (target - stacked[:, stay] @ fit).square().sum(dim=0)
            expected[j] += errors @ samples.rows[consumer.name]
    torch.testing.assert_close(SCORES["obs"](group), expected, rtol=1e-7, atol=1e-12)


def test_taylor_and_fisher_are_the_collected_sums() -> None:
    """Sums over rays are collected with the samples. Both scores then are what their descriptions say: the squared
    first-order change, and half the squared one per ray; each group its own."""
    field = relu_field()
    sums = {
        name: torch.arange(1.0, g.width + 1) * (i + 1)
        for i, (name, g) in enumerate(zip(GROUP_NAMES, field.groups(), strict=True))
    }
    samples = replace(network_samples(field)[PREFIX], taylor=sums, fisher={n: v * 10 for n, v in sums.items()})
    for group in with_statistics(field, samples):
        assert SCORES["taylor"](group).tolist() == sums[group.name].tolist()
        assert SCORES["fisher"](group).tolist() == (sums[group.name] * 5).tolist()


def gated_loss(field: TinyField, name: str, gates: Tensor) -> Tensor:
    """A loss of each point when the neurons of a group are multiplied by gates."""
    return (field(*points(), {name: gates}) - 0.3).square().sum(dim=-1)


@every_group
def test_activation_times_gradient_is_the_slope_of_the_gate(index: int) -> None:
    """What taylor and fisher are made of: activation times gradient of the loss, which a network of ReLUs has before
    the activation as after it, is the change of the loss when a gate on the neuron begins to close. Against finite
    differences of the loss itself, for the sum over all points and for every point alone."""
    field, name = relu_field(seed=4), GROUP_NAMES[index]
    width = field.groups()[index].width
    with recorded_layers(field.groups()) as records:
        output = field(*points())
    z = records[name][0].output
    gradient = torch.autograd.grad((output - 0.3).square().sum(), z)[0]
    products = (z * gradient).detach()
    for j in range(width):
        step = torch.zeros(width, dtype=torch.float64)
        step[j] = 1e-6
        with torch.no_grad():
            slopes = (gated_loss(field, name, 1 + step) - gated_loss(field, name, 1 - step)) / 2e-6
        torch.testing.assert_close(products[:, j], slopes, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["activation", "apoz", "obs", "taylor", "fisher"])
def test_missing_samples_are_said(name: str) -> None:
    """A score of one's own strategy or script may be called without samples; the message must say what is missing."""
    with pytest.raises(ValueError, match="this score needs calibration samples, and none were collected"):
        SCORES[name](relu_field().groups()[0])


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_missing_gradients_are_said(name: str) -> None:
    """Samples without sums of gradients are normal: these cost a backward pass of the loss."""
    field = relu_field()
    group = with_statistics(field, network_samples(field)[PREFIX])[0]
    with pytest.raises(ValueError, match="this score needs gradients of the loss, and none were collected"):
        SCORES[name](group)


@pytest.mark.parametrize("name", ["activation", "apoz", "obs"])
@every_group
def test_permuting_the_neurons_permutes_the_scores(name: str, index: int) -> None:
    """Neurons have no order."""
    field = relu_field(seed=4)
    before = SCORES[name](with_statistics(field, samples_of(field, points()))[index])
    group = field.groups()[index]
    order = torch.randperm(group.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        group.producer.weight.copy_(group.producer.weight[order])
        group.producer.bias.copy_(group.producer.bias[order])
        for consumer in group.consumers:
            span = slice(consumer.column_offset, consumer.column_offset + group.width)
            consumer.linear.weight[:, span] = consumer.linear.weight[:, span][:, order]
    after = SCORES[name](with_statistics(field, samples_of(field, points()))[index])
    torch.testing.assert_close(after, before[order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["activation", "apoz", "obs"])
def test_dead_neurons_score_least(name: str) -> None:
    """Also by these scores, whatever their weights."""
    field = relu_field(seed=4)
    layer, reader = field.layers()["field.trunk.0"], field.layers()["field.trunk.1"]
    with torch.no_grad():
        layer.bias[2] = -100.0
        reader.weight[:, 2] = 50.0
    scores = SCORES[name](with_statistics(field, samples_of(field, points()))[0])
    assert int(scores.argmin()) == 2 or name == "obs"  # the ridge lets even dead weights count a little
    if name != "obs":
        assert scores[2] == 0


def test_needs() -> None:
    """What a score needs decides what an event collects: too little ends the event, too much costs a backward pass."""
    found = {name: needs_of(score) for name, score in SCORES.items()}
    assert found == {
        **dict.fromkeys(("w_in", "w_out", "w_in_w_out", "sensitivity"), "weights"),
        **dict.fromkeys(("activation", "apoz", "obs"), "samples"),
        **dict.fromkeys(("taylor", "fisher"), "gradients"),
    }
    assert set(weight_scores()) == {"w_in", "w_out", "w_in_w_out", "sensitivity"}

    @needs("samples")
    def own(group: NeuronGroup) -> Tensor:
        return torch.ones(group.width)

    assert needs_of(own) == "samples" and needs_of(lambda group: torch.ones(group.width)) == "weights"
    assert score_by_name("obs") is SCORES["obs"]
