"""What becomes of data sets of every kind before anything is trained: read, refused by name, or done without."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from PIL import Image
from support.pictures import HEIGHT, WIDTH, blender_scene, mask, picture, pose, scene

from nerfstudio_prune.data.datamanager import CheckedDataManager

EMPTY = Image.new("L", (WIDTH, HEIGHT))
NAN = [[float("nan")] * 4] * 4


def manager(parser: Any, test_mode: Any = "val", **options: Any) -> CheckedDataManager:
    """A data manager for a parser's configuration."""
    config: Any = VanillaDataManagerConfig(_target=CheckedDataManager, dataparser=parser, **options)
    return config.setup(device="cpu", test_mode=test_mode)


def photographs(folder: Path, **options: Any) -> NerfstudioDataParserConfig:
    """A parser of photographs that were written into a folder."""
    return NerfstudioDataParserConfig(data=scene(folder, **options))


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"frames": {2: {"transform_matrix": NAN}}}, ["transforms.json, frame images/002.png: transform_matrix"]),
        ({"frames": {i: {"transform_matrix": NAN} for i in range(9)}}, ["frame images/000.png", "and 4 more"]),
        ({"fl_x": float("inf")}, ["transforms.json: fl_x"]),
        ({"fl_y": 0.0}, ["focal lengths not 0", "images/000.png"]),
        ({"cx": 1e39}, ["transforms.json: cx"]),
        ({"cy": 1e30}, ["transforms.json: cy"]),
        ({"fl_x": 1e-30}, ["focal lengths not 0"]),
        ({"k1": float("nan")}, ["transforms.json: k1"]),
        ({"frames": {5: {"transform_matrix": [[10**400, 0, 0, 0], *pose(5)[1:]]}}}, ["images/005.png"]),
    ],
)
def test_cameras_must_be_finite(tmp_path: Path, fields: dict[str, Any], parts: list[str]) -> None:
    """One NaN in one pose spoils all of them when they are centred; in training it gave NaN colours, and the learning
    rate was blamed. The frame is named."""
    with pytest.raises(ValueError) as caught:
        manager(photographs(tmp_path, **fields))
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


def test_frame_is_named_where_the_parser_itself_fails(tmp_path: Path) -> None:
    """With poses aligned by their principal axes the host's parser dies of a NaN inside of linear algebra."""
    parser = photographs(tmp_path, frames={3: {"transform_matrix": NAN}})
    parser.orientation_method = "pca"
    with pytest.raises(ValueError, match=r"Not finite: transforms.json, frame images/003.png: transform_matrix"):
        manager(parser)


def deeply_nested(folder: Path) -> NerfstudioDataParserConfig:
    """A parser of a file that is nested more deeply than Python reads."""
    (scene(folder) / "transforms.json").write_text("[" * 100_000)
    return NerfstudioDataParserConfig(data=folder)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda p: BlenderDataParserConfig(data=scene(p)), ["transforms_train.json", "ns-train nerf-prune-real"]),
        (
            lambda p: NerfstudioDataParserConfig(data=blender_scene(p, {"train": 2})),
            ["transforms.json", "ns-train nerf-prune blender-data"],
        ),
        (lambda p: NerfstudioDataParserConfig(data=p), ["ns-process-data"]),
        (lambda p: NerfstudioDataParserConfig(data=p / "no"), ["There is no", "give the data set's path with --data"]),
        (lambda p: BlenderDataParserConfig(data=p / "no"), ["There is no", "give the data set's path with --data"]),
        (lambda p: photographs(p, fl_x=None), ["fx not specified in frame"]),
        (lambda p: photographs(p, frames={1: {"transform_matrix": [[1.0]]}}), ["NerfstudioDataParser"]),
        (lambda p: photographs(p, views=1), ["all cameras stand at one place", "--auto-scale-poses False"]),
        (lambda p: photographs(p, views=1, frames={0: {"file_path": "gone.png"}}), ["gone.png"]),
        (lambda p: replace(photographs(p), train_split_fraction=2.0), ["AssertionError at assert "]),
        (deeply_nested, ["No JSON: ", "transforms.json"]),
    ],
)
def test_data_that_cannot_be_read(tmp_path: Path, make: Any, parts: list[str]) -> None:
    """A folder of the other kind is the first mistake that everybody makes; the host's error names a file that was
    never meant to be there. Every other failure of a parser comes with the data set's path."""
    with pytest.raises(ValueError) as caught:
        manager(make(tmp_path))
    for part in (f"--data {tmp_path}", "cannot be read by the data parser", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        *(
            ({"camera_model": "OPENCV_FISHEYE", "fisheye_crop_radius": radius}, ["above 0, got", repr(radius)])
            for radius in (0.0, -3, float("nan"), "big")
        ),
        ({"camera_model": "FISHEYE624"}, ["images/00", "camera model FISHEYE624", "Undistort"]),
    ],
)
def test_lens_that_gives_no_rays(tmp_path: Path, fields: dict[str, Any], parts: list[str]) -> None:
    """A negative radius was squared and limited all the same, a text failed in a conversion that named nothing, and a
    lens that the host lacks parameters for failed inside of TorchScript in the first step."""
    with pytest.raises(ValueError) as caught:
        manager(photographs(tmp_path, **fields))
    for part in (f"cameras of {tmp_path}", *parts):
        assert part in str(caught.value)


def test_scene_box_must_be_finite(tmp_path: Path) -> None:
    """It stands in every render and export; NaN there shows nowhere in training."""
    with pytest.raises(ValueError, match=r"scene box of .* must be finite, got"):
        manager(replace(photographs(tmp_path), scene_scale=float("nan")))


def test_patches_must_fit(tmp_path: Path) -> None:
    """The host shifts patches into negative rows where they are larger than the picture, and shares rays of pictures of
    several sizes out without asking whether a patch has so many: no ray at all, and an error about shapes."""
    many = {"train_num_rays_per_batch": 200, "eval_num_rays_per_batch": 200}
    with pytest.raises(ValueError, match="patch_size must be at most the pictures' smaller side, 8, got 9"):
        manager(photographs(tmp_path / "a"), patch_size=9, **many)
    assert len(manager(photographs(tmp_path / "b"), patch_size=8, **many).next_train(0)[1]["image"]) == 192
    frames, pictures = {3: {"w": 10}}, {3: picture(width=10)}
    parser = photographs(tmp_path / "c", frames={i: {"w": 12} for i in range(10)} | frames, pictures=pictures, w=None)
    with pytest.raises(ValueError, match="patch_size must be 1 where pictures differ in size, got 2"):
        manager(parser, patch_size=2, **many)


@pytest.mark.parametrize("content", ['{"frames": [', "[" * 100_000], ids=["torn", "nested"])
def test_file_that_is_no_json_is_named(tmp_path: Path, content: str) -> None:
    """The parser's own error has a line and a column, and no file. One that nests more deeply than Python can call
    fails again wherever it is read to find out why."""
    (scene(tmp_path) / "transforms.json").write_text(content)
    with pytest.raises(ValueError, match=r"No JSON: .*transforms\.json"):
        manager(NerfstudioDataParserConfig(data=tmp_path))


@pytest.mark.parametrize("views", [2, 5, 10, 12])
def test_splits_of_one_view_keep_their_camera(tmp_path: Path, views: int) -> None:
    """The host's parser of instant-ngp data indexes with a split of a single view and cuts its pose in the wrong
    direction; every pruning run on few frames died at its first cut. Poses must be those of the file."""
    parser = InstantNGPDataParserConfig(data=scene(tmp_path, views=views, camera_angle_x=0.8), scene_scale=0.5)
    found = manager(parser)
    for dataset in (found.train_dataset, found.eval_dataset):
        assert tuple(dataset.cameras.shape) == (len(dataset),)
        for i, name in enumerate(dataset.image_filenames):
            expected = torch.tensor(pose(int(name.stem)))[:3]
            expected[:, 3] *= 0.5
            assert torch.allclose(dataset.cameras.camera_to_worlds[i], expected, atol=1e-6)
    assert len(found.eval_dataset) == {2: 0, 5: 0, 10: 1, 12: 1}[views]


def test_one_frame_of_instant_ngp_data(tmp_path: Path) -> None:
    """Of a single frame nothing can be mended; what reads it is said."""
    with pytest.raises(ValueError, match=r"needs two frames or more. nerfstudio-data reads the same files"):
        manager(InstantNGPDataParserConfig(data=scene(tmp_path, views=1, camera_angle_x=0.8)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: photographs(p, views=5), "Nerfstudio gives none for the split val"),
        (lambda p: photographs(p, train_filenames=["images/000.png", "images/001.png"]), "split val: "),
        (lambda p: BlenderDataParserConfig(data=blender_scene(p, {"train": 2, "test": 1})), "transforms_val.json"),
        (lambda p: BlenderDataParserConfig(data=without_frames(p)), "split val: "),
        (lambda p: photographs(p, every_mask=0, masks={8: EMPTY}), "none of 008.png"),
    ],
)
def test_training_without_evaluation_views(tmp_path: Path, make: Any, reason: str, capsys: Any) -> None:
    """Few frames, a Blender scene without validation files, or evaluation views that are masked out as a whole: what
    can be trained on is, and what cannot be measured is said once."""
    found = manager(make(tmp_path))
    text = " ".join(capsys.readouterr().out.split())
    assert (
        len(found.eval_dataset) == 0 and len(found.train_dataset) > 1 and found.next_train(0)[1]["image"].shape[1] == 3
    )
    assert text.count("No evaluation views: ") == 1 and reason in text and "ns-eval" in text
    assert reason in found.no_evaluation


def without_frames(folder: Path) -> Path:
    """A Blender scene whose validation file lists no view."""
    blender_scene(folder, {"train": 2, "val": 1})
    (folder / "transforms_val.json").write_text(json.dumps({"camera_angle_x": 0.8, "frames": []}))
    return folder


def test_evaluation_split_that_is_broken_is_refused(tmp_path: Path) -> None:
    """What is there and cannot be read is a mistake, and no data set without evaluation views."""
    (blender_scene(tmp_path, {"train": 2, "val": 1}) / "transforms_val.json").write_text("{")
    with pytest.raises(ValueError, match=r"No JSON: .*transforms_val\.json"):
        manager(BlenderDataParserConfig(data=tmp_path))
    (blender_scene(tmp_path, {"train": 2, "val": 1}) / "val" / "r_0.png").unlink()
    with pytest.raises(ValueError, match=r"val/r_0\.png"):
        manager(BlenderDataParserConfig(data=tmp_path))


def test_no_training_views(tmp_path: Path) -> None:
    """With every eighth frame for evaluation a single frame is one of them."""
    parser = photographs(tmp_path, views=1)
    parser.eval_mode, parser.auto_scale_poses = "interval", False
    with pytest.raises(ValueError, match="no training views"):
        manager(parser)


def test_views_that_are_masked_out_are_left_out(tmp_path: Path, capsys: Any) -> None:
    """A view without a pixel gives no ray in any of its uses, and its picture is none to measure on. The share that
    counts is said, as a mask that is black for white would train on nothing but the tripod."""
    found = manager(photographs(tmp_path, every_mask=(slice(0, 4)), masks={1: EMPTY, 2: EMPTY, 8: mask((0, 0))}))
    assert [name.name for name in found.train_dataset.image_filenames] == [
        f"{i:03d}.png" for i in (0, 3, 4, 5, 6, 7, 9)
    ]
    text = " ".join(capsys.readouterr().out.split())
    # Seven of nine views with 48 of 96 pixels; one of 96 pixels of the evaluation view.
    assert "38.9% of the pixels of 9 training views count (masks), none of 001.png, 002.png" in text
    assert "1.0% of the pixels of 1 evaluation view count (masks)" in text
    for _ in range(3):
        _, batch = found.next_train(0)
        assert bool((batch["indices"][:, 1] < 4).all()) and bool(batch["mask"].all())


def test_masks_that_leave_nothing(tmp_path: Path) -> None:
    """Told before any picture is loaded, and not by the size of a population."""
    parser = photographs(tmp_path, every_mask=0, masks={i: EMPTY for i in range(10) if i != 8})
    with pytest.raises(ValueError, match=r"0.0% of the pixels of 9 training views count \(masks\), none of 000.png"):
        manager(parser)


@pytest.mark.parametrize("limits", [{}, {"every_mask": (slice(2, 6))}, {"fisheye_crop_radius": 3.0}])
def test_pictures_of_several_sizes(tmp_path: Path, limits: dict[str, Any]) -> None:
    """The host draws from each picture by itself there, which its rejection cannot, and it forgets the lens. Here one
    training view and the two evaluation views differ in size."""
    sizes = {i: 10 if i in (3, 15) else 12 for i in range(20)}
    parser = photographs(
        tmp_path,
        views=20,
        frames={i: {"w": width, "h": 8, "cx": width / 2, "cy": 4.0} for i, width in sizes.items()},
        pictures={i: picture(width=width, seed=i) for i, width in sizes.items()},
        masks={i: mask(limits["every_mask"], width=sizes[i]) for i in sizes} if "every_mask" in limits else None,
        camera_model="OPENCV_FISHEYE",
        **{**dict.fromkeys(("w", "h", "cx", "cy")), **limits},
    )
    found = manager(parser, train_num_rays_per_batch=400)
    for dataset, (_, batch) in ((found.train_dataset, found.next_train(0)), (found.eval_dataset, found.next_eval(0))):
        for view, row, column in batch["indices"].tolist():
            pixels = dataset.pixels(view)
            assert pixels is None or bool(pixels[row, column])
    assert {sizes[int(name.stem)] for name in found.train_dataset.image_filenames} == {10, 12}


def test_odd_batches_are_refused_where_sizes_differ(tmp_path: Path) -> None:
    """The host shares rays out in pairs there, and fails with an assertion in the first step."""
    frames = {i: {"w": 10 if i == 3 else 12} for i in range(10)}
    pictures = {3: picture(width=10)}
    parser = photographs(tmp_path, frames=frames, pictures=pictures, w=None)
    for name in ("train_num_rays_per_batch", "eval_num_rays_per_batch"):
        with pytest.raises(ValueError, match=f"{name} must be even where pictures differ in size, got 31"):
            manager(parser, **{name: 31})


def test_ignored_masks_are_ignored_everywhere(tmp_path: Path) -> None:
    """Masks that training does not heed must not limit what is measured either."""
    sampler = PixelSamplerConfig(ignore_mask=True)
    found = manager(photographs(tmp_path, every_mask=(0, 0)), pixel_sampler=sampler, train_num_rays_per_batch=500)
    assert "mask" not in found.train_dataset[0] and "mask" not in found.eval_dataset[0]
    assert len(found.next_train(0)[1]["indices"].unique(dim=0)) > 300 and sampler.ignore_mask


def test_colour_of_masked_pixels_needs_masks(tmp_path: Path) -> None:
    """The host fails with a KeyError on the first picture."""
    parser = photographs(tmp_path)
    parser.mask_color = (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"mask-color fills what masks leave out, and --data .* has no masks"):
        manager(parser)


def test_inference_opens_no_picture(tmp_path: Path) -> None:
    """`ns-render` works where only the cameras are left."""
    parser = photographs(tmp_path)
    parser.downscale_factor = 1
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    assert len(manager(parser, test_mode="inference").train_dataset) == 9
    with pytest.raises(ValueError, match="10 of 10 pictures cannot be trained"):
        manager(parser)
