"""What cannot be learnt from, or trained, is told before the first step: option, what was found, what was expected."""

import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from support.saved_run import save_run
from support.tiny_kilo import SIZE, Teacher, save_teacher
from support.tiny_run import make_config, start, tiny_model

from nerfstudio_prune.kilo.building import check_memory
from nerfstudio_prune.kilo.teacher import load_teacher
from nerfstudio_prune.kilonerf.budget import live_counts
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.shape import NetworkShape

Make = Callable[..., Any]


def refused(path: Any, *texts: str) -> None:
    """A teacher is refused with all these texts."""
    with pytest.raises(ValueError) as caught:
        load_teacher(path, "cpu")
    for text in ("--pipeline.teacher", *texts):
        assert text in str(caught.value)
    assert "--load-config" not in str(caught.value)


@pytest.fixture
def copied(teacher: Teacher, tmp_path: Path) -> Path:
    """A copy of the teacher's folder."""
    return Path(shutil.copytree(teacher.config_file.parent, tmp_path / "teacher"))


def edited(folder: Path, change: Callable[[Any], None]) -> Path:
    """The teacher with a change of its configuration."""
    path = folder / "config.yml"
    config = yaml.load(path.read_text(), Loader=yaml.Loader)
    change(config)
    path.write_text(yaml.dump(config))
    return path


def test_a_teacher_is_found(copied: Path) -> None:
    """The control of all others: the folder will do as well as the file."""
    assert load_teacher(copied, "cpu").digest == load_teacher(copied / "config.yml", "cpu").digest


def test_a_checkpoint_alone(tmp_path: Path, make: Make) -> None:
    """Whoever was sent a single file has no config.yml: the options are then those of the method, of any width."""
    torch.manual_seed(0)
    layers = {"base_mlp_num_layers": 8, "head_mlp_num_layers": 2, "skip_connections": (4,)}
    sizes = {"base_mlp_layer_width": 12, "head_mlp_layer_width": 8, "position_max_freq_exp": 8.0}
    saved = save_run(tmp_path, tiny_model(**layers, **sizes), deepcopy(all_methods["nerf-prune"]))
    path = next(saved.parent.rglob("*.ckpt")).rename(tmp_path / "sent.ckpt")
    saved.unlink()
    found = load_teacher(path, "cpu", method="nerf-prune")
    assert (found.near, found.far) == (2.0, 6.0) and found.config.method_name == "nerf-prune"
    assert load_teacher(path, "cpu").digest == found.digest
    refused(tmp_path / "none.ckpt", "there is no file")
    with pytest.raises(
        ValueError, match=r"--pipeline\.teacher-method must be one of .*nerf-prune.*vanilla-nerf, got x"
    ):
        load_teacher(path, "cpu", method="x")
    path.write_bytes(path.read_bytes()[:500])
    refused(path, "sent.ckpt", "checkpoint")


def test_a_method_beside_a_run(copied: Path) -> None:
    """It says its own."""
    with pytest.raises(ValueError, match=r"--pipeline\.teacher-method vanilla-nerf has no effect"):
        load_teacher(copied, "cpu", method="vanilla-nerf")


def test_teachers_that_are_not_there(copied: Path, tmp_path: Path) -> None:
    """Each says what was expected."""
    refused(None, "is missing", "nerf-prune or vanilla-nerf")
    refused(tmp_path / "none.yml", f"there is no file {tmp_path / 'none.yml'}")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", f"the folder {tmp_path / 'empty'} holds no config.yml")
    shutil.rmtree(copied / "nerfstudio_models")
    (copied / "nerfstudio_models").mkdir()
    refused(copied, "holds no checkpoint; expected step-*.ckpt")


def test_teachers_of_another_kind(copied: Path, scene_cache: Path) -> None:
    """Another method's run, and one that does not say how far its rays go."""
    other = deepcopy(all_methods["nerfacto"])
    (copied / "config.yml").write_text(yaml.dump(other))
    refused(copied, "expected a run of nerf-prune or vanilla-nerf, got method nerfacto")
    config = make_config(copied, scene_cache, "teacher")
    for name, value in SIZE.items():
        setattr(config.pipeline.model, name, value)
    (copied / "config.yml").write_text(yaml.dump(config))
    edited(copied, lambda config: setattr(config.pipeline.model, "collider_params", {"near_plane": 3.0}))
    refused(copied, "model.collider_params must be near_plane and far_plane")


def test_a_teacher_that_is_no_number(copied: Path) -> None:
    """Its values would make every example one that is none."""
    path = next((copied / "nerfstudio_models").glob("*.ckpt"))
    saved = torch.load(path)
    saved["pipeline"]["_model.field_fine.mlp_base.layers.1.weight"][0, :3] = float("nan")
    torch.save(saved, path)
    refused(copied, "field_fine.mlp_base.layers.1.weight has 3 of", "not finite")


def test_an_empty_scene(make: Make, tmp_path: Path, scene_cache: Path) -> None:
    """A teacher that shows nothing: the largest opacity that was seen says how far it is from something."""
    torch.manual_seed(0)
    model = tiny_model(**SIZE)
    torch.nn.init.constant_(model.field_fine.field_output_density.net.bias, -9.0)  # type: ignore[union-attr]
    config = make(teacher=save_teacher(tmp_path / "empty", scene_cache, model).config_file)
    with pytest.raises(ValueError, match=r"nothing is as opaque as 0\.02 .* largest opacity seen is [\d.e-]+"):
        start(config)


def test_grids_that_are_too_large(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the largest resolution that fits, and that one does."""
    occupied = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.02
    live, shape = LiveCells(CellGrid(torch.zeros(3), 1.0, (8, 8, 8), 2), occupied), NetworkShape()
    memory = 40 * shape.parameters * 16
    check_memory(live, shape, live.count * shape.parameters * 16)
    check_memory(live, shape, None)
    with pytest.raises(ValueError, match=r"grid\.resolution 8 gives") as caught:
        check_memory(live, shape, memory)
    (fits,) = map(int, re.findall(r"that fits is (\d+)", str(caught.value)))
    refines = {cells: -(-16 // cells) for cells in range(1, 8)}
    counts = live_counts(live, sorted(set(refines.values())))
    assert fits == max(cells for cells, refine in refines.items() if counts[refine] <= 40)
    monkeypatch.setattr("nerfstudio_prune.kilo.pipeline.free_memory", lambda device: 10_000)
    with pytest.raises(ValueError, match=r"grid\.resolution 3 gives .* 0 MB are free; not even one cell"):
        start(make(grid__resolution=3))


def test_several_devices(make: Make) -> None:
    """Sizes follow from the teacher; DistributedDataParallel asks for them before."""
    with pytest.raises(ValueError, match=r"machine.num_devices x machine.num_machines must be 1, got 2"):
        make().pipeline.setup(device="cpu", test_mode="val", world_size=2)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("grid__resolution", 0, r"pipeline\.grid\.resolution must be in \[1, 256\], got 0"),
        ("grid__hidden_width", 1.5, r"pipeline\.grid\.hidden_width must be a whole number"),
        ("occupancy__alpha_threshold", 1.0, r"pipeline\.occupancy\.alpha_threshold must be in \(0, 1\), got 1\.0"),
        ("distil__memory_mb", float("nan"), r"pipeline\.distil\.memory_mb must be a finite number"),
        ("distil__points_per_network", 0, r"pipeline\.distil\.points_per_network must be in \[1, 65,536\], got 0"),
        ("finetune__lr", 2.0, r"pipeline\.finetune\.lr must be in \(0, 1\], got 2\.0"),
        ("model__transmittance_threshold", 1.0, r"pipeline\.model\.transmittance_threshold must be in \[0, 1\)"),
        ("model__evaluation", "fast", r"pipeline\.model\.evaluation must be one of auto, native, buckets, tiles, loop"),
        ("model__enable_collider", True, r"pipeline\.model\.enable_collider must be False"),
    ],
)
def test_options_out_of_range(make: Make, option: str, value: Any, text: str) -> None:
    """Before any picture is loaded."""
    with pytest.raises(ValueError, match=text):
        make(**{option: value}).pipeline.setup(device="cpu", test_mode="val")


def test_options_that_go_together(make: Make) -> None:
    """What is trained for no step, and a rate that no phase would take."""
    with pytest.raises(ValueError, match=r"distil\.steps and pipeline\.finetune\.steps must not both be 0"):
        make(distil__steps=0, finetune__steps=0).pipeline.setup(device="cpu", test_mode="val")
    config = make(grid__resolution=2)
    config.optimizers["networks"]["optimizer"].lr = 1e-2
    with pytest.raises(ValueError, match=r"optimizers\.networks\.optimizer\.lr has no effect.*--pipeline\.distil\.lr"):
        start(config)
    little = make(distil__memory_mb=1e-3, grid__resolution=3)
    with pytest.raises(ValueError, match=r"distil\.memory_mb 0\.001 is too small"):
        start(little)


def test_a_moving_teacher(make: Make, tmp_path: Path, scene_cache: Path) -> None:
    """It shows another scene at each time; networks have none."""
    torch.manual_seed(0)
    model = tiny_model(**SIZE, enable_temporal_distortion=True)
    teacher = save_teacher(tmp_path / "moving", scene_cache, model)
    edited(teacher.config_file.parent, lambda c: setattr(c.pipeline.model, "enable_temporal_distortion", True))
    refused(teacher.config_file, "model.enable_temporal_distortion True", "at rest")
