"""Which part of what a teacher has learnt is seen: fog in front of a background of its colour is nowhere in the photos.

A field may be dense where no picture shows it: white haze before white, anything inside of things or behind them. Cells
that were laid around that too would be larger than they have to be.
"""

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.kilo.space import rays_of_views
from nerfstudio_prune.kilo.teacher import Teacher
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.composite import optical_depths, weights_of
from nerfstudio_prune.kilonerf.march import Lattice, Marcher, Samples
from nerfstudio_prune.occupancy import POINTS_AT_ONCE, dilated

LEAST_EFFECT = 0.05
"""Change of a pixel, in [0, 1], by which a voxel counts as seen: a twentieth of the way from black to white."""
LEAST_ALPHA, LEAST_WEIGHT = 0.01, 1e-3
"""Opacity of a sample that belongs to a thing, and contribution to a pixel that is one."""
MOST_RAYS = 2**14
"""Rays that are followed through all training views, about."""


@torch.no_grad()
def seen_box(teacher: Teacher, live: LiveCells, cameras: Cameras) -> Float[Tensor, "2 3"]:
    """The box around what makes a difference in training views, with a voxel to spare.

    Args:
        teacher: The teacher, of a space without contraction.
        live: Cells of all that is dense, of voxels that are a few pixels wide.
        cameras: Training cameras.

    Returns:
        Lower and upper corner; the whole grid's where nothing makes a difference.
    """
    lattice = Lattice(teacher.near, teacher.far, teacher.samples)
    marcher, effect = Marcher(live, lattice), torch.zeros(live.occupied.numel(), device=live.occupied.device)
    backgrounds = {"white": (1.0,), "black": (0.0,)}.get(teacher.background, (0.0, 1.0))
    for origins, directions in rays_of_views(cameras, MOST_RAYS, effect.device):
        samples = marcher.occupied(origins, directions)
        if not len(samples):
            continue
        points, towards = samples.points(origins, directions), directions.index_select(0, samples.ray)[:, None]
        parts = [
            teacher.values(some, seen)
            for some, seen in zip(points.split(POINTS_AT_ONCE), towards.split(POINTS_AT_ONCE), strict=True)
        ]
        density = torch.cat([own for own, _ in parts])
        rgb = torch.cat([own[:, 0] for _, own in parts])
        depths = optical_depths(density, torch.full_like(density, lattice.step_size))
        for background in backgrounds:
            found = effects(depths, rgb, samples, len(origins), background)
            effect.scatter_reduce_(0, samples.voxel.long(), found.to(effect), "amax")
    seen = dilated((effect > LEAST_EFFECT).view_as(live.occupied))
    places = seen.nonzero()
    if not len(places):
        return live.grid.aabb
    first, last = places.amin(dim=0), places.amax(dim=0) + 1
    return live.grid.lower + torch.stack([first, last]) * live.grid.voxel_size


def effects(
    depths: Float[Tensor, " samples"],
    rgb: Float[Tensor, "samples 3"],
    samples: Samples,
    rays: int,
    background: float,
) -> Float[Tensor, " samples"]:
    """By how much the pixel of each sample would change, in a channel, if the thing that it belongs to were not there.

    A thing is a row of samples along the ray that follow each other, each of them at least `LEAST_ALPHA` opaque: of
    something solid every single sample has the like behind it, and could be spared.

    Args:
        depths: Optical depths, in float64.
        rgb: Colour of each sample, in [0, 1].
        samples: The samples.
        rays: Number of rays.
        background: Brightness behind everything.

    Returns:
        Changes in [0, 1]; 0 for what contributes less than `LEAST_WEIGHT` itself.
    """
    ray, step = samples.ray.long(), samples.step
    weights, solid = weights_of(depths, samples.ray), -torch.expm1(-depths) >= LEAST_ALPHA
    light = torch.cat([weights[:, None] * rgb, weights[:, None]], dim=1)
    total = light.new_zeros(rays, 4).index_add_(0, ray, light)
    follows = (ray[1:] == ray[:-1]) & (step[1:] == step[:-1] + 1) & solid[1:] & solid[:-1]
    thing = torch.cat([follows.new_zeros(1).long(), (~follows).long().cumsum(dim=0)])[: len(ray)]
    things = int(thing[-1]) + 1 if len(thing) else 0
    own = light.new_zeros(things, 4).index_add_(0, thing, light)
    last = torch.zeros(things, dtype=torch.int64, device=ray.device)
    last = last.scatter_reduce_(0, thing, torch.arange(len(ray), device=ray.device), "amax")
    sums, starts = light.cumsum(dim=0), torch.searchsorted(ray, torch.arange(rays, device=ray.device))
    of = ray[last]
    in_front = torch.cat([light.new_zeros(1, 4), sums])[starts[of]]
    behind = total[of] - (sums[last] - in_front)
    through = (1 - total[of][:, 3]).clamp(min=0)
    left = behind[:, 3].clamp(min=0) + through
    colour = (behind[:, :3] + through[:, None] * background) / left.clamp(min=1e-9)[:, None]
    change = (own[:, :3] - own[:, 3:] * colour).abs().amax(dim=1)
    # What lets no light through hides what is behind it, which nothing is known of: that alone is a difference.
    change = torch.where(left < LEAST_WEIGHT, own[:, 3], change)
    return torch.where(weights > LEAST_WEIGHT, change[thing], 0.0)
