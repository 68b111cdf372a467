"""Records put together into studies and arms."""

from pathlib import Path
from typing import Any, NamedTuple, Optional

from nerfstudio_prune.records.cost_schema import CostRecord
from nerfstudio_prune.records.files import read_record, record_files
from nerfstudio_prune.records.schema import PART_COSTS, RecordError, RunRecord, SpeedRecord
from nerfstudio_prune.report.cost_study import collect_costs
from nerfstudio_prune.report.file_study import FileStudy, collect_files
from nerfstudio_prune.report.frontier_study import FrontierStudy, collect_frontier
from nerfstudio_prune.report.kilo_study import KiloStudy, collect_kilo
from nerfstudio_prune.report.splat_study import SplatStudy, collect_splats
from nerfstudio_prune.report.study import ANY_STRATEGY, CONTINUE, SCRATCH, Arm, Entry, Study

ARM_FIELDS = ("role", "strategy", "score", "pruning_ratio", "recovery")
"""What runs of one arm must agree in."""
StudyKey = tuple[str, str, str, str, str]
"""Scene, scale, method, device and schedule."""


class Collected(NamedTuple):
    """All that was measured."""

    studies: list[Study]
    """Of networks."""
    splats: list[SplatStudy]
    """Of Gaussians."""
    costs: list[CostRecord]
    """Of what networks cost."""
    kilo: list[KiloStudy]
    """Of tiny networks."""
    files: list[FileStudy]
    """Of small files."""
    frontier: list[FrontierStudy]
    """Of all kinds of runs beside each other."""


def collect_all(folder: Path) -> Collected:
    """Reads all records below a folder.

    Raises:
        RecordError: If there are none, one cannot be read, or two are in conflict; names the files.
    """
    splats, costs, kilo = collect_splats(folder), collect_costs(folder), collect_kilo(folder)
    files, frontier = collect_files(folder), collect_frontier(folder)
    without_runs = any((splats, costs, kilo, files, frontier)) and not any(True for _ in record_files(folder))
    return Collected([] if without_runs else collect(folder), splats, costs, kilo, files, frontier)


def collect(folder: Path) -> list[Study]:
    """Reads all records of networks below a folder and puts them together.

    Speed depends on no schedule: its records go to the study without one, else to the first of their device.

    Raises:
        RecordError: If there are none, one cannot be read, or two are in conflict; names the files.
    """
    entries, speeds = _read(folder)
    studies: dict[StudyKey, Study] = {}
    groups: dict[tuple[StudyKey, str], list[Entry]] = {}
    for entry in entries:
        key = (*_common(entry.record), entry.record.machine.key, entry.record.schedule)
        groups.setdefault((key, entry.record.arm), []).append(entry)
    for (key, _), group in groups.items():
        studies.setdefault(key, Study(*key)).arms.append(Arm(_checked(group)))
    for speed in speeds:
        device = (*_common(speed), speed.machine.key)
        # Sorted, the empty schedule is the first.
        key = min((key for key in studies if key[:-1] == device), default=(*device, ""))
        studies.setdefault(key, Study(*key)).speeds.append(speed)
    ordered = [studies[key] for key in sorted(studies)]
    letters = {device: _letter(i) for i, device in enumerate(sorted({study.device for study in ordered}))}
    controls = _controls(entries)
    for study in ordered:
        study.letter = letters[study.device]
        study.controls = controls
        study.arms.sort(key=lambda arm: arm.sort_key)
        study.speeds.sort(key=lambda speed: (speed.pruning_ratio, speed.name))
        _name(study.arms)
    return ordered


def _common(record: RunRecord | SpeedRecord) -> tuple[str, str, str]:
    """What must agree for anything to be compared, besides the schedule of runs."""
    return record.scene, record.scale, record.method


def _read(folder: Path) -> tuple[list[Entry], list[SpeedRecord]]:
    entries: list[Entry] = []
    speeds: list[SpeedRecord] = []
    seen: dict[tuple[Any, ...], Path] = {}
    for path in record_files(folder):
        record = read_record(path)
        if isinstance(record, RunRecord):
            repetition = (record.schedule, record.arm, str(record.seed))
        else:
            repetition = (record.name,)
        key = (type(record), *_common(record), record.machine.key, *repetition)
        if key in seen:
            raise RecordError(f"{path}: the same run on the same device as {seen[key]}; keep one of the two")
        seen[key] = path
        problem = _problem(record)
        if problem:
            raise RecordError(f"{path}: {problem}")
        if isinstance(record, RunRecord):
            entries.append(Entry(record, path))
        else:
            speeds.append(record)
    if not seen:
        raise RecordError(f"{folder}: holds no records; `ns-prune bench` writes them")
    return entries, speeds


def _problem(record: RunRecord | SpeedRecord) -> Optional[str]:
    """What no program of this project would have written, though each single value is of the right kind."""
    if isinstance(record, SpeedRecord):
        arms = (record.dense, record.pruned)
        if not all(arm.train_step_seconds for arm in arms):
            return "holds no times"
        times = [(arm.train_step_seconds, arm.eval_rays_per_sec, arm.image_seconds) for arm in arms]
        if any(value <= 0 for arm in times for values in arm for value in values):
            return "holds times or rates that are not above 0"
        sizes = [arm.sizes for arm in arms]
    else:
        sizes = [stage.sizes for stage in record.stages]
        anatomy = record.anatomy
        if anatomy is not None:
            bounds = anatomy.histogram_edges
            if len(bounds) != len(anatomy.histogram_counts) + 1 or sorted(bounds) != bounds:
                return "anatomy: the bounds of the histogram do not fit its counts"
            if any(not values for layers in anatomy.score_quantiles.values() for values in layers.values()):
                return "anatomy: a layer has no quantiles"
    for size in sizes:
        if any(size.costs.get(name, 0) <= 0 for name in PART_COSTS) or "nonzero" not in size.costs:
            return "sizes: a network without parameters or multiply-accumulates"
        if any(name not in costs for costs in size.part_costs.values() for name in PART_COSTS):
            return "sizes: a layer without its two numbers"
    return None


def _checked(group: list[Entry]) -> list[Entry]:
    group = sorted(group, key=lambda entry: entry.record.seed)
    first = group[0]
    for entry in group[1:]:
        for name in ARM_FIELDS:
            if getattr(entry.record, name) != getattr(first.record, name):
                raise RecordError(f"{entry.path}: {name} differs from that of {first.path}, a run of the same arm")
    return group


def _controls(entries: list[Entry]) -> dict[Path, RunRecord]:
    """The dense run of the same seed: of the same device, else, for runs that moved to another one, of one folder."""
    by_device: dict[tuple[Any, ...], RunRecord] = {}
    by_folder: dict[tuple[Any, ...], RunRecord] = {}

    def keys(entry: Entry) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        run = entry.record
        common = (*_common(run), run.schedule, run.seed)
        return (*common, run.machine.key), (*common, entry.root)

    for entry in entries:
        if entry.record.role == "dense":
            device, folder = keys(entry)
            by_device[device] = by_folder[folder] = entry.record
    controls = {}
    for entry in entries:
        device, folder = keys(entry)
        control = by_device.get(device) or by_folder.get(folder)
        if control is not None and entry.record.role not in ("dense", "start"):
            controls[entry.path] = control
    return controls


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"Z{index}"


def _name(arms: list[Arm]) -> None:
    """Gives the arms labels; two of one size that would have the same get their full name."""
    scores: dict[str, set[Optional[str]]] = {}
    for arm in arms:
        if arm.first.role != "masked":
            scores.setdefault(arm.first.strategy, set()).add(arm.first.score)
    for arm in arms:
        run = arm.first
        several = len(scores.get(run.strategy, ())) > 1 or run.role == "masked"
        choice = f"{run.strategy} {run.score}" if run.score and several else run.strategy
        arm.label = arm.traits.label.format(choice=choice, arm=run.arm)
        if run.role == "pruned" and run.recovery == SCRATCH:
            arm.label = "re-initialised" if run.strategy == ANY_STRATEGY else f"{choice}, re-initialised"
        elif run.role == "pruned" and run.recovery not in (CONTINUE, None):
            arm.label = f"{choice}, {run.recovery}"
    taken: dict[tuple[Any, str], list[Arm]] = {}
    for arm in arms:
        taken.setdefault((arm.first.pruning_ratio, arm.label), []).append(arm)
    for same in taken.values():
        if len(same) > 1:
            for arm in same:
                arm.label = arm.name
