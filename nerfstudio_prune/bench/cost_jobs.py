"""Jobs that measure what a network costs, as data. Carries nothing out."""

from dataclasses import dataclass
from typing import Any, ClassVar

from nerfstudio_prune.bench.jobs import SuiteJob

MODEL = "pipeline.model."
Samples = tuple[int, int]
"""Samples of a ray: those of the coarse field, and those that are added for the fine one."""

STOCK_SHAPE = {"base_mlp_num_layers": 8, "head_mlp_num_layers": 2, "skip_connections": (4,)}
"""Layers of the host's fields, which are no option there."""


def network_options(width: int, samples: Samples) -> dict[str, Any]:
    """Options of a network with the host's layers, whose head is half as wide as its trunk.

    Args:
        width: Neurons of a trunk layer, >= 2.
        samples: Samples of a ray.
    """
    own = {"base_mlp_layer_width": width, "head_mlp_layer_width": max(1, width // 2)}
    own |= {"num_coarse_samples": samples[0], "num_importance_samples": samples[1]}
    return {MODEL + name: value for name, value in {**STOCK_SHAPE, **own}.items()}


@dataclass(frozen=True)
class StockSpeed(SuiteJob):
    """The host's own model and this project's at several widths, with all samples and without those in empty space.

    All show the same scene: a small field that was trained, with zeros around its weights in the larger ones.
    """

    folder: ClassVar[str] = "costs"
    seed: int
    widths: tuple[int, ...] = (256, 128, 64)
    """Trunk widths, descending; the last one is trained, the first one is pruned."""
    samples: Samples = (64, 128)
    train_steps: int = 20_000
    """Training steps of the field that all show, at a rate that falls to their end: the errors of a field that has
    hardly been trained would hide what skipping changes in pictures."""
    rounds: int = 5
    """Blocks of each arm."""
    block_seconds: float = 1.0
    """What a block of training steps should take at least, where `most_steps` are enough for it."""
    most_steps: int = 20
    """Training steps of a block."""
    rows: int = 8
    """Of pictures with all samples every so manieth row of pixels is rendered, and the time multiplied."""
    events: int = 3
    """Pruning events that are timed."""
    grid_resolution: int = 128
    """Cells of the grid that says where the scene is empty, along its longest side."""

    @property
    def name(self) -> str:
        """Unique within a suite."""
        return "speed-stock"

    @property
    def told_steps(self) -> str:
        """Those of the field that all arms show."""
        return str(self.train_steps)

    def sizes(self, scale: Any) -> dict[str, Any]:
        """Views that quality is told of."""
        return {"views": scale.views}


@dataclass(frozen=True)
class Scaling(SuiteJob):
    """Time and memory of a training step and of a picture, by width, samples, rays and pixels, all samples evaluated.

    One of them is varied at a time. Networks are as they are drawn: nothing that is left out depends on the scene.
    """

    folder: ClassVar[str] = "costs"
    seed: int
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Trunk widths."""
    samples: tuple[Samples, ...] = ((8, 8), (16, 16), (32, 32), (64, 64), (64, 128))
    """Samples of a ray."""
    rays: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Rays of a training step."""
    heights: tuple[int, ...] = (25, 50, 75, 100)
    """Rows of pixels of a picture, whose shape is that of the data."""
    middle: tuple[int, Samples, int, int] = (64, (32, 32), 128, 50)
    """Width, samples, rays and rows of pixels while another one of them is varied."""
    rounds: int = 3
    """Blocks of each point."""
    block_seconds: float = 0.3
    """What a block of training steps should take at least, where `most_steps` are enough for it."""
    most_steps: int = 10
    """Training steps of a block."""
    large_height: int = 800
    """Rows of pixels of the large picture."""
    large_width: int = 32
    """Trunk width of the network that renders it."""
    large_samples: Samples = (64, 128)
    large_steps: int = 600
    """Training steps of that network."""
    large_warm_up: int = 300
    """Those of them in which everything is evaluated."""
    grid_resolution: int = 128
    """Cells of the grid that says where the scene is empty, along its longest side."""

    @property
    def name(self) -> str:
        """Unique within a suite."""
        return "scaling"

    @property
    def told_steps(self) -> str:
        """Those of the network that renders the large picture."""
        return str(self.large_steps)


SCALINGS = {
    "smoke": {
        "widths": (8, 16),
        "samples": ((4, 4), (8, 8)),
        "rays": (16, 32),
        "heights": (8, 16),
        "middle": (8, (4, 4), 16, 8),
        "rounds": 1,
        "most_steps": 1,
        "large_height": 32,
        "large_width": 8,
        "large_samples": (8, 8),
        "large_steps": 4,
        "large_warm_up": 2,
        "grid_resolution": 16,
    },
    "gpu": {
        "rays": (256, 512, 1024, 2048, 4096),
        "heights": (100, 200, 400, 800),
        "middle": (64, (32, 32), 1024, 400),
        "rounds": 10,
    },
}
"""Name of the scale -> what differs there."""


def scaling_job(scale: Any) -> Scaling:
    """The job at a scale.

    Args:
        scale: Sizes of the suite.
    """
    return Scaling(scale.seeds[0], **SCALINGS.get(scale.name, {}))


STOCK_SPEEDS = {
    "smoke": {
        "widths": (32, 16, 8),
        "samples": (8, 8),
        "train_steps": 6,
        "rounds": 2,
        "block_seconds": 0.0,
        "events": 1,
        "grid_resolution": 16,
    },
    "gpu": {"train_steps": 10_000, "rounds": 20, "rows": 1},
}
"""Name of the scale -> what differs there."""


def stock_speed(scale: Any) -> StockSpeed:
    """The job at a scale.

    Args:
        scale: Sizes of the suite.
    """
    return StockSpeed(scale.seeds[0], **STOCK_SPEEDS.get(scale.name, {}))
