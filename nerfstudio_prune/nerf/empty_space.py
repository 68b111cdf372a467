"""When a model looks where its scene is empty, and what it knows of that."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.occupancy import DensityFn, Grids, build_grid, refresh_grid

EVALUATION_SEED = 0
"""Seed of the places that grids for evaluation look at: the same weights give the same picture."""

RAYS_A_SIDE = 9
"""Rays along a side of each view that the extent of the space follows from."""
RAYS = 4096
"""Rays of the training views that are looked along besides."""
MARGIN = 0.01
"""Share of the length of rays by which that space is larger."""

Densities = Mapping[str, DensityFn]
"""Name of a field -> its density."""


@dataclass(frozen=True)
class GridOptions:
    """How finely a field is looked at."""

    resolution: int
    """Cells along the longest side of what is occupied, >= 1."""
    threshold: float
    """Density from which a cell counts as occupied, per unit of length, > 0."""


@dataclass(frozen=True, eq=False)
class Space:
    """What training views see."""

    box: Float[Tensor, "2 3"]
    """Lower and upper corner of all that their rays reach, as the fields see it."""
    places: Float[Tensor, "rays places 2 3"]
    """Begin and end of pieces of some of these rays, as the fields see them; each is looked at in a random place."""


class EmptySpace:
    """Where a model need not evaluate its fields: grids for training, and others for evaluation.

    Those for training are part of the training's state; those for evaluation follow from the weights alone.

    Args:
        options: Name of a field -> how finely it is looked at.
        warm_up_steps: Training steps without a grid, >= 0.
        update_interval: Training steps between two looks, >= 1; the first interval has looks after an eighth, a quarter
            and a half of it as well.
    """

    def __init__(self, options: Mapping[str, GridOptions], warm_up_steps: int, update_interval: int) -> None:
        self.options = options
        self.warm_up_steps = warm_up_steps
        self.update_interval = update_interval
        self.space: Optional[Space] = None
        """What rays reach; None: unknown, and nothing is skipped."""
        self.training: Grids = {}
        """What holds in training; empty: everything is evaluated."""
        self.looked = False
        """Whether the training has looked already, whatever it found."""
        self.in_training = False
        """Whether a training goes on, which keeps its grids up to date."""
        self._evaluation: tuple[object, Grids] = (None, {})

    def apart(self) -> "EmptySpace":
        """The same space for another model, which has not looked yet.

        In the warm-up of a training it does not look either: what is shown side by side is rendered alike.
        """
        other = EmptySpace(self.options, self.warm_up_steps, self.update_interval)
        other.space = self.space
        other.in_training = self.in_training and not self.training
        return other

    def due(self, step: int) -> bool:
        """Whether the model looks anew before a training step.

        What a field shows at first is mostly fog, which clears soon: the first interval has looks of its own.

        Args:
            step: Training step.
        """
        age, interval = step - self.warm_up_steps, self.update_interval
        early = age in (interval // 8, interval // 4, interval // 2)
        return age >= 0 and (not self.looked or early or age % interval == 0)

    def look(self, densities: Densities, seed: int, device: torch.device) -> None:
        """Takes the grids for training anew; those that there are say where most of it is to be looked for.

        Args:
            densities: The densities as they are.
            seed: Seed of the places that are looked at.
            device: Where the model lives.
        """
        known = self.training
        # A look that fails leaves everything to be evaluated.
        self.training, self.looked = {}, True
        self.training = self._build(densities, seed, device, known)

    def forget(self) -> None:
        """The next look takes nothing for known: the densities are others."""
        self.training = {}

    def for_evaluation(self, densities: Densities, state: object, device: torch.device) -> Grids:
        """The grids for evaluation, made once for each state of the weights; none where the space is unknown.

        Args:
            densities: The densities as they are.
            state: Tells states of the weights apart.
            device: Where the model lives.
        """
        if self._evaluation[0] != state:
            self._evaluation = (state, self._build(densities, EVALUATION_SEED, device, {}))
        return self._evaluation[1]

    def _build(self, densities: Densities, seed: int, device: torch.device, known: Grids) -> Grids:
        """Grids of all fields; none if a field has nothing to show yet, for it could never come to show anything."""
        if self.space is None:
            return {}
        generator = torch.Generator().manual_seed(seed)
        pieces = self.space.places.flatten(0, 1)
        share = torch.rand((len(pieces), 1), generator=generator)
        places = torch.lerp(pieces[:, 0], pieces[:, 1], share).to(device)
        grids = {}
        with torch.no_grad():
            for name, density_fn in densities.items():
                options, box = self.options[name], self.space.box.to(device)
                make = partial(refresh_grid, known[name]) if name in known else build_grid
                grids[name] = make(density_fn, box, options.threshold, options.resolution, generator, places)
        return grids if all(bool(grid.cells.any()) for grid in grids.values()) else {}


def reached_box(cameras: Cameras, far: float) -> Float[Tensor, "2 3"]:
    """Lower and upper corner of the space that the rays of cameras pass through, up to a distance.

    Args:
        cameras: The cameras.
        far: The distance, > 0.
    """
    places = [cameras.camera_to_worlds[:, :, 3]]
    shares = torch.linspace(0, 1, RAYS_A_SIDE).tolist()
    for x, y in product(shares, shares):
        pixels = torch.cat([y * cameras.height, x * cameras.width], dim=-1)
        rays = cameras.generate_rays(torch.arange(len(cameras))[:, None], pixels)
        ends = rays.origins + far * rays.directions
        places.append(ends[ends.isfinite().all(dim=-1)])
    every = torch.cat(places)
    # The ends of a view's rays lie on a sphere, which bulges between those that are looked at.
    return torch.stack([every.amin(dim=0) - MARGIN * far, every.amax(dim=0) + MARGIN * far])


def pieces_of_rays(cameras: Cameras, distances: Float[Tensor, " bounds"]) -> Float[Tensor, "rays pieces 2 3"]:
    """Begin and end of pieces of rays, drawn from all cameras alike.

    Args:
        cameras: The cameras.
        distances: Where the pieces begin and end, one after the other.
    """
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    views = torch.randint(len(cameras), (RAYS,), generator=generator)
    sizes = torch.cat([cameras.height, cameras.width], dim=-1)[views]
    rays = cameras.generate_rays(views[:, None], torch.rand(RAYS, 2, generator=generator) * sizes)
    known = (rays.origins.isfinite() & rays.directions.isfinite()).all(dim=-1)
    bounds = rays.origins[known, None] + rays.directions[known, None] * distances[:, None]
    return torch.stack([bounds[:, :-1], bounds[:, 1:]], dim=2)


class OccupancySchedule(Listener):
    """When a model looks anew in a training: from the warm-up on, see `EmptySpace.due`, and whenever it was changed.

    Args:
        model: The model.
        run: The run.
    """

    def __init__(self, model: Any, run: PruneRun) -> None:
        self.model = model
        self.run = run

    def before_step(self, step: int) -> None:
        """Looks where a look is due."""
        self.model.empty_space.in_training = True
        if self.model.empty_space.due(step):
            self._look(step)

    def step_done(self, step: int) -> None:
        """Pictures after the last step show the network as it is then, as every later evaluation does."""
        if step == self.run.last_step:
            self.model.empty_space.in_training = False

    def after_cut(self, event: PruneEvent) -> None:
        """Looks at the network that is left, once there is a grid."""
        self._look_again()

    def after_undo(self, event: PruneEvent) -> None:
        """Looks at the network that is back."""
        self._look_again()

    def _look_again(self) -> None:
        # At the step that has ended: a checkpoint of it holds the grid for the next one.
        if self.model.empty_space.looked:
            self.model.empty_space.forget()
            self._look(self.run.step)

    def _look(self, step: int) -> None:
        self.model.look(self.run.event_seed(step))
