"""Evaluation of any points: sorting, parts and packing give what each network alone gives, in the points' order."""

import math
from typing import Any

import pytest
import torch
from support.single_networks import member, single, some_classes, some_networks, some_shape
from torch import Tensor
from torch.nn.functional import normalize

from nerfstudio_prune.kilonerf import evaluate as module
from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.evaluate import evaluate
from nerfstudio_prune.kilonerf.grouped import Evaluation, native_works
from nerfstudio_prune.kilonerf.networks import Packed

RAYS = 10
Points = tuple[Tensor, Tensor, Tensor, Tensor]


def drawn(count: int, networks: int, seed: int = 0) -> Points:
    """Coordinates, networks of which some have no point, rays and their directions."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = 2 * torch.rand(count, 3, generator=generator) - 1
    network = (torch.rand(count, generator=generator) ** 2 * (networks - 1)).int()
    ray = torch.randint(RAYS, (count,), generator=generator, dtype=torch.int32)
    return coordinates, network, ray, normalize(torch.randn(RAYS, 3, generator=generator), dim=1)


def one_by_one(networks: NetworkClasses, points: Points) -> tuple[Tensor, Tensor]:
    """Each point through its network, alone, in float64."""
    coordinates, network, ray, directions = points
    values = [
        single(*member(networks, int(n)), coordinates[i : i + 1], directions[int(ray[i])][None])
        for i, n in enumerate(network)
    ]
    return torch.cat([density for density, _ in values]), torch.cat([rgb for _, rgb in values])


@pytest.mark.parametrize("way", ["native", "buckets", "tiles", "loop", "auto"])
def test_every_way_is_each_network_alone(way: Evaluation) -> None:
    """All ways show the same scene; networks of several widths, some without a point, rays in any order."""
    if way == "native" and not native_works(torch.device("cpu"), torch.float32):
        pytest.skip("this PyTorch's grouped_mm does not pass the check")
    networks = some_classes({8: 4, 5: 3, 12: 2})
    points = drawn(80, 9)
    density, rgb = evaluate(networks, *points, way=way)
    expected = one_by_one(networks, points)
    torch.testing.assert_close(density.double(), expected[0], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(rgb.double(), expected[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_parts_change_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points are evaluated in parts that fit the cache; where they end must not show."""
    networks = some_classes({8: 4, 5: 3})
    points = drawn(60, 7)
    whole = evaluate(networks, *points)
    monkeypatch.setattr(module, "POINTS_AT_ONCE", at_once)
    with torch.no_grad():
        parts = evaluate(networks, *points)
    torch.testing.assert_close(parts[0], whole[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(parts[1], whole[1], atol=1e-6, rtol=1e-6)


def test_no_part_has_more_points_than_fit() -> None:
    """One network of a million points would take hundreds of megabytes for its activations. A part is as many whole
    networks as fit, or a piece of one that does not; together they are all rows."""
    bounds = [0, 3, 3, 10, 11, 30, 30, 31, 31]
    parts = list(module._chunks(bounds, 8))
    assert parts == [(0, 2, 0, 3), (2, 4, 3, 11), (4, 5, 11, 19), (4, 5, 19, 27), (4, 5, 27, 30), (5, 8, 30, 31)]
    assert list(module._chunks([0, 0, 0], 8)) == [] and list(module._chunks([0], 8)) == []


def test_points_at_once_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few networks there are; where a graph is kept its activations stay in any case, and there is one part of
    each class."""
    networks, points, sizes = some_classes({8: 2, 5: 1}), drawn(200, 3), []

    def watched(packed: Packed, coordinates: Tensor, *others: Any) -> Tensor:
        sizes.append(len(coordinates))
        return forward(packed, coordinates, *others)

    forward = module._forward
    monkeypatch.setattr(module, "_forward", watched)
    monkeypatch.setattr(module, "POINTS_AT_ONCE", 16)
    with torch.no_grad():
        parts = evaluate(networks, *points)
    assert max(sizes) == 16 and sum(sizes) == 200
    sizes.clear()
    whole = evaluate(networks, *points)
    assert len(sizes) <= 2 and sum(sizes) == 200
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-6)


def test_the_order_of_points_does_not_matter() -> None:
    """Sorting is undone: each point gets its own values wherever it stands."""
    networks = some_classes({8: 6})
    coordinates, network, ray, directions = drawn(50, 6)
    density, rgb = evaluate(networks, coordinates, network, ray, directions)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    again = evaluate(networks, coordinates[order], network[order], ray[order], directions)
    torch.testing.assert_close(again[0], density[order], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again[1], rgb[order], atol=1e-6, rtol=1e-6)


def test_shuffled_networks_show_another_scene() -> None:
    """The control of all comparisons here: points that are given to wrong networks come out wrong."""
    networks = some_classes({8: 6})
    coordinates, network, ray, directions = drawn(50, 6)
    density, _ = evaluate(networks, coordinates, network, ray, directions)
    shuffled, _ = evaluate(networks, coordinates, (network + 1) % 6, ray, directions)
    assert bool((shuffled - density).abs().mean() > 0.05)


def test_packed_evaluation_has_the_gradients_of_single_networks() -> None:
    """Fine-tuning goes through the packed form: biases stand in a row of the matrices there, and the density beside the
    colour's layer. A network without points has a gradient of zero."""
    networks = some_classes({8: 3, 5: 2})
    points = drawn(40, 5)
    factors = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))
    gradients = []
    for density, rgb in (evaluate(networks, *points), one_by_one(networks, points)):
        loss = (density * factors[:, 3]).sum() + (rgb * factors[:, :3]).sum()
        gradients.append(torch.autograd.grad(loss, list(networks.parameters())))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found.double(), expected.double(), atol=1e-5, rtol=1e-4)
    assert any(bool((gradient[-1] == 0).all()) for gradient in gradients[0])


def test_evaluation_is_the_batched_form() -> None:
    """What was distilled in one form is rendered in the other."""
    networks = NetworkClasses([some_networks(3, some_shape(8, 3))])
    coordinates, _, _, directions = drawn(30, 3)
    network = torch.arange(30, dtype=torch.int32) // 10
    ray = torch.arange(30, dtype=torch.int32) % RAYS
    density, rgb = evaluate(networks, coordinates, network, ray, directions)
    batched = networks.batched(coordinates.view(3, 10, 3), directions[ray.long()].view(3, 10, 3))
    torch.testing.assert_close(density.view(3, 10), batched[0], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(rgb.view(3, 10, 3), batched[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("way", ["buckets", "tiles", "loop", "auto"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_density_that_is_no_number_leaves_the_colour_alone(value: float, way: Evaluation) -> None:
    """Packed, the density stands beside what the colour reads, and its row of zeros times infinity is NaN; the batched
    form, which distilling goes by, keeps them apart."""
    networks = NetworkClasses([some_networks(2, some_shape(8, 3))])
    with torch.no_grad():
        next(iter(networks)).get_parameter("b_density")[1] = value
    coordinates, _, _, directions = drawn(20, 2)
    network = torch.arange(20, dtype=torch.int32) // 10
    ray = torch.arange(20, dtype=torch.int32) % RAYS
    density, rgb = evaluate(networks, coordinates, network, ray, directions, way=way)
    batched = networks.batched(coordinates.view(2, 10, 3), directions[ray.long()].view(2, 10, 3))
    torch.testing.assert_close(density.view(2, 10), batched[0], atol=2e-6, rtol=1e-5, equal_nan=True)
    torch.testing.assert_close(rgb.view(2, 10, 3), batched[1], atol=1e-6, rtol=1e-5)
    assert not bool(density[10:].isfinite().any()) and bool(rgb.isfinite().all())


@pytest.mark.parametrize("points", [12, 300])
def test_autocast_changes_nothing(points: int) -> None:
    """Trainers run models under it. The products make room in the type of what they read, and 16 bits would not hold a
    running sum over a ray; forward and backward are those without it, be it few points or many."""
    networks = some_classes({8: 3, 5: 2})
    drawn_points = drawn(points, 5)
    values = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            native_works.cache_clear()
            density, rgb = evaluate(networks, *drawn_points, way="auto")
            assert density.dtype == rgb.dtype == torch.float32
            gradients = torch.autograd.grad(density.sum() + rgb.square().sum(), list(networks.parameters()))
            works = native_works(torch.device("cpu"), torch.float32)
        values.append((density, rgb, gradients, works))
    torch.testing.assert_close(values[1], values[0], atol=1e-6, rtol=1e-5)


def test_no_points_give_no_values() -> None:
    """A view may show nothing, and a new model has no networks."""
    networks = NetworkClasses.uniform(0, some_shape(), torch.Generator())
    none = torch.zeros(0, dtype=torch.int32)
    density, rgb = evaluate(networks, torch.zeros(0, 3), none, none, torch.zeros(0, 3))
    assert density.shape == (0,) and rgb.shape == (0, 3)


def test_a_network_that_does_not_exist_is_refused() -> None:
    """-1 marks a point outside of all cells; it would be taken for the last network."""
    networks = some_classes({8: 3})
    coordinates, network, ray, directions = drawn(5, 3)
    for wrong in (-1, 3):
        network[2] = wrong
        with pytest.raises(ValueError, match=r"networks in \[0, 3\), got"):
            evaluate(networks, coordinates, network, ray, directions)
