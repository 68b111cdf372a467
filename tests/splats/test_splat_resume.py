"""Runs of Gaussians that are cut off and go on, which the host's do not (nerfstudio #3554)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import tiny_splats
from support.stock_splats import StockTraining
from support.tiny_run import after_each_step, checkpoint, resume, same_bits
from support.tiny_splats import (
    NAMES,
    SEEDS,
    STEPS,
    check_whole,
    counts,
    moments,
    pictures,
    saved_moments,
    saving,
    start,
    train,
)

Config = Callable[..., Any]
WAYS = {"schedule": "iterative", "num_events": 2, "start_step": 10, "stop_step": 12, "sh_step": 14}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scene_cache: Any) -> Any:
    """A run of 20 steps with two cuts and a lowered degree, and a checkpoint of every step."""
    config = tiny_splats.tiny_config(tmp_path_factory.mktemp("whole"), scene_cache, "whole", **WAYS)
    return train(saving(config), same_noise=True)


def tensors(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


def outcome(trainer: Any) -> Any:
    """All that a run has come to, without clocks and paths."""
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers.optimizers.values()]
    memory = trainer.pipeline.model.prune_state.to_dict()["memory"]
    return tensors(trainer.pipeline.state_dict()), moments(trainer), counts(trainer), rates, memory


@pytest.mark.parametrize(
    ("save_at", "count", "degree"),
    [
        pytest.param(2, SEEDS, 3, id="before growth"),
        pytest.param(4, None, 3, id="right after Gaussians were split"),
        pytest.param(6, None, 3, id="right after the last growth"),
        pytest.param(8, None, 3, id="settled"),
        pytest.param(9, None, 3, id="before the first cut"),
        pytest.param(10, None, 3, id="right after it"),
        pytest.param(11, None, 3, id="between two cuts"),
        pytest.param(13, None, 3, id="pruned"),
        pytest.param(18, None, 2, id="after the teacher"),
    ],
)
def test_resumed_run_is_the_uninterrupted_run(
    tiny_config: Config, whole: Any, save_at: int, count: int | None, degree: int
) -> None:
    """With the same random numbers in every step, the run that was cut off and resumed without typing any option again
    ends with the very bits of the one that was not: Gaussians, moments, rates and history. Its seeds are as many as a
    configuration says that is not the run's own, as where the data's points have changed."""
    config = tiny_config("resumed", preset=None)
    config.pipeline.model.num_random = 1000
    trainer = start(resume(config, whole, save_at, STEPS - save_at - 1), same_noise=True)
    saved, model = checkpoint(whole, save_at), trainer.pipeline.model
    assert same_bits(tensors(trainer.pipeline.state_dict()), tensors(saved["pipeline"]))
    assert same_bits(moments(trainer), saved_moments(saved))
    assert (count or model.num_points) == model.num_points and model.gaussians.sh_degree == degree
    check_whole(trainer)
    after_each_step(trainer, lambda step: check_whole(trainer))
    trainer.train()
    assert same_bits(outcome(trainer), outcome(whole))


def test_growth_goes_on_in_its_midst(tiny_config: Config, whole: Any) -> None:
    """Between two steps of the densification its notes are lost, and nothing else: in the host the next one indexes out
    of bounds, and nothing learns until then."""
    trainer = start(resume(tiny_config("resumed"), whole, 5, STEPS - 6), same_noise=True)
    model = trainer.pipeline.model
    before, grown = model.gauss_params["means"].detach().clone(), []
    after_each_step(trainer, lambda step: grown.append(model.num_points))
    trainer.train()
    assert grown[1] > len(before) and [step for step, *_ in counts(trainer)] == [10, 12, 14]


def test_run_of_another_length_keeps_its_shape(tiny_config: Config, whole: Any, capsys: Any) -> None:
    """Growth is scaled to the length of a run. Scaled anew to what is left of it, it would end at another step than the
    stored plan waits for; scaled to more, it would begin again after the cut and refill what was removed."""
    early = start(resume(tiny_config("early"), whole, 2, 500))
    growth = early.pipeline.model.growth
    assert (growth.start, growth.stop, growth.settled) == (2, 8, 9)
    capsys.readouterr()
    late = start(resume(tiny_config("late"), whole, 19, 500))
    assert "growth is over" in capsys.readouterr().out
    assert late.pipeline.model.strategy.refine_stop_iter == 0


def test_rewound_rates_have_come_down_by_the_end_of_the_first_run(tiny_config: Config, whole: Any) -> None:
    """A run that is done is gone on from at its last rates. By the end of the longer one they would be high again, as
    after a new cut."""
    trainer = start(resume(tiny_config("longer"), whole, STEPS - 1, 20))
    controller, optimizers = trainer.pipeline.controller, trainer.optimizers.optimizers
    assert controller.run.recipe.recovery_lr_rewind is not None
    scheduled = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    controller.before_step(STEPS)
    assert {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()} == scheduled


def test_growth_is_over_after_a_cut_whatever_is_given(tiny_config: Config, whole: Any) -> None:
    """Someone may raise `stop-split-at` on a pruned run; what was cut would grow again, under a plan that is done."""
    config = resume(tiny_config("again", pruning_ratio=0.8), whole, 19, 8)
    config.pipeline.model.stop_split_at = 10_000
    trainer = train(config)
    left = round(whole.pipeline.model.prune_state.history[0].before.parts["gaussians"] * 0.2)
    assert counts(trainer)[-1][:2] == (20, left) and trainer.pipeline.model.num_points == left


def test_resuming_in_the_midst_of_the_distillation(tiny_config: Config, whole: Any, capsys: Any) -> None:
    """The teacher is in no checkpoint: what is left of its steps learns from the photos, and a line says so. Everything
    else is as saved."""
    trainer = start(resume(tiny_config("resumed"), whole, 15, STEPS - 16), same_noise=True)
    text = " ".join(capsys.readouterr().out.split())
    assert "No teacher: the model of before the degree was lowered is in no checkpoint" in text
    saved = checkpoint(whole, 15)
    assert same_bits(moments(trainer), saved_moments(saved)) and trainer.pipeline.distillation.teacher is None
    trainer.train()
    check_whole(trainer)
    assert counts(trainer) == counts(whole)


def test_pictures_before_and_after_loading(tiny_config: Config, whole: Any) -> None:
    """Every bit of a picture comes back, of a pruned model with fewer coefficients than its configuration says."""
    trainer = start(resume(tiny_config("resumed"), whole, 19, 2))
    assert torch.equal(pictures(trainer.pipeline.model, trainer), pictures(whole.pipeline.model, whole))
    assert trainer.pipeline.model.gauss_params["features_rest"].shape[1] == 8


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize(("steps", "grows"), [(7, True), (8, True), (15, False)])
def test_stock_checkpoint(
    tiny_config: Config, tmp_path: Any, stock_lpips: None, steps: int, grows: bool, old_names: bool
) -> None:
    """`ns-train splat-prune --load-dir` of a run of Nerfstudio's own splatfacto, in the midst of its growth or later:
    tensors, moments and rates are taken up, growth goes on where it had not ended, and the event happens."""
    stock = StockTraining().train(steps)
    config = tiny_config("pruned", start_step=14)
    config.pipeline.model.stop_split_at = 6000
    config.load_dir = stock.save(tmp_path / "stock", old_names=old_names)
    saved = stock.checkpoint()
    trainer = start(config)
    model = trainer.pipeline.model
    for name in NAMES:
        assert torch.equal(model.gauss_params[name], stock.model.gauss_params[name])
    assert same_bits(moments(trainer), saved_moments(saved))
    assert trainer._start_step == steps and model.num_points > 60
    begun, numbers = model.num_points, []
    after_each_step(trainer, lambda step: numbers.append(model.num_points))
    trainer.train()
    assert (max(numbers) > begun) == grows
    (first, _, _), (_, _, degree) = counts(trainer)
    assert (first, degree) == (max(14, steps), 2)


def test_stock_checkpoint_of_another_meaning_of_colours(tiny_config: Config, tmp_path: Any, stock_lpips: None) -> None:
    """With `sh-degree 0` the host keeps logits where it else keeps a coefficient. Both have the same shape; a model
    that takes one for the other shows wrong colours, and would go on to train them."""
    folder = StockTraining(sh_degree=0).train(2).save(tmp_path / "stock")
    config = tiny_config("pruned")
    config.load_dir = folder
    with pytest.raises(ValueError, match=r"of degree 0, .*give --pipeline.model.sh-degree 0"):
        start(config)
    config.pipeline.model.sh_degree = 0
    start(config)
    other = tiny_config("other")
    other.pipeline.model.sh_degree, other.load_dir = 0, StockTraining().train(2).save(tmp_path / "other")
    with pytest.raises(ValueError, match=r"of degree 3, .*give --pipeline.model.sh-degree 3"):
        start(other)
