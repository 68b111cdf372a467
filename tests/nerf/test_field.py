"""The field that leaves work out, against the host's own evaluation of the same tensors."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from support.tiny_run import paper_model, rays, tiny_model
from torch import Tensor

from nerfstudio_prune.nerf import field as field_module
from nerfstudio_prune.nerf.field import PruneField, UnitBallContraction
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.occupancy import OccupancyGrid

DENSITY, RGB = FieldHeadNames.DENSITY, FieldHeadNames.RGB
AABB = torch.tensor([[-2.0] * 3, [2.0] * 3])


@pytest.fixture
def float64() -> Iterator[None]:
    """Encodings and samplers follow the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def samples_of(model: PruneModel, count: int = 24) -> RaySamples:
    assert model.collider is not None
    return model.sampler_uniform(model.collider(rays(count)))


def grid_of(cells: Tensor) -> OccupancyGrid:
    return OccupancyGrid(AABB.to(torch.get_default_dtype()), cells)


def half_grid() -> OccupancyGrid:
    return grid_of(torch.arange(4**3).view(4, 4, 4) % 3 == 0)


def gradients(found: dict[Any, Tensor], own: PruneField) -> list[Tensor]:
    own.zero_grad()
    (found[DENSITY].square().sum() + (found[RGB] * found[DENSITY]).sum()).backward()
    return [p.grad.clone() for p in own.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skip_connections": (1, 3)},
        {"skip_connections": ()},
        {"base_mlp_num_layers": 1, "head_mlp_num_layers": 1, "skip_connections": ()},
        {"use_scene_contraction": True},
    ],
    ids=["one skip", "two skips", "no skip", "single layers", "contracted"],
)
def test_outputs_and_gradients_are_the_hosts(options: dict[str, Any], float64: None) -> None:
    """Products are split and directions encoded once per ray: another order of the same sums. In float64 nothing but
    rounding may be left of the difference, in outputs and in every gradient."""
    torch.manual_seed(0)
    model = tiny_model(**options)
    own, samples = model.field_fine, samples_of(model)
    ours, theirs = own.forward(samples), NeRFField.forward(own, samples)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(ours, own), gradients(theirs, own), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_in_float32_a_network_of_full_size_agrees_to_rounding() -> None:
    """The bound that pictures are held to: half a millionth of the range of colours."""
    torch.manual_seed(0)
    model = paper_model()
    own, samples = model.field_fine, samples_of(model, 8)
    with torch.no_grad():
        ours, theirs = own.forward(samples), NeRFField.forward(own, samples)
    assert float((ours[RGB] - theirs[RGB]).abs().max()) < 5e-7
    torch.testing.assert_close(ours[DENSITY], theirs[DENSITY], rtol=1e-5, atol=1e-6)


def test_a_grid_without_empty_cells_changes_nothing() -> None:
    """The contract of skipping: an all-true mask is the plain path."""
    torch.manual_seed(0)
    model = tiny_model()
    own, samples = model.field_fine, samples_of(model)
    plain = own.forward(samples)
    own.occupancy = OccupancyGrid(torch.tensor([[-9.0] * 3, [9.0] * 3]), torch.ones(3, 3, 3, dtype=torch.bool))
    masked = own.forward(samples)
    for name in plain:
        torch.testing.assert_close(masked[name], plain[name], rtol=0, atol=5e-7)


def test_empty_samples_are_zero_and_the_others_as_without_a_grid(float64: None) -> None:
    """A colour that lands on its neighbour's sample is a picture shifted by a pixel. Gradients are those of the samples
    that count, and of no others."""
    torch.manual_seed(0)
    model = tiny_model()
    own, samples = model.field_fine, samples_of(model)
    plain = own.forward(samples)
    own.occupancy = half_grid()
    masked = own.forward(samples)
    lie_in = own.occupancy.contains(samples.frustums.get_positions().flatten(0, 1)).view(24, 8, 1)
    assert 20 < int(lie_in.sum()) < 170
    for name in plain:
        torch.testing.assert_close(masked[name], plain[name] * lie_in, rtol=1e-12, atol=1e-12)
    expected = {name: values * lie_in for name, values in plain.items()}
    for a, b in zip(gradients(masked, own), gradients(expected, own), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_more_places_of_an_interval_are_looked_up() -> None:
    """Coarse intervals are longer than cells: what lies at an end of one must not be missed."""
    model = tiny_model()
    own, samples = model.field_coarse, samples_of(model)
    own.occupancy = half_grid()
    frustums = samples.frustums
    found = {}
    for count in (1, 3):
        own.places_per_interval = count
        found[count] = own.forward(samples)[DENSITY][..., 0] > 0
    expected = torch.zeros(24, 8, dtype=torch.bool)
    for share in (1 / 6, 3 / 6, 5 / 6):
        places = frustums.origins + frustums.directions * torch.lerp(frustums.starts, frustums.ends, share)
        expected |= own.occupancy.contains(places.flatten(0, 1)).view(24, 8)
    assert torch.equal(found[3], expected) and int(found[1].sum()) < int(found[3].sum())
    assert not bool((found[1] & ~found[3]).any())


def test_rays_that_meet_nothing_still_have_a_graph() -> None:
    """The host's encoding takes no empty tensor, and a batch that looks past the scene has a loss as well."""
    model = tiny_model()
    own, samples = model.field_fine, samples_of(model)
    own.occupancy = grid_of(torch.zeros(2, 2, 2, dtype=torch.bool))
    found = own.forward(samples)
    assert int((found[DENSITY] > 0).sum()) == 1
    found[DENSITY].sum().backward()
    with torch.no_grad():
        assert own.forward(samples)[RGB].shape == (24, 8, 3)


def test_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a graph points are evaluated in parts that fit into a cache; no point may be lost at a border."""
    torch.manual_seed(0)
    model = tiny_model()
    own, samples = model.field_fine, samples_of(model)
    whole = own.forward(samples)
    monkeypatch.setattr(field_module, "FLOATS_AT_ONCE", 7 * 16)
    with torch.no_grad():
        parts = own.forward(samples)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_see_every_sample_as_the_host_evaluates_it(register: str) -> None:
    """Calibration records layers by hooks, and `torch.nn.utils.prune` makes weights in them: both must see what they
    would see without all this, whatever grid is in force. The bits are the host's."""
    torch.manual_seed(0)
    model = tiny_model()
    own, samples = model.field_fine, samples_of(model)
    own.occupancy = half_grid()
    seen = []
    layer: Any = own.mlp_base.layers[2]
    handle = getattr(layer, register)(lambda module, arguments, *rest: seen.append(arguments[0].shape))
    watched = own.forward(samples)
    handle.remove()
    assert seen == [(24, 8, 63 + 16)]
    theirs = NeRFField.forward(own, samples)
    assert all(torch.equal(watched[name], theirs[name]) for name in theirs)


def test_density_at_places_is_that_of_samples() -> None:
    """What the grid is made of must be what rays meet."""
    torch.manual_seed(0)
    model = tiny_model()
    own, samples = model.field_fine, samples_of(model)
    places = samples.frustums.get_positions().flatten(0, 1)
    torch.testing.assert_close(own.density_at(places), own.forward(samples)[DENSITY].flatten())


def test_density_of_contracted_space_counts_what_a_unit_holds() -> None:
    """A step far away is long, and thin fog is opaque there: a threshold on the plain density would skip it.
    The factor is the length outside that a small piece of the radius stands for."""
    ball = UnitBallContraction(order=None)
    direction = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64), dim=0)
    radii = torch.tensor([0.2, 0.9, 1.5, 4.0, 15.0], dtype=torch.float64)
    inner, outer = (ball((radii + shift)[:, None] * direction) for shift in (-1e-5, 1e-5))
    expected = 2e-5 / (outer - inner).norm(dim=1)
    torch.testing.assert_close(ball.stretch(ball(radii[:, None] * direction)), expected, rtol=1e-4, atol=0)


def test_the_last_sample_of_an_unbounded_ray_is_always_evaluated() -> None:
    """It is the background: with its colour at zero a photograph would stand before black."""
    torch.manual_seed(0)
    model = tiny_model(use_scene_contraction=True)
    own, samples = model.field_fine, samples_of(model)
    own.occupancy = grid_of(torch.zeros(2, 2, 2, dtype=torch.bool))
    found = own.forward(samples)[DENSITY][..., 0] > 0
    assert bool(found[:, -1].all()) and not bool(found[:, :-1].any())
