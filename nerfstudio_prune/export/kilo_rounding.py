"""Rounds the layers of thousands of tiny networks, each by its own samples, and tells beforehand what that would cost.

The ways of `compensation.py`, with the networks in front of every tensor.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float16, Int64, UInt8
from torch import Tensor
from torch.nn.functional import pad, softplus

from nerfstudio_prune.export.compensation import DAMPING
from nerfstudio_prune.export.kilo_network import StackLayer, StackLayers, preactivation, preactivations, reads
from nerfstudio_prune.export.kilo_samples import NetworkSamples
from nerfstudio_prune.export.layers import RoundedLayer
from nerfstudio_prune.export.network_rounding import CHOICES, named
from nerfstudio_prune.export.rounding import (
    dequantize,
    largest_level,
    quantize,
    row_scales,
    short_bias,
    short_scales,
    to_codes,
)
from nerfstudio_prune.kilonerf.distillation import opacity
from nerfstudio_prune.kilonerf.elimination import Moments
from nerfstudio_prune.kilonerf.encoding import encode
from nerfstudio_prune.kilonerf.shape import NetworkShape

NETWORKS_AT_ONCE = 256
"""Networks whose activations are held at once."""
FLOOR = 0.05
"""Share of the weight that is spread evenly over the samples of a network, so that empty space stays empty."""


@dataclass(frozen=True, eq=False)
class _Rounded:
    """One layer of some networks."""

    codes: UInt8[Tensor, "networks rows columns"]
    scales: Float16[Tensor, "networks rows"]
    bias: Float16[Tensor, "networks rows"]

    def values(self, bits: int) -> StackLayer:
        """The layer that codes of so many bits stand for."""
        weight = dequantize(self.codes.flatten(0, 1), self.scales.flatten(), bits)
        return weight.view(self.codes.shape), self.bias.float()


@dataclass(frozen=True, eq=False)
class _Part:
    """Some networks, what they are asked for and what they give before anything is rounded."""

    layers: StackLayers
    samples: NetworkSamples
    encoded: Float[Tensor, "networks points _"]
    seen: Float[Tensor, "networks points _"]
    outputs: Mapping[str, Float[Tensor, "networks points rows"]]
    weights: Mapping[str, Float[Tensor, "networks points"]]
    """Name of each layer -> how much an error of what it gives counts."""


@torch.no_grad()
def round_stack(
    layers: StackLayers, samples: NetworkSamples, shape: NetworkShape, bits: Mapping[str, Int64[Tensor, " networks"]]
) -> dict[str, RoundedLayer]:
    """Rounds the layers of networks of one width front to back with compensation.

    Each layer reads what those before it give once they are rounded, and is to compute what it did before.

    Args:
        layers: Their layers.
        samples: Samples of these networks, in the same order.
        shape: Their sizes.
        bits: Name of each layer -> bits of each network, in [2, 8].

    Returns:
        Name of each layer -> its numbers, the rows of one network after the other.

    Raises:
        ValueError: If a weight is too large for a scale in half precision; names the layer.
    """
    found: dict[str, list[_Rounded]] = {name: [] for name in layers}
    done = 0
    for part in _parts(layers, samples, shape):
        now: dict[str, Tensor] = {}
        own = slice(done, done + len(part.samples.share))
        for name, layer in part.layers.items():
            inputs = reads(name, now, part.encoded, part.seen)
            moments = _moments(layer, inputs, part.outputs[name], part.weights[name])
            weight, bias = layer[0].clone(), layer[1].clone()
            rounded = _Rounded(torch.zeros_like(weight, dtype=torch.uint8), bias.half(), bias.half())
            for some in bits[name][own].unique().tolist():
                rows = (bits[name][own] == some).nonzero()[:, 0]
                each = _round(name, (layer[0][rows], layer[1][rows]), _of(moments, rows), some, True)
                weight[rows], bias[rows] = each.values(some)
                rounded.codes[rows], rounded.scales[rows], rounded.bias[rows] = each.codes, each.scales, each.bias
            now[name] = preactivation((weight, bias), inputs)
            found[name].append(rounded)
        done = own.stop
    return {
        name: RoundedLayer(
            torch.cat([one.codes for one in parts]).flatten(0, 1),
            torch.cat([one.scales for one in parts]).flatten(),
            torch.cat([one.bias for one in parts]).flatten(),
        )
        for name, parts in found.items()
    }


@torch.no_grad()
def stack_errors(
    layers: StackLayers, samples: NetworkSamples, shape: NetworkShape, compensated: bool
) -> dict[str, Float[Tensor, "networks choices"]]:
    """What rounding each layer of each network alone would add to the squared error of the colours of all rays.

    The layer is really rounded, the network really evaluated. What its samples do to the ray is their derivative times
    the change of opacity and colour, which is exact for one sample; samples are added up as if their errors had nothing
    to do with each other.

    Args:
        layers: Layers of networks of one width.
        samples: Samples of these networks, in the same order.
        shape: Their sizes.
        compensated: Whether errors are handed on; else every weight goes to the nearest level.

    Returns:
        Name of each layer -> error of each network at each number of bits, see `CHOICES`.

    Raises:
        ValueError: As `round_stack`.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    for part in _parts(layers, samples, shape):
        before = _shown(part.outputs, part.samples.lengths)
        for name, layer in part.layers.items():
            inputs = reads(name, part.outputs, part.encoded, part.seen)
            moments = _moments(layer, inputs, part.outputs[name], part.weights[name])
            errors = []
            for bits in CHOICES:
                rounded = _round(name, layer, moments, bits, compensated).values(bits)
                after = preactivations({**part.layers, name: rounded}, part.encoded, part.seen)
                alpha, rgb = _shown(after, part.samples.lengths)
                change = (alpha - before[0]) * part.samples.opacity
                change += ((rgb - before[1]) * part.samples.colour).sum(dim=-1)
                errors.append((change.double().square() * part.samples.share).sum(dim=1))
            found[name].append(torch.stack(errors, dim=1))
    return {name: torch.cat(parts) for name, parts in found.items()}


def relative_stack_errors(layers: StackLayers) -> dict[str, Float[Tensor, "networks choices"]]:
    """What rounding to nearest would cost, as far as weights tell: see `network_rounding.relative_errors`.

    Args:
        layers: Layers of networks of one width.

    Returns:
        Name of each layer -> error of each network at each number of bits.

    Raises:
        ValueError: As `round_stack`.
    """
    found = {}
    for name, (weight, bias) in layers.items():
        total = weight.double().square().sum(dim=(1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
        changes = [_nearest(name, (weight, bias), bits).values(bits)[0].double() - weight for bits in CHOICES]
        found[name] = torch.stack([change.square().sum(dim=(1, 2)) / total for change in changes], dim=1)
    return found


def _shown(
    outputs: Mapping[str, Tensor], lengths: Float[Tensor, "networks points"]
) -> tuple[Float[Tensor, "networks points"], Float[Tensor, "networks points 3"]]:
    """Opacity and colour of samples."""
    return opacity(softplus(outputs["density"][..., 0]) * lengths, 1.0), outputs["colour"].sigmoid()


def _parts(layers: StackLayers, samples: NetworkSamples, shape: NetworkShape) -> Iterator[_Part]:
    """Some networks at a time, with how much errors count: the norm of the derivative of the ray's colour."""
    for rows in torch.arange(len(samples.share)).split(NETWORKS_AT_ONCE):
        own = samples.of(rows)
        encoded = encode(own.positions, shape.position_frequencies)
        seen = encode(own.directions, shape.direction_frequencies)
        some = {name: (weight[rows], bias[rows]) for name, (weight, bias) in layers.items()}
        with torch.enable_grad():
            tracked = {name: (weight, bias.clone().requires_grad_()) for name, (weight, bias) in some.items()}
            outputs = preactivations(tracked, encoded, seen)
            alpha, rgb = _shown(outputs, own.lengths)
            colour = (alpha * own.opacity).sum() + (rgb * own.colour).sum()
            gradients = torch.autograd.grad(colour, list(outputs.values()))
        weights = {}
        for name, gradient in zip(outputs, gradients, strict=True):
            size = gradient.norm(dim=-1) * (own.share > 0)
            mean = size.sum(dim=1, keepdim=True) / (own.share > 0).sum(dim=1, keepdim=True).clamp(min=1)
            relative = torch.where(mean > 0, size / mean.clamp(min=torch.finfo(mean.dtype).tiny), 1.0)
            weights[name] = ((1 - FLOOR) * relative + FLOOR) * own.share
        yield _Part(some, own, encoded, seen, {name: value.detach() for name, value in outputs.items()}, weights)


def _moments(
    layer: StackLayer,
    inputs: Float[Tensor, "networks points columns"],
    wanted: Float[Tensor, "networks points rows"],
    weights: Float[Tensor, "networks points"],
) -> Moments:
    """Weighted moments of what a layer reads, the constant of the bias last."""
    root = weights.sqrt()[..., None]
    weight, bias = layer
    matrix = torch.cat([weight.transpose(1, 2), bias[:, None]], dim=1)
    read = torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)
    return Moments.of(read * root, matrix, wanted * root, torch.ones_like(bias), matrix.shape[1])


def _of(moments: Moments, rows: Int64[Tensor, " some"]) -> Moments:
    """Those of some networks."""
    weight, gram, residual, outputs = (
        value[rows] for value in (moments.weight, moments.gram, moments.residual, moments.rows)
    )
    return Moments(weight, gram, residual, outputs, moments.fixed)


def _round(name: str, layer: StackLayer, moments: Moments, bits: int, compensated: bool) -> _Rounded:
    """A layer of some networks, row by row by that of the two ways which is better on the samples."""
    nearest = _nearest(name, layer, bits)
    if not compensated:
        return nearest
    other = _compensated(name, moments, bits)
    better = _errors(moments, other, bits) < _errors(moments, nearest, bits)
    return _Rounded(
        torch.where(better[..., None], other.codes, nearest.codes),
        torch.where(better, other.scales, nearest.scales),
        torch.where(better, other.bias, nearest.bias),
    )


def _nearest(name: str, layer: StackLayer, bits: int) -> _Rounded:
    weight, bias = layer
    with named(name):
        codes, scales = quantize(weight.flatten(0, 1), bits)
    return _Rounded(codes.view(weight.shape), scales.view(bias.shape), bias.half())


def _errors(moments: Moments, rounded: _Rounded, bits: int) -> Float[Tensor, "networks rows"]:
    """How much the weighted mean squared error of each output grows."""
    levels = rounded.codes.double() - largest_level(bits)
    matrix = torch.cat([levels * rounded.scales.double()[..., None], rounded.bias.double()[..., None]], dim=2)
    change = matrix.transpose(1, 2) - moments.weight
    return ((moments.gram @ change) * change).sum(dim=1) - 2 * (change * moments.residual).sum(dim=1)


def _compensated(name: str, moments: Moments, bits: int) -> _Rounded:
    """See `compensation.compensate`. Scales and biases are short: of small layers they are a large part."""
    regular = moments.regularised(DAMPING)
    networks, inputs, rows = moments.weight.shape
    # The constant comes last: the bias is no code, and whatever is left can go there.
    diagonal = regular.diagonal(dim1=1, dim2=2)[:, :-1]
    order = pad(diagonal.argsort(dim=1, descending=True, stable=True), (0, 1), value=inputs - 1)
    each = torch.arange(networks)[:, None]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(regular[each[..., None], order[:, :, None], order[:, None]]))
    weights = moments.weight[each, order] + inverse @ moments.residual[each, order]
    with named(name):
        scales = short_scales(row_scales(weights[:, :-1].transpose(1, 2).flatten(0, 1), bits))
    factor = torch.linalg.cholesky(inverse, upper=True)
    found = torch.zeros(networks, inputs - 1, rows, dtype=torch.uint8)
    for i in range(inputs - 1):
        column = weights[:, i].clone()
        codes = to_codes(column.flatten()[:, None], scales, bits).view(networks, rows)
        error = column - (codes.double() - largest_level(bits)) * scales.double().view(networks, rows)
        weights[:, i:] -= (factor[:, i, i:] / factor[:, i, i, None])[..., None] * error[:, None]
        found[:, i] = codes
    back = order[:, :-1].argsort(dim=1)
    bias = short_bias(weights[:, -1].flatten(), scales)
    return _Rounded(found[each, back].transpose(1, 2), scales.view(networks, rows), bias.view(networks, rows))
