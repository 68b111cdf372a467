"""Parameters that are replaced inside live optimizers."""

import copy
import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RAdam

from nerfstudio_prune.core.optimizer_state import ParameterEdit, check_optimizers, clear_state, prepare_rebind

ROWS = torch.tensor([0, 2, 5])
"""Neurons of the first layer that stay."""
WARM_UP = 7
"""Steps before the cut; RAdam changes its formula after the fifth."""

Factory = Callable[[Any], Optimizer]
OPTIMIZERS: dict[str, tuple[Factory, set[str]]] = {
    "radam": (lambda p: RAdam(p, lr=0.01), {"exp_avg", "exp_avg_sq"}),
    "adam": (lambda p: Adam(p, lr=0.01), {"exp_avg", "exp_avg_sq"}),
    "adamw": (lambda p: AdamW(p, lr=0.01, weight_decay=0.1), {"exp_avg", "exp_avg_sq"}),
    "amsgrad": (lambda p: Adam(p, lr=0.01, amsgrad=True), {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
    "sgd": (lambda p: SGD(p, lr=0.01, momentum=0.9), {"momentum_buffer"}),
    "nesterov": (lambda p: SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1), {"momentum_buffer"}),
}
every_optimizer = pytest.mark.parametrize(
    ("make", "moments"), [pytest.param(*values, id=name) for name, values in OPTIMIZERS.items()]
)


class Pair(nn.Module):
    """Two layers; the neurons of the first are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        generator = torch.Generator().manual_seed(0)
        self.double()
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))


def part(name: str, tensor: Tensor) -> Tensor:
    """The part of a tensor of `Pair` that stays, written out."""
    if name == "first.weight":
        return tensor[[0, 2, 5], :]
    if name == "first.bias":
        return tensor[[0, 2, 5]]
    if name == "second.weight":
        return tensor[:, [0, 2, 5]]
    return tensor


def make_edits(net: Pair) -> list[ParameterEdit]:
    places = [(net.first, "weight", 0), (net.first, "bias", 0), (net.second, "weight", 1)]
    names = ["first.weight", "first.bias", "second.weight"]
    edits = []
    for name, (module, attribute, dim) in zip(names, places, strict=True):
        old = getattr(module, attribute)
        new = nn.Parameter(part(name, old.detach()).clone(), requires_grad=old.requires_grad)
        edits.append(ParameterEdit(name, module, attribute, old, new, {dim: ROWS}))
    return edits


def cut(net: Pair, optimizers: dict[str, Optimizer], lists: dict[str, list[nn.Parameter]] | None = None) -> None:
    """Replaces the parameters, module and optimizers."""
    edits = make_edits(net)
    plan = prepare_rebind(optimizers, lists or {}, edits)
    for edit in edits:
        edit.apply()
    plan.apply()


def gradients(step: int) -> dict[str, Tensor]:
    """Gradients of the full network at a step."""
    generator = torch.Generator().manual_seed(100 + step)
    return {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in Pair().named_parameters()}


def step(net: Pair, optimizers: Sequence[Optimizer], number: int, whole: bool = True) -> None:
    """One step with given gradients, or with their parts that stay."""
    grads = gradients(number)
    for name, p in net.named_parameters():
        if p.requires_grad:
            p.grad = grads[name] if whole else part(name, grads[name]).clone()
    for optimizer in optimizers:
        optimizer.step()


def warmed_up(make: Factory) -> tuple[Pair, Optimizer]:
    net = Pair()
    optimizer = make(net.parameters())
    for i in range(WARM_UP):
        step(net, [optimizer], i)
    return net, optimizer


@every_optimizer
def test_moments_are_the_sliced_ones_and_counters_stay(make: Factory, moments: set[str]) -> None:
    """Adam's moments belong to single weights: a moment that ends up at another weight sends it off in a foreign
    direction, and a reset step counter makes bias correction (and RAdam's warm-up) start over. Both go unnoticed, since
    shapes fit; so each state tensor is compared with the one sliced by hand."""
    net, optimizer = warmed_up(make)
    before = {name: copy.deepcopy(optimizer.state[p]) for name, p in net.named_parameters()}
    cut(net, {"fields": optimizer})
    after = {name: optimizer.state[p] for name, p in net.named_parameters()}
    for name, state in before.items():
        assert set(after[name]) == set(state) >= moments
        for key in moments:
            torch.testing.assert_close(after[name][key], part(name, state[key]), rtol=0, atol=0)
        for key in set(state) - moments:
            assert after[name][key] == state[key] == WARM_UP
    assert optimizer.state[net.first.weight][min(moments)].shape == (3, 4)


@every_optimizer
@pytest.mark.parametrize("warm_up", [0, 1, WARM_UP])
def test_next_steps_are_the_sliced_next_steps(make: Factory, moments: set[str], warm_up: int) -> None:
    """The point of editing the optimizer in place: with the same gradients, what stays must move exactly as it would
    have moved without the cut, for several steps, and also if the cut comes before the first step, when the
    optimizer has no state yet."""
    whole, small = Pair(), Pair()
    of_whole, of_small = make(whole.parameters()), make(small.parameters())
    for i in range(warm_up):
        step(whole, [of_whole], i)
        step(small, [of_small], i)
    cut(small, {"fields": of_small})
    assert len(of_small.state) == (4 if warm_up else 0)
    for i in range(warm_up, warm_up + 4):
        step(whole, [of_whole], i)
        step(small, [of_small], i, whole=False)
    expected = {name: part(name, p.detach()) for name, p in whole.named_parameters()}
    torch.testing.assert_close(dict(small.named_parameters()), expected, rtol=1e-13, atol=1e-15)
    assert not torch.equal(small.first.weight, part("first.weight", Pair().first.weight))


@every_optimizer
def test_no_stale_tensor_survives(make: Factory, moments: set[str]) -> None:
    """A replaced parameter that is still referenced by `param_groups`, by the state or by the host's list would be
    stepped, clipped and saved instead of the one that the network uses, and would keep its memory: after the cut the
    old tensors must be gone altogether."""
    net, optimizer = warmed_up(make)
    parameters = {"fields": list(net.parameters())}
    the_list = parameters["fields"]
    old = [weakref.ref(p) for p in (net.first.weight, net.first.bias, net.second.weight)]
    cut(net, {"fields": optimizer}, parameters)
    gc.collect()
    assert [ref() for ref in old] == [None, None, None]
    truth = [id(p) for p in net.parameters()]
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == truth
    assert parameters["fields"] is the_list and [id(p) for p in the_list] == truth
    assert {id(p) for p in optimizer.state} == set(truth)
    check_optimizers({"fields": optimizer}, parameters, {"fields": list(net.parameters())})


def test_untouched_parameter_keeps_its_state_object() -> None:
    """Layers that lose nothing have nothing to gain from an event; their moments must be left alone, down to the
    identity of the tensors."""
    net, optimizer = warmed_up(OPTIMIZERS["adam"][0])
    bias, state = net.second.bias, optimizer.state[net.second.bias]
    cut(net, {"fields": optimizer})
    assert net.second.bias is bias and optimizer.state[bias] is state


def test_planning_changes_nothing() -> None:
    """Plan first, then apply: if a later check of the event fails, the optimizer must not have been touched, neither
    its lists nor by a state entry that a lookup of a missing key would create."""
    net, optimizer = warmed_up(OPTIMIZERS["adam"][0])
    idle = Adam([nn.Parameter(torch.zeros(2))])
    parameters = {"fields": list(net.parameters())}
    before = copy.deepcopy(optimizer.state_dict())
    ids = [id(p) for p in optimizer.state]
    prepare_rebind({"fields": optimizer, "idle": idle}, parameters, make_edits(net))
    torch.testing.assert_close(optimizer.state_dict()["state"], before["state"], rtol=0, atol=0)
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]
    assert [id(p) for p in optimizer.state] == ids == [id(p) for p in parameters["fields"]]
    assert [id(p) for p in net.parameters()] == ids and len(idle.state) == 0


@every_optimizer
def test_moments_can_be_rescaled(make: Factory, moments: set[str]) -> None:
    """Values that a refit multiplied have other gradients than the ones remembered. First moments and momentum take the
    factor, second ones its square, also AMSGrad's largest; counters, and parameters without a factor, do not."""
    net, optimizer = warmed_up(make)
    before = {name: copy.deepcopy(optimizer.state[p]) for name, p in net.named_parameters()}
    edits = make_edits(net)
    factor = torch.tensor([2.0, 0.5, -3.0], dtype=torch.float64)
    edits[2] = replace(edits[2], moment_factor=factor)
    plan = prepare_rebind({"fields": optimizer}, {}, edits)
    for edit in edits:
        edit.apply()
    plan.apply()
    for name, p in net.named_parameters():
        state = optimizer.state[p]
        assert set(state) == set(before[name])
        for key in moments:
            power = {"exp_avg": 1, "momentum_buffer": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}[key]
            expected = part(name, before[name][key])
            if name == "second.weight":
                expected = expected * factor**power
            torch.testing.assert_close(state[key], expected, rtol=1e-15, atol=0)
        for key in set(state) - moments:
            assert state[key] == before[name][key] == WARM_UP


@every_optimizer
def test_parameters_can_be_forgotten_one_by_one(make: Factory, moments: set[str]) -> None:
    """A forgotten parameter starts like a new one, with bias correction and RAdam's warm-up; the others go on. Nothing
    may be left of the old tensor."""
    net, optimizer = warmed_up(make)
    edits = make_edits(net)
    edits[2] = replace(edits[2], forget=True)
    old = edits[2].old
    plan = prepare_rebind({"fields": optimizer}, {}, edits)
    assert old in optimizer.state
    for edit in edits:
        edit.apply()
    plan.apply()
    assert old not in optimizer.state and net.second.weight not in optimizer.state
    assert set(optimizer.state[net.first.weight]) >= moments
    fresh = copy.deepcopy(net)
    optimizer_of_fresh = make(fresh.parameters())
    for model, own in ((net, optimizer), (fresh, optimizer_of_fresh)):
        step(model, [own], WARM_UP, whole=False)
    assert torch.equal(net.second.weight, fresh.second.weight)
    assert not torch.equal(net.first.weight, fresh.first.weight)


def test_several_param_groups_keep_members_and_options() -> None:
    """An optimizer may hold several groups with their own learning rates (biases without weight decay, for example); a
    parameter that changed its group, or its place within, would silently train with other options. With plain SGD
    the rate can be read off the next step."""
    net = Pair()
    optimizer = SGD(
        [
            {"params": [net.second.weight, net.first.weight], "lr": 0.1},
            {"params": [net.second.bias, net.first.bias], "lr": 0.001},
        ],
        lr=1.0,
    )
    cut(net, {"fields": optimizer})
    groups = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    assert groups == [
        [id(net.second.weight), id(net.first.weight)],
        [id(net.second.bias), id(net.first.bias)],
    ]
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    step(net, [optimizer], 0, whole=False)
    grads = gradients(0)
    for name, p in net.named_parameters():
        rate = 0.1 if name.endswith("weight") else 0.001
        torch.testing.assert_close(p.detach(), before[name] - rate * part(name, grads[name]), rtol=1e-14, atol=0)


def test_each_of_several_optimizers_keeps_its_own() -> None:
    """The host has one optimizer per parameter group of the model; a cut that touches two of them must leave each
    parameter with the optimizer, the list and the state that it had."""
    net = Pair()
    optimizers: dict[str, Optimizer] = {
        "first": Adam(net.first.parameters(), lr=0.01),
        "second": SGD(net.second.parameters(), lr=0.01, momentum=0.9),
    }
    lists = {"first": list(net.first.parameters()), "second": list(net.second.parameters())}
    step(net, list(optimizers.values()), 0)
    cut(net, optimizers, lists)
    truth = {"first": list(net.first.parameters()), "second": list(net.second.parameters())}
    check_optimizers(optimizers, lists, truth)
    assert set(optimizers["first"].state[net.first.weight]) == {"step", "exp_avg", "exp_avg_sq"}
    assert set(optimizers["second"].state[net.second.weight]) == {"momentum_buffer"}
    assert net.second.weight not in optimizers["first"].state


def test_gradient_is_sliced_along() -> None:
    """An event may fall between backward and step (gradient accumulation, or a request by hand): the gradient of what
    stays must come along, at the right weights, and a parameter without one must not get one."""
    net = Pair()
    grads = gradients(3)
    net.first.weight.grad, net.second.weight.grad = grads["first.weight"], grads["second.weight"]
    cut(net, {"fields": SGD(net.parameters())})
    assert net.first.weight.grad is not None and net.second.weight.grad is not None
    assert torch.equal(net.first.weight.grad, part("first.weight", grads["first.weight"]))
    assert torch.equal(net.second.weight.grad, part("second.weight", grads["second.weight"]))
    assert net.first.bias.grad is None


def test_frozen_parameters_need_no_optimizer() -> None:
    """A frozen layer is in no optimizer; pruning it must neither fail nor start training it."""
    net = Pair()
    net.first.requires_grad_(False)
    optimizer = Adam(net.second.parameters(), lr=0.01)
    step(net, [optimizer], 0)
    cut(net, {"fields": optimizer})
    assert net.first.weight.shape == (3, 4) and not net.first.weight.requires_grad
    check_optimizers(
        {"fields": optimizer}, {"fields": list(net.second.parameters())}, {"fields": [*net.second.parameters()]}
    )
    assert set(optimizer.state) == set(net.second.parameters())


def test_unknown_trainable_parameter_is_an_error() -> None:
    """A trainable parameter that no optimizer knows would be replaced by one that never learns again, and the loss
    would only look a bit worse: it must be refused, with the parameter, its shape and the optimizers named."""
    net = Pair()
    optimizer = Adam(net.first.parameters())
    with pytest.raises(ValueError, match=r"second\.weight of shape \(3, 6\) is in none of the optimizers \['fields'\]"):
        prepare_rebind({"fields": optimizer}, {}, make_edits(net))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    """A refit on samples of wild size can overflow. Put into the network it would turn everything behind it into NaN
    within a step, and the checkpoint with it; told before, it costs one event."""
    net = Pair()
    edits = make_edits(net)
    with torch.no_grad():
        edits[2].new[1, 1] = bad
    with pytest.raises(ValueError, match=r"second\.weight: 1 of 9 values would not be finite after the cut"):
        prepare_rebind({"fields": Adam(net.parameters())}, {"fields": list(net.parameters())}, edits)


def test_edit_of_nothing_selects_a_copy() -> None:
    """An edit may change values only (re-weighted columns of a layer that loses none); what it selects is then the
    whole tensor, and must be a copy, or moments of old and new parameter would share memory."""
    old, new = nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.ones(6, 4))
    edit = ParameterEdit("first.weight", Pair().first, "weight", old, new, {})
    moment = torch.ones(6, 4)
    selected = edit.select(moment)
    assert torch.equal(selected, moment) and selected.data_ptr() != moment.data_ptr()


def test_rows_and_columns_of_one_tensor() -> None:
    """An inner layer loses its own neurons and those of its input in one event; its moments must lose both."""
    old, new = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(2, 2))
    keep = {0: torch.tensor([1, 3]), 1: torch.tensor([0, 2])}
    edit = ParameterEdit("l.weight", nn.Linear(3, 4), "weight", old, new, keep)
    assert edit.select(torch.arange(12.0).view(4, 3)).tolist() == [[3.0, 5.0], [9.0, 11.0]]


def test_clear_state_forgets_only_what_it_is_told() -> None:
    """Retraining starts with fresh moments for the pruned network, while a neighbour in the same optimizer (a camera
    optimizer, the other field) keeps its own."""
    net, optimizer = warmed_up(OPTIMIZERS["adam"][0])
    clear_state({"fields": optimizer, "other": SGD([nn.Parameter(torch.zeros(1))])}, net.first.parameters())
    assert set(optimizer.state) == set(net.second.parameters())
    assert optimizer.param_groups[0]["params"] == list(net.parameters())


def test_scheduler_goes_on() -> None:
    """The host steps its schedulers throughout; they hold the optimizer, not its parameters, so the learning rate must
    follow its curve across the event and act on the new parameters."""
    net = Pair()
    optimizer = SGD(net.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    step(net, [optimizer], 0)
    scheduler.step()
    cut(net, {"fields": optimizer})
    before = net.first.weight.detach().clone()
    step(net, [optimizer], 1, whole=False)
    scheduler.step()
    moved = before - 0.5 * part("first.weight", gradients(1)["first.weight"])
    torch.testing.assert_close(net.first.weight.detach(), moved, rtol=1e-14, atol=0)
    assert optimizer.param_groups[0]["lr"] == 0.25


@every_optimizer
def test_saved_state_fits_a_network_of_the_new_size(make: Factory, moments: set[str]) -> None:
    """A resumed run builds a small network with a new optimizer and loads the saved one: it must go on as the run that
    was not interrupted."""
    net, optimizer = warmed_up(make)
    cut(net, {"fields": optimizer})
    resumed = Pair()
    for edit in make_edits(resumed):
        edit.apply()
    resumed.load_state_dict(net.state_dict())
    of_resumed = make(resumed.parameters())
    of_resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    check_optimizers({"f": of_resumed}, {"f": list(resumed.parameters())}, {"f": list(resumed.parameters())})
    for i in (50, 51):
        step(net, [optimizer], i, whole=False)
        step(resumed, [of_resumed], i, whole=False)
    torch.testing.assert_close(resumed.state_dict(), net.state_dict(), rtol=0, atol=0)


def checked(net: Pair) -> dict[str, Any]:
    """Arguments of `check_optimizers` that pass."""
    optimizer = Adam(net.parameters())
    step(net, [optimizer], 0)
    return {
        "optimizers": {"fields": optimizer},
        "parameter_lists": {"fields": list(net.parameters())},
        "param_groups": {"fields": list(net.parameters())},
    }


def reverse_order(arguments: dict[str, Any]) -> None:
    arguments["optimizers"]["fields"].param_groups[0]["params"].reverse()


def replace_one(arguments: dict[str, Any]) -> None:
    arguments["parameter_lists"]["fields"][1] = nn.Parameter(torch.zeros(6))


def drop_one(arguments: dict[str, Any]) -> None:
    arguments["parameter_lists"]["fields"].pop()


def lose_list(arguments: dict[str, Any]) -> None:
    arguments["parameter_lists"].clear()


def lose_optimizer(arguments: dict[str, Any]) -> None:
    arguments["optimizers"]["other"] = arguments["optimizers"].pop("fields")


def widen_moment(arguments: dict[str, Any]) -> None:
    optimizer = arguments["optimizers"]["fields"]
    optimizer.state[optimizer.param_groups[0]["params"][2]]["exp_avg_sq"] = torch.zeros(3, 8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (reverse_order, r"optimizer 'fields' must hold the model's 4 parameters in their order, got 4 .* which 4 are"),
        (replace_one, r"list 'fields' must hold the model's 4 parameters in their order, got 4 .* which 3 are"),
        (drop_one, r"list 'fields' must hold .* got 3 parameters of which 3"),
        (lose_list, r"list 'fields' must hold .* got 0 parameters of which 0"),
        (lose_optimizer, r"optimizer 'fields' is missing; found \['other'\]"),
        (
            widen_moment,
            r"state 'exp_avg_sq' of parameter 2 in optimizer 'fields' has shape \(3, 8\), expected \(3, 6\)",
        ),
    ],
)
def test_check_optimizers_names_what_is_wrong(damage: Callable[[dict[str, Any]], None], message: str) -> None:
    """The invariant that every event and every resume relies on: optimizers hold the model's own tensors, in order,
    with moments that fit. PyTorch accepts all of these damages silently, so the check must find each one, and say
    where."""
    arguments = checked(Pair())
    check_optimizers(**arguments)
    damage(arguments)
    with pytest.raises(ValueError, match=message):
        check_optimizers(**arguments)


def test_load_state_dict_accepts_wrong_shapes_silently() -> None:
    """The fact that makes the check of moment shapes necessary: PyTorch loads the moments of a wider network into the
    optimizer of a smaller one without a word. If this test fails one day, the check has become superfluous."""
    _, optimizer = warmed_up(OPTIMIZERS["adam"][0])
    small = Pair()
    for edit in make_edits(small):
        edit.apply()
    of_small = Adam(small.parameters())
    of_small.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="has shape"):
        check_optimizers({"f": of_small}, {"f": list(small.parameters())}, {"f": list(small.parameters())})
