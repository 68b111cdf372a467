"""Training goes on across an event: the same steps, on tensors that are alive."""

from typing import Any

import pytest
import torch
from support.tiny_field import GROUP_NAMES, TinyField, Training, cut_by_hand, draw_selections
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RAdam

from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.neurons.pruner import prepare_pruning
from nerfstudio_prune.neurons.strategies import Selection

OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "radam": (RAdam, {}),
    "adam": (Adam, {}),
    "adam with L2": (Adam, {"weight_decay": 0.1}),
    "adamw": (AdamW, {"weight_decay": 0.1}),
    "amsgrad": (Adam, {"amsgrad": True}),
    "sgd": (SGD, {"momentum": 0.9, "weight_decay": 0.01, "lr": 1e-3}),
}


def prune(training: Training, selections: dict[str, Selection]) -> None:
    prepare_pruning(
        training.field.groups(), selections, "continue", training.optimizers, training.lists, seed=0
    ).apply()


def kept_entries(field: TinyField, keep: dict[str, Tensor]) -> dict[str, Tensor]:
    """Path of the parameter -> mask of the entries that stay."""
    numbers = {name: torch.arange(p.numel()).view(p.shape) for name, p in field.named().items()}
    masks = {name: torch.zeros(number.shape, dtype=torch.bool) for name, number in numbers.items()}
    for name, number in cut_by_hand(numbers, keep).items():
        masks[name].view(-1)[number.flatten()] = True
    return masks


@pytest.mark.parametrize(("optimizer", "options"), list(OPTIMIZERS.values()), ids=list(OPTIMIZERS))
@pytest.mark.parametrize("warm_up", [0, 7])
def test_training_equals_that_of_the_masked_network(
    optimizer: type[Optimizer], options: dict[str, Any], warm_up: int
) -> None:
    """The whole of an event in one statement: a compacted network with its edited optimizer trains step by step like
    the large one in which everything that left is held at zero. Weights and moments after several steps, for each
    optimizer, cut in mid-training or before the first step; a moment at the wrong neuron, a counter that starts over,
    a shifted column or a parameter that no longer learns all show."""
    large, small = (Training.start(None, optimizer, **options).run(warm_up) for _ in range(2))
    selections = draw_selections(small.field.groups())
    keep = {name: selection.keep for name, selection in selections.items()}
    masks = kept_entries(large.field, keep)

    def hold_at_zero() -> None:
        with torch.no_grad():
            for name, p in large.field.named().items():
                p.mul_(masks[name])

    prune(small, selections)
    hold_at_zero()
    for seed in range(20, 25):
        torch.testing.assert_close(small.step(seed), large.step(seed), rtol=1e-10, atol=1e-12)
        hold_at_zero()
    expected = cut_by_hand({name: p.detach() for name, p in large.field.named().items()}, keep)
    torch.testing.assert_close({n: p.detach() for n, p in small.field.named().items()}, expected, rtol=1e-8, atol=1e-11)
    key = "momentum_buffer" if optimizer is SGD else "exp_avg"
    torch.testing.assert_close(small.moments(key), cut_by_hand(large.moments(key), keep), rtol=1e-8, atol=1e-11)


def test_event_while_the_last_loss_is_alive() -> None:
    """The host still holds the loss of the step that has just ended, graph included, when an event happens. The next
    forward, backward and step must work all the same, move every weight of the pruned network, and leave the
    optimizer holding exactly the network's tensors."""
    training = Training.start().run(2)
    loss = training.step(2)
    assert loss.grad_fn is not None
    prune(training, draw_selections(training.field.groups()))
    before = {name: p.detach().clone() for name, p in training.field.named().items()}
    assert bool(torch.isfinite(training.step(3)))
    assert [n for n, p in training.field.named().items() if bool((p == before[n]).any())] == []
    check_optimizers(training.optimizers, training.lists, {"fields": list(training.field.parameters())})
    assert loss.grad_fn is not None


@pytest.mark.parametrize("alive", [True, False])
def test_shrinking_data_in_place_fails_while_the_last_loss_is_alive(alive: bool) -> None:
    """Why events make new parameters: with `param.data = smaller` autograd still expects gradients of the old shape as
    long as the last graph is referenced, so the next backward raises. Without such a graph (as when a checkpoint is
    loaded) it works, and that is used there. Pins a fact about PyTorch; if it changes, the design may be simplified."""
    training = Training.start()
    loss = training.step(0) if alive else None
    if not alive:
        training.step(0)
    names = {name: torch.arange(7 if ".trunk." in name else 5)[1:] for name in GROUP_NAMES}
    cut = cut_by_hand({name: p.detach() for name, p in training.field.named().items()}, names)
    for name, p in training.field.named().items():
        p.data, p.grad = cut[name].clone(), None
    next_loss = training.loss(1)
    if alive:
        with pytest.raises(RuntimeError, match="shape"):
            next_loss.backward()
    else:
        next_loss.backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in training.field.parameters())
    assert (loss is not None) == alive


def test_frozen_parameters_stay_out_of_training() -> None:
    """A user may freeze a part; pruning across it must neither fail for want of an optimizer nor thaw it."""
    field = TinyField()
    field.density.requires_grad_(False)
    training = Training.start(field).run(2)
    prune(training, draw_selections(field.groups()))
    before = field.density.weight.detach().clone()
    training.run(2, first=2)
    assert field.density.weight.shape == (1, 5) and torch.equal(field.density.weight, before)
    assert not field.density.weight.requires_grad and field.density.weight.grad is None


def test_scheduler_goes_on_across_an_event() -> None:
    """Schedulers of the host know the optimizer object only; the event must leave that object, and with it the
    decay."""
    training = Training.start()
    optimizer = training.optimizers["fields"]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    training.step(0)
    scheduler.step()
    prune(training, draw_selections(training.field.groups()))
    training.step(1)
    scheduler.step()
    assert training.optimizers["fields"] is optimizer is scheduler.optimizer
    assert optimizer.param_groups[0]["lr"] == 1e-2 / 4
