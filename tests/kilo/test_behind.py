"""A sky without density: what a teacher shows by the last sample of a ray alone has cells, is learnt, and stays."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from support.tiny_run import SCENE_BOX
from torch import Tensor
from torch.nn.functional import normalize

from nerfstudio_prune.kilo.behind import places_behind
from nerfstudio_prune.kilo.building import Plan, make_plan
from nerfstudio_prune.kilo.config import KiloOptions
from nerfstudio_prune.kilo.lessons import Lessons
from nerfstudio_prune.kilo.model import KiloModelConfig
from nerfstudio_prune.kilo.spaces import SPACES, ContractedSpace
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilo.tightening import remove_others, tightened
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.occupancy import dilated

BALL = SPACES["contracted"]
NEAR, FAR, SAMPLES = 0.05, 1000.0, 40
RADIUS = 0.2
"""Of the only thing that there is, in the middle of the contracted ball; in the world it is twice as large."""
SIZE = 20
"""Pixels along a side of a view."""
PIXELS = torch.cartesian_prod(*[torch.arange(SIZE) + 0.5] * 2)
"""Row and column of each."""
STEPS, POINTS = 150, 64
"""Of distilling, and points of a network in each."""


def sky(directions: Tensor) -> Tensor:
    """Colours, in [0.2, 0.8], that are others on each side."""
    return 0.5 + 0.3 * directions


def teacher(background: str = "last_sample") -> Any:
    """A grey ball before a sky that has no density whatever."""

    def density(points: Tensor) -> Tensor:
        return torch.where(points.norm(dim=-1) < RADIUS, 80.0, 0.0)

    def values(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        found = density(points)
        grey = torch.full((len(points), 3), 0.5)
        rgb = torch.where((found > 0)[:, None], grey, sky(normalize(points, dim=-1)))
        return found, rgb[:, None].expand_as(directions).contiguous()

    about = {"near": NEAR, "far": FAR, "samples": SAMPLES, "background": background, "space": BALL}
    return SimpleNamespace(density=density, values=values, **about)


def views(*angles: float) -> Cameras:
    """Cameras on a circle of radius 0.9 about the middle, which they look at."""
    poses = []
    for angle in torch.tensor(angles):
        back, up = torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0)]), torch.tensor([0.0, 0.0, 1.0])
        poses.append(torch.stack([torch.linalg.cross(up, back), up, back, 0.9 * back], dim=1))
    size: dict[str, Any] = {
        "width": SIZE,
        "height": SIZE,
        "cx": SIZE / 2,
        "cy": SIZE / 2,
        "fx": 1.0 * SIZE,
        "fy": 1.0 * SIZE,
    }
    return Cameras(camera_to_worlds=torch.stack(poses), camera_type=CameraType.PERSPECTIVE, **size)


TRAINING = views(0.0, 0.5, 1.0, 1.5)


def planned(background: str = "last_sample") -> Plan:
    """Cells of a side of half a radius of the ball."""
    sizes = {"grid": {"resolution": 4, "hidden_width": 16}, "occupancy": {"refine": 4}}
    options = KiloOptions.from_plain({**sizes, "distil": {"points_per_network": POINTS}})
    return make_plan(teacher(background), TRAINING, options, 0, "cpu", None)


def rays_past_the_ball(
    cameras: Cameras, pixels: Tensor, beside: Any = 0.0, reach: float = 2 * RADIUS
) -> tuple[Tensor, Tensor]:
    """Origins and directions of the rays through pixels of all views that miss the thing, by geometry; or of rays that
    are some part of a pixel beside these."""
    begins, ways = [], []
    for view in range(len(cameras)):
        rays = cameras.generate_rays(view, coords=pixels)
        # All of it lies where the ball is the world at half its size.
        miss = torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1) > reach
        rays = cameras.generate_rays(view, coords=pixels + beside)
        begins.append(rays.origins[miss])
        ways.append(rays.directions[miss])
    return torch.cat(begins), torch.cat(ways)


def student(plan: Plan) -> Any:
    """A model that has learnt from the teacher."""
    model: Any = KiloModelConfig().setup(scene_box=SCENE_BOX, num_train_data=1)
    model.make_room(plan.shape)
    model.begin(plan.live, plan.lattice, plan.shape, KiloState(plan.options, "last_sample", "digest", 3, "contracted"))
    places, behind = TRAINING.camera_to_worlds[:, :, 3], places_behind(BALL, "last_sample", plan.lattice)
    lessons = Lessons(teacher().values, places, plan.options.distil, model.step_size(), BALL, behind)
    lessons.learn(model.stack, plan.live, STEPS, 0)
    return model.eval()


def sky_errors(model: Any, angle: float) -> Tensor:
    """Largest error of a channel at each pixel that shows the sky and nothing near the thing, in a view."""
    rays = views(angle).generate_rays(0, coords=PIXELS)
    clear = torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1) > 2 * RADIUS + 0.1
    with torch.no_grad():
        found = model.get_outputs(rays)["rgb"][clear]
    return (found - sky(rays.directions[clear])).abs().amax(dim=1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Cells for the teacher."""
    return planned()


@pytest.fixture(scope="module")
def model(plan: Plan) -> Any:
    """What has learnt in these."""
    return student(plan)


def test_the_ends_of_open_rays_have_voxels_and_others_have_none(plan: Plan) -> None:
    """The sky is nowhere dense: its voxels follow from the rays that reach it. Each one more is a network that nobody
    sees, of thousands around the whole ball."""
    grid, lattice = plan.live.grid, plan.lattice
    origins, directions = rays_past_the_ball(TRAINING, PIXELS)
    last = lattice.distances(torch.tensor([lattice.steps - 1], dtype=torch.int32), torch.tensor([0.5]))
    ends = grid.voxels(BALL.from_world(origins + last * directions))
    assert bool((ends >= 0).all() and plan.live.occupied.flatten()[ends.long()].all())

    def ends_near(reach: float) -> Tensor:
        """Voxels of places of the last steps of open rays, and of others that are up to half a pixel beside one."""
        found, distance = torch.zeros_like(plan.live.occupied), lattice.edges(lattice.steps - torch.linspace(0, 1, 7))
        for beside in torch.cartesian_prod(*[torch.linspace(-0.5, 0.5, 6)] * 2):
            origins, directions = rays_past_the_ball(TRAINING, PIXELS, beside, reach)
            places = (origins[:, None] + directions[:, None] * distance[:, None]).flatten(0, 1)
            ends = grid.voxels(BALL.from_world(places))
            found.view(-1)[ends[ends >= 0].long()] = True
        return found

    assert bool(plan.live.occupied[ends_near(2 * RADIUS)].all())
    # What only grazes the thing lets light through as well; and a voxel beside those of the ends is to spare.
    possible = dilated(ends_near(2 * RADIUS - 0.04)).flatten()
    dense = planned("black").live
    middles = grid.lower + (grid.voxel_coordinates(torch.arange(len(possible)).int()) + 0.5) * grid.voxel_size
    beside_the_thing = middles.norm(dim=1) < RADIUS + 3.5 * grid.voxel_size
    more = plan.live.occupied.flatten() & ~beside_the_thing
    # Some place of each lies within the ball, and not farther from its surface than the last step is long.
    corners = middles[more][:, None] + (torch.cartesian_prod(*[torch.linspace(-0.5, 0.5, 11)] * 3)) * grid.voxel_size
    last_step = 1 / (2 * lattice.edges(torch.tensor(lattice.steps - 1)))
    within = (corners.norm(dim=-1) < 1) & (corners.norm(dim=-1) > 1 - last_step - 0.01)
    assert bool(within.any(dim=1).all())
    assert dense.grid.aabb.abs().max() < 0.5 < grid.aabb.abs().max() <= 1.0 + grid.cell_size
    assert not bool((more & ~possible).any()) and 50 < int(more.sum()) < 0.3 * len(possible)
    assert any("rays of training views show what is behind everything" in line for line in plan.told)


def test_a_sky_of_last_samples_is_shown(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a view between those that were looked at as well. Without cells for it, it is black."""
    assert float(sky_errors(model, 0.5).max()) < 0.06 and float(sky_errors(model, 0.75).max()) < 0.06
    monkeypatch.setattr(ContractedSpace, "holds_ends", False)
    former = student(planned())
    assert float(former.cells.live.grid.aabb.abs().max()) < 0.5
    assert float(sky_errors(former, 0.5).quantile(0.2)) > 0.2


@pytest.mark.parametrize("only_visible", [True, False])
def test_the_sky_stays_where_what_is_transparent_leaves(model: Any, only_visible: bool) -> None:
    """Voxels leave that have no density, and those that no view sees: the background has none, and is seen."""
    model = deepcopy(model)
    live: LiveCells = model.cells.live
    with torch.no_grad():
        # So short a training leaves a little haze, which would stay by itself.
        hazy = (live.corners + live.grid.cell_size / 2).norm(dim=1) > 0.5
        model.stack.w_density[hazy], model.stack.b_density[hazy] = 0.0, -20.0
    origins, directions = rays_past_the_ball(TRAINING, PIXELS)
    last = model.cells.lattice_of_rays.edges(torch.tensor(model.cells.lattice_of_rays.steps - 0.5))
    ends = live.grid.voxels(BALL.from_world(origins + last * directions)).long()
    pictures = [model.get_outputs_for_camera(TRAINING[view])["rgb"] for view in range(len(TRAINING))]
    found = tightened(model, TRAINING, 0.02, only_visible, torch.Generator().manual_seed(0))
    assert bool(found.occupied.flatten()[ends].all()) and not bool((found.occupied & ~live.occupied).any())
    parameters = list(model.stack.parameters())
    remove_others(model, found, {"networks": torch.optim.Adam(parameters)}, {"networks": parameters})
    for view, picture in enumerate(pictures):
        torch.testing.assert_close(model.get_outputs_for_camera(TRAINING[view])["rgb"], picture, atol=0.02, rtol=0)
    model.state = replace(model.state, background="black")
    others = tightened(model, TRAINING, 0.02, only_visible, torch.Generator().manual_seed(0))
    assert not bool(others.occupied.flatten()[ends].any())
