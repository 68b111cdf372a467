"""What records of measurements on tiny networks hold; `schema` has what they share with those of other networks.

`docs/records.md` describes the format for readers of the files.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import msgspec
from msgspec import Meta

from nerfstudio_prune.records.schema import SCHEMA_VERSION, Clock, MachineRecord, Quality

KiloRole = Literal["student", "scratch", "teacher-on"]
"""student: tiny networks that learnt from a teacher first; scratch: from photos alone, in the cells that the teacher
gave; teacher-on: the teacher itself trained on, for as long as a student took."""

KiloNetwork = Literal["stock", "dense", "tiny"]
"""The host's model; dense networks of this project; tiny ones."""

Count = Annotated[int, Meta(ge=0, le=2**40)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass
class KiloStage:
    """The networks at one point of a run."""

    label: str
    """teacher (what it shows in the student's cells), distilled, narrowed, fine-tuned (before what is empty leaves
    for the last time), or end."""
    step: Count
    """Training steps of this run by then."""
    parameters: Annotated[int, Meta(ge=1, le=2**40)]
    """Weights and biases of what renders: all tiny networks, or one field of the teacher."""
    networks: Count
    """Tiny networks; 1 for a teacher."""
    widths: dict[str, Count]
    """Hidden width of tiny networks -> how many there are of it."""
    occupied: Optional[Share]
    """Share of the voxels of the grid; null without one."""
    samples_per_ray: Optional[Amount]
    """Samples that are evaluated, mean over the rays of test views; null for a teacher by itself."""
    macs_per_ray: Optional[Amount]
    """Multiply-accumulates of these; null where networks of several widths share them, and for a teacher by itself."""
    quality: Quality
    """On test views."""
    frame_seconds: Amount
    """To render a test view, mean, by the record's clock."""


@dataclass
class KiloSeconds:
    """How the time of a run was spent, by the record's clock."""

    setup: Amount
    """Data loaded, teacher looked at, cells laid."""
    distil: Amount
    """Steps of the first phase, a second try of stuck networks included."""
    finetune: Amount
    """Steps of the second phase, narrowing and tightening included; all steps of a teacher that is trained on."""
    evaluate: Amount
    """Rendering and measuring quality."""

    @property
    def total(self) -> float:
        """All but the measurements."""
        return self.setup + self.distil + self.finetune


@dataclass
class TeacherResult:
    """The teacher of a run, by its own record."""

    name: str
    """Run."""
    psnr: float
    """On the same views, rendered by itself, in dB."""
    ssim: float
    parameters: Annotated[int, Meta(ge=1, le=2**40)]
    """Of both of its fields."""
    seconds: Amount
    """Of its training, pruning included."""
    steps: Count


class KiloRecord(msgspec.Struct, tag_field="kind", tag="kilo", kw_only=True):
    """One training run of tiny networks, or of a control, and what it gave."""

    name: str
    """Unique within a folder of records: arm and seed."""
    arm: str
    """What is compared, without the seed."""
    seed: int
    role: KiloRole
    teacher: TeacherResult
    method: str
    data: str
    scene: str
    scale: str
    digest: str
    """Fingerprint of all settings; equal settings have equal ones on every machine."""
    config: dict[str, Any]
    """Options that differ from the registered method, by dotted path."""
    command: str
    created: str
    """Date and time, UTC."""
    machine: MachineRecord
    schedule: str
    """How the teacher was trained, in words; the same for all runs that may be compared."""
    steps: Count
    """Training steps after which the run's checkpoint was saved, those of a teacher that is trained on included."""
    stages: Annotated[list[KiloStage], Meta(min_length=1, max_length=100)]
    """By time; the last one is the end of the run."""
    seconds: KiloSeconds
    peak_memory_mb: Optional[Amount]
    """Peak of the GPU's allocations, or of the whole process on a CPU; null where it cannot be told."""
    clock: Clock = "wall"
    images: dict[str, str] = {}
    """Stage -> picture of the first test view, relative to the folder above the record; not committed."""
    schema_version: int = SCHEMA_VERSION

    def stage(self, label: str) -> Optional[KiloStage]:
        """The last stage of that label."""
        return next((stage for stage in reversed(self.stages) if stage.label == label), None)

    @property
    def end(self) -> KiloStage:
        """The state at the end of the run."""
        return self.stages[-1]


@dataclass
class KiloFrames:
    """Pictures of one size by one of the ways that were measured in turns."""

    image_size: Annotated[list[Count], Meta(min_length=2, max_length=2)]
    """Height and width."""
    seconds: Annotated[list[Amount], Meta(min_length=1, max_length=10_000)]
    """To render one, one value a round."""
    rows: Annotated[int, Meta(ge=1, le=2**20)]
    """Every so manieth row of pixels was rendered, and the time multiplied."""
    samples_per_ray: Amount
    """Points of a ray at which a network is evaluated, all fields, mean over the pictures."""


@dataclass
class KiloFrameArm:
    """One way to render the scene."""

    label: str
    network: KiloNetwork
    run: Optional[str]
    """Run whose networks these are; null for those that were made for the measurement."""
    cells: bool
    """Whether only the samples in the student's cells are evaluated, with one field."""
    networks: Count
    macs_per_point: Optional[Amount]
    """Multiply-accumulates of one evaluation; null for networks of several widths."""
    matmul_precision: str
    frames: Annotated[list[KiloFrames], Meta(min_length=1, max_length=100)]
    """By size; the first is that of the data."""


class KiloSpeedRecord(msgspec.Struct, tag_field="kind", tag="kilo-speed", kw_only=True):
    """Pictures in turns in one process."""

    name: str
    seed: int
    teacher: str
    """Run that dense networks are of."""
    method: str
    data: str
    scene: str
    scale: str
    digest: str
    config: dict[str, Any]
    command: str
    created: str
    machine: MachineRecord
    schedule: str
    arms: Annotated[list[KiloFrameArm], Meta(min_length=2, max_length=100)]
    """The first is the host's."""
    clock: Clock = "wall"
    schema_version: int = SCHEMA_VERSION


AnyKiloRecord = KiloRecord | KiloSpeedRecord
"""What a file below `kilo-runs` holds."""
