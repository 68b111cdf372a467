"""What records of measurements on Gaussians hold; `schema` has what they share with those of networks.

`docs/records.md` describes the format for readers of the files.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import msgspec
from msgspec import Meta

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.records.schema import SCHEMA_VERSION, Clock, MachineRecord, Quality

SplatRole = Literal["start", "dense", "pruned", "capped", "capped-equal-time", "scheduled", "harmonics", "peer"]
"""start: the dense run up to the cut, which others go on from; dense: the same trained on, the control; pruned: cut and
recovered; capped: growth stopped at the number that a pruned run has, for as many steps, or for as much time, as that;
scheduled: cut in mid-training by a preset; harmonics: the degree of the spherical harmonics lowered; peer: cut by
another program."""

Splits = dict[str, Quality]
"""`test`, and `val` where the data have validation views of their own -> quality on these views."""

Count = Annotated[int, Meta(ge=0, le=2**40)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Level = Annotated[float, Meta(ge=-1e6, le=1e6)]
Degree = Annotated[int, Meta(ge=0, le=3)]
Share = Annotated[float, Meta(gt=0, le=1)]


@dataclass
class SplatStage:
    """The Gaussians at one point of a run."""

    label: str
    """before (the event), right after, or end."""
    step: Count
    """Training steps taken, those of the runs it goes on from included."""
    gaussians: Annotated[int, Meta(ge=1, le=2**40)]
    sh_degree: Degree
    """Degree of the spherical harmonics."""
    bytes: Annotated[int, Meta(ge=1, le=2**50)]
    """Of all numbers as float32, uncompressed."""
    quality: Splits
    frame_seconds: Amount
    """To render a test view, mean, by the record's clock."""
    pairs_per_pixel: Optional[Amount]
    """Pairs of a Gaussian and a pixel that are composited, a pixel of a test view, mean; null where the rasteriser does
    not tell."""


@dataclass
class SplatSeconds:
    """How the time of a run was spent, by the record's clock."""

    train: Amount
    """Steps of this run, densification included."""
    train_total: Amount
    """The same with the runs it goes on from."""
    train_cpu: Amount
    """Processor time of the steps of this run over all threads."""
    prune: Amount
    """Events: scoring, selecting and cutting."""
    prune_total: Amount
    """The same with the runs it goes on from."""
    evaluate: Amount
    """Rendering and measuring quality."""


class SplatRecord(msgspec.Struct, tag_field="kind", tag="splat", kw_only=True):
    """One training run of Gaussians and what it gave."""

    name: str
    """Unique within a folder of records: arm and seed."""
    arm: str
    """What is compared, without the seed."""
    seed: int
    role: SplatRole
    strategy: str
    """How Gaussians were chosen; none if none was removed by an event."""
    score: Optional[str]
    """Score of the strategy, with a variant behind it; null if it uses none."""
    rounds: Optional[Count]
    """Times that the scores were taken within an event; null without scores."""
    keep: Optional[Share]
    """Share of the Gaussians that stays; for the capped, that of the run whose number they have; null: all."""
    recovery: Optional[str]
    """What the optimizers do after the event; null if there was none."""
    distil: Optional[str]
    """For role harmonics, what they learn from after their degree was lowered; else null."""
    method: str
    data: str
    scene: str
    scale: str
    parent: Optional[str]
    """Run whose checkpoint it goes on from."""
    digest: str
    """Fingerprint of all settings; equal settings have equal ones on every machine."""
    config: dict[str, Any]
    """Options that differ from the registered method, by dotted path."""
    command: str
    created: str
    """Date and time, UTC."""
    machine: MachineRecord
    steps: Count
    """Training steps taken in all."""
    stages: Annotated[list[SplatStage], Meta(min_length=1, max_length=100)]
    """By time; the last one is the end of the run."""
    history: list[PruneEvent]
    """Pruning events, those of the runs it goes on from included."""
    seconds: SplatSeconds
    step_seconds: Amount
    """A training step, median of the last 100; 0 where there was none."""
    peak_memory_mb: Optional[Amount]
    """Peak of the GPU's allocations, or of the whole process on a CPU; null where it cannot be told."""
    schedule: str
    """Steps of cut and end, in words; the same for all runs that may be compared."""
    clock: Clock = "wall"
    images: dict[str, str] = {}
    """Stage -> picture of the first test view, relative to the folder above the record; not committed."""
    notes: dict[str, Any] = {}
    """What a kind of run has to add."""
    schema_version: int = SCHEMA_VERSION

    def stage(self, label: str) -> Optional[SplatStage]:
        """The last stage of that label."""
        return next((stage for stage in reversed(self.stages) if stage.label == label), None)

    @property
    def end(self) -> SplatStage:
        """The state at the end of the run."""
        return self.stages[-1]


@dataclass
class ZeroShotRow:
    """One choice of Gaussians, measured right after the cut."""

    rule: str
    """dense (all stay), a score, merge (without photos), merge seen (by what training views see), or random."""
    rounds: Count
    """Times that scores were taken; 0 for a rule that takes none."""
    keep: Share
    """Share that stays."""
    gaussians: Annotated[int, Meta(ge=1, le=2**40)]
    psnr: dict[str, Level]
    """Split -> mean over its views, in dB."""
    ssim: dict[str, Level]
    """Split -> mean over its views."""
    seconds: Amount
    """What the choice took by the record's clock, the looks at all training views included."""


class ZeroShotRecord(msgspec.Struct, tag_field="kind", tag="splat-zero-shot", kw_only=True):
    """Many choices of Gaussians of one dense model, without any training after the cut."""

    name: str
    seed: int
    method: str
    data: str
    scene: str
    scale: str
    parent: str
    """Run whose model was cut."""
    digest: str
    config: dict[str, Any]
    command: str
    created: str
    machine: MachineRecord
    schedule: str
    train_views: Count
    """Views that scores were taken on."""
    views: dict[str, Count]
    """Split -> views that quality is the mean of."""
    rows: Annotated[list[ZeroShotRow], Meta(min_length=1, max_length=10_000)]
    clock: Clock = "wall"
    schema_version: int = SCHEMA_VERSION


@dataclass
class SplatSpeedArm:
    """Times of one of two models that were measured in turns."""

    gaussians: Annotated[int, Meta(ge=1, le=2**40)]
    sh_degree: Degree
    train_step_seconds: Annotated[list[Amount], Meta(min_length=1, max_length=10_000)]
    """Seconds a training step, one value a block."""
    frame_seconds: Annotated[list[Amount], Meta(min_length=1, max_length=10_000)]
    """Seconds to render a test view, colours only, one value a block."""
    pairs_per_pixel: Optional[Amount]
    peak_memory_mb: Optional[Amount]
    """Highest of the training blocks, above what is held between two steps; null where it cannot be told."""


class SplatSpeedRecord(msgspec.Struct, tag_field="kind", tag="splat-speed", kw_only=True):
    """Dense and pruned Gaussians measured in turns in one process."""

    name: str
    seed: int
    method: str
    data: str
    scene: str
    scale: str
    parents: dict[str, str]
    """dense, pruned -> run whose model it is."""
    digest: str
    config: dict[str, Any]
    command: str
    created: str
    machine: MachineRecord
    schedule: str
    image_size: list[Count]
    """Height and width of a test view."""
    keep: Share
    """Share of the Gaussians that the pruned model has."""
    warm_up_blocks: Count
    """Blocks of each model before the first one that counts."""
    steps_per_block: Count
    process_memory_mb: Optional[Amount]
    """Peak of the whole process, with both models; null where it cannot be told."""
    dense: SplatSpeedArm
    pruned: SplatSpeedArm
    clock: Clock = "wall"
    schema_version: int = SCHEMA_VERSION


AnySplatRecord = SplatRecord | ZeroShotRecord | SplatSpeedRecord
"""What a file below `splats` holds."""
