"""What each tiny network is asked for on training rays, and how much the colours of these rays hang on its answers."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilonerf.composite import MAX_DEPTH, composite, last_colours
from nerfstudio_prune.kilonerf.evaluate import evaluate
from nerfstudio_prune.kilonerf.march import Marcher
from nerfstudio_prune.kilonerf.spaces import RENDERED_SPACES
from nerfstudio_prune.nerf.rays import draw_rays

RAYS = 65_536
"""Training rays."""
RAYS_AT_ONCE = 4096
"""Of one forward and backward pass."""
SAMPLES = 2**21
"""Most samples that are held of all rays; more are thinned out at random."""
POINTS = 256
"""Most samples that are kept of a network: several times as many as a layer has inputs."""
MAX_VIEWS = 64
"""Training views that the rays come from."""


@dataclass(frozen=True, eq=False)
class NetworkSamples:
    """Samples of training rays by network. Rows of those that have fewer end in points that count nothing."""

    positions: Float[Tensor, "networks points 3"]
    """Coordinates in the networks' own cells, in [-1, 1]."""
    directions: Float[Tensor, "networks points 3"]
    """Directions of the rays, of length 1."""
    lengths: Float[Tensor, "networks points"]
    """What a density is multiplied by for its optical depth."""
    opacity: Float[Tensor, "networks points"]
    """Derivative of the ray's colour, a sum over its channels with signs at random, with respect to the opacity."""
    colour: Float[Tensor, "networks points 3"]
    """With respect to the colour of the sample."""
    share: Float[Tensor, "networks points"]
    """Samples of all rays that a point stands for; 0 if it is none."""

    def of(self, networks: Tensor) -> "NetworkSamples":
        """Those of some networks.

        Args:
            networks: Their numbers.
        """
        values = (self.positions, self.directions, self.lengths, self.opacity, self.colour, self.share)
        return NetworkSamples(*(value[networks] for value in values))


def collect_samples(
    model: KiloModel, dataset: InputDataset, seed: int, rays: int = RAYS, points: int = POINTS
) -> NetworkSamples:
    """Renders training rays as in evaluation, every sample, and notes what each network is asked for.

    A ray's colour is linear in the opacity of any one of its samples and in its colour: the derivatives say what a
    change of one sample does, however large it is.

    Args:
        model: The model, with cells; nothing about it changes.
        dataset: Training views.
        seed: Seed of all that is drawn.
        rays: Rays of all views.
        points: Most samples that are kept of a network.

    Raises:
        ValueError: If there are no training views, or the masks leave no pixel.
    """
    if len(dataset) == 0:
        raise ValueError("calibration needs training rays, and there are no training views")
    generator = torch.Generator().manual_seed(seed)
    views = torch.randperm(len(dataset), generator=generator)[:MAX_VIEWS]
    drawn, _ = draw_rays(dataset, rays, generator, views)
    parts, held = [], 0
    with forked(model.device):
        for order in torch.arange(len(drawn)).split(RAYS_AT_ONCE):
            bundle = drawn[order].to(model.device)
            part = _samples(model, bundle.origins, bundle.directions, generator)
            most = SAMPLES * len(order) // len(drawn)
            kept = torch.randperm(len(part[0]), generator=generator)[:most]
            held += len(part[0])
            parts.append([value[kept] for value in part])
    network, *values = (torch.cat(own) for own in zip(*parts, strict=True))
    return _by_network(network, values, model.networks.num_networks, held, points)


def _samples(
    model: KiloModel,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    generator: torch.Generator,
) -> list[Tensor]:
    """Network, position, direction, length and derivatives of each sample of some rays, on the CPU."""
    live, lattice = model.cells.live, model.cells.lattice_of_rays
    assert live is not None and lattice is not None
    space = RENDERED_SPACES[model.state.space]
    marcher = Marcher(live, space.evaluated(lattice), space.contraction)
    samples = marcher.occupied(origins, directions)
    network = live.networks(samples.voxel)
    points = space.from_world(samples.points(origins, directions))
    local, length = live.local(points, network), space.lengths(marcher.lattice, samples.step, points)
    with torch.no_grad():
        density, rgb = evaluate(model.networks, local, network, samples.ray, directions)
    depth = (density * length).double().clamp(max=MAX_DEPTH)
    # Behind an opacity of 1 the derivative of a depth says nothing.
    opacity = (-torch.expm1(-depth)).clamp(max=1 - 1e-9).requires_grad_()
    rgb.requires_grad_()
    with torch.enable_grad():
        shown = composite(-torch.log1p(-opacity) / length, rgb, samples.ray, samples.distance, length, len(origins))
        if model.state.background == "last_sample":
            behind = last_colours(rgb, samples.ray, len(origins))
        else:
            behind = torch.full_like(origins, float(model.state.background == "white"))
        colour = shown.over(behind)
        of_opacity, of_colour = torch.autograd.grad((colour * _signs(colour, generator)).sum(), [opacity, rgb])
    seen = directions.index_select(0, samples.ray)
    return [value.cpu() for value in (network.long(), local, seen, length, of_opacity.float(), of_colour)]


def _signs(like: Float[Tensor, "rays 3"], generator: torch.Generator) -> Float[Tensor, "rays 3"]:
    """1 or -1: the squared derivative of a sum with such signs is that of all channels in expectation."""
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


def _by_network(network: Tensor, values: list[Tensor], networks: int, count: int, points: int) -> NetworkSamples:
    """At most so many samples of each network, at random."""
    counts = network.bincount(minlength=networks)
    mixed = torch.randperm(len(network), generator=torch.Generator().manual_seed(0))
    order = mixed[network[mixed].argsort(stable=True)]
    place = torch.arange(len(order)) - (counts.cumsum(dim=0) - counts)[network[order]]
    order, place = order[place < points], place[place < points]
    rows = network[order]
    share = torch.zeros(networks, points)
    each = counts * (count / max(1, len(network))) / counts.clamp(1, points)
    share[rows, place] = each[rows].float()

    def filled(own: Tensor) -> Tensor:
        found = own.new_zeros(networks, points, *own.shape[1:])
        found[rows, place] = own[order]
        return found

    positions, directions, lengths, opacity, colour = (filled(own) for own in values)
    return NetworkSamples(positions, directions, lengths, opacity, colour, share)
