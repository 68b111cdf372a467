"""One event: choose, plan, check, apply; all or nothing."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from support.tiny_field import GROUP_NAMES, TinyField, Training, cut_by_hand, draw_selections, fingerprint
from torch import Tensor

from nerfstudio_prune.core.optimizer_state import check_optimizers, copied
from nerfstudio_prune.neurons.pruner import (
    NonFiniteWeightsError,
    Pruning,
    RecoveryMode,
    check_finite,
    named_parameters,
    prepare_pruning,
)
from nerfstudio_prune.neurons.scores import SCORES, w_in_w_out, w_out
from nerfstudio_prune.neurons.selecting import select_neurons
from nerfstudio_prune.neurons.strategies import (
    CoresetStrategy,
    ImportanceStrategy,
    Selection,
    Strategy,
    UniformStrategy,
)

random_strategies = pytest.mark.parametrize(
    "strategy", [UniformStrategy(), CoresetStrategy(), CoresetStrategy("mussay")], ids=["uniform", "paper", "mussay"]
)
HALF = {name: 4 if ".trunk." in name else 3 for name in GROUP_NAMES}


def keeps(selections: dict[str, Selection]) -> dict[str, list[int]]:
    return {name: selection.keep.tolist() for name, selection in selections.items()}


def test_importance_selects_the_best_of_each_group() -> None:
    """The way from scores to selections, for every group at once: each group keeps its own best by its own score."""
    groups = TinyField(seed=3).groups()
    selections = select_neurons(groups, HALF, ImportanceStrategy(), w_out, seed=0)
    expected = {g.name: sorted(w_out(g).topk(HALF[g.name]).indices.tolist()) for g in groups}
    assert keeps(selections) == expected


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ({}, []),
        ({"field.trunk.1": 7, "field.trunk.2": 9}, []),
        ({"field.trunk.1": 6, "field.trunk.2": 9, "field.head.1": 1}, ["field.trunk.1", "field.head.1"]),
    ],
)
def test_only_groups_that_lose_neurons_are_selected(targets: dict[str, int], names: list[str]) -> None:
    """A target at or above the present width asks for nothing (widths never grow); such a group must not appear,
    because everything that appears is rebuilt."""
    selections = select_neurons(TinyField().groups(), targets, UniformStrategy(), None, seed=0)
    assert {name: len(s.keep) for name, s in selections.items()} == {name: targets[name] for name in names}


@random_strategies
@pytest.mark.parametrize("name", GROUP_NAMES)
def test_draw_of_a_group_is_independent_of_the_others(strategy: Strategy, name: str) -> None:
    """Ablations prune one layer at a time and add up; that makes sense only if a layer's draw is the same whichever
    other layers are pruned along with it."""
    groups = TinyField().groups()
    alone = select_neurons(groups, {name: HALF[name]}, strategy, w_in_w_out, seed=17)
    along = select_neurons(groups, HALF, strategy, w_in_w_out, seed=17)
    reverse = select_neurons(groups[::-1], HALF, strategy, w_in_w_out, seed=17)
    assert keeps(alone)[name] == keeps(along)[name] == keeps(reverse)[name]


@random_strategies
@pytest.mark.parametrize("shift", [1, 1_000_003, 2**32, 2**40])
def test_every_seed_gives_a_draw_of_its_own(strategy: Strategy, shift: int) -> None:
    """The seed mixes the run's seed and the step, and PyTorch's CPU generator looks at the low 32 bits only: a seed put
    into the high bits changes nothing, and all seeds and steps of a study would then choose the same neurons."""
    groups = TinyField().groups()
    draws = [keeps(select_neurons(groups, HALF, strategy, w_in_w_out, seed=i * shift)) for i in range(10)]
    assert len({str(draw) for draw in draws}) == 10
    assert keeps(select_neurons(groups, HALF, strategy, w_in_w_out, seed=3 * shift)) == draws[3]


def test_equal_groups_draw_apart() -> None:
    """Layers of one width must not all keep the same indices, as they would with one generator state for each."""
    selections = select_neurons(TinyField().groups(), HALF, UniformStrategy(), None, seed=0)
    assert len({str(s.keep.tolist()) for name, s in selections.items() if ".trunk." in name}) >= 3


@random_strategies
def test_selection_leaves_the_global_random_state(strategy: Strategy) -> None:
    """The same promise as for a whole event, at the part that draws most."""
    groups = TinyField().groups()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    select_neurons(groups, HALF, strategy, w_in_w_out, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"field.trunk.2": 0}, r"field\.trunk\.2: n_keep must be in \[1, 7\], got 0"),
        ({"field.head.0": -3}, "field.head.0: "),
    ],
)
def test_selection_errors_name_the_group(targets: dict[str, int], message: str) -> None:
    """With twenty groups an error without the group's name is of no use."""
    with pytest.raises(ValueError, match=message):
        select_neurons(TinyField().groups(), targets, UniformStrategy(), None, seed=0)


def test_named_parameters_are_those_of_the_network() -> None:
    """Masks, snapshots and fresh values are matched by these names and must cover every weight and bias of the network,
    in forward order."""
    field = TinyField()
    assert [(n, id(p)) for n, p in named_parameters(field.groups()).items()] == [
        (n, id(p)) for n, p in field.named().items()
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["trunk.0.weight", "trunk.2.bias", "density.weight", "rgb.bias"])
def test_non_finite_weights_are_named(value: float, name: str) -> None:
    """A run that diverged must not be pruned by meaningless scores; the user needs to know where it happened, how
    much is lost, and what helps. Every layer is looked at, readers included, and biases, which no score sees."""
    field = TinyField()
    parameter = dict(field.named_parameters())[name]
    with torch.no_grad():
        parameter.view(-1)[0] = value
    message = f"field.{name}: 1 of {parameter.numel()} values are not finite; nothing was pruned"
    with pytest.raises(NonFiniteWeightsError, match=re.escape(message)) as error:
        check_finite(field.groups())
    assert "learning rate" in str(error.value) and isinstance(error.value, ValueError)
    check_finite(TinyField().groups())


@dataclass
class Request:
    """Arguments of `prepare_pruning`, to be damaged."""

    training: Training
    selections: dict[str, Selection]
    recovery: RecoveryMode = "continue"
    masks: dict[str, Tensor] | None = None
    saved: dict[str, Tensor] | None = None

    def plan(self) -> Pruning:
        t = self.training
        return prepare_pruning(
            t.field.groups(), self.selections, self.recovery, t.optimizers, t.lists, 0, self.masks, self.saved
        )


def not_finite(request: Request) -> None:
    with torch.no_grad():
        request.training.field.named()["field.trunk.2.weight"][1, 4] = float("nan")


def overflow(request: Request) -> None:
    scale = torch.full((5,), 1e308, dtype=torch.float64)
    request.selections["field.trunk.3"] = Selection(torch.arange(5), scale)
    with torch.no_grad():
        request.training.field.density.weight.fill_(1e10)


def unknown_parameter(request: Request) -> None:
    optimizer = request.training.optimizers["fields"]
    last = optimizer.param_groups[0]["params"].pop(-2)
    del optimizer.state[last]


def no_snapshot(request: Request) -> None:
    request.recovery = "rewind"


def snapshot_lacks_a_layer(request: Request) -> None:
    request.recovery = "rewind"
    request.saved = copied(request.training.field.named())
    del request.saved["field.rgb.bias"]


def snapshot_of_a_smaller_network(request: Request) -> None:
    request.recovery = "rewind"
    request.saved = copied(TinyField(trunk=(5,) * 4, head=(3,) * 2).named())


def snapshot_of_a_larger_network(request: Request) -> None:
    request.recovery = "rewind"
    request.saved = copied(TinyField(trunk=(9,) * 4, head=(8,) * 2).named())


def mask_of_a_cut_layer_does_not_fit(request: Request) -> None:
    request.masks = {"field.trunk.1.weight": torch.ones(9, 9, dtype=torch.bool)}


def mask_of_a_whole_layer_does_not_fit(request: Request) -> None:
    del request.selections["field.trunk.0"]
    request.masks = {"field.trunk.0.weight": torch.ones(2, 2, dtype=torch.bool)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (not_finite, r"field\.trunk\.2\.weight: 1 of 70 values are not finite"),
        (overflow, r"field\.density\.weight: re-weighting or refit gave values that are not finite"),
        (unknown_parameter, r"field\.rgb\.weight of shape \(3, 5\) is in none of the optimizers"),
        (no_snapshot, r"rewind snapshot: parameter field\.trunk\.0\.weight .* found none"),
        (snapshot_lacks_a_layer, r"rewind snapshot: parameter field\.rgb\.bias must have shape \(3,\), found none"),
        (snapshot_of_a_smaller_network, r"rewind snapshot: parameter field\.trunk\.0\.weight must have shape \(7, 3\)"),
        (snapshot_of_a_larger_network, r"rewind snapshot: parameter field\.trunk\.0\.weight must have shape \(7, 3\)"),
        (mask_of_a_cut_layer_does_not_fit, r"edge mask: parameter field\.trunk\.1\.weight .* \(7, 7\), found \(9, 9\)"),
        (
            mask_of_a_whole_layer_does_not_fit,
            r"edge mask: parameter field\.trunk\.0\.weight .* \(7, 3\), found \(2, 2\)",
        ),
    ],
)
def test_failure_at_any_stage_changes_nothing(damage: Callable[[Request], None], message: str) -> None:
    """An event that fails in a run of hours must leave it able to go on: network, gradients, optimizers, the host's
    lists and the random state, to the bit and to the identity of the tensors. One failure for every check there is;
    and each must come out as ValueError, the kind that the controller records."""
    training = Training.start().run(3)
    request = Request(training, draw_selections(training.field.groups()))
    damage(request)
    before = fingerprint(training)
    with pytest.raises(ValueError, match=message):
        request.plan()
    assert fingerprint(training) == before


def broken(group: Any) -> Tensor:
    return torch.full((group.width,), float("nan")) if group.name == "field.head.1" else w_out(group)


def test_failure_of_a_score_changes_nothing() -> None:
    """Choosing comes before planning and runs code of others; a score that fails at the last group must leave no trace
    at the first."""
    training = Training.start().run(2)
    before = fingerprint(training)
    with pytest.raises(ValueError, match=r"field\.head\.1: scores must be finite, got 5"):
        select_neurons(training.field.groups(), HALF, ImportanceStrategy(), broken, seed=0)
    assert fingerprint(training) == before


@pytest.mark.parametrize("recovery", ["continue", "retrain", "rewind", "scratch"])
def test_a_plan_that_is_not_applied_changes_nothing(recovery: RecoveryMode) -> None:
    """Plan and apply are two things: a plan is also used to look ahead, and the random state must survive the draw of
    `scratch`."""
    training = Training.start().run(3)
    before = fingerprint(training)
    masks = {"field.trunk.1.weight": torch.zeros(7, 7, dtype=torch.bool)}
    saved = copied(training.field.named())
    Request(training, draw_selections(training.field.groups()), recovery, masks, saved).plan()
    assert fingerprint(training) == before


@pytest.mark.parametrize("recovery", ["continue", "retrain", "rewind", "scratch"])
def test_event_keeps_the_invariant(recovery: RecoveryMode) -> None:
    """After each event the optimizer and the host's list hold the network's own tensors in order, and the groups, which
    were built before it, describe the smaller network. Three events in a row."""
    training = Training.start()
    groups = training.field.groups()
    saved = copied(training.field.named())
    for event in range(3):
        training.run(2, first=2 * event)
        request = Request(training, draw_selections(groups, seed=event, drop=1), recovery, None, saved)
        pruning = request.plan()
        pruning.apply()
        saved = pruning.snapshot
        check_optimizers(training.optimizers, training.lists, {"fields": list(training.field.parameters())})
    assert {g.name: g.width for g in groups} == {n: 4 if ".trunk." in n else 2 for n in GROUP_NAMES}
    assert bool(torch.isfinite(training.step(9)))


@pytest.mark.parametrize("recovery", ["continue", "retrain", "rewind", "scratch"])
def test_masks_are_sliced_along_and_hold(recovery: RecoveryMode) -> None:
    """Edges that were pruned stay pruned when neurons go, in whatever mode: the masks are cut like their weights, and
    what they mask is zero right after the event, also where new or rewound values came in."""
    training = Training.start().run(3)
    generator = torch.Generator().manual_seed(4)
    names = ["field.trunk.2.weight", "field.trunk.3.weight", "field.head.0.weight", "field.rgb.weight"]
    named = training.field.named()
    masks = {name: torch.rand(named[name].shape, generator=generator) < 0.5 for name in names}
    selections = draw_selections(training.field.groups(), ["field.trunk.1", "field.trunk.2", "field.trunk.3"])
    keep = {g.name: torch.arange(g.width) for g in training.field.groups()}
    keep |= {name: selection.keep for name, selection in selections.items()}
    saved = copied(named)
    pruning = Request(training, selections, recovery, masks, saved).plan()
    pruning.apply()
    torch.testing.assert_close(pruning.masks, cut_by_hand(masks, keep), rtol=0, atol=0)
    for name in names:
        assert torch.equal(training.field.named()[name] != 0, pruning.masks[name])
    assert bool((training.field.named()["field.trunk.0.weight"] != 0).all())


def test_edge_event_keeps_every_tensor() -> None:
    """Edge pruning is an event without selections: zeros appear, but parameters, moments and lists stay the same
    objects, since nothing changed its shape."""
    training = Training.start().run(3)
    before = fingerprint(training)
    masks = {"field.trunk.1.weight": torch.eye(7, dtype=torch.bool)}
    Request(training, {}, "continue", masks).plan().apply()
    after = fingerprint(training)
    assert [key for key in before if before[key] != after[key]] == ["field.trunk.1.weight"]
    assert before["field.trunk.1.weight"][0][0] == after["field.trunk.1.weight"][0][0]
    weight = training.field.named()["field.trunk.1.weight"]
    assert torch.equal(weight != 0, masks["field.trunk.1.weight"])


def test_state_of_other_fields_passes_through() -> None:
    """Masks and snapshot hold both fields, while an event may touch the fine one only; what belongs to the other must
    come out as it went in, or the next checkpoint would lose it."""
    training = Training.start().run(1)
    masks = {"other.weight": torch.tensor([True, False])}
    saved = copied(training.field.named()) | {"other.weight": torch.tensor([3.0])}
    pruning = Request(training, draw_selections(training.field.groups()), "rewind", masks, saved).plan()
    pruning.apply()
    assert pruning.masks["other.weight"].tolist() == [True, False]
    assert pruning.snapshot["other.weight"].tolist() == [3.0]


def test_event_with_reweighting_is_the_scaled_cut() -> None:
    """The whole chain with the coreset of Mussay et al.: scores, draw, scale, surgery. The event's weights must be the
    hand-sliced ones times the factor of the column's neuron."""
    training = Training.start().run(2)
    groups = training.field.groups()
    before = {name: p.detach().clone() for name, p in training.field.named().items()}
    selections = select_neurons(groups, {"field.head.1": 3}, CoresetStrategy("mussay"), SCORES["sensitivity"], seed=1)
    selection = selections["field.head.1"]
    assert selection.scale is not None and bool((selection.scale != 1).all())
    Request(training, selections).plan().apply()
    expected = before["field.rgb.weight"][:, selection.keep] * selection.scale
    torch.testing.assert_close(training.field.rgb.weight.detach(), expected, rtol=1e-14, atol=0)
    assert torch.equal(training.field.rgb.bias, before["field.rgb.bias"])


@pytest.mark.parametrize(
    ("recovery", "kept"), [("continue", True), ("retrain", True), ("rewind", False), ("scratch", False)]
)
def test_gradients_follow_their_weights(recovery: RecoveryMode, kept: bool) -> None:
    """With gradient accumulation an event may fall between two backward passes: gradients of inherited weights
    are sliced and stay, those of weights that were replaced must not move the new ones."""
    training = Training.start().run(1)
    training.loss(1).backward()
    groups = training.field.groups()
    saved = copied(training.field.named())
    selections = select_neurons(groups, HALF, ImportanceStrategy(), w_in_w_out, seed=0)
    prepare_pruning(groups, selections, recovery, training.optimizers, training.lists, 0, None, saved).apply()
    for parameter in named_parameters(training.field.groups()).values():
        assert (parameter.grad is not None) is kept
        assert parameter.grad is None or parameter.grad.shape == parameter.shape
