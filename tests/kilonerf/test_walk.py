"""The whole walk on a scene by hand: occupancy, distilling, pictures, tightening, narrowing."""

from dataclasses import dataclass
from typing import Optional

import numpy as np
import pytest
import torch
from support.single_networks import some_shape
from torch import Tensor
from torch.nn.functional import normalize

from nerfstudio_prune.kilonerf.building import build_cells, tighten
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.composite import Rendered, composite, render
from nerfstudio_prune.kilonerf.distillation import distillation_loss
from nerfstudio_prune.kilonerf.evaluate import evaluate
from nerfstudio_prune.kilonerf.examples import Examples
from nerfstudio_prune.kilonerf.march import Lattice, Marcher
from nerfstudio_prune.kilonerf.narrow import narrowed, width_errors
from nerfstudio_prune.kilonerf.width_budget import allocate

BOX = torch.tensor([[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0]])
LATTICE = Lattice(2.0, 6.0, 80)


def scene(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """A soft ball, coloured by place, with a light that moves with the direction."""
    density = 40 * torch.sigmoid(20 * (1 - points.norm(dim=1)))
    shine = 0.2 * directions[..., 2:]
    return density, (0.5 + 0.3 * points[:, None] + shine).clamp(0, 1).expand_as(directions)


def density(points: Tensor) -> Tensor:
    return scene(points, torch.zeros(len(points), 1, 3))[0]


def rays() -> tuple[Tensor, Tensor, Tensor]:
    """Cameras around the scene; rays of 16 x 16 pixels of each, into the scene."""
    cameras = 4 * normalize(torch.tensor([[1.0, 0.2, 0.3], [-0.5, 1.0, 0.1], [0.1, -0.4, 1.0]]), dim=1)
    side = torch.linspace(-1.2, 1.2, 16)
    plane = torch.cartesian_prod(side, side)
    origins, directions = [], []
    for camera in cameras:
        right = normalize(torch.linalg.cross(camera, torch.tensor([0.3, 1.0, 0.5])), dim=0)
        up = normalize(torch.linalg.cross(right, camera), dim=0)
        targets = plane[:, :1] * right + plane[:, 1:] * up
        directions.append(normalize(targets - camera, dim=1))
        origins.append(camera.expand(len(plane), 3))
    return cameras, torch.cat(origins), torch.cat(directions)


@dataclass
class Student:
    """Cells and networks after distilling."""

    live: LiveCells
    networks: NetworkClasses
    examples: Examples

    def picture(self, shuffle: int = 0, threshold: Optional[float] = None) -> Tensor:
        """What the student shows; with the networks' numbers shifted, for the control."""
        _, origins, directions = rays()
        found = Marcher(self.live, LATTICE).occupied(origins, directions)
        network = self.live.networks(found.voxel)
        local = self.live.local(found.points(origins, directions), network)
        network = (network + shuffle) % self.live.count
        length = LATTICE.lengths(found.step)

        def values(which: Tensor) -> tuple[Tensor, Tensor]:
            return evaluate(self.networks, local[which], network[which], found.ray[which], directions)

        if threshold is not None:
            shown = render(values, found.ray, found.distance, length, len(origins), threshold, [2, 4])
        else:
            shown = composite(*values(torch.arange(len(found))), found.ray, found.distance, length, len(origins))
        return shown.over(torch.ones(3))


def truth() -> Tensor:
    """The scene at every step of every ray, without an occupancy."""
    _, origins, directions = rays()
    steps = torch.arange(LATTICE.steps, dtype=torch.int32).repeat(len(origins))
    ray = torch.arange(len(origins), dtype=torch.int32).repeat_interleave(LATTICE.steps)
    distance = LATTICE.distances(steps, torch.full((len(steps),), 0.5))
    points = origins[ray.long()] + directions[ray.long()] * distance[:, None]
    values, rgb = scene(points, directions[ray.long()][:, None])
    shown: Rendered = composite(values, rgb[:, 0], ray, distance, LATTICE.lengths(steps), len(origins))
    return shown.over(torch.ones(3))


def psnr(picture: Tensor, other: Tensor) -> float:
    return -10 * float((picture - other).detach().square().mean().log10())


@pytest.fixture(scope="module")
def student() -> Student:
    """Distilled once: 4 cells along a side, networks of 16 neurons, 150 steps."""
    generator = torch.Generator().manual_seed(0)
    live = build_cells(density, BOX, 4, 4, 0.02, generator, torch.zeros(0, 3))
    networks = NetworkClasses.uniform(live.count, some_shape(16), generator)
    examples = Examples(live, rays()[0], scene, 32, 4 * 10**6, seed=0)
    optimizer = torch.optim.Adam(networks.parameters(), lr=1e-2, eps=1e-12)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 1e-2 * 0.1 ** (step / 150)
        batch = examples.batch(step)
        values = networks.batched(batch.positions, batch.directions)
        loss = distillation_loss(*values, batch.density, batch.rgb, LATTICE.step_size)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    for parameter in networks.parameters():
        parameter.requires_grad_(False)
    return Student(live, networks, examples)


def test_a_distilled_grid_shows_the_scene_and_a_shuffled_one_does_not(student: Student) -> None:
    """All parts together: what was drawn, learnt, marched, evaluated and composited is the scene at every step of every
    ray. With networks of other cells, the control, the picture falls apart."""
    expected = truth()
    found = psnr(student.picture(), expected)
    assert found > 23
    assert psnr(student.picture(shuffle=1), expected) < found - 10
    assert psnr(torch.ones_like(expected), expected) < 15


def test_early_termination_shows_the_same_to_the_threshold(student: Student) -> None:
    """Through the networks themselves, which see other groups of points in each pass."""
    whole = student.picture()
    for threshold in (0.0, 0.02):
        assert float((student.picture(threshold=threshold) - whole).abs().max()) <= threshold + 1e-5


def test_what_is_tightened_away_does_not_show(student: Student) -> None:
    """Occupancy is dilated for the teacher; looked at again through the student it loses voxels and hardly any
    quality."""

    def own_density(points: Tensor, voxels: Tensor) -> Tensor:
        network = student.live.networks(voxels)
        ray = torch.zeros(len(points), dtype=torch.int32)
        return evaluate(student.networks, student.live.local(points, network), network, ray, torch.eye(3)[:1])[0]

    fewer = tighten(student.live, own_density, 0.005, torch.Generator().manual_seed(1))
    assert fewer.share < 0.9 * student.live.share
    tight = Student(fewer, student.networks, student.examples)
    assert fewer.count == student.live.count
    assert psnr(tight.picture(), truth()) > psnr(student.picture(), truth()) - 0.5


def test_networks_are_narrowed_by_what_their_cells_need(student: Student) -> None:
    """Two thirds of the parameters, shared out by error: better than one width for all of the same cost."""
    batches = [student.examples.batch(step) for step in range(6)]
    positions = torch.cat([batch.positions for batch in batches], dim=1)
    directions = torch.cat([batch.directions for batch in batches], dim=1)
    widths = (4, 8, 12, 16)
    costs = [some_shape(width).parameters for width in widths]
    errors = width_errors(student.networks, positions, directions, widths, LATTICE.step_size)
    chosen = np.asarray(widths)[allocate(errors.numpy(), costs, student.live.count * costs[1])]
    assert len(set(chosen.tolist())) > 2
    shared = narrowed(student.networks, torch.from_numpy(chosen), positions, directions, LATTICE.step_size)
    alike = narrowed(student.networks, torch.full((student.live.count,), 8), positions, directions, LATTICE.step_size)
    assert shared.num_parameters <= alike.num_parameters
    whole = student.picture()
    found = [psnr(Student(student.live, n, student.examples).picture(), whole) for n in (shared, alike)]
    assert found[0] > found[1] + 1
