"""New values for the layers behind pruned neurons."""

from dataclasses import replace

import pytest
import torch
from support.reader_layers import CASES, Reader, ill_conditioned, reader, relu_neurons, statistics
from torch import Tensor, nn

from nerfstudio_prune.neurons.groups import Consumer, NeuronGroup
from nerfstudio_prune.neurons.refit import LEAST_COSINE, fold_constants, lstsq, merge, refit_layer
from nerfstudio_prune.neurons.statistics import LayerMoments

every_case = pytest.mark.parametrize("case", CASES)


def drawn(count: int, seed: int) -> Tensor:
    """A random selection of one neuron or more."""
    generator = torch.Generator().manual_seed(seed)
    n_keep = int(torch.randint(1, count + 1, (), generator=generator))
    return torch.randperm(count, generator=generator)[:n_keep].sort().values


@every_case
@pytest.mark.parametrize("ridge", [1e-6, 1e-4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_equals_explicit_least_squares(case: str, ridge: float, seed: int) -> None:
    """The new weights are the solution of one weighted least squares over samples and, for the ridge, one more row per
    weight; solved here from the stacked rows instead of second moments."""
    for r in CASES[case](seed):
        keep = drawn(r.neurons.shape[1], seed)
        found = refit_layer(r.moments(), keep, ridge)
        torch.testing.assert_close(found, r.best(keep.tolist(), ridge)[1], rtol=1e-5, atol=1e-7)
        gone = [j for j in range(r.neurons.shape[1]) if j not in keep.tolist()]
        assert not found[:, r.fixed.shape[1] :][:, gone].any()


def weighted_error(r: Reader, weights: Tensor) -> float:
    """Weighted mean of the squared error on the calibration samples, rows weighted."""
    errors = (r.wanted - r.inputs @ weights.T).square() @ r.rows
    return float((errors * r.weights).sum() / r.weights.sum())


def dropped(r: Reader, keep: Tensor) -> Tensor:
    """The present weights without the neurons that leave."""
    weights = torch.zeros_like(r.weight)
    stay = torch.cat([torch.arange(r.fixed.shape[1]), r.fixed.shape[1] + keep])
    weights[:, stay] = r.weight[:, stay]
    return weights


@every_case
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 1e-4, 1e-2, 10.0])
def test_never_worse_than_no_refit(case: str, ridge: float) -> None:
    """The promise of a refit: whatever neurons stay, and however ill-conditioned their activations, the error on the
    samples is not larger than with the weights as they were."""
    for seed in range(10):
        for r in CASES[case](seed):
            keep = drawn(r.neurons.shape[1], seed)
            with_refit, without = (
                weighted_error(r, w) for w in (refit_layer(r.moments(), keep, ridge), dropped(r, keep))
            )
            assert with_refit <= without * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_weights_stay_moderate_where_neurons_are_nearly_copies(seed: int) -> None:
    """Without the ridge least squares answers near-copies with huge weights of opposite signs, which fit the samples
    and nothing else. With the default ridge no weight of neurons of ordinary size grows by more than what left."""
    base = relu_neurons(60, 3, seed)
    noise = 1e-5 * torch.randn(60, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    r = reader(base.repeat(1, 2) + noise, seed)
    found = refit_layer(r.moments(), torch.tensor([0, 1, 2, 3, 4]), 1e-4)
    assert float(found.abs().max()) < 2 * float(r.weight.abs().max())
    assert float(refit_layer(r.moments(), torch.tensor([0, 1, 2, 3, 4]), 0.0).abs().max()) > 100


@every_case
def test_nothing_removed_and_nothing_lost_changes_no_bit(case: str) -> None:
    """An event that costs nothing must not disturb the network, ridge or not."""
    for r in CASES[case](4):
        r.wanted = r.inputs @ r.weight.T
        moments = replace(r.moments(), residual=torch.zeros(r.weight.T.shape, dtype=torch.float64))
        for ridge in (0.0, 1e-4, 1.0):
            assert torch.equal(refit_layer(moments, torch.arange(r.neurons.shape[1]), ridge), r.weight)


def test_ridge_draws_to_the_present_weights() -> None:
    """The larger the ridge, the closer to the weights that training found; at no ridge, plain least squares."""
    r = reader(relu_neurons(50, 5), 1)
    keep = torch.tensor([0, 1, 4])
    moments, fixed = r.moments(), dropped(r, keep)
    distances = [float((refit_layer(moments, keep, ridge) - fixed).norm()) for ridge in (0.0, 0.01, 1.0, 100.0, 1e8)]
    assert distances == sorted(distances, reverse=True) and distances[-1] < 1e-6 < distances[0]
    share = (r.weights / r.weights.sum()).sqrt()[:, None]
    stay = [0, 1, 2, 3, 6]
    plain = torch.linalg.lstsq((share * r.inputs)[:, stay], share * r.wanted).solution.T
    torch.testing.assert_close(refit_layer(moments, keep, 0.0)[:, stay], plain, rtol=1e-7, atol=1e-9)


def group_of(readers: list[Reader], offsets: list[int], producer: nn.Linear | None = None) -> NeuronGroup:
    """Layers with the weights of the readers; the columns of the neurons stand at the offsets, the bias is apart."""
    count = readers[0].neurons.shape[1]
    consumers = []
    for i, (r, offset) in enumerate(zip(readers, offsets, strict=True)):
        fixed = r.fixed.shape[1]
        linear = nn.Linear(max(0, fixed - 1) + count, len(r.weight), bias=fixed > 0).double()
        with torch.no_grad():
            extra, neurons = r.weight[:, : max(0, fixed - 1)], r.weight[:, fixed:]
            linear.weight.copy_(torch.cat([extra[:, :offset], neurons, extra[:, offset:]], dim=1))
            if fixed:
                linear.bias.copy_(r.weight[:, fixed - 1])
        consumers.append(Consumer(f"reader.{i}", linear, offset))
    return NeuronGroup("made", producer or nn.Linear(2, count).double(), tuple(consumers))


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_values_stand_where_the_layer_has_them(offset: int) -> None:
    """Second moments order inputs in their own way. Back in the layer each value must stand in its column, with what is
    no neuron before, behind, or on both sides of the neurons, and the bias by itself."""
    readers = [reader(relu_neurons(40, 4), 1, fixed=3), reader(relu_neurons(40, 4), 2, fixed=1)]
    group, found = group_of(readers, [offset, 0]), statistics(readers, 1e-3)
    keep = torch.tensor([0, 3])
    values = lstsq(group, found, keep)
    assert list(values) == ["reader.0", "reader.1"]
    weight, bias = values["reader.0"]
    refitted = refit_layer(found.layers[0], keep, 1e-3)
    others = torch.cat([weight[:, :offset], weight[:, offset + 4 :]], dim=1)
    assert torch.equal(others, refitted[:, :2]) and torch.equal(weight[:, offset : offset + 4], refitted[:, 3:])
    assert bias is not None and torch.equal(bias, refitted[:, 2])
    assert weight.shape == group.consumers[0].linear.weight.shape
    weight, bias = values["reader.1"]
    refitted = refit_layer(found.layers[1], keep, 1e-3)
    assert torch.equal(weight, refitted[:, 1:]) and bias is not None and torch.equal(bias, refitted[:, 0])
    unchanged = lstsq(group, replace(found, layers=tuple(map(without_residual, found.layers))), torch.arange(4))
    for consumer in group.consumers:
        new_weight, new_bias = unchanged[consumer.name]
        assert torch.equal(new_weight, consumer.linear.weight) and new_bias is not None
        assert torch.equal(new_bias, consumer.linear.bias)


def without_residual(layer: LayerMoments) -> LayerMoments:
    return replace(layer, residual=torch.zeros_like(layer.residual))


def test_layer_without_bias_gets_none() -> None:
    """A bias that appears would change the network's structure, and a checkpoint of it would not load."""
    readers = [reader(relu_neurons(40, 4), 1, fixed=0)]
    weight, bias = lstsq(group_of(readers, [0]), statistics(readers, 1e-3), torch.tensor([1, 2]))["reader.0"]
    assert bias is None and torch.equal(weight, refit_layer(readers[0].moments(), torch.tensor([1, 2]), 1e-3))


def linear(weight: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def test_merging_multiples_is_exact() -> None:
    """A ReLU whose incoming weights and bias are s times another's is worth s times it: three neurons, of which the
    second is three times and the third half the first, become one without any change of the output."""
    producer = linear([[1.0, -2.0], [3.0, -6.0], [0.5, -1.0], [1.0, 1.0]], [0.5, 1.5, 0.25, 0.0])
    first = linear([[1.0, 2.0, 4.0, 8.0]], [5.0])
    second = linear([[9.0, 1.0, -1.0, 2.0, 7.0]])
    group = NeuronGroup("made", producer, (Consumer("first", first, 0), Consumer("second", second, 1)))
    values = merge(group, torch.tensor([0, 3]))
    weight, bias = values["first"]
    assert weight[:, [0, 3]].tolist() == [[1 + 2 * 3 + 4 * 0.5, 8.0]] and bias is not None and bias.tolist() == [5.0]
    weight, bias = values["second"]
    assert weight[:, [0, 1, 4]].tolist() == [[9.0, 1 - 3 + 1, 7.0]] and bias is None
    x = torch.relu(producer(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double())).detach()
    merged = nn.functional.linear(x[:, [0, 3]], values["first"][0][:, [0, 3]], bias=values["first"][1])
    torch.testing.assert_close(merged, first(x).detach(), rtol=1e-13, atol=1e-13)
    assert first.weight.tolist() == [[1.0, 2.0, 4.0, 8.0]] and second.weight.tolist() == [[9.0, 1.0, -1.0, 2.0, 7.0]]
    assert producer.weight.tolist() == [[1.0, -2.0], [3.0, -6.0], [0.5, -1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("leaver", "bias", "expected"),
    [
        ([2.0, 0.0], 0.0, [1 + 2 * 10.0, 1.0]),
        ([0.0, 3.0], 0.0, [1.0, 1 + 3 * 10.0]),
        ([3.0, 4.0], 0.0, [1.0, 1 + 5 * 10.0]),
        ([-1.0, -1.0], 0.0, [1.0, 1.0]),
        ([0.44, 0.0], -((1 - 0.44**2) ** 0.5), [1.0, 1.0]),
        ([0.46, 0.0], -((1 - 0.46**2) ** 0.5), [1 + 10.0, 1.0]),
        ([0.0, 0.0], 0.0, [1.0, 1.0]),
    ],
    ids=["first", "second", "nearer one", "opposite", "bias makes it unlike", "just alike", "no weights"],
)
def test_most_similar_neuron_takes_over(leaver: list[float], bias: float, expected: list[float]) -> None:
    """By hand: the cosine counts the bias, the scale is the ratio of norms, and a neuron that resembles none is
    dropped, for it would mostly add noise."""
    producer = linear([[1.0, 0.0], leaver, [0.0, 1.0]], [0.0, bias, 0.0])
    group = NeuronGroup("made", producer, (Consumer("reader", linear([[1.0, 10.0, 1.0]], [0.0]), 0),))
    weight, _ = merge(group, torch.tensor([0, 2]))["reader"]
    assert weight[0, [0, 2]].tolist() == pytest.approx(expected)
    assert 0.44 < LEAST_COSINE < 0.46


def test_merging_without_bias_and_into_a_neuron_without_weights() -> None:
    """A neuron that stays but has no weights resembles none; a division by its norm must not spoil the others."""
    producer = linear([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    group = NeuronGroup("made", producer, (Consumer("reader", linear([[1.0, 10.0, 100.0]]), 0),))
    assert merge(group, torch.tensor([0, 1]))["reader"][0][0, :2].tolist() == [1.0, 210.0]
    assert merge(group, torch.tensor([0]))["reader"][0][0, 0].tolist() == 1.0


def test_folding_constants_is_exact() -> None:
    """A neuron that always gives the same is a bias in disguise: it can leave without any change."""
    neurons = relu_neurons(30, 5)
    neurons[:, 1], neurons[:, 3] = 0.75, 0.0
    readers = [reader(neurons, 1, fixed=3), reader(neurons, 2, fixed=1)]
    group, found = group_of(readers, [2, 0]), statistics(readers, 1e-3)
    values = fold_constants(group, found, torch.tensor([0, 2, 4]))
    assert list(values) == ["reader.0", "reader.1"]
    for consumer, r in zip(group.consumers, readers, strict=True):
        weight, bias = values[consumer.name]
        assert bias is not None and torch.equal(weight, consumer.linear.weight)
        x = torch.cat([r.fixed[:, :-1], neurons], dim=1)
        kept = torch.cat([r.fixed[:, :-1], neurons * torch.tensor([1.0, 0, 1, 0, 1])], dim=1)
        expected = nn.functional.linear(x, consumer.linear.weight, consumer.linear.bias).detach()
        torch.testing.assert_close(nn.functional.linear(kept, weight, bias).detach(), expected, rtol=1e-12, atol=1e-12)


def test_only_what_leaves_is_folded() -> None:
    """A constant neuron that stays goes on contributing itself; dead ones contribute nothing; a layer without bias has
    no place for it, and layers that do not change are not named, so that they keep their very tensors."""
    neurons = relu_neurons(30, 4)
    neurons[:, 1], neurons[:, 2] = 0.75, 0.0
    readers = [reader(neurons, 1)]
    group, found = group_of(readers, [0]), statistics(readers, 1e-3)
    assert fold_constants(group, found, torch.tensor([0, 1, 3])) == {}
    assert fold_constants(group, found, torch.arange(4)) == {}
    assert list(fold_constants(group, found, torch.tensor([0, 3]))) == ["reader.0"]
    bare = [reader(neurons, 1, fixed=0)]
    assert fold_constants(group_of(bare, [0]), statistics(bare, 1e-3), torch.tensor([0, 3])) == {}


def test_refit_takes_constants_up_as_well() -> None:
    """Least squares finds by itself what folding does by hand."""
    neurons = relu_neurons(30, 3)
    neurons[:, 1] = 2.0
    r = reader(neurons, 1, noise=0.0)
    found = refit_layer(r.moments(), torch.tensor([0, 2]), 0.0)
    assert weighted_error(r, found) < 1e-12
    torch.testing.assert_close(found[:, 1], r.weight[:, 1] + 2 * r.weight[:, 3], rtol=1e-6, atol=1e-6)


def test_ill_conditioned_data_lose_no_accuracy() -> None:
    """Activations of very different sizes are normal in a trained layer; the refit must still be the optimum to many
    digits, measured on the error it minimises."""
    for seed in range(5):
        r = reader(ill_conditioned(60, 8, seed), seed)
        keep = [1, 4, 7]
        found = refit_layer(r.moments(), torch.tensor(keep), 1e-10)
        best, weights = r.best(keep, 1e-10)
        assert weighted_error(r, found) == pytest.approx(weighted_error(r, weights), rel=1e-5)
        assert best > 0
