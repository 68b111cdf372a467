"""Layers of a network, rounded one behind the other, and what that costs by the samples."""

import copy

import pytest
import torch
from support.sampled_field import network_samples, outputs_of, points, relu_field, samples_of
from support.tiny_field import PREFIX, TinyField
from torch import Tensor

from nerfstudio_prune.export.layers import LayerTensors, RoundedLayer
from nerfstudio_prune.export.network_rounding import CHOICES, predicted_errors, relative_errors, round_networks
from nerfstudio_prune.export.rounding import dequantize, quantize
from nerfstudio_prune.neurons.groups import linears

LAYERS = list(linears(relu_field().groups()))


def rounded_field(field: TinyField, bits: dict[str, int], layers: dict[str, RoundedLayer] | None) -> TinyField:
    """The network as a file would give it; rounded to nearest where no layers are given."""
    changed = copy.deepcopy(field)
    with torch.no_grad():
        for name, own in bits.items():
            linear = changed.layers()[name]
            codes, scales = (
                quantize(linear.weight, own) if layers is None else (layers[name].codes, layers[name].scales)
            )
            linear.weight.copy_(dequantize(codes, scales, own))
            if layers is not None:
                linear.bias.copy_(layers[name].bias)
    return changed


def squared_errors(field: TinyField, changed: TinyField, name: str, at: tuple[Tensor, Tensor]) -> Tensor:
    """Weighted mean squared error of each output of a layer, by running both networks."""
    weights = samples_of(field, at).weights[name]
    errors = outputs_of(field, *at)[name] - outputs_of(changed, *at)[name]
    return (weights[:, None] * errors.square()).sum(dim=0) / weights.sum()


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_come_back_in_their_own_columns(bits: int) -> None:
    """Moments have what is no neuron first, layers have it where the network reads it; one column in the place of
    another is a network of the right size that shows nothing."""
    field = relu_field()
    found = round_networks(field.groups(), network_samples(field), dict.fromkeys(LAYERS, bits))
    assert list(found) == LAYERS
    for name, layer in found.items():
        own = field.layers()[name].weight.detach()
        stored = dequantize(layer.codes, layer.scales, bits).double()
        assert stored.shape == own.shape
        assert float((stored - own).square().sum() / own.square().sum()) < (0.1 if bits == 4 else 0.01)


def test_later_layers_make_up_for_earlier_ones() -> None:
    """What counts is what comes out at the end of a network that is rounded as a whole, on the samples: far less is
    lost than by rounding to nearest, in every layer behind the first."""
    field, at = relu_field(), points()
    bits = dict.fromkeys(LAYERS, 4)
    found = round_networks(field.groups(), {PREFIX: samples_of(field, at)}, bits)
    ways = [rounded_field(field, bits, layers) for layers in (found, None)]
    for name in LAYERS[1:]:
        compensated, nearest = (float(squared_errors(field, way, name, at).sum()) for way in ways)
        assert compensated < 0.5 * nearest


def test_only_what_is_asked_for() -> None:
    """Of a field that only places samples the colour is no part of a file; the walk ends before it."""
    field = relu_field()
    names = [name for name in LAYERS if ".trunk." in name] + [name for name in LAYERS if "density" in name]
    bits = dict.fromkeys(names, 5)
    whole = round_networks(field.groups(), network_samples(field), dict.fromkeys(LAYERS, 5))
    part = round_networks(field.groups(), network_samples(field), bits)
    assert sorted(part) == sorted(names) and len(names) < len(LAYERS)
    assert all(torch.equal(part[name].codes, whole[name].codes) for name in names)
    assert sorted(predicted_errors(field.groups(), network_samples(field), names, False)) == sorted(names)


def test_predicted_error_is_that_of_the_layer_alone() -> None:
    """Bits are shared out by these numbers: each must be what the network itself gives when one layer is rounded,
    weighted by samples and by squared gradients."""
    field, at = relu_field(), points()
    samples = samples_of(field, at)
    found = predicted_errors(field.groups(), {PREFIX: samples}, LAYERS, False)
    better = predicted_errors(field.groups(), {PREFIX: samples}, LAYERS, True)
    for name in LAYERS:
        assert list(found[name]) == list(CHOICES)
        for bits in (2, 5):
            changed = rounded_field(field, {name: bits}, None)
            errors = squared_errors(field, changed, name, at)
            expected = float((samples.rows[name].square() * errors).sum())
            # The bias is stored in half precision, too, which counts little.
            assert found[name][bits] == pytest.approx(expected, rel=0.05)
            assert better[name][bits] <= found[name][bits]


def test_relative_errors_by_hand() -> None:
    """Without samples a layer's noise counts by its signal, whatever its size; three bits have three levels."""
    layer = LayerTensors(torch.tensor([[3.0, -1.4], [0.0, 2.0]]), torch.zeros(2))
    large = LayerTensors(1024 * layer.weight, layer.bias)
    found = relative_errors({"a": layer, "b": large, "zero": LayerTensors(torch.zeros(1, 2), torch.zeros(1))})
    # Levels of the first row are 1 apart; the second has the scale 2 / 3, which half precision holds to three digits.
    assert found["a"][3] == pytest.approx(0.4**2 / (9 + 1.4**2 + 4), rel=1e-3)
    assert found["b"] == pytest.approx(found["a"], rel=1e-3) and set(found["zero"].values()) == {0.0}


def test_weight_that_no_scale_reaches_names_its_layer() -> None:
    """Of many layers, which one?"""
    field = relu_field()
    with torch.no_grad():
        field.layers()[LAYERS[2]].weight[0, 0] = 1e9
    samples = network_samples(field)
    tensors = {name: LayerTensors(layer.weight.detach(), layer.bias.detach()) for name, layer in field.layers().items()}
    for call in (
        lambda: round_networks(field.groups(), samples, dict.fromkeys(LAYERS, 4)),
        lambda: predicted_errors(field.groups(), samples, LAYERS, True),
        lambda: relative_errors(tensors),
    ):
        with pytest.raises(ValueError, match=f"{LAYERS[2]}.weight: a weight of 1e\\+09 is too large"):
            call()
