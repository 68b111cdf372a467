"""Records of what networks cost, read and checked for what no single value tells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression, median
from typing import Any, Optional

from nerfstudio_prune.records.cost_schema import (
    Axis,
    CostArm,
    CostRecord,
    ScalingPoint,
    ScalingRecord,
    StockSpeedRecord,
)
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
    one_field = [view.fine_field_only for view in record.views if view.fine_field_only is not None]
    if any(view.points.keys() != FIELDS for view in (*record.views, *one_field)):
        return f"a view with points of other fields than {' and '.join(sorted(FIELDS))}"
    return None


def _problem_of_points(record: ScalingRecord) -> Optional[str]:
    if any(len(point.samples) != 2 for point in (*record.steps, *record.frames)) or len(record.large.samples) != 2:
        return "samples are not those of the coarse field and those that are added"
    if len(record.large.image_size) != 2:
        return "image_size is not a height and a width"
    if any(frame.points.keys() != FIELDS for frame in record.large.frames):
        return f"points of other fields than {' and '.join(sorted(FIELDS))}"
    return None


_PROBLEMS: dict[type, Callable[[Any], Optional[str]]] = {
    StockSpeedRecord: _problem_of_arms,
    ScalingRecord: _problem_of_points,
}


@dataclass(frozen=True)
class Line:
    """A straight line, by least squares."""

    constant: float
    """Value at 0."""
    slope: float
    """Change of the value by 1."""
    r2: float
    """Share of the variance that it explains, at most 1."""


def fit_line(places: Sequence[float], values: Sequence[float]) -> Optional[Line]:
    """The straight line of least squares; None where it is not determined.

    Args:
        places: Where the values were measured.
        values: The values, as many.
    """
    if len(set(places)) < 2:
        return None
    slope, constant = linear_regression(places, values)
    middle = fmean(values)
    total = sum((value - middle) ** 2 for value in values)
    left = sum((value - constant - slope * place) ** 2 for place, value in zip(places, values, strict=True))
    return Line(constant, slope, 1 - left / total if total > 0 else 1.0)


@dataclass(frozen=True)
class Abscissa:
    """What times are put beside."""

    title: str
    value: Callable[[ScalingPoint], float]
    unit: str
    """What the slope is told for."""


ABSCISSAE: Mapping[Axis, Abscissa] = {
    "width": Abscissa("width, by multiply-accumulates", lambda point: point.macs / 1e9, "10⁹ MACs"),
    "samples": Abscissa("samples, by points a ray", lambda point: point.points, "point"),
    "rays": Abscissa("rays", lambda point: point.count, "ray"),
    "pixels": Abscissa("pixels", lambda point: point.count, "pixel"),
}
"""What was varied -> what it is told by."""


def along(points: Sequence[ScalingPoint], axis: Axis) -> tuple[list[float], list[float], Optional[Line]]:
    """Places, median seconds and the line of the points that were varied in one way.

    Args:
        points: Steps, or pictures.
        axis: What was varied.
    """
    own = [point for point in points if point.axis == axis]
    places = [float(ABSCISSAE[axis].value(point)) for point in own]
    seconds = [median(point.seconds) for point in own]
    return places, seconds, fit_line(places, seconds)


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
