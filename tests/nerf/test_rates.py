"""Learning rates of whole runs: from the command line to TensorBoard, and across checkpoints of any age."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
import yaml
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from support.tiny_run import checkpoint, resume, same_bits, start, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nerfstudio_prune.engine.checkpoints import checkpoint_path

Config = Callable[..., Any]
CUT: dict[str, Any] = {"start_step": 3, "pruning_ratio": 0.5}


def typed(*words: str) -> Any:
    """Configuration that `ns-train` makes of these words."""
    return tyro.cli(AnnotatedBaseConfigUnion, args=words)


def used_rates(trainer: Any, name: str = "fields") -> list[float]:
    """Trains, and gives the rate that every step was done with."""
    found: list[float] = []
    optimizer = trainer.optimizers.optimizers[name]
    optimizer.register_step_pre_hook(lambda *_: found.append(float(optimizer.param_groups[0]["lr"])))
    trainer.train()
    return found


def shown_rates(trainer: Any) -> dict[str, list[tuple[int, float]]]:
    """Name of each learning rate in TensorBoard -> its values by step."""
    events = EventAccumulator(str(trainer.base_dir)).Reload()
    names = [tag for tag in events.Tags()["scalars"] if tag.startswith("learning_rate/")]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


@pytest.mark.parametrize("method", ["nerf-prune", "nerf-prune-real"])
def test_schedule_is_on_the_command_line(method: str) -> None:
    """A scheduler of None has no options there, and the rate matters more than anything else."""
    prefix = "--optimizers.fields.scheduler."
    words = ["--optimizers.fields.optimizer.lr", "0.008", f"{prefix}lr-final", "1e-3", f"{prefix}max-steps", "50"]
    config = typed(method, *words, f"{prefix}warmup-steps", "5", "--max-num-iterations", "3000")
    fields = config.optimizers["fields"]
    assert fields["optimizer"].lr == 0.008
    assert (fields["scheduler"].lr_final, fields["scheduler"].max_steps) == (1e-3, 50)
    assert fields["scheduler"].warmup_steps == 5
    assert config.optimizers["temporal_distortion"]["scheduler"].max_steps is None


def test_end_of_the_decay_follows_the_run(tiny_config: Config) -> None:
    """Also where the length is changed after the method was registered, as scripts do; and as saved in config.yml."""
    config = tiny_config(strategy="none")
    config.max_num_iterations = 8
    config = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert used_rates(start(config)) == pytest.approx([5e-4 * 0.1 ** (step / 8) for step in range(8)])


def test_tensorboard_shows_the_rate_in_force(tiny_config: Config) -> None:
    """With a factor from the cut on, and one value a step: a second one under the same name would draw a zigzag."""
    config = tiny_config(**CUT, recovery_lr_factor=3.0)
    config.pipeline.model.enable_temporal_distortion = True
    trainer = start(config)
    used = used_rates(trainer)
    factors = [1.0] * 4 + [3.0] * 6
    assert used == pytest.approx([factor * 5e-4 * 0.1 ** (step / 10) for step, factor in enumerate(factors)])
    shown = shown_rates(trainer)
    assert set(shown) == {"learning_rate/fields", "learning_rate/temporal_distortion"}
    assert [step for step, _ in shown["learning_rate/fields"]] == list(range(10))
    assert [rate for _, rate in shown["learning_rate/fields"]] == pytest.approx(used)
    # What is not pruned bears no larger rate after the cut.
    own = [rate for _, rate in shown["learning_rate/temporal_distortion"]]
    assert own == pytest.approx([5e-4 * 0.1 ** (step / 10) for step in range(10)])


@pytest.mark.parametrize(
    ("steps", "options"),
    [(10, {}), (4, {"recovery": "retrain"}), (4, {"recovery_lr": 1e-3, "recovery_decay": 3})],
    ids=["all steps again", "the rest", "the rest with a rate"],
)
def test_killed_run_stays_on_its_schedule(tiny_config: Config, steps: int, options: dict[str, Any]) -> None:
    """The host gives a resumed run all steps of `max_num_iterations` again, unless the rest of them is typed. Where its
    schedule followed from either, no step would be that of the run that was not killed. The cut, and a restart of the
    schedule with it, lie behind the kill."""
    options = {"start_step": 7, "pruning_ratio": 0.5, **options}
    config = tiny_config("whole", **options)
    config.steps_per_save, config.save_only_latest_checkpoint = 5, False
    whole = train(config, same_noise=True)
    again = tiny_config("again", **options)
    again.load_dir, again.max_num_iterations = whole.checkpoint_dir, steps
    checkpoint_path(whole.checkpoint_dir, 9).rename(whole.base_dir / "last.ckpt")
    resumed = start(again, same_noise=True)
    states: dict[str, Any] = {}

    def look(step: int) -> None:
        if step == 9:
            states["weights"] = {k: v.clone() for k, v in resumed.pipeline.model.named_parameters()}
            states["schedulers"] = resumed.optimizers.schedulers["fields"].state_dict()

    resumed.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], look))
    resumed.train()
    expected = torch.load(whole.base_dir / "last.ckpt", weights_only=True)
    assert same_bits(expected["schedulers"]["fields"], states["schedulers"])
    for name, value in states["weights"].items():
        assert torch.equal(value, expected["pipeline"][f"_model.{name}"]), name


def test_old_run_with_a_constant_rate_goes_on(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Its checkpoint has no scheduler. By its own configuration its rate stays; with the method of today the decay
    begins at the checkpoint, from the rate that was trained with."""
    config = tiny_config("old", **CUT)
    for part in config.optimizers.values():
        part["scheduler"], part["optimizer"].lr = None, 2e-3
    old = train(config)
    assert checkpoint(old, 9)["schedulers"] == {}
    config.timestamp = "same"
    assert used_rates(start(resume(config, old, 9, 4))) == [2e-3] * 4
    capsys.readouterr()
    trainer = start(resume(tiny_config("new", preset=None), old, 9, 4))
    assert "the checkpoint has none; it begins here" in " ".join(capsys.readouterr().out.split())
    assert used_rates(trainer) == pytest.approx([2e-3 * 0.1 ** (step / 4) for step in range(4)])


def test_schedule_can_begin_anew(tiny_config: Config) -> None:
    """`--load-scheduler False` is the host's way to another schedule for the rest of a run."""
    first = train(tiny_config("first", **CUT))
    config = resume(tiny_config("second", preset=None), first, 9, 4)
    config.load_scheduler = False
    config.optimizers["fields"]["optimizer"].lr = 1e-3
    # The first step still has the rate of the optimizer that was loaded.
    assert used_rates(start(config))[1:] == pytest.approx([1e-3 * 0.1 ** (step / 4) for step in range(1, 4)])


def test_checkpoint_holds_plain_numbers(tiny_config: Config, tmp_path: Path) -> None:
    """People read checkpoints with nothing but torch; a number of numpy's is refused there."""
    trainer = train(tiny_config(**CUT, recovery_lr_factor=2.0))
    saved = torch.load(checkpoint_path(trainer.checkpoint_dir, 9), weights_only=True)
    (curve,) = saved["schedulers"]["fields"]["lr_lambdas"]
    assert curve == {
        "lr_init": 5e-4,
        "lr_final": pytest.approx(5e-5),
        "max_steps": 10,
        "warmup_steps": 0,
        "lr_pre_warmup": 1e-8,
        "ramp": "cosine",
    }
    assert type(saved["optimizers"]["fields"]["param_groups"][0]["lr"]) is float
