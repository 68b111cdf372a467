"""Whole views of data sets of every kind: what the other data manager refuses or leaves out, this one does too."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image
from support.pictures import HEIGHT, WIDTH, blender_scene, picture, scene

from nerfstudio_prune.data.image_datamanager import CheckedImageDataManager
from nerfstudio_prune.data.lenses import PinholeDataset
from nerfstudio_prune.data.points import XYZ
from nerfstudio_prune.engine.checks import check_data

EMPTY = Image.new("L", (WIDTH, HEIGHT))
BENT = {"k1": 0.1, "p1": 0.01}


def manager(parser: Any, test_mode: Any = "val", **options: Any) -> CheckedImageDataManager:
    """A data manager for a parser's configuration."""
    config: Any = FullImageDatamanagerConfig(_target=CheckedImageDataManager, dataparser=parser, **options)
    return config.setup(device="cpu", test_mode=test_mode)


def photographs(folder: Path, **options: Any) -> NerfstudioDataParserConfig:
    """A parser of photographs that were written into a folder."""
    return NerfstudioDataParserConfig(data=scene(folder, **options))


def epoch(found: FullImageDatamanager[Any]) -> list[int]:
    """Views in the order of one round of training."""
    return [(found.next_train(step)[0].metadata or {})["cam_idx"] for step in range(len(found.train_dataset))]


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda p: BlenderDataParserConfig(data=scene(p)), ["transforms_train.json"]),
        (lambda p: NerfstudioDataParserConfig(data=p / "no"), ["There is no"]),
        (lambda p: photographs(p, fl_x=float("inf")), ["transforms.json: fl_x"]),
        (lambda p: photographs(p, pictures={3: picture(width=9)}), ["003.png", "picture 9x8, camera 12x8"]),
        (lambda p: photographs(p, pictures={3: picture(width=9)}, **BENT), ["003.png", "picture 9x8, camera 12x8"]),
        (lambda p: photographs(p, every_mask=0, masks={i: EMPTY for i in range(10)}), ["0.0% of the pixels"]),
        (lambda p: photographs(p, camera_model="EQUIRECTANGULAR"), ["pinhole or fisheye cameras; got EQUIRECTANGULAR"]),
    ],
)
def test_data_that_cannot_be_trained_on(tmp_path: Path, make: Any, parts: list[str]) -> None:
    """Before any picture is loaded, with the name of the file. A picture has the size of the camera that took it, not
    of the one that it is straightened for."""
    with pytest.raises(ValueError) as caught:
        manager(make(tmp_path))
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: photographs(p, views=5, **BENT), "Nerfstudio gives none for the split val"),
        (lambda p: BlenderDataParserConfig(data=blender_scene(p, {"train": 2, "test": 1})), "transforms_val.json"),
        (lambda p: photographs(p, every_mask=0, masks={8: EMPTY}), "none of 008.png"),
    ],
)
def test_training_without_evaluation_views(tmp_path: Path, make: Any, reason: str, capsys: Any) -> None:
    """What can be trained on is; what cannot be measured is said once, and nothing of it is there to measure on."""
    found = manager(make(tmp_path))
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("No evaluation views: ") == 1 and reason in text and reason in found.no_evaluation
    assert len(found.eval_dataset) == 0 and found.fixed_indices_eval_dataloader == []
    assert sorted(epoch(found)) == list(range(len(found.train_dataset)))


@pytest.mark.parametrize("strategy", ["random", "fps"])
def test_views_that_are_masked_out_are_left_out(tmp_path: Path, strategy: Any, capsys: Any) -> None:
    """The host draws its first round of views before anybody has looked at masks: of the views that are left, every one
    must come, and none that is not there."""
    parser = photographs(tmp_path, views=20, every_mask=(slice(0, 4)), masks={1: EMPTY, 2: EMPTY}, **BENT)
    found = manager(parser, train_cameras_sampling_strategy=strategy)
    names = [name.stem for name in found.train_dataset.image_filenames]
    assert len(names) == len(found.train_dataset.cameras.fx) == 16 and not {"001", "002"} & set(names)
    assert sorted(epoch(found)) == sorted(epoch(found)) == list(range(16))
    assert "none of 001.png, 002.png" in " ".join(capsys.readouterr().out.split())
    _, batch = found.next_train(0)
    assert batch["mask"].shape == (*batch["image"].shape[:2], 1) and batch["mask"].dtype == torch.bool


def test_few_views_have_no_farthest_points(tmp_path: Path) -> None:
    """The host's library fails with an assertion about powers of two."""
    with pytest.raises(ValueError, match="train_cameras_sampling_strategy fps needs 8 training views or more, got 7"):
        manager(photographs(tmp_path, views=7), train_cameras_sampling_strategy="fps")


def test_order_of_training_is_the_hosts(tmp_path: Path) -> None:
    """A run of ours and a stock one see the same views in the same order; the global random state has no say."""
    config: Any = FullImageDatamanagerConfig(dataparser=photographs(tmp_path), train_cameras_sampling_seed=7)
    stock = config.setup(device="cpu")
    stock.__dict__["cached_train"] = [{"image": torch.zeros(1)}] * 9  # its own cache needs a GPU or asks for one
    stock.train_cameras = stock.train_dataset.cameras
    orders = []
    for seed in (0, 1):
        random.seed(seed)
        found = manager(photographs(tmp_path), train_cameras_sampling_seed=7)
        orders.append([*epoch(found), *epoch(found)])
    assert orders[0] == orders[1] == [*epoch(stock), *epoch(stock)]


@pytest.mark.parametrize("views", [10, 560])
def test_pictures_in_main_memory_without_a_gpu(tmp_path: Path, views: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host pins that memory, which fails without a GPU; with more than 500 pictures it does so unasked."""

    def pinned(self: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("Cannot access accelerator device when none is available.")

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options: dict[str, Any] = {"cache_images": "cpu"} if views == 10 else {}
    found = manager(photographs(tmp_path, views=views), cache_images_type="uint8", **options)
    camera, batch = found.next_train(0)
    assert found.config.cache_images == "cpu" and camera.shape == (1,)
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (HEIGHT, WIDTH, 3)


def test_a_view_is_the_same_for_everybody(tmp_path: Path) -> None:
    """Training, evaluation, scores and pictures read one cache, and the camera that belongs to its picture."""
    found = manager(photographs(tmp_path, every_mask=(slice(0, 5)), **BENT))
    view = found.view_data("train", 3)
    assert view.pixels is not None and view.camera.distortion_params is not None
    assert not bool(view.camera.distortion_params.any())
    assert view.image.data_ptr() == found.cached_train[3]["image"].data_ptr()
    assert view.image.shape[:2] == view.pixels.shape == (int(view.camera.height), int(view.camera.width))
    assert torch.equal(view.pixels, found.train_dataset.pixels(3))  # type: ignore[arg-type]
    camera, batch = found.fixed_indices_eval_dataloader[0]
    mine = found.view_data("eval", 0)
    assert torch.equal(mine.image, batch["image"]) and torch.equal(mine.camera.fx, camera.fx)
    next_camera, next_batch = found.next_eval(0)
    assert torch.equal(next_batch["image"], mine.image) and torch.equal(next_camera.cx, mine.camera.cx)


def test_cameras_are_straight_before_a_picture_is_read(tmp_path: Path) -> None:
    """The host changes them while it loads; who looks earlier, as the viewer and `ns-render` do, sees other ones, and
    the distortion stays in them for ever."""
    parser = photographs(tmp_path, camera_model="OPENCV_FISHEYE", fl_x=20.0, fl_y=20.0, k1=0.05)
    parser.downscale_factor = 1
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    found = manager(parser, test_mode="inference")
    for dataset in (found.train_dataset, found.eval_dataset):
        assert bool((dataset.cameras.camera_type == CameraType.PERSPECTIVE.value).all())
        assert dataset.cameras.distortion_params is not None and float(dataset.cameras.fx[0]) != 20.0
        assert not bool(dataset.cameras.distortion_params.any())
    assert found.dataset_type is PinholeDataset  # `ns-render dataset` makes data sets of it by itself


def test_picture_that_breaks_off_is_named(tmp_path: Path) -> None:
    """Its header was whole when it was looked at."""
    found = manager(photographs(tmp_path))
    (tmp_path / "images" / "004.png").write_bytes((tmp_path / "images" / "004.png").read_bytes()[:80])
    with pytest.raises(ValueError, match=r"images/004\.png"):
        found.next_train(0)


def test_pictures_of_several_sizes(tmp_path: Path) -> None:
    """Rays have to be shared out over them, whole pictures have not."""
    frames, pictures = {i: {"w": 10 if i == 3 else 12} for i in range(10)}, {3: picture(width=10)}
    found = manager(photographs(tmp_path, frames=frames, pictures=pictures, w=None, **BENT))
    for _ in range(9):
        camera, batch = found.next_train(0)
        assert batch["image"].shape[:2] == (int(camera.height), int(camera.width))


def test_masks_on_the_device_twice_in_a_process(tmp_path: Path) -> None:
    """The host takes the name out of a list that all data sets share, and fails the second time."""
    for _ in range(2):
        found = manager(photographs(tmp_path), masks_on_gpu=True, images_on_gpu=True)
        assert found.exclude_batch_keys_from_device == []


def test_points_stand_where_the_pipeline_looks(tmp_path: Path) -> None:
    """The host's pipeline hands them to the model."""
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\n"
        + "".join(f"property float {axis}\n" for axis in "xyz")
        + "end_header\n1 2 3\n"
    )
    parser = photographs(tmp_path, ply_file_path="a.ply")
    parser.load_3D_points = True
    assert manager(parser).train_dataparser_outputs.metadata[XYZ].shape == (1, 3)
    (tmp_path / "a.ply").unlink()
    with pytest.raises(ValueError, match=r"a\.ply are not there"):
        manager(parser)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_thread_workers": 0}, "pipeline.datamanager.max_thread_workers must be in [1, 1,024], got 0"),
        ({"train_cameras_sampling_seed": -1}, "train_cameras_sampling_seed must be in [0, 4,294,967,295], got -1"),
        ({"fps_reset_every": 0}, "fps_reset_every must be in [1, 1,000,000,000], got 0"),
        ({"cache_images": "disk"}, "cache_images must be one of cpu, gpu, got"),
        ({"cache_images_type": "int8"}, "cache_images_type must be"),
        ({"train_cameras_sampling_strategy": "all"}, "train_cameras_sampling_strategy must be"),
        ({"camera_res_scale_factor": 0.0}, "camera_res_scale_factor must be in (0, 16], got 0.0"),
    ],
)
def test_options_have_ranges(options: dict[str, Any], message: str) -> None:
    """No thread at all, a seed that numpy does not take, no view drawn: the host fails inside of a library."""
    with pytest.raises(ValueError) as caught:
        check_data(FullImageDatamanagerConfig(**options))
    assert message in str(caught.value)
