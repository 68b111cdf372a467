"""Records of what networks cost with plausible numbers, made by hand: for tests of what reads records."""

from pathlib import Path
from typing import Any

from nerfstudio_prune.records.cost_schema import (
    Axis,
    CostArm,
    CostRecord,
    EventCost,
    FineView,
    LargeFrame,
    LargeFrames,
    ScalingPoint,
    ScalingRecord,
    SkippedView,
    StockSpeedRecord,
)
from nerfstudio_prune.records.files import COST_FOLDERS, write_record
from support.record_factory import CPU

ALL = {"field_coarse": 64.0, "field_fine": 193.0}
FEW = {"field_coarse": 5.0, "field_fine": 32.0}
FINE = {"field_coarse": 0.0, "field_fine": 20.0}


def arm(label: str, step: float, frame: float, **values: Any) -> CostArm:
    """An arm of two blocks, the second of which takes 1.5 times as long."""
    width = values.get("width", 256)
    skipping = values.get("skipping", False)
    given: dict[str, Any] = {
        "network": "own",
        "width": width,
        "skipping": skipping,
        "matmul_precision": "highest",
        "macs_per_point": 8 * width * width,
        "eval_rays_per_chunk": 256,
        "steps_per_block": 1,
        "look_seconds": [1.0, 2.0] if skipping else [],
        "step_points": FEW if skipping else ALL,
        "frame_points": FEW if skipping else ALL,
        "rows": 1 if skipping else 8,
        "step_memory_mb": 100.0,
        "frame_memory_mb": 40.0,
        **values,
    }
    return CostArm(label=label, step_seconds=[step, 1.5 * step], frame_seconds=[frame, 1.5 * frame], **given)


def stock_speed(**values: Any) -> StockSpeedRecord:
    """The host's model, one of this project's that takes half of its time, and 1/16 without empty space."""
    given: dict[str, Any] = {
        "scene": "lego_100",
        "machine": CPU,
        "arms": [
            arm("stock", 4.0, 40.0, network="stock", eval_rays_per_chunk=4096),
            arm("256, all samples", 2.0, 10.0),
            arm("256, skipping", 0.25, 1.25, skipping=True),
            arm("256, one field", 0.25, 0.5, skipping=True, fine_field_only=True, frame_points=FINE),
        ],
        **values,
    }
    return StockSpeedRecord(
        name="speed-stock",
        seed=1,
        method="nerf-prune",
        scale="cpu",
        digest="0123456789abcdef",
        config={"pipeline.model.base_mlp_layer_width": 256},
        command="ns-prune bench speed",
        created="2026-01-01T00:00:00+00:00",
        rays_per_batch=256,
        image_size=[100, 100],
        samples=[64, 128],
        train_steps=1500,
        trained_width=64,
        update_interval=500,
        peak_flops=[150e9, 200e9],
        event=EventCost(256, "best", [24.0, 26.0, 25.0]),
        views=[
            SkippedView(0, 24.0, 23.99, 49.5, FEW, FineView(23.75, 41.5, FINE)),
            SkippedView(50, 25.0, 25.0, None, ALL),
        ],
        clock="processor",
        **given,
    )


def point(axis: Axis, count: int, seconds: float, width: int = 64, samples: int = 32, **values: Any) -> ScalingPoint:
    """A step or a picture with as many samples in both fields."""
    points = 3 * samples + 1
    return ScalingPoint(axis, width, [samples, samples], count, points, width * width, [seconds] * 3, 10.0, **values)


def scaling(**values: Any) -> ScalingRecord:
    """Times on straight lines: of a step 1 ms and 2 ms a ray, of a picture 5 ms and 0.5 ms a pixel."""
    given: dict[str, Any] = {
        "scene": "lego_100",
        "machine": CPU,
        "steps": [point("rays", count, 1e-3 + 2e-3 * count) for count in (32, 64, 128)],
        "frames": [point("pixels", count, 5e-3 + 0.5e-3 * count) for count in (100, 400, 900)],
        **values,
    }
    large = LargeFrames(
        width=32,
        samples=[64, 128],
        train_steps=600,
        image_size=[800, 800],
        eval_rays_per_chunk=256,
        bound_mb=294.6,
        frames=[LargeFrame(False, 100.0, ALL, 250.4), LargeFrame(True, 20.0, FEW, 300.0)],
    )
    return ScalingRecord(
        name="scaling",
        seed=1,
        method="nerf-prune",
        scale="cpu",
        digest="0123456789abcdef",
        config={"pipeline.model.base_mlp_layer_width": 64},
        command="ns-prune bench scaling",
        created="2026-01-01T00:00:00+00:00",
        matmul_precision="highest",
        large=large,
        clock="processor",
        **given,
    )


def save_costs(folder: Path, *records: CostRecord) -> Path:
    """Writes records where a benchmark would."""
    for record in records:
        write_record(record, folder / COST_FOLDERS[0] / f"{record.name}.json")
    return folder
