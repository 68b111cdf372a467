"""How many networks, and how wide: from a budget, by a short distillation of each way to spend it."""

from functools import partial
from math import ceil, sqrt

import torch
from nerfstudio.cameras.cameras import Cameras
from torch.optim import Adam

from nerfstudio_prune.kilo.config import EPS, KiloOptions
from nerfstudio_prune.kilo.phases import falling
from nerfstudio_prune.kilo.spaces import SPACES, Space
from nerfstudio_prune.kilo.teacher import Teacher
from nerfstudio_prune.kilonerf.budget import MEGABYTE, Candidate, Error, recut
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.distillation import distillation_loss
from nerfstudio_prune.kilonerf.examples import Examples, PointSampler
from nerfstudio_prune.kilonerf.march import Lattice, Marcher
from nerfstudio_prune.kilonerf.networks import TinyNetworks

TRIAL_STEPS = 100
"""Steps of a short distillation."""
TRIAL_POINTS = 256
"""Points of each network that its error is measured on; none of those that it learnt from."""
MOST_RAYS = 2**14
"""Training rays on which samples are counted, at most."""


def trial(
    teacher: Teacher,
    cameras: Cameras,
    live: LiveCells,
    options: KiloOptions,
    step_size: float,
    seed: int,
    space: Space = SPACES["bounded"],
) -> Error:
    """What tells candidates apart: the error that each has after a short distillation, by other points.

    The mean of the loss of distillation over the occupied voxels, which are the same for all candidates.

    Args:
        teacher: What is learnt from.
        cameras: Training cameras.
        live: Cells of any size over the voxels.
        options: Options in force; steps are `TRIAL_STEPS`, or fewer where the run itself has fewer.
        step_size: Length of a step along rays.
        seed: Seed of weights and points.
        space: The space that cells lie in.
    """
    distil = options.distil
    points, memory, steps = distil.points_per_network, distil.memory_mb, distil.steps
    assert points is not None and memory is not None and steps is not None
    steps = min(steps, TRIAL_STEPS)
    places = cameras.camera_to_worlds[:, :, 3].to(live.grid.lower)

    def error(candidate: Candidate) -> float:
        cells = recut(live, candidate.grid.refine)
        generator = torch.Generator().manual_seed(seed)
        networks = TinyNetworks(cells.count, candidate.shape, generator).to(places.device)
        optimizer = Adam(networks.parameters(), eps=EPS)
        limit, values = int(memory * MEGABYTE), teacher.values
        kept = points * ceil(steps / 3)
        make = partial(Examples, cells, places, values, points, limit, to_world=space.to_world)
        examples = make(seed, directions=3, most_points=kept)
        with torch.enable_grad():
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = falling(distil.lr, distil.lr_final, step, steps)
                batch = examples.batch(step)
                density, rgb = networks.batched(batch.positions, batch.directions)
                loss = distillation_loss(density, rgb, batch.density, batch.rgb, step_size)
                optimizer.zero_grad()
                loss.total.backward()
                optimizer.step()
        del examples
        others = make(seed + 1, directions=1, most_points=points)
        counts = PointSampler(cells).counts
        total = torch.zeros((), dtype=torch.float64)
        batches = ceil(TRIAL_POINTS / points)
        with torch.no_grad():
            for step in range(batches):
                batch = others.batch(step)
                density, rgb = networks.batched(batch.positions, batch.directions)
                found = distillation_loss(density, rgb, batch.density, batch.rgb, step_size).of_networks
                total += (found.double() * counts).sum().cpu() / counts.sum().cpu()
        return float(total / batches)

    return error


def samples_of_a_ray(live: LiveCells, lattice: Lattice, cameras: Cameras, space: Space = SPACES["bounded"]) -> float:
    """Occupied samples of a training ray, in the mean of some from all views.

    Args:
        live: The cells.
        lattice: Steps of rays.
        cameras: Training cameras.
        space: The space that cells lie in.
    """
    marcher, samples, rays = Marcher(live, lattice, space.contraction), 0, 0
    every = max(1, ceil(sqrt(int((cameras.height * cameras.width).sum()) / MOST_RAYS)))
    for view in range(len(cameras)):
        bundle = cameras.generate_rays(camera_indices=view, keep_shape=True)[::every, ::every].flatten()
        origins, directions = bundle.origins.to(live.grid.lower), bundle.directions.to(live.grid.lower)
        samples += len(marcher.occupied(origins, directions))
        rays += len(origins)
    return samples / rays
