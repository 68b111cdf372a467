"""A field as a plain network from tensors to tensors, for libraries that trace one."""

import torch
from jaxtyping import Float
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from torch import Tensor, nn


class TraceableField(nn.Module):
    """A field from encoded inputs to the heads' outputs before their activations, as Torch-Pruning can trace it.

    Torch-Pruning reads its graph off autograd and does not see a raw input. At a concatenation with one it installs no
    offset, and then removes columns of the input in place of those of the neurons. An input that has passed through a
    linear layer is seen, with its width.

    Args:
        field: Field; its layers are shared, not copied.
        input_layers: Whether the inputs pass through identity layers. False shows the library's behaviour without.
    """

    def __init__(self, field: NeRFField, input_layers: bool = True) -> None:
        super().__init__()
        self.field = field
        device = next(field.parameters()).device
        self.widths = (field.position_encoding.get_out_dim(), field.direction_encoding.get_out_dim())
        self.position_path, self.direction_path = (
            _identity_layer(width).to(device) if input_layers else nn.Identity() for width in self.widths
        )

    def fixed_layers(self) -> list[nn.Module]:
        """Layers whose outputs are no neurons: the inputs' and the heads' own."""
        outputs = [self.field.field_output_density.net, self.field.field_heads[0].net]
        return [layer for layer in (*outputs, self.position_path, self.direction_path) if isinstance(layer, nn.Linear)]

    def example_inputs(self, points: int) -> tuple[Float[Tensor, "points position"], Float[Tensor, "points direction"]]:
        """Inputs in the range of the encodings, always the same."""
        generator = torch.Generator().manual_seed(0)
        device = next(self.parameters()).device
        position, direction = (torch.rand(points, width, generator=generator) * 2 - 1 for width in self.widths)
        return position.to(device), direction.to(device)

    def forward(
        self, position: Float[Tensor, "points position"], direction: Float[Tensor, "points direction"]
    ) -> tuple[Float[Tensor, "points 1"], Float[Tensor, "points 3"]]:
        """Density and colour before their activations."""
        position, direction = self.position_path(position), self.direction_path(direction)
        embedding = self.field.mlp_base(position)
        colour = self.field.mlp_head(torch.cat([direction, embedding], dim=-1))
        density_layer, colour_layer = self.field.field_output_density.net, self.field.field_heads[0].net
        return density_layer(embedding), colour_layer(colour)  # type: ignore[misc]


def _identity_layer(width: int) -> nn.Linear:
    # The weight keeps requires_grad: without it the output would be a raw input again.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, width, width, bias=False)  # type: ignore[assignment]
    nn.init.eye_(layer.weight)
    return layer
