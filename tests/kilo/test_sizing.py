"""Cells and widths from a budget: it is kept, and the trials that decide on them measure what counts."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from support.tiny_kilo import psnr, weights
from support.tiny_run import start, train

from nerfstudio_prune.kilo.building import _fineness
from nerfstudio_prune.kilo.config import BUDGET_POINTS, POINTS, DistilConfig, GridConfig, KiloOptions, options_of
from nerfstudio_prune.kilo.lessons import Lessons
from nerfstudio_prune.kilo.pipeline import KiloPipelineConfig
from nerfstudio_prune.kilo.sizing import samples_of_a_ray, trial
from nerfstudio_prune.kilo.spaces import SPACES
from nerfstudio_prune.kilonerf.budget import MEGABYTE, Candidate, recut
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.distillation import distillation_loss
from nerfstudio_prune.kilonerf.march import Lattice
from nerfstudio_prune.kilonerf.networks import TinyNetworks
from nerfstudio_prune.kilonerf.shape import NetworkShape
from nerfstudio_prune.occupancy import MAX_CELLS

Make = Callable[..., Any]
SHAPE = NetworkShape(8, 1, 1, 1)
STEP = 0.1


def uneven() -> LiveCells:
    """Two cells side by side: one with a single occupied voxel, the other full."""
    occupied = torch.ones(8, 4, 4, dtype=torch.bool)
    occupied[:4] = False
    occupied[1, 2, 3] = True
    return LiveCells(CellGrid(torch.tensor([-2.0, -1.0, -1.0]), 2.0, (2, 1, 1), 4), occupied)


def from_above() -> Cameras:
    """A camera that looks down on all of it."""
    pose = torch.eye(4)[:3].clone()
    pose[2, 3] = 5.0
    size: dict[str, Any] = {"width": 12, "height": 12, "cx": 6.0, "cy": 6.0, "fx": 10.0, "fy": 10.0}
    return Cameras(camera_to_worlds=pose[None], camera_type=CameraType.PERSPECTIVE, **size)


def half_solid(points: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense and black on the one side, empty on the other."""
    density = torch.where(points[:, 0] < 0, 4.0, 0.0)
    return density, torch.zeros_like(directions)


def lessons(**distil: Any) -> Lessons:
    """What is to be learnt."""
    places = torch.tensor([[0.0, 0.0, 5.0]])
    return Lessons(half_solid, places, DistilConfig(**distil).filled(), STEP, SPACES["bounded"])


def test_each_voxel_counts_alike() -> None:
    """Candidates cut the same voxels into other networks. If each network counted alike, a grid of many nearly empty
    cells would look better or worse than it is. Against a loop over places, of networks that learn nothing."""
    live = uneven()
    error = trial(lessons(points_per_network=20_000, lr=1e-12, lr_final=1e-12), live, 1, seed=4)
    for refine in (4, 2):
        cells = recut(live, refine)
        grid = live.grid.with_refine(refine)
        found = error(Candidate(grid, SHAPE, cells.count))
        networks = TinyNetworks(cells.count, SHAPE, torch.Generator().manual_seed(4))
        total, places = 0.0, torch.rand(400, 3, generator=torch.Generator().manual_seed(5))
        for voxel in cells.occupied.flatten().nonzero()[:, 0].int().tolist():
            number = torch.tensor([voxel], dtype=torch.int32)
            points = grid.lower + (grid.voxel_coordinates(number) + places) * grid.voxel_size
            network = cells.networks(number).expand(len(points)).contiguous()
            towards = torch.nn.functional.normalize(points - torch.tensor([0.0, 0.0, 5.0]), dim=1)
            local = cells.local(points, network).expand(cells.count, -1, -1)
            density, rgb = networks.batched(local, towards.expand(cells.count, -1, -1))
            wanted, black = half_solid(points, towards)
            one = int(network[0])
            loss = distillation_loss(density[one][None], rgb[one][None], wanted[None], black[None], STEP)
            total += loss.total.item()
        assert found == pytest.approx(total / int(cells.occupied.sum()), rel=0.03)


def test_what_learns_more_has_less_error() -> None:
    """The trials train: otherwise they would compare random networks. And they draw from their seed alone."""
    live = uneven()
    candidate = Candidate(live.grid, SHAPE, live.count)

    def after(steps: int) -> float:
        return trial(lessons(lr=0.03), live, steps, 4)(candidate)

    found = [after(steps) for steps in (1, 30, 100)]
    assert found[0] > 4 * found[1] and found[1] > 2 * found[2]
    assert after(30) == found[1]


def test_they_are_judged_whatever_memory_lessons_have() -> None:
    """It takes more points than a step does; what fits while a run learns must not fail at its end."""
    live = uneven()
    little = lessons(points_per_network=4, memory_mb=1e-3)
    networks = TinyNetworks(live.count, SHAPE, torch.Generator().manual_seed(1))
    little.learn(networks, live, 2, seed=1)
    assert little.errors(networks, live, seed=1).shape == (live.count,)


def test_small_networks_learn_from_more_points() -> None:
    """A budget gives networks that learn slowly and cost little: with the points of large ones they would end below the
    teacher. What is given counts, whatever the grid follows from."""
    budgets: list[dict[str, Any]] = [{}, {"target_mb": 1.0}, {"target_parameters": 10_000}, {"target_macs": 1e4}]
    found = []
    for budget in budgets:
        config = KiloPipelineConfig(grid=GridConfig(**budget))
        found.append(options_of(config).distil.points_per_network)
        given = KiloPipelineConfig(grid=GridConfig(**budget), distil=DistilConfig(points_per_network=POINTS))
        assert options_of(given).distil.points_per_network == POINTS
    assert found == [POINTS, BUDGET_POINTS, BUDGET_POINTS, BUDGET_POINTS] and POINTS < BUDGET_POINTS


def test_defaults_fit_into_a_grid() -> None:
    """Of photographs a pixel is a thousandth of the space: as many voxels a cell as KiloNeRF has would be too many."""
    for space in SPACES.values():
        for pixels in (100, 300, 1_000, 10_000):
            resolution, refine, _ = _fineness(2.0, 2.0 / pixels, KiloOptions.from_plain({}), space)
            assert (resolution * refine) ** 3 <= MAX_CELLS and refine >= 8
    assert KiloOptions.from_plain({"occupancy": {"refine": 256}}).occupancy.refine == 256


def test_samples_are_those_of_training_rays() -> None:
    """A budget of multiply-accumulates per ray is kept where the rays are: against every place of every ray."""
    live, lattice, cameras = uneven(), Lattice(1.0, 7.0, 60), from_above()
    rays = cameras.generate_rays(camera_indices=0).flatten()
    distances = 1.0 + (torch.arange(60) + 0.5) * 0.1
    points = rays.origins[:, None] + rays.directions[:, None] * distances[:, None]
    voxels = live.grid.voxels(points.flatten(0, 1))
    inside = (voxels >= 0) & live.occupied.flatten()[voxels.clamp(min=0).long()]
    assert samples_of_a_ray(live, lattice, cameras) == pytest.approx(int(inside.sum()) / len(rays))


@pytest.mark.parametrize(("kind", "value"), [("parameters", 30_000), ("mb", 0.08)])
def test_a_run_keeps_its_budget(make: Make, kind: str, value: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, saved and loaded again it is within what was asked for; what was tried is told, one line a width, and
    the least error of them was taken. A larger grid or more weights than that are the budget's fault, not chance's."""
    trainer = train(make(grid__hidden_width=None, **{f"grid__target_{kind}": value}))
    out = " ".join(capsys.readouterr().out.split())
    model = trainer.pipeline.model
    used = model.networks.num_parameters
    assert 0.5 * value < (used if kind == "parameters" else 4 * used / MEGABYTE) <= value
    grid = model.state.options.grid
    assert (grid.hidden_width, grid.resolution) == (model.stack.shape.hidden_width, max(model.cells.live.grid.shape))
    lines = [line for line in out.split("KiloNeRF: ") if line.startswith(f"tried for grid.target_{kind}")]
    errors = {line.split("of width ")[1].split(",")[0]: float(line.split("error ")[1].split()[0]) for line in lines}
    assert len(errors) >= 2 and min(errors, key=lambda width: errors[width]) == str(grid.hidden_width)
    assert "least error after a short distillation" in out
    other: Any = trainer.config.pipeline.setup(device="cpu", test_mode="val")
    other.load_pipeline({"_model." + name: value for name, value in model.state_dict().items()}, 0)
    assert weights(SimpleNamespace(pipeline=other)).keys() == weights(trainer).keys()
    assert psnr(other) == psnr(trainer.pipeline)


def test_a_budget_of_work_decides_on_the_width(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells stay as they are."""
    plain = start(make(grid__resolution=3))
    found = start(make("other", grid__hidden_width=None, grid__resolution=3, grid__target_macs=20_000.0))
    out = " ".join(capsys.readouterr().out.split())
    assert "grid.target_macs 20,000" in out and "a ray at" in out
    cells = [trainer.pipeline.model.cells.live.cells.tolist() for trainer in (plain, found)]
    assert cells[0] == cells[1] and found.pipeline.model.stack.shape.hidden_width == 8


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"grid__target_mb": 1.0, "grid__target_macs": 5.0},
            r"grid\.target_mb and pipeline\.grid\.target_macs must not",
        ),
        ({"grid__target_mb": 1.0}, r"grid\.hidden_width must not be given with pipeline\.grid\.target_mb: it follows"),
        (
            {"grid__target_parameters": 9, "grid__hidden_width": None, "grid__resolution": 3},
            r"grid\.resolution must not be given with pipeline\.grid\.target_parameters",
        ),
        ({"grid__target_mb": 0.0, "grid__hidden_width": None}, r"grid\.target_mb must be in \(0, 1,000,000\], got 0"),
    ],
)
def test_options_that_exclude_each_other(make: Make, given: Any, text: str) -> None:
    """A budget replaces the sizes that follow from it: whoever gives both expects both to hold."""
    with pytest.raises(ValueError, match=text):
        make(**given).pipeline.setup(device="cpu", test_mode="val")


def test_a_budget_below_a_single_network(make: Make) -> None:
    """It says what would be enough."""
    with pytest.raises(ValueError, match=r"grid\.target_parameters 50 is below one network for each live cell"):
        start(make(grid__hidden_width=None, grid__target_parameters=50))
