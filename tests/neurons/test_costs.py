"""What a network costs."""

import pytest
import torch
from support.tiny_field import GROUP_NAMES, TinyField, draw_selections
from torch import nn

from nerfstudio_prune.neurons.compaction import apply_compaction, plan_compaction
from nerfstudio_prune.neurons.costs import count_parameters, macs_per_sample


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
    apply_compaction(plan_compaction(field.groups(), draw_selections(field.groups(), GROUP_NAMES)))
    built = TinyField(trunk=(5,) * 4, head=(3,) * 2)
    assert count_parameters(field.layers().values()) == sum(p.numel() for p in built.parameters())
    macs = 5 * 3 + 5 * 5 + 5 * (3 + 5) + 5 * 5 + 1 * 5 + 3 * (2 + 5) + 3 * 3 + 3 * 3
    assert macs_per_sample(field.layers().values()) == macs
