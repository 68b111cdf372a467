"""Voxels and networks that show nothing leave; everything else stays as it is, to the bit."""

import math
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from support.tiny_run import SCENE_BOX, same_bits

from nerfstudio_prune.kilo.config import KiloOptions
from nerfstudio_prune.kilo.model import KiloModel, KiloModelConfig
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilo.tightening import remove_others, seen_voxels, tightened, with_neighbours
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.march import Lattice, Marcher
from nerfstudio_prune.kilonerf.shape import NetworkShape

OPAQUE, EMPTY = 50.0, -20.0
"""Biases of a network's density: nothing is seen through a voxel, and nothing of it."""
ALPHA = 0.02


def slab(*densities: float) -> KiloModel:
    """Two by two cells of four voxels a side between z = -1 and z = 1, of constant density each."""
    live = LiveCells(CellGrid(torch.tensor([-2.0, -2.0, -1.0]), 2.0, (2, 2, 1), 4), torch.ones(8, 8, 4).bool())
    model: Any = KiloModelConfig().setup(scene_box=SCENE_BOX, num_train_data=1)
    shape = NetworkShape(8, 2, 1, 1)
    model.make_room(shape)
    model.begin(live, Lattice(1.0, 7.0, 60), shape, KiloState(KiloOptions.from_plain({}), "white", "digest", 3))
    with torch.no_grad():
        model.stack.w_density.zero_()
        model.stack.b_density.copy_(torch.tensor(densities).view(model.stack.b_density.shape))
    return model.eval()


def from_above(count: int = 1, height: float = 5.0) -> Cameras:
    """Cameras over the middle that look down on all of the slab."""
    pose = torch.eye(4)[:3].clone()
    pose[2, 3] = height
    size: dict[str, Any] = {"width": 40, "height": 40, "cx": 20.0, "cy": 20.0, "fx": 40.0, "fy": 40.0}
    return Cameras(camera_to_worlds=pose.expand(count, 3, 4), camera_type=CameraType.PERSPECTIVE, **size)


def tight(model: KiloModel, only_visible: bool = False, cameras: Any = None) -> LiveCells:
    """The cells that it would be left with."""
    return tightened(model, cameras or from_above(), ALPHA, only_visible, torch.Generator().manual_seed(1))


def test_a_network_that_shows_nothing_leaves_with_its_moments() -> None:
    """The picture, the weights of the others and what their optimizer knows must be what they were: a training goes on
    with them."""
    model = slab(OPAQUE, EMPTY, OPAQUE, OPAQUE)
    optimizer = torch.optim.Adam(model.stack.parameters(), lr=1e-3)
    for parameter in model.stack.parameters():
        parameter.grad = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(2))
    optimizer.step()
    with torch.no_grad():
        model.stack.get_parameter("w_density").zero_()
        model.stack.get_parameter("b_density")[1] = EMPTY
    camera, stays = from_above(), torch.tensor([0, 2, 3])
    picture = model.get_outputs_for_camera(camera)["rgb"].clone()
    weights = {name: value.detach()[stays].clone() for name, value in model.stack.named_parameters()}
    moments = {name: optimizer.state[p]["exp_avg"][stays].clone() for name, p in model.stack.named_parameters()}
    lists = {"networks": list(model.stack.parameters())}
    model.errors.note(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.ones(4))
    found = tight(model)
    assert found.count == 3 and not found.occupied[:4, 4:].any()
    remove_others(model, found, {"networks": optimizer}, lists)
    own = dict(model.stack.named_parameters())
    assert same_bits({name: value.detach() for name, value in own.items()}, weights)
    assert same_bits({name: optimizer.state[value]["exp_avg"] for name, value in own.items()}, moments)
    assert model.errors.sums.tolist() == pytest.approx([0.1, 0.3, 0.4])
    assert lists["networks"] == list(own.values()) == optimizer.param_groups[0]["params"]
    torch.testing.assert_close(model.get_outputs_for_camera(camera)["rgb"], picture, atol=1e-6, rtol=0)
    other: Any = slab(*[0.0] * 4)
    other.load_state_dict(model.state_dict())
    assert other.cells.live.count == other.networks.num_networks == 3


def test_voxels_beside_what_is_shown_stay() -> None:
    """A few random places in a voxel miss what is thin: a voxel beside one that shows something stays, but in the cell
    of another network that shows nothing anywhere."""
    model = slab(OPAQUE, EMPTY, OPAQUE, EMPTY)
    live = model.cells.live
    assert live is not None
    one = torch.zeros(8, 8, 4).bool()
    one[1, 3, 2] = True  # at the face between the first cell and the second
    expected = torch.zeros(8, 8, 4).bool()
    expected[0:3, 2:4, 1:4] = True
    assert torch.equal(with_neighbours(live, LiveCells(live.grid, one)).occupied, expected)


def test_what_nothing_sees_leaves() -> None:
    """The inside of things costs a CPU as much as their surface. One voxel behind what is seen stays: pixels between
    those that are looked at may see it."""
    model = slab(*[OPAQUE] * 4)
    seen = seen_voxels(model, model.cells.live, from_above())[0]  # type: ignore[arg-type]
    # Straight down only the top layer is reached; the slanted rays at the edge meet the sides of the slab as well.
    assert seen[1:-1, 1:-1, 3].all() and not seen[1:-1, 1:-1, :3].any()
    found = tight(model, only_visible=True)
    assert found.occupied[2:-2, 2:-2, 2:].all() and not found.occupied[2:-2, 2:-2, :2].any()
    assert tight(model, only_visible=False).occupied.all()


def test_rows_of_large_views_are_left_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred photos have a hundred million pixels; a part of them, over all of each picture, has to do."""
    model = slab(*[OPAQUE] * 4)
    whole = seen_voxels(model, model.cells.live, from_above(2))[0]  # type: ignore[arg-type]
    monkeypatch.setattr("nerfstudio_prune.kilo.tightening.MOST_RAYS", 356)  # of 3,200: every third row and column
    asked: list[int] = []
    former = Marcher.occupied

    def watched(self: Marcher, origins: Any, *others: Any) -> Any:
        asked.append(len(origins))
        return former(self, origins, *others)

    monkeypatch.setattr(Marcher, "occupied", watched)
    part = seen_voxels(model, model.cells.live, from_above(2))[0]  # type: ignore[arg-type]
    assert sum(asked) == 2 * math.ceil(40 / 3) ** 2
    assert not (part & ~whole).any() and (part.sum() > 0.8 * whole.sum())


def test_nothing_is_changed_where_nothing_would_be_left() -> None:
    """A run must not end with an empty model, nor half cut."""
    model = slab(*[EMPTY] * 4)
    with pytest.raises(ValueError, match=r"occupancy.alpha_threshold: nothing is as opaque as 0.02"):
        tight(model)
    model = slab(*[OPAQUE] * 4)
    with pytest.raises(ValueError, match=r"occupancy.visible_only: no training view sees anything, of 256 voxels"):
        tight(model, only_visible=True, cameras=from_above(height=20.0))
    before = {name: value.clone() for name, value in model.state_dict().items() if name != "_extra_state"}
    fewer = LiveCells(model.cells.live.grid, torch.zeros(8, 8, 4).bool())  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="none of the 4 networks would be left"):
        remove_others(model, fewer, {}, {})
    assert same_bits({name: model.state_dict()[name] for name in before}, before)
