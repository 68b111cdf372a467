"""Renders a file of tiny networks. Needs what `nerf_rendering.py` needs: no Nerfstudio, no data set."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.kilo_bits import Joined
from nerfstudio_prune.export.kilo_schema import CELLS, WIDTHS, KiloMetadata, parameter_names
from nerfstudio_prune.export.layers import LayerTensors
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.composite import automatic_passes, composite, last_colours, render
from nerfstudio_prune.kilonerf.evaluate import evaluate
from nerfstudio_prune.kilonerf.march import Lattice, Marcher
from nerfstudio_prune.kilonerf.networks import TinyNetworks
from nerfstudio_prune.kilonerf.shape import NetworkShape
from nerfstudio_prune.kilonerf.spaces import RENDERED_SPACES

SAMPLES_AT_ONCE, SAMPLES_AT_ONCE_ON_GPU = 2**22, 2**25
"""Samples that rays rendered at once have at most, but for those of one ray."""
MOST_RAYS = 2**16
"""Rays that are rendered at once."""
NOTHING = 1e-6
"""Accumulation below which a ray shows the background only."""


class ExportedKilo(nn.Module):
    """The tiny networks of a run, that render rays as the run's own model does in evaluation.

    Args:
        metadata: What a file says of itself.
        layers: Numbers of its layers, by name.
        blobs: What is occupied, and width and bits of each network.

    Raises:
        FileFormatError: If these do not fit together.
    """

    def __init__(self, metadata: KiloMetadata, layers: Mapping[str, LayerTensors], blobs: Mapping[str, bytes]) -> None:
        super().__init__()
        self.metadata = metadata
        self.live = live_cells(metadata, blobs[CELLS])
        if self.live.count != metadata.networks.count:
            raise refuse(CELLS, f"{metadata.networks.count:,} cells with something in them", f"{self.live.count:,}")
        position = _position(metadata, blobs[WIDTHS])
        self.networks = NetworkClasses(_stacks(metadata, Joined(metadata, layers, blobs)), position)
        self.space = RENDERED_SPACES[metadata.space]
        steps = metadata.steps
        self.lattice = self.space.evaluated(Lattice(steps.near, steps.far, steps.count, self.space.spacing))
        self.marcher = Marcher(self.live, self.lattice, self.space.contraction)
        self.requires_grad_(False).eval()

    def _apply(self, fn: Any, recurse: bool = True) -> "ExportedKilo":
        """Cells follow the networks to another device."""
        super()._apply(fn, recurse)
        self.live = self.live.to(fn(torch.zeros(1)).device)
        self.marcher = Marcher(self.live, self.lattice, self.space.contraction)
        return self

    @torch.no_grad()
    def forward(self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> dict[str, Tensor]:
        """Renders rays, some at a time.

        Args:
            origins: Where they begin, in units of the scene; `metadata.scene` says how it lies in that of the data.
            directions: Where they go, of length 1.

        Returns:
            `rgb` [rays, 3] in [0, 1] with the background, `depth` [rays, 1], the mean distance of what is seen, and
            `accumulation` [rays, 1], how much of it is seen.
        """
        most = SAMPLES_AT_ONCE if origins.device.type == "cpu" else SAMPLES_AT_ONCE_ON_GPU
        size = min(MOST_RAYS, max(1, most // self.lattice.steps))
        parts = [self._rendered(*part) for part in zip(origins.split(size), directions.split(size), strict=True)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _rendered(self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> dict[str, Tensor]:
        samples, rays = self.marcher.occupied(origins, directions), len(origins)
        network = self.live.networks(samples.voxel)
        points = self.space.from_world(samples.points(origins, directions))
        local = self.live.local(points, network)
        length = self.space.lengths(self.lattice, samples.step, points)

        def values(which: Tensor) -> tuple[Tensor, Tensor]:
            return evaluate(self.networks, local[which], network[which], samples.ray[which], directions)

        if self.metadata.background == "last_sample":
            density, rgb = values(torch.arange(len(samples), device=origins.device))
            behind = last_colours(rgb, samples.ray, rays)
            shown = composite(density, rgb, samples.ray, samples.distance, length, rays)
        else:
            hit = len(samples.ray.unique_consecutive())
            passes = automatic_passes(len(samples), hit, self.live.count, origins.device)
            threshold = self.metadata.threshold
            shown = render(values, samples.ray, samples.distance, length, rays, threshold, passes)
            behind = torch.full_like(origins, float(self.metadata.background == "white"))
        accumulation = shown.accumulation[:, None]
        far = torch.full_like(accumulation, self.metadata.steps.far)
        depth = torch.where(accumulation > NOTHING, shown.depth[:, None] / accumulation.clamp(min=NOTHING), far)
        return {"rgb": shown.over(behind).clamp(0, 1), "depth": depth, "accumulation": accumulation}


def live_cells(metadata: KiloMetadata, occupied: bytes) -> LiveCells:
    """The cells of a file.

    Args:
        metadata: What it says of itself.
        occupied: A bit for each voxel.

    Raises:
        FileFormatError: If they are none.
    """
    grid = metadata.grid
    used = grid.voxels % 8
    if used and occupied[-1] >> used:
        raise refuse(CELLS, "zeros behind the last voxel", "others")
    state = {
        "lower": torch.tensor(grid.lower),
        "cell_size": float(grid.size),
        "shape": list(grid.shape),
        "refine": grid.refine,
        "voxels": torch.frombuffer(bytearray(occupied), dtype=torch.uint8),
    }
    try:
        return LiveCells.from_dict(state)
    except ValueError as error:
        raise refuse("grid", "cells", str(error)) from error


def _position(metadata: KiloMetadata, widths: bytes) -> Tensor:
    """Where each network stands in the row of all stacks, in which those of one width keep their order."""
    classes = torch.frombuffer(bytearray(widths), dtype=torch.uint8)
    expected = [own.count for own in metadata.networks.classes]
    if int(classes.max()) >= len(expected) or classes.int().bincount(minlength=len(expected)).tolist() != expected:
        raise refuse(WIDTHS, f"{expected} networks of each width", "others")
    return classes.argsort(stable=True).argsort().int()


def _stacks(metadata: KiloMetadata, layers: Joined) -> list[TinyNetworks]:
    found, networks = [], metadata.networks
    for index, own in enumerate(networks.classes):
        shape = NetworkShape(own.width, networks.layers, networks.position, networks.direction)
        stack = TinyNetworks(0, shape, torch.Generator())
        for name, value in stack_parameters(layers, index, own.count, shape).items():
            stack.get_parameter(name).data = value
        found.append(stack)
    return found


def stack_parameters(layers: Joined, index: int, count: int, shape: NetworkShape) -> dict[str, Tensor]:
    """The parameters of the networks of one width, see `TinyNetworks`.

    Args:
        layers: Numbers of a file's layers; classes without networks have none.
        index: Number of the class.
        count: Its networks.
        shape: Their sizes.
    """
    if not count:
        return {}
    width = shape.hidden_width
    found = {}
    for layer, name in parameter_names(shape.num_layers).items():
        own = layers.layer(index, layer)
        found[f"w{name}"] = own.weight.view(count, -1, own.weight.shape[1]).transpose(1, 2).contiguous()
        found[f"b{name}"] = own.bias.view(count, 1, -1)
    found["w_feature"], found["w_direction"] = (
        part.contiguous() for part in found["w_feature"].split([width, shape.direction_width], dim=1)
    )
    return found
