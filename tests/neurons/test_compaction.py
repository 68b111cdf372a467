"""From selections to smaller layers."""

import pytest
import torch
from tiny_field import GROUP_NAMES, TinyField, cut_by_hand, draw_selections, gates_of, inputs
from torch import Tensor, nn

from nerfstudio_prune.neurons.compaction import apply_compaction, plan_compaction
from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.strategies import Selection

which_groups = pytest.mark.parametrize(
    "names", [*((name,) for name in GROUP_NAMES), GROUP_NAMES], ids=[*GROUP_NAMES, "all"]
)


def compact(groups: list[NeuronGroup], selections: dict[str, Selection]) -> None:
    apply_compaction(plan_compaction(groups, selections))


def outputs_and_input_gradients(field: TinyField, gates: dict[str, Tensor] | None = None) -> list[Tensor]:
    position, direction = (x.requires_grad_() for x in inputs())
    output = field(position, direction, gates)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), [position, direction])]


def widths_of(field: TinyField) -> dict[str, int]:
    return {group.name: group.width for group in field.groups()}


@which_groups
@pytest.mark.parametrize("scaled", [False, True], ids=["kept", "re-weighted"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_compacted_network_equals_the_masked_one(names: tuple[str, ...], scaled: bool, bias: bool) -> None:
    """The promise of structured pruning: the small network computes exactly what the large one computes with the
    removed neurons' activations at zero (and the kept ones scaled). Outputs and input gradients, in double precision,
    for every group alone, where a wrong offset at the skip or at the direction shows, and for all together."""
    field = TinyField(bias=bias)
    selections = draw_selections(field.groups(), names, scaled=scaled)
    expected = outputs_and_input_gradients(field, gates_of(widths_of(field), selections))
    dense = outputs_and_input_gradients(field)
    compact(field.groups(), selections)
    found = outputs_and_input_gradients(field)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found[0], dense[0], rtol=1e-3)


@which_groups
@pytest.mark.parametrize("scaled", [False, True], ids=["kept", "re-weighted"])
def test_twice_in_a_row(names: tuple[str, ...], scaled: bool) -> None:
    """Iterative schedules cut a network that was cut before. The second event's indices count the survivors, so offsets
    and widths must come from the tensors of that moment; the reference composes both cuts on the large network."""
    field, reference = TinyField(), TinyField()
    groups = field.groups()
    first = draw_selections(groups, names, seed=3, scaled=scaled)
    compact(groups, first)
    second = draw_selections(groups, names, seed=4, scaled=scaled, drop=1)
    compact(groups, second)
    gates = gates_of(widths_of(reference), first)
    for name, gate in gates_of({n: len(s.keep) for n, s in first.items()}, second).items():
        gates[name][first[name].keep] *= gate
    torch.testing.assert_close(
        outputs_and_input_gradients(field), outputs_and_input_gradients(reference, gates), rtol=1e-12, atol=1e-14
    )
    assert [group.width for group in groups if group.name in names] == [7 - 3 if ".trunk." in n else 2 for n in names]


@which_groups
def test_weights_are_those_sliced_by_hand(names: tuple[str, ...]) -> None:
    """Two errors that cancel in the output (a permuted row with its permuted column) would still break moments, masks
    and snapshots, which are cut by the same indices; so the tensors themselves are compared, layer by layer."""
    field = TinyField()
    before = {name: p.detach().clone() for name, p in field.named().items()}
    selections = draw_selections(field.groups(), names)
    keep = {g.name: selections[g.name].keep if g.name in names else torch.arange(g.width) for g in field.groups()}
    compact(field.groups(), selections)
    after = {name: p.detach() for name, p in field.named().items()}
    torch.testing.assert_close(after, cut_by_hand(before, keep), rtol=0, atol=0)


def test_declared_sizes_follow() -> None:
    """`in_features` and `out_features` are what printing a model, exporters and cost counters show; a layer whose
    numbers disagree with its tensors misleads all of them."""
    field = TinyField()
    compact(field.groups(), draw_selections(field.groups()))
    declared = {name: (layer.out_features, layer.in_features) for name, layer in field.layers().items()}
    assert declared == {
        "field.trunk.0": (5, 3),
        "field.trunk.1": (5, 5),
        "field.trunk.2": (5, 8),
        "field.trunk.3": (5, 5),
        "field.density": (1, 5),
        "field.head.0": (3, 7),
        "field.head.1": (3, 3),
        "field.rgb": (3, 3),
    }
    assert {name: tuple(layer.weight.shape) for name, layer in field.layers().items()} == declared


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("scaled", [False, True], ids=["kept", "re-weighted"])
def test_dtype_stays(dtype: torch.dtype, scaled: bool) -> None:
    """Scales are double; multiplying must not turn a float32 network into a double one, which would halve the speed of
    training without a word, and fail in a half-precision network."""
    field = TinyField(dtype=dtype)
    compact(field.groups(), draw_selections(field.groups(), scaled=scaled))
    assert {p.dtype for p in field.parameters()} == {dtype}


def test_frozen_layers_stay_frozen_and_parameters_stay_leaves() -> None:
    """A frozen layer that starts to train, a trained one that stops, or a parameter with a graph behind it (which the
    optimizer would refuse) are all one missing argument away."""
    field = TinyField()
    field.density.requires_grad_(False)
    field.trunk[1].requires_grad_(False)
    frozen = {name for name, p in field.named().items() if not p.requires_grad}
    compact(field.groups(), draw_selections(field.groups(), scaled=True))
    assert {name for name, p in field.named().items() if not p.requires_grad} == frozen and len(frozen) == 4
    assert all(p.is_leaf and type(p) is nn.Parameter for p in field.parameters())


def test_bias_free_layers_stay_bias_free() -> None:
    """A bias that appears on the way changes the function and the parameter count."""
    field = TinyField(bias=False)
    compact(field.groups(), draw_selections(field.groups()))
    assert all(layer.bias is None for layer in field.layers().values())


def test_scale_multiplies_exactly_the_kept_outgoing_columns_of_every_consumer() -> None:
    """Re-weighting makes a sampled layer unbiased only if every reader of a neuron sees the same factor, and nothing
    else does: not the direction's columns that stand before, not the bias, not the neuron's own row."""
    field = TinyField()
    before = {name: p.detach().clone() for name, p in field.named().items()}
    keep, scale = torch.tensor([1, 4, 6]), torch.tensor([2.0, -0.5, 1.0], dtype=torch.float64)
    compact(field.groups(), {"field.trunk.3": Selection(keep, scale)})
    after = {name: p.detach() for name, p in field.named().items()}
    assert torch.equal(after["field.density.weight"], before["field.density.weight"][:, [1, 4, 6]] * scale)
    head = before["field.head.0.weight"]
    assert torch.equal(after["field.head.0.weight"], torch.cat([head[:, :2], head[:, [3, 6, 8]] * scale], dim=1))
    assert torch.equal(after["field.trunk.3.weight"], before["field.trunk.3.weight"][[1, 4, 6]])
    assert torch.equal(after["field.trunk.3.bias"], before["field.trunk.3.bias"][[1, 4, 6]])
    changed = {"field.density.weight", "field.head.0.weight", "field.trunk.3.weight", "field.trunk.3.bias"}
    assert {name for name in before if not torch.equal(before[name], after[name])} == changed


def test_scale_without_a_cut() -> None:
    """A strategy may re-weight a group that it leaves whole; the columns must then change although no index does."""
    field = TinyField()
    before = field.rgb.weight.detach().clone()
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    edits = plan_compaction(field.groups(), {"field.head.1": Selection(torch.arange(5), scale)})
    apply_compaction(edits)
    assert [edit.name for edit in edits] == ["field.rgb.weight"]
    assert torch.equal(field.rgb.weight.detach(), before * scale)


@pytest.mark.parametrize("names", [(), GROUP_NAMES], ids=["not named", "all kept"])
def test_keeping_all_edits_nothing(names: tuple[str, ...]) -> None:
    """An event that removes nothing must leave parameters their identity, so that neither the optimizer nor the viewer
    sees a change."""
    field = TinyField()
    assert plan_compaction(field.groups(), draw_selections(field.groups(), names, drop=0)) == []


def test_edits_name_each_changed_parameter_once() -> None:
    """The list of edits is the interface between surgery and optimizer: a layer that loses rows and columns must come
    as one edit, because two would slice its moments twice; an untouched parameter must not appear at all."""
    field = TinyField()
    edits = plan_compaction(field.groups(), draw_selections(field.groups(), ["field.trunk.1", "field.trunk.2"]))
    dims = {edit.name: sorted(edit.keep) for edit in edits}
    assert len(dims) == len(edits)
    assert dims == {
        "field.trunk.1.weight": [0],
        "field.trunk.1.bias": [0],
        "field.trunk.2.weight": [0, 1],
        "field.trunk.2.bias": [0],
        "field.trunk.3.weight": [1],
    }


def test_planning_leaves_the_network_alone() -> None:
    """A plan may be thrown away (a check fails later); until it is applied the network must be what it was, and the new
    parameters must not share memory with the old ones, or training one would move the other."""
    field = TinyField()
    before = {name: (p, p.detach().clone()) for name, p in field.named().items()}
    edits = plan_compaction(field.groups(), draw_selections(field.groups(), scaled=True))
    for edit in edits:
        with torch.no_grad():
            edit.new.zero_()
    for name, p in field.named().items():
        assert p is before[name][0] and torch.equal(p, before[name][1])
    assert len(edits) == 14
