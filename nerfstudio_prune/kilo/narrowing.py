"""Networks that need fewer neurons get fewer, between the two phases: they learn on from photos with what is left.

Which ones is decided by the error that each would make on points of its own cell, for all of them under one budget.
None of the papers on grids of tiny networks does this.
"""

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.examples import PointSampler, draw_seen
from nerfstudio_prune.kilonerf.narrow import narrowed, width_errors
from nerfstudio_prune.kilonerf.width_budget import allocate
from nerfstudio_prune.occupancy import POINTS_AT_ONCE

POINTS = 512
"""Points of each network that scores and refit go by: several times as many as a layer has inputs."""


@torch.no_grad()
def narrower(model: KiloModel, cameras: Cameras, share: float, generator: torch.Generator) -> NetworkClasses:
    """The networks with fewer neurons where that matters least; changes nothing.

    A network counts by the occupied voxels of its cell, which its points are drawn from evenly.

    Args:
        model: The networks, with cells, and room for narrower ones.
        cameras: Training cameras, whose places say in which directions points are seen.
        share: Share of the parameters that stays, in (0, 1).
        generator: Random numbers, of the CPU.

    Raises:
        ValueError: If even the narrowest networks have more.
    """
    assert model.cells.live is not None
    live, step = model.cells.live, model.step_size()
    sampler = PointSampler(live)
    positions, directions = _own_points(sampler, model, cameras, generator)
    widths = [shape.hidden_width for shape in model.networks.shapes]
    errors = width_errors(model.networks, positions, directions, widths, step)
    weighted = errors * sampler.counts[:, None]
    costs = [shape.parameters for shape in model.networks.shapes]
    chosen = allocate(weighted.cpu().numpy(), costs, share * model.networks.num_parameters)
    wanted = torch.tensor(widths)[torch.from_numpy(chosen)].to(positions.device)
    return narrowed(model.networks, wanted, positions, directions, step, classes=widths)


def _own_points(
    sampler: PointSampler, model: KiloModel, cameras: Cameras, generator: torch.Generator
) -> tuple[Float[Tensor, "networks points 3"], Float[Tensor, "networks points 3"]]:
    """Places in each network's cell, and a direction in which each is seen."""
    live = sampler.live
    places = cameras.camera_to_worlds[:, :, 3].to(live.grid.lower)
    at_once, parts = max(1, POINTS_AT_ONCE // POINTS), []
    for first in range(0, live.count, at_once):
        last = min(first + at_once, live.count)
        seen = draw_seen(sampler, places, first, last, POINTS, 1, generator, model.space.to_world)
        parts.append((seen.positions, seen.directions[:, 0]))
    positions, directions = (torch.cat(values).view(live.count, POINTS, 3) for values in zip(*parts, strict=True))
    return positions, directions


def described(networks: NetworkClasses) -> str:
    """How many networks have which width.

    Args:
        networks: The networks.
    """
    return ", ".join(
        f"{count:,} of width {shape.hidden_width}"
        for shape, count in zip(networks.shapes, networks.counts, strict=True)
        if count
    )
