"""Runs of KiloNeRF by the host's own trainer and commands."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.utils.eval_utils import eval_setup
from support.tiny_kilo import DISTIL, FINETUNE, Teacher, make_kilo, pruned_teacher, psnr, stock_teacher, weights
from support.tiny_run import before_each_step, resume, same_bits, start, train

from nerfstudio_prune.kilo.phases import Phases
from nerfstudio_prune.kilo.scene import views_in_common
from nerfstudio_prune.kilo.teacher import load_teacher

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path, teacher: Teacher) -> Any:
    """A run that is long enough for a picture."""
    folder = tmp_path_factory.mktemp("good")
    config = make_kilo(
        folder, scene_cache, "good", teacher.config_file, distil__steps=80, finetune__steps=60, grid__resolution=4
    )
    return train(config)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path, teacher: Teacher) -> Any:
    """A run of a few steps that keeps a checkpoint of each."""
    config = make_kilo(tmp_path_factory.mktemp("whole"), scene_cache, "whole", teacher.config_file, grid__resolution=3)
    config.steps_per_save, config.save_only_latest_checkpoint = 1, False
    return train(config)


def test_a_finished_run_needs_no_teacher(
    make: Make, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made of the teacher is in the checkpoint: `ns-eval` on another machine, without the teacher's files,
    shows the same pictures."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    shutil.copytree(teacher.config_file.parent, tmp_path / "teacher")
    monkeypatch.chdir(first)
    config = make(teacher=tmp_path / "teacher" / "config.yml", grid__resolution=3)
    config.output_dir = Path("outputs")
    trainer = train(config)
    trained: Any = config.pipeline.setup(device="cpu", test_mode="test")
    trained._model = trainer.pipeline.model
    expected = psnr(trained)
    shutil.copytree("outputs", second / "outputs")
    shutil.rmtree(tmp_path / "teacher")
    shutil.rmtree("outputs")
    monkeypatch.chdir(second)
    (path,) = Path("outputs").rglob("config.yml")
    ComputePSNR(load_config=path, output_path=Path("result.json")).main()
    assert json.loads(Path("result.json").read_text())["results"]["psnr"] == pytest.approx(expected, abs=1e-4)
    _, pipeline, _, step = eval_setup(path, test_mode="inference")
    assert step == DISTIL + FINETUNE - 1
    assert same_bits(dict(pipeline.model.state_dict()), dict(trainer.pipeline.model.state_dict()))


def test_networks_show_the_scene_and_shuffled_ones_do_not(good: Any) -> None:
    """The control: with each network in another one's cell, the picture is worse. A grid whose cells did not matter
    would pass every other test."""
    model, pipeline = good.pipeline.model, good.pipeline
    found, networks = psnr(pipeline), model.networks
    white = -10 * torch.stack([(1 - data["image"]).square().mean() for _, data in views(pipeline)]).mean().log10()
    assert found > float(white) + 1
    before = networks.position
    networks.position = before.roll(1)
    try:
        assert psnr(pipeline) < found - 1
    finally:
        networks.position = before
    assert psnr(pipeline) == found


def views(pipeline: Any) -> Any:
    return pipeline.datamanager.fixed_indices_eval_dataloader


@pytest.mark.parametrize("step", [2, DISTIL - 1, DISTIL, DISTIL + 3])
def test_a_resumed_run_is_the_uninterrupted_one(make: Make, whole: Any, step: int) -> None:
    """Stopped in either phase, at the last step of the first or at the first of the second one: weights, moments and
    state at the end are those of the run that nobody stopped, bit for bit."""
    config = resume(make("resumed", grid__resolution=3), whole, step, 1_000_000)
    if step >= DISTIL - 1:
        config.pipeline.teacher = None
    other = train(config)
    assert other.step == whole.step == DISTIL + FINETUNE - 1
    ends = [trainer.optimizers.optimizers["networks"].state_dict() for trainer in (whole, other)]
    assert same_bits(*ends) and float(ends[0]["state"][0]["step"]) == FINETUNE
    assert same_bits(*(dict(trainer.pipeline.model.state_dict()) for trainer in (whole, other)))


def test_each_phase_has_its_rates(make: Make) -> None:
    """They follow from the step; and photos begin without the moments of points."""
    trainer = start(make(grid__resolution=2))
    optimizer, found = trainer.optimizers.optimizers["networks"], []
    before_each_step(trainer, lambda step: found.append(optimizer.param_groups[0]["lr"]))
    trainer.train()
    phases = Phases(trainer.pipeline.model.state.options)
    expected = [phases.rate(step) for step in range(DISTIL + FINETUNE)]
    assert [expected[0], expected[DISTIL - 1]] == pytest.approx([3e-2, 6e-4])
    assert [expected[DISTIL], expected[-1]] == pytest.approx([2e-3, 1e-4])
    # The hook of the test runs before that of the phases: it sees the rate of the step before.
    assert found[1:] == expected[:-1] and optimizer.param_groups[0]["lr"] == expected[-1]
    assert optimizer.param_groups[0]["eps"] == 1e-12
    assert float(optimizer.state_dict()["state"][0]["step"]) == FINETUNE


def batches(config: Any) -> tuple[list[Any], list[Any]]:
    """Pixels and shifts of the photo batches of a run."""
    trainer = start(config)
    pixels, shifts = [], []
    inner, model = trainer.pipeline.datamanager.next_train, trainer.pipeline.model
    forward = model.get_outputs

    def spy(step: int) -> Any:
        found = inner(step)
        pixels.append(found[1]["indices"].clone())
        return found

    def see(bundle: Any) -> Any:
        shifts.append(model.shift)
        return forward(bundle)

    trainer.pipeline.datamanager.next_train = spy
    model.get_outputs = see
    trainer.train()
    return pixels, shifts


def test_photo_batches_do_not_depend_on_the_first_phase(make: Make) -> None:
    """Runs with other lengths of distilling are compared by what they make of the same photos; distilling itself asks
    for none."""
    short = batches(make("short", distil__steps=2, grid__resolution=2))
    long = batches(make("long", distil__steps=5, grid__resolution=2))
    assert len(short[0]) == len(short[1]) == FINETUNE
    assert same_bits(short, long)
    other = make("other", distil__steps=2, grid__resolution=2)
    other.machine.seed = 7
    assert not same_bits(short, batches(other))
    assert len({float(batch.sum()) for batch in short[0]}) > 1


def test_a_pruned_run_can_be_the_teacher(make: Make, tmp_path: Path, scene_cache: Path) -> None:
    """The project's own result is what this is for: layers of any widths."""
    teacher = pruned_teacher(tmp_path / "teacher", scene_cache)
    shapes = {tuple(p.shape) for p in teacher.model.field_fine.parameters()}
    assert len({shape[0] for shape in shapes if len(shape) == 2}) > 3
    trainer = train(make(teacher=teacher.config_file, grid__resolution=2))
    assert trainer.pipeline.model.networks.num_networks > 0


def test_a_stock_run_can_be_the_teacher(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the metric network in its checkpoint, and none of this project's state."""
    # So large a network is not to be asked as often as one that is to be learnt from.
    monkeypatch.setattr("nerfstudio_prune.kilo.space.PIECES", 4)
    monkeypatch.setattr("nerfstudio_prune.kilo.building.FIRST_CELLS", 2)
    teacher = stock_teacher(tmp_path / "teacher")
    options = {"grid__resolution": 1, "occupancy__refine": 8, "distil__points_per_network": 8}
    trainer = start(make(teacher=teacher.config_file, distil__steps=1, finetune__steps=1, **options))
    trainer.train()
    assert trainer.pipeline.model.networks.num_networks == 1
    assert trainer.pipeline.model.cells.lattice_of_rays.steps >= 64 + 128 + 1


def test_the_viewer_may_ask_before_the_first_step(make: Make) -> None:
    """The host starts the viewer before it loads or builds anything: there are no networks then."""
    pipeline: Any = make().pipeline.setup(device="cpu", test_mode="val")
    model = pipeline.model.eval()
    shown = model.get_outputs_for_camera(pipeline.datamanager.train_dataset.cameras[0:1])
    assert shown["rgb"].shape == (24, 24, 3) and bool((shown["rgb"] == 1).all())
    assert shown["depth"].shape == shown["accumulation"].shape == (24, 24, 1)
    assert not shown["accumulation"].any()


def test_a_run_ends_with_its_phases(make: Make, whole: Any) -> None:
    """The host counts `max_num_iterations` from the first step of a run: gone on with, it would train on at the last
    rate. Fewer iterations stop before."""
    config = make("fewer", grid__resolution=2)
    config.max_num_iterations = 3
    assert train(config).step == 2
    done = resume(make("done", grid__resolution=3), whole, whole.step, 1_000_000)
    with pytest.raises(ValueError, match=r"all 12 steps of this run are done; raise pipeline\.finetune\.steps above 6"):
        start(done)
    more = resume(make("more", grid__resolution=3, finetune__steps=FINETUNE + 2), whole, whole.step, 1_000_000)
    assert train(more).step == whole.step + 2


def test_what_a_checkpoint_holds_is_not_given_anew(make: Make, whole: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells cannot change under trained networks. What is not given is not told of: the registered method gives
    nothing."""
    trainer = start(resume(make("same", grid__resolution=3), whole, 3, 1_000_000))
    assert "has no effect" not in capsys.readouterr().out
    count = trainer.pipeline.model.networks.num_networks
    trainer = start(resume(make("other", grid__resolution=5), whole, 3, 1_000_000))
    assert "--pipeline.grid.resolution 5 has no effect: the cells of the checkpoint hold" in capsys.readouterr().out
    assert trainer.pipeline.model.networks.num_networks == count


def test_distilling_may_be_left(make: Make, whole: Any) -> None:
    """Without the teacher a run cannot go on distilling, and can go on with photos."""
    config = resume(make("left", grid__resolution=3), whole, 2, 1_000_000)
    config.pipeline.teacher = None
    with pytest.raises(ValueError, match=r"--pipeline\.teacher is missing.*--pipeline\.distil\.steps 3"):
        start(config)
    config.pipeline.distil.steps = 3
    assert train(config).step == 3 + FINETUNE - 1
    late = resume(make("late", grid__resolution=3, distil__steps=9), whole, 8, 1_000_000)
    with pytest.raises(ValueError, match=r"pipeline\.distil\.steps must be 6 as before"):
        start(late)
    early = resume(make("early", grid__resolution=3, distil__steps=1), whole, 3, 1_000_000)
    with pytest.raises(ValueError, match=r"pipeline\.distil\.steps must be at least 4"):
        start(early)


def test_what_was_chosen_is_told_with_its_reason(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody types in where the scene is and how fine; so the console says what came of it. Haze is warned of."""
    start(make())
    told = " ".join(capsys.readouterr().out.split())
    for text in (
        "a pixel is",
        "cells along the longest side: at most 16, and at least 4 pixels each",
        "8 voxels along the side of a cell: of 8 each would cover",
        "frequencies of a place in its cell: down to a period of two pixels",
        "from 2 to 6: the teacher's mean, 49 samples",
    ):
        assert told.count(text) == 1, text
    assert "are occupied: there is little speed to be had" not in told
    start(make("hazy", occupancy__dilate=8, grid__resolution=2))
    assert "are occupied: there is little speed to be had" in " ".join(capsys.readouterr().out.split())


def test_a_teacher_of_other_data_is_warned_of(make: Make, teacher: Teacher, capsys: pytest.CaptureFixture[str]) -> None:
    """In another scale its scene lies elsewhere, and nobody would know why pictures are bad. Views of another split of
    the same scene are no reason to warn, nor are data that are gone."""
    config = make()
    trainer = start(config)
    cameras = trainer.pipeline.datamanager.train_dataset.cameras
    warning = "none of the 12 training views is one of the teacher's"
    assert warning not in " ".join(capsys.readouterr().out.split())
    source = load_teacher(teacher.config_file, "cpu").data
    assert views_in_common(source, cameras) == 12 and views_in_common(source, cameras[:3]) == 3
    other = make("other")
    other.pipeline.datamanager.dataparser.seed += 1
    start(other)
    assert warning in " ".join(capsys.readouterr().out.split())
    assert source is not None
    source.dataparser.data, source.dataparser._target = Path("/nowhere"), BlenderDataParserConfig()._target
    assert views_in_common(source, cameras) is None


def test_all_weights_take_part(whole: Any, make: Make, teacher: Teacher) -> None:
    """Parameters are the objects that the optimizer has held since before there was a network: were they others,
    nothing would learn."""
    trainer = start(make(grid__resolution=2))
    held = [id(p) for group in trainer.optimizers.optimizers["networks"].param_groups for p in group["params"]]
    assert held == [id(p) for p in trainer.pipeline.model.networks.parameters()]
    first = weights(trainer)
    trainer.train()
    assert all(not torch.equal(first[name], value) for name, value in weights(trainer).items())
    config = yaml.load((trainer.base_dir / "config.yml").read_text(), Loader=yaml.Loader)
    assert config.pipeline.teacher == teacher.config_file and config.max_num_iterations == 1_000_000
