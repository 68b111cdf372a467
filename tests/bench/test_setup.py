"""From a run to a trainer: options arrive where they belong, or are refused by name."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from support.bench_run import FAST

from nerfstudio_prune.bench.setup import (
    Scene,
    find_scene,
    get_option,
    make_config,
    make_trainer,
    parse_options,
    run_options,
    set_option,
)
from nerfstudio_prune.bench.suites import SCALES, SUITES, Run, pruned
from nerfstudio_prune.engine.compute import ComputeConfig
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig

WIDTH = "pipeline.model.base_mlp_layer_width"
SMOKE = SCALES["smoke"]


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        (WIDTH, "128", 128),
        (WIDTH.replace("_", "-"), "128", 128),
        ("optimizers.fields.optimizer.lr", "1e-2", 0.01),
        ("optimizers.fields.optimizer.lr", "1", 1.0),
        ("pipeline.prune.recovery", "rewind", "rewind"),
        ("pipeline.prune.group-widths", "*base* 16", {"*base*": 16}),
        ("pipeline.prune.groups", "'*.mlp_base.*' *head*", ("*.mlp_base.*", "*head*")),
        ("pipeline.model.skip-connections", "2", (2,)),
        ("pipeline.model.skip-connections", "2 4", (2, 4)),
        ("pipeline.model.use-gradient-scaling", "true", True),
        ("pipeline.model.use-gradient-scaling", "False", False),
        ("pipeline.prune.recovery-lr", "None", None),
        ("pipeline.prune.recovery-lr", "none", None),
        ("pipeline.prune.refit", "none", "none"),
        ("pipeline.prune.recovery-decay", "-5", -5),
    ],
)
def test_options_are_of_the_kind_that_they_replace(path: str, text: str, value: Any) -> None:
    """A text that stays a text, or an int where the optimizer expects a float, fails far from where it was typed."""
    ((found, parsed),) = parse_options({path: text}, "nerf-prune").items()
    assert found == path.replace("-", "_")
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("path", "text", "parts"),
    [
        ("pipeline.model.base_mlp_width", "128", ("pipeline.model.base_mlp_width", "'base_mlp_width'", "PruneModel")),
        ("pipelin.model", "1", ("pipelin.model", "'pipelin'", "; there is ", ", pipeline, ")),
        (
            "optimizers.camera.optimizer",
            "1",
            ("optimizers.camera.optimizer", "'camera'", "is fields, temporal_d"),
        ),
        ("pipeline.prune.score.more", "1", ("pipeline.prune.score.more", "'more'", "that has no options")),
        ("pipeline.prune.recovery_lrs", "1", ("pipeline.prune.recovery_lrs", ", recovery_lr, recovery_decay, ")),
        ("optimizers.fields.scheduler.lr_final", "1", ("optimizers.fields.scheduler.lr_final", "no options")),
        (WIDTH, "128.5", (WIDTH, "int like 256", "'128.5'")),
        (WIDTH, "True", (WIDTH, "int like 256")),
        ("optimizers.fields.optimizer.lr", "fast", ("optimizers.fields.optimizer.lr", "float", "'fast'")),
        ("optimizers.fields.optimizer.lr", "True", ("optimizers.fields.optimizer.lr", "float")),
        (WIDTH, "none", (WIDTH, "int like 256", "'none'")),
        (WIDTH, "128 64", (WIDTH, "int like 256", "'128 64'")),
        (WIDTH, "", (WIDTH, "int like 256", "''")),
        (WIDTH, "--help", (WIDTH, "int like 256", "'--help'")),
        (WIDTH, "'", (WIDTH, "int like 256")),
        ("pipeline.prune.recovery", "wind", ("pipeline.prune.recovery", "'rewind'", "'wind'")),
        ("pipeline.model.skip-connections", "(2,)", ("pipeline.model.skip_connections", "tuple[int, ...] like 4")),
        ("pipeline.model", "1", ("pipeline.model", "group of options (PruneModelConfig)")),
        ("optimizers.fields", "1", ("optimizers.fields", "group of options")),
        ("optimizers.fields.scheduler", "cosine", ("optimizers.fields.scheduler", "'cosine'")),
        ("pipeline.datamanager.data", "/data", ("pipeline.datamanager.data", "a record can hold", "Path")),
        ("machine.seed", "7", ("machine.seed", "set by the suite")),
        ("max-num-iterations", "7", ("max_num_iterations", "set by the suite")),
        ("pipeline.prune.strategy", "coreset", ("pipeline.prune.strategy", "set by the suite")),
        ("pipeline.compute.num-threads", "1", ("pipeline.compute.num_threads", "set by the suite")),
        ("pipeline.compute.matmul-precision", "medium", ("pipeline.compute.matmul_precision", "set by the suite")),
    ],
)
def test_wrong_options_are_named(path: str, text: str, parts: tuple[str, ...]) -> None:
    """Each run would fail with it, after minutes, in a log file."""
    with pytest.raises(ValueError) as caught:
        parse_options({path: text}, "nerf-prune")
    for part in parts:
        assert part in str(caught.value)


def test_setting_an_option_changes_only_that() -> None:
    """Options are set on a copy of the registered method, through attributes and dictionaries."""
    config: Any = deepcopy(all_methods["nerf-prune"])
    set_option(config, "optimizers.fields.optimizer.lr", 0.25)
    set_option(config, "max_num_iterations", 7)
    assert config.optimizers["fields"]["optimizer"].lr == 0.25 and config.max_num_iterations == 7
    set_option(config, "optimizers.fields.scheduler", None)
    assert config.optimizers["fields"]["scheduler"] is None
    with pytest.raises(ValueError, match=r"optimizers\.fields\.optimizer\.rate: there is no 'rate'"):
        set_option(config, "optimizers.fields.optimizer.rate", 1.0)


@pytest.mark.parametrize("number", [1, 3])
def test_arms_compute_alike(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run would choose its threads and its products by a clock of its own: of two arms the one could be faster for
    that alone. All of them have the number that the command was started with."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: number)
    made: list[Any] = []
    config: Any = SimpleNamespace(
        pipeline=SimpleNamespace(compute=ComputeConfig()), machine=SimpleNamespace(seed=0), setup=lambda **_: trainer
    )
    trainer = SimpleNamespace(setup=lambda test_mode: made.append(config.pipeline.compute))
    assert make_trainer(config) is trainer
    assert made == [ComputeConfig(number, "highest")]


@pytest.mark.parametrize("method", ["nerf-prune", "nerf-prune-real"])
def test_runs_have_the_rates_of_their_suite(method: str, tmp_path: Path) -> None:
    """The methods let their rate decay over the run, and the runs of a suite have unequal lengths: a start that others
    go on from would end at a tenth of their rate. What is recorded was trained with constant rates, or with the decay
    that the suite names."""
    scene = replace(find_scene(None, SMOKE), method=method)
    run = Run("dense", 1, "dense", 8)
    for decay, expected in (
        (None, None),
        ((0.1, 8), ExponentialDecaySchedulerConfig(lr_final=5e-4 * 0.1, max_steps=8)),
    ):
        config = make_config(replace(run, decay=decay), SMOKE, scene, 8, tmp_path, None)
        assert [part["scheduler"] for part in config.optimizers.values()] == [expected] * 2
    assert all(part["scheduler"] is not None for part in all_methods[method].optimizers.values())


def test_scenes_are_known_by_their_files(tmp_path: Path) -> None:
    """Users give a folder and no format; photographs need the method with scene contraction."""
    blender, photos = tmp_path / "lego", tmp_path / "poster"
    for folder, file in ((blender, "transforms_train.json"), (photos, "transforms.json")):
        folder.mkdir()
        (folder / file).write_text("{}")
    scene = find_scene(blender, SMOKE)
    assert (scene.name, scene.method) == ("lego", "nerf-prune")
    assert isinstance(scene.dataparser, BlenderDataParserConfig) and scene.dataparser.data == blender
    scene = find_scene(photos, SMOKE)
    assert (scene.name, scene.method) == ("poster", "nerf-prune-real")
    assert isinstance(scene.dataparser, NerfstudioDataParserConfig) and scene.dataparser.data == photos
    scene = find_scene(None, SMOKE)
    assert (scene.name, scene.method) == ("demo-data", "nerf-prune")
    assert isinstance(scene.dataparser, DemoDataParserConfig) and scene.dataparser.image_size == 16


def test_a_relative_folder_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--data .` must not be recorded as a scene without a name, which any other folder would match."""
    (tmp_path / "transforms_train.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_scene(Path(), SMOKE).name == tmp_path.name


def scene_at(folder: Path, camera: str = "{}", pixels: bytes = b"one") -> str:
    """Makes a data set and gives its fingerprint."""
    (folder / "train").mkdir(parents=True)
    (folder / "transforms_train.json").write_text(camera)
    (folder / "train" / "r_0.png").write_bytes(pixels)
    return find_scene(folder, SMOKE).fingerprint


def test_a_scene_is_known_by_its_content(tmp_path: Path) -> None:
    """Records hold on another machine, where the folder lies elsewhere; a copy at half the resolution has the same
    cameras and often the same name, and is another scene."""
    original = scene_at(tmp_path / "a" / "lego")
    assert scene_at(tmp_path / "b" / "copy") == original
    assert scene_at(tmp_path / "c" / "lego", pixels=b"two") != original
    assert scene_at(tmp_path / "d" / "lego", camera='{"camera_angle_x": 1}') != original


def test_the_built_in_scene_is_known_by_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the cache lies."""
    sizes = [find_scene(None, replace(SMOKE, demo_options={"image_size": size})).fingerprint for size in (16, 17)]
    assert sizes[0] != sizes[1]
    before = find_scene(None, SMOKE).fingerprint
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_scene(None, SMOKE).fingerprint == before


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_data_is_refused(tmp_path: Path, make: bool) -> None:
    """Falling back to the built-in scene would measure something else than was asked for."""
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(ValueError) as caught:
        find_scene(folder, SMOKE)
    assert str(folder) in str(caught.value) and "transforms_train.json" in str(caught.value)


def test_a_small_network_has_the_widths_of_a_pruned_one() -> None:
    """The control from scratch is only one if it is exactly as large, also under widths that the user gave."""
    scale = SCALES["cpu"]
    small = next(job for job in SUITES["frontier"](scale) if isinstance(job, Run) and job.arm == "small-0.75")
    options = run_options(small, scale, "nerf-prune")
    assert (options[WIDTH], options["pipeline.model.head_mlp_layer_width"]) == (32, 16)
    assert run_options(small, SCALES["gpu"], "nerf-prune")[WIDTH] == 64
    assert WIDTH not in run_options(Run("dense", 1, "dense", 1), SCALES["gpu"], "nerf-prune")


def test_config_of_a_run(tmp_path: Path) -> None:
    """Everything that decides a run arrives in the trainer's configuration; nothing of the host's own evaluation is
    left to take time; the registered method stays as it is."""
    before = deepcopy(all_methods["nerf-prune"])
    run = pruned(3, SMOKE, "coreset", None, 0.5, variant="mussay")
    scene = Scene("x", "nerf-prune", DemoDataParserConfig(data=tmp_path), "")
    config: Any = make_config(run, SMOKE, scene, 5, tmp_path / "runs", tmp_path / "step-000000003.ckpt")
    assert config.machine.seed == 3 and config.max_num_iterations == 5
    assert config.load_checkpoint == tmp_path / "step-000000003.ckpt"
    assert config.get_base_dir() == tmp_path / "runs" / run.name / "nerf-prune" / "run"
    assert config.pipeline.datamanager.dataparser == scene.dataparser
    assert config.pipeline.datamanager.train_num_rays_per_batch == 32
    assert config.pipeline.model.base_mlp_layer_width == 32
    prune = config.pipeline.prune
    assert (prune.strategy, prune.coreset_variant, prune.pruning_ratio, prune.start_step) == (
        "coreset",
        "mussay",
        0.5,
        SMOKE.start_steps,
    )
    assert prune.num_eval_rays == 0
    for name in ("batch", "image", "all_images"):
        assert getattr(config, f"steps_per_eval_{name}") > 10**6
    assert str(all_methods["nerf-prune"]) == str(before)


def test_options_of_the_user_win_over_the_scale() -> None:
    """They are merged before a run is made, so that they stand in the record as well."""
    assert parse_options(FAST, "nerf-prune") == {"optimizers.fields.optimizer.lr": 0.05}
    assert get_option(all_methods["nerf-prune"], "optimizers.fields.optimizer.lr") == 5e-4
