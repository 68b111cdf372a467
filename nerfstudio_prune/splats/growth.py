"""The step-valued settings of splatfacto, scaled to the length of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nerfstudio.models.splatfacto import SplatfactoModelConfig

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.engine.options import MAX_STEPS

MEMORY, LENGTH = "growth", "num_iterations"
"""Names in the pruning state."""
SCHEDULE_STEPS = 30_000
"""Training steps that splatfacto's settings are written for."""
SETTLE_STEPS = 500
"""Of as many: what has to lie between the last growth or opacity reset and a cut. Opacities climb back in that time."""
SHORTEST_RESET = 1000
"""Training steps between two opacity resets that are not scaled below: opacities climb back in hundreds of steps,
however long the run."""
SMALLEST_SIDE = 64
"""Pixels of the smaller side of a picture below which coarse-to-fine training does not go."""


@dataclass(frozen=True)
class Growth:
    """When Gaussians are added, and what else of splatfacto goes by the step. All in training steps of the run."""

    start: int
    """Densification begins behind this step."""
    every: int
    """Between two densifications."""
    stop: int
    """No densification and no opacity reset from here on."""
    reset_every: int
    """Between two resets of the opacities."""
    pause: int
    """Behind a reset, without densification."""
    screen_stop: int
    """Sizes on the screen do not count from here on."""
    degree_every: int
    """Until the next degree of the spherical harmonics is switched on."""
    resolution_every: int
    """Until the resolution is doubled."""
    settle: int
    """Behind the last growth or reset, before a cut."""

    @property
    def settled(self) -> int:
        """First step at whose end Gaussians can be cut."""
        return self.stop + self.settle if self.stop > 0 else 0

    def text(self, first_step: int) -> str:
        """What comes of it in a run, in words.

        Args:
            first_step: First training step of the run.
        """
        if self.settled <= first_step:
            return "growth is over"
        grows = (
            f"growing from step {self.start:,} to {self.stop:,} every {self.every:,} steps, opacities reset every "
            f"{self.reset_every:,}"
            if self.every < self.stop
            else "the run is too short for growth"
        )
        return f"{grows}; a cut may happen from step {self.settled:,} on"


def growth_of(config: SplatfactoModelConfig, factor: float, num_views: int) -> Growth:
    """The settings of a run.

    The host pauses behind an opacity reset until every training view was seen once. With more than 2,800 views that is
    longer than the time between two resets, and it never densifies (nerfstudio issues 2927 and 3743); here the pause
    takes at most half of that time.

    Args:
        config: Settings as they are written.
        factor: Length of the run over the length that they are written for.
        num_views: Training views.
    """

    def scaled(steps: int) -> int:
        return max(1, round(steps * factor))

    # Not more often in a short run: gradients of a few views say nothing, and what was just split has to move.
    every = max(scaled(config.refine_every), config.refine_every)
    reset = config.reset_alpha_every * config.refine_every
    reset_every = max(scaled(reset), min(reset, SHORTEST_RESET))
    return Growth(
        start=round(config.warmup_length * factor),
        every=every,
        stop=round(config.stop_split_at * factor),
        reset_every=reset_every,
        pause=min(round(num_views * min(1.0, factor)) + every, reset_every // 2),
        screen_stop=round(config.stop_screen_size_at * factor),
        degree_every=scaled(config.sh_degree_interval),
        resolution_every=scaled(config.resolution_schedule),
        settle=round(SETTLE_STEPS * factor),
    )


def length_of_run(memory: Mapping[str, Mapping[str, Any]], num_iterations: int, first_step: int, config: Any) -> int:
    """Training steps that settings are scaled to: those of the run in which they were first, however long a resumed one
    is itself, as with the steps of events and the curves of learning rates.

    A run of the stock method that was done with growing goes on by its settings as they are: it does not grow again.

    Args:
        memory: Of the pruning state.
        num_iterations: Training steps of the run at hand.
        first_step: First one of them; above 0 in a resumed run.
        config: Options of the model.

    Raises:
        ValueError: If what a checkpoint says of it cannot be used.
    """
    grown = first_step > 0 and first_step >= config.stop_split_at and config.schedule_steps is not None
    length = memory.get(MEMORY, {}).get(LENGTH, config.schedule_steps if grown else num_iterations)
    if type(length) is not int or not 1 <= length <= MAX_STEPS:
        raise ValueError(
            f"the checkpoint's pruning state says that growth is scaled to {shown(length)} training steps; expected a "
            f"whole number in [1, {MAX_STEPS:,}]"
        )
    return length


def coarsest(num_downscales: int, sizes: Sequence[int]) -> int:
    """How often the resolution is halved at the beginning, so that pictures stay pictures.

    Args:
        num_downscales: How often it was to be.
        sizes: Smaller side of each training picture, in pixels.
    """
    smallest = min(sizes, default=0)
    while num_downscales > 0 and smallest < SMALLEST_SIDE * 2**num_downscales:
        num_downscales -= 1
    return num_downscales
