"""Records: what was measured must come back as it was, and a file that is not whole must say so."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import structs

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent, Sizes
from nerfstudio_prune.core.files import write_files
from nerfstudio_prune.records.files import (
    read_record,
    read_records,
    record_files,
    write_file,
    write_record,
)
from nerfstudio_prune.records.schema import (
    SCHEMA_VERSION,
    Anatomy,
    CurvePoint,
    MachineRecord,
    ModelSize,
    Quality,
    RecordError,
    Role,
    RunRecord,
    Seconds,
    SpeedArm,
    SpeedRecord,
    Stage,
    ViewQuality,
)

SCHEMA_1 = Path(__file__).parent / "schema_1"
"""The records made below as the code wrote them that knew schema 1 only."""
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
DOCS = Path(__file__).parents[2] / "docs" / "records.md"
MACHINE = MachineRecord("Some CPU", "cpu", 2, "Linux x86_64", {"python": "3.11.2", "torch": "2.5.0"}, "0123abc+")


def some_sizes(width: int) -> ModelSize:
    layer = "field_fine.mlp_base.layers.0"
    costs = {"parameters": 64 * width, "nonzero": 63 * width, "macs_per_ray": 630 * width}
    part_costs = {"parameters": 64 * width, "macs_per_ray": 630 * width}
    return ModelSize({layer: width}, costs, {layer: part_costs}, 0.25, 0.75)


def some_stage(label: str, step: int, width: int) -> Stage:
    views = [ViewQuality(0, 20.1, 0.7, 0.3), ViewQuality(5, 0.1 + 0.2, 1 / 3)]
    return Stage(label, step, some_sizes(width), Quality(views, 15.05, 0.6, None))


def some_run(name: str = "coreset-s1") -> RunRecord:
    """A record in which everything that may be there is there, with numbers that rounding would change."""
    layer = "field_fine.mlp_base.layers.0"
    event = PruneEvent(
        step=9,
        scheduled=ScheduledEvent(9, Fraction(1, 3), {layer: 8}),
        strategy="coreset",
        recovery="continue",
        options={"strategy": "coreset", "groups": ["*"], "width": None, "seed": 1},
        before=Sizes({layer: 16}, {"parameters": 1024, "macs_per_ray": 10080}),
        after=Sizes({layer: 8}, {"parameters": 512, "macs_per_ray": 5040}),
        metrics_before={"psnr": 20.0},
        metrics_after={"psnr": 11.0},
        rays_per_sec_before=1e3,
        seconds=0.01,
    )
    return RunRecord(
        name=name,
        arm="coreset",
        seed=1,
        role="pruned",
        strategy="coreset",
        score="w_in_w_out",
        pruning_ratio=0.5,
        recovery="continue",
        method="nerf-prune",
        data="demo-data",
        scene="solids",
        scale="smoke",
        parent="start-s1",
        digest="0f" * 8,
        config={"pipeline.prune.width": 8, "pipeline.model.skip_connections": [4]},
        command="ns-prune bench --scale smoke",
        created="2025-01-01T00:00:00Z",
        machine=MACHINE,
        rays_per_batch=32,
        steps=20,
        stages=[some_stage("before", 10, 16), some_stage("right after", 10, 8), some_stage("end", 20, 8)],
        history=[event],
        curve=[CurvePoint(0, 0.0, 5.0), CurvePoint(20, 1.5, 20.0)],
        seconds=Seconds(1.0, 1.5, 1.9, 0.01, 2.0),
        rays_per_sec=2345.6,
        eval_rays_per_sec=1e4,
        peak_memory_mb=None,
        eval_views=2,
        curve_rays=32,
        schedule="cut at 10 of 20 steps",
        anatomy=Anatomy([0.0, 0.5, 1.0], [3, 4], {"w_out": {"field_fine.mlp_base.layers.0": [0.1] * 33}}),
        images={"0": {"truth": "images/t.png", "end": "images/e.png"}},
        notes={"größe": "π"},
    )


def some_speed(name: str = "half") -> SpeedRecord:
    arms = [SpeedArm(some_sizes(width), [0.1, 0.2], [1e4, 2e4], [0.5, 0.6], 123.4) for width in (16, 8)]
    return SpeedRecord(
        name=name,
        scene="solids",
        scale="smoke",
        digest="0f" * 8,
        method="nerf-prune",
        config={},
        command="ns-prune bench",
        created="2025-01-01T00:00:00Z",
        machine=MACHINE,
        rays_per_batch=32,
        image_size=[16, 16],
        pruning_ratio=0.5,
        warm_up_blocks=1,
        steps_per_block=2,
        dense=arms[0],
        pruned=arms[1],
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the tests write their record."""
    return tmp_path / "runs" / "coreset-s1.json"


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Writes a valid record, then the same with a change to the plain values in it."""
    write_record(some_run(), path)
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), "utf-8")
    return path


def message(path: Path) -> str:
    """What the reader is told; every message has to name the file."""
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("make", [some_run, some_speed])
def test_round_trip(make: Callable[[], Any], path: Path) -> None:
    """Reports are made from the files alone; a number that is rounded, or a null that becomes 0, would be a result that
    nobody measured."""
    write_record(make(), path)
    assert read_record(path) == make()
    assert read_record(path) is not make()


@pytest.mark.parametrize("make", [some_run, some_speed])
def test_order_of_fields_does_not_matter(make: Callable[[], Any], path: Path) -> None:
    """Other tools, jq for one, sort keys. A reader that goes by position would take one number for another."""
    write_record(make(), path)
    values = json.loads(path.read_text("utf-8"))
    reversed_values = json.loads(json.dumps(values), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert list(reversed_values) == list(reversed(values))
    path.write_text(json.dumps(reversed_values), "utf-8")
    assert read_record(path) == make()


def test_files_are_for_people_and_other_programs(path: Path) -> None:
    """Records are committed and read elsewhere: a line per value, so that a difference can be seen, a newline at the
    end, every letter as such, and readable for all."""
    write_record(some_run(), path)
    text = path.read_text("utf-8")
    assert text.endswith("}\n") and len(text.splitlines()) > 100 and "größe" in text
    assert path.stat().st_mode & 0o777 == 0o644
    assert json.loads(text)["stages"][2]["sizes"]["parts"] == {"field_fine.mlp_base.layers.0": 8}


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of hours is interrupted at any time. Half a file in place of the old one would cost the measurement, and
    left-over temporary files would be taken for records."""
    write_record(some_run(), path)
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> None:
        assert read_record(self) == longer, "only a whole file may take the place of the old one"
        raise OSError("no space left on device")

    longer = some_run()
    longer.curve *= 100
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(RecordError, match=f"{re.escape(str(path))}: cannot be written: no space left"):
        write_record(longer, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    """Half of a report beside the half of an older one shows numbers that do not belong together. A folder in the place
    of the last file is found when the others are ready to take their places, and none of them does."""
    for name in ("a.md", "plots/b.svg"):
        write_file(tmp_path / name, b"old")
    (tmp_path / "c.html").mkdir()
    names = ("a.md", "plots/b.svg", "new/d.png", "c.html")
    with pytest.raises(OSError, match=r"c\.html is a folder"):
        write_files({tmp_path / name: b"new" for name in names})
    assert [file.read_bytes() for file in sorted(tmp_path.rglob("*")) if file.is_file()] == [b"old", b"old"]
    write_files({tmp_path / name: b"new" for name in names[:3]})
    assert [file.read_bytes() for file in sorted(tmp_path.rglob("*")) if file.is_file()] == [b"new"] * 3


def test_special_files_in_the_place_of_a_record(path: Path) -> None:
    """A pipe is waited for without end, a device is read without end, and of a file of terabytes nobody knows what is
    in it. Each is told by its name before a byte is read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[], Any]] = {
        "is a pipe": lambda: os.mkfifo(path),
        "is a device": lambda: path.symlink_to("/dev/zero"),
        "is a folder": path.mkdir,
        "1,000,000,000,000 bytes": lambda: path.touch() or os.truncate(path, 10**12),
        "No such file": lambda: path.symlink_to("nowhere"),
        "symbolic links": lambda: path.symlink_to(path.name),
    }
    for found, make in makers.items():
        make()
        with pytest.raises(RecordError, match=f"{re.escape(str(path))}: cannot be read: .*{found}"):
            read_record(path)
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("old", "new"),
    [('"steps": 20', '"steps": ' + "9" * 400), ('"config": {', '"config": {"a": ' + "[" * 50 + "]" * 50 + ",")],
)
def test_numbers_and_nests_of_no_measurement(path: Path, old: str, new: str) -> None:
    """JSON bounds neither; a table that is made of them fails far away from the file."""
    write_record(some_run(), path)
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(RecordError, match=re.escape(str(path))):
        read_record(path)


def test_an_interrupt_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no `Exception`."""
    write_record(some_run(), path)

    def interrupt(self: Path, mode: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "chmod", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_record(some_run("other"), path)
    assert read_record(path) == some_run() and list(path.parent.iterdir()) == [path]


def test_writing_replaces_the_old_record(path: Path) -> None:
    """A run that is repeated must not leave the tail of a longer old record behind."""
    longer = some_run()
    longer.curve *= 100
    write_record(longer, path)
    write_record(some_run(), path)
    assert read_record(path) == some_run() and list(path.parent.iterdir()) == [path]


def spoil_lpips(record: RunRecord, value: Any) -> str:
    record.stages[1].quality.views[0].lpips = value
    return "stages[1].quality.views[0].lpips"


def spoil_psnr(record: RunRecord, value: Any) -> str:
    record.curve[1].psnr = value
    return "curve[1].psnr"


def spoil_config(record: RunRecord, value: Any) -> str:
    record.config["optimizers.fields.lr"] = value
    return "config.optimizers.fields.lr"


def spoil_event(record: RunRecord, value: Any) -> str:
    record.history[0] = replace(record.history[0], metrics_after={"psnr": value})
    return "history[0].metrics_after.psnr"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("spoil", [spoil_lpips, spoil_psnr, spoil_config, spoil_event])
def test_numbers_that_are_not_finite_are_refused(spoil: Callable[..., str], value: float, path: Path) -> None:
    """JSON has no NaN. Written as null, a diverged run would read as «LPIPS is not to be had» where null is allowed,
    and as a file that cannot be read where it is not; the old file has to stay then."""
    write_record(some_run(), path)
    record = some_run()
    field = spoil(record, value)
    with pytest.raises(RecordError, match=re.escape(f"{path}: {field} must be finite, got {value}")):
        write_record(record, path)
    assert read_record(path) == some_run() and list(path.parent.iterdir()) == [path]


def test_folder_that_goes_meanwhile_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own walk passes over folders that it may not read, and raises for one that goes while it looks: a report
    that is made while a benchmark clears up would end in a traceback."""

    def gone(folder: Path, pattern: str) -> Any:
        raise FileNotFoundError(2, "No such file or directory", "work/tmp")

    monkeypatch.setattr(Path, "rglob", gone)
    with pytest.raises(RecordError, match=f"{path.parent}: cannot be read: .*work/tmp"):
        read_records(path.parent)


def test_what_json_cannot_hold_is_refused(path: Path) -> None:
    """A path or a numpy number among the options would otherwise end a run of hours with a message that names no
    file."""
    record = some_run()
    record.notes["where"] = Path("x")
    with pytest.raises(RecordError, match=rf"{re.escape(str(path))}: cannot be written as JSON: .*Path"):
        write_record(record, path)
    assert not path.exists()


def test_what_the_reader_refuses_is_not_written(path: Path) -> None:
    """A wrong type has to come up where it is made, not when the report is made days later."""
    record = some_run()
    record.stages[2].sizes.fields_mb = "1.5"  # type: ignore[assignment]
    with pytest.raises(RecordError, match=re.escape("$.stages[2].sizes.fields_mb")):
        write_record(record, path)
    record = some_run()
    record.stages = []
    with pytest.raises(RecordError, match="no stages"):
        write_record(record, path)
    assert not path.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated(share: float, path: Path) -> None:
    """What a full disk or a broken copy leaves must not be read as far as it goes."""
    write_record(some_run(), path)
    content = path.read_bytes().rstrip()
    path.write_bytes(content[: int(len(content) * share)])
    assert "no valid JSON" in message(path)


@pytest.mark.parametrize(
    "content", [b"no json", b'{"kind": "run"} and more', b"\xff\xfe{\x00}\x00", b'{"caf\xe9": 1}', b'{"psnr": NaN}']
)
def test_no_json(content: bytes, path: Path) -> None:
    """Damaged files and such in another encoding have to be found by name among hundreds, whatever is wrong in them."""
    path.parent.mkdir()
    path.write_bytes(content)
    assert "no valid JSON" in message(path)


@pytest.mark.parametrize(
    "content", ["[]", "null", "3", "{}", '{"kind": "tensor"}', '{"kind": ["run"]}', '{"kind": {}}']
)
def test_foreign_json(content: str, path: Path) -> None:
    """A file of another program in the folder is an error, as a forgotten measurement would be."""
    path.parent.mkdir()
    path.write_text(content)
    assert message(path) == (
        "no record of nerfstudio-prune; `kind` must be one of run, speed, stock-speed, scaling, splat, "
        "splat-zero-shot, splat-speed, kilo, kilo-speed, file, frontier"
    )


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, None, "1", [1]])
def test_other_schema_version(version: Any, path: Path) -> None:
    """A newer file may look valid and mean something else; the message has to say which of the two is too old."""
    changed(path, lambda values: values.update(schema_version=version, role="not known yet"))
    text = message(path)
    assert f"schema version {version!r}" in text and f"reads 1 and {SCHEMA_VERSION}" in text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda values: values.update(seed="1"), "$.seed"),
        (lambda values: values.update(role="baseline"), "$.role"),
        (lambda values: values.update(rays_per_sec=None), "$.rays_per_sec"),
        (lambda values: values.update(schedule=None), "$.schedule"),
        (lambda values: values.update(schedule=["late"]), "$.schedule"),
        (lambda values: values["curve"][1].update(psnr="20"), "$.curve[...].psnr"),
        (lambda values: values["stages"][0]["sizes"]["costs"].update(nonzero=0.5), "$.stages[...].sizes.costs[...]"),
        (lambda values: values["history"][0].update(scheduled=3), "$.history[...].scheduled"),
        (lambda values: values["history"][0]["scheduled"].update(share=[1, 0]), "$.history[...].scheduled.share"),
        (lambda values: values["history"][0]["scheduled"].update(share=0.5), "numerator and denominator, got 0.5"),
        (lambda values: values["machine"]["versions"].update(torch=2), "$.machine.versions"),
        (lambda values: values.pop("seconds"), "`seconds`"),
        (lambda values: values["stages"][0]["quality"].pop("ssim"), "`ssim` - at `$.stages"),
        (lambda values: values.update(stages=[]), "no stages"),
    ],
)
def test_wrong_fields_are_named(change: Callable[[dict[str, Any]], Any], field: str, path: Path) -> None:
    """Somebody edited the file or wrote it by other means; without the field the error in 10 000 lines is not found,
    and without the check it comes up as a wrong table."""
    text = message(changed(path, change))
    pattern = re.escape(field).replace(re.escape("[...]"), r"\[[^]]+\]")
    assert text.startswith("not a valid run record: ") and re.search(pattern, text), text


def test_records_from_before_schedules(path: Path) -> None:
    """Days of measurements were recorded without the field, all of them as the scale has it. They must not have to be
    touched."""
    record = read_record(changed(path, lambda values: values.pop("schedule")))
    assert isinstance(record, RunRecord) and record.schedule == ""


def test_schema_1_is_read_as_schema_2(path: Path) -> None:
    """Days of measurements are committed in schema 1. The same run written then and now must be the same objects, or
    a table would compare two readings of one thing."""
    record = some_run()
    record.history.append(PruneEvent(12, None, "coreset", "continue", error="weights are not finite"))
    write_record(record, path)
    assert read_record(SCHEMA_1 / "run.json") == read_record(path) == record
    write_record(some_speed(), path)
    assert read_record(SCHEMA_1 / "speed.json") == read_record(path) == some_speed()


def test_committed_records_are_read() -> None:
    """Every one of them, with the numbers that stand in the file."""
    runs, speeds = 0, 0
    for path in record_files(RESULTS):
        values, record = json.loads(path.read_text("utf-8")), read_record(path)
        if isinstance(record, SpeedRecord):
            speeds += 1
            pairs = [(values["dense"], record.dense), (values["pruned"], record.pruned)]
        else:
            runs += 1
            pairs = list(zip(values["stages"], record.stages, strict=True))
        for old, new in pairs:
            sizes = old["sizes"] if values["schema_version"] == 1 else {}
            for name, value in sizes.items():
                if name in ("parameters", "nonzero", "macs_per_ray"):
                    assert new.sizes.costs[name] == getattr(new.sizes, name) == value
                elif name == "layers":
                    assert {layer: list(costs.values()) for layer, costs in new.sizes.part_costs.items()} == value
                else:
                    assert getattr(new.sizes, "parts" if name == "widths" else name) == value
    assert runs > 100 and speeds > 0


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda values: values["stages"][0]["sizes"].pop("widths"), "KeyError('widths')"),
        (lambda values: values["stages"][0]["sizes"]["layers"].update(x=[1]), "ValueError"),
        (lambda values: values["stages"][0]["sizes"].update(layers=[1]), "AttributeError"),
        (lambda values: values.update(stages=3), "TypeError"),
        (lambda values: values["history"][0].pop("sizes_after"), "KeyError('sizes_after')"),
        (lambda values: values["history"][0]["scheduled"].update(progress="all"), "ValueError"),
        (lambda values: values.pop("stages"), "KeyError('stages')"),
        (lambda values: values.update(seed="1"), "$.seed"),
        (lambda values: values["stages"][0]["sizes"].update(parameters="1"), ".sizes.costs"),
    ],
)
def test_damaged_records_of_schema_1_are_named(change: Callable[[dict[str, Any]], Any], part: str, path: Path) -> None:
    """What cannot be translated ends in the same kind of message as what cannot be read, with the file's name."""
    values = json.loads((SCHEMA_1 / "run.json").read_text("utf-8"))
    change(values)
    path.parent.mkdir()
    path.write_text(json.dumps(values), "utf-8")
    text = message(path)
    assert text.startswith("not a valid run record") and part in text


def test_missing_file_and_directory(path: Path) -> None:
    """Both come from a mistyped path."""
    assert "cannot be read" in message(path)
    path.mkdir(parents=True)
    assert "cannot be read" in message(path)


def test_folder_of_records(tmp_path: Path) -> None:
    """Tables are made in this order, so that two reports of the same records are equal byte by byte; suites lie in
    folders of their own."""
    for name in ("b-s2", "a-s1"):
        write_record(some_run(name), tmp_path / "smoke" / "runs" / f"{name}.json")
    write_record(some_run("b-s1"), tmp_path / "another" / "runs" / "0.json")
    write_record(some_speed("a-s1"), tmp_path / "smoke" / "speed" / "half.json")
    (tmp_path / "smoke" / "report.json").write_text("{}")
    (tmp_path / "smoke" / "runs" / ".a-s1.json.tmp123").write_text("half a fi")
    runs, speeds = read_records(tmp_path)
    assert [run.name for run in runs] == ["a-s1", "b-s1", "b-s2"] and [speed.name for speed in speeds] == ["a-s1"]


@pytest.mark.parametrize("make", [some_run, some_speed])
def test_two_records_of_one_name(make: Callable[[str], Any], tmp_path: Path) -> None:
    """Of two runs of a name one would silently be left out of the mean."""
    for file in ("a", "b"):
        write_record(make("same"), tmp_path / ("runs" if make is some_run else "speed") / f"{file}.json")
    with pytest.raises(RecordError, match=r"b\.json: a second record named 'same'"):
        read_records(tmp_path)


def test_one_bad_record_of_a_folder(tmp_path: Path) -> None:
    """A report on the rest would pass for the whole; a directory named like a record is the same."""
    write_record(some_run(), tmp_path / "runs" / "a.json")
    bad = tmp_path / "runs" / "b.json"
    bad.mkdir()
    with pytest.raises(RecordError, match=re.escape(f"{bad}: cannot be read")):
        read_records(tmp_path)
    bad.rmdir()
    bad.write_text("{")
    with pytest.raises(RecordError, match=re.escape(f"{bad}: no valid JSON")):
        read_records(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_folder_without_records(there: bool, tmp_path: Path) -> None:
    """An empty report would hide a wrong path."""
    folder = tmp_path / "results"
    if there:
        (folder / "runs").mkdir(parents=True)
    with pytest.raises(RecordError, match=re.escape(f"{folder}: holds no records; `ns-prune bench` writes them")):
        read_records(folder)


def test_any_file_is_written_as_a_whole(tmp_path: Path) -> None:
    """Reports and caches are read while they are made anew. A file that its owner made private, or writable for a
    group, stays so."""
    path = tmp_path / "new" / "index.html"
    write_file(path, b"<p>")
    assert path.read_bytes() == b"<p>" and path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o660)
    write_file(path, b"")
    assert path.read_bytes() == b"" and path.stat().st_mode & 0o777 == 0o660
    assert list(path.parent.iterdir()) == [path]


def test_stages_are_found_by_label() -> None:
    """After several events there are several stages of a label; the state after the whole cut is the last one."""
    record = some_run()
    record.stages.insert(2, some_stage("right after", 15, 4))
    found = record.stage("right after")
    assert found is not None and found.step == 15 and record.stage("other") is None
    assert record.end is record.stages[-1]


def test_key_of_a_machine() -> None:
    """Times of one CPU with 2 and with 4 threads are no comparison; on a GPU the threads do not matter."""
    machines = [
        MachineRecord(device, kind, threads, "", {}, None)
        for device, kind, threads in (("A", "cpu", 2), ("A", "cpu", 4), ("B", "cuda", 2), ("B", "cuda", 4))
    ]
    assert machines[0].key != machines[1].key and machines[2].key == machines[3].key


def test_docs_name_every_field() -> None:
    """Readers of the files have the page, not the code; a field that is missing there does not exist for them, and one
    that is no more misleads."""
    sections = {}
    for title, kind in (("Run record", "run"), ("Speed record", "speed")):
        section = DOCS.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.MULTILINE)
        sections[kind] = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    for kind, cls in (("run", RunRecord), ("speed", SpeedRecord)):
        assert sorted(sections[kind]) == sorted(["kind", *(f.name for f in structs.fields(cls))])
    roles = DOCS.read_text("utf-8").split("Roles:\n")[1].split("\nA stage")[0]
    assert set(re.findall(r"^\* `([\w-]+)`:", roles, re.MULTILINE)) == set(get_args(Role))


@pytest.mark.parametrize("schema", [1, 2])
def test_example_of_the_docs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], schema: int
) -> None:
    """An example that does not run on the reader's files, the older ones among them, is worse than none."""
    folder = tmp_path / "results" / "cpu" / "runs"
    folder.mkdir(parents=True)
    if schema == 1:
        values = json.loads((SCHEMA_1 / "run.json").read_text("utf-8"))
    else:
        write_record(some_run(), folder / "any.json")
        values = json.loads((folder / "any.json").read_text("utf-8"))
        (folder / "any.json").unlink()
    for name, arm, seed, psnr in (
        ("coreset-s1", "coreset", 1, 20.0),
        ("coreset-s2", "coreset", 2, 22.0),
        ("dense-s1", "dense", 1, 25.5),
    ):
        values.update(name=name, arm=arm, seed=seed, parent=f"start-s{seed}")
        values["stages"][-1]["quality"]["psnr"] = psnr
        (folder / f"{name}.json").write_text(json.dumps(values), "utf-8")
    monkeypatch.chdir(tmp_path)
    exec(DOCS.read_text("utf-8").split("```python\n")[1].split("```")[0], {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["coreset", "2", "21.00", "dB", "512", "parameters"],
        ["dense", "1", "25.50", "dB", "512", "parameters"],
        ["coreset-s1", "-5.50", "dB", "against", "dense-s1"],
    ]


def test_fields_are_written_under_their_own_names(path: Path) -> None:
    """Files outlive the code that wrote them."""
    write_record(some_run(), path)
    values = json.loads(path.read_text("utf-8"))
    assert list(values) == ["kind", *(f.name for f in structs.fields(RunRecord))] and values["kind"] == "run"
