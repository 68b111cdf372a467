"""Renders a file of one large network. Needs torch, safetensors, msgspec and jaxtyping: no Nerfstudio, no data set."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_prune.export.field import ExportedField
from nerfstudio_prune.export.layers import LayerTensors
from nerfstudio_prune.export.sampling import finer_bins, median_depth, ray_weights, to_distance, to_spacing
from nerfstudio_prune.export.schema import Metadata

FLOATS_AT_ONCE, FLOATS_AT_ONCE_ON_GPU = 2**20, 2**26
"""Activations of a layer that are computed at once, but for those of one ray."""


class ExportedNeRF(nn.Module):
    """The two fields of a run, that renders rays as the run's own model does in evaluation.

    Args:
        metadata: What a file says of itself.
        layers: Numbers of its layers, by name.
    """

    def __init__(self, metadata: Metadata, layers: Mapping[str, LayerTensors]) -> None:
        super().__init__()
        self.metadata = metadata
        self.field_coarse = ExportedField("field_coarse", metadata, layers)
        self.field_fine = ExportedField("field_fine", metadata, layers)
        self.eval()

    def forward(self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> dict[str, Tensor]:
        """Renders rays, some at a time.

        Args:
            origins: Where they begin, in units of the scene; `metadata.scene` says how it lies in that of the data.
            directions: Where they go, of length 1.

        Returns:
            `rgb` [rays, 3] in [0, 1] with the background, `depth` [rays, 1], the distance at which half of the light
            has gone, and `accumulation` [rays, 1], the share of it that goes at all.
        """
        sampling, layers = self.metadata.sampling, self.metadata.layers().values()
        floats = (sampling.coarse + sampling.fine + 1) * max(max(layer.rows, layer.columns) for layer in layers)
        most = FLOATS_AT_ONCE if origins.device.type == "cpu" else FLOATS_AT_ONCE_ON_GPU
        size = max(1, most // floats)
        parts = [self._rendered(*part) for part in zip(origins.split(size), directions.split(size), strict=True)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _rendered(self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> dict[str, Tensor]:
        sampling, collider = self.metadata.sampling, self.metadata.collider
        near, far = (
            to_spacing(torch.full_like(origins[:, :1], plane), sampling) for plane in (collider.near, collider.far)
        )
        bins = torch.linspace(0.0, 1.0, sampling.coarse + 1, device=origins.device).expand(len(origins), -1)
        borders = to_distance(bins * far + (1 - bins) * near, sampling)
        density = self.field_coarse.density_of(self.field_coarse.features(_places(origins, directions, borders)))
        bins = finer_bins(bins, ray_weights(density, borders.diff(dim=-1)), sampling).detach()
        borders = to_distance(bins * far + (1 - bins) * near, sampling)

        features = self.field_fine.features(_places(origins, directions, borders))
        weights = ray_weights(self.field_fine.density_of(features), borders.diff(dim=-1))
        colours = torch.nan_to_num(self.field_fine.colour_of(features, directions))
        accumulation = weights.sum(dim=-1, keepdim=True)
        rgb = (weights[..., None] * colours).sum(dim=-2)
        if self.metadata.background == "last_sample":
            rgb = rgb + colours[:, -1] * (1 - accumulation)
        elif self.metadata.background == "white":
            rgb = rgb + (1 - accumulation)
        return {
            "rgb": rgb.clamp(0, 1),
            "depth": median_depth(weights, (borders[:, :-1] + borders[:, 1:]) / 2),
            "accumulation": accumulation,
        }


def _places(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], borders: Float[Tensor, "rays borders"]
) -> Float[Tensor, "rays samples 3"]:
    """Middles of the intervals, by the host's formula: another one rounds differently, and the encoding multiplies
    that."""
    return origins[:, None] + directions[:, None] * (borders[:, :-1] + borders[:, 1:])[..., None] / 2
