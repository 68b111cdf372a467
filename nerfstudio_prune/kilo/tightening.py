"""What the networks have nothing to show in leaves: voxels, and with their last voxel networks, moments and all.

The teacher says where there is something before anything is learnt; fine-tuned networks know better. Voxels that no
training view sees leave as well: inside of things, and behind them. What is behind everything stays, where it has
voxels: it is seen, however transparent it is. KiloNeRF (arXiv 2103.13744) keeps what it begins with.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int32
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor, nn
from torch.optim import Optimizer

from nerfstudio_prune.kilo.behind import LEAST_LIGHT
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilo.space import rays_of_views
from nerfstudio_prune.kilonerf.building import tighten, visible, visible_behind
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.composite import optical_depths, weights_of
from nerfstudio_prune.kilonerf.evaluate import evaluate
from nerfstudio_prune.kilonerf.march import Marcher
from nerfstudio_prune.kilonerf.removal import prepare_removal
from nerfstudio_prune.occupancy import dilated

LEAST_WEIGHT = 1e-3
"""Contribution to a pixel from which a voxel counts as seen."""
MOST_RAYS = 2**18
"""Rays that are followed through all training views, at most: rows and columns of pixels are left out evenly."""
RAYS_AT_ONCE = 2**14


@torch.no_grad()
def tightened(
    model: KiloModel, cameras: Cameras, alpha_threshold: float, only_visible: bool, generator: torch.Generator
) -> LiveCells:
    """The cells of which the networks show something; changes nothing.

    Args:
        model: The networks, with cells.
        cameras: Training cameras.
        alpha_threshold: Opacity of a path as long as a voxel's side from which the voxel stays, in (0, 1).
        only_visible: Whether voxels leave that no training view sees, nor one beside them.
        generator: Random numbers, of the CPU.

    Raises:
        ValueError: If nothing would be left.
    """
    live = model.cells.live
    assert live is not None
    shown = tighten(live, lambda points, voxels: _density(model, live, points, voxels), alpha_threshold, generator)
    found = with_neighbours(live, shown)
    background = model.state.background == "last_sample"
    if not (only_visible or background):
        return found
    seen, behind = (dilated(voxels) for voxels in seen_voxels(model, found, cameras))
    kept = live.occupied & behind if background else torch.zeros_like(behind)
    if not only_visible:
        return LiveCells(live.grid, found.occupied | kept)
    if not bool((found.occupied & seen).any()):
        raise ValueError(
            f"occupancy.visible_only: no training view sees anything, of {int(found.occupied.sum()):,} voxels that are "
            "not empty; do the views look at the scene?"
        )
    return LiveCells(live.grid, (found.occupied & seen) | kept)


def with_neighbours(live: LiveCells, found: LiveCells) -> LiveCells:
    """What was found, and of the same networks the voxels beside it: a few random places in a voxel miss what is thin.

    Args:
        live: All voxels that may be occupied.
        found: Some of them.
    """
    wide = live.occupied & dilated(found.occupied)
    voxels = wide.flatten().nonzero()[:, 0].int()
    occupied = torch.zeros_like(live.occupied).flatten()
    occupied[voxels[found.networks(voxels) >= 0].long()] = True
    return LiveCells(live.grid, occupied.view_as(live.occupied))


def seen_voxels(
    model: KiloModel, live: LiveCells, cameras: Cameras
) -> tuple[Bool[Tensor, "width height depth"], Bool[Tensor, "width height depth"]]:
    """Voxels that contribute to a pixel of a training view.

    Args:
        model: The networks, and the steps of rays.
        live: What is not transparent: the model's cells, or fewer of their voxels.
        cameras: Training cameras.

    Returns:
        Those of it, by their opacity; and those of the model's cells that hold the last sample of a ray which has light
        left.
    """
    lattice, own = model.cells.lattice_of_rays, model.cells.live
    assert lattice is not None and own is not None
    space = model.space
    marcher, occupied = Marcher(own, lattice, space.contraction), live.occupied.flatten()
    seen, behind = torch.zeros_like(live.occupied), torch.zeros_like(live.occupied)
    for begins, ways in rays_of_views(cameras, MOST_RAYS, model.device):
        for origins, directions in zip(begins.split(RAYS_AT_ONCE), ways.split(RAYS_AT_ONCE), strict=True):
            every = marcher.occupied(origins, directions)
            samples = every.of(occupied[every.voxel.long()].nonzero()[:, 0])
            # Numbers of networks are those of the model's cells, whatever these are.
            network = own.networks(samples.voxel)
            points = space.from_world(samples.points(origins, directions))
            local = own.local(points, network)
            density, _ = evaluate(model.networks, local, network, samples.ray, directions, model.config.evaluation)
            length = space.lengths(lattice, samples.step, points)
            depths = optical_depths(density, length)
            weights = weights_of(depths, samples.ray)
            seen |= visible(live, samples.voxel, weights.to(density.dtype), LEAST_WEIGHT)
            left = torch.exp(-depths.new_zeros(len(origins)).index_add_(0, samples.ray.long(), depths))
            behind |= visible_behind(own, every.voxel, every.ray, left, LEAST_LIGHT)
    return seen, behind


@torch.no_grad()
def remove_others(
    model: KiloModel, live: LiveCells, optimizers: Mapping[str, Optimizer], parameters: Mapping[str, list[nn.Parameter]]
) -> None:
    """Leaves a model with fewer voxels, and with the networks that still have one; weights and moments go with them.

    Args:
        model: The model.
        live: The cells that stay, of the same grid.
        optimizers: Live optimizers by name.
        parameters: The host's second list of the same parameters, by optimizer name; edited in place.

    Raises:
        ValueError: If none would be left, or an optimizer does not know a parameter; nothing is changed then.
    """
    former, lattice = model.cells.live, model.cells.lattice_of_rays
    assert former is not None and lattice is not None
    stays = torch.zeros(former.count, dtype=torch.bool, device=former.occupied.device)
    stays[live.kept_of(former)] = True
    prepare_removal(model.networks, stays, optimizers, parameters).apply()
    model.errors.keep(stays)
    model.cells.put(live, lattice)


def _density(
    model: KiloModel, live: LiveCells, points: Float[Tensor, "points 3"], voxels: Int32[Tensor, " points"]
) -> Float[Tensor, " points"]:
    """Density of points in known voxels; it does not depend on the direction."""
    network = live.networks(voxels)
    anywhere = points.new_tensor([[0.0, 0.0, 1.0]])
    ray = torch.zeros_like(voxels)
    return evaluate(model.networks, live.local(points, network), network, ray, anywhere, model.config.evaluation)[0]
