"""Weights to go on with after an event."""

import pytest
import torch
from support.tiny_field import GROUP_NAMES, TinyField, Training, cut_by_hand, draw_selections, fingerprint
from torch import Tensor, nn

from nerfstudio_prune.core.optimizer_state import copied
from nerfstudio_prune.neurons.groups import expected_shapes
from nerfstudio_prune.neurons.pruner import Pruning, RecoveryMode, prepare_pruning
from nerfstudio_prune.neurons.recovery import fresh_values, rewound_values
from nerfstudio_prune.neurons.strategies import Selection

MODES: tuple[RecoveryMode, ...] = ("continue", "retrain", "rewind", "scratch")


def values_of(field: TinyField) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in field.named().items()}


def keep_of(selections: dict[str, Selection]) -> dict[str, Tensor]:
    return {name: selection.keep for name, selection in selections.items()}


def prune(
    training: Training,
    selections: dict[str, Selection],
    mode: RecoveryMode,
    saved: dict[str, Tensor] | None = None,
    seed: int = 5,
) -> Pruning:
    groups = training.field.groups()
    pruning = prepare_pruning(groups, selections, mode, training.optimizers, training.lists, seed, snapshot=saved)
    pruning.apply()
    return pruning


def seeded_field(seed: int, trunk: tuple[int, ...], head: tuple[int, ...], bias: bool = True) -> dict[str, Tensor]:
    """What `nn.Linear` draws for a network of these widths, layer after layer."""
    field = TinyField(trunk, head, bias=bias)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in field.layers().values():
            drawn = nn.Linear(layer.in_features, layer.out_features, bias)
            layer.load_state_dict(drawn.state_dict())
    return values_of(field)


def test_continue_inherits_weights_and_moments() -> None:
    """The default: nothing but the cut happens. Weights and moments equal those sliced by hand, to the bit."""
    training = Training.start().run(7)
    weights, moments = values_of(training.field), {k: training.moments(k) for k in ("exp_avg", "exp_avg_sq", "step")}
    selections = draw_selections(training.field.groups())
    prune(training, selections, "continue")
    keep = keep_of(selections)
    torch.testing.assert_close(values_of(training.field), cut_by_hand(weights, keep), rtol=0, atol=0)
    for key in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(training.moments(key), cut_by_hand(moments[key], keep), rtol=0, atol=0)
    assert training.moments("step") == moments["step"]


def test_retrain_starts_the_optimizer_anew() -> None:
    """`retrain` inherits the weights but trains them like a new network. The steps that follow must equal those of an
    optimizer just built; a moment or counter that survived at any layer, also at one that lost nothing, would show."""
    training = Training.start().run(7)
    weights = values_of(training.field)
    selections = draw_selections(training.field.groups(), ["field.trunk.1"])
    prune(training, selections, "retrain")
    keep = {g.name: torch.arange(g.width) for g in training.field.groups()} | keep_of(selections)
    torch.testing.assert_close(values_of(training.field), cut_by_hand(weights, keep), rtol=0, atol=0)
    assert len(training.optimizers["fields"].state) == 0
    fresh = TinyField(trunk=(7, 5, 7, 7))
    fresh.load_state_dict(training.field.state_dict())
    again = Training.start(fresh).run(3, first=7)
    training.run(3, first=7)
    torch.testing.assert_close(values_of(training.field), values_of(again.field), rtol=0, atol=0)


def test_rewind_follows_the_snapshot_through_two_events() -> None:
    """Rewinding gives the kept neurons the weights of an early step. The second event's indices count the survivors of
    the first, so the snapshot must be cut along with the network; and training after the first event must not write
    into it. Compared with the snapshot sliced by hand with the composed indices, at every layer, also those that
    lost nothing."""
    training = Training.start().run(3)
    saved = copied(training.field.named())
    original = {name: value.clone() for name, value in saved.items()}
    training.run(4, first=3)
    first = draw_selections(training.field.groups(), seed=3)
    event = prune(training, first, "rewind", saved)
    keep = keep_of(first)
    torch.testing.assert_close(values_of(training.field), cut_by_hand(original, keep), rtol=0, atol=0)
    assert len(training.optimizers["fields"].state) == 0
    training.run(3, first=7)
    second = draw_selections(
        training.field.groups(), ["field.trunk.1", "field.trunk.3", "field.head.0"], seed=4, drop=1
    )
    event = prune(training, second, "rewind", event.snapshot)
    keep = {name: keep[name][second[name].keep] if name in second else keep[name] for name in GROUP_NAMES}
    torch.testing.assert_close(values_of(training.field), cut_by_hand(original, keep), rtol=0, atol=0)
    torch.testing.assert_close(event.snapshot, cut_by_hand(original, keep), rtol=0, atol=0)
    torch.testing.assert_close(saved, original, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["continue", "retrain", "scratch"])
def test_snapshot_is_cut_in_every_mode(mode: RecoveryMode) -> None:
    """A run may rewind only at its last event; the snapshot must keep pace with the network at all others."""
    training = Training.start().run(1)
    saved = copied(training.field.named())
    selections = draw_selections(training.field.groups())
    event = prune(training, selections, mode, saved)
    torch.testing.assert_close(event.snapshot, cut_by_hand(saved, keep_of(selections)), rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scratch_is_a_network_initialised_at_that_size(bias: bool, dtype: torch.dtype) -> None:
    """`scratch` is the control that tells whether pruning was worth anything: it must be what PyTorch would have drawn
    for a network built at the new widths, at every layer, and keep no memory of the old one. Bounds of the
    initialisation depend on the fan-in, so the shapes must be the new ones before drawing."""
    training = Training.start(TinyField(bias=bias, dtype=dtype)).run(0)
    prune(training, draw_selections(training.field.groups()), "scratch", seed=11)
    expected = seeded_field(11, (5,) * 4, (3,) * 2, bias)
    found = values_of(training.field)
    assert {value.dtype for value in found.values()} == {dtype}
    torch.testing.assert_close(found, {k: v.to(dtype) for k, v in expected.items()}, rtol=0, atol=0)
    assert len(training.optimizers["fields"].state) == 0


def test_scratch_depends_on_the_seed_only() -> None:
    """Controls are repeated over seeds: equal seeds must give equal networks and different ones different networks,
    whatever was trained before."""
    shapes = expected_shapes(TinyField(seed=1).groups(), {})
    a, b, c = fresh_values(shapes, 3), fresh_values(shapes, 3), fresh_values(shapes, 4)
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert all(not torch.equal(a[name], c[name]) for name in shapes)


def test_scratch_draws_two_fields_apart() -> None:
    """Coarse and fine field are pruned in one event; two networks of one size that start with equal weights would be
    one network twice."""
    shapes = expected_shapes(TinyField().groups(), {})
    both = {name.replace("field", f"field_{which}"): s for which in ("coarse", "fine") for name, s in shapes.items()}
    values = fresh_values(both, 0)
    assert set(values) == set(both)
    assert not torch.equal(values["field_coarse.rgb.weight"], values["field_fine.rgb.weight"])


@pytest.mark.parametrize("mode", MODES)
def test_event_leaves_the_global_random_state(mode: RecoveryMode) -> None:
    """The order of training rays comes from the global generator; an event that draws from it, or seeds it, gives dense
    and pruned runs of one seed different data, and the comparison is lost."""
    training = Training.start().run(2)
    saved = copied(training.field.named())
    torch.manual_seed(123)
    before = torch.get_rng_state()
    prune(training, draw_selections(training.field.groups()), mode, saved)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", MODES)
def test_training_goes_on_after_every_mode(mode: RecoveryMode) -> None:
    """Whatever the weights come from, they must be trained: every one moves in the next step."""
    training = Training.start().run(2)
    saved = copied(training.field.named())
    prune(training, draw_selections(training.field.groups()), mode, saved)
    before = values_of(training.field)
    training.run(1, first=2)
    assert [n for n, value in values_of(training.field).items() if bool((value == before[n]).any())] == []


def test_snapshot_is_a_copy_on_the_cpu() -> None:
    """A snapshot that shares memory with the weights would follow the training it is to go back from."""
    training = Training.start()
    saved = copied(training.field.named())
    before = values_of(training.field)
    training.run(1)
    torch.testing.assert_close(saved, before, rtol=0, atol=0)
    assert all(value.device.type == "cpu" and not value.requires_grad for value in saved.values())


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({}, r"rewind snapshot: parameter a\.weight must have shape \(2, 3\), found none"),
        ({"a.weight": torch.zeros(3, 2)}, r"parameter a\.weight must have shape \(2, 3\), found \(3, 2\)"),
    ],
)
def test_snapshot_that_does_not_fit(saved: dict[str, Tensor], message: str) -> None:
    """A snapshot of other widths comes from another run; copying what happens to fit would mix two networks."""
    with pytest.raises(ValueError, match=message):
        rewound_values({"a.weight": (2, 3)}, saved)


def test_rewinding_without_a_cut_restores_the_network() -> None:
    """Rewinding back to a step must be possible without removing anything (the control for what rewinding alone does):
    weights of that step, parameters the same objects."""
    training = Training.start().run(3)
    saved = copied(training.field.named())
    training.run(2, first=3)
    before = fingerprint(training)
    prune(training, {}, "rewind", saved)
    after = fingerprint(training)
    torch.testing.assert_close(values_of(training.field), saved, rtol=0, atol=0)
    assert after["optimizer fields 0"] == before["optimizer fields 0"] and after["state fields"] == {}
