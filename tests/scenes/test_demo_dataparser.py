"""The demo scene as the host sees it, and its cache folder."""

import json
import os
import shutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from PIL import Image

from nerfstudio_prune.scenes import demo_dataparser
from nerfstudio_prune.scenes.demo_dataparser import (
    SPLITS,
    DemoDataParserConfig,
    default_cache_folder,
    demo_data,
    prepare_scene,
    scene_folder,
)
from nerfstudio_prune.scenes.demo_scene import camera_rays


def make_config(data: Path, **options) -> DemoDataParserConfig:
    """Options of a scene small enough for a test."""
    small: dict[str, Any] = {
        "image_size": 12,
        "num_train_views": 3,
        "num_val_views": 2,
        "num_test_views": 1,
        "supersampling": 1,
    }
    return DemoDataParserConfig(data=data, **(small | options))


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.*"))}


def fail_to_render(*args):
    raise AssertionError("rendered although the scene is in the cache")


def test_outputs_hold_what_the_options_ask_for(tmp_path):
    """Methods take the number, size and place of cameras and the scene box from here."""
    parser = make_config(tmp_path).setup()
    for split, count in zip(SPLITS, (3, 2, 1), strict=True):
        outputs = parser.get_dataparser_outputs(split)
        assert len(outputs.image_filenames) == len(outputs.cameras) == count
        assert all(file.is_file() for file in outputs.image_filenames)
        assert outputs.cameras.height.unique().tolist() == outputs.cameras.width.unique().tolist() == [12]
        # 40 degrees across 12 pixels.
        assert outputs.cameras.fx[0].item() == pytest.approx(6.0 / np.tan(np.deg2rad(20.0)))
        assert outputs.scene_box.aabb.tolist() == [[-1.5] * 3, [1.5] * 3]
        assert outputs.alpha_color.tolist() == [1.0, 1.0, 1.0]


def test_host_rays_are_the_rays_that_were_rendered(tmp_path):
    """Any difference in convention (axes, pixel centres, focal length) makes the scene unlearnable."""
    cameras = make_config(tmp_path).setup().get_dataparser_outputs("train").cameras
    pose = json.loads((scene_folder(make_config(tmp_path)) / "transforms_train.json").read_text())["frames"][1]
    origins, directions = camera_rays(np.array(pose["transform_matrix"]), 12, 1)
    bundle = cameras.generate_rays(camera_indices=1)
    np.testing.assert_allclose(bundle.origins.reshape(-1, 3), origins, atol=1e-5)
    np.testing.assert_allclose(bundle.directions.reshape(-1, 3), directions, atol=1e-5)


def test_folder_is_a_blender_scene(tmp_path):
    """Users may point `blender-data` at the folder and must get the same cameras and images."""
    config = make_config(tmp_path)
    for split in SPLITS:
        ours = config.setup().get_dataparser_outputs(split)
        blender = BlenderDataParserConfig(data=scene_folder(config)).setup().get_dataparser_outputs(split)
        assert torch.equal(ours.cameras.camera_to_worlds, blender.cameras.camera_to_worlds)
        assert torch.equal(ours.cameras.fx, blender.cameras.fx)
        assert ours.image_filenames == blender.image_filenames
        for index in range(len(ours.image_filenames)):
            assert torch.equal(InputDataset(ours)[index]["image"], InputDataset(blender)[index]["image"])


@pytest.mark.parametrize(("alpha_color", "channels", "corner"), [("white", 3, 1.0), ("black", 3, 0.0), (None, 4, 0.0)])
def test_background_follows_alpha_color(tmp_path, alpha_color, channels, corner):
    """The option means what it means for `blender-data`."""
    outputs = make_config(tmp_path, alpha_color=alpha_color).setup().get_dataparser_outputs("val")
    image = InputDataset(outputs)[0]["image"]
    assert image.shape == (12, 12, channels)
    assert (image[0, 0] == corner).all()


def test_same_seed_gives_the_same_bytes(tmp_path):
    """Numbers measured on the demo scene can be compared only if everybody has the same one."""
    first, again = (read_files(prepare_scene(make_config(tmp_path / name))) for name in ("first", "again"))
    other = read_files(prepare_scene(make_config(tmp_path, seed=1)))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_splits_have_different_cameras_that_do_not_depend_on_each_other(tmp_path):
    """Test views among the training views would measure memory; more test views must not move the training views."""
    few, many = make_config(tmp_path).setup(), make_config(tmp_path, num_test_views=4).setup()
    poses = {split: few.get_dataparser_outputs(split).cameras.camera_to_worlds for split in SPLITS}
    assert torch.equal(poses["train"], many.get_dataparser_outputs("train").cameras.camera_to_worlds)
    positions = torch.cat(list(poses.values()))[:, :, 3]
    distances = torch.cdist(positions, positions) + 10.0 * torch.eye(len(positions))
    assert distances.min() > 0.05


def test_scene_in_the_cache_is_not_rendered_again(tmp_path, monkeypatch):
    """A second start must not wait, nor write."""
    folder = prepare_scene(make_config(tmp_path))
    before = read_files(folder)
    monkeypatch.setattr(demo_dataparser, "render_view", fail_to_render)
    assert prepare_scene(make_config(tmp_path, alpha_color="black")) == folder
    assert read_files(folder) == before
    with pytest.raises(AssertionError, match="rendered although"):
        prepare_scene(make_config(tmp_path, image_size=13))


def test_every_option_that_changes_the_pixels_has_its_own_folder(tmp_path, monkeypatch):
    """Otherwise a changed option would silently give the old scene."""
    changes = [{"image_size": 9}, {"seed": 3}, {"supersampling": 2}]
    changes += [{f"num_{split}_views": 5} for split in SPLITS]
    folders = {scene_folder(make_config(tmp_path, **change)) for change in [{}, *changes]}
    assert len(folders) == 7
    assert scene_folder(make_config(tmp_path)).name.startswith("12px-3-2-1views-seed0-")
    monkeypatch.setattr(demo_dataparser, "SCENE_VERSION", 1000)
    assert scene_folder(make_config(tmp_path)) not in folders


def test_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch):
    """Half a scene taken for a whole one would fail much later, in the middle of a training."""
    calls = []

    def interrupt(pose, image_size, supersampling):
        calls.append(pose)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return np.zeros((image_size, image_size, 4), dtype=np.uint8)

    monkeypatch.setattr(demo_dataparser, "render_view", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_scene(make_config(tmp_path))
    assert len(calls) == 4
    assert not list(tmp_path.iterdir())


def test_leftovers_of_killed_processes_go(tmp_path, monkeypatch):
    """Hundreds of kills left hundreds of folders. One that is rendered into must stay, though it were old, and one of
    which nobody can know yet; nothing else in the folder is touched."""
    render, seen = demo_dataparser.render_view, []
    young, foreign = tmp_path / ".rendering-young", tmp_path / "mine"

    def render_another_scene_first(*args):
        monkeypatch.setattr(demo_dataparser, "render_view", render)
        (living,) = tmp_path.iterdir()
        killed = shutil.copytree(living, tmp_path / ".rendering-killed")
        for folder in (living, killed):
            os.utime(folder, (1e9, 1e9))
        young.mkdir()
        foreign.mkdir()
        other = prepare_scene(make_config(tmp_path, seed=1))
        seen.append(set(tmp_path.iterdir()) == {living, young, foreign, other})
        return render(*args)

    monkeypatch.setattr(demo_dataparser, "render_view", render_another_scene_first)
    prepare_scene(make_config(tmp_path))
    assert seen == [True]


def test_scene_that_another_process_finished_meanwhile_is_kept(tmp_path, monkeypatch):
    """Several processes start at once in distributed training; none may pull files from under another."""
    config, render = make_config(tmp_path), demo_dataparser.render_view

    def finish_elsewhere_first(*args):
        monkeypatch.setattr(demo_dataparser, "render_view", render)
        (prepare_scene(config) / "mark").touch()
        return render(*args)

    monkeypatch.setattr(demo_dataparser, "render_view", finish_elsewhere_first)
    folder = prepare_scene(config)
    assert (folder / "mark").exists()
    assert list(tmp_path.iterdir()) == [folder]


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def replace_image(file: Path) -> None:
    Image.new("RGBA", (5, 5)).save(file)


def drop_frame(file: Path) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"frames": content["frames"][1:]}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train/r_1.png", Path.unlink),
        ("val/r_0.png", shorten),
        ("train/r_2.png", replace_image),
        ("transforms_test.json", Path.unlink),
        ("transforms_val.json", shorten),
        ("transforms_train.json", drop_frame),
    ],
)
def test_damaged_scene_is_rendered_again(tmp_path, capsys, name, damage):
    """Cleaners of cache folders delete single files; the user should not have to find out which."""
    folder = prepare_scene(make_config(tmp_path))
    before = read_files(folder)
    damage(folder / name)
    capsys.readouterr()
    assert prepare_scene(make_config(tmp_path)) == folder
    assert read_files(folder) == before
    assert list(tmp_path.iterdir()) == [folder]
    # The console breaks lines anywhere.
    message = "".join(capsys.readouterr().out.split())
    assert "again,because" in message and name in message


def test_cache_folder_that_cannot_be_written_is_named(tmp_path):
    """The user needs the option to change, not a bare error of the operating system."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/sub cannot be written .* with --data"):
        prepare_scene(make_config(tmp_path / "file" / "sub"))


@pytest.mark.parametrize(
    ("option", "value", "bounds"),
    [
        ("image_size", 7, "8, 2048"),
        ("image_size", 10**6, "8, 2048"),
        ("num_train_views", 0, "1, 10000"),
        ("num_train_views", 10**9, "1, 10000"),
        ("num_val_views", 0, "1, 10000"),
        ("num_test_views", -1, "1, 10000"),
        ("num_test_views", "8", "1, 10000"),
        ("seed", -1, "0, 9223372036854775807"),
        ("seed", True, "0, 9223372036854775807"),
        ("supersampling", 0, "1, 8"),
        ("supersampling", 2.5, "1, 8"),
    ],
)
def test_option_out_of_range_is_named(tmp_path, option, value, bounds):
    """The message must do without a look into the source, and come before any rendering."""
    name = option.replace("_", "-")
    with pytest.raises(ValueError, match=rf"--{name} is {value!r}, expected a whole number in \[{bounds}\]"):
        make_config(tmp_path, **{option: value}).setup()


def test_scene_that_would_not_fit_into_memory_is_refused(tmp_path):
    """Each option may be in its range, and all together ask for 250 GB."""
    with pytest.raises(ValueError, match="makes 41,951,428,608 pixels, expected at most 1,000,000,000"):
        make_config(tmp_path, image_size=2048, num_train_views=10_000, num_val_views=1, num_test_views=1).setup()
    assert not list(tmp_path.iterdir())


def test_unknown_color_and_split_are_named(tmp_path):
    """As for the other options; the host's own message does not say where the colour came from."""
    with pytest.raises(ValueError, match="--alpha-color is 'pink', expected None or one of white"):
        make_config(tmp_path, alpha_color="pink").setup()
    with pytest.raises(ValueError, match="split is 'testing', expected one of train, val, test"):
        make_config(tmp_path).setup().get_dataparser_outputs("testing")
    assert not list(tmp_path.iterdir())


def test_default_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    """It is computed when ns-train starts: without a home folder it must not break every command of the host."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DemoDataParserConfig().data == tmp_path / "nerfstudio-prune" / "demo-data"
    # The specification of XDG tells to ignore relative folders.
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert default_cache_folder() == tmp_path / "home" / ".cache" / "nerfstudio-prune" / "demo-data"

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert default_cache_folder().is_absolute()


def test_specification_is_what_the_host_registers():
    """The host skips anything else, with a warning only."""
    assert isinstance(demo_data, DataParserSpecification)
    assert isinstance(demo_data.config, DemoDataParserConfig)
    assert demo_data.description
    for entry in entry_points(group="nerfstudio.dataparser_configs", name="demo-data"):
        assert entry.value == "nerfstudio_prune.scenes.demo_dataparser:demo_data"
