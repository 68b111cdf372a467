"""Files of records: one JSON file each, written as a whole, checked when written and when read."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from nerfstudio_prune.core.events import decode_fraction
from nerfstudio_prune.core.files import read_file, write_file
from nerfstudio_prune.core.plain import check_plain
from nerfstudio_prune.records.cost_schema import CostRecord
from nerfstudio_prune.records.file_schema import FileRecord
from nerfstudio_prune.records.frontier_schema import FrontierRecord
from nerfstudio_prune.records.kilo_schema import AnyKiloRecord
from nerfstudio_prune.records.schema import SCHEMA_VERSION, Record, RecordError, RunRecord, SpeedRecord
from nerfstudio_prune.records.schema_1 import from_schema_1
from nerfstudio_prune.records.splat_schema import AnySplatRecord

MAX_BYTES = 64_000_000
"""More than any record has; those of this project have some 20 kB."""

AnyRecord = Record | CostRecord | AnySplatRecord | AnyKiloRecord | FileRecord | FrontierRecord
"""What a file holds; `kind` in the file tells which."""
NETWORK_FOLDERS, COST_FOLDERS, SPLAT_FOLDERS, KILO_FOLDERS, FILE_FOLDERS, FRONTIER_FOLDERS = (
    ("runs", "speed"),
    ("costs",),
    ("splat-runs",),
    ("kilo-runs",),
    ("file-runs",),
    ("frontier-runs",),
)
"""Names of the folders that records of networks, of what they cost, of Gaussians, of tiny networks, of small
files, and of all kinds beside each other, lie in."""


def to_json(value: Any) -> bytes:
    """Plain values and dataclasses as JSON, a line per value.

    Raises:
        TypeError: If JSON has no form of something in it.
    """
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_encoded), indent=1) + b"\n"


def write_record(record: AnyRecord, path: Path) -> None:
    """Writes a record as a whole.

    Raises:
        RecordError: If the record would not be readable, for example for a value that is not finite, or the file
            cannot be written.
    """
    try:
        content = to_json(record)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{path}: cannot be written as JSON: {error}") from error
    try:
        # JSON would hold null for a number that is not finite, which means «not to be had» where null is allowed.
        for name, value in msgspec.to_builtins(record, enc_hook=_encoded).items():
            check_plain(value, name)
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error
    _decode(content, path)
    try:
        write_file(path, content)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error}") from error


def read_record(path: Path) -> Any:
    """Reads one record.

    Raises:
        RecordError: If the file is damaged, of a newer schema, or no record at all; names the file.
    """
    try:
        content = read_file(path, MAX_BYTES)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error}") from error
    return _decode(content, path)


def read_records(folder: Path) -> tuple[list[RunRecord], list[SpeedRecord]]:
    """All records of networks below a folder, by name.

    Raises:
        RecordError: If the folder holds no record, two of one name, or one that cannot be read; names the file.
    """
    runs: dict[str, RunRecord] = {}
    speeds: dict[str, SpeedRecord] = {}
    for path in record_files(folder):
        record = read_record(path)
        known: dict[str, Any] = runs if isinstance(record, RunRecord) else speeds
        if record.name in known:
            raise RecordError(f"{path}: a second record named {record.name!r} in {folder}")
        known[record.name] = record
    if not runs and not speeds:
        raise RecordError(f"{folder}: holds no records; `ns-prune bench` writes them")
    return [runs[name] for name in sorted(runs)], [speeds[name] for name in sorted(speeds)]


def record_files(folder: Path, kinds: Sequence[str] = NETWORK_FOLDERS) -> Iterator[Path]:
    """Files of records below a folder, in a fixed order.

    Args:
        folder: Where to look.
        kinds: Names of the folders that they lie in.

    Raises:
        RecordError: If a folder cannot be looked through, for example because it goes meanwhile.
    """
    try:
        for kind in kinds:
            yield from sorted(folder.rglob(f"{kind}/*.json"))
    except OSError as error:
        raise RecordError(f"{folder}: cannot be read: {error}") from error


def _encoded(value: Any) -> Any:
    """What JSON has no form of: a fraction is its numerator and denominator."""
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    raise TypeError(f"a {type(value).__name__} has no place in JSON")


class _Head(msgspec.Struct):
    """What every record says of itself, whatever its version."""

    kind: Literal[
        "run",
        "speed",
        "stock-speed",
        "scaling",
        "splat",
        "splat-zero-shot",
        "splat-speed",
        "kilo",
        "kilo-speed",
        "file",
        "frontier",
    ]
    schema_version: Any = None


def _decode(content: bytes, path: Path) -> Any:
    try:
        values = msgspec.json.decode(content)
        check_plain(values, "record")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: no valid JSON ({error})") from error
    try:
        head = msgspec.convert(values, _Head)
    except msgspec.ValidationError as error:
        kinds = ", ".join(get_args(get_type_hints(_Head)["kind"]))
        raise RecordError(f"{path}: no record of nerfstudio-prune; `kind` must be one of {kinds}") from error
    if head.schema_version not in (1, SCHEMA_VERSION):
        raise RecordError(
            f"{path}: schema version {head.schema_version!r}, this version of nerfstudio-prune reads 1 and "
            f"{SCHEMA_VERSION}"
        )
    try:
        if head.schema_version == 1:
            values = from_schema_1(values)
        record = msgspec.convert(values, AnyRecord, dec_hook=decode_fraction)
    except msgspec.ValidationError as error:
        raise RecordError(f"{path}: not a valid {head.kind} record: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RecordError(f"{path}: not a valid {head.kind} record of schema 1: {error!r}") from error
    if isinstance(record, RunRecord) and not record.stages:
        raise RecordError(f"{path}: not a valid run record: no stages")
    return record
