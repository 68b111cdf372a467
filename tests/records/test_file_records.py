"""Records of small files: what is written is what is read, and what no program of this project writes is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.file_record_factory import file_record, save_files
from support.record_factory import run

from nerfstudio_prune.records.files import FILE_FOLDERS, read_record, record_files, write_record
from nerfstudio_prune.records.schema import RecordError


def test_round_trip(tmp_path: Path) -> None:
    """Nothing may change on the way to a table; a file that shows what the checkpoint shows has no agreement."""
    made = file_record()
    made.forms[0].agreement = None
    save_files(tmp_path, made)
    (path,) = record_files(tmp_path, FILE_FOLDERS)
    assert read_record(path) == made


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    """Tables of networks must not change when somebody stores them in the same folder."""
    save_files(tmp_path, file_record())
    write_record(run("dense"), tmp_path / "runs" / "dense-s1.json")
    assert [path.name for path in record_files(tmp_path)] == ["dense-s1.json"]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("forms",), []),
        (("forms", 0, "bytes"), 0),
        (("forms", 0, "seconds"), -1.0),
        (("forms", 0, "agreement"), "good"),
        (("units",), 0),
        (("plain_bytes",), -4),
        (("unit",), "pixels"),
        (("role",), "start"),
        (("schema_version",), 3),
    ],
)
def test_impossible_values_are_refused(keys: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    """A table made of them would look like any other; the file is named instead."""
    save_files(tmp_path, file_record())
    (path,) = record_files(tmp_path, FILE_FOLDERS)
    values = holder = json.loads(path.read_text("utf-8"))
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(RecordError, match=r"files-best-s1\.json"):
        read_record(path)
