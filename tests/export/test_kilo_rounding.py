"""Thousands of tiny networks rounded at once: each as if it were alone, and by what it is asked for."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from support.exported_kilo import SHAPE
from torch import Tensor
from torch.nn.functional import normalize

from nerfstudio_prune.export.kilo_network import StackLayers, preactivations
from nerfstudio_prune.export.kilo_rounding import relative_stack_errors, round_stack, stack_errors
from nerfstudio_prune.export.kilo_samples import NetworkSamples
from nerfstudio_prune.export.layers import LayerTensors, RoundedLayer
from nerfstudio_prune.export.network_rounding import CHOICES, relative_errors
from nerfstudio_prune.export.rounding import dequantize, quantize
from nerfstudio_prune.kilonerf.encoding import encode

NETWORKS, POINTS = 5, 96
COLUMNS = {"hidden.0": (8, 15), "hidden.1": (8, 8), "density": (1, 8), "feature": (8, 17), "colour": (3, 8)}


def stack() -> dict[str, tuple[Tensor, Tensor]]:
    """Layers of some networks."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: (
            torch.randn(NETWORKS, *shape, generator=generator) * 0.7,
            torch.randn(NETWORKS, shape[0], generator=generator),
        )
        for name, shape in COLUMNS.items()
    }


def drawn() -> NetworkSamples:
    """Samples; the last network has none, the one before it half as many."""
    generator = torch.Generator().manual_seed(4)
    share = torch.full((NETWORKS, POINTS), 2.0)
    share[-2, POINTS // 2 :] = share[-1] = 0
    return NetworkSamples(
        2 * torch.rand(NETWORKS, POINTS, 3, generator=generator) - 1,
        normalize(torch.randn(NETWORKS, POINTS, 3, generator=generator), dim=-1),
        torch.full((NETWORKS, POINTS), 0.3),
        torch.randn(NETWORKS, POINTS, generator=generator),
        torch.randn(NETWORKS, POINTS, 3, generator=generator) * 0.5,
        share,
    )


def shown(layers: StackLayers, samples: NetworkSamples) -> Tensor:
    """What each sample adds to its ray, to first order in its opacity and colour, as a plain loop over networks."""
    found = []
    for i in range(NETWORKS):
        values: Any = {name: (weight[i], bias[i]) for name, (weight, bias) in layers.items()}
        trunk = encode(samples.positions[i], SHAPE.position_frequencies)
        for name in ("hidden.0", "hidden.1"):
            trunk = (trunk @ values[name][0].T + values[name][1]).relu()
        density = torch.nn.functional.softplus(trunk @ values["density"][0].T + values["density"][1])[:, 0]
        seen = torch.cat([trunk, encode(samples.directions[i], SHAPE.direction_frequencies)], dim=1)
        feature = (seen @ values["feature"][0].T + values["feature"][1]).relu()
        colour = (feature @ values["colour"][0].T + values["colour"][1]).sigmoid()
        alpha = 1 - torch.exp(-density * samples.lengths[i])
        found.append(alpha * samples.opacity[i] + (colour * samples.colour[i]).sum(dim=1))
    return torch.stack(found)


def values_of(rounded: Mapping[str, RoundedLayer], bits: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Layers as a reader has them."""
    found = {}
    for name, layer in rounded.items():
        weights = []
        for i, (codes, scales) in enumerate(
            zip(layer.codes.chunk(NETWORKS), layer.scales.chunk(NETWORKS), strict=True)
        ):
            weights.append(dequantize(codes, scales, int(bits[name][i])))
        found[name] = torch.stack(weights), layer.bias.float().view(NETWORKS, -1)
    return found


def test_predicted_error_is_that_of_the_layer_alone() -> None:
    """Bits are shared out by these numbers: each is what one network with one rounded layer does to the rays, and
    nothing where no ray meets it."""
    layers, samples = stack(), drawn()
    found = stack_errors(layers, samples, SHAPE, False)
    before = shown(layers, samples)
    for name, (weight, bias) in layers.items():
        for column, bits in ((0, 2), (3, 5)):
            codes, scales = quantize(weight.flatten(0, 1), bits)
            changed = dequantize(codes, scales, bits).view(weight.shape), bias.half().float()
            expected = ((shown({**layers, name: changed}, samples) - before).square() * samples.share).sum(dim=1)
            torch.testing.assert_close(found[name][:, column].float(), expected, rtol=1e-3, atol=1e-6)
        assert found[name].shape == (NETWORKS, len(CHOICES)) and not bool(found[name][-1].any())


def test_errors_are_made_up_for() -> None:
    """By what is left of the layer, and by the layers behind it: of the whole network far less is lost than by the
    nearest levels, in each network that is asked for anything."""
    layers, samples = stack(), drawn()
    bits = {name: torch.full((NETWORKS,), 4) for name in layers}
    before = shown(layers, samples)
    nearest = {}
    for name, (weight, bias) in layers.items():
        codes, scales = quantize(weight.flatten(0, 1), 4)
        nearest[name] = dequantize(codes, scales, 4).view(weight.shape), bias
    ways = values_of(round_stack(layers, samples, SHAPE, bits), bits), nearest
    made_up, lost = (((shown(way, samples) - before).square() * samples.share).sum(dim=1)[:-1] for way in ways)
    assert bool((made_up < 0.5 * lost).all())


def test_each_network_is_rounded_as_if_it_were_alone() -> None:
    """With bits of its own, whichever stand beside it; a network that no ray meets is rounded as well."""
    layers, samples = stack(), drawn()
    generator = torch.Generator().manual_seed(5)
    bits = {name: torch.randint(2, 9, (NETWORKS,), generator=generator) for name in layers}
    found = round_stack(layers, samples, SHAPE, bits)
    for i in range(NETWORKS):
        one = torch.tensor([i])
        alone = round_stack(
            {name: (weight[one], bias[one]) for name, (weight, bias) in layers.items()},
            samples.of(one),
            SHAPE,
            {name: own[one] for name, own in bits.items()},
        )
        for name, layer in alone.items():
            rows = slice(i * len(layer.bias), (i + 1) * len(layer.bias))
            assert float((found[name].codes[rows] == layer.codes).float().mean()) > 0.99
            assert int(found[name].codes[rows].max()) <= 2 ** int(bits[name][i]) - 2


def test_without_samples_weights_tell() -> None:
    """As for one large network, network by network."""
    layers = stack()
    found = relative_stack_errors(layers)
    for name, (weight, bias) in layers.items():
        expected = relative_errors({"a": LayerTensors(weight[1], bias[1])})["a"]
        assert found[name][1].tolist() == pytest.approx([expected[bits] for bits in CHOICES], rel=1e-5)


def test_layer_reads_what_the_network_gives_it() -> None:
    """The order of the layers is that of a file; the reference is a plain loop."""
    layers, samples = stack(), drawn()
    encoded, seen = encode(samples.positions, SHAPE.position_frequencies), encode(samples.directions, 1)
    outputs = preactivations(layers, encoded, seen)
    alpha = 1 - torch.exp(-torch.nn.functional.softplus(outputs["density"][..., 0]) * samples.lengths)
    colour = (outputs["colour"].sigmoid() * samples.colour).sum(dim=-1)
    torch.testing.assert_close(alpha * samples.opacity + colour, shown(layers, samples), rtol=1e-4, atol=1e-5)


def test_weight_that_no_scale_reaches_names_its_layer() -> None:
    """Of many layers, which one?"""
    layers, samples = stack(), drawn()
    layers["feature"][0][1, 0, 0] = 1e9
    for call in (
        lambda: stack_errors(layers, samples, SHAPE, True),
        lambda: relative_stack_errors(layers),
        lambda: round_stack(layers, samples, SHAPE, {name: torch.full((NETWORKS,), 4) for name in layers}),
    ):
        with pytest.raises(ValueError, match=r"feature.weight: a weight of 1e\+09 is too large"):
            call()
