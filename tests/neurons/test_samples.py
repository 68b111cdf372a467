"""What the layers of a network see."""

import pytest
import torch
from support.sampled_field import points
from support.tiny_field import DIRECTION, GROUP_NAMES, POSITION, SKIP_LAYER, TinyField
from torch import Tensor, nn

from nerfstudio_prune.neurons.groups import Consumer, NeuronGroup
from nerfstudio_prune.neurons.samples import extra_columns, recorded_layers

LAYERS = (*GROUP_NAMES[:4], "field.density", *GROUP_NAMES[4:], "field.rgb")


def preactivations(field: TinyField, position: Tensor, direction: Tensor) -> dict[str, Tensor]:
    """The forward pass written out, with all that a layer puts out."""
    softplus, found, x = nn.functional.softplus, {}, position
    for i, layer in enumerate(field.trunk):
        found[f"field.trunk.{i}"] = layer(torch.cat([position, x], -1) if i == SKIP_LAYER else x)
        x = softplus(found[f"field.trunk.{i}"])
    found["field.density"] = field.density(x)
    x = torch.cat([direction, x], -1)
    for i, layer in enumerate(field.head):
        found[f"field.head.{i}"] = layer(x)
        x = softplus(found[f"field.head.{i}"])
    found["field.rgb"] = field.rgb(x)
    return found


@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2)], ids=["flat", "rays", "deeper"])
def test_records_are_what_the_forward_pass_computes(shape: tuple[int, ...]) -> None:
    """All that is chosen and refitted follows from these tensors. A layer's own inputs must be those that are no
    neurons (position at the first layer and at the skip, direction at the head, none elsewhere), one row per sample in
    the order of its outputs, whether samples come flat or by ray."""
    field = TinyField()
    position, direction = (x.view(*shape, -1) for x in points(rows=12))
    expected = preactivations(field, position, direction)
    with recorded_layers(field.groups()) as records:
        output = field(position, direction)
    assert set(records) == set(LAYERS) == set(expected)
    assert torch.equal(output, torch.cat([expected["field.rgb"], expected["field.density"]], -1))
    own = {"field.trunk.0": position, f"field.trunk.{SKIP_LAYER}": position, "field.head.0": direction}
    for name, (record,) in records.items():
        assert torch.equal(record.output, expected[name])
        extra = own.get(name, position[..., :0]).reshape(12, -1)
        assert record.extra.shape == extra.shape and torch.equal(record.extra, extra)


def test_columns_that_read_no_neurons() -> None:
    """One column too many is a neuron that can never leave; one too few is a position that pruning would cut away."""
    columns = extra_columns(TinyField().groups())
    numbers = {name: mask.nonzero()[:, 0].tolist() for name, mask in columns.items()}
    empty = {name: [] for name in LAYERS}
    own = {
        "field.trunk.0": [*range(POSITION)],
        "field.trunk.2": [*range(POSITION)],
        "field.head.0": [*range(DIRECTION)],
    }
    assert numbers == {**empty, **own}


def test_columns_on_both_sides_of_the_neurons() -> None:
    """A layer may read something behind the neurons as well; its order must be that of the columns."""
    producer, reader = nn.Linear(2, 3), nn.Linear(6, 1)
    group = NeuronGroup("a", producer, (Consumer("b", reader, 1),))
    assert extra_columns([group])["b"].tolist() == [True, False, False, False, True, True]
    x = torch.arange(12.0).view(2, 6)
    with recorded_layers([group]) as records:
        reader(x)
    assert records["b"][0].extra.tolist() == [[0, 4, 5], [6, 10, 11]]


def test_gradients_flow_through_recorded_outputs() -> None:
    """Weights of samples are gradients with respect to pre-activations; they are taken through the records after the
    forward pass. The chain rule by hand at the last layers, and no gradient may end up in the network's parameters."""
    field = TinyField()
    with recorded_layers(field.groups()) as records:
        output = field(*points())
    last, before = records["field.rgb"][0].output, records["field.head.1"][0].output
    through_last, through_before = torch.autograd.grad(output[:, :3].sum(), [last, before])
    assert torch.equal(through_last, torch.ones_like(last))
    expected = field.rgb.weight.sum(dim=0) * torch.sigmoid(before)
    torch.testing.assert_close(through_before, expected, rtol=1e-12, atol=1e-14)
    assert all(p.grad is None for p in field.parameters())
    assert not any(record.extra.requires_grad for (record,) in records.values())


def test_recorded_inputs_keep_no_graph() -> None:
    """Samples outlive the batch; with a graph behind them every batch's activations would stay in memory."""
    field = TinyField()
    position, direction = (x.requires_grad_() for x in points())
    with recorded_layers(field.groups()) as records:
        field(position, direction)
    assert all(record.extra.grad_fn is None and not record.extra.requires_grad for (record,) in records.values())


def hooks(field: TinyField) -> int:
    return sum(len(layer._forward_hooks) for layer in field.layers().values())


def test_hooks_are_gone_afterwards() -> None:
    """A hook that stays behind slows every training step and holds its last batch in memory."""
    field = TinyField()
    with recorded_layers(field.groups()) as records:
        assert hooks(field) == len(LAYERS)
    assert hooks(field) == 0
    field(*points())
    assert records == {}


def test_hooks_are_gone_after_an_exception() -> None:
    """Also when rendering fails, for instance for want of memory, and the run goes on without the event."""
    field = TinyField()
    with pytest.raises(RuntimeError, match="out of memory"), recorded_layers(field.groups()):
        raise RuntimeError("out of memory")
    assert hooks(field) == 0


def test_calls_are_recorded_one_by_one() -> None:
    """A network may be evaluated more than once for a ray. Every call counts, and records of two calls must not mix."""
    field, passes = TinyField(), (points(seed=1), points(seed=2, rows=7))
    expected = [preactivations(field, *each) for each in passes]
    with recorded_layers(field.groups()) as records:
        for each in passes:
            field(*each)
    assert all(torch.equal(r.extra, p) for r, (p, _) in zip(records["field.trunk.0"], passes, strict=True))
    for name, calls in records.items():
        assert all(torch.equal(r.output, e[name]) for r, e in zip(calls, expected, strict=True))
