"""Which tensors share a neuron axis, and what they cost."""

import pytest
import torch
from support.tiny_field import DIRECTION, GROUP_NAMES, POSITION, PREFIX, TinyField, draw_selections
from torch import nn

from nerfstudio_prune.neurons.compaction import apply_compaction, prepare_compaction
from nerfstudio_prune.neurons.groups import (
    Consumer,
    NeuronGroup,
    count_parameters,
    expected_shapes,
    linears,
    macs_per_sample,
    match_groups,
    mlp_groups,
    networks,
)


def test_groups_of_a_field() -> None:
    """The table of producers, consumers and column offsets is what all surgery relies on; an offset of 0 at the skip
    layer would remove the raw position instead of neurons and still give fitting shapes. Written out in full."""
    table = {g.name: (g.width, [(c.name, c.column_offset) for c in g.consumers]) for g in TinyField().groups()}
    assert table == {
        "field.trunk.0": (7, [("field.trunk.1", 0)]),
        "field.trunk.1": (7, [("field.trunk.2", POSITION)]),
        "field.trunk.2": (7, [("field.trunk.3", 0)]),
        "field.trunk.3": (7, [("field.density", 0), ("field.head.0", DIRECTION)]),
        "field.head.0": (5, [("field.head.1", 0)]),
        "field.head.1": (5, [("field.rgb", 0)]),
    }
    assert tuple(table) == GROUP_NAMES


def test_groups_hold_the_layers_themselves() -> None:
    """Widths and weights are read off the live layers, so that the groups of a model stay right after an event without
    being built again."""
    field = TinyField()
    groups = {g.name: g for g in field.groups()}
    layers = field.layers()
    assert all(group.producer is layers[name] for name, group in groups.items())
    assert all(c.linear is layers[c.name] for group in groups.values() for c in group.consumers)
    group = groups["field.trunk.1"]
    group.producer.weight = nn.Parameter(torch.zeros(3, 7))
    assert group.width == 3 and group.incoming.shape == (3, 7) and group.outgoing.shape == (7, 3)


def test_outgoing_reads_the_right_columns() -> None:
    """Scores of a neuron come from its own outgoing weights in every consumer; with numbered columns a shift by the
    offset of the skip or of the direction shows at once."""
    field = TinyField()
    groups = {g.name: g for g in field.groups()}
    with torch.no_grad():
        for layer in field.layers().values():
            layer.weight.copy_(torch.arange(layer.in_features).expand_as(layer.weight))
    assert torch.equal(groups["field.trunk.0"].outgoing[0], torch.arange(7.0).double())
    assert torch.equal(groups["field.trunk.1"].outgoing[0], torch.arange(3.0, 10.0).double())
    both = groups["field.trunk.3"].outgoing
    assert both.shape == (1 + 5, 7)
    assert torch.equal(both[0], torch.arange(7.0).double()) and torch.equal(both[5], torch.arange(2.0, 9.0).double())


@pytest.mark.parametrize(("skips", "offsets"), [((), [0, 0, 0]), ((1,), [9, 0, 0]), ((0, 2, 3), [0, 9, 9])])
def test_skip_layers(skips: tuple[int, ...], offsets: list[int]) -> None:
    """A skip may stand at any layer, at several or at none; one that is listed at the first layer has no hidden
    features before it and must not shift anything."""
    groups = mlp_groups("m", [nn.Linear(2, 2) for _ in range(4)], [], skips, 9)
    assert [c.column_offset for g in groups[:-1] for c in g.consumers] == offsets
    assert groups[-1].consumers == ()


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*"], list(GROUP_NAMES)),
        (["field.trunk.[1-2]"], ["field.trunk.1", "field.trunk.2"]),
        (["field.head.*", "field.trunk.0"], ["field.trunk.0", "field.head.0", "field.head.1"]),
        (["field.trunk.3", "*.3"], ["field.trunk.3"]),
        ([], []),
    ],
)
def test_match_groups(patterns: list[str], names: list[str]) -> None:
    """Users name layers by patterns; the result keeps forward order and holds a group once, however often and in
    whatever order it was matched, for it is iterated to prune."""
    assert [g.name for g in match_groups(TinyField().groups(), patterns)] == names


def test_pattern_without_a_match_lists_the_groups() -> None:
    """A typing error in a pattern must not mean that nothing is pruned for hours. The names cannot be guessed, so the
    message lists them all, and says which option it was."""
    with pytest.raises(ValueError) as error:
        match_groups(TinyField().groups(), ["field.head.*", "trunk.1"], option="group_widths")
    assert "group_widths: pattern 'trunk.1' matches no group" in str(error.value)
    assert all(name in str(error.value) for name in GROUP_NAMES)


def test_linears_in_forward_order() -> None:
    """Scratch draws and records go through the layers in this order, each layer once although the last trunk layer has
    two readers; a changed order would change every seeded initialisation."""
    field = TinyField()
    assert list(linears(field.groups()).items()) == list(field.layers().items())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "widths",
    [{}, {"field.trunk.1": 4}, {"field.trunk.3": 1}, dict(zip(GROUP_NAMES, (6, 5, 4, 3, 2, 1), strict=True))],
    ids=["none", "skip", "two readers", "all"],
)
def test_expected_shapes_are_those_of_a_network_built_so(bias: bool, widths: dict[str, int]) -> None:
    """These shapes decide whether a checkpoint or a rewind snapshot fits. The reference is a network that is built with
    those widths from the start."""
    names = {name: (7 if ".trunk." in name else 5) for name in GROUP_NAMES} | widths
    built = TinyField(trunk=[names[n] for n in GROUP_NAMES[:4]], head=[names[n] for n in GROUP_NAMES[4:]], bias=bias)
    shapes = expected_shapes(TinyField(bias=bias).groups(), widths)
    assert shapes == {name: tuple(p.shape) for name, p in built.named().items()}


def test_layer_that_reads_a_group_twice() -> None:
    """A layer may read the same neurons at two places (a dense connection); each removed neuron then costs it two
    columns."""
    producer, reader = nn.Linear(2, 4, bias=False), nn.Linear(8, 1, bias=False)
    group = NeuronGroup("p", producer, (Consumer("r", reader, 0), Consumer("r", reader, 4)))
    assert expected_shapes([group], {"p": 3}) == {"p.weight": (3, 2), "r.weight": (1, 6)}


def test_network_and_layer_of_a_group() -> None:
    """Options, tables and samples go by network and role. Whoever makes the groups tells both; a name says nothing
    about them, since a module path may begin with anything: here the network lies two modules deep."""
    layers = [nn.Linear(2, 2) for _ in range(2)]
    deep = mlp_groups("model.fields.3.layers", layers, [], network="model.fields.3", role="trunk")
    assert [(g.network, g.role, g.layer) for g in deep] == [
        ("model.fields.3", "trunk", "layers.0"),
        ("model.fields.3", "trunk", "layers.1"),
    ]
    assert [(g.network, g.role) for g in TinyField().groups()] == [(PREFIX, "trunk")] * 4 + [(PREFIX, "head")] * 2
    bare = mlp_groups("m", layers, [])
    assert [(g.network, g.role, g.layer) for g in bare] == [("", "", "m.0"), ("", "", "m.1")]


def test_groups_by_network() -> None:
    """Networks are walked one by one, front to back: groups of one network come together and in order, also where two
    networks have names that begin alike."""
    one = mlp_groups("field.layers", [nn.Linear(2, 2) for _ in range(2)], [], network="field")
    two = mlp_groups("field.other.layers", [nn.Linear(2, 2) for _ in range(3)], [], network="field.other")
    found = {name: [group.name for group in members] for name, members in networks([*one, *two])}
    assert found == {"field": [g.name for g in one], "field.other": [g.name for g in two]}
    assert list(networks([])) == []


def nerf(width: int, head: int) -> list[nn.Linear]:
    """The layers of the original NeRF (trunk of 8 with a skip into the sixth, bottleneck, density, one head layer)."""
    sizes = [(63, width), *[(width, width)] * 4, (width + 63, width), *[(width, width)] * 2]
    sizes += [(width, width), (width, 1), (width + 27, head), (head, 3)]
    with torch.device("meta"):
        return [nn.Linear(i, o) for i, o in sizes]


@pytest.mark.parametrize(("width", "head", "parameters", "macs"), [(256, 128, 595_844, 593_408)])
def test_published_size_of_nerf(width: int, head: int, parameters: int, macs: int) -> None:
    """The original NeRF has 595,844 parameters, the paper's 595 K; a counter that misses biases or counts them as
    multiply-accumulates could not be compared with any published table."""
    assert count_parameters(nerf(width, head)) == parameters
    assert macs_per_sample(nerf(width, head)) == macs


def test_costs_follow_the_tensors() -> None:
    """Sizes before and after an event stand in every record; they are read off the tensors, so that the ones after must
    be those of a network built that small."""
    field = TinyField()
    apply_compaction(prepare_compaction(field.groups(), draw_selections(field.groups(), GROUP_NAMES)))
    built = TinyField(trunk=(5,) * 4, head=(3,) * 2)
    assert count_parameters(field.layers().values()) == sum(p.numel() for p in built.parameters())
    macs = 5 * 3 + 5 * 5 + 5 * (3 + 5) + 5 * 5 + 1 * 5 + 3 * (2 + 5) + 3 * 3 + 3 * 3
    assert macs_per_sample(field.layers().values()) == macs
