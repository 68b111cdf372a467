"""What records of small files hold; `schema` has what they share with those of networks.

`docs/records.md` describes the format for readers of the files.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import msgspec
from msgspec import Meta

from nerfstudio_prune.records.schema import SCHEMA_VERSION, Clock, MachineRecord, Quality

FileRole = Literal["dense", "pruned"]
"""dense: what others are held against, the run of the same seed that was not pruned; pruned: all else."""
FileUnit = Literal["parameters", "Gaussians"]
"""What a file's bytes are shared out over."""

Count = Annotated[int, Meta(ge=1, le=2**50)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]


@dataclass
class StoredForm:
    """One way to store the run, measured on what was read back."""

    label: str
    """In words, such as `mixed 4.5`; the same for all runs."""
    options: dict[str, Any]
    """Of the command that writes it, as they are given; of one that has none the end of the file's name."""
    bytes: Count
    """Of the file, header included."""
    quality: Quality
    """On test views, of what was read back."""
    agreement: Optional[float]
    """PSNR of its pictures against those of the checkpoint, over all pixels of all views, in dB; null if equal."""
    seconds: Amount
    """To make the file, calibration included."""


class FileRecord(msgspec.Struct, tag_field="kind", tag="file", kw_only=True):
    """Files of one finished run."""

    name: str
    """Unique within a folder of records: arm and seed."""
    arm: str
    """What is compared, without the seed."""
    seed: int
    role: FileRole
    run: str
    """Run that was stored, by its own record."""
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
    """How the run was trained, in words; the same for all that may be compared."""
    unit: FileUnit
    units: Count
    """How many the run has: all parameters of a network, or Gaussians."""
    plain_bytes: Count
    """All of the run's numbers as float32, without a header."""
    checkpoint_bytes: Count
    """Of the checkpoint, with the optimizer's moments."""
    checkpoint: Quality
    """On test views, of the run as it was trained."""
    forms: Annotated[list[StoredForm], Meta(min_length=1, max_length=1000)]
    clock: Clock = "wall"
    schema_version: int = SCHEMA_VERSION
