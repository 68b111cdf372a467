"""Networks that need fewer neurons get fewer: scores of all networks at once, each on its own examples, cut and refit.

None of the papers on grids of tiny networks does this. Hidden layers of a network have one width, of a few classes, so
that networks of a class stay in one stack of tensors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.distillation import RGB_FLOOR, opacity
from nerfstudio_prune.kilonerf.elimination import Moments, eliminate, refit
from nerfstudio_prune.kilonerf.encoding import encode
from nerfstudio_prune.kilonerf.networks import TinyNetworks
from nerfstudio_prune.kilonerf.shape import NetworkShape

RIDGE = 1e-4
"""Share of the mean squared input by which the refit draws weights to their present values."""
NETWORKS_AT_ONCE = 64
"""Networks whose activations are held at once."""

Weights = Mapping[str, Tensor]
"""Parameters of some networks by name, as in `TinyNetworks`."""


@dataclass(frozen=True)
class _Layer:
    """A layer that reads the neurons of another one."""

    weight: str
    """Name of its weights; its pre-activations go by the same name."""
    bias: str
    """Name of its biases."""
    reads_direction: bool = False
    """Whether it reads the direction as well."""


@dataclass(frozen=True)
class _Axis:
    """Neurons of one hidden layer."""

    producer: str
    """Name of the weights that give them."""
    also: tuple[str, ...]
    """Names of further parameters with a column for each neuron."""
    readers: tuple[_Layer, ...]
    """Layers that read them."""


def _axes(num_layers: int) -> list[_Axis]:
    """Hidden layers, front to back."""
    axes = [_Axis(f"w{i}", (f"b{i}",), (_Layer(f"w{i + 1}", f"b{i + 1}"),)) for i in range(1, num_layers)]
    heads = (_Layer("w_density", "b_density"), _Layer("w_feature", "b_feature", True))
    axes.append(_Axis(f"w{num_layers}", (f"b{num_layers}",), heads))
    axes.append(_Axis("w_feature", ("b_feature", "w_direction"), (_Layer("w_rgb", "b_rgb"),)))
    return axes


def _forward(
    weights: Weights, num_layers: int, encoded: Float[Tensor, "n points _"], seen: Float[Tensor, "n points _"]
) -> dict[str, Float[Tensor, "n points _"]]:
    """Pre-activations of all layers, by the name of the weights that give them."""
    found, hidden = {}, encoded
    for i in range(1, num_layers + 1):
        found[f"w{i}"] = hidden @ weights[f"w{i}"] + weights[f"b{i}"]
        hidden = found[f"w{i}"].relu()
    found["w_density"] = hidden @ weights["w_density"] + weights["b_density"]
    found["w_feature"] = hidden @ weights["w_feature"] + seen @ weights["w_direction"] + weights["b_feature"]
    found["w_rgb"] = found["w_feature"].relu() @ weights["w_rgb"] + weights["b_rgb"]
    return found


def _sensitivities(
    outputs: Mapping[str, Float[Tensor, "n points _"]], step_size: float
) -> dict[str, Float[Tensor, "n _"]]:
    """How much a squared error of each pre-activation counts in the loss of distillation, to first order.

    The mean over the points of the squared derivatives of the opacity and of the weighted colour: the diagonal of the
    Gauss-Newton matrix. Errors of all layers and networks are then of one unit and may be added.
    """
    alpha = opacity(nn.functional.softplus(outputs["w_density"][..., 0]), step_size)
    colour = outputs["w_rgb"].sigmoid() * (alpha.detach() + RGB_FLOOR).sqrt()[..., None]
    names = list(outputs)
    found = {name: torch.zeros_like(value[:, 0]) for name, value in outputs.items()}
    for value in (alpha, *colour.unbind(dim=-1)):
        gradients = torch.autograd.grad(
            value.sum(), [outputs[name] for name in names], retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                found[name] += gradient.square().mean(dim=1)
    return found


def _moments(
    axis: _Axis,
    weights: Weights,
    present: Mapping[str, Float[Tensor, "n points _"]],
    wanted: Mapping[str, Float[Tensor, "n points _"]],
    rows: Mapping[str, Float[Tensor, "n _"]],
    seen: Float[Tensor, "n points _"],
) -> list[Moments]:
    """Moments of the layers that read an axis."""
    neurons = present[axis.producer].relu()
    found = []
    for layer in axis.readers:
        others = [torch.ones_like(neurons[..., :1])]
        matrix = [weights[layer.bias], weights[layer.weight]]
        if layer.reads_direction:
            others, matrix = [seen, *others], [weights["w_direction"], *matrix]
        inputs, fixed = torch.cat([*others, neurons], dim=-1), sum(part.shape[-1] for part in others)
        found.append(Moments.of(inputs, torch.cat(matrix, dim=1), wanted[layer.weight], rows[layer.weight], fixed))
    return found


@dataclass(frozen=True, eq=False)
class _Part:
    """Some networks of a stack, with what they are asked for and what they give before anything is cut."""

    rows: Int64[Tensor, " n"]
    """Their rows in the stack."""
    weights: dict[str, Tensor]
    """Their parameters."""
    encoded: Float[Tensor, "n points _"]
    """Encoded positions."""
    seen: Float[Tensor, "n points _"]
    """Encoded directions."""
    outputs: dict[str, Tensor]
    """Their pre-activations."""
    sensitivities: dict[str, Tensor]
    """How much a squared error of each counts."""


def _parts(
    stack: TinyNetworks,
    rows: Int64[Tensor, " asked"],
    positions: Float[Tensor, "asked points 3"],
    directions: Float[Tensor, "asked points 3"],
    step_size: float,
) -> Iterator[_Part]:
    """Networks of a stack, some at a time."""
    shape = stack.shape
    for begin in range(0, len(rows), NETWORKS_AT_ONCE):
        part = slice(begin, begin + NETWORKS_AT_ONCE)
        weights = {name: value.detach()[rows[part]] for name, value in stack.named_parameters()}
        encoded = encode(positions[part], shape.position_frequencies)
        seen = encode(directions[part], shape.direction_frequencies)
        with torch.enable_grad():
            tracked = {name: value.clone().requires_grad_() for name, value in weights.items()}
            outputs = _forward(tracked, shape.num_layers, encoded, seen)
            sensitivities = _sensitivities(outputs, step_size)
        given = {name: value.detach() for name, value in outputs.items()}
        yield _Part(rows[part], weights, encoded, seen, given, sensitivities)


@torch.no_grad()
def width_errors(
    networks: NetworkClasses,
    positions: Float[Tensor, "networks points 3"],
    directions: Float[Tensor, "networks points 3"],
    widths: Sequence[int],
    step_size: float,
    ridge: float = RIDGE,
) -> Float[Tensor, "networks widths"]:
    """Error that each network would have at each width: score `obs` of every hidden layer, with refit.

    An estimate of the increase of the loss of distillation, by the diagonal of the Gauss-Newton matrix of the
    pre-activations, its mean over the points; hidden layers are added up as if each were cut alone.
    Measured it is 0.6 to 3.3 times the real increase of the loss, 1.3 to 1.7 times in the median.

    Args:
        networks: The networks.
        positions: Coordinates in the networks' own cells: examples of each network.
        directions: Directions of length 1.
        widths: Widths, each at least 1.
        step_size: Length of the step that opacity is that of.
        ridge: As `eliminate`.

    Returns:
        Errors in float64; 0 at the present width, infinite above it.

    Raises:
        ValueError: If a width is below 1, or there are no examples.
    """
    _check(positions, widths)
    errors = torch.full((networks.num_networks, len(widths)), torch.inf, dtype=torch.float64)
    errors = errors.to(positions.device)
    for stack, members in _members(networks):
        present = stack.shape.hidden_width
        asked = [k for k, width in enumerate(widths) if width < present]
        own = errors.new_full((len(members), len(widths)), torch.inf)
        own[:, [k for k, width in enumerate(widths) if width == present]] = 0.0
        rows = torch.arange(len(members), device=members.device)
        if asked:
            own[:, asked] = 0.0
            least = min(widths[k] for k in asked)
            for part in _parts(stack, rows, positions[members], directions[members], step_size):
                for axis in _axes(stack.shape.num_layers):
                    moments = _moments(axis, part.weights, part.outputs, part.outputs, part.sensitivities, part.seen)
                    curve = eliminate(moments, least, ridge).errors
                    for k in asked:
                        own[part.rows, k] += curve[:, present - widths[k]]
        errors[members] = own
    return errors


def _members(networks: NetworkClasses) -> Iterator[tuple[TinyNetworks, Int64[Tensor, " members"]]]:
    """Each stack with the numbers of its networks, in the order of its rows."""
    yield from zip(networks, networks.position.argsort().split(networks.counts), strict=True)


def _check(positions: Float[Tensor, "networks points 3"], widths: Sequence[int]) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(f"grid.narrow_widths must be at least 1 each, got {list(widths)}")
    if not positions.shape[1]:
        raise ValueError("narrowing needs at least one example for each network, got none")


@torch.no_grad()
def narrowed(
    networks: NetworkClasses,
    widths: Int64[Tensor, " networks"],
    positions: Float[Tensor, "networks points 3"],
    directions: Float[Tensor, "networks points 3"],
    step_size: float,
    classes: Sequence[int] = (),
    ridge: float = RIDGE,
) -> NetworkClasses:
    """Networks cut to given widths: hidden layer by hidden layer, front to back; what reads a layer is refitted.

    Neurons are scored anew on what the layers in front, cut already, give; each refit is towards what the uncut network
    gives. Networks that keep their width keep their weights. The parameters are new ones: optimizers start anew with
    them.

    Args:
        networks: The networks; they stay as they are.
        widths: Hidden width that each network is to have, at most its present one.
        positions: Coordinates in the networks' own cells: examples of each network.
        directions: Directions of length 1.
        step_size: Length of the step that opacity is that of.
        classes: Widths for which there is to be a stack, if only an empty one.
        ridge: As `refit`.

    Raises:
        ValueError: If a width is below 1 or above the present one, or there are no examples.
    """
    _check(positions, widths.tolist() or [1])
    above = widths > networks.widths
    if bool(above.any()):
        raise ValueError(f"networks only become narrower; {int(above.sum())} of {len(widths)} would become wider")
    sizes = sorted({*widths.tolist(), *classes})
    found: dict[int, list[tuple[Tensor, Weights]]] = {size: [] for size in sizes}
    for stack, members in _members(networks):
        for size in sizes:
            rows = (widths[members] == size).nonzero()[:, 0]
            chosen = members[rows]
            if size == stack.shape.hidden_width:
                found[size].append((chosen, {n: v.detach()[rows] for n, v in stack.named_parameters()}))
                continue
            done = 0
            for part in _parts(stack, rows, positions[chosen], directions[chosen], step_size):
                numbers = chosen[done : done + len(part.rows)]
                found[size].append((numbers, _cut(part, stack.shape, size, ridge)))
                done += len(part.rows)
    shape, device = networks.shapes[0], networks.position.device
    stacks, order = [], []
    for size in sizes:
        numbers = [members for members, _ in found[size]]
        stack = TinyNetworks(sum(map(len, numbers)), shape.with_width(size), torch.Generator()).to(device)
        for name, parameter in stack.named_parameters():
            if numbers:
                parameter.copy_(torch.cat([weights[name] for _, weights in found[size]]))
        stacks.append(stack)
        order += numbers
    members = torch.cat(order) if order else torch.zeros(0, dtype=torch.int64, device=device)
    return NetworkClasses(stacks, members.argsort().int())


def _cut(part: _Part, shape: NetworkShape, width: int, ridge: float) -> dict[str, Tensor]:
    """Parameters of some networks of one stack, cut to one width."""
    weights = dict(part.weights)
    for axis in _axes(shape.num_layers):
        # Layers that read an axis come behind it and are whole, as are their sensitivities.
        present = _forward(weights, shape.num_layers, part.encoded, part.seen)
        moments = _moments(axis, weights, present, part.outputs, part.sensitivities, part.seen)
        keep = eliminate(moments, width, ridge).kept(shape.hidden_width)
        for layer, moment in zip(axis.readers, moments, strict=True):
            fitted = refit(moment, keep, ridge).to(weights[layer.weight])
            seen, weights[layer.bias], weights[layer.weight] = fitted.split([moment.fixed - 1, 1, keep.shape[1]], dim=1)
            if layer.reads_direction:
                weights["w_direction"] = seen
        for name in (axis.producer, *axis.also):
            columns = keep[:, None].expand(-1, weights[name].shape[1], -1)
            weights[name] = weights[name].gather(2, columns)
    return weights
