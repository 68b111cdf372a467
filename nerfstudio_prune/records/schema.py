"""What records of measurements hold.

`docs/records.md` describes the format for readers of the files. Units: seconds, bytes in MB = 10^6 bytes, PSNR in dB,
SSIM and LPIPS without unit; LPIPS is null where its network is not to be had.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, Optional

import msgspec

from nerfstudio_prune.core.events import PruneEvent

SCHEMA_VERSION = 2
"""Version of the records; raised when an older reader could not understand the content."""

LEARNING_RATE = "optimizers.fields.optimizer.lr"
"""Option of the learning rate, as in a record's `config`."""

PART_COSTS = ("parameters", "macs_per_ray")
"""What is told of every layer."""

Role = Literal["start", "dense", "pruned", "edges", "masked", "small", "small-equal-time", "peer"]
"""start: the dense run up to the cut, which others go on from; dense: the same trained on, the control; pruned: neurons
removed; edges: single weights masked; masked: neurons masked instead of removed; small: a network of those widths from
scratch for as many steps, or for as much time, as a pruned run; peer: pruned by another library."""

Clock = Literal["wall", "processor"]
"""What training is timed by."""


class RecordError(ValueError):
    """A file that is no readable record. The message names the file."""


@dataclass
class MachineRecord:
    """Where a measurement was taken."""

    device: str
    """Name of the GPU, or of the processor when it computed."""
    device_type: str
    """cpu or cuda."""
    threads: int
    """Threads of one CPU operation."""
    platform: str
    """Operating system and architecture."""
    versions: dict[str, str]
    """Package -> version, Python included."""
    git_commit: Optional[str]
    """Commit of this project, with `+` when files were changed; null outside a checkout."""

    @property
    def key(self) -> str:
        """What must agree for two times to be compared."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.device}, {threads}" if self.device_type == "cpu" else self.device


@dataclass
class ViewQuality:
    """Quality of one rendered view."""

    view: int
    """Index among the evaluation views."""
    psnr: float
    ssim: float
    lpips: Optional[float] = None


@dataclass
class Quality:
    """Quality of the fine field."""

    views: list[ViewQuality]
    psnr: float
    """Mean over the views."""
    ssim: float
    """Mean over the views."""
    lpips: Optional[float] = None
    """Mean over the views."""

    @classmethod
    def of(cls, views: list[ViewQuality]) -> "Quality":
        """Means over some views, at least one; LPIPS where it is known of all of them."""
        lpips = [view.lpips for view in views if view.lpips is not None]
        return cls(
            views,
            psnr=fmean(view.psnr for view in views),
            ssim=fmean(view.ssim for view in views),
            lpips=fmean(lpips) if len(lpips) == len(views) else None,
        )


@dataclass
class ModelSize:
    """How large a model is, read off its tensors."""

    parts: dict[str, int]
    """Name of the layer -> neurons."""
    costs: dict[str, int]
    """Cost -> that of the whole model: `parameters` (weights and biases of all that is trained; masks remove none),
    `nonzero` (those of them that are not zero: what masks let live), `macs_per_ray` (multiply-accumulates for one ray;
    masks save none)."""
    part_costs: dict[str, dict[str, int]]
    """Name of the layer, those included that are never pruned -> cost -> its share of the whole."""
    fields_mb: float
    """The parameters as stored in fp32."""
    checkpoint_mb: float
    """What a checkpoint of the run takes at this point: parameters, moments, state."""

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.costs["parameters"]

    @property
    def nonzero(self) -> int:
        """Weights and biases that are not zero."""
        return self.costs["nonzero"]

    @property
    def macs_per_ray(self) -> int:
        """Multiply-accumulates for one ray."""
        return self.costs["macs_per_ray"]


@dataclass
class Stage:
    """The network at one point of a run."""

    label: str
    """before (the event), right after, or end."""
    step: int
    """Training steps taken, those of the runs it goes on from included."""
    sizes: ModelSize
    quality: Quality


@dataclass
class CurvePoint:
    """Quality in the course of training, on a fixed batch of held-out rays."""

    step: int
    """Training steps taken."""
    train_seconds: float
    """Time of these steps by the record's clock, without evaluation."""
    psnr: float


@dataclass
class Seconds:
    """How the time of a run was spent; prune and evaluate by the wall clock."""

    train: float
    """Steps of this run, by the record's clock."""
    train_total: float
    """The same with the runs it goes on from."""
    train_cpu: float
    """Processor time of the steps of this run over all threads. Far below train x threads: the machine was busy."""
    prune: float
    """Scoring, selection and surgery."""
    evaluate: float
    """Rendering and measuring quality."""


@dataclass
class Anatomy:
    """Distributions of the weights and scores of a network."""

    histogram_edges: list[float]
    """Bounds of the bins of |weight|, ascending."""
    histogram_counts: list[int]
    """Weights of the hidden layers of the fine field in each bin; one less than bounds."""
    score_quantiles: dict[str, dict[str, list[float]]]
    """Score -> layer -> 33 equally spaced quantiles, ascending."""


class RunRecord(msgspec.Struct, tag_field="kind", tag="run", kw_only=True):
    """One training run and what it gave."""

    name: str
    """Unique within a folder of records: arm and seed."""
    arm: str
    """What is compared, without the seed."""
    seed: int
    role: Role
    """What the run is in a comparison."""
    strategy: str
    """How neurons (or edges) were chosen; none if nothing was removed in training."""
    score: Optional[str]
    """Score of the strategy; null if it uses none."""
    pruning_ratio: Optional[float]
    """Fraction of the neurons of every layer that are gone (or, for `small`, were never there); null for edges."""
    recovery: Optional[str]
    """Recovery mode after the event; null if there was none."""
    method: str
    """Nerfstudio method."""
    data: str
    """Dataparser."""
    scene: str
    """Name of the scene."""
    scale: str
    """Name of the suite's scale."""
    parent: Optional[str]
    """Run whose checkpoint it goes on from."""
    digest: str
    """Fingerprint of all settings; equal settings have equal ones on every machine."""
    config: dict[str, Any]
    """Options that differ from the registered method, by dotted path."""
    command: str
    """Command that made the record."""
    created: str
    """Date and time, UTC."""
    machine: MachineRecord
    rays_per_batch: int
    steps: int
    """Training steps taken in all."""
    stages: list[Stage]
    history: list[PruneEvent]
    """Pruning events."""
    curve: list[CurvePoint]
    """From the first step of the first run that it goes on from."""
    seconds: Seconds
    rays_per_sec: float
    """Training rays per second by the record's clock, median of the last 100 steps."""
    eval_rays_per_sec: float
    """Rendered rays per second of the last evaluation."""
    peak_memory_mb: Optional[float]
    """Peak of the GPU's allocations, or of the whole process on a CPU; null where it cannot be told."""
    eval_views: int
    """Views that the quality is the mean of."""
    curve_rays: int
    """Rays behind a point of the curve."""
    schedule: str = ""
    """Steps of cut and end, and how the learning rate falls, in words; empty where the scale decides all of it."""
    clock: Clock = "wall"
    """What training was timed by. With one thread on a CPU it is the processor time of this process: what else the
    machine does then does not count."""
    anatomy: Optional[Anatomy] = None
    images: dict[str, dict[str, str]] = {}
    """View -> stage (or `truth`) -> picture, relative to the folder above the record; not committed."""
    notes: dict[str, Any] = {}
    """What a procedure has to add."""
    schema_version: int = SCHEMA_VERSION

    def stage(self, label: str) -> Optional[Stage]:
        """The last stage of that label."""
        return next((stage for stage in reversed(self.stages) if stage.label == label), None)

    @property
    def end(self) -> Stage:
        """The state at the end of the run."""
        return self.stages[-1]


@dataclass
class SpeedArm:
    """Times of one of two networks that were measured in turns."""

    sizes: ModelSize
    train_step_seconds: list[float]
    """Seconds per training step, one value a block."""
    eval_rays_per_sec: list[float]
    """Rendered rays per second, one value a block."""
    image_seconds: list[float]
    """Seconds to render one view."""
    peak_memory_mb: Optional[float]
    """Highest of the training blocks, above what is held between two steps; null where it cannot be told."""


class SpeedRecord(msgspec.Struct, tag_field="kind", tag="speed", kw_only=True):
    """Dense and pruned network measured in turns in one process."""

    name: str
    scene: str
    scale: str
    digest: str
    method: str
    config: dict[str, Any]
    command: str
    created: str
    machine: MachineRecord
    rays_per_batch: int
    image_size: list[int]
    """Height and width of the rendered view."""
    pruning_ratio: float
    warm_up_blocks: int
    """Blocks of each network before the first one that counts."""
    steps_per_block: int
    dense: SpeedArm
    pruned: SpeedArm
    clock: Clock = "wall"
    """What both were timed by."""
    schema_version: int = SCHEMA_VERSION


Record = RunRecord | SpeedRecord
"""What a file holds; `kind` in the file tells which."""
