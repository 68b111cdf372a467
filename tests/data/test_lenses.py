"""Distortion is taken out of pictures, masks and cameras alike, and before anybody reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image
from support.pictures import mask, picture, scene
from torch import Tensor

from nerfstudio_prune.data.lenses import PinholeDataset
from nerfstudio_prune.data.pixels import CountedDataset, count_pixels

WIDE, HIGH = 96, 64
LENS: dict[str, Any] = {"w": WIDE, "h": HIGH, "fl_x": 70.0, "fl_y": 66.0, "cx": 46.0, "cy": 33.5}
BROWN = {"k1": 0.12, "k2": -0.05, "k3": 0.01, "p1": 0.004, "p2": -0.003}
FISHEYE = {"camera_model": "OPENCV_FISHEYE", "k1": 0.05, "k2": -0.02, "k3": 0.005, "k4": -0.001}


def lens_scene(folder: Path, **options: Any) -> NerfstudioDataParserConfig:
    """Views of one lens, whose pictures have its size."""
    if "pictures" not in options:
        options["pictures"] = {i: picture(width=WIDE, height=HIGH, seed=i) for i in range(10)}
    return NerfstudioDataParserConfig(data=scene(folder, **{**LENS, **options}))


def dataset_of(config: NerfstudioDataParserConfig, scale: float = 1.0, kind: Any = PinholeDataset) -> Any:
    """Training views."""
    return kind(config.setup().get_dataparser_outputs("train"), scale)


def colours_of(cameras: Cameras, view: int) -> Tensor:
    """What a camera sees of a world at infinity that is coloured by smooth functions of the direction; its rays are the
    host's, which knows of every lens."""
    rays = cameras.generate_rays(camera_indices=view, keep_shape=True)
    local = rays.directions @ cameras.camera_to_worlds[view, :, :3]
    return 0.5 + 0.45 * torch.sin(6 * local + torch.tensor([0.0, 1.0, 2.0]))


@pytest.mark.parametrize(
    "lens", [BROWN, {"k1": -0.2}, FISHEYE, {"camera_model": "OPENCV_FISHEYE"}, {"cx": 40.0, **BROWN}], ids=str
)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_straight_pictures_show_what_their_cameras_see(tmp_path: Path, lens: dict[str, Any], scale: float) -> None:
    """The host's cameras keep the lens after its pictures have been straightened, and a fisheye lens without parameters
    is never straightened: Gaussians are then trained on pictures that no pinhole camera sees. Here the rays of the
    straight cameras meet the colours of the straight pictures."""
    stored = dataset_of(lens_scene(tmp_path, **lens), kind=CountedDataset)
    shown = colours_of(stored.cameras, 0)
    image = Image.fromarray((shown.numpy() * 255).round().astype(np.uint8))
    dataset = dataset_of(lens_scene(tmp_path, pictures={i: image for i in range(10)}, **lens), scale)
    assert bool((dataset.cameras.camera_type == CameraType.PERSPECTIVE.value).all())
    assert not bool(dataset.cameras.distortion_params.any())
    found = dataset[0]["image"]
    assert found.shape == (int(dataset.cameras.height[0]), int(dataset.cameras.width[0]), 3)
    error = (found - colours_of(dataset.cameras, 0)).abs()[2:-2, 2:-2]
    assert float(error.mean()) < 0.004 / scale and float(error.max()) < 0.03 / scale
    assert torch.equal(dataset.cameras.camera_to_worlds, stored.cameras.camera_to_worlds)


def test_pictures_without_distortion_are_left_alone(tmp_path: Path) -> None:
    """Bit for bit, cameras too."""
    config = lens_scene(tmp_path)
    ours, host = dataset_of(config), dataset_of(config, kind=CountedDataset)
    assert torch.equal(ours[3]["image"], host[3]["image"]) and "mask" not in ours[3]
    for name in ("fx", "fy", "cx", "cy", "width", "height", "camera_to_worlds", "camera_type"):
        assert torch.equal(getattr(ours.cameras, name), getattr(host.cameras, name))


def test_views_of_several_lenses(tmp_path: Path) -> None:
    """Each is straightened by its own one, and a view without distortion among them stays as it is."""
    frames = {i: {"k1": 0.1 * (i % 3)} for i in range(10)}
    config = lens_scene(tmp_path, frames=frames)
    ours, host = dataset_of(config), dataset_of(config, kind=CountedDataset)
    assert torch.equal(ours[0]["image"], host[0]["image"])
    sizes = [tuple(ours[view]["image"].shape[:2]) for view in range(len(ours))]
    assert sizes == list(zip(ours.cameras.height[:, 0].tolist(), ours.cameras.width[:, 0].tolist(), strict=True))
    assert len(set(ours.cameras.fx[:, 0].tolist())) == 3


@pytest.mark.parametrize("lens", [BROWN, FISHEYE], ids=["brown", "fisheye"])
def test_pixels_that_count_have_colours_of_such_pixels_only(tmp_path: Path, lens: dict[str, Any]) -> None:
    """Pictures are white where pixels count and black elsewhere. The host counts a pixel of which a hundredth does:
    grey ones here, and in a photograph the border of what was masked out."""
    kept = (slice(10, 50), slice(20, 70))
    white = mask(kept, WIDE, HIGH)
    config = lens_scene(
        tmp_path,
        pictures={i: white.convert("RGB") for i in range(10)},
        masks={i: white for i in range(10)},
        **lens,
    )
    dataset = dataset_of(config)
    data = dataset.get_data(0, "uint8")
    counts = data["mask"][..., 0]
    assert torch.equal(counts, (data["image"] == 255).all(dim=-1))
    assert torch.equal(dataset.pixels(0), counts) and 1500 < int(counts.sum()) < counts.numel()
    assert count_pixels(dataset)[0] == (int(counts.sum()), counts.numel())


def test_border_of_a_fisheye_lens(tmp_path: Path) -> None:
    """What lies beyond the lens is black in the picture; the radius is one of the picture as it is stored."""
    config = lens_scene(tmp_path, fisheye_crop_radius=25.0, **FISHEYE)
    dataset = dataset_of(config)
    counts = dataset[0]["mask"][..., 0]
    assert dataset.limited == "fisheye_crop_radius" and torch.equal(dataset.pixels(0), counts)
    rows = counts.nonzero()[:, 0]
    assert counts[HIGH // 2, WIDE // 2] and not counts[0, 0] and counts[rows.min() - 1].sum() == 0
    assert "fisheye_crop_radius" not in (dataset.cameras.metadata or {})
    # An equidistant lens with these parameters and a radius of 25 pixels: about 21 degrees.
    half = int(rows.max() - rows.min() + 1) / 2 / float(dataset.cameras.fy[0])
    assert 0.30 < half < 0.45


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        ({"k1": 0.1, "k4": 0.01}, "the fourth radial parameter k4 of a perspective lens must be 0, got 0.01"),
        ({**FISHEYE, "p1": 0.1}, "p1, p2 of a fisheye lens must be 0, got 0.1, 0"),
        ({"camera_model": "EQUIRECTANGULAR"}, "splats need pinhole or fisheye cameras; got EQUIRECTANGULAR"),
        ({"k1": 1e6}, "leaves no straight picture"),
        ({**FISHEYE, "k1": -50.0}, "leaves no straight picture"),
        ({"camera_model": "OPENCV_FISHEYE", "fl_x": 30.0, "fl_y": 30.0}, "leaves no straight picture"),
    ],
)
def test_lens_that_cannot_be_straightened(tmp_path: Path, lens: dict[str, Any], message: str) -> None:
    """The host fails with an assertion in a thread, after it has loaded other pictures, or trains on an empty one."""
    with pytest.raises(ValueError) as caught:
        dataset_of(lens_scene(tmp_path, **lens))
    assert message in str(caught.value) and "images/000.png" in str(caught.value)


def test_part_of_the_views_is_straightened_once(tmp_path: Path) -> None:
    """Views that are masked out are left out of a data set that has been straightened already."""
    dataset = dataset_of(lens_scene(tmp_path, **BROWN))
    part = dataset.subset([2, 0])
    assert torch.equal(part.cameras.fx[0], dataset.cameras.fx[2]) and torch.equal(part[0]["image"], dataset[2]["image"])


def test_opacity_is_kept_for_who_asks(tmp_path: Path) -> None:
    """Seed points lie where pictures are opaque, and what is trained on has been laid over a colour."""
    pictures = {i: picture("RGBA", WIDE, HIGH, seed=i) for i in range(10)}
    dataset = dataset_of(lens_scene(tmp_path, pictures=pictures, **BROWN))
    found = dataset.picture(0)
    assert found.dtype == torch.uint8 and found.shape == (*dataset[0]["image"].shape[:2], 4)
    assert bool((found[..., 3] == 255).all())


def test_picture_that_was_changed_after_the_look(tmp_path: Path) -> None:
    """A map of another size would give a picture of the right size, and nonsense in it."""
    dataset = dataset_of(lens_scene(tmp_path, **BROWN))
    picture().save(tmp_path / "images" / "000.png")
    for read in (dataset.get_data, dataset.picture):
        with pytest.raises(ValueError, match=r"images/000.png .*picture 12x8, camera 96x64"):
            read(0)


def test_lists_of_the_host_are_not_shared(tmp_path: Path) -> None:
    """The host takes a name out of a list of the class: the second data manager of a process failed."""
    config = lens_scene(tmp_path)
    dataset_of(config).exclude_batch_keys_from_device.remove("mask")
    assert "mask" in dataset_of(config).exclude_batch_keys_from_device
