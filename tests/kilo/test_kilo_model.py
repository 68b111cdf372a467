"""The model and its checkpoint: what is loaded is checked before anything changes; pictures are those of the cells."""

import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.field_components.field_heads import FieldHeadNames
from support.tiny_run import SCENE_BOX, same_bits, tiny_model

from nerfstudio_prune.engine.host import seed_host, seeded
from nerfstudio_prune.kilo.config import KiloOptions
from nerfstudio_prune.kilo.model import KiloModel, KiloModelConfig
from nerfstudio_prune.kilo.space import pixel_footprint, seen_by
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.march import Lattice
from nerfstudio_prune.kilonerf.shape import NetworkShape
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig

SMALL = NetworkShape(8, 2, 1, 1)
WALL = 3.0
"""Bias of the networks' density: they are opaque along their cells."""


def model_of(shape: NetworkShape = SMALL, background: Any = "white", **options: Any) -> KiloModel:
    """A slab of two by two cells, one of them empty, between z = -1 and z = 1."""
    occupied = torch.ones(8, 8, 4, dtype=torch.bool)
    occupied[:4, :4] = False
    live = LiveCells(CellGrid(torch.tensor([-2.0, -2.0, -1.0]), 2.0, (2, 2, 1), 4), occupied)
    model: Any = empty(shape, **options)
    state = KiloState(KiloOptions.from_plain({}), background, "digest", 3)
    model.begin(live, Lattice(1.0, 7.0, 60), shape, state)
    with torch.no_grad():
        model.stack.b_density.fill_(WALL)
    model.requires_grad_(False)
    return model.eval()


def empty(shape: NetworkShape = SMALL, **options: Any) -> KiloModel:
    """A model without networks."""
    model: Any = KiloModelConfig(**options).setup(scene_box=SCENE_BOX, num_train_data=1)
    model.make_room(shape)
    return model.eval()


def down(x: float, y: float, height: float = 5.0, **planes: float) -> RayBundle:
    """A ray from above."""
    extra = {name: torch.tensor([[value]]) for name, value in planes.items()}
    origin, direction = torch.tensor([[x, y, height]]), torch.tensor([[0.0, 0.0, -1.0]])
    return RayBundle(origins=origin, directions=direction, pixel_area=torch.ones(1, 1), **extra)  # type: ignore[arg-type]


def test_rays_show_what_is_in_the_cells() -> None:
    """Opaque where there is a network, the background where there is none; depth is the distance along the ray."""
    model = model_of()
    hit, beside = model(down(1.0, 1.0)), model(down(-1.0, -1.0))
    assert float(hit["accumulation"]) == pytest.approx(1 - float(torch.exp(torch.tensor(-3.05 * 2))), abs=0.01)
    assert 4 < float(hit["depth"]) < 4.6
    assert float(beside["accumulation"]) == 0 and float(beside["depth"]) == 7
    assert beside["rgb"].tolist() == [[1, 1, 1]]
    assert model_of(background="black")(down(-1.0, -1.0))["rgb"].tolist() == [[0, 0, 0]]
    rgba = model.get_rgba_image(hit)
    assert torch.allclose(rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]), hit["rgb"], atol=1e-5)


def test_rays_begin_and_end_as_in_the_host() -> None:
    """In evaluation the near plane is at the camera, in training at the teacher's; a crop limits both."""
    model = model_of()
    close = down(1.0, 1.0, height=0.9)
    assert float(model(close)["accumulation"]) > 0.9
    assert float(model.train()(close)["accumulation"]) < float(model.eval()(close)["accumulation"]) - 0.02
    assert float(model(down(1.0, 1.0, nears=6.5, fars=7.0))["accumulation"]) == 0
    part = model(down(1.0, 1.0, nears=4.5, fars=5.0))
    assert 0 < float(part["accumulation"]) < 0.9 and 4.5 <= float(part["depth"]) <= 5


@pytest.mark.parametrize("options", [{"eval_num_rays_per_chunk": 3}, {"samples_per_pass": 2}, {"evaluation": "loop"}])
def test_how_it_is_rendered_does_not_show(options: Any) -> None:
    """Parts, passes and products are for speed."""
    x, y = torch.meshgrid(torch.linspace(-2, 2, 4), torch.linspace(-2, 2, 5), indexing="ij")
    origins = torch.stack([x, y, torch.full_like(x, 5.0)], dim=-1)
    directions = torch.tensor([0.0, 0.0, -1.0]).expand(4, 5, 3).contiguous()
    rays = RayBundle(origins=origins, directions=directions, pixel_area=torch.ones(4, 5, 1))
    expected = model_of(transmittance_threshold=0.0)(rays)
    found = model_of(**{"transmittance_threshold": 1e-4, **options})(rays)
    assert expected["rgb"].shape == (4, 5, 3)
    assert all(torch.allclose(found[name], expected[name], atol=3e-4) for name in ("rgb", "accumulation"))


def test_a_checkpoint_sizes_the_model() -> None:
    """Number, width and frequencies come from its tensors, whatever the options say; parameters stay the objects that
    the optimizers hold, and pictures are the same to the bit."""
    saved, other = model_of(NetworkShape(12, 2, 3, 2)), empty()
    held = list(other.networks.parameters())
    other.load_state_dict(deepcopy(dict(saved.state_dict())))
    assert all(a is b for a, b in zip(held, other.networks.parameters(), strict=True))
    assert other.stack.shape == NetworkShape(12, 2, 3, 2) and other.state == saved.state
    assert same_bits(dict(other.state_dict()), dict(saved.state_dict()))
    assert same_bits(other(down(1.0, 0.5)), saved(down(1.0, 0.5)))


def test_a_checkpoint_before_there_were_errors() -> None:
    """Runs of former versions are looked at and gone on with: all is there but how wrong networks were, and what the
    model that loads one knew of its own says nothing of them."""
    saved, other = model_of(), model_of()
    saved.errors.note(torch.ones(3), torch.ones(3))
    other.errors.note(torch.ones(3), torch.ones(3))
    state = {name: value for name, value in saved.state_dict().items() if not name.startswith("errors.")}
    state["_extra_state"] = {**state["_extra_state"], "version": 2}
    other.load_state_dict(state)
    assert same_bits(other(down(1.0, 0.5)), saved(down(1.0, 0.5))) and other.errors.roots().tolist() == [0, 0, 0]
    other.load_state_dict(dict(saved.state_dict()))
    assert other.errors.roots().tolist() == [1, 1, 1]


def changed(key: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(state: dict[str, Any]) -> None:
        state[key] = change(state[key])

    return apply


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda state: state.pop("networks.stacks.0.w2"), r"1 missing entries .*give --pipeline\.grid\.num-layers"),
        (lambda state: state.update(more=torch.ones(1)), r"1 unknown entries \(more\)"),
        (changed("networks.stacks.0.w1", lambda w: w[:2].clone()), r"w_density has shape .*expected|b1 has shape"),
        (changed("networks.stacks.0.w1", lambda w: w[:, :-1].clone()), r"expected networks, 3 \+ 6 x frequencies"),
        (changed("networks.stacks.0.b2", lambda b: b * float("nan")), r"b2: .* are not finite"),
        (changed("networks.position", torch.zeros_like), r"networks\.position must be an order of the 3 networks"),
        (lambda state: state.pop("errors.sums"), r"1 missing entries \(errors\.sums\)"),
        (changed("errors.sums", lambda e: e[:2].clone()), r"errors\.sums must be a number >= 0 for each of the 3 netw"),
        (changed("errors.weights", lambda w: w - 1), r"errors\.weights must be a number >= 0 for each of the 3"),
        (changed("errors.weights", lambda w: w / 0), r"errors\.weights: 3 of 3 values are not finite"),
        (changed("cells.occupancy", torch.zeros_like), r"cells\.occupancy has no occupied voxel"),
        (changed("cells.occupancy", lambda v: v | 255), r"has 3 networks, and 4 cells"),
        (changed("cells.shape", lambda s: s + 1), r"cells\.occupancy has shape"),
        (changed("cells.shape", lambda s: s * 2**40), r"cells\.shape and cells\.refine must be at least 1"),
        (changed("cells.size", lambda s: -s), r"cell_size must be a positive number"),
        (changed("cells.lattice", lambda x: x * 0), r"cells\.lattice has 0 steps"),
        (changed("_extra_state", lambda s: {**s, "version": 9}), r"version 9, expected at most 3"),
        (changed("_extra_state", lambda s: {**s, "background": "pink"}), r"background must be one of .*got 'pink'"),
        (
            changed("_extra_state", lambda s: {**s, "options": {"distil": {"lr": 7.0}}}),
            r"distil\.lr must be in \(0, 1\]",
        ),
        (changed("_extra_state", lambda s: [1]), r"must be values by name"),
    ],
)
def test_a_damaged_checkpoint_changes_nothing(damage: Any, text: str) -> None:
    """A ValueError that says what is wrong: the host swallows a RuntimeError and tries again less strictly."""
    model, state = model_of(), deepcopy(dict(model_of(NetworkShape(12, 2, 3, 2)).state_dict()))
    before = deepcopy(dict(model.state_dict()))
    damage(state)
    with pytest.raises(ValueError, match=text):
        model.load_state_dict(state)
    assert same_bits(dict(model.state_dict()), before)


def test_points_that_a_view_looks_at(scene_cache: Path) -> None:
    """What no view looks at is left out, whatever the teacher shows there: rays of all pixels are within, places behind
    the cameras, beside and beyond are not."""
    parser: Any = DemoDataParserConfig(
        data=scene_cache, image_size=24, num_train_views=12, num_val_views=2, num_test_views=2, supersampling=1
    ).setup()
    cameras = parser.get_dataparser_outputs("train").cameras
    seen = seen_by(cameras, 2.0, 6.0)
    rays = cameras.generate_rays(torch.arange(12)[:, None], torch.rand(12, 2) * 24)
    for distance, expected in ((2.01, True), (4.0, True), (5.99, True)):
        assert bool(seen(rays.origins + distance * rays.directions).all()) is expected
    one = cameras[0:1]
    alone, axis = seen_by(one, 2.0, 6.0), -one.camera_to_worlds[:, :, 2]
    place, side = one.camera_to_worlds[:, :, 3], one.camera_to_worlds[:, :, 0]
    outside = [place + 1.9 * axis, place + 6.1 * axis, place - 3 * axis, place + 3 * axis + 2 * side]
    assert not alone(torch.cat(outside)).any() and bool(alone(place + 3 * axis + 0.9 * side).all())
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    assert pixel_footprint(cameras, box) == pytest.approx(4.0 * 2 * 0.36397 / 24, rel=1e-3)


def test_a_teacher_says_what_its_field_shows() -> None:
    """Several directions for one evaluation of the trunk: density and colours are those that the host's rays get."""
    torch.manual_seed(0)
    field = tiny_model().field_fine.eval()
    origins = torch.rand(6, 3)
    for direction in torch.nn.functional.normalize(torch.randn(4, 3), dim=1):
        directions = direction.expand(6, 3).contiguous()
        rays = RayBundle(origins=origins, directions=directions, pixel_area=torch.ones(6, 1))
        samples = rays.get_ray_samples(torch.full((6, 1, 1), 0.9), torch.full((6, 1, 1), 1.1))
        expected = field(samples)
        density, rgb = field.values_at(origins + directions, torch.stack([directions.flip(1), directions], dim=1))
        assert torch.allclose(density, expected[FieldHeadNames.DENSITY][:, 0, 0], atol=1e-5)
        assert torch.allclose(rgb[:, 1], expected[FieldHeadNames.RGB][:, 0], atol=1e-5)


def test_what_is_drawn_from_a_seed_leaves_the_generators() -> None:
    """Of Python, numpy and PyTorch: an evaluation between two steps, or none, must not show in the photos."""

    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    seed_host(5)
    expected = draws()
    seed_host(5)
    with seeded(11, torch.device("cpu")):
        first = draws()
    assert draws() == expected
    with seeded(11, torch.device("cpu")):
        assert draws() == first
    assert first != expected


def test_the_method_is_registered_under_its_name() -> None:
    """The host keys methods by `method_name`; the entry point is read when the package is installed."""
    assert all_methods["kilonerf"].method_name == "kilonerf"
    assert isinstance(all_methods["kilonerf"].pipeline.model, KiloModelConfig)
