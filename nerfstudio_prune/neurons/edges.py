"""Unstructured pruning: masks that hold single weights at zero. The tensors keep their size; nothing gets faster."""

from collections.abc import Mapping
from typing import Literal, Optional

import torch
from torch import Tensor, nn

EdgeScope = Literal["layer", "global"]


def edge_masks(
    layers: Mapping[str, nn.Linear],
    threshold: Optional[float] = None,
    keep_fraction: Optional[float] = None,
    scope: EdgeScope = "layer",
) -> dict[str, Tensor]:
    """Chooses the weights that live by their absolute value (Ding et al. 2025, arXiv 2504.00950, section 3.2).

    Args:
        layers: Module path -> layer; biases are never masked.
        threshold: Keep the weights with |w| >= threshold, threshold >= 0. A threshold of 0 keeps all.
        keep_fraction: Keep exactly this share of the weights, in (0, 1], the largest first and of equal ones the
            first.
        scope: Whether `keep_fraction` counts within each layer or over all layers together.

    Returns:
        Name of the weight parameter -> boolean mask of its shape, True where the weight lives.

    Raises:
        ValueError: If not exactly one of threshold and kept fraction is given, or it is out of range.
    """
    if (threshold is None) == (keep_fraction is None):
        raise ValueError("give exactly one of edge_threshold and edge_keep_fraction")
    weights = {f"{name}.weight": layer.weight.detach().abs() for name, layer in layers.items()}
    if threshold is not None:
        if not threshold >= 0:
            raise ValueError(f"edge_threshold must be at least 0, got {threshold}")
        return {name: weight >= threshold for name, weight in weights.items()}
    assert keep_fraction is not None
    if not 0 < keep_fraction <= 1:
        raise ValueError(f"edge_keep_fraction must be in (0, 1], got {keep_fraction}")
    if scope == "layer":
        return {name: _largest(weight, keep_fraction) for name, weight in weights.items()}
    mask = _largest(torch.cat([weight.flatten() for weight in weights.values()]), keep_fraction)
    parts = mask.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def _largest(weight: Tensor, keep_fraction: float) -> Tensor:
    order = weight.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[: max(1, round(keep_fraction * weight.numel()))]] = True
    return mask.view_as(weight)


def same_masks(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two sets of masks let the same weights live; a mask that is not there lets all of them live."""
    for name in first.keys() | second.keys():
        one, other = (masks.get(name) for masks in (first, second))
        if one is None or other is None:
            if not bool((one if other is None else other).all()):  # type: ignore[union-attr]
                return False
        elif not torch.equal(one.to(other.device), other):
            return False
    return True


@torch.no_grad()
def apply_masks(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Sets masked weights to zero in place; to be called after every optimizer step."""
    for name, mask in masks.items():
        parameters[name].mul_(mask.to(parameters[name].device))
