"""Runs of Gaussians that end early: what is saved is whole, and going on from it is the run that was not ended."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gsplat.strategy import ops
from support.tiny_run import after_each_step, same_bits
from support.tiny_splats import STEPS, check_whole, copies, counts, moments, saving, start, train

from nerfstudio_prune.engine.checkpoints import saved_checkpoints
from nerfstudio_prune.engine.interrupts import SIGNALS, TrainingInterrupted

Config = Callable[..., Any]
OPTIONS = {"start_step": 10, "score": "opacity", "sh_degree": 1, "sh_step": 14, "distil__target": "photo"}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Each test begins with the handlers of a terminal, and leaves the signals as they were."""
    usual: dict[int, Any] = {**dict.fromkeys(SIGNALS, signal.SIG_DFL), signal.SIGINT: signal.default_int_handler}
    former = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scene_cache: Any) -> Any:
    """The run that nothing ends."""
    from support.tiny_splats import tiny_config as make  # noqa: PLC0415  the fixture of that name is made for each test

    return train(make(tmp_path_factory.mktemp("whole"), scene_cache, "whole", **OPTIONS), same_noise=True)


def gone_on_with(config: Any, trainer: Any, step: int) -> Any:
    """Goes on from the only checkpoint of a run, with `--load-dir` alone, to the last step."""
    assert list(saved_checkpoints(trainer.checkpoint_dir)) == [step]
    config.load_dir, config.max_num_iterations = trainer.checkpoint_dir, STEPS - step - 1
    return train(config, same_noise=True)


def result_of(trainer: Any) -> Any:
    return copies(trainer.pipeline.model.gauss_params), moments(trainer), counts(trainer)


@pytest.mark.parametrize("step", [6, 10, 12, 14])
def test_signal(tiny_config: Config, whole: Any, step: int) -> None:
    """Ctrl+C in a step in which Gaussians grow, or are cut, or lose coefficients: the step is finished with all of
    that, and saved."""
    trainer = start(tiny_config("ended", **OPTIONS), same_noise=True)
    forward = trainer.pipeline.get_train_loss_dict

    def interrupted(step: int, at: int = step) -> Any:
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(step)

    trainer.pipeline.get_train_loss_dict = interrupted
    with pytest.raises(TrainingInterrupted):
        trainer.train()
    again = gone_on_with(tiny_config("again"), trainer, step)
    assert same_bits(result_of(again), result_of(whole))


def test_error_behind_the_growth_of_a_step(tiny_config: Config, whole: Any) -> None:
    """What fails when Gaussians have grown, such as a page of the viewer, costs no step: the state is of its end."""
    trainer = start(tiny_config("ended", **OPTIONS), same_noise=True)

    def fail(step: int) -> None:
        if step == 6:
            raise KeyError("panel")

    after = next(c.where_to_run for c in reversed(trainer.callbacks) if "on_step" in str(c.func))
    trainer.callbacks.append(type(trainer.callbacks[0])(after, fail))
    with pytest.raises(KeyError):
        trainer.train()
    check_whole(trainer)
    again = gone_on_with(tiny_config("again"), trainer, 6)
    assert same_bits(result_of(again), result_of(whole))


@pytest.mark.parametrize("calls", [1, 5])
def test_error_in_the_midst_of_the_growth(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: Any, calls: int
) -> None:
    """Memory runs out when Gaussians are added, one parameter after the other. Half of a growth must not be saved: the
    checkpoint before stays the newest, and a line says so."""
    trainer = start(saving(tiny_config("ended", **OPTIONS), 4))
    inner, done = ops._update_param_with_optimizer, []

    def update(param_fn: Any, *values: Any, **named: Any) -> None:
        def failing(name: str, parameter: Any) -> Any:
            if trainer.pipeline.model.step == 6:
                done.append(name)
                if len(done) > calls:
                    raise MemoryError("no room")
            return param_fn(name, parameter)

        inner(failing, *values, **named)

    monkeypatch.setattr(ops, "_update_param_with_optimizer", update)
    with pytest.raises(MemoryError):
        trainer.train()
    monkeypatch.undo()
    text = " ".join(capsys.readouterr().out.split())
    assert "MemoryError: it came in the midst of a change of the model, which is not saved as it is" in text
    assert list(saved_checkpoints(trainer.checkpoint_dir)) == [4]
    config = tiny_config("again", **OPTIONS)
    config.load_dir, config.max_num_iterations = trainer.checkpoint_dir, STEPS - 5
    assert [step for step, *_ in counts(train(config))] == [10, 14]


def test_error_in_the_midst_of_a_distillation_without_geometry(tiny_config: Config) -> None:
    """What holds in a step only is put back: a model that is saved and shown learns and renders as a whole."""
    options = {**OPTIONS, "distil__target": "teacher", "distil__geometry": False, "distil__steps": 4}
    trainer = start(tiny_config("ended", **options))

    def fail(step: int) -> None:
        if step == 16:
            raise KeyError("panel")

    after_each_step(trainer, fail)
    with pytest.raises(KeyError):
        trainer.train()
    assert trainer.pipeline.model.learns_geometry and list(saved_checkpoints(trainer.checkpoint_dir)) == [16]
