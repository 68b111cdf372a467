"""Cells in contracted space: what networks learn and show is what the field of an unbounded scene shows."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.model_components.renderers import RGBRenderer
from support.tiny_kilo import CONTRACTED, SIZE, Teacher, contracted_teacher, psnr
from support.tiny_run import SCENE_BOX, same_bits, tiny_model, train
from torch.nn.functional import normalize

from nerfstudio_prune.kilo.command import Distil
from nerfstudio_prune.kilo.config import KiloOptions
from nerfstudio_prune.kilo.distilling import config_of
from nerfstudio_prune.kilo.model import KiloModelConfig
from nerfstudio_prune.kilo.outputs import as_teacher
from nerfstudio_prune.kilo.spaces import SPACES
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilo.teacher import load_teacher
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.march import Lattice
from nerfstudio_prune.kilonerf.shape import NetworkShape

Make = Callable[..., Any]
BALL = SPACES["contracted"]
NEAR, FAR, STEPS = 0.05, 1000.0, 40


def test_places_go_into_the_ball_and_back() -> None:
    """Directions of examples are those in which cameras of the world see a place of the ball."""
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 3, 500)[:, None]
    inside = BALL.from_world(points)
    assert bool((inside.norm(dim=1) < 1).all() and BALL.holds(inside).all())
    near = points.norm(dim=1) < 50
    torch.testing.assert_close(BALL.to_world(inside)[near], points[near], rtol=2e-4, atol=1e-6)
    far = BALL.to_world(inside)[~near]
    torch.testing.assert_close(normalize(far, dim=1), normalize(points[~near], dim=1), rtol=1e-4, atol=1e-5)
    assert not bool(BALL.holds(torch.tensor([[0.8, 0.8, 0.0], [1.0, 0.0, 0.0]])).any())
    assert bool(BALL.to_world(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])).isfinite().all())


def test_steps_of_a_ray_are_even_in_the_ball() -> None:
    """The opacity that networks learn is that of such a step: from the middle of the scene outwards each is as long."""
    lattice = Lattice(NEAR, FAR, STEPS, "piecewise")
    ends = BALL.from_world(lattice.edges(torch.arange(STEPS + 1))[:, None] * torch.tensor([[0.0, 0.6, 0.8]]))
    lengths = ends.diff(dim=0).norm(dim=1)
    assert lengths.tolist() == pytest.approx([BALL.extent(NEAR, FAR) / STEPS] * STEPS, rel=2e-3)


def test_the_last_steps_of_rays_end_at_the_edge_of_the_ball() -> None:
    """What is behind everything is learnt there, and nowhere else; where cells lie in the world it has none."""
    lattice = Lattice(NEAR, FAR, STEPS, "piecewise")
    distance = lattice.edges(torch.linspace(0, STEPS, 501))
    places = BALL.from_world(distance[:, None] * normalize(torch.tensor([[1.0, -2.0, 2.0]]), dim=1))
    last = distance > float(lattice.edges(torch.tensor(STEPS - 1))) + 1e-3
    assert torch.equal(BALL.ends(lattice, places), last) and 0 < int(last.sum()) < 20
    assert not bool(SPACES["bounded"].ends(lattice, places).any())
    # Cubes: one that the edge cuts, one beyond the ball with a corner in it, one beyond, one before the last step.
    middles = torch.tensor([[0.99, 0.0, 0.0], [0.62, 0.62, 0.62], [1.06, 0.0, 0.0], [0.9, 0.0, 0.0]])
    assert BALL.ends(lattice, middles, 0.1).tolist() == [True, True, False, False]


def test_what_is_shown_is_what_the_field_shows() -> None:
    """Densities are per unit of length in the ball, steps have lengths in the world: against the host's own samples,
    weights and renderer, with cells everywhere. A factor that was left out would show as fog, or as nothing."""
    torch.manual_seed(2)
    field = tiny_model(**SIZE, **CONTRACTED).field_fine
    with torch.no_grad():
        # A few things, and hardly any haze between them.
        head: Any = field.field_output_density.net
        found = field._embedding(2 * torch.rand(2000, 3) - 1) @ head.weight.T
        scale = 8 / found.std()
        head.weight.mul_(scale)
        head.bias.fill_(float(-scale * found.mean() - 15))
    live = LiveCells(CellGrid(torch.full((3,), -1.0), 0.5, (4, 4, 4), 4), torch.ones(16, 16, 16, dtype=torch.bool))
    model: Any = KiloModelConfig().setup(scene_box=SCENE_BOX, num_train_data=1)
    state = KiloState(KiloOptions.from_plain({}), "last_sample", "digest", 3, "contracted")
    lattice = Lattice(NEAR, FAR, STEPS, "piecewise")
    model.begin(live, lattice, NetworkShape(), state)
    model.eval().look = as_teacher(SimpleNamespace(values=field.values_at))  # type: ignore[arg-type]
    origins = 0.8 * torch.randn(30, 3)
    bundle = RayBundle(origins=origins, directions=normalize(torch.randn(30, 3), dim=1), pixel_area=torch.ones(30, 1))
    edges = lattice.edges(torch.arange(STEPS + 1)).expand(30, -1)[..., None]
    samples = bundle.get_ray_samples(bin_starts=edges[:, :-1], bin_ends=edges[:, 1:])
    with torch.no_grad():
        found = model.get_outputs(bundle)
        values = field(samples)
        weights = samples.get_weights(values[FieldHeadNames.DENSITY])
        expected = RGBRenderer("last_sample").eval()(values[FieldHeadNames.RGB], weights=weights)
    assert 0.2 < float(weights.sum(dim=1).mean()) < 0.99
    torch.testing.assert_close(found["rgb"], expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found["accumulation"], weights.sum(dim=1), atol=2e-5, rtol=1e-4)
    assert model.step_size() == pytest.approx(BALL.extent(NEAR, FAR) / STEPS)


@pytest.fixture(scope="module")
def unbounded(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Teacher:
    """A run like one of `nerf-prune-real`, on the tiny scene."""
    return contracted_teacher(tmp_path_factory.mktemp("unbounded"), scene_cache)


def test_a_run_of_an_unbounded_scene(make: Make, unbounded: Teacher) -> None:
    """From the teacher to pictures that show the scene, through tightening and a checkpoint, in its own space."""
    options = {"distil__steps": 60, "finetune__steps": 150, "grid__resolution": 5}
    trainer = train(make(teacher=unbounded.config_file, **options))
    model, pipeline = trainer.pipeline.model, trainer.pipeline
    assert model.state.space == "contracted" and model.cells.lattice_of_rays.spacing == "piecewise"
    dataset = pipeline.datamanager.eval_dataset
    errors = torch.stack([(1 - dataset[i]["image"]).square().mean() for i in range(len(dataset))])
    found = psnr(pipeline)
    assert found > float(-10 * errors.mean().log10()) + 1
    other: Any = trainer.config.pipeline.setup(device="cpu", test_mode="val")
    other.load_pipeline({"_model." + name: value for name, value in model.state_dict().items()}, 0)
    assert psnr(other) == found and same_bits(dict(other.model.state_dict()), dict(model.state_dict()))


def test_its_method_follows_from_the_teacher(unbounded: Teacher, teacher: Teacher) -> None:
    """`ns-prune distil` knows which it is; runs are found under the name of their kind."""
    for run, method in ((unbounded, "kilonerf-real"), (teacher, "kilonerf")):
        assert config_of(Distil(run.config_file)).method_name == method
        assert load_teacher(run.config_file, "cpu").space.name == ("contracted" if run is unbounded else "bounded")
