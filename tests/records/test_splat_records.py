"""Records of Gaussians: what is written is what is read, and what no program of this project writes is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.record_factory import run
from support.splat_record_factory import save_splats, splat_run, splat_speed, zero_shot

from nerfstudio_prune.records.files import SPLAT_FOLDERS, read_record, record_files, write_record
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.records.splat_schema import AnySplatRecord

MAKERS = (lambda: splat_run("removal-6-34", keep=0.34), zero_shot, splat_speed)


@pytest.mark.parametrize("make", MAKERS)
def test_round_trip(make: Callable[[], AnySplatRecord], tmp_path: Path) -> None:
    """Hours of measurements go through these files: nothing may change on the way."""
    save_splats(tmp_path, make())
    (path,) = record_files(tmp_path, SPLAT_FOLDERS)
    assert read_record(path) == make()


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    """Tables of networks must not change when somebody measures Gaussians beside them."""
    save_splats(tmp_path, *(make() for make in MAKERS))
    write_record(run("dense"), tmp_path / "runs" / "dense-s1.json")
    assert [path.name for path in record_files(tmp_path)] == ["dense-s1.json"]
    assert len(list(record_files(tmp_path, SPLAT_FOLDERS))) == 3


def at(*keys: Any) -> Callable[[Any, Any], None]:
    """Puts a value at a place of a record."""

    def put(values: Any, value: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return put


@pytest.mark.parametrize(
    ("put", "value"),
    [
        (at("stages"), []),
        (at("stages", 0, "gaussians"), 0),
        (at("stages", 0, "gaussians"), -5),
        (at("stages", 0, "gaussians"), 10**15),
        (at("stages", 0, "sh_degree"), 4),
        (at("stages", 0, "bytes"), "many"),
        (at("stages", 0, "frame_seconds"), -1.0),
        (at("keep"), 0.0),
        (at("keep"), 1.5),
        (at("role"), "small"),
        (at("seconds", "train"), -1.0),
        (at("step_seconds"), 1e300),
        (at("schema_version"), 3),
    ],
)
def test_impossible_values_are_refused(put: Callable[[Any, Any], None], value: Any, tmp_path: Path) -> None:
    """A table made of them would look like any other; the file is named instead."""
    save_splats(tmp_path, splat_run("removal-6-34", keep=0.34))
    (path,) = record_files(tmp_path, SPLAT_FOLDERS)
    values = json.loads(path.read_text("utf-8"))
    put(values, value)
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(RecordError, match=r"removal-6-34-s0\.json"):
        read_record(path)


@pytest.mark.parametrize("kind", ["splat", "splat-zero-shot", "splat-speed"])
def test_no_older_schema(kind: str, tmp_path: Path) -> None:
    """Schema 1 had no Gaussians: a file that claims so is damaged, and must not be read as something else."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"kind": kind, "schema_version": 1}), "utf-8")
    with pytest.raises(RecordError, match=r"a\.json: not a valid"):
        read_record(path)
