"""What records of the cost of networks hold; `schema` has what they share with those of runs.

`docs/records.md` describes the format for readers of the files.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import msgspec
from msgspec import Meta

from nerfstudio_prune.records.schema import SCHEMA_VERSION, Clock, MachineRecord

Count = Annotated[int, Meta(ge=1, le=2**50)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Times = Annotated[list[Seconds], Meta(min_length=1, max_length=10_000)]
Rate = Annotated[float, Meta(gt=0, le=1e18)]
Level = Annotated[float, Meta(ge=-1e6, le=1e6)]
Points = dict[str, Amount]
"""`field_coarse`, `field_fine` -> points of a ray at which the field is evaluated, mean."""


@dataclass
class CostArm:
    """One network, with all samples or without those in empty space, that took turns with the others."""

    label: str
    """Unique within the record."""
    network: Literal["stock", "own"]
    """stock: the host's model, its LPIPS metric left out; own: this project's."""
    width: Count
    """Neurons of a trunk layer; a layer of the head has half of them."""
    skipping: bool
    """Whether empty space is left out."""
    matmul_precision: str
    """Precision of products, as in `torch.set_float32_matmul_precision`."""
    macs_per_point: Count
    """Multiply-accumulates of one evaluation at one point, the same for both fields."""
    eval_rays_per_chunk: Count
    """Rays that are rendered at once."""
    steps_per_block: Count
    step_seconds: Times
    """Seconds of a training step, one value a block; looks at the space are not in it."""
    frame_seconds: Times
    """Seconds to render one view, one value a block, of another view each time; the look at the space is not in it."""
    look_seconds: list[Seconds]
    """Seconds of a look at the space that goes on from the one before, both fields, one value a block; empty where
    nothing is skipped."""
    step_points: Points
    """Of a training step."""
    frame_points: Points
    """Of a rendered view."""
    rows: Count
    """Every so manieth row of pixels was rendered, and the time multiplied by that."""
    step_memory_mb: Optional[Amount]
    """What a training step takes at most above what is held between two of them; null where it cannot be told."""
    frame_memory_mb: Optional[Amount]
    """The same of the rendered rows of a view."""
    fine_field_only: bool = False
    """Whether views are rendered by the fine field alone; training steps are those of both."""


@dataclass
class FineView:
    """A test view by the fine field alone, at evenly spaced samples near what is not empty."""

    psnr: Level
    """Against the photo."""
    agreement: Optional[Level]
    """PSNR against the picture with all samples of both fields; null: they are equal."""
    points: Points
    """Points that were evaluated."""


@dataclass
class SkippedView:
    """One test view of the trained field, rendered with all samples and without those in empty space."""

    view: Annotated[int, Meta(ge=0, le=2**40)]
    """Index among the test views."""
    psnr_all: Level
    """With all samples, against the photo."""
    psnr_skipping: Level
    """Without those in empty space, against the photo."""
    agreement: Optional[Level]
    """PSNR of one picture against the other; null: they are equal."""
    points: Points
    """Points that were evaluated in the second."""
    fine_field_only: Optional[FineView] = None
    """The same view by one field."""


@dataclass
class EventCost:
    """Pruning events of a dense network with calibration, selection, refit and surgery."""

    width: Count
    """Neurons of a trunk layer before."""
    preset: str
    """Preset of the events."""
    seconds: Times
    """One value an event, without measurements of quality."""


class CostHeader(msgspec.Struct, kw_only=True):
    """What every measurement of cost says of itself."""

    name: str
    seed: int
    method: str
    scene: str
    scale: str
    digest: str
    config: dict[str, Any]
    """Options that differ from the registered method, by dotted path, of the widest network, or of the one in the
    middle of what is varied."""
    command: str
    created: str
    machine: MachineRecord
    clock: Clock = "wall"
    schema_version: int = SCHEMA_VERSION


class StockSpeedRecord(CostHeader, tag_field="kind", tag="stock-speed", kw_only=True):
    """The host's own model and this project's at several widths, measured in turns in one process."""

    rays_per_batch: Count
    image_size: list[Count]
    """Height and width of a view."""
    samples: list[Count]
    """Of the coarse field, and those added for the fine one."""
    train_steps: Count
    """Training steps of the field that all arms show."""
    trained_width: Count
    """Its width; in wider networks there are zeros around its weights."""
    update_interval: Count
    """Training steps between two looks at the space, by default."""
    peak_flops: Annotated[list[Rate], Meta(min_length=1, max_length=10_000)]
    """Operations a second of the best product of square float32 matrices, one value a round: two for each
    multiply-accumulate."""
    arms: Annotated[list[CostArm], Meta(min_length=1, max_length=1000)]
    """Blocks at one position took place one right after the other; the first arm is the host's model."""
    event: EventCost
    views: Annotated[list[SkippedView], Meta(min_length=1, max_length=10_000)]


Axis = Literal["width", "samples", "rays", "pixels"]
"""What was varied."""


@dataclass
class ScalingPoint:
    """A training step, or a picture, of one network; all samples are evaluated."""

    axis: Axis
    width: Count
    """Neurons of a trunk layer."""
    samples: list[Count]
    """Of the coarse field, and those added for the fine one."""
    count: Count
    """Rays of the training step, or pixels of the picture."""
    points: Count
    """Points of a ray at which fields are evaluated, both fields together."""
    macs_per_point: Count
    seconds: Times
    """One value a block."""
    memory_mb: Optional[Amount]
    """At most, above what is held before; null where it cannot be told."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward pass."""
        return self.macs_per_point * self.points * self.count


@dataclass
class LargeFrame:
    """One large picture."""

    skipping: bool
    """Whether empty space was left out."""
    seconds: Seconds
    """A look at the space is not in it."""
    points: Points
    memory_mb: Optional[Amount]
    """At most, above what was held before; null where it cannot be told."""


@dataclass
class LargeFrames:
    """A large picture of a network that was trained for a short while."""

    width: Count
    samples: list[Count]
    train_steps: Count
    image_size: list[Count]
    """Height and width."""
    eval_rays_per_chunk: Count
    """Rays that are rendered at once."""
    bound_mb: Amount
    """What the memory must not exceed, by arithmetic from pixels, rays at once and samples."""
    frames: Annotated[list[LargeFrame], Meta(min_length=1, max_length=100)]


class ScalingRecord(CostHeader, tag_field="kind", tag="scaling", kw_only=True):
    """Time and memory by the size of network, batch and picture, measured in turns in one process."""

    matmul_precision: str
    """Precision of products, as in `torch.set_float32_matmul_precision`."""
    steps: Annotated[list[ScalingPoint], Meta(min_length=1, max_length=1000)]
    frames: Annotated[list[ScalingPoint], Meta(min_length=1, max_length=1000)]
    large: LargeFrames


CostRecord = StockSpeedRecord | ScalingRecord
"""What a file below `costs` holds."""
