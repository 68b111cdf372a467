"""Tiny networks: stacked, packed and in classes, against each network alone in float64."""

import pickle
import weakref
from copy import deepcopy

import pytest
import torch
from support.single_networks import (
    encode_by_hand,
    member,
    shaken,
    single,
    some_classes,
    some_networks,
    some_shape,
)
from torch.nn.functional import normalize

from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.encoding import encode, encoded_width, frequencies_for
from nerfstudio_prune.kilonerf.networks import TinyNetworks
from nerfstudio_prune.kilonerf.shape import NetworkShape


def drawn(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positions = 2 * torch.rand(*shape, 3, generator=generator) - 1
    return positions, normalize(torch.randn(*shape, 3, generator=generator), dim=-1)


@pytest.mark.parametrize(("frequencies", "tolerance"), [(0, 0.0), (1, 1e-6), (5, 1e-5), (10, 1e-4)])
def test_angle_doubling_is_the_encoding(frequencies: int, tolerance: float) -> None:
    """One sine and one cosine give all frequencies; the rounding doubles each time, as that of the angle itself
    does."""
    x, _ = drawn(1000)
    found = encode(x, frequencies)
    assert found.shape == (1000, encoded_width(frequencies))
    torch.testing.assert_close(found.double(), encode_by_hand(x.double(), frequencies), atol=tolerance, rtol=0)


def test_frequencies_follow_from_the_size_of_a_pixel() -> None:
    """Finer than a period of two pixels is noise to fit, and costs as much as a layer. Period of frequency k: two sides
    of a cell, over 2^k."""
    for cell, footprint, expected in ((1.0, 1.0, 1), (1.0, 0.25, 3), (1.0, 0.24, 3), (1.0, 10.0, 1), (1.0, 1e-9, 10)):
        count = frequencies_for(cell, footprint)
        assert count == expected
        assert count in (1, 10) or 2 * cell / 2 ** (count - 1) >= 2 * footprint > 2 * cell / 2**count
    with pytest.raises(ValueError, match="must be positive, got 1 and 0"):
        frequencies_for(1.0, 0.0)


def test_counts_of_a_shape_are_those_of_the_tensors() -> None:
    """Budgets are kept by these numbers. The shape of KiloNeRF without its linear layer: 4,196 parameters, 4,096
    multiply-accumulates."""
    shape = NetworkShape()
    assert (shape.parameters, shape.macs) == (4196, 4096)
    for other in (shape, some_shape(), NetworkShape(5, 1, 0, 0), NetworkShape(16, 4, 10, 2)):
        networks = TinyNetworks(3, other, torch.Generator())
        assert sum(p.numel() for p in networks.parameters()) == 3 * other.parameters
        weights = [p for name, p in networks.named_parameters() if name.startswith("w")]
        assert sum(p[0].numel() for p in weights) == other.macs
    with pytest.raises(ValueError, match=r"grid\.hidden_width must be at least 1, got 0"):
        NetworkShape(hidden_width=0)


def test_all_networks_begin_as_the_same_one() -> None:
    """As in KiloNeRF: cells that meet begin alike, so that nothing is to be seen at their borders. The generator alone
    decides, and the global random state stays."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    networks = TinyNetworks(4, some_shape(), torch.Generator().manual_seed(1))
    same = TinyNetworks(2, some_shape(), torch.Generator().manual_seed(1))
    other = TinyNetworks(2, some_shape(), torch.Generator().manual_seed(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in networks.named_parameters():
        assert parameter.dim() == 3 and len(parameter) == 4
        assert torch.equal(parameter, parameter[:1].expand_as(parameter))
        assert torch.equal(parameter[:2], same.get_parameter(name))
    assert not torch.equal(networks.get_parameter("w1")[:2], other.get_parameter("w1"))


def test_activations_of_a_new_network_keep_their_size() -> None:
    """A draw that is too small or too large costs the first hundred steps of a distillation."""
    networks = TinyNetworks(1, NetworkShape(), torch.Generator().manual_seed(0))
    positions, directions = drawn(1, 2000)
    with torch.no_grad():
        density, rgb = networks.batched(positions, directions)
    assert 0.1 < float(density.mean()) < 3 and 0.03 < float(rgb.std()) < 0.4


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_batched_networks_are_single_ones(num_layers: int) -> None:
    """Distilling trains all networks at once; each has to see its own points and weights only."""
    networks = some_networks(4, some_shape(num_layers=num_layers))
    positions, directions = drawn(4, 6)
    density, rgb = networks.batched(positions, directions)
    for i in range(4):
        expected = single(networks, i, positions[i], directions[i])
        torch.testing.assert_close(density[i].double(), expected[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(rgb[i].double(), expected[1], atol=1e-6, rtol=1e-5)


def test_gradients_of_batched_networks_pass_gradcheck() -> None:
    """Three networks in float64, against differences of the functions."""
    networks = some_networks(3, NetworkShape(3, 2, 1, 1)).double()
    positions, directions = (x.double() for x in drawn(3, 2))
    names = [name for name, _ in networks.named_parameters()]

    def evaluated(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = {f"networks.{name}": value for name, value in zip(names, values, strict=True)}
        return tuple(torch.func.functional_call(_Batched(networks), named, (positions, directions)))

    assert torch.autograd.gradcheck(evaluated, tuple(p.detach().requires_grad_() for p in networks.parameters()))


class _Batched(torch.nn.Module):
    def __init__(self, networks: TinyNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, positions: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.networks.batched(positions, directions)


def test_classes_are_their_networks_in_order() -> None:
    """Networks of several widths are stored apart; whoever asks by number must get the one of that number."""
    networks = some_classes({8: 3, 4: 2, 12: 1})
    positions, directions = drawn(6, 5)
    density, rgb = networks.batched(positions, directions)
    assert networks.num_networks == 6 and networks.counts == [3, 2, 1]
    for i in range(6):
        stack, row = member(networks, i)
        assert int(networks.widths[i]) == stack.shape.hidden_width
        expected = single(stack, row, positions[i], directions[i])
        torch.testing.assert_close(density[i].double(), expected[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(rgb[i].double(), expected[1], atol=1e-6, rtol=1e-5)
    expected_count = 3 * some_shape(8).parameters + 2 * some_shape(4).parameters + some_shape(12).parameters
    assert networks.num_parameters == expected_count


def test_networks_that_stay_keep_their_order() -> None:
    """After a tightening the cells are numbered anew; rows and places have to follow."""
    networks = some_classes({8: 3, 4: 2, 12: 2})
    stays = torch.tensor([True, False, True, True, False, True, True])
    rows, position = networks.kept(stays)
    assert sorted(position.tolist()) == list(range(5))
    stacks = [deepcopy(stack) for stack in networks]
    for stack, kept in zip(stacks, rows, strict=True):
        for parameter in stack.parameters():
            parameter.data = parameter.data[kept]
    fewer = NetworkClasses(stacks, position)
    positions, directions = drawn(7, 3)
    whole, part = networks.batched(positions, directions), fewer.batched(positions[stays], directions[stays])
    torch.testing.assert_close(part[0], whole[0][stays])
    torch.testing.assert_close(part[1], whole[1][stays])


def test_no_networks_are_networks_too() -> None:
    """A model exists before it knows its cells: its optimizer takes empty tensors and steps over them."""
    networks = NetworkClasses.uniform(0, some_shape(), torch.Generator())
    optimizer = torch.optim.Adam(networks.parameters())
    density, rgb = networks.batched(torch.zeros(0, 4, 3), torch.zeros(0, 4, 3))
    assert density.shape == (0, 4) and rgb.shape == (0, 4, 3)
    (density.sum() + rgb.sum()).backward()
    optimizer.step()
    assert networks.num_networks == 0 and networks.num_parameters == 0


def test_room_is_made_without_new_parameters() -> None:
    """A checkpoint is loaded when the optimizers exist already; they would train what is not in the model."""
    networks = NetworkClasses([TinyNetworks(0, some_shape(w), torch.Generator()) for w in (8, 4)])
    before = list(networks.parameters())
    source = some_classes({8: 3, 4: 2})
    networks.resize_(source.counts, source.position)
    networks.load_state_dict(source.state_dict())
    assert all(a is b for a, b in zip(networks.parameters(), before, strict=True))
    positions, directions = drawn(5, 2)
    torch.testing.assert_close(networks.batched(positions, directions), source.batched(positions, directions))
    with pytest.raises(ValueError, match="2 classes"):
        networks.resize_([1], torch.zeros(1, dtype=torch.int32))
    with pytest.raises(ValueError, match="order of the 5 networks"):
        networks.resize_([3, 2], torch.zeros(5, dtype=torch.int32))


def test_a_place_that_is_no_order_is_refused() -> None:
    """Two networks at one place, from a broken checkpoint, would render one of them twice."""
    with pytest.raises(ValueError, match="order of the 2 networks"):
        NetworkClasses([some_networks(2, some_shape())], torch.tensor([0, 0], dtype=torch.int32))
    with pytest.raises(ValueError, match="at least one class"):
        NetworkClasses([])


def test_classes_differ_in_their_widths_alone() -> None:
    """All read one encoding of the directions; another number of frequencies would be read as other columns of it, or
    fail in the middle of a picture. Two classes of one width could not be told apart in what is saved."""
    first = some_networks(2, NetworkShape(8, 2, 3, 2))
    for other in (
        NetworkShape(4, 1, 3, 2),
        NetworkShape(4, 2, 2, 2),
        NetworkShape(4, 2, 3, 1),
        NetworkShape(8, 2, 3, 2),
    ):
        with pytest.raises(ValueError, match="must differ in their widths, and in nothing else"):
            NetworkClasses([first, some_networks(1, other)])
    assert NetworkClasses([first, some_networks(1, NetworkShape(4, 2, 3, 2))]).num_networks == 3


def test_packed_networks_are_kept_until_a_weight_changes() -> None:
    """Packing takes as long as a tenth of a frame; an old pack would show an old scene. A step of an optimizer, a load
    and another tensor under the parameter all count as changes."""
    networks = some_networks(3, some_shape())
    with torch.no_grad():
        first = networks.pack()
        assert networks.pack() is first
        networks.get_parameter("b1").add_(1.0)
        second = networks.pack()
        assert second is not first and float((second.trunk[0] - first.trunk[0]).abs().sum()) == pytest.approx(24)
        networks.load_state_dict(shaken(deepcopy(networks), 3).state_dict())
        third = networks.pack()
        assert third is not second
        networks.resize_(5)
        assert len(networks.pack().head) == 5
        twin = deepcopy(networks)
        twin.get_parameter("b1").add_(1.0)
        assert float((twin.pack().trunk[0] - networks.pack().trunk[0]).sum()) == 40
        old = networks.pack()
        networks.b1 = torch.nn.Parameter(networks.get_parameter("b1") + 1)
        assert networks.pack() is not old
    trained = networks.pack()
    assert trained.head.requires_grad and networks.pack() is not trained


@pytest.mark.parametrize("through", ["mode", "pack"])
def test_a_step_of_a_fused_optimizer_is_seen(through: str) -> None:
    """Such a step leaves no trace at the parameters: pictures after it would show the scene before it. Either what a
    trainer does between two pictures is enough: setting the mode, or evaluating with gradients."""
    networks = some_networks(3, some_shape())
    optimizer = torch.optim.Adam(networks.parameters(), lr=0.1, fused=True)
    networks.eval()
    with torch.no_grad():
        before = networks.pack()
    if through == "mode":
        networks.train()
        density, rgb = networks.batched(*drawn(3, 4))
        (density.sum() + rgb.sum()).backward()
    else:
        packed = networks.pack()
        (packed.head.sum() + packed.rgb.sum() + packed.trunk[0].sum()).backward()
    optimizer.step()
    if through == "mode":
        networks.eval()
    with torch.no_grad():
        after, expected = networks.pack(), networks._pack()
    assert torch.equal(after.rgb, expected.rgb) and torch.equal(after.trunk[0], expected.trunk[0])
    assert not torch.equal(after.rgb, before.rgb)


@pytest.mark.parametrize("training", [True, False])
def test_setting_the_mode_forgets_what_was_packed(training: bool) -> None:
    """In both directions: pictures are made in either mode, and a fused step may come after each."""
    networks = some_networks(2, some_shape())
    with torch.no_grad():
        first = networks.pack()
        NetworkClasses([networks]).train(training)
        assert networks.pack() is not first


def test_inference_mode_leaves_nothing_behind() -> None:
    """A pack of inference tensors can be saved for no gradient: a picture would end the training that follows."""
    networks = some_networks(2, some_shape())
    with torch.inference_mode():
        assert networks.pack() is not networks.pack()
    with torch.no_grad():
        packed = networks.pack()
    x = torch.ones(2, 1, packed.rgb.shape[1], requires_grad=True)
    (x @ packed.rgb).sum().backward()
    with torch.inference_mode():
        assert networks.pack() is packed


def test_an_old_pack_takes_no_memory() -> None:
    """With what it was made of it is twice the model: it goes with a copy, a change of size and training."""
    networks = some_networks(2, some_shape())
    for forget in (lambda: networks.resize_(3), networks.pack, networks.train):
        with torch.no_grad():
            packed = weakref.ref(networks.pack())
            assert packed() is not None and deepcopy(networks)._packed is None
        assert pickle.loads(pickle.dumps(networks))._packed is None
        forget()
        assert packed() is None


def test_packed_shapes_suit_the_native_product() -> None:
    """Rows of 16 bytes; and a part is a part."""
    packed = some_networks(3, NetworkShape(5, 3, 1, 1)).pack()
    for layer in (*packed.trunk, packed.head, packed.rgb):
        assert layer.shape[1] % 4 == 0 and layer.shape[2] % 4 == 0
    part = packed.part(1, 3)
    assert torch.equal(part.head, packed.head[1:]) and len(part.trunk) == 3 and len(part.rgb) == 2
    assert packed.trunk[0][0, 9, 5].item() == 1.0
