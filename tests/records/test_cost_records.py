"""Records of costs: what is written is what is read, and what no program of this project writes is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cost_record_factory import arm, save_costs, scaling, stock_speed
from support.record_factory import run

from nerfstudio_prune.records.cost_schema import CostArm, CostRecord
from nerfstudio_prune.records.files import COST_FOLDERS, read_record, record_files, write_record
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.cost_study import collect_costs

MAKERS = (stock_speed, scaling)


@pytest.mark.parametrize("make", MAKERS)
def test_round_trip(make: Callable[[], CostRecord], tmp_path: Path) -> None:
    """What was measured in an hour goes through these files: nothing may change on the way."""
    (path,) = record_files(save_costs(tmp_path, make()), COST_FOLDERS)
    assert read_record(path) == make()
    assert collect_costs(tmp_path) == [make()]


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    """Tables of pruning must not change when somebody measures costs beside it."""
    save_costs(tmp_path, *(make() for make in MAKERS))
    write_record(run("dense"), tmp_path / "runs" / "dense-s1.json")
    assert [path.name for path in record_files(tmp_path)] == ["dense-s1.json"]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("arms",), []),
        (("arms", 0, "step_seconds"), []),
        (("arms", 0, "step_seconds", 0), 0.0),
        (("arms", 0, "frame_seconds", 0), -1.0),
        (("arms", 0, "width"), 0),
        (("arms", 0, "network"), "other"),
        (("arms", 0, "step_points", "field_fine"), -1.0),
        (("peak_flops", 0), 0.0),
        (("views",), []),
        (("event", "seconds"), []),
        (("schema_version",), 3),
    ],
)
def test_impossible_values_are_refused(keys: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    """A table made of them would look like any other; the file is named instead."""
    (path,) = record_files(save_costs(tmp_path, stock_speed()), COST_FOLDERS)
    values = whole = json.loads(path.read_text("utf-8"))
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = value
    path.write_text(json.dumps(whole), "utf-8")
    with pytest.raises(RecordError, match=r"speed-stock\.json"):
        read_record(path)


def stock(**values: Any) -> CostArm:
    """The host's arm."""
    return arm("stock", 1.0, 1.0, network="stock", **values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": [arm("256", 1.0, 1.0)]}, "the first arm is not the host's model"),
        ({"arms": [stock(), stock()]}, "two arms of one label"),
        ({"arms": [stock(step_points={"field_fine": 1.0})]}, "points of other fields"),
        ({"arms": [stock(skipping=True, look_seconds=[1.0])]}, "number of blocks"),
    ],
    ids=["no stock", "twice", "fields", "blocks"],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Each value for itself is possible; ratios of such arms would compare what was not measured together."""
    save_costs(tmp_path, stock_speed(**change))
    with pytest.raises(RecordError, match=f"speed-stock.json: .*{message}"):
        collect_costs(tmp_path)


def test_one_measurement_twice(tmp_path: Path) -> None:
    """A copied folder would show every row twice."""
    for name in ("a", "b"):
        save_costs(tmp_path / name, stock_speed())
    with pytest.raises(RecordError, match="keep one"):
        collect_costs(tmp_path)


def test_another_kind_in_the_folder(tmp_path: Path) -> None:
    """A file that was moved by hand is named, not left out of the tables without a word."""
    write_record(run("dense"), tmp_path / COST_FOLDERS[0] / "dense-s1.json")
    with pytest.raises(RecordError, match=r"dense-s1\.json: a record of another kind"):
        collect_costs(tmp_path)
