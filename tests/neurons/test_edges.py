"""Masks that hold single weights at zero."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nerfstudio_prune.neurons.edges import EdgeScope, apply_masks, edge_masks, same_masks


def layer(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        linear.weight.copy_(weight)
    return linear


def random_layers() -> dict[str, nn.Linear]:
    """Layers of different sizes and of very different magnitude, so that the two scopes disagree."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (4, 6, 1.0), "b": (3, 5, 0.1), "c": (7, 2, 3.0)}
    return {n: layer(torch.randn(r, c, generator=generator) * scale) for n, (r, c, scale) in shapes.items()}


@pytest.mark.parametrize(
    ("threshold", "lives"),
    [
        (0.0, [[True, True, True], [True, True, True]]),
        (0.05, [[True, True, False], [True, False, True]]),
        (0.051, [[True, False, False], [True, False, True]]),
        (9.0, [[False, False, False], [False, False, False]]),
    ],
)
def test_threshold(threshold: float, lives: list[list[bool]]) -> None:
    """The paper's Table 1 prunes by |w| < t, so a weight at the threshold lives, a negative one counts by its size, and
    t = 0 keeps all, including weights that are zero."""
    layers = {"l": layer(torch.tensor([[0.3, -0.05, 0.0], [-0.2, 0.04, 1.0]], dtype=torch.float64))}
    masks = edge_masks(layers, threshold=threshold)
    assert {name: mask.tolist() for name, mask in masks.items()} == {"l.weight": lives}


def brute_force(layers: dict[str, nn.Linear], fraction: float, scope: EdgeScope) -> dict[str, list[list[bool]]]:
    """Sorts Python tuples (-|w|, position) and takes the first."""
    entries = [
        (-abs(w), i, name, r, c)
        for i, (name, linear) in enumerate(layers.items())
        for r, row in enumerate(linear.weight.tolist())
        for c, w in enumerate(row)
    ]
    pools = [entries] if scope == "global" else [[e for e in entries if e[2] == name] for name in layers]
    masks = {f"{n}.weight": [[False] * m.in_features for _ in range(m.out_features)] for n, m in layers.items()}
    for pool in pools:
        for _, _, name, r, c in sorted(pool, key=lambda e: (e[0], e[1], e[3], e[4]))[: round(fraction * len(pool))]:
            masks[f"{name}.weight"][r][c] = True
    return masks


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("fraction", [0.1, 0.4, 0.5, 0.93, 1.0])
def test_kept_fraction_equals_a_sorted_list(scope: EdgeScope, fraction: float) -> None:
    """Per layer and global give different networks at one fraction, and a table that confuses them compares nothing;
    both are checked against sorting all weights in Python."""
    masks = edge_masks(random_layers(), keep_fraction=fraction, scope=scope)
    assert {name: mask.tolist() for name, mask in masks.items()} == brute_force(random_layers(), fraction, scope)


def test_scopes_differ() -> None:
    """On layers of unequal magnitude the global scope must empty the small one and spare the large one; otherwise the
    test above would compare one thing twice."""
    share = {
        scope: {n: m.double().mean().item() for n, m in edge_masks(random_layers(), None, 0.5, scope).items()}
        for scope in ("layer", "global")
    }
    assert share["layer"] == pytest.approx({"a.weight": 0.5, "b.weight": 8 / 15, "c.weight": 0.5})
    assert share["global"]["b.weight"] < 0.1 and share["global"]["c.weight"] > 0.8


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_exact_count_with_ties(value: float, fraction: float, scope: EdgeScope) -> None:
    """With many equal weights (zeros of an earlier mask, for one) a threshold keeps all or none of them; the fraction
    must hold to the weight, and the first of equal ones stay, so that a repeated run masks the same."""
    layers = {"a": layer(torch.full((4, 5), value)), "b": layer(torch.full((5, 8), value))}
    masks = edge_masks(layers, keep_fraction=fraction, scope=scope)
    a, b = masks["a.weight"].flatten(), masks["b.weight"].flatten()
    found = [torch.cat([a, b])] if scope == "global" else [a, b]
    for mask in found:
        count = round(fraction * len(mask))
        assert mask.tolist() == [True] * count + [False] * (len(mask) - count)


def test_at_least_one_weight_lives() -> None:
    """A layer without any weight gives no gradient to anything before it and could never come back."""
    masks = edge_masks(random_layers(), keep_fraction=1e-6)
    assert [int(mask.sum()) for mask in masks.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of edge_threshold and edge_keep_fraction"),
        ({"threshold": 0.1, "keep_fraction": 0.5}, "exactly one of"),
        ({"threshold": -0.1}, "edge_threshold must be at least 0, got -0.1"),
        ({"threshold": float("nan")}, "edge_threshold must be at least 0, got nan"),
        ({"keep_fraction": 0.0}, r"edge_keep_fraction must be in \(0, 1\], got 0.0"),
        ({"keep_fraction": 1.5}, r"edge_keep_fraction must be in \(0, 1\], got 1.5"),
        ({"keep_fraction": float("nan")}, r"edge_keep_fraction must be in \(0, 1\], got nan"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    """Options out of range must stop with the option's own name, not give a network with all or no weights."""
    with pytest.raises(ValueError, match=message):
        edge_masks(random_layers(), **options)


def test_apply_masks_holds_weights_at_zero_through_training() -> None:
    """Unstructured pruning lives from repeating the mask after every step: momentum alone moves a weight whose gradient
    is zero. In place, because the optimizer holds the tensor; biases and unmasked layers are not touched."""
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    named = dict(net.named_parameters())
    masks = {"0.weight": torch.rand(4, 3, generator=generator) < 0.5}
    ids, free = [id(p) for p in net.parameters()], named["1.weight"].detach().clone()
    apply_masks(named, masks)
    assert torch.equal(named["1.weight"], free) and bool((named["0.bias"] != 0).all())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(5, 3, generator=generator, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        assert bool((named["0.weight"][~masks["0.weight"]] != 0).any())
        apply_masks(named, masks)
        assert torch.equal(named["0.weight"] != 0, masks["0.weight"])
    assert [id(p) for p in net.parameters()] == ids


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({}, {}, True),
        ({"w": [True, True]}, {}, True),
        ({}, {"w": [True, False]}, False),
        ({"w": [True, False]}, {"w": [True, False]}, True),
        ({"w": [True, False]}, {"w": [False, True]}, False),
        ({"w": [True, False]}, {"w": [True, False], "v": [True]}, True),
    ],
)
def test_same_masks(first: dict[str, list[bool]], second: dict[str, list[bool]], same: bool) -> None:
    """An event that cuts no further edge is skipped; a missing mask and one that lets all weights live are equal."""
    tensors = ({name: torch.tensor(mask) for name, mask in masks.items()} for masks in (first, second))
    assert same_masks(*tensors) is same
