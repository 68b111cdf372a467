"""From selections to smaller layers."""

import pytest
import torch
from support.tiny_field import GROUP_NAMES, TinyField, Training, cut_by_hand, draw_selections, gates_of, inputs
from torch import Tensor, nn

from nerfstudio_prune.core.optimizer_state import prepare_rebind
from nerfstudio_prune.neurons.compaction import MomentsMode, apply_compaction, prepare_compaction
from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.strategies import Selection

which_groups = pytest.mark.parametrize(
    "names", [*((name,) for name in GROUP_NAMES), GROUP_NAMES], ids=[*GROUP_NAMES, "all"]
)


def compact(groups: list[NeuronGroup], selections: dict[str, Selection]) -> None:
    apply_compaction(prepare_compaction(groups, selections))


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
    edits = prepare_compaction(field.groups(), {"field.head.1": Selection(torch.arange(5), scale)})
    apply_compaction(edits)
    assert [edit.name for edit in edits] == ["field.rgb.weight"]
    assert torch.equal(field.rgb.weight.detach(), before * scale)


@pytest.mark.parametrize("names", [(), GROUP_NAMES], ids=["not named", "all kept"])
def test_keeping_all_edits_nothing(names: tuple[str, ...]) -> None:
    """An event that removes nothing must leave parameters their identity, so that neither the optimizer nor the viewer
    sees a change."""
    field = TinyField()
    assert prepare_compaction(field.groups(), draw_selections(field.groups(), names, drop=0)) == []


def test_edits_name_each_changed_parameter_once() -> None:
    """The list of edits is the interface between surgery and optimizer: a layer that loses rows and columns must come
    as one edit, because two would slice its moments twice; an untouched parameter must not appear at all."""
    field = TinyField()
    edits = prepare_compaction(field.groups(), draw_selections(field.groups(), ["field.trunk.1", "field.trunk.2"]))
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
    edits = prepare_compaction(field.groups(), draw_selections(field.groups(), scaled=True))
    for edit in edits:
        with torch.no_grad():
            edit.new.zero_()
    for name, p in field.named().items():
        assert p is before[name][0] and torch.equal(p, before[name][1])
    assert len(edits) == 14


def with_refit(field: TinyField, names: tuple[str, ...] = GROUP_NAMES, drop: int = 2) -> dict[str, Selection]:
    """Selections with arbitrary values for all readers, in full size and double precision."""
    generator = torch.Generator().manual_seed(8)
    selections = draw_selections(field.groups(), names, drop=drop)
    for group in field.groups():
        if group.name in names:
            refit = {}
            for consumer in group.consumers:
                shape, bias = consumer.linear.weight.shape, consumer.linear.bias
                weight = torch.randn(shape, generator=generator, dtype=torch.float64)
                refit[consumer.name] = (
                    weight,
                    None if bias is None else torch.randn(shape[0], generator=generator).double(),
                )
            selections[group.name] = Selection(selections[group.name].keep, refit=refit)
    return selections


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@which_groups
def test_refitted_values_are_cut_like_the_ones_they_replace(
    names: tuple[str, ...], bias: bool, dtype: torch.dtype
) -> None:
    """A refitted layer also loses rows when its own neurons leave: new values and cut must meet in one parameter, of
    the old type. Compared with replacing the values in the large network and slicing that by hand."""
    field = TinyField(bias=bias, dtype=dtype)
    selections = with_refit(field, names)
    values = {name: p.detach().clone() for name, p in field.named().items()}
    for selection in selections.values():
        for name, (weight, new_bias) in selection.refit.items():
            values[f"{name}.weight"] = weight.to(dtype)
            if new_bias is not None:
                values[f"{name}.bias"] = new_bias.to(dtype)
    keep = {g.name: selections[g.name].keep if g.name in names else torch.arange(g.width) for g in field.groups()}
    compact(field.groups(), selections)
    after = {name: p.detach() for name, p in field.named().items()}
    torch.testing.assert_close(after, cut_by_hand(values, keep), rtol=0, atol=0)
    assert {p.dtype for p in field.parameters()} == {dtype} and all(p.is_leaf for p in field.parameters())


def test_refit_without_a_cut() -> None:
    """Behind a cut also groups that keep all neurons are refitted; weight and bias then change and nothing shrinks."""
    field = TinyField()
    selections = with_refit(field, ("field.head.1",), drop=0)
    edits = prepare_compaction(field.groups(), selections)
    assert [(edit.name, dict(edit.keep)) for edit in edits] == [("field.rgb.weight", {}), ("field.rgb.bias", {})]
    apply_compaction(edits)
    weight, bias = selections["field.head.1"].refit["field.rgb"]
    assert torch.equal(field.rgb.weight, weight) and bias is not None and torch.equal(field.rgb.bias, bias)
    weight.zero_()
    assert bool(field.rgb.weight.all())  # no shared memory


REFITTED = ("field.trunk.1", "field.trunk.3")
"""Groups with a refit below; one of their readers loses rows as well, one has two readers."""


@pytest.mark.parametrize("mode", ["keep", "rescale", "reset"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_moments_of_refitted_layers(mode: MomentsMode, bias: bool) -> None:
    """What the optimizer remembers belongs to the values before the refit. `keep` slices it, `rescale` multiplies each
    column of a refitted weight by what its norm grew (second moments by the square), `reset` forgets it with the
    counter. Layers that are only cut, and biases unless reset, are sliced whatever the mode."""
    field = TinyField(bias=bias)
    training = Training.start(field, torch.optim.Adam).run(4)
    first, second = training.moments("exp_avg"), training.moments("exp_avg_sq")
    selections = {**with_refit(field, REFITTED), **draw_selections(field.groups(), ["field.trunk.2"], seed=5)}
    before = {name: p.detach().clone() for name, p in field.named().items()}
    keep = {g.name: selections[g.name].keep if g.name in selections else torch.arange(g.width) for g in field.groups()}
    edits = prepare_compaction(field.groups(), selections, mode)
    rebind = prepare_rebind(training.optimizers, training.lists, edits)
    apply_compaction(edits)
    rebind.apply()
    before, first, second = (cut_by_hand(tensors, keep) for tensors in (before, first, second))
    refitted = {f"field.{name}.{kind}" for name in ("trunk.2", "density", "head.0") for kind in ("weight", "bias")}
    state = training.optimizers["fields"].state
    for name, p in field.named().items():
        if name in refitted and mode == "reset":
            assert p not in state
            continue
        assert state[p]["step"] == 4
        factor: Tensor = torch.ones(())
        if name in refitted and mode == "rescale" and name.endswith("weight"):
            columns = range(p.shape[1])
            factor = torch.stack([p[:, j].detach().norm() / before[name][:, j].norm() for j in columns])
            assert float((factor - 1).abs().min()) > 1e-3
        torch.testing.assert_close(state[p]["exp_avg"], first[name] * factor, rtol=1e-13, atol=0)
        torch.testing.assert_close(state[p]["exp_avg_sq"], second[name] * factor**2, rtol=1e-13, atol=0)
    training.run(3, first=4)
    assert all(bool(torch.isfinite(p).all()) and state[p]["step"] >= 3 for p in field.parameters())


def test_rescaling_of_columns_that_were_zero() -> None:
    """A column without weights has no norm to compare with; its moments stay finite and as they are."""
    field = TinyField()
    with torch.no_grad():
        field.rgb.weight[:, 2] = 0
    edits = prepare_compaction(field.groups(), with_refit(field, ("field.head.1",), drop=0), "rescale")
    factor = edits[0].moment_factor
    assert factor is not None and factor[2] == 1 and bool(torch.isfinite(factor).all())
    assert edits[1].moment_factor is None


def test_moments_of_layers_that_are_only_cut_are_never_touched() -> None:
    """The option is for refitted layers; without a refit every mode gives the same edits."""
    field = TinyField()
    for mode in ("keep", "rescale", "reset"):
        edits = prepare_compaction(field.groups(), draw_selections(field.groups()), mode)
        assert len(edits) == 14 and not any(edit.forget or edit.moment_factor is not None for edit in edits)
