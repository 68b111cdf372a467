"""Records of tiny networks: what is written is what is read, and what no program of this project writes is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.kilo_record_factory import kilo_run, kilo_speed, save_kilo
from support.record_factory import run

from nerfstudio_prune.records.files import KILO_FOLDERS, read_record, record_files, write_record
from nerfstudio_prune.records.kilo_schema import AnyKiloRecord
from nerfstudio_prune.records.schema import RecordError


@pytest.mark.parametrize("make", [kilo_run, kilo_speed])
def test_round_trip(make: Callable[[], AnyKiloRecord], tmp_path: Path) -> None:
    """Hours of measurements go through these files: nothing may change on the way."""
    save_kilo(tmp_path, make())
    (path,) = record_files(tmp_path, KILO_FOLDERS)
    assert read_record(path) == make()


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    """Tables of other networks must not change when somebody makes tiny ones of them in the same folder."""
    save_kilo(tmp_path, kilo_run(), kilo_speed())
    write_record(run("dense"), tmp_path / "runs" / "dense-s1.json")
    assert [path.name for path in record_files(tmp_path)] == ["dense-s1.json"]
    assert len(list(record_files(tmp_path, KILO_FOLDERS))) == 2


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("stages",), []),
        (("stages", 0, "parameters"), 0),
        (("stages", 0, "networks"), -1),
        (("stages", 0, "occupied"), 1.5),
        (("stages", 0, "samples_per_ray"), -1.0),
        (("seconds", "distil"), -1.0),
        (("teacher", "parameters"), "many"),
        (("role",), "pruned"),
        (("schema_version",), 3),
    ],
)
def test_impossible_values_are_refused(keys: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    """A table made of them would look like any other; the file is named instead."""
    save_kilo(tmp_path, kilo_run())
    (path,) = record_files(tmp_path, KILO_FOLDERS)
    values = holder = json.loads(path.read_text("utf-8"))
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(RecordError, match=r"student-s1\.json"):
        read_record(path)
