"""Records of what networks cost, read and checked for what no single value tells."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Optional

from nerfstudio_prune.records.cost_schema import CostArm, CostRecord, StockSpeedRecord
from nerfstudio_prune.records.files import COST_FOLDERS, read_record, record_files
from nerfstudio_prune.records.schema import RecordError

FIELDS = {"field_coarse", "field_fine"}


def collect_costs(folder: Path) -> list[CostRecord]:
    """Reads all records of costs below a folder, by scene, scale and device; there may be none.

    Raises:
        RecordError: If one cannot be read, holds what no program of this project writes, or is there twice; names the
            files.
    """
    found: dict[tuple[str, ...], tuple[CostRecord, Path]] = {}
    for path in record_files(folder, COST_FOLDERS):
        record = read_record(path)
        if not isinstance(record, CostRecord):
            raise RecordError(f"{path}: a record of another kind in a folder for those of costs")
        key = (record.scene, record.scale, record.method, record.machine.key, record.name)
        if key in found:
            raise RecordError(f"{path}: the same measurement on the same device as {found[key][1]}; keep one")
        problem = _PROBLEMS[type(record)](record)
        if problem:
            raise RecordError(f"{path}: {problem}")
        found[key] = record, path
    return [found[key][0] for key in sorted(found)]


def _problem_of_arms(record: StockSpeedRecord) -> Optional[str]:
    if record.arms[0].network != "stock":
        return "the first arm is not the host's model"
    if len({arm.label for arm in record.arms}) < len(record.arms):
        return "two arms of one label"
    if len(record.image_size) != 2:
        return "image_size is not a height and a width"
    blocks = len(record.peak_flops)
    for arm in record.arms:
        times = (arm.step_seconds, arm.frame_seconds, *([arm.look_seconds] if arm.skipping else []))
        if any(len(values) != blocks for values in times):
            return f"arm {arm.label!r} has another number of blocks than there were rounds ({blocks})"
        if any(points.keys() != FIELDS for points in (arm.step_points, arm.frame_points)):
            return f"arm {arm.label!r}: points of other fields than {' and '.join(sorted(FIELDS))}"
    if any(view.points.keys() != FIELDS for view in record.views):
        return f"a view with points of other fields than {' and '.join(sorted(FIELDS))}"
    return None


_PROBLEMS: dict[type, Callable[[Any], Optional[str]]] = {StockSpeedRecord: _problem_of_arms}


def operations(arm: CostArm, points: dict[str, float], rays: int, passes: int) -> float:
    """Operations of products, two for each multiply-accumulate.

    Args:
        arm: The network.
        points: Points of a ray, by field.
        rays: Rays.
        passes: How often every product is computed: once in rendering, three times in training.
    """
    return 2.0 * passes * arm.macs_per_point * sum(points.values()) * rays


def peak_shares(record: StockSpeedRecord, arm: CostArm) -> tuple[float, float]:
    """Shares of the machine's best product that a training step and a frame reach, in [0, 1] but for rounding.

    Args:
        record: The record.
        arm: One of its arms.
    """
    peak, (height, width) = max(record.peak_flops), record.image_size
    step = operations(arm, arm.step_points, record.rays_per_batch, 3) / median(arm.step_seconds)
    frame = operations(arm, arm.frame_points, height * width, 1) / median(arm.frame_seconds)
    return step / peak, frame / peak


def step_with_looks(record: StockSpeedRecord, arm: CostArm) -> float:
    """Seconds of a training step with its part of the look at the space, median.

    Args:
        record: The record.
        arm: One of its arms.
    """
    look = median(arm.look_seconds) if arm.look_seconds else 0.0
    return median(arm.step_seconds) + look / record.update_interval


def dense_arm(record: StockSpeedRecord) -> Optional[CostArm]:
    """This project's widest network with all samples; None if there is none."""
    own: Sequence[CostArm] = [arm for arm in record.arms if arm.network == "own" and not arm.skipping]
    return max(own, key=lambda arm: arm.width, default=None)
