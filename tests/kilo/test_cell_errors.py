"""How wrong each network is follows from what was measured, and measuring it leaves the training alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.tiny_kilo import DISTIL, FINETUNE
from support.tiny_run import after_each_step, before_each_step, same_bits, start
from torch import Tensor

from nerfstudio_prune.kilonerf.cell_errors import DECAY, CellErrors, Shares, attributed
from nerfstudio_prune.kilonerf.composite import with_last_behind
from nerfstudio_prune.kilonerf.distillation import DistillationLoss, mean_squares

Make = Callable[..., Any]
NAN = float("nan")


def errors_of(sums: list[float], weights: list[float]) -> CellErrors:
    """Errors of which one step said all."""
    errors = CellErrors()
    errors.forget(len(sums))
    errors.note(torch.tensor(sums), torch.tensor(weights))
    return errors


def test_pixels_are_shared_out_as_they_were_made() -> None:
    """As a loop over all samples does. A pixel or a share that is no number must be seen as an error, and not make one
    of what is saved: a checkpoint with such a value is refused."""
    generator = torch.Generator().manual_seed(0)
    ray = torch.randint(0, 9, (60,), generator=generator).sort().values.int()
    network = torch.randint(0, 5, (60,), generator=generator).int()
    weight = torch.rand(60, generator=generator, dtype=torch.float64)
    squares = torch.rand(9, generator=generator)
    weight[7], squares[3] = NAN, NAN
    sums, weights = [0.0] * 6, [0.0] * 6
    for i in range(60):
        share = 1.0 if i == 7 else float(weight[i])
        error = 1.0 if int(ray[i]) == 3 else float(squares[ray[i]])
        sums[int(network[i])] += share * error
        weights[int(network[i])] += share
    found = attributed(Shares(network, ray, weight), squares, 6)
    assert found[0].tolist() == pytest.approx(sums) and found[1].tolist() == pytest.approx(weights)
    nothing = Shares(network[:0], ray[:0], weight[:0])
    assert [value.tolist() for value in attributed(nothing, squares, 2)] == [[0, 0], [0, 0]]


def test_the_mean_is_that_of_recent_steps() -> None:
    """What networks were like at the beginning says nothing of what they are. A single step is its own mean, however
    small its weights; one that a batch does not meet keeps what was known of it, and one that none has met has none."""
    errors = errors_of([0.09e-6, 0.5, 0.0], [1e-6, 2.0, 0.0])
    assert errors.roots().tolist() == pytest.approx([0.3, 0.5, 0.0])
    errors.note(torch.tensor([0.0, 0.0, 0.04]), torch.tensor([0.0, 2.0, 1.0]))
    expected = [0.3, (DECAY * 0.5 / (DECAY * 2 + 2)) ** 0.5, 0.2]
    assert errors.roots().tolist() == pytest.approx(expected)
    for _ in range(500):
        errors.note(torch.tensor([0.0, 0.02, 0.0]), torch.tensor([0.0, 2.0, 0.0]))
    assert errors.roots().tolist() == pytest.approx([0.3, 0.1, 0.2], rel=0.02)
    for _ in range(20_000):
        errors.note(torch.zeros(3), torch.zeros(3))
    assert bool(errors.roots().isfinite().all()) and float(errors.roots().max()) <= 1


def test_it_follows_the_networks() -> None:
    """A map that is off by one network points at the wrong cell. What is shown of a former state stays what it was."""
    errors = errors_of([0.01, 0.04, 0.09, 0.16], [1.0] * 4)
    shown = errors.sums
    errors.keep(torch.tensor([True, False, True, True]))
    assert errors.roots().tolist() == pytest.approx([0.1, 0.3, 0.4])
    errors.replace(torch.tensor([2, 0]), torch.tensor([0.25, 0.36]))
    assert errors.roots().tolist() == pytest.approx([0.6, 0.3, 0.5])
    assert shown.tolist() == pytest.approx([0.01, 0.04, 0.09, 0.16])
    errors.forget(2)
    assert errors.roots().tolist() == [0, 0]


def test_the_last_sample_has_the_light_behind_it() -> None:
    """By a loop; rays may have no sample at all."""
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    through = torch.tensor([0.9, 0.7, 0.6, 0.5])
    found = with_last_behind(weights, torch.tensor([0, 0, 2, 2, 3], dtype=torch.int32), through)
    assert found.tolist() == pytest.approx([0.1, 0.2 + 0.9, 0.3, 0.4 + 0.6, 0.5 + 0.5])
    assert with_last_behind(weights[:0], torch.zeros(0, dtype=torch.int32), through).shape == (0,)


def test_points_are_told_in_the_unit_of_colours() -> None:
    """Opacity and three channels that are all off by a tenth are a tenth; the worst that can be is 1."""
    alpha, rgb = torch.tensor([0.01, 1.0, NAN, 0.0]), torch.tensor([0.03, 3.15, 0.0, 0.04], requires_grad=True)
    found = mean_squares(DistillationLoss(alpha, rgb).of_networks)
    assert found.tolist() == pytest.approx([0.01, 1, 1, 0.01]) and not found.requires_grad


def run(config: Any) -> tuple[Any, list[Tensor], list[Any]]:
    """A run, and what was known before and after each of its steps."""
    trainer = start(config)
    before: list[Tensor] = []
    after: list[Any] = []
    errors = trainer.pipeline.model.errors
    before_each_step(trainer, lambda step: before.append(errors.roots()))
    after_each_step(trainer, lambda step: after.append((errors.roots(), torch.get_rng_state())))
    trainer.train()
    return trainer, before, after


def test_a_run_does_not_notice(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, moments and random numbers are, bit for bit, those of a run in which nothing is noted. In each phase
    every network that there is something to say of has its error, photos begin anew, and networks that left have left
    here too: what a finished run shows is what was known at its end."""
    trainer, _, after = run(make("noted", grid__resolution=3))
    model = trainer.pipeline.model
    assert len(after) == DISTIL + FINETUNE
    assert all(bool((roots > 0).all()) for roots, _ in after[:DISTIL])
    # Networks learn: a mean over all steps of the phase falls.
    assert float(after[DISTIL - 1][0].mean()) < float(after[0][0].mean())
    photos = after[DISTIL][0]
    assert not torch.equal(photos, after[DISTIL - 1][0]) and float((photos > 0).float().mean()) > 0.5
    assert len(model.errors.roots()) == model.networks.num_networks and bool((model.errors.roots() < 1).all())
    assert {"errors.sums", "errors.weights"} <= model.state_dict().keys()

    def nothing(self: CellErrors, *values: Tensor) -> None:
        pass

    monkeypatch.setattr(CellErrors, "note", nothing)
    other, _, unknown = run(make("other", grid__resolution=3))
    assert not any(bool(roots.any()) for roots, _ in unknown)
    assert same_bits([state for _, state in after], [state for _, state in unknown])
    ends = [found.optimizers.optimizers["networks"].state_dict() for found in (trainer, other)]
    weights = [dict(found.pipeline.model.networks.state_dict()) for found in (trainer, other)]
    assert same_bits(*ends) and same_bits(*weights)


def test_a_broken_network_stands_out(make: Make) -> None:
    """What the map is for: photos alone tell which network shows a wrong colour, though each pixel is made by several.
    The control of all the above: errors of other networks, or of other pixels, would pass it."""
    trainer = start(make(grid__resolution=4, distil__steps=40, finetune__steps=20))
    trainer.train()
    model, steps = trainer.pipeline.model, trainer.pipeline.phases.steps
    met = model.errors.weights.argsort(descending=True)[:3].tolist()
    model.train()
    for network in met:
        whole = model.stack.b_rgb.detach().clone()
        with torch.no_grad():
            model.stack.b_rgb[int(model.networks.position[network])] += torch.tensor([8.0, -8.0, 8.0])
            model.errors.forget(model.networks.num_networks)
            for step in range(steps, steps + 10):
                trainer.pipeline.get_train_loss_dict(step)
            model.stack.b_rgb.copy_(whole)
        assert int(model.errors.roots().argmax()) == network


def test_narrower_networks_are_not_told_the_errors_of_wider_ones(make: Make) -> None:
    """They are others, and photos say how wrong these are."""
    trainer = start(make(grid__resolution=3, grid__narrow_to=0.6))
    errors, known = trainer.pipeline.model.errors, []
    former = trainer.pipeline._narrow

    def narrow(*values: Any) -> None:
        known.append(bool(errors.weights.all()))
        former(*values)

    trainer.pipeline._narrow = narrow
    first: list[Tensor] = []
    inner = trainer.pipeline.get_train_loss_dict

    def step_of(step: int) -> Any:
        if step == DISTIL:
            first.append(errors.weights)
        return inner(step)

    trainer.pipeline.get_train_loss_dict = step_of
    trainer.train()
    assert known == [True] and not bool(first[0].any()) and bool(errors.weights.any())
