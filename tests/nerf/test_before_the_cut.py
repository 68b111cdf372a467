"""What happens before an event: an early start, and weights that shrink."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_run import checkpoint, resume, start, widths

from nerfstudio_prune.nerf.shrinking import ShrinkageSchedule
from nerfstudio_prune.neurons.shrinkage import Shrinkage

Config = Callable[..., Any]


def test_penalty_by_hand() -> None:
    """The mean absolute value of the doomed columns alone, times a factor that rises to the whole weight in the step at
    whose end the cut is due: a sudden penalty would throw the training off."""
    layer = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0, 5.0], [3.0, 4.0, 5.0]]))
    shrinkage = Shrinkage([(layer, torch.tensor([0, 1]))], last_step=10, steps=4, weight=0.5)
    assert [float(shrinkage.penalty(step).detach()) for step in (6, 7, 8, 10)] == pytest.approx(
        [0.0, 0.25 * 1.25, 0.5 * 1.25, 1.25]
    )
    shrinkage.penalty(10).backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, 0.125 * torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]))


def test_doomed_weights_shrink_before_the_cut(tiny_config: Config) -> None:
    """The loss is there in exactly the steps that were asked for, and the cut takes the neurons that it acted on."""
    trainer = start(tiny_config(strategy="importance", score="w_out", start_step=6, shrink_steps=3, shrink_weight=1e3))
    pipeline: Any = trainer.pipeline
    inner, steps, doomed = pipeline.get_train_loss_dict, [], []
    (schedule,) = [one for one in pipeline.controller.listeners if isinstance(one, ShrinkageSchedule)]

    def look(step: int) -> Any:
        found = inner(step)
        if "shrinkage_loss" in found[1]:
            steps.append(step)
            shrinkage = schedule._shrinkage
            assert shrinkage is not None
            doomed.append([columns.tolist() for _, columns in shrinkage.columns])
        return found

    pipeline.get_train_loss_dict = look
    trainer.train()
    assert steps == [4, 5, 6] and doomed[0] == doomed[-1]
    assert [event.step for event in pipeline.model.prune_state.history] == [6]


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_neurons_that_cannot_be_chosen_ahead(tiny_config: Config, on_error: str, capsys: Any) -> None:
    """The choice ahead of a cut reads photographs too, and fails as calibration fails. Who asked to continue goes on
    without the penalty: it is tried once, not in each step, and the cut itself comes as planned."""
    options = {"strategy": "obs", "refit": "lstsq", "start_step": 6, "shrink_steps": 3}
    trainer = start(tiny_config(**options, on_error=on_error))
    pipeline: Any = trainer.pipeline
    subject, calls = pipeline.controller.run.subject, []
    inner = subject.calibrate

    def gone_once(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise OSError(5, "gone", "photo.png")
        return inner(*args)

    subject.calibrate = gone_once
    if on_error == "stop":
        with pytest.raises(OSError, match="photo"):
            trainer.train()
        assert trainer.step == 4
        return
    trainer.train()
    assert len(calls) == 2
    assert [(event.step, event.error) for event in pipeline.model.prune_state.history] == [(6, "")]
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("Step 4: the neurons that leave at step 6 cannot be shrunk ahead of it") == 1
    assert "photo.png" in text


@pytest.mark.parametrize(("auto_start", "expected"), [(1e3, 1), (1e-9, 7)], ids=["slow", "still fast"])
def test_start_when_training_slows_down(tiny_config: Config, auto_start: float, expected: int) -> None:
    """Every step of a dense network that no longer learns is wasted; one that still does must not be cut before the
    step that was given."""
    trainer = start(tiny_config(start_step=7, auto_start=auto_start))
    pipeline: Any = trainer.pipeline
    observe = pipeline.controller.observe
    # A PSNR that rises by 1 dB a step: slow against the first threshold, fast against the second.
    pipeline.controller.observe = lambda step, psnr: observe(step, torch.tensor(10.0 + step))
    trainer.train()
    assert [event.step for event in pipeline.model.prune_state.history] == [expected]


def test_a_resumed_run_shrinks_the_same_neurons(tiny_config: Config) -> None:
    """Chosen again, from weights that have moved on, they would be others: some would have shrunk for nothing, and some
    would leave without having shrunk."""
    config = tiny_config("whole", strategy="obs", refit="lstsq", start_step=8, shrink_steps=5)
    config.steps_per_save, config.save_only_latest_checkpoint = 5, False
    whole = start(config)
    whole.train()
    memory = checkpoint(whole, 5)["pipeline"]["_model._extra_state"]["memory"]["shrinkage"]
    assert memory["step"] == 8 and memory["leaving"].keys() == widths(whole.pipeline.model).keys()
    assert {len(neurons) for neurons in memory["leaving"].values()} == {8, 4}

    resumed = start(resume(tiny_config("resumed", preset=None), whole, 5, 4))
    subject, calls = resumed.pipeline.controller.run.subject, []
    inner = subject.calibrate
    subject.calibrate = lambda *arguments: (calls.append(resumed.step), inner(*arguments))[1]
    (schedule,) = [one for one in resumed.pipeline.controller.listeners if isinstance(one, ShrinkageSchedule)]
    assert schedule._shrinkage is not None
    for layer, columns in schedule._shrinkage.columns:
        assert columns.min() >= 0 and columns.max() < layer.in_features
    resumed.train()
    assert calls == [8]
    assert checkpoint(resumed, 9)["pipeline"]["_model._extra_state"]["memory"] == {}


def test_a_choice_that_is_none_of_the_network_is_refused(tiny_config: Config) -> None:
    """An index past the layer, from a damaged checkpoint, would end the run in mid-step."""
    whole = start(tiny_config("whole", strategy="obs", refit="lstsq", start_step=5, shrink_steps=2))
    whole.pipeline.model.prune_state.memory["shrinkage"] = {
        "step": 5,
        "leaving": {"field_fine.mlp_base.layers.0": [16]},
    }
    whole.save_checkpoint(2)
    with pytest.raises(ValueError, match="expected neurons of a layer with 16, got"):
        start(resume(tiny_config("resumed", preset=None), whole, 2, 4))


def test_a_resumed_run_knows_how_the_training_went(tiny_config: Config) -> None:
    """The slope is taken over many steps. A run that is cut off within them and began to look anew would prune later
    than the one that was not."""

    def started(name: str, checkpoint: Any = None, **options: Any) -> Any:
        config = tiny_config(name, **options)
        config.steps_per_save, config.save_only_latest_checkpoint = 6, False
        trainer = start(config if checkpoint is None else resume(config, checkpoint, 6, 3))
        controller = trainer.pipeline.controller
        observe = controller.observe
        # Up to step 6 it rises by 1 dB a step, then it stands still: known with step 7.
        controller.observe = lambda step, psnr: observe(step, torch.tensor(10.0 + min(step, 6)))
        trainer.train()
        return trainer

    whole = started("whole", start_step=9, auto_start=0.5)
    resumed = started("resumed", whole, preset=None)
    for trainer in (whole, resumed):
        assert [event.step for event in trainer.pipeline.model.prune_state.history] == [7]


def test_budget_through_the_training(tiny_config: Config, tmp_path: Path) -> None:
    """A budget becomes widths at the event, within what was allowed, and nothing else has to be given."""
    trainer = start(tiny_config(strategy="obs", refit="lstsq", target_parameters=0.5, start_step=3))
    pipeline: Any = trainer.pipeline
    trainer.train()
    (event,) = pipeline.model.prune_state.history
    assert event.scheduled.targets == {} and event.options["target_parameters"] == 0.5
    before, after = event.before.costs["parameters"], event.after.costs["parameters"]
    assert 0.45 * before < after <= 0.5 * before
    assert len(set(event.after.parts.values())) > 2
