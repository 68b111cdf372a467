"""Networks that got stuck begin again: those alone, and only where it helps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.tiny_kilo import DISTIL, weights
from support.tiny_run import after_each_step, start, train

from nerfstudio_prune.kilo.lessons import Lessons
from nerfstudio_prune.kilo.second_try import cells_of, learn_again

Make = Callable[..., Any]
SEED = 5


def taught(trainer: Any) -> Lessons:
    """What the networks of a run learn."""
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager.train_dataset
    places = data.cameras.camera_to_worlds[:, :, 3]
    return Lessons(model.teacher.values, places, model.state.options.distil, model.step_size(), model.space)


def test_a_stuck_network_begins_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is white everywhere has no gradient: no step of any length would mend it. The others keep their weights
    to the bit; one that is as good as it was keeps its own."""
    trainer = start(make(grid__resolution=3, distil__steps=40))
    model, lessons = trainer.pipeline.model, taught(trainer)
    lessons.learn(model.stack, model.cells.live, 40, SEED)
    assert learn_again(model, lessons, 40, SEED) == (0, 0)
    stuck = [2, 7]
    with torch.no_grad():
        model.stack.b_rgb[stuck] = 60.0
    model.errors.note(torch.full((model.networks.num_networks,), 0.5), torch.ones(model.networks.num_networks))
    before, errors = weights(trainer), lessons.errors(model.networks, model.cells.live, SEED)
    assert lessons.stuck(model.networks, model.cells.live, SEED).nonzero()[:, 0].tolist() == stuck
    measured, former = [], Lessons.errors

    def watched(self: Lessons, *values: Any) -> torch.Tensor:
        measured.append(former(self, *values))
        return measured[-1]

    monkeypatch.setattr(Lessons, "errors", watched)
    assert learn_again(model, lessons, 40, SEED) == (2, 2)
    monkeypatch.undo()
    after, others = weights(trainer), [i for i in range(model.networks.num_networks) if i not in stuck]
    assert all(torch.equal(before[name][others], after[name][others]) for name in before)
    now = lessons.errors(model.networks, model.cells.live, SEED)
    assert bool((now[stuck] < errors[stuck]).all()) and torch.equal(now[others], errors[others])
    assert not bool(lessons.stuck(model.networks, model.cells.live, SEED).any())
    # What is shown of the former ones is gone: the last that was measured were the fresh ones.
    assert torch.allclose(model.errors.sums[stuck], measured[-1] / 4) and bool((model.errors.sums[others] == 0.5).all())
    assert bool((model.errors.weights == 1).all())


def test_networks_are_those_of_their_cells(make: Make) -> None:
    """A network that learnt another one's cell would be worse than a stuck one."""
    live = start(make(grid__resolution=3)).pipeline.model.cells.live
    chosen = torch.zeros(live.count, dtype=torch.bool)
    chosen[[1, 4, 5]] = True
    assert torch.equal(cells_of(live, chosen).cells, live.cells[chosen])


def test_a_run_tells_of_it(make: Make, capsys: Any) -> None:
    """At the end of the first phase, before the networks see a photo; a run without any says nothing."""
    trainer = start(make(grid__resolution=3))
    seen = []

    def break_one(step: int) -> None:
        if step == DISTIL - 2:
            with torch.no_grad():
                trainer.pipeline.model.stack.b_rgb[3] = 60.0
        seen.append(float(trainer.pipeline.model.stack.b_rgb[3].detach().max()))

    after_each_step(trainer, break_one)
    trainer.train()
    told = " ".join(capsys.readouterr().out.split())
    count = trainer.pipeline.model.networks.num_networks
    assert f"KiloNeRF, step {DISTIL}: 1 of {count} networks showed black or white everywhere" in told
    assert seen[DISTIL - 2] > 50 and seen[DISTIL] < 5
    train(make("other", grid__resolution=3))
    assert "showed black or white" not in capsys.readouterr().out
