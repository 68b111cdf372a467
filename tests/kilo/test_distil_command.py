"""`ns-prune distil`: the training that `ns-train kilonerf` would be, without what a trained run knows already."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from support.tiny_kilo import Teacher
from support.tiny_run import checkpoint, same_bits, train

from nerfstudio_prune import cli
from nerfstudio_prune.kilo.command import Distil
from nerfstudio_prune.kilo.distilling import config_of

SMALL: dict[str, Any] = {"distil_steps": 3, "finetune_steps": 2, "resolution": 2, "hidden_width": 16}


@pytest.fixture
def copied(teacher: Teacher, tmp_path: Path) -> Path:
    """The config.yml of a copy of the teacher, which may be changed."""
    return Path(shutil.copytree(teacher.config_file.parent, tmp_path / "teacher")) / "config.yml"


def edited(path: Path, change: Callable[[Any], None]) -> Path:
    """A run with a change of its configuration."""
    config = yaml.load(path.read_text(), Loader=yaml.Loader)
    change(config)
    path.write_text(yaml.dump(config))
    return path


def by_hand(file: Path) -> Any:
    """What somebody would type for `ns-train kilonerf`."""
    config: Any = deepcopy(all_methods["kilonerf"])
    trained = yaml.load(file.read_text(), Loader=yaml.Loader)
    config.output_dir, config.experiment_name = trained.output_dir, trained.experiment_name
    config.pipeline.teacher = file
    config.pipeline.datamanager.dataparser = trained.pipeline.datamanager.dataparser
    return config


def test_only_scene_and_names_are_copied(teacher: Teacher) -> None:
    """Everything else is the method's, so that both commands make the same run; batches of the trained run, and its
    device, are not what this one needs."""
    assert config_of(Distil(teacher.config_file)) == by_hand(teacher.config_file)


def test_options_of_the_scene(copied: Path, scene_cache: Path) -> None:
    """A run of pictures at half their size, of which masks do not count, is learnt from on the same pictures; where the
    data were given by the host's alias, they are there."""

    def change(config: Any) -> None:
        data = config.pipeline.datamanager
        data.data, data.dataparser.data = data.dataparser.data, Path("nowhere")
        data.camera_res_scale_factor, data.pixel_sampler.ignore_mask = 0.5, True
        data.dataparser.alpha_color = "black"

    data, method = config_of(Distil(edited(copied, change))).pipeline.datamanager, by_hand(copied).pipeline.datamanager
    assert (data.dataparser.data, data.dataparser.image_size) == (scene_cache, 24)
    assert data.dataparser.alpha_color == "black"
    assert data.camera_res_scale_factor == 0.5 and data.pixel_sampler.ignore_mask
    assert data.train_num_rays_per_batch == method.train_num_rays_per_batch


def test_options_that_are_given(teacher: Teacher, scene_cache: Path) -> None:
    """Each has its place in the method's configuration; none is dropped."""
    given = {"vis": "tensorboard", "seed": 7, "max_num_iterations": 4, "experiment_name": "mine", **SMALL}
    found = config_of(Distil(teacher.config_file, data=scene_cache, output_dir=Path("out"), **given))
    expected = by_hand(teacher.config_file)
    expected.output_dir, expected.experiment_name, expected.vis = Path("out"), "mine", "tensorboard"
    expected.machine.seed, expected.max_num_iterations = 7, 4
    expected.pipeline.distil.steps, expected.pipeline.finetune.steps = 3, 2
    expected.pipeline.grid.resolution, expected.pipeline.grid.hidden_width = 2, 16
    assert found == expected


def test_the_command_trains_and_says_where_the_run_is(
    teacher: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is that of `ns-train`, bit for bit, and ends with what to type next."""
    words = ["--load-config", str(teacher.config_file), "--output-dir", str(tmp_path), "--vis", "tensorboard"]
    for name, value in SMALL.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    cli.parse(["distil", *words]).main()
    (file,) = tmp_path.rglob("config.yml")
    told = " ".join(capsys.readouterr().out.split())
    assert file.parent.parent == tmp_path / "tiny" / "kilonerf"
    assert "Training Finished" in told and f"config: {file}" in told
    for command in ("ns-eval", "ns-viewer", "ns-render dataset"):
        assert f"{command} --load-config {file}" in told
    (saved,) = file.parent.rglob("*.ckpt")
    config = config_of(Distil(teacher.config_file, output_dir=tmp_path / "other", vis="tensorboard", **SMALL))
    config.timestamp = "other"
    expected = checkpoint(train(config), 4)
    found = torch.load(saved, map_location="cpu")
    assert all(same_bits(found[key], expected[key]) for key in ("step", "pipeline", "optimizers"))


def another_method(config: Any) -> None:
    config.method_name, config.pipeline = "kilonerf", deepcopy(all_methods["kilonerf"].pipeline)


def splats(config: Any) -> None:
    config.method_name, config.pipeline = "splat-prune", deepcopy(all_methods["splat-prune"].pipeline)


def data_gone(config: Any) -> None:
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig(data=Path("gone"))


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (another_method, ["expected a run of nerf-prune or vanilla-nerf, got method kilonerf"]),
        (splats, ["expected a run of nerf-prune or vanilla-nerf, got method splat-prune"]),
        (data_gone, ["its data cannot be read, there is no gone", "those that the run was trained on", "--data"]),
    ],
)
def test_runs_that_cannot_be_learnt_from(
    copied: Path, tmp_path: Path, change: Callable[[Any], None], texts: list[str]
) -> None:
    """The message names the option of this command, not of another, and nothing is left behind."""
    edited(copied, change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError) as caught:
        Distil(copied, output_dir=tmp_path / "out").main()
    for text in (f"--load-config {copied}", *texts):
        assert text in str(caught.value)
    assert "--pipeline.teacher" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    """A path that was mistyped."""
    with pytest.raises(ValueError, match=r"--load-config must be the config\.yml of .*; there is no file .*none\.yml"):
        Distil(tmp_path / "none.yml", output_dir=tmp_path / "out").main()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"distil_steps": -1}, r"--distil-steps must be in \[0, 500,000,000\], got -1"),
        ({"finetune_steps": -1}, r"--finetune-steps must be in"),
        ({"distil_steps": 0, "finetune_steps": 0}, r"--distil-steps and --finetune-steps must not both be 0"),
        ({"resolution": 0}, r"--resolution must be in \[1, 256\], got 0"),
        ({"hidden_width": 300}, r"--hidden-width must be in \[1, 256\], got 300"),
        ({"seed": -1}, r"--seed must be in"),
        ({"max_num_iterations": 0}, r"--max-num-iterations must be in"),
    ],
)
def test_options_out_of_range_are_named_as_they_are_typed(
    teacher: Teacher, tmp_path: Path, options: Any, text: str
) -> None:
    """Who typed `--distil-steps` knows no `pipeline.distil.steps`."""
    with pytest.raises(ValueError, match=f"^{text}"):
        Distil(teacher.config_file, output_dir=tmp_path / "out", **options).main()
    assert list(tmp_path.iterdir()) == []
