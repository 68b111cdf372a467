"""Networks of several widths: those that need less are stored and evaluated as less."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Optional

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor, nn

from nerfstudio_prune.kilonerf.networks import TinyNetworks
from nerfstudio_prune.kilonerf.shape import NetworkShape

CLASSES = 4
"""Widths that networks may have where they need not have one: quarters of the full one."""


def class_widths(hidden_width: int) -> list[int]:
    """The widths that networks may be narrowed to, and the full one, ascending.

    Args:
        hidden_width: The full width, at least `CLASSES`.

    Raises:
        ValueError: If it is less.
    """
    if hidden_width < CLASSES:
        raise ValueError(
            f"grid.hidden_width must be at least {CLASSES} for networks to be narrowed to quarters of it, got "
            f"{hidden_width}"
        )
    return [ceil(hidden_width * part / CLASSES) for part in range(1, CLASSES + 1)]


class NetworkClasses(nn.Module):
    """All networks of a scene, in one stack of tensors for each width. Networks of one width are a single class.

    Args:
        stacks: Networks of each class, in any order of widths; a class may be empty. The widths differ, the rest of the
            shape is the same.
        position: Where each network stands in the row of all stacks. None: in the order of the stacks.

    Raises:
        ValueError: If there is no class, two have one width or differ in more than it, or the position is no order of
            the networks.
    """

    position: Int32[Tensor, " networks"]

    def __init__(self, stacks: Sequence[TinyNetworks], position: Optional[Int32[Tensor, " networks"]] = None) -> None:
        super().__init__()
        if not stacks:
            raise ValueError("there must be at least one class of networks")
        shapes = [stack.shape for stack in stacks]
        if len({shape.hidden_width for shape in shapes}) < len(shapes) or len({s.with_width(1) for s in shapes}) > 1:
            raise ValueError(f"classes of networks must differ in their widths, and in nothing else, got {shapes}")
        self.stacks = nn.ModuleList(stacks)
        count = sum(stack.num_networks for stack in stacks)
        if position is None:
            position = torch.arange(count, dtype=torch.int32)
        if sorted(position.tolist()) != list(range(count)):
            raise ValueError(f"position must be an order of the {count} networks, got {len(position)} numbers")
        self.register_buffer("position", position)

    @classmethod
    def uniform(
        cls, num_networks: int, shape: NetworkShape, generator: torch.Generator, narrows: bool = False
    ) -> "NetworkClasses":
        """Networks of one width, all alike.

        Args:
            num_networks: Number of networks, >= 0.
            shape: Their sizes.
            generator: Random numbers, of the CPU.
            narrows: Whether there is to be room for narrower ones, of `class_widths`; they come before these.

        Raises:
            ValueError: If the width has no such parts.
        """
        narrower = class_widths(shape.hidden_width)[:-1] if narrows else []
        stacks = [TinyNetworks(0, shape.with_width(width), generator) for width in narrower]
        return cls([*stacks, TinyNetworks(num_networks, shape, generator)])

    def __iter__(self) -> Iterator[TinyNetworks]:
        for stack in self.stacks:
            assert isinstance(stack, TinyNetworks)
            yield stack

    @property
    def num_networks(self) -> int:
        """Number of networks."""
        return len(self.position)

    @property
    def shapes(self) -> list[NetworkShape]:
        """Sizes of the networks of each class."""
        return [stack.shape for stack in self]

    @property
    def counts(self) -> list[int]:
        """Networks of each class."""
        return [stack.num_networks for stack in self]

    @property
    def num_parameters(self) -> int:
        """Weights and biases of all networks."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def widths(self) -> Int64[Tensor, " networks"]:
        """Hidden width of each network."""
        widths = torch.tensor([shape.hidden_width for shape in self.shapes], device=self.position.device)
        counts = torch.tensor(self.counts, device=self.position.device)
        return widths.repeat_interleave(counts)[self.position.long()]

    def resize_(self, counts: Sequence[int], position: Int32[Tensor, " networks"]) -> None:
        """Makes room for other numbers of networks, of zeros; see `TinyNetworks.resize_`.

        Args:
            counts: Networks of each class.
            position: Where each network stands in the row of all stacks.

        Raises:
            ValueError: If there are not as many counts as classes, or the position is no order of the networks.
        """
        if len(counts) != len(self.stacks) or min(counts) < 0:
            raise ValueError(f"there are {len(self.stacks)} classes of networks, got counts {list(counts)}")
        if sorted(position.tolist()) != list(range(sum(counts))):
            raise ValueError(f"position must be an order of the {sum(counts)} networks, got {len(position)} numbers")
        for stack, count in zip(self, counts, strict=True):
            stack.resize_(count)
        self.position = position.to(self.position.device)

    def batched(
        self, positions: Float[Tensor, "networks points 3"], directions: Float[Tensor, "networks points 3"]
    ) -> tuple[Float[Tensor, "networks points"], Float[Tensor, "networks points 3"]]:
        """Density and colour where every network is asked for equally many points; see `TinyNetworks.batched`.

        Args:
            positions: Coordinates in the networks' own cells, in [-1, 1].
            directions: Directions of length 1.
        """
        if len(self.stacks) == 1:
            return next(iter(self)).batched(positions, directions)
        order = self.position.argsort()
        parts = [
            stack.batched(positions[rows], directions[rows])
            for stack, rows in zip(self, order.split(self.counts), strict=True)
            if len(rows) or not len(order)
        ]
        density, rgb = (torch.cat(values) for values in zip(*parts, strict=True))
        return density.index_select(0, self.position), rgb.index_select(0, self.position)

    def kept(self, stays: Bool[Tensor, " networks"]) -> tuple[list[Int64[Tensor, " _"]], Int32[Tensor, " kept"]]:
        """What stays of each stack when networks leave, and where the rest then stands.

        Args:
            stays: Whether each network stays.

        Returns:
            Rows of each stack that stay, sorted; the new `position`.
        """
        order = self.position.argsort()
        in_stacks = stays[order]
        rows = [part.nonzero()[:, 0] for part in in_stacks.split(self.counts)]
        places = in_stacks.cumsum(dim=0) - 1
        return rows, places[self.position[stays].long()].int()
