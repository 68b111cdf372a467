"""Networks that got stuck while they learnt from the teacher begin again, at a tenth of the rate.

A network whose colour is black, or white, everywhere has no gradient left. The code released with KiloNeRF (Reiser et
al. 2021, arXiv 2103.13744) lets such networks learn once more as well.
"""

import torch

from nerfstudio_prune.kilo.lessons import Lessons
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.distillation import mean_squares
from nerfstudio_prune.kilonerf.networks import TinyNetworks

RATE_FACTOR = 0.1


@torch.no_grad()
def learn_again(model: KiloModel, lessons: Lessons, steps: int, seed: int) -> tuple[int, int]:
    """Teaches stuck networks anew; of each the better one is kept. Optimizers know nothing of it.

    Args:
        model: The networks, all of full width, with cells.
        lessons: What they learn.
        steps: Steps, >= 1.
        seed: Seed of weights and points.

    Returns:
        Networks that were stuck, and how many of them are better now.
    """
    live = model.cells.live
    assert live is not None and model.stack.num_networks == model.networks.num_networks
    stuck = lessons.stuck(model.networks, live, seed)
    found = int(stuck.sum())
    if not found:
        return 0, 0
    cells = cells_of(live, stuck)
    fresh = TinyNetworks(found, model.stack.shape, torch.Generator().manual_seed(seed)).to(model.device)
    lessons.learn(fresh, cells, steps, seed, RATE_FACTOR)
    before = lessons.errors(model.networks, live, seed)[stuck]
    after = lessons.errors(fresh, cells, seed)
    # A difference from what is no number is none.
    better = ~(after >= before)
    rows = model.networks.position[stuck][better].long()
    for name, parameter in model.stack.named_parameters():
        parameter[rows] = fresh.get_parameter(name)[better]
    model.errors.replace(stuck.nonzero()[:, 0][better], mean_squares(after[better]))
    return found, int(better.sum())


def cells_of(live: LiveCells, networks: torch.Tensor) -> LiveCells:
    """The cells of some networks.

    Args:
        live: The cells of all.
        networks: Whether each network is one of them.
    """
    voxels = live.occupied.flatten().nonzero()[:, 0].int()
    stays = torch.zeros_like(live.occupied).flatten()
    stays[voxels.long()] = networks[live.networks(voxels).long()]
    return live.restricted(stays.view_as(live.occupied))
