"""Second moments on samples that go through the network as it was and as it will be."""

import pytest
import torch
from support.sampled_field import outputs_of, points, relu_field, samples_of, with_selections
from support.tiny_field import DIRECTION, GROUP_NAMES, POSITION, PREFIX, TinyField
from torch import Tensor

from nerfstudio_prune.neurons import statistics as statistics_module
from nerfstudio_prune.neurons.propagation import Propagation
from nerfstudio_prune.neurons.selecting import Refit, select_neurons
from nerfstudio_prune.neurons.statistics import GroupStatistics, second_moments
from nerfstudio_prune.neurons.strategies import ImportanceStrategy, Selection, UniformStrategy

ACTIVATIONS = {"relu": torch.relu, "softplus": torch.nn.functional.softplus}
EXTRA = {f"{PREFIX}.trunk.0": POSITION, f"{PREFIX}.trunk.2": POSITION, f"{PREFIX}.head.0": DIRECTION}
"""Layer -> its inputs that are no neurons."""


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def looped(x: Tensor, e: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means of x xᵀ and x eᵀ, one sample at a time."""
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    cross = torch.zeros(x.shape[1], e.shape[1], dtype=torch.float64)
    for i in range(len(x)):
        gram += float(s[i]) * torch.outer(x[i].double(), x[i].double())
        cross += float(s[i]) * torch.outer(x[i].double(), e[i].double())
    return gram / s.double().sum(), cross / s.double().sum()


@pytest.mark.parametrize("chunk", [1, 3, 10, 11, 8192])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_moments_equal_a_loop(chunk: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every least squares below stands on these sums. The samples come in chunks of which the last is smaller; one that
    is lost, counted twice or weighted with another one's weight would go unnoticed."""
    monkeypatch.setattr(statistics_module, "CHUNK", chunk)
    x, e, s = rand(10, 4, dtype=dtype), rand(10, 3, seed=1, dtype=dtype), rand(10, seed=2, dtype=dtype).abs()
    gram, cross = second_moments(x, e, s)
    assert gram.dtype == cross.dtype == torch.float64
    assert torch.equal(gram, gram.T)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close((gram, cross), looped(x, e, s), rtol=tolerance, atol=tolerance)


def test_weight_two_is_a_sample_that_comes_twice() -> None:
    """The meaning of the weights, and that only their ratios count."""
    x, e = rand(3, 2), rand(3, 1, seed=1)
    twice = torch.tensor([0, 1, 1, 2])
    expected = second_moments(x[twice], e[twice], torch.ones(4, dtype=torch.float64))
    for factor in (1.0, 7.0):
        found = second_moments(x, e, factor * torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


def test_no_error_gives_exactly_none() -> None:
    """Where nothing was lost, nothing may be corrected, not even by rounding: refits start from this zero."""
    x, s = rand(20, 3, dtype=torch.float32), rand(20, seed=1, dtype=torch.float32).abs()
    assert not second_moments(x, torch.zeros(20, 2), s)[1].any()
    one = torch.zeros(20, 2)
    one[19, 1] = 1e-20
    assert second_moments(x, one, s)[1].any()


def drawn_selections(field: TinyField, kind: str, seed: int = 3) -> dict[str, Selection]:
    """A selection for each group: dropped, dropped and scaled, or dropped with arbitrary values for the readers."""
    generator = torch.Generator().manual_seed(seed)
    selections = {}
    for group in field.groups():
        keep = torch.randperm(group.width, generator=generator)[2:].sort().values
        scale = torch.rand(len(keep), generator=generator, dtype=torch.float64) + 0.5 if kind == "scaled" else None
        refit = {}
        for consumer in group.consumers if kind == "refitted" else ():
            weight, bias = consumer.linear.weight.detach(), consumer.linear.bias
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64) / 10
            # What stands in the columns of neurons that leave must not matter.
            refit[consumer.name] = (weight.double() + noise, None if bias is None else bias.detach().double() + 0.1)
        selections[group.name] = Selection(keep, scale, refit)
    return selections


def layer_inputs(name: str, points_: tuple[Tensor, Tensor], neurons: Tensor, bias: bool) -> Tensor:
    """[what is no neuron, constant of the bias, neurons] of a layer, written out."""
    extra = points_[1] if name == f"{PREFIX}.head.0" else points_[0][:, : EXTRA.get(name, 0)]
    return torch.cat([extra, torch.ones_like(neurons[:, : int(bias)]), neurons], dim=1)


@pytest.mark.parametrize("kind", ["dropped", "scaled", "refitted"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_walk_equals_running_the_network(kind: str, bias: bool, activation: str, dtype: torch.dtype) -> None:
    """The heart of choosing front to back: at each group the samples must be what the network reads that is already
    cut, scaled and refitted before it, and the wanted pre-activations those of the network as it was. The reference is
    the network itself with gates and replaced weights, for every group and every reader of it."""
    field = TinyField(bias=bias, dtype=dtype, activation=ACTIVATIONS[activation])
    at = points(dtype=dtype)
    samples = samples_of(field, at)
    wanted = outputs_of(field, *at)
    walk = Propagation(field.groups(), samples, 0.25, ACTIVATIONS[activation])
    selections, done = drawn_selections(field, kind), {}
    rtol, atol = (1e-11, 1e-12) if dtype == torch.float64 else (1e-4, 1e-4)
    for index, group in enumerate(field.groups()):
        large, gates = with_selections(field, done)
        present = outputs_of(large, *at, gates={name: gate.to(dtype) for name, gate in gates.items()})
        neurons = ACTIVATIONS[activation](present[group.name])
        found = walk.statistics(group)
        assert found.ridge == 0.25 and len(found.layers) == len(group.consumers) == (2 if index == 3 else 1)
        torch.testing.assert_close(found.mean, neurons.double().mean(dim=0), rtol=rtol, atol=atol)
        assert torch.equal(found.active, (neurons != 0).double().mean(dim=0))
        for consumer, layer in zip(group.consumers, found.layers, strict=True):
            x = layer_inputs(consumer.name, at, neurons, bias)
            errors = wanted[consumer.name] - present[consumer.name]
            gram, residual = looped(x, errors, samples.weights[consumer.name])
            torch.testing.assert_close(layer.gram, gram, rtol=rtol, atol=atol)
            torch.testing.assert_close(layer.residual, residual, rtol=rtol, atol=atol)
            assert bool(layer.residual.any()) == (index > 0)
            assert torch.equal(layer.rows, samples.rows[consumer.name])
            assert (layer.fixed, layer.has_bias) == (EXTRA.get(consumer.name, 0) + bias, bias)
            linear = large.layers()[consumer.name]
            through_moments = x @ layer.weight.to(dtype).T
            torch.testing.assert_close(through_moments, present[consumer.name], rtol=rtol, atol=atol)
            assert torch.equal(layer.weight[:, layer.fixed :].to(dtype), linear.weight[:, -group.width :].detach())
            assert {t.dtype for t in (layer.weight, layer.gram, layer.residual, layer.rows)} == {torch.float64}
        walk.commit(group, selections[group.name])
        done[group.name] = selections[group.name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_residual_is_exactly_zero_as_long_as_nothing_was_cut(dtype: torch.dtype) -> None:
    """Groups before the first cut must come out of a refit bit for bit as they were. Also after groups that were
    committed whole."""
    field = relu_field(dtype=dtype)
    walk = Propagation(field.groups(), samples_of(field, points(dtype=dtype)), 1e-4)
    for group in field.groups():
        for layer in walk.statistics(group).layers:
            assert not layer.residual.any()
        walk.commit(group, Selection(torch.arange(group.width)))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_first_layer_and_new_values_for_it(bias: bool) -> None:
    """No group stands before the first layer, so that its moments are found nowhere else; once it has other values, as
    when it was rounded, all behind it must see what these give, and want what it gave before."""
    field, at = relu_field(bias=bias), points()
    samples, (first, *_) = samples_of(field, at), field.groups()
    walk = Propagation(field.groups(), samples, 1e-4)
    layer, linear = walk.first_moments(first), field.layers()[first.name]
    x = torch.cat([at[0][:, :POSITION], torch.ones(len(at[0]), int(bias), dtype=torch.float64)], dim=1)
    expected = looped(x, torch.zeros(len(x), first.width), samples.weights[first.name])
    torch.testing.assert_close((layer.gram, layer.residual), expected, rtol=1e-11, atol=1e-12)
    assert (layer.fixed, layer.has_bias) == (POSITION + bias, bias) and torch.equal(
        layer.rows, samples.rows[first.name]
    )
    torch.testing.assert_close(x @ layer.weight.T, outputs_of(field, *at)[first.name])
    wanted = outputs_of(field, *at)[first.consumers[0].name]
    new = (linear.weight.detach() * 0.5, None if linear.bias is None else linear.bias.detach() + 0.1)
    walk.put({first.name: new})
    changed, _ = with_selections(field, {first.name: Selection(torch.arange(first.width), refit={first.name: new})})
    present = outputs_of(changed, *at)
    found = walk.statistics(first)
    torch.testing.assert_close(found.mean, present[first.name].relu().mean(dim=0))
    x = layer_inputs(first.consumers[0].name, at, present[first.name].relu(), bias)
    errors = wanted - present[first.consumers[0].name]
    _, residual = looped(x, errors, samples.weights[first.consumers[0].name])
    torch.testing.assert_close(found.layers[0].residual, residual, rtol=1e-11, atol=1e-12)


def test_network_is_not_touched() -> None:
    """A walk only plans; an event may still fail."""
    field = relu_field()
    before = {name: p.detach().clone() for name, p in field.named().items()}
    walk = Propagation(field.groups(), samples_of(field, points()), 1e-4)
    for group in field.groups():
        walk.statistics(group)
        walk.commit(group, drawn_selections(field, "refitted")[group.name])
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in field.named().items())


def walked(field: TinyField, upto: str, at: tuple[Tensor, Tensor]) -> GroupStatistics:
    walk = Propagation(field.groups(), samples_of(field, at), 1e-4)
    for group in field.groups():
        found = walk.statistics(group)
        if group.name == upto:
            return found
        walk.commit(group, Selection(torch.arange(group.width)))
    raise AssertionError(upto)


def test_one_sample_tells_nothing_about_what_varies() -> None:
    """From a single sample all neurons look alike; taken for constant, all would be folded away."""
    assert not walked(relu_field(), "field.trunk.0", points(rows=1)).constant.any()


def test_dead_and_constant_neurons() -> None:
    """Neurons that never change carry nothing that a bias cannot; they leave first, so a live one must never be taken
    for one of them: not a rare one, not one whose activation is small."""
    field, at = relu_field(), points()
    layers = field.layers()
    with torch.no_grad():
        weight, bias = layers["field.trunk.0"].weight, layers["field.trunk.0"].bias
        weight.zero_()
        bias.zero_()
        bias[1] = 0.7  # constant
        weight[2, 0], bias[2] = 1.0, -50.0  # dead
        weight[3, 0] = 1.0  # active where the first coordinate is positive
        weight[4, 0], bias[4] = 1.0, -float(at[0][:, 0].sort().values[-2])  # active at one sample
        weight[5, 0], bias[5] = 1e-20, 1e-20  # small
        weight[6, 0], bias[6] = 1e-9, 1.0  # constant within rounding of single precision
    found = walked(field, "field.trunk.0", at)
    assert found.constant.tolist() == [True, True, True, False, False, False, True]
    positive = float((at[0][:, 0] > 0).double().mean())
    small = float((at[0][:, 0] > -1).double().mean())
    assert found.active.tolist() == pytest.approx([0, 1, 0, positive, 1 / len(at[0]), small, 1])
    assert found.mean.tolist() == pytest.approx(
        torch.relu(at[0] @ layers["field.trunk.0"].weight.T + layers["field.trunk.0"].bias).mean(dim=0).tolist()
    )


def test_neurons_that_die_behind_a_cut_are_found() -> None:
    """Dead is dead in the network that is already pruned: a neuron fed by what left is not worth a place."""
    field, at = relu_field(), points()
    layers = field.layers()
    with torch.no_grad():
        layers["field.trunk.1"].weight[2] = 0
        layers["field.trunk.1"].weight[2, 4] = 1
        layers["field.trunk.1"].bias[2] = 0
        layers["field.trunk.0"].bias[4] = 5
    walk = Propagation(field.groups(), samples_of(field, at), 1e-4)
    first, second = field.groups()[:2]
    walk.statistics(first)
    walk.commit(first, Selection(torch.arange(7)))
    assert not walk.statistics(second).constant[2]
    walk.commit(first, Selection(torch.tensor([0, 1, 2, 3, 5, 6])))
    assert walk.statistics(second).constant[2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("weight", r"field\.trunk\.1: 2 of 7 neurons have activations that are not finite"),
        ("bias", r"field\.head\.1: 1 of 5 neurons"),
        ("samples", r"field\.trunk\.0: 7 of 7 neurons"),
        ("infinite", r"field\.trunk\.1: second moments of the inputs of field\.trunk\.2 are not finite"),
        ("large", r"field\.trunk\.0: second moments of the inputs of field\.trunk\.1 are not finite"),
    ],
)
def test_activations_that_are_not_finite_name_the_group(spoil: str, message: str) -> None:
    """The event is called off with a message that says where to look, before a factorisation fails on NaN."""
    field, at = relu_field(), points()
    samples, layers = samples_of(field, at), field.layers()
    with torch.no_grad():
        if spoil == "weight":
            layers["field.trunk.1"].weight[[1, 4], 0] = torch.nan
        elif spoil == "bias":
            layers["field.head.1"].bias[3] = torch.nan
        elif spoil == "samples":
            samples.extra["field.trunk.0"][5, 1] = torch.nan
        elif spoil == "infinite":
            samples.extra["field.trunk.2"][5, 1] = torch.inf
        else:
            samples.extra["field.trunk.0"][5, 1] = 1e200  # finite, but not its square
    targets = {name: 4 for name in GROUP_NAMES}
    for strategy in (UniformStrategy(), ImportanceStrategy()):
        with pytest.raises(ValueError, match=message):
            select_neurons(field.groups(), targets, strategy, None, 0, Refit("lstsq"), {PREFIX: samples})


def test_sums_of_gradients_are_handed_on() -> None:
    """Scores read them off the group, in double precision, each group its own."""
    field = relu_field(dtype=torch.float32)
    samples = samples_of(field, points(dtype=torch.float32))
    taylor = {name: torch.rand(g.width) for name, g in zip(GROUP_NAMES, field.groups(), strict=True)}
    fisher = {name: value + 1 for name, value in taylor.items()}
    with_sums = type(samples)(samples.extra, samples.weights, samples.rows, taylor, fisher)
    walk, bare = Propagation(field.groups(), with_sums, 0.0), Propagation(field.groups(), samples, 0.0)
    for group in field.groups():
        found, none = walk.statistics(group), bare.statistics(group)
        assert found.taylor is not None and found.fisher is not None and none.taylor is None and none.fisher is None
        assert torch.equal(found.taylor, taylor[group.name].double())
        assert torch.equal(found.fisher, fisher[group.name].double())
