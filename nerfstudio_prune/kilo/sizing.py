"""How many networks, and how wide: from a budget, by a short distillation of each way to spend it."""

import torch
from nerfstudio.cameras.cameras import Cameras

from nerfstudio_prune.kilo.lessons import Lessons
from nerfstudio_prune.kilo.space import rays_of_views
from nerfstudio_prune.kilo.spaces import SPACES, Space
from nerfstudio_prune.kilonerf.budget import Candidate, Error, recut
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.examples import PointSampler
from nerfstudio_prune.kilonerf.march import Lattice, Marcher
from nerfstudio_prune.kilonerf.networks import TinyNetworks

TRIAL_STEPS = 100
"""Steps of a short distillation."""
MOST_RAYS = 2**14
"""Training rays on which samples are counted, at most."""


def trial(lessons: Lessons, live: LiveCells, steps: int, seed: int) -> Error:
    """What tells candidates apart: the error that each has after a short distillation, by other points.

    The mean of the loss of distillation over the occupied voxels, which are the same for all candidates.

    Args:
        lessons: What is learnt.
        live: Cells of any size over the voxels.
        steps: Steps of the run; those of a trial are `TRIAL_STEPS`, or as many where these are fewer.
        seed: Seed of weights and points.
    """

    def error(candidate: Candidate) -> float:
        cells = recut(live, candidate.grid.refine)
        networks = TinyNetworks(cells.count, candidate.shape, torch.Generator().manual_seed(seed))
        networks.to(lessons.cameras.device)
        lessons.learn(networks, cells, min(steps, TRIAL_STEPS), seed)
        counts = PointSampler(cells).counts
        return float((lessons.errors(networks, cells, seed).double() * counts).sum() / counts.sum())

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
    for origins, directions in rays_of_views(cameras, MOST_RAYS, live.grid.lower.device):
        samples += len(marcher.occupied(origins, directions))
        rays += len(origins)
    return samples / rays
