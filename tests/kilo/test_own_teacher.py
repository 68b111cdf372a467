"""A run without a teacher makes one first: a run as any other, and nothing of it shows in the run that it is for."""

import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.utils import writer
from nerfstudio.utils.eval_utils import eval_setup
from support.tiny_kilo import DISTIL, FINETUNE, make_kilo, psnr
from support.tiny_run import resume, same_bits, start, train

from nerfstudio_prune.kilo.own_teacher import former_teacher, teacher_config

STEPS = 3
"""Steps of a teacher; it is never shown here."""
Make = Callable[..., Any]


def make_alone(folder: Path, cache: Path, name: str = "run", **options: Any) -> Any:
    """A run of a few steps that makes its own teacher."""
    return make_kilo(folder, cache, name, **{"own_teacher_steps": STEPS, "grid__resolution": 2, **options})


@pytest.fixture(scope="module", autouse=True)
def seldom_asked() -> Iterator[None]:
    """The teacher is larger than those of other tests, and what it shows does not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nerfstudio_prune.kilo.space.PIECES", 4)
        patch.setattr("nerfstudio_prune.kilo.building.FIRST_CELLS", 2)
        yield


@pytest.fixture
def alone(tmp_path: Path, scene_cache: Path) -> Make:
    """Makes configurations of such runs: `alone(name, …)`."""
    return partial(make_alone, tmp_path, scene_cache)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Any:
    """Such a run, with a checkpoint of each step, and what the generators gave before its first one."""
    config = make_alone(tmp_path_factory.mktemp("alone"), scene_cache)
    config.steps_per_save, config.save_only_latest_checkpoint = 1, False
    trainer = start(config)
    trainer.drawn, trainer.writers = drawn(), len(writer.EVENT_WRITERS)
    trainer.train()
    return trainer


def drawn() -> list[Any]:
    """What all generators give next."""
    return [torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()]  # noqa: NPY002


def teachers(folder: Path) -> list[Path]:
    """Runs of teachers below a folder."""
    return sorted((folder / "tiny" / "nerf-prune-demo").glob("*"))


def named(trainer: Any) -> Any:
    """The teacher that the config.yml of a run names."""
    return yaml.load((trainer.base_dir / "config.yml").read_text(), Loader=yaml.Loader).pipeline.teacher


def ends(trainer: Any) -> Any:
    """Weights, cells, state and moments."""
    optimizer = trainer.optimizers.optimizers["networks"]
    return dict(trainer.pipeline.model.state_dict()), optimizer.state_dict()


def test_the_run_is_that_of_a_teacher_that_was_given(whole: Any, alone: Make, tmp_path: Path) -> None:
    """Where the teacher comes from must not show: generators, weights and moments are the same to the bit, and its
    losses are not in the log of the run. One that is given is taken."""
    trainer = start(alone("given", teacher=named(whole)))
    assert drawn() == whole.drawn and len(writer.EVENT_WRITERS) == whole.writers
    trainer.train()
    assert trainer.step == DISTIL + FINETUNE - 1
    assert same_bits(ends(trainer), ends(whole))
    assert teachers(tmp_path) == []


def test_the_teacher_is_a_run_as_any_other(whole: Any) -> None:
    """Somebody wants to know how good it is, or to distil it again: it lies beside the run, on the same scene, of the
    same seed, and nothing was pruned."""
    (folder,) = teachers(whole.config.output_dir)
    assert named(whole) == folder / "config.yml"
    config, loaded, _, step = eval_setup(folder / "config.yml", test_mode="test")
    pipeline: Any = loaded
    assert step == STEPS - 1 and config.method_name == "nerf-prune-demo"
    assert config.machine == whole.config.machine
    assert pipeline.datamanager.train_dataset.cameras.shape == whole.pipeline.datamanager.train_dataset.cameras.shape
    assert 0 < psnr(pipeline) < 60
    assert pipeline.model.prune_state.history == []


def test_a_run_that_goes_on_finds_it(whole: Any, alone: Make, tmp_path: Path) -> None:
    """Stopped in the first phase and gone on with, twice if need be: no other is trained, and the end is that of the
    run that nobody stopped."""
    config = resume(alone("resumed"), whole, 2, 1_000_000)
    trainer = train(config)
    assert same_bits(ends(trainer), ends(whole)) and teachers(tmp_path) == []
    assert named(trainer) == named(whole)
    again = alone("again")
    again.load_dir = trainer.checkpoint_dir
    assert former_teacher(again) == named(whole)
    again.load_dir, again.load_checkpoint = None, trainer.checkpoint_dir / "step-000000004.ckpt"
    assert former_teacher(again) == named(whole)


def test_a_run_that_goes_on_without_it(whole: Any, alone: Make, tmp_path: Path) -> None:
    """Another one would not be the one that the cells came from: who has lost it is told so, and what to do."""
    shutil.copytree(whole.checkpoint_dir, tmp_path / "moved" / "nerfstudio_models")
    config = resume(alone("lost"), whole, 2, 1_000_000)
    config.load_dir = tmp_path / "moved" / "nerfstudio_models"
    with pytest.raises(ValueError, match=r"--pipeline\.teacher is missing.*--pipeline\.distil\.steps 3"):
        start(config)
    assert former_teacher(alone("first")) is None


def test_no_run_that_is_there_is_written_over(alone: Make) -> None:
    """With a timestamp of one's own, the teacher of the run before has the same name."""
    config = alone("mine")
    folders = [teacher_config(config, STEPS).get_base_dir() for _ in range(2)]
    assert {folder.name for folder in folders} == {"mine-teacher"}
    folders[0].mkdir(parents=True)
    assert teacher_config(config, STEPS).get_base_dir().name == "mine-teacher-2"


def test_what_the_teacher_has_of_the_run(alone: Make) -> None:
    """Options that are given for the run hold while its teacher is trained; so does the data set, by whichever of the
    host's two options it was given."""
    config = alone(compute__num_threads=1)
    config.machine.seed = 7
    config.logging.local_writer.enable = False
    config.pipeline.datamanager.data = Path("elsewhere")
    config.pipeline.datamanager.camera_res_scale_factor = 0.5
    own = teacher_config(config, STEPS)
    assert own.machine == config.machine and own.logging == config.logging
    assert own.pipeline.compute == config.pipeline.compute
    data = own.pipeline.datamanager
    assert (data.data, data.dataparser.data, data.dataparser.image_size) == (None, Path("elsewhere"), 24)
    registered: Any = all_methods["nerf-prune-demo"]
    assert data.camera_res_scale_factor == 0.5
    assert data.train_num_rays_per_batch == registered.pipeline.datamanager.train_num_rays_per_batch
    assert (own.max_num_iterations, own.pipeline.prune.strategy) == (STEPS, "none")
    assert own.pipeline.model == registered.pipeline.model and registered.pipeline.prune.strategy is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"own_teacher_steps": 0}, r"pipeline\.own_teacher_steps must be in \[1, 1,000,000,000\], got 0"),
        ({"own_teacher_steps": 1.5}, r"pipeline\.own_teacher_steps must be a whole number"),
        ({"own_teacher_steps": None}, r"--pipeline\.teacher is missing: expected the config\.yml of a trained run"),
        ({"distil__lr": 2.0}, r"pipeline\.distil\.lr must be in \(0, 1\], got 2\.0"),
    ],
)
def test_what_is_wrong_is_told_before_a_teacher_is_trained(
    alone: Make, tmp_path: Path, options: Any, text: str
) -> None:
    """It takes minutes; and nobody has one made who did not ask for it."""
    with pytest.raises(ValueError, match=text):
        start(alone(**options))
    assert teachers(tmp_path) == []


def test_the_demo_needs_no_argument() -> None:
    """It is `kilonerf` with a scene and a teacher of its own. Options that it gave would be given anew whenever a run
    is gone on with."""
    demo: Any = all_methods["kilonerf-demo"]
    plain: Any = all_methods["kilonerf"]
    assert demo.pipeline.own_teacher_steps and demo.pipeline.teacher is None and demo.vis == "tensorboard"
    assert type(demo.pipeline.datamanager.dataparser).__name__ == "DemoDataParserConfig"
    for group in ("model", "grid", "occupancy", "distil", "finetune", "compute"):
        assert getattr(demo.pipeline, group) == getattr(plain.pipeline, group)
    assert demo.optimizers == plain.optimizers and demo.max_num_iterations == plain.max_num_iterations
