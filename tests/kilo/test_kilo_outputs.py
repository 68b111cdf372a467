"""Outputs beside colour and depth show what they say, and cost nothing where nobody looks at them."""

from math import exp, log, log1p
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.renderers import background_color_override_context
from support.tiny_run import SCENE_BOX
from torch import Tensor

from nerfstudio_prune.kilo.config import KiloOptions
from nerfstudio_prune.kilo.model import KiloModel, KiloModelConfig
from nerfstudio_prune.kilo.outputs import cell_colours, work
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.evaluate import evaluate
from nerfstudio_prune.kilonerf.march import Lattice
from nerfstudio_prune.kilonerf.shape import NetworkShape

NEAR, FAR, STEPS = 1.0, 7.0, 60
OPAQUE = 60.0


def empty(**options: Any) -> KiloModel:
    """A model without networks."""
    model: Any = KiloModelConfig(**options).setup(scene_box=SCENE_BOX, num_train_data=1)
    model.make_room(NetworkShape(8, 2, 1, 1))
    return model.eval()


def model_of(occupied: Tensor, densities: list[float], refine: int = 2, **options: Any) -> KiloModel:
    """Cells of side 1 from (-1, -1, -1) on, each of one density.

    Args:
        occupied: Voxels.
        densities: Density of each network, > 0.
        refine: Voxels along the side of a cell.
        options: Of the model.
    """
    x, y, z = (side // refine for side in occupied.shape)
    live = LiveCells(CellGrid(torch.full((3,), -1.0), 1.0, (x, y, z), refine), occupied)
    model = empty(**options)
    state = KiloState(KiloOptions.from_plain({}), "white", "digest", 3)
    model.begin(live, Lattice(NEAR, FAR, STEPS), NetworkShape(8, 2, 1, 1), state)
    with torch.no_grad():
        stack: Any = model.stack
        stack.w_density.zero_()
        # The inverse of softplus.
        stack.b_density.copy_(torch.tensor([d + log(-torch.expm1(torch.tensor(-d))) for d in densities]).view(-1, 1, 1))
        torch.nn.init.normal_(stack.w_rgb, generator=torch.Generator().manual_seed(1))
    return model.requires_grad_(False).eval()


def tower(front: float, back: float, **options: Any) -> KiloModel:
    """Two cells, one above the other; from above the second network is in front."""
    return model_of(torch.ones(2, 2, 4, dtype=torch.bool), [back, front], **options)


def down(*places: tuple[float, float]) -> RayBundle:
    """A row of rays from above."""
    origins = torch.tensor([[*place, 5.0] for place in places])[None]
    directions = torch.tensor([0.0, 0.0, -1.0]).expand_as(origins).contiguous()
    return RayBundle(origins=origins, directions=directions, pixel_area=torch.ones(1, len(places), 1))


class Painted:
    """A teacher of one density and one colour."""

    asked = 0

    def values(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += len(points)
        assert directions.shape == (len(points), 1, 3)
        assert torch.allclose(directions.norm(dim=-1), torch.ones(()))
        return torch.full((len(points),), OPAQUE), torch.tensor([1.0, 0.0, 0.0]).expand(len(points), 1, 3)


class Same:
    """A teacher that says what a model's networks say.

    Args:
        model: The model.
    """

    def __init__(self, model: KiloModel) -> None:
        self.model = model

    def values(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        live = self.model.cells.live
        assert live is not None
        network = live.networks(live.grid.voxels(points))
        every = torch.arange(len(points), dtype=torch.int32)
        density, rgb = evaluate(self.model.networks, live.local(points, network), network, every, directions[:, 0])
        return density, rgb[:, None]


def test_a_cell_that_nothing_is_in_front_of_has_its_colour() -> None:
    """One looks for the cell that is wrong by its colour: it is that of the cell, whatever number its network has."""
    occupied = torch.zeros(4, 4, 2, dtype=torch.bool)
    occupied[2:, 2:], occupied[:2, 2:] = True, True
    picture = model_of(occupied, [OPAQUE, OPAQUE]).get_outputs_for_camera_ray_bundle(
        down((0.3, 0.3), (-0.6, 0.3), (-0.6, -0.6))
    )["networks"]
    # Of 2 x 2 x 1 cells these have the numbers 3 and 1; the last ray meets none.
    expected = cell_colours(torch.tensor([3, 1], dtype=torch.int32))
    assert torch.allclose(picture[0, :2], expected, atol=1e-5)
    assert picture[0, 2].tolist() == [1, 1, 1]


def test_cells_are_composited() -> None:
    """Through what is half transparent one sees the cell behind it, with what light is left; and not with another
    weight than the colours of the scene have."""
    outputs = tower(front=1.0, back=OPAQUE).get_outputs_for_camera_ray_bundle(down((-0.3, -0.3)))
    back, front = cell_colours(torch.tensor([0, 1], dtype=torch.int32))
    assert torch.allclose(outputs["networks"][0, 0], (1 - exp(-1)) * front + exp(-1) * back, atol=1e-5)


def test_colours_of_cells() -> None:
    """They stay when other cells go, and neighbours can be told from each other and from black, white and grey."""
    cells = torch.arange(16**3, dtype=torch.int32)
    colours = cell_colours(cells)
    assert torch.equal(cell_colours(cells[5::7]), colours[5::7])
    assert float(colours.min()) >= 0 and float(colours.max()) <= 1
    assert float((colours.amax(dim=1) - colours.amin(dim=1)).min()) > 0.2
    grid = colours.view(16, 16, 16, 3)
    for axis in range(3):
        apart = grid.diff(dim=axis).abs().amax(dim=-1)
        assert float((apart < 0.1).float().mean()) < 0.05 and float(apart.mean()) > 0.35


def test_samples_are_counted() -> None:
    """As many as a walk over all steps finds in occupied voxels; on a scale from none to all."""
    occupied = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.4
    cells = int(occupied.view(3, 2, 3, 2, 3, 2).any(dim=5).any(dim=3).any(dim=1).sum())
    model = model_of(occupied, [0.1] * cells)
    rays = down((-0.9, -0.7), (-0.3, 0.1), (0.2, 0.7), (1.3, 1.9), (0.8, -0.2), (-3.0, 0.0))
    outputs = model.get_outputs_for_camera_ray_bundle(rays)
    live, lattice = model.cells.live, model._marcher().lattice
    assert live is not None and lattice.steps >= STEPS
    expected = []
    for x, y, _ in rays.origins[0].tolist():
        heights = 5 - lattice.distances(torch.arange(lattice.steps, dtype=torch.int32), torch.tensor(0.5))
        voxels = live.grid.voxels(torch.stack([torch.full_like(heights, x), torch.full_like(heights, y), heights], 1))
        expected.append(int(occupied.flatten()[voxels[voxels >= 0].long()].sum()))
    assert outputs.counts.flatten().tolist() == expected and expected[-1] == 0 < max(expected)
    shares = [log1p(count) / log1p(lattice.steps) for count in expected]
    assert outputs["samples"].flatten().tolist() == pytest.approx(shares, abs=1e-6)
    assert work(torch.tensor([0, STEPS, 2 * STEPS]), STEPS).tolist() == [0, 1, 1]


def test_samples_that_nobody_sees_are_not_counted() -> None:
    """The number is what was evaluated, not what was there: it falls where rays are followed no further."""
    rays = down((-0.3, -0.3))
    assert int(tower(OPAQUE, OPAQUE).get_outputs_for_camera_ray_bundle(rays).counts) == 20
    stopped = tower(OPAQUE, OPAQUE, samples_per_pass=2).get_outputs_for_camera_ray_bundle(rays)
    assert int(stopped.counts) == 2
    assert torch.allclose(stopped["networks"][0, 0], cell_colours(torch.tensor([1], dtype=torch.int32))[0], atol=0.01)


def test_a_cell_shows_how_wrong_its_network_is() -> None:
    """A person looks for the cells that are worst: roots of mean squares, in the unit of colours, composited as colours
    are. Where there is nothing, nothing is wrong, be the background white, as here, or what the host puts in its place;
    and what is learnt after the picture does not show in it."""
    model, rays = tower(front=1.0, back=OPAQUE), down((-0.3, -0.3), (3.0, 3.0))
    assert not model.get_outputs_for_camera_ray_bundle(rays)["error"].any()  # nothing is known yet
    # The numbers of the networks are those of the cells: the lower one is the first.
    model.errors.note(torch.tensor([0.02, 0.09]), torch.tensor([0.5, 1.0]))
    expected = [(1 - exp(-1)) * 0.3 + exp(-1) * 0.2, 0]
    first, second = (model.get_outputs_for_camera_ray_bundle(rays) for _ in range(2))
    assert first["error"].flatten().tolist() == pytest.approx(expected, abs=1e-5)
    model.errors.note(torch.ones(2), torch.ones(2))
    with background_color_override_context(torch.tensor([0.2, 0.9, 0.4])):
        assert second["error"].flatten().tolist() == pytest.approx(expected, abs=1e-5)
    assert float(model.get_outputs_for_camera_ray_bundle(rays)["error"][0, 0]) > 0.7


def test_who_paints_the_sky_is_to_blame_for_it() -> None:
    """Where the background has the colour of a ray's last sample its network answers for the light that comes through
    all: in what photos say, and in the picture of it."""
    model, rays = tower(front=1.0, back=0.5), down((-0.3, -0.3))
    model._take_state(KiloState(model.state.options, "last_sample", "digest", 3))
    batch = {"image": torch.zeros(1, 1, 3)}
    outputs = model.train()(rays)
    squared = float(outputs["rgb"].square().mean())
    model.get_loss_dict(outputs, batch)
    through = exp(-1)
    assert model.errors.weights.tolist() == pytest.approx([through, 1 - through], abs=1e-5)
    assert model.errors.sums.tolist() == pytest.approx([through * squared, (1 - through) * squared], abs=1e-5)
    model.errors.put(torch.tensor([0.04, 0.0]), torch.ones(2))
    shown = model.eval().get_outputs_for_camera_ray_bundle(rays)["error"]
    assert float(shown) == pytest.approx(through * 0.2, abs=1e-5)


def test_photos_say_which_network_is_wrong() -> None:
    """The squared error of each pixel belongs to the networks that made it, in the shares in which they did; a loss
    that is only measured says nothing."""
    occupied = torch.ones(2, 4, 4, dtype=torch.bool)
    model = model_of(occupied, [OPAQUE, 1.0, OPAQUE, OPAQUE])
    rays = down((-0.3, -0.3), (-0.3, 0.3), (-0.7, 0.6), (3.0, 3.0))
    batch = {"image": torch.rand(1, 4, 3, generator=torch.Generator().manual_seed(1))}
    model.get_loss_dict(model(rays), batch)
    assert not model.errors.weights.any()
    with torch.no_grad():
        outputs = model.train()(rays)
        losses = model.get_loss_dict(outputs, batch)
    squares = (outputs["rgb"] - batch["image"]).square().mean(dim=-1)[0]
    assert float(losses["rgb_loss"]) == pytest.approx(float(squares.mean()))
    # Two towers, numbered from the bottom up: the first ray sees both cells of one, the next two that on top of the
    # other. What is hidden below it has no more than a trace of these.
    expected = [squares[0], squares[0], squares[1:3].mean(), squares[1:3].mean()]
    assert model.errors.weights.tolist() == pytest.approx([exp(-1), 1 - exp(-1), 0, 2], abs=1e-5)
    found = model.errors.roots().square()
    assert found.tolist() == pytest.approx([float(value) for value in expected], abs=1e-5)
    # The shares are used once: they belong to that batch.
    model.get_loss_dict(outputs, batch)
    assert torch.equal(model.errors.roots().square(), found)


def test_what_is_learnt_from_is_shown_beside() -> None:
    """A student that is equal to its teacher differs nowhere; of another one the largest channel counts. The teacher is
    seen where the student is: a ray beside all cells shows the background."""
    model, rays = tower(1.0, OPAQUE), down((-0.3, -0.3), (-0.7, -0.2), (3.0, 3.0))
    model.teacher = Same(model)
    same = model.get_outputs_for_camera_ray_bundle(rays)
    assert torch.allclose(same["teacher"], same["rgb"], atol=1e-6)
    assert same["difference"].shape == (1, 3, 1) and float(same["difference"].max()) < 1e-6
    model.teacher = Painted()
    other = model.get_outputs_for_camera_ray_bundle(rays)
    red = torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(other["teacher"][0], torch.stack([red, red, torch.ones(3)]), atol=1e-5)
    expected = (other["rgb"][0] - other["teacher"][0]).abs().amax(dim=1, keepdim=True)
    assert torch.equal(other["difference"][0], expected) and float(expected[0]) > 0.1
    model.teacher = None
    assert not {"teacher", "difference"} & set(model.get_outputs_for_camera_ray_bundle(rays))


def test_nothing_is_evaluated_that_nobody_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation, export and every frame would be slower: each sample is evaluated once, the teacher is not asked, and
    a further output is rendered once when it is looked up."""
    model, rays, evaluated = tower(1.0, 2.0), down((-0.3, -0.3), (-0.7, -0.2)), []

    def spy(networks: Any, coordinates: Tensor, *rest: Any) -> Any:
        evaluated.append(len(coordinates))
        return evaluate(networks, coordinates, *rest)

    monkeypatch.setattr("nerfstudio_prune.kilo.model.evaluate", spy)
    model.teacher = teacher = Painted()
    outputs = model.get_outputs_for_camera_ray_bundle(rays)
    batch = {"image": torch.rand(1, 2, 3)}
    model.get_metrics_dict({"rgb": outputs["rgb"]}, batch)
    names = ["rgb", "depth", "accumulation", "networks", "samples", "error", "teacher", "difference"]
    assert list(outputs) == names and len(outputs) == len(names) and "networks" in outputs
    assert outputs["samples"].shape == (1, 2, 1)
    assert evaluated == [int(outputs.counts.sum())] == [40] and teacher.asked == 0
    first = outputs["networks"]
    assert outputs["networks"] is first and evaluated == [40, 40] and teacher.asked == 0
    assert outputs["difference"].shape == (1, 2, 1) and teacher.asked == 40 and evaluated == [40, 40]
    assert model(rays)["num_samples_per_ray"].flatten().tolist() == [20, 20] and sum(evaluated) == 120


def test_outputs_are_those_of_a_mapping() -> None:
    """The host adds to them, and copies them: nobody has to know that some are not there yet."""
    outputs = tower(1.0, 2.0).get_outputs_for_camera_ray_bundle(down((-0.3, -0.3)))
    outputs["rgba"] = torch.zeros(1, 1, 4)
    copied = {**outputs}
    assert list(copied) == list(outputs) and copied["networks"].shape == (1, 1, 3) and "rgba" in copied
    assert outputs.get("none") is None and "none" not in outputs
    del outputs["rgba"], outputs["networks"], outputs["samples"], outputs["error"]
    assert list(outputs) == ["rgb", "depth", "accumulation"]
    for name in ("networks", "none"):
        with pytest.raises(KeyError):
            outputs[name]
        with pytest.raises(KeyError):
            del outputs[name]


def test_a_picture_is_that_of_its_time() -> None:
    """The viewer looks outputs up when the model may be in training again, where rays begin at another plane. In parts
    it is the same picture."""
    rays = down((-0.3, -0.3), (-0.7, -0.2), (-0.1, -0.9), (2.0, 2.0))
    rays.origins[..., 2] = 0.9
    model = tower(0.3, 0.5)
    expected = model.get_outputs_for_camera_ray_bundle(rays)["networks"]
    later = model.get_outputs_for_camera_ray_bundle(rays)
    model.train()
    assert torch.equal(later["networks"], expected) and model.training and model.look is None
    parts = tower(0.3, 0.5, eval_num_rays_per_chunk=3).get_outputs_for_camera_ray_bundle(rays)
    assert torch.allclose(parts["networks"], expected, atol=1e-5)


def test_before_there_are_networks() -> None:
    """The viewer asks before the first step, and must not be offered other names later."""
    outputs = empty().get_outputs_for_camera_ray_bundle(down((0.0, 0.0), (1.0, 0.0)))
    assert list(outputs) == list(tower(1.0, 1.0).get_outputs_for_camera_ray_bundle(down((0.0, 0.0))))
    assert bool((outputs["networks"] == 1).all()) and outputs["networks"].shape == (1, 2, 3)
    assert not outputs["error"].any() and outputs["error"].shape == (1, 2, 1)
    assert not outputs["samples"].any() and not outputs.counts.any() and outputs["samples"].shape == (1, 2, 1)


def test_what_is_no_number_is_seen() -> None:
    """A colormap would make a whole picture of one value out of a single pixel that is no number: such pixels differ as
    much as can be, and belong to no cell."""
    occupied = torch.ones(2, 4, 2, dtype=torch.bool)
    model, rays = model_of(occupied, [OPAQUE, OPAQUE]), down((-0.3, -0.3), (-0.3, 0.3))
    model.teacher = Painted()
    stack: Any = model.stack
    with torch.no_grad():
        stack.b_density[0] = torch.nan
    outputs = model.get_outputs_for_camera_ray_bundle(rays)
    assert bool(outputs["rgb"][0, 0].isnan().any()) and bool(outputs["rgb"][0, 1].isfinite().all())
    names = ("networks", "samples", "error", "teacher", "difference")
    assert all(bool(outputs[name].isfinite().all()) for name in names)
    assert outputs["networks"][0, 0].tolist() == [0, 0, 0] and outputs["difference"][0, 0].item() == 1
    assert outputs["error"][0, 0].item() == 1 and outputs["error"][0, 1].item() == 0
    assert torch.allclose(outputs["networks"][0, 1], cell_colours(torch.tensor([1], dtype=torch.int32))[0], atol=1e-5)
