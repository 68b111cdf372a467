"""The host's NeRF field, evaluated with less work: only where there is something, and without copies.

Its tensors and what they mean are the host's; outputs are the host's within rounding.
"""

from typing import Any, Optional

import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.field_components.mlp import MLP
from nerfstudio.field_components.spatial_distortions import SceneContraction
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from torch import Tensor, nn
from torch.nn.functional import linear, relu_

from nerfstudio_prune.core.contraction import stretch
from nerfstudio_prune.occupancy import OccupancyGrid

FLOATS_AT_ONCE = 2**18
"""Activations of a layer that a CPU computes at once where no graph is kept: a megabyte, which stays in the cache."""
FLOATS_AT_ONCE_ON_GPU = 2**26
"""Those of a GPU: 256 MB, beside which the time to launch its kernels is short."""


class UnitBallContraction(SceneContraction):
    """Contracts unbounded space into the unit ball: the map of mip-NeRF 360 (arXiv 2111.12077, equation 10), halved.

    The host's positional encoding starts at a period of 1. In a ball of radius 2 all its frequencies are too high for a
    scene that fills the unit ball, and training is slow to leave the noise.
    """

    def forward(self, positions: Any) -> Any:
        """Positions in the ball of radius 1; the inner half of it is the undistorted unit ball."""
        contracted: Any = super().forward(positions)
        return contracted / 2

    def stretch(self, contracted: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """Length outside, along the radius, that a unit of length in the ball stands for, >= 2; unbounded at its edge.

        Args:
            contracted: Places in the ball.
        """
        return stretch(contracted)


class PruneField(NeRFField):
    """A field that knows where it need not be evaluated. Takes the arguments of the host's field."""

    spatial_distortion: Optional[UnitBallContraction]

    occupancy: Optional[OccupancyGrid] = None
    """Where the field has something to show; elsewhere density and colour are zero. None: everywhere."""
    places_per_interval: int = 1
    """Places of each sample's interval that are looked up in the grid, >= 1."""

    def forward(self, ray_samples: RaySamples, compute_normals: bool = False) -> dict[Any, Tensor]:
        """Density and colour of samples along rays.

        Somebody who looks into a layer by a hook sees all samples, as the host evaluates them.

        Args:
            ray_samples: The samples, of shape [rays, samples].
            compute_normals: Whether normals are asked for.

        Returns:
            Density of shape [rays, samples, 1] and colour of shape [rays, samples, 3] in [0, 1].
        """
        if compute_normals or self.use_integrated_encoding or any(map(_is_hooked, self.modules())):
            return super().forward(ray_samples, compute_normals)
        frustums = ray_samples.frustums
        shape = frustums.starts.shape[:-1]
        if self.occupancy is None:
            index = torch.arange(shape.numel(), device=frustums.starts.device)
            positions = frustums.get_positions().flatten(0, -2)
        else:
            index = self._occupied(ray_samples).flatten().nonzero()[:, 0]
            if not len(index):
                index = index.new_zeros(1)  # the host's encoding takes no empty tensor, and a loss needs a graph
            positions = _positions_at(ray_samples, index)
        if self.spatial_distortion is not None:
            positions = self.spatial_distortion(positions)
        density, rgb = self._values(positions, self._seen(frustums.directions), index // shape[-1])
        if self.occupancy is not None:
            empty = torch.zeros(shape.numel(), 4, device=density.device, dtype=density.dtype)
            density, rgb = empty.index_copy(0, index, torch.cat([density, rgb], dim=-1)).split([1, 3], dim=-1)
        return {
            FieldHeadNames.RGB: rgb.view(*shape, 3),
            FieldHeadNames.DENSITY: density.view(*shape, 1),
        }

    def density_at(self, positions: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """Density at places of the space that the field sees, per unit of length there; in a space that it contracts a
        unit holds as much as many outside.

        Args:
            positions: The places.
        """
        density = self.field_output_density(self._embedding(positions))[:, 0]
        return density if self.spatial_distortion is None else density * self.spatial_distortion.stretch(positions)

    def values_at(
        self, positions: Float[Tensor, "points 3"], directions: Float[Tensor, "points directions 3"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points directions 3"]]:
        """Density as `density_at` gives it, and the colour in several directions; the trunk is evaluated once.

        Args:
            positions: The places.
            directions: Directions of length 1 in which each is seen.
        """
        count = directions.shape[1]
        embedding = self._embedding(positions)
        density = self.field_output_density(embedding)[:, 0]
        if self.spatial_distortion is not None:
            density = density * self.spatial_distortion.stretch(positions)
        seen = self._seen(directions.reshape(-1, 1, 3))
        rgb = self._colour(embedding.repeat_interleave(count, dim=0), seen)
        return density, rgb.view(len(positions), count, 3)

    def _occupied(self, ray_samples: RaySamples) -> Bool[Tensor, "rays samples"]:
        """Whether there is something in a sample's interval."""
        assert self.occupancy is not None
        frustums, count = ray_samples.frustums, self.places_per_interval
        starts, ends = frustums.starts[..., 0], frustums.ends[..., 0]
        # Of an odd number of places the one in the middle is the sample's own.
        shares = (torch.arange(count, device=starts.device) + 0.5) / count
        distances = torch.lerp(starts[..., None], ends[..., None], shares).flatten(-2)
        origins, directions = frustums.origins[..., 0, :], frustums.directions[..., 0, :]
        if self.spatial_distortion is None:
            found = self.occupancy.occupied(origins, directions, distances)
        else:
            positions = origins[..., None, :] + directions[..., None, :] * distances[..., None]
            found = self.occupancy.contains(self.spatial_distortion(positions.flatten(0, -2)))
        found = found.view(*starts.shape, count).any(dim=-1)
        if self.spatial_distortion is not None:
            found[..., -1] = True  # the last sample is the background of unbounded scenes
        return found

    def _values(
        self, positions: Float[Tensor, "points 3"], seen: Float[Tensor, "rays width"], rays: Int[Tensor, " points"]
    ) -> tuple[Float[Tensor, "points 1"], Float[Tensor, "points 3"]]:
        """Density and colour of points on rays, in parts where no graph has to be kept."""
        width = max(layer.weight.shape[0] for layer in _layers(self.mlp_base))
        floats = FLOATS_AT_ONCE if positions.device.type == "cpu" else FLOATS_AT_ONCE_ON_GPU
        size = len(rays) if torch.is_grad_enabled() else max(1, floats // width)
        densities, colours = [], []
        for part, own in zip(positions.split(size), rays.split(size), strict=True):
            embedding = self._embedding(part)
            densities.append(self.field_output_density(embedding))
            colours.append(self._colour(embedding, seen[own]))
        return torch.cat(densities), torch.cat(colours)

    def _embedding(self, positions: Float[Tensor, "points 3"]) -> Float[Tensor, "points width"]:
        """What the trunk gives."""
        encoded = self.position_encoding(positions)
        skips = self.mlp_base.skip_connections or ()
        hidden = encoded
        for i, layer in enumerate(_layers(self.mlp_base)):
            if i in skips:
                # Two products in place of one of both inputs side by side, which would be copied for it.
                own, others = layer.weight.split([encoded.shape[-1], hidden.shape[-1]], dim=1)
                hidden = torch.addmm(linear(encoded, own, layer.bias), hidden, others.T)
            else:
                hidden = linear(hidden, layer.weight, layer.bias)
            hidden = relu_(hidden)
        return hidden

    def _seen(self, directions: Float[Tensor, "rays samples 3"]) -> Float[Tensor, "rays width"]:
        """What the head's first layer makes of the direction: the same for all samples of a ray."""
        first = _layers(self.mlp_head)[0]
        encoded = self.direction_encoding(directions[..., 0, :].reshape(-1, 3))
        return linear(encoded, first.weight[:, : encoded.shape[-1]], first.bias)

    def _colour(
        self, embedding: Float[Tensor, "points width"], seen: Float[Tensor, "points hidden"]
    ) -> Float[Tensor, "points 3"]:
        """Colour of points, of which the direction's part of the first layer is known."""
        first, *others = _layers(self.mlp_head)
        own = first.weight[:, first.weight.shape[1] - embedding.shape[1] :]
        hidden = relu_(torch.addmm(seen, embedding, own.T))
        for layer in others:
            hidden = relu_(linear(hidden, layer.weight, layer.bias))
        return self.field_heads[0](hidden)


def _layers(mlp: MLP) -> list[nn.Linear]:
    return list(mlp.layers)  # type: ignore[arg-type]


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _positions_at(ray_samples: RaySamples, index: Int[Tensor, " points"]) -> Float[Tensor, "points 3"]:
    """Positions of samples, by the host's formula: another one rounds differently, and the encoding multiplies that."""
    frustums = ray_samples.frustums
    rays = index // frustums.starts.shape[-2]
    origins, directions = (x[..., 0, :].reshape(-1, 3)[rays] for x in (frustums.origins, frustums.directions))
    sums = (frustums.starts + frustums.ends).view(-1, 1)[index]
    positions = origins + directions * sums / 2
    return positions if frustums.offsets is None else positions + frustums.offsets.view(-1, 3)[index]
