"""What records hold that put all kinds of finished runs beside each other; `schema` has what they share with others.

`docs/records.md` describes the format for readers of the files.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import msgspec
from msgspec import Meta

from nerfstudio_prune.records.schema import SCHEMA_VERSION, Clock, MachineRecord, Quality

Family = Literal["stock", "network", "tiny networks", "Gaussians"]
"""stock: the host's vanilla NeRF, which is not trained here and only timed; network: one of this project's, dense or
pruned."""

Count = Annotated[int, Meta(ge=1, le=2**50)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]


@dataclass
class FrontierArm:
    """One finished run."""

    label: str
    """In words, the same for all seeds."""
    family: Family
    run: Optional[str]
    """By its own record; null for the host's."""
    units: Count
    """Parameters of what renders and of what places samples, or Gaussians."""
    plain_bytes: Count
    """Of all of its numbers as float32."""
    train_seconds: Optional[Amount]
    """Of its training, by its own record, with runs that it goes on from, a teacher and what pruning took; null for the
    host's."""
    quality: Optional[Quality]
    """On test views, as a user renders them; null for the host's."""
    frame_seconds: Annotated[list[Amount], Meta(min_length=1, max_length=10_000)]
    """To render a test view, one value a round."""
    rows: Annotated[int, Meta(ge=1, le=2**20)] = 1
    """Every so manieth row of pixels was rendered, and the time multiplied."""


class FrontierRecord(msgspec.Struct, tag_field="kind", tag="frontier", kw_only=True):
    """Finished runs of all kinds, rendered in turns in one process."""

    name: str
    seed: int
    method: str
    """That of the dense network."""
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
    """How networks were trained, in words."""
    image_size: Annotated[list[Count], Meta(min_length=2, max_length=2)]
    """Height and width."""
    arms: Annotated[list[FrontierArm], Meta(min_length=1, max_length=1000)]
    clock: Clock = "wall"
    schema_version: int = SCHEMA_VERSION
