"""What happens before an event: an early start, and weights that shrink."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_run import start

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


@pytest.mark.parametrize(("auto_start", "expected"), [(1000.0, 1), (1e-9, 7)], ids=["slow", "still fast"])
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
