"""Thousands of tiny networks of one shape, as a few tensors with one row per network.

KiloNeRF, Reiser et al. 2021, arXiv 2103.13744; shapes as in its figure 2 but for what `shape.py` says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Optional

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from nerfstudio_prune.kilonerf.encoding import encode
from nerfstudio_prune.kilonerf.shape import NetworkShape

ALIGNED = 4
"""Columns of packed matrices are multiples of this: 16 bytes, as the native grouped product wants them."""


def aligned(width: int) -> int:
    """The next multiple of `ALIGNED`.

    Args:
        width: Columns.
    """
    return -(-width // ALIGNED) * ALIGNED


@dataclass(frozen=True, eq=False)
class Packed:
    """Networks for evaluation: few products, with the biases within the matrices.

    Each input ends in a column of ones, whose row of the matrix holds the bias; each matrix hands the one on. Behind it
    zeros fill up to a multiple of `ALIGNED`.
    """

    shape: NetworkShape
    """Sizes of the networks."""
    trunk: tuple[Float[Tensor, "networks _ _"], ...]
    """Hidden layers in front of the density."""
    head: Float[Tensor, "networks _ _"]
    """From trunk and direction to the colour's hidden layer, the one, and the density."""
    rgb: Float[Tensor, "networks _ _"]
    """To the colour."""

    def part(self, first: int, last: int) -> "Packed":
        """Some of the networks.

        Args:
            first: Number of the first.
            last: Number behind the last.
        """
        trunk = tuple(layer[first:last] for layer in self.trunk)
        return Packed(self.shape, trunk, self.head[first:last], self.rgb[first:last])


class _Seen:
    """Parameters as they were at one time.

    Args:
        parameters: The parameters.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.versions = [p._version for p in parameters]
        # Keeps the memory: another tensor cannot come to lie at the same address.
        self.values = [p.detach() for p in parameters]

    def holds(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether parameters are still these, with the values that they had.

        Args:
            parameters: The parameters.
        """
        return all(
            old is new and version == new._version and value.data_ptr() == new.data_ptr() and value.shape == new.shape
            for old, new, version, value in zip(self.parameters, parameters, self.versions, self.values, strict=True)
        )


class TinyNetworks(nn.Module):
    """Networks of one shape. All begin as one and the same random network, as KiloNeRF's do.

    Parameters, all of shape [networks, inputs, outputs], biases [networks, 1, outputs]: `w1`, `b1`, `w2`, ... of the
    trunk, `w_density`, `b_density`, `w_feature`, `w_direction`, `b_feature`, `w_rgb`, `b_rgb`.

    Args:
        num_networks: Number of networks, >= 0. None at all is what a model has before it knows its cells.
        shape: Their sizes.
        generator: Random numbers, of the CPU.
    """

    def __init__(self, num_networks: int, shape: NetworkShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        width, seen = shape.hidden_width, shape.direction_width
        inputs = shape.position_width
        for i in range(1, shape.num_layers + 1):
            self._add(num_networks, f"w{i}", f"b{i}", inputs, inputs, width, sqrt(6), generator)
            inputs = width
        self._add(num_networks, "w_density", "b_density", width, width, 1, sqrt(3), generator)
        self._add(num_networks, "w_feature", "b_feature", width, width + seen, width, sqrt(6), generator)
        self._add(num_networks, "w_direction", None, seen, width + seen, width, sqrt(6), generator)
        self._add(num_networks, "w_rgb", "b_rgb", width, width, 3, sqrt(3), generator)
        self._packed: Optional[tuple[_Seen, Packed]] = None

    def _add(
        self,
        count: int,
        weight: str,
        bias: Optional[str],
        inputs: int,
        fan_in: int,
        outputs: int,
        gain: float,
        generator: torch.Generator,
    ) -> None:
        # Uniform, so that activations keep their size (He et al. 2015, arXiv 1502.01852); biases begin at zero.
        drawn = (2 * torch.rand((1, inputs, outputs), generator=generator) - 1) * (gain / sqrt(fan_in))
        self.register_parameter(weight, nn.Parameter(drawn.repeat(count, 1, 1)))
        if bias is not None:
            self.register_parameter(bias, nn.Parameter(torch.zeros(count, 1, outputs)))

    @property
    def num_networks(self) -> int:
        """Number of networks."""
        return len(self._value("b_rgb"))

    def resize_(self, num_networks: int) -> None:
        """Makes room for another number of networks, of zeros; the parameters stay the objects that optimizers hold.

        Only for a model that is about to be loaded, and has no graph: see `docs/design.md`, edits and optimizers.

        Args:
            num_networks: Number of networks, >= 0.
        """
        self._packed = None
        for parameter in self.parameters():
            parameter.data = parameter.data.new_zeros(num_networks, *parameter.shape[1:])

    def train(self, mode: bool = True) -> "TinyNetworks":
        """Training or evaluation; either way the packed networks are made anew.

        Args:
            mode: Whether to train.
        """
        self._packed = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        # Neither copies nor files need what is packed.
        return {**self.__dict__, "_packed": None}

    def _value(self, name: str) -> Tensor:
        # Not `get_parameter`, which refuses what `torch.func.functional_call` puts in place of a parameter.
        return getattr(self, name)

    def _layer(self, i: int) -> tuple[Tensor, Tensor]:
        return self._value(f"w{i}"), self._value(f"b{i}")

    def batched(
        self, positions: Float[Tensor, "networks points 3"], directions: Float[Tensor, "networks points 3"]
    ) -> tuple[Float[Tensor, "networks points"], Float[Tensor, "networks points 3"]]:
        """Density and colour where every network is asked for equally many points, as in distilling.

        Args:
            positions: Coordinates in the networks' own cells, in [-1, 1].
            directions: Directions of length 1.

        Returns:
            Density per unit of length, >= 0; colour in [0, 1].
        """
        hidden = encode(positions, self.shape.position_frequencies)
        for i in range(1, self.shape.num_layers + 1):
            weight, bias = self._layer(i)
            hidden = torch.baddbmm(bias, hidden, weight).relu_()
        density = torch.baddbmm(self._value("b_density"), hidden, self._value("w_density"))
        feature = torch.baddbmm(self._value("b_feature"), hidden, self._value("w_feature"))
        seen = encode(directions, self.shape.direction_frequencies)
        feature = torch.baddbmm(feature, seen, self._value("w_direction")).relu_()
        rgb = torch.baddbmm(self._value("b_rgb"), feature, self._value("w_rgb"))
        return softplus(density[..., 0]), rgb.sigmoid()

    def pack(self) -> Packed:
        """The networks for evaluation. Gradients reach the parameters; without them the result is kept.

        It is kept until a parameter changes, the mode is set by `train` or `eval`, or networks are packed with
        gradients. Fused optimizers and writes through `.data` change values without a trace: after the former one of
        the other two has to come, as it does in training; the latter are not seen.
        """
        parameters = list(self.parameters())
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            self._packed = None
            return self._pack()
        if self._packed is not None and self._packed[0].holds(parameters):
            return self._packed[1]
        self._packed = None  # the old one leaves before the new one comes
        packed = self._pack()
        # What is made in inference mode may take part in no graph later.
        if not torch.is_inference_mode_enabled():
            self._packed = (_Seen(parameters), packed)
        return packed

    def _pack(self) -> Packed:
        trunk = tuple(_with_bias(*self._layer(i)) for i in range(1, self.shape.num_layers + 1))
        feature = _with_bias(self._value("w_feature"), self._value("b_feature"), 1)
        density = torch.cat([self._value("w_density"), self._value("b_density")], dim=1)
        seen = self._value("w_direction")
        width = self.shape.hidden_width
        # The density's column follows the one.
        density = pad(density, (width + 1, feature.shape[2] - width - 2, 0, feature.shape[1] - width - 1))
        seen = pad(seen, (0, feature.shape[2] - width, 0, aligned(seen.shape[1]) - seen.shape[1]))
        head = torch.cat([feature + density, seen], dim=1)
        rgb = torch.cat([self._value("w_rgb"), self._value("b_rgb")], dim=1)
        rgb = pad(rgb, (0, ALIGNED - 3, 0, head.shape[2] - width - 1))
        return Packed(self.shape, trunk, head, rgb)


def _with_bias(
    weight: Float[Tensor, "networks inputs outputs"], bias: Float[Tensor, "networks 1 outputs"], room: int = 0
) -> Float[Tensor, "networks _ _"]:
    """A matrix with the bias as a row and a column that hands the one on, and room for so many more columns."""
    inputs, outputs = weight.shape[1:]
    columns, rows = aligned(outputs + 1 + room), aligned(inputs + 1)
    matrix = pad(torch.cat([weight, bias], dim=1), (0, columns - outputs, 0, rows - inputs - 1))
    one = torch.zeros(rows, columns, dtype=weight.dtype, device=weight.device)
    one[inputs, outputs] = 1
    return matrix + one
