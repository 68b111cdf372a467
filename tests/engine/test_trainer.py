"""No saved step is lost: what ends early, on a full disk, by a signal or by an error, can be gone on with."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import writer
from nerfstudio.utils.eval_utils import eval_setup
from support.full_disk import FullDisk
from support.tiny_run import after_each_step, before_each_step, form_values, resume, same_bits, start, train

from nerfstudio_prune.engine import saving
from nerfstudio_prune.engine.checkpoints import (
    TRAINING,
    CheckpointError,
    checkpoint_state,
    newest_checkpoint,
    read_checkpoint,
    saved_checkpoints,
)
from nerfstudio_prune.engine.interrupts import SIGNALS, TrainingInterrupted
from nerfstudio_prune.engine.trainer import PruneTrainer, PruneTrainerConfig

Config = Callable[..., Any]
TWICE = {"schedule": "iterative", "num_events": 2, "start_step": 2, "stop_step": 6}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Each test begins with the handlers of a terminal: in the background of a shell, or below `nohup`, some signals
    are ignored, and a paused training would wait for ever. Other tests must find the signals as they were."""
    usual: dict[int, Any] = {**dict.fromkeys(SIGNALS, signal.SIG_DFL), signal.SIGINT: signal.default_int_handler}
    former = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    found = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in former.items():
        signal.signal(number, handler)
    assert found == usual


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Folder and step of every checkpoint that is written."""
    found: list[tuple[str, int]] = []
    inner = saving.write_checkpoint

    def write(folder: Path, state: Any) -> Path:
        found.append((folder.name, state["step"]))
        return inner(folder, state)

    monkeypatch.setattr(saving, "write_checkpoint", write)
    return found


def saving_every(config: Any, every: int, keep_all: bool = False) -> Any:
    config.steps_per_save, config.save_only_latest_checkpoint = every, not keep_all
    return config


def with_rates(config: Any) -> Any:
    """A learning rate that falls, with another one for some steps after a cut."""
    config.optimizers["fields"]["scheduler"] = ExponentialDecaySchedulerConfig(lr_final=1e-5, max_steps=20)
    return config


def steps_of(trainer: Any) -> list[int]:
    return list(saved_checkpoints(trainer.checkpoint_dir))


def result_of(trainer: Any) -> dict[str, Any]:
    """All that a training has come to, but for what a clock says."""
    state = checkpoint_state(trainer, 9)
    extra = state["pipeline"].pop("_model._extra_state")
    return {**state, "masks": extra["masks"], "events": [(e["step"], e["after"]["parts"]) for e in extra["history"]]}


def gone_on_with(config: Any, trainer: Any) -> Any:
    """Goes on with what is left of a run, with `--load-dir` alone, up to its step 9."""
    folder = trainer.checkpoint_dir
    config.load_dir, config.max_num_iterations = folder, 9 - newest_checkpoint(folder).step
    return train(config, same_noise=True)


def leftovers(trainer: Any) -> list[Path]:
    return list(trainer.base_dir.rglob("*.saving-*"))


def test_device_that_is_not_there(tiny_config: Config) -> None:
    """Asked for on a machine without one, it ended in PyTorch's error while the pictures were loaded; a configuration
    saved on another machine asks for it, too."""
    config = tiny_config()
    config.machine.device_type = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ValueError, match=r"machine.device_type \w+ is not there: .*\. cpu is on every machine"):
        config.save_config()


@pytest.mark.parametrize(
    ("viewer", "port", "vis", "message"),
    [
        ("127.0.0.1", 99999, "viewer", "viewer.websocket_port must be in [1, 65535], got 99999"),
        ("127.0.0.1", -1, "viewer+tensorboard", "viewer.websocket_port must be in [1, 65535], got -1"),
        ("256.1.1.1", None, "viewer", "viewer.websocket_host '256.1.1.1' is no address of this machine: "),
        ("192.0.2.1", 7007, "viewer", "viewer.websocket_host '192.0.2.1' is no address of this machine: "),
        ("127.0.0.1", 7007, "tensorboard", "start_paused needs the viewer, where training is started; vis is tens"),
    ],
)
def test_viewer_that_cannot_be_had(tiny_config: Config, viewer: str, port: Any, vis: Any, message: str) -> None:
    """The viewer's thread died of these, and the training waited for it for ever."""
    config = tiny_config()
    config.viewer.websocket_host, config.viewer.websocket_port = viewer, port
    config.vis, config.start_paused = vis, True
    with pytest.raises(ValueError) as caught:
        config.save_config()
    assert str(caught.value).startswith(message)


def test_disk_that_is_full_at_the_start(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may take `config.yml` and nothing more, such as one without room for another file; the error came from
    within TensorBoard."""

    def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, "setup_event_writer", fail)
    with pytest.raises(ValueError, match=r"--output-dir .*: nothing can be saved in .*ended: .*No space left"):
        start(tiny_config("ended"))


def test_evaluation_ends_nothing(tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A photograph that has gone, or a picture that a metric is too small for, ended the training at the next
    evaluation: the host reads those views from disk each time. What is trained must be as without the evaluation."""
    config = tiny_config(start_step=4)
    config.steps_per_eval_image = 3
    monkeypatch.setattr("nerfstudio_prune.data.metrics.MIN_SSIM_SIZE", 17)
    trainer = train(config, same_noise=True)
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("is not evaluated: SSIM needs pictures of at least 17 pixels a side, got (16, 16)") == 3
    quiet = train(tiny_config("quiet", start_step=4), same_noise=True)
    assert same_bits(result_of(trainer)["pipeline"], result_of(quiet)["pipeline"])


# Saving


def test_methods_use_this_trainer(tiny_config: Config) -> None:
    """Registered with Nerfstudio's own trainer, nothing of this would hold."""
    for method in ("nerf-prune", "nerf-prune-demo", "nerf-prune-real"):
        config = tiny_config(method=method)
        assert type(config) is PruneTrainerConfig and config._target is PruneTrainer


def test_last_step_is_written_once(tiny_config: Config, writes: list[tuple[str, int]]) -> None:
    """Nerfstudio writes a last step that is a saving step twice; while it wrote the second time there was no other
    file. Resumed runs typically end on one."""
    trainer = train(saving_every(tiny_config(start_step=2), 3))
    assert [step for _, step in writes] == [3, 6, 9] and steps_of(trainer) == [9]
    assert trainer.step == 9 and not leftovers(trainer)


def test_file_of_another_run_does_not_pass_for_the_own_one(tiny_config: Config, writes: list[tuple[str, int]]) -> None:
    """Saved already means saved by this run: folders hold steps of earlier runs under the same name, and a file may be
    overwritten in between."""
    first = train(tiny_config(seed=1))
    path = first.checkpoint_dir / "step-000000009.ckpt"
    other = read_checkpoint(path).content["pipeline"]["_model.field_fine.mlp_base.layers.0.weight"].clone()
    config = saving_every(tiny_config(), 9)
    config.machine.seed = 7
    second = start(config)
    assert second.checkpoint_dir == first.checkpoint_dir
    second.train()
    own = second.pipeline.model.field_fine.mlp_base.layers[0].weight
    assert [step for _, step in writes] == [9, 9]
    saved = read_checkpoint(path).content["pipeline"]["_model.field_fine.mlp_base.layers.0.weight"]
    assert torch.equal(saved, own) and not torch.equal(saved, other)
    # Overwritten right after the last step was saved.
    third = start(saving_every(tiny_config("third"), 9))
    inner, content = third._after_train, path.read_bytes()
    third._after_train = lambda: ((third.checkpoint_dir / path.name).write_bytes(content), inner())
    third.train()
    assert len(writes) == 4


def test_only_checkpoints_are_deleted(tiny_config: Config) -> None:
    """Nerfstudio deletes whatever ends in .ckpt beside the latest; a copy that a person put aside there is theirs."""
    trainer = start(saving_every(tiny_config(), 4))
    for name in ("best.ckpt", "notes.txt"):
        (trainer.checkpoint_dir / name).write_text("mine")
    trainer.train()
    assert {path.name for path in trainer.checkpoint_dir.iterdir()} == {"best.ckpt", "notes.txt", "step-000000009.ckpt"}
    assert steps_of(train(saving_every(tiny_config("all"), 4, keep_all=True))) == [4, 8, 9]


def test_what_another_run_saves_meanwhile_stays(tiny_config: Config) -> None:
    """Two runs started in the same second share a folder. The one that is behind must not delete what the other has
    saved since; what lay there when it began goes, as with Nerfstudio: it would be taken for the newest."""
    found = train(saving_every(tiny_config(), 4))
    assert steps_of(found) == [9]
    trainer = start(saving_every(tiny_config(), 4))
    newer = trainer.checkpoint_dir / "step-000000012.ckpt"

    def other_saves(step: int) -> None:
        if step == 2:
            newer.write_bytes((trainer.checkpoint_dir / "step-000000009.ckpt").read_bytes())
        if step == 6:
            assert steps_of(trainer) == [4, 12]

    after_each_step(trainer, other_saves)
    trainer.train()
    assert steps_of(trainer) == [9, 12]


def test_older_checkpoint_goes_when_the_newer_is_whole(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no moment may there be no whole checkpoint: whatever is deleted, the one that replaces it can be read."""
    inner, seen = Path.unlink, []

    def unlink(self: Path, *values: Any, **named: Any) -> None:
        if self.suffix == ".ckpt":
            seen.append((self.name, read_checkpoint(max(self.parent.glob("*.ckpt")), TRAINING).step))
        inner(self, *values, **named)

    monkeypatch.setattr(Path, "unlink", unlink)
    train(saving_every(tiny_config(), 4))
    assert seen == [("step-000000004.ckpt", 8), ("step-000000008.ckpt", 9)]


def test_stopped_run_is_saved_as_the_step_that_it_did(tiny_config: Config) -> None:
    """Nerfstudio's `shutdown` ends the loop at the begin of a step and saves under that step's number, which a resumed
    run would then leave out."""
    trainer = start(tiny_config(start_step=2))
    after_each_step(trainer, lambda step: step == 4 and trainer.shutdown())
    trainer.train()
    assert steps_of(trainer) == [4]
    assert same_bits(result_of(train(saving_every(tiny_config("whole", start_step=2), 4), same_noise=True))["step"], 9)


def test_leftovers_go_when_a_run_begins(tiny_config: Config) -> None:
    """What a killed save left beside the folder is gone when that run, or one that goes on from it, is set up."""
    first = train(tiny_config())
    for folder in (first.base_dir, first.checkpoint_dir):
        (folder / (".saving-" + 32 * "0")).write_bytes(b"1")
    start(resume(tiny_config("second"), first, 9, 5))
    assert not leftovers(first)


# Kept checkpoints


def test_kept_checkpoint_stays_and_is_gone_on_from(tiny_config: Config) -> None:
    """Before a person cuts, the uncut network is put where the next save does not delete it. Going on from there is
    bit for bit the run in which nobody cut, by the folder and by the file."""
    whole = train(saving_every(tiny_config("whole", **TWICE), 4), same_noise=True)
    cut = start(saving_every(tiny_config("cut", **TWICE), 4), same_noise=True)

    def by_hand(step: int) -> None:
        if step == 3:
            assert cut.keep_checkpoint(3) == cut.base_dir / "nerfstudio_models_kept" / "step-000000003.ckpt"
            half = form_values("uniform", None, "none", "pruning_ratio", 0.75)
            cut.pipeline.steering.request("prune", half)

    after_each_step(cut, by_hand)
    cut.train()
    assert steps_of(cut) == [9] and not same_bits(result_of(cut), result_of(whole))
    kept = cut.base_dir / "nerfstudio_models_kept"
    for name, option, value in (("a", "load_dir", kept), ("b", "load_checkpoint", kept / "step-000000003.ckpt")):
        config = tiny_config(name)
        setattr(config, option, value)
        config.max_num_iterations = 6
        assert same_bits(result_of(train(config, same_noise=True)), result_of(whole))


def test_what_cannot_be_kept_is_an_error(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut by hand that cannot be taken back is not made; the training goes on all the same."""
    disk, trainer = FullDisk(monkeypatch), start(tiny_config())
    messages = []

    def keep(step: int) -> None:
        if step == 3:
            disk.room = 1000
            with pytest.raises(CheckpointError) as caught:
                trainer.keep_checkpoint(step)
            messages.append(str(caught.value))
            disk.room = 10**9

    after_each_step(trainer, keep)
    trainer.train()
    path = trainer.base_dir / "nerfstudio_models_kept" / "step-000000003.ckpt"
    assert messages == [f"{path} cannot be written: [Errno 28] No space left on device"]
    assert steps_of(trainer) == [9] and not path.exists() and not leftovers(trainer)


# Disks


def test_full_disk_does_not_end_the_training(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Disks fill up at night. The run goes on with the last checkpoint, says which one that is, and saves again as soon
    as there is room."""
    disk, trainer = FullDisk(monkeypatch), start(saving_every(tiny_config(), 2))

    def fill(step: int) -> None:
        disk.room = 20_000 if 3 <= step < 8 else 10**9
        if step == 7:
            assert steps_of(trainer) == [2] and read_checkpoint(
                trainer.checkpoint_dir / "step-000000002.ckpt", TRAINING
            )

    after_each_step(trainer, fill)
    trainer.train()
    told = capsys.readouterr().out
    folder = trainer.checkpoint_dir
    for step in (4, 6):
        assert (
            f"Step {step} is not saved: {folder}/step-{step:09d}.ckpt cannot be written: [Errno 28] No space left on "
            f"device. The newest checkpoint is still {folder}/step-000000002.ckpt"
        ) in told
    assert told.count("is not saved") == 2
    assert steps_of(trainer) == [9] and not leftovers(trainer)


def test_end_that_is_not_saved_is_an_error(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever comes back in the morning, and any script that goes on with the result, has to learn that the last steps
    are not there."""
    disk, trainer = FullDisk(monkeypatch), start(saving_every(tiny_config(), 4))
    after_each_step(trainer, lambda step: setattr(disk, "room", 10**9 if step < 8 else 0))
    with pytest.raises(CheckpointError, match=r"The end of the run is not saved: .*step-0+9\.ckpt cannot be written"):
        trainer.train()
    assert steps_of(trainer) == [4] and "Training Finished" in capsys.readouterr().out
    disk.room = 10**9
    trainer.save_checkpoint(9)
    assert steps_of(trainer) == [9]


def test_run_that_could_save_nothing_does_not_begin(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full, or read-only, from the start costs a night if nobody says so before it."""
    config, disk = tiny_config(), FullDisk(monkeypatch)
    disk.room = 100
    folder = config.get_base_dir()
    with pytest.raises(
        ValueError, match=f"--output-dir {config.output_dir}: nothing can be saved in {folder}.*No space"
    ):
        config.save_config()
    assert list(folder.iterdir()) == []
    disk.room = 10**9
    (folder / "nerfstudio_models").write_text("in the way")
    with pytest.raises(ValueError, match=f"nothing can be saved in {folder}/nerfstudio_models"):
        start(config)
    (folder / "nerfstudio_models").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match=f"nothing can be saved in {folder}/nerfstudio_models: it is read-only"):
        start(config)


def test_configuration_is_replaced_as_a_whole(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its config.yml a run can neither be evaluated nor shown."""
    config, disk = tiny_config(), FullDisk(monkeypatch)
    config.save_config()
    path = config.get_base_dir() / "config.yml"
    former = path.read_bytes()
    config.max_num_iterations, disk.room = 77, len(former) // 2
    with pytest.raises(ValueError, match="nothing can be saved"):
        config.save_config()
    assert path.read_bytes() == former and [found.name for found in path.parent.iterdir()] == ["config.yml"]
    disk.room = 10**9
    config.save_config()
    assert yaml.load(path.read_text(), Loader=yaml.Loader).max_num_iterations == 77


def test_full_disk_of_tensorboard_does_not_end_the_training(
    tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk of the checkpoints is that of TensorBoard's file, whose writer raises in the training loop, and from
    then on every time."""
    trainer = start(tiny_config())
    (tensorboard,) = [found for found in writer.EVENT_WRITERS if not isinstance(found, writer.LocalWriter)]
    calls = []

    def full(*values: Any) -> None:
        calls.append(values)
        raise OSError(28, "No space left on device")

    tensorboard._inner.write_scalar = full
    trainer.train()
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("TensorboardWriter: nothing more is logged in this run: [Errno 28] No space left on device") == 1
    assert len(calls) == 1 and steps_of(trainer) == [9]


# Signals


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_saves_the_running_step(tiny_config: Config, number: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl+C, a scheduler's end of time and a closed terminal cost everything since the last save. The step that runs
    is finished and saved; going on from it is the run that was not interrupted."""
    whole = train(with_rates(tiny_config("whole", **TWICE)), same_noise=True)
    capfd.readouterr()
    trainer = start(with_rates(tiny_config("ended", **TWICE)), same_noise=True)
    forward = trainer.pipeline.get_train_loss_dict

    def interrupted(step: int) -> Any:
        if step == 4:
            os.kill(os.getpid(), number)
        return forward(step)

    trainer.pipeline.get_train_loss_dict = interrupted
    with pytest.raises(TrainingInterrupted) as caught:
        trainer.train()
    assert caught.value.code == 128 + number and trainer.step == 4 and steps_of(trainer) == [4]
    name, (told, warned) = signal.Signals(number).name, capfd.readouterr()
    assert (
        f"{name}: the run is saved at the end of the running step and ends; a second signal ends it at once" in warned
    )
    assert f"{name}: the run is saved as of step 4; go on with --load-dir {trainer.checkpoint_dir}" in told
    assert "Training Finished" not in told
    again = gone_on_with(with_rates(tiny_config("again")), trainer)
    assert same_bits(result_of(again), result_of(whole))


def test_signal_in_an_event_waits_for_its_end(tiny_config: Config) -> None:
    """An event takes minutes on a large network; half of one must not be saved, nor be the end of the signal."""
    trainer = start(tiny_config(**TWICE))
    inner = trainer.pipeline.controller._carry_out

    def carry_out(*values: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return inner(*values)

    trainer.pipeline.controller._carry_out = carry_out
    with pytest.raises(TrainingInterrupted):
        trainer.train()
    assert steps_of(trainer) == [2]
    extra = newest_checkpoint(trainer.checkpoint_dir).content["pipeline"]["_model._extra_state"]
    assert [event["step"] for event in extra["history"]] == [2]


def test_signal_in_an_evaluation_ends_it(tiny_config: Config, writes: list[tuple[str, int]]) -> None:
    """Evaluating all images takes minutes, in which nothing changes: there is nothing to wait for. A step that is saved
    already is not saved again."""
    config = saving_every(tiny_config(), 5)
    config.steps_per_eval_image = 2
    trainer = start(config)
    after: list[int] = []

    def evaluate(step: int) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        after.append(step)

    trainer.pipeline.get_eval_image_metrics_and_images = evaluate
    with pytest.raises(TrainingInterrupted):
        trainer.train()
    assert after == [] and writes == [("nerfstudio_models", 2)]
    trainer = start(saving_every(tiny_config("saved"), 5))
    inner = trainer.save_checkpoint
    trainer.save_checkpoint = lambda step: (inner(step), os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingInterrupted):
        trainer.train()
    assert writes[1:] == [("nerfstudio_models", 5)] and steps_of(trainer) == [5]


def test_signal_in_a_save_waits_for_it(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, writes: list[tuple[str, int]]
) -> None:
    """Breaking off the save that is under way to save the same once more would double the time to the end, of which
    schedulers give little."""
    trainer = start(saving_every(tiny_config(), 5))
    inner = torch.save

    def save(*values: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        inner(*values)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(TrainingInterrupted):
        trainer.train()
    assert writes == [("nerfstudio_models", 5)] and steps_of(trainer) == [5]


def test_signal_in_a_pause(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A paused training waits in a loop of Nerfstudio that knows no end of a step."""
    trainer = start(tiny_config())
    after_each_step(trainer, lambda step: setattr(trainer, "training_state", "paused" if step == 4 else "training"))

    def interrupt() -> None:
        while trainer.training_state != "paused":
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(TrainingInterrupted):
        trainer.train()
    thread.join()
    assert steps_of(trainer) == [4]
    paused = start(tiny_config("from the start"))
    paused.training_state = "paused"
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(TrainingInterrupted):
        paused.train()
    assert steps_of(paused) == [] and "there is nothing to save" in capsys.readouterr().out


def test_second_signal_ends_at_once(tiny_config: Config, writes: list[tuple[str, int]]) -> None:
    """Who presses Ctrl+C twice does not want to wait; what was saved before stays."""
    trainer = start(saving_every(tiny_config(), 3))

    def twice(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    after_each_step(trainer, twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert writes == [("nerfstudio_models", 3)] and steps_of(trainer) == [3]


def test_signals_of_others_are_left_alone(tiny_config: Config) -> None:
    """Under `nohup` a closed terminal is to be ignored; a program that trains in passing has handlers of its own; and
    on other threads Python allows none."""
    seen: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    former = [signal.getsignal(number) for number in SIGNALS]
    trainer = start(tiny_config())
    after_each_step(trainer, lambda step: step == 4 and os.kill(os.getpid(), signal.SIGHUP))
    trainer.train()
    assert trainer.step == 9 and [signal.getsignal(number) for number in SIGNALS] == former
    failing = start(tiny_config("failing"))
    before_each_step(failing, lambda step: 1 // (4 - step))
    with pytest.raises(ZeroDivisionError):
        failing.train()
    assert [signal.getsignal(number) for number in SIGNALS] == former
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [signal.SIGTERM]
    elsewhere = start(tiny_config("elsewhere"))
    thread = threading.Thread(target=elsewhere.train)
    thread.start()
    thread.join()
    assert steps_of(elsewhere) == [9]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_worker_of_a_training_ends_by_a_signal(tiny_config: Config) -> None:
    """Processes that are forked in a training inherit its handlers; one that waits for the end of a step that it does
    not have would never end, and the training would wait for it."""
    trainer = start(tiny_config())
    ended: list[int] = []

    def fork(step: int) -> None:
        if step != 4:
            return
        reading, writing = os.pipe()
        worker = os.fork()
        if not worker:
            os.write(writing, b"1")
            time.sleep(20)
            os._exit(0)
        os.read(reading, 1)  # Python forgets signals that arrive while it is being forked
        os.kill(worker, signal.SIGTERM)
        ended.append(os.waitpid(worker, 0)[1])

    after_each_step(trainer, fork)
    trainer.train()
    assert [os.waitstatus_to_exitcode(status) for status in ended] == [-signal.SIGTERM] and trainer.step == 9


# Errors


def test_event_that_fails_leaves_a_checkpoint(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """`on_error stop` ends the run, not the work: the step at whose end the event was due is saved as it was, and the
    event is tried again when the run is gone on with. Older checkpoints stay, for the error may be older too."""
    trainer = start(saving_every(tiny_config(**TWICE, on_error="stop"), 4))
    subject = trainer.pipeline.controller.run.subject
    inner = subject.prepare
    subject.prepare = lambda recipe, event, *rest: 1 // 0 if event.step == 6 else inner(recipe, event, *rest)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert steps_of(trainer) == [4, 6]
    told = capsys.readouterr().out
    assert f"ZeroDivisionError: the run is saved as of step 6; go on with --load-dir {trainer.checkpoint_dir}" in told
    again = gone_on_with(tiny_config("again"), trainer)
    assert [step for step, _ in result_of(again)["events"]] == [2, 7]


@pytest.mark.parametrize("scheduler", [False, True])
def test_error_in_a_step_leaves_the_step_before(tiny_config: Config, scheduler: bool) -> None:
    """Memory runs out in the forward pass, a photograph is gone, a step's end fails: up to the optimizer's turn the
    network is that of the step before, and after it that of the step itself. The learning rate that holds only within a
    step, here after a cut, must not go into the file."""
    options = {**TWICE, "recovery_lr_factor": 3.0, "recovery_warm_up": 5, "on_error": "stop"}

    def configured(name: str, **given: Any) -> Any:
        return with_rates(tiny_config(name, **given)) if scheduler else tiny_config(name, **given)

    def fail(step: int) -> None:
        if step == 4:
            raise MemoryError("no room")

    def fail_in_forward(trainer: Any) -> None:
        inner = trainer.pipeline.get_train_loss_dict
        trainer.pipeline.get_train_loss_dict = lambda step: (inner(step), fail(step))[0]

    def fail_in_backward(trainer: Any) -> None:
        inner = trainer.pipeline.get_train_loss_dict

        def losses(step: int) -> Any:
            found = inner(step)
            next(iter(found[1].values())).register_hook(lambda gradient: fail(step))
            return found

        trainer.pipeline.get_train_loss_dict = losses

    places: dict[str, tuple[Callable[[Any], None], int]] = {
        "forward": (fail_in_forward, 3),
        "backward": (fail_in_backward, 3),
        "before pruning looks": (lambda trainer: after_each_step(trainer, fail), 4),
        "once the step has ended": (lambda trainer: setattr(trainer, "eval_iteration", fail), 4),
    }
    whole = result_of(train(configured("whole", **options), same_noise=True))
    for place, (arrange, saved) in places.items():
        trainer = start(configured(f"ended {place}", **options), same_noise=True)
        arrange(trainer)
        with pytest.raises((MemoryError, RuntimeError)):
            trainer.train()
        assert steps_of(trainer) == [saved], place
        assert same_bits(result_of(gone_on_with(configured(f"again {place}"), trainer)), whole), place


def test_half_a_step_is_not_saved(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A network whose moments were changed and whose weights were not is none that any run passes through."""
    trainer = start(saving_every(tiny_config(), 3))
    optimizer = trainer.optimizers.optimizers["fields"]
    inner = optimizer.step

    def step(*values: Any, **named: Any) -> Any:
        found = inner(*values, **named)
        if trainer.step == 5:
            raise MemoryError("no room")
        return found

    optimizer.step = step
    with pytest.raises(MemoryError, match="no room"):
        trainer.train()
    assert steps_of(trainer) == [3]
    assert "MemoryError: it came in the midst of a change of the model, which is not saved" in capsys.readouterr().out


def test_error_is_told_although_saving_fails_too(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first error is the cause; one that comes of saving in its wake must not hide it."""
    disk, trainer = FullDisk(monkeypatch), start(saving_every(tiny_config(), 2))

    def fail(step: int) -> None:
        disk.room = 10**9 if step < 3 else 0
        if step == 5:
            raise KeyError("the cause")

    after_each_step(trainer, fail)
    with pytest.raises(KeyError, match="the cause"):
        trainer.train()
    assert steps_of(trainer) == [2]
    assert "Step 5 is not saved" in capsys.readouterr().out
    disk.room = 10**9
    broken = start(tiny_config("broken"))
    broken.pipeline.state_dict = lambda: 1 // 0
    after_each_step(broken, fail)
    with pytest.raises(KeyError, match="the cause"):
        broken.train()
    assert "KeyError, and then: integer division or modulo by zero" in capsys.readouterr().out


# Going on


def test_torn_newest_checkpoint_is_passed_over(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """What earlier versions left when they were killed, with the files of other programs around it: `--load-dir` alone
    goes on from the newest whole step, `ns-eval` and the viewer show it, and both say so."""
    first = train(saving_every(tiny_config("first", **TWICE), 4, keep_all=True), same_noise=True)
    folder = first.checkpoint_dir
    path = folder / "step-000000009.ckpt"
    path.write_bytes(path.read_bytes()[:50_000])
    for name in (".DS_Store", "notes.txt"):
        (folder / name).write_text("")
    again = gone_on_with(tiny_config("again"), first)
    assert again._start_step == 9 and same_bits(result_of(again), result_of(first))
    told = capsys.readouterr().out
    assert f"Passed over {path}: expected a whole checkpoint of Nerfstudio: it is cut off" in told
    evaluated: Any = eval_setup(first.base_dir / "config.yml")
    _, pipeline, loaded, step = evaluated
    assert (loaded, step) == (folder / "step-000000008.ckpt", 8) and f"Passed over {path}" in capsys.readouterr().out
    assert [event.step for event in pipeline.model.prune_state.history] == [2, 6]
    config = tiny_config("asked for")
    config.load_dir, config.load_step = folder, 9
    with pytest.raises(CheckpointError, match=f"{path}: expected a whole checkpoint of Nerfstudio: it is cut off"):
        start(config)
    config.load_dir, config.load_step, config.load_checkpoint = None, None, path
    with pytest.raises(CheckpointError, match=f"{path}: expected a whole checkpoint of Nerfstudio: it is cut off"):
        start(config)


def test_run_of_the_former_trainer_is_evaluated(tiny_config: Config) -> None:
    """A config.yml of an earlier version names Nerfstudio's own trainer; its torn and foreign files are just as many.
    `load_step` there says where a run came from, and is looked for in vain among its own steps."""
    own = saving_every(tiny_config("former"), 4, keep_all=True)
    for optimizer in own.optimizers.values():
        optimizer["scheduler"] = None
    former = TrainerConfig(**{name: value for name, value in vars(own).items() if name != "_target"})
    trainer = train(former)
    assert type(trainer) is Trainer
    (trainer.checkpoint_dir / "notes.txt").write_text("")
    (trainer.checkpoint_dir / "step-000000009.ckpt").write_bytes(b"PK")
    path = trainer.base_dir / "config.yml"
    for load_step, expected in ((None, 8), (4, 4), (3, 8)):
        former.load_step = load_step
        path.write_text(yaml.dump(former))
        assert eval_setup(path)[3] == expected


def test_pipelines_of_others_are_loaded_as_ever(tiny_config: Config, stock_lpips: None) -> None:
    """Nerfstudio's function is replaced for the whole process; other methods must not notice."""
    from nerfstudio.configs.method_configs import all_methods  # noqa: PLC0415
    from nerfstudio.utils import eval_utils  # noqa: PLC0415

    train(tiny_config("ours"))
    config = tiny_config("stock")
    plain: Any = deepcopy(all_methods["vanilla-nerf"])
    plain.pipeline.datamanager, plain.output_dir = config.pipeline.datamanager, config.output_dir
    plain.pipeline.model.num_coarse_samples = plain.pipeline.model.num_importance_samples = 4
    pipeline = plain.pipeline.setup(device="cpu", test_mode="test")
    folder = config.output_dir / "stock"
    folder.mkdir()
    torch.save({"step": 3, "pipeline": pipeline.state_dict()}, folder / "step-000000003.ckpt")
    plain.load_dir = folder
    assert eval_utils.eval_load_checkpoint(plain, pipeline) == (folder / "step-000000003.ckpt", 3)
    (folder / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="invalid literal for int"):
        eval_utils.eval_load_checkpoint(plain, pipeline)


def test_whole_checkpoint_of_another_network_is_no_torn_one(tiny_config: Config) -> None:
    """A run that silently went on from an older step because the newest one does not fit would be the wrong run: a
    whole file that is not of this network is an error that names it."""
    first = train(saving_every(tiny_config("first"), 4, keep_all=True))
    config = resume(tiny_config("second"), first, 9, 5)
    config.load_step, config.pipeline.model.base_mlp_num_layers = None, 4
    path = first.checkpoint_dir / "step-000000009.ckpt"
    with pytest.raises(CheckpointError, match=f"{path}: the checkpoint is not one of this network"):
        start(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["schedulers"].update(cameras={}), "has one for cameras, this run has fields"),
        (lambda content: content["optimizers"].update(cameras={}), "has cameras, fields, this run has fields"),
        (lambda content: content["optimizers"].update(fields={"state": {}}), "expected param_groups and state"),
        (
            lambda content: content["optimizers"]["fields"]["param_groups"][0].update(params=[0]),
            "optimizer 'fields': expected 36 parameters in 1 groups, got 1",
        ),
    ],
)
def test_training_that_does_not_fit_is_told(tiny_config: Config, change: Callable[[Any], Any], message: str) -> None:
    """Nerfstudio fails with the bare name of a parameter group; the error has to name the file and what it holds."""
    first = train(tiny_config("first"))
    path = first.checkpoint_dir / "step-000000009.ckpt"
    content = torch.load(path)
    change(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"{path}: .*{message}"):
        start(resume(tiny_config("second"), first, 9, 5))
