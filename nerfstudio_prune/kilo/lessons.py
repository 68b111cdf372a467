"""Distilling apart from a run's own steps: networks to be compared, and those that have to begin again."""

from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, Optional, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim import Adam

from nerfstudio_prune.kilo.config import EPS, DistilConfig
from nerfstudio_prune.kilo.phases import falling
from nerfstudio_prune.kilo.spaces import Space
from nerfstudio_prune.kilonerf.budget import MEGABYTE
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.distillation import DistillationLoss, distillation_loss, saturated
from nerfstudio_prune.kilonerf.examples import Batch, BehindFn, Examples, TeacherFn, bytes_per_point
from nerfstudio_prune.kilonerf.networks import TinyNetworks

DIRECTIONS = 3
"""Directions in which the teacher says the colour of each point."""
POINTS_KEPT = 1024
"""Points of each network that are kept at once: a short distillation needs no more."""
MOST_USES = 12
"""How often each of them is used, at most, before new ones are drawn."""
POINTS = 256
"""Points of each network that it is judged by; none of those that it learnt from."""


class Batched(Protocol):
    """Networks that are asked for equally many points each."""

    def batched(
        self, positions: Float[Tensor, "networks points 3"], directions: Float[Tensor, "networks points 3"]
    ) -> tuple[Float[Tensor, "networks points"], Float[Tensor, "networks points 3"]]:
        """Density and colour."""
        ...


@dataclass(frozen=True)
class Lessons:
    """What a teacher teaches, whatever the cells are."""

    teacher: TeacherFn
    """Its values."""
    cameras: Float[Tensor, "cameras 3"]
    """Places of the training cameras, where the networks live."""
    options: DistilConfig
    """Points, rates and memory."""
    step_size: float
    """Length of a step along rays, in the space of the cells."""
    space: Space
    """The space that cells lie in."""
    behind: Optional[BehindFn] = None
    """Places whose colour is what is behind everything; None: there are none."""

    def examples(self, cells: LiveCells, steps: int, seed: int) -> Examples:
        """What is to be learnt from: each point is asked for once, and used as often as that many steps need.

        Args:
            cells: The cells, one network each.
            steps: Steps, >= 1.
            seed: Seed of the points.

        Raises:
            ValueError: If not even the points of a step fit into the memory that the options allow.
        """
        options: Any = self.options
        points, memory = options.points_per_network, int(options.memory_mb * MEGABYTE)
        kept = max(POINTS_KEPT, points)
        uses = min(ceil(steps / (kept // points * DIRECTIONS)), MOST_USES)
        return self._examples(cells, seed, memory, points, directions=DIRECTIONS, most_points=kept, uses=uses)

    def learn(self, networks: TinyNetworks, cells: LiveCells, steps: int, seed: int, factor: float = 1.0) -> None:
        """Trains networks from where they are.

        Args:
            networks: The networks, one for each cell.
            cells: The cells.
            steps: Steps, >= 1.
            seed: Seed of the points.
            factor: Factor on the rates.
        """
        options: Any = self.options
        examples = self.examples(cells, steps, seed)
        optimizer = Adam(networks.parameters(), eps=EPS)
        with torch.enable_grad():
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = factor * falling(options.lr, options.lr_final, step, steps)
                batch = examples.batch(step)
                density, rgb = networks.batched(batch.positions, batch.directions)
                loss = self.loss(density, rgb, batch)
                optimizer.zero_grad()
                loss.total.backward()
                optimizer.step()

    def loss(
        self, density: Float[Tensor, "networks points"], rgb: Float[Tensor, "networks points 3"], batch: Batch
    ) -> DistillationLoss:
        """Errors of what networks say of examples.

        Args:
            density: Their density, per unit of length.
            rgb: Their colour, in [0, 1].
            batch: The examples.
        """
        return distillation_loss(density, rgb, batch.density, batch.rgb, self.step_size, batch.behind)

    @torch.no_grad()
    def errors(self, networks: Batched, cells: LiveCells, seed: int) -> Float[Tensor, " networks"]:
        """Loss of each network on points of its own.

        Args:
            networks: The networks.
            cells: The cells.
            seed: Seed of the points.
        """
        batch = self._test(cells, seed)
        density, rgb = networks.batched(batch.positions, batch.directions)
        return self.loss(density, rgb, batch).of_networks

    @torch.no_grad()
    def stuck(self, networks: Batched, cells: LiveCells, seed: int) -> Bool[Tensor, " networks"]:
        """Networks that will not learn any more, see `saturated`.

        Args:
            networks: The networks.
            cells: The cells.
            seed: Seed of the points that they are looked at in.
        """
        batch = self._test(cells, seed)
        return saturated(networks.batched(batch.positions, batch.directions)[1], batch.rgb)

    def _test(self, cells: LiveCells, seed: int) -> Batch:
        # Another seed than that of any lesson.
        needed = cells.count * POINTS * bytes_per_point(1)
        return self._examples(cells, seed + 1, needed, POINTS, directions=1, most_points=POINTS).batch(0)

    def _examples(self, cells: LiveCells, seed: int, memory: int, points: int, **options: Any) -> Examples:
        make = partial(Examples, cells, self.cameras, self.teacher, points, memory, seed)
        return make(to_world=self.space.to_world, behind=self.behind, **options)
