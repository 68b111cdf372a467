"""Tables of what networks cost: beside the host's own model, and without the samples in empty space."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, Optional

from nerfstudio_prune.records.cost_schema import CostArm, CostRecord, ScalingPoint, ScalingRecord, StockSpeedRecord
from nerfstudio_prune.report.cost_study import ABSCISSAE, along, dense_arm, peak_shares, step_with_looks
from nerfstudio_prune.report.markup import Column, escape, item_table, missing, table
from nerfstudio_prune.report.stats import MINUS, NOTHING, TIMES, TO, number
from nerfstudio_prune.report.tables import block_ratios


def cost_tables(records: Sequence[CostRecord]) -> dict[str, Callable[[], str]]:
    """Tables that a file may hold: name -> what makes it.

    Args:
        records: All records of costs.
    """
    makers: dict[str, tuple[type, str, Callable[[Any], str]]] = {
        "speed-stock": (StockSpeedRecord, "speed", stock_table),
        "speed-work": (StockSpeedRecord, "speed", work_table),
        "speed-views": (StockSpeedRecord, "speed", views_table),
        "scaling-lines": (ScalingRecord, "scaling", lines_table),
        "scaling-points": (ScalingRecord, "scaling", points_table),
        "scaling-frame": (ScalingRecord, "scaling", large_table),
    }
    return {name: partial(_of_all, records, *maker) for name, maker in makers.items()}


def _of_all(records: Sequence[CostRecord], kind: type, suite: str, make: Callable[[Any], str]) -> str:
    parts = [make(record) for record in records if isinstance(record, kind)]
    return "\n\n".join(parts) or missing(suite)


def stock_table(record: StockSpeedRecord) -> str:
    """Training steps and frames beside the host's model and this project's dense network, and a pruning event.

    Args:
        record: What was measured.
    """
    stock, dense = record.arms[0], dense_arm(record)

    def faster(arm: CostArm, other: Optional[CostArm]) -> str:
        if other is None or other is arm:
            return NOTHING
        return _spread(block_ratios(other.frame_seconds, arm.frame_seconds))

    def share(arm: CostArm, other: Optional[CostArm]) -> str:
        if other is None or other is arm:
            return NOTHING
        return _spread(block_ratios(arm.step_seconds, other.step_seconds), 3)

    columns = [
        Column("network", lambda arm: escape(arm.label)),
        Column("step ms", lambda arm: _of_step(arm, number(1e3 * median(arm.step_seconds), 1))),
        Column("of stock's step", lambda arm: _of_step(arm, share(arm, stock))),
        Column("with looks", lambda arm: _of_step(arm, _with_looks(record, arm, stock))),
        Column("of our dense step", lambda arm: _of_step(arm, share(arm, dense))),
        Column("frame s", lambda arm: number(median(arm.frame_seconds), 3)),
        Column("frame faster than stock's", lambda arm: faster(arm, stock)),
        Column("than our dense's", lambda arm: faster(arm, dense)),
        Column("look s", lambda arm: number(median(arm.look_seconds), 2) if arm.look_seconds else NOTHING),
    ]
    return f"{item_table(columns, [record.arms])}\n\n{_event_text(record)}\n\n{_caption(record)}"


def _with_looks(record: StockSpeedRecord, arm: CostArm, stock: CostArm) -> str:
    if not arm.look_seconds:
        return NOTHING
    return f"{step_with_looks(record, arm) / median(stock.step_seconds):.3f}{TIMES}"


def _event_text(record: StockSpeedRecord) -> str:
    event = record.event
    same = [arm for arm in record.arms if arm.network == "own" and arm.width == event.width and not arm.skipping]
    seconds = median(event.seconds)
    steps = f", {seconds / median(same[0].step_seconds):.1f} of its training steps with all samples" if same else ""
    return (
        f"A pruning event of the network of width {event.width} by the preset `{escape(event.preset)}`, calibration, "
        f"selection and refit included: {number(seconds, 2)} s{steps}."
    )


def _caption(record: StockSpeedRecord) -> str:
    samples = " + ".join(map(str, record.samples))
    height, width = record.image_size
    return (
        f"{escape(record.scene)}, scale {escape(record.scale)}, {escape(record.machine.key)}, {samples} samples, "
        f"{number(record.rays_per_batch)} rays a step, frames of {width} {TIMES} {height} pixels, "
        f"{len(record.peak_flops)} blocks. Best product: {number(max(record.peak_flops) / 1e9)} GFLOP/s."
    )


def work_table(record: StockSpeedRecord) -> str:
    """Points that are evaluated, the share of the machine's peak that is reached, and memory.

    Args:
        record: What was measured.
    """
    columns = [
        Column("network", lambda arm: escape(arm.label)),
        Column("products", lambda arm: escape(arm.matmul_precision)),
        Column("MACs a point", lambda arm: number(arm.macs_per_point)),
        Column("points a ray, step", lambda arm: _of_step(arm, points_text(arm.step_points))),
        Column("points a ray, frame", lambda arm: points_text(arm.frame_points)),
        Column("of peak, step", lambda arm: _of_step(arm, _percent(peak_shares(record, arm)[0]))),
        Column("of peak, frame", lambda arm: _percent(peak_shares(record, arm)[1])),
        Column("memory of a step MB", lambda arm: _of_step(arm, number(arm.step_memory_mb))),
        Column("of a frame MB", lambda arm: number(arm.frame_memory_mb)),
        Column("rays at once", lambda arm: number(arm.eval_rays_per_chunk)),
    ]
    return item_table(columns, [record.arms], text_columns=2)


def _of_step(arm: CostArm, text: str) -> str:
    """What is told of a training step; one field alone renders, and does not train."""
    return NOTHING if arm.fine_field_only else text


def views_table(record: StockSpeedRecord) -> str:
    """Test views of the trained field with all samples, without those in empty space, and by one field.

    Args:
        record: What was measured.
    """
    rows = []
    for view in record.views:
        one = view.fine_field_only
        rows.append(
            [
                str(view.view),
                number(view.psnr_all, 2),
                number(view.psnr_skipping, 2),
                number(view.psnr_skipping - view.psnr_all, 3, signed=True),
                _agreement(view.agreement),
                points_text(view.points),
                NOTHING if one is None else number(one.psnr - view.psnr_all, 3, signed=True),
                NOTHING if one is None else _agreement(one.agreement),
                NOTHING if one is None else points_text(one.points),
            ]
        )
    headers = ["view", "all samples dB", "skipping dB", "Δ dB", "agreement dB", "points a ray"]
    headers += ["one field, Δ dB", "one field, agreement dB", "one field, points a ray"]
    note = (
        f"The field of width {record.trained_width} after {number(record.train_steps)} training steps; all samples are "
        f"{points_text(record.arms[0].frame_points)} points a ray. {escape(record.scene)}, scale "
        f"{escape(record.scale)}."
    )
    return f"{table(headers, rows)}\n\n{note}"


def lines_table(record: ScalingRecord) -> str:
    """Straight lines through the times of training steps and of pictures, by what was varied.

    Args:
        record: What was measured.
    """
    rows = []
    for name, points in (("step", record.steps), ("frame", record.frames)):
        for axis, abscissa in ABSCISSAE.items():
            places, _, line = along(points, axis)
            if line is None:
                continue
            rows.append(
                [
                    name,
                    abscissa.title,
                    f"{min(places):.3g}{TO}{max(places):.3g}",
                    number(1e3 * line.constant, 1),
                    f"{1e3 * line.slope:.3g} a {abscissa.unit}".replace("-", MINUS),
                    f"{line.r2:.4f}".replace("-", MINUS),
                    str(len(places)),
                ]
            )
    headers = ["", "varied", "from to", "constant ms", "slope ms", "R²", "points"]
    machine = f"{escape(record.machine.key)}, products {escape(record.matmul_precision)}"
    caption = f"{escape(record.scene)}, scale {escape(record.scale)}, {machine}, all samples."
    return f"{table(headers, rows, text_columns=2)}\n\n{caption}" if rows else NOTHING


def points_table(record: ScalingRecord) -> str:
    """All points behind the lines, with their memory.

    Args:
        record: What was measured.
    """
    columns = [
        Column("", lambda named: named[0]),
        Column("varied", lambda named: named[1].axis),
        Column("width", lambda named: number(named[1].width)),
        Column("samples", lambda named: " + ".join(map(str, named[1].samples))),
        Column("rays, or pixels", lambda named: number(named[1].count)),
        Column("10⁹ MACs", lambda named: f"{named[1].macs / 1e9:.3g}"),
        Column("ms", lambda named: number(1e3 * median(named[1].seconds), 1)),
        Column("memory MB", lambda named: number(named[1].memory_mb, 1)),
    ]
    kinds: list[tuple[str, list[ScalingPoint]]] = [("step", record.steps), ("frame", record.frames)]
    return item_table(columns, [[(name, point) for point in points] for name, points in kinds], text_columns=2)


def large_table(record: ScalingRecord) -> str:
    """A large picture, and the bound of its memory.

    Args:
        record: What was measured.
    """
    large = record.large
    rows = [
        [
            "skipping" if frame.skipping else "all samples",
            number(frame.seconds, 1),
            points_text(frame.points),
            number(frame.memory_mb),
            number(large.bound_mb),
            _held(frame.memory_mb, large.bound_mb),
        ]
        for frame in large.frames
    ]
    headers = ["", "s", "points a ray", "memory MB", "bound MB", "within"]
    height, width = large.image_size
    samples = " + ".join(map(str, large.samples))
    note = (
        f"{width} {TIMES} {height} pixels, width {large.width}, {samples} samples, {number(large.train_steps)} "
        f"training steps, {number(large.eval_rays_per_chunk)} rays at once; {escape(record.scene)}, scale "
        f"{escape(record.scale)}, {escape(record.machine.key)}."
    )
    return f"{table(headers, rows)}\n\n{note}"


def _agreement(level: Optional[float]) -> str:
    return "equal" if level is None else number(level, 1)


def _held(memory: Optional[float], bound: float) -> str:
    if memory is None:
        return NOTHING
    return "yes" if memory <= bound else "no"


def points_text(points: dict[str, float]) -> str:
    """Points of a ray, coarse + fine.

    Args:
        points: Name of a field -> points.
    """
    coarse, fine = (points[name] for name in ("field_coarse", "field_fine"))
    return f"{coarse:.3g} + {fine:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %"


def _spread(values: Sequence[float], digits: int = 2) -> str:
    if not values:
        return NOTHING
    middle, low, high = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle}{TIMES} ({low}{TO}{high})"
