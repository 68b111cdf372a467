"""Records with plausible numbers, made by hand: for tests of what reads records."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import msgspec
import numpy as np
from PIL import Image

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.records.files import write_record
from nerfstudio_prune.records.schema import (
    Anatomy,
    CurvePoint,
    MachineRecord,
    ModelSize,
    Quality,
    Role,
    RunRecord,
    Seconds,
    SpeedArm,
    SpeedRecord,
    Stage,
    ViewQuality,
)

CPU = MachineRecord(
    "Some Processor",
    "cpu",
    2,
    "Linux x86_64",
    {"python": "3.11.2", "torch": "2.5.0", "nerfstudio": "1.1.5"},
    "0123abcd",
)
GPU = replace(CPU, device="Some GPU 80GB", device_type="cuda", threads=16)
TRUNK, HEAD = 8, 2
CUT, STEPS = 1000, 2000
DENSE_SECONDS = 0.1


def sizes(ratio: float = 0.0, live: float = 1.0) -> ModelSize:
    """Two fields of 128 and 64 wide layers of which a share is gone, and of whose weights a share is not zero."""
    trunk, head = round(128 * (1 - ratio)), round(64 * (1 - ratio))
    parts, part_costs = {}, {}
    for field in ("field_coarse", "field_fine"):
        inputs = 63
        for part, count, width in (("mlp_base", TRUNK, trunk), ("mlp_head", HEAD, head)):
            for i in range(count):
                name = f"{field}.{part}.layers.{i}"
                parts[name] = width
                part_costs[name] = {
                    "parameters": inputs * width + width,
                    "macs_per_ray": inputs * width * (32 if field == "field_coarse" else 64),
                }
                inputs = width
    parameters = sum(costs["parameters"] for costs in part_costs.values())
    return ModelSize(
        parts=parts,
        costs={
            "parameters": parameters,
            "nonzero": round(parameters * live),
            "macs_per_ray": sum(costs["macs_per_ray"] for costs in part_costs.values()),
        },
        part_costs=part_costs,
        fields_mb=parameters * 4 / 1e6,
        checkpoint_mb=parameters * 12 / 1e6,
    )


def quality(psnr: float, lpips: Optional[float] = None) -> Quality:
    """Two views around a mean."""
    ssim = min(1.0, psnr / 30)
    views = [ViewQuality(0, psnr - 1, ssim, lpips), ViewQuality(2, psnr + 1, ssim, lpips)]
    return Quality(views, psnr, ssim, lpips)


def curve(psnr: float, ratio: float, after: Optional[float], start: float = 17.0) -> list[CurvePoint]:
    """Rises, drops at the cut, rises faster per second."""
    points, seconds = [], 0.0
    for step in range(0, STEPS + 1, 100):
        if step > CUT or after is None:
            goal = psnr
        else:
            goal = start
        rise = 1 - math.exp(-(step if after is None or step <= CUT else step - CUT) / 300)
        low = 6.0 if after is None or step <= CUT else after
        points.append(CurvePoint(step, seconds, low + (goal - low) * rise))
        if step == CUT and after is not None:
            points.append(CurvePoint(step, seconds, after))
        seconds += 100 * DENSE_SECONDS * ((1 - ratio) ** 1.2 if step >= CUT or after is None else 1.0)
    return points


def run(
    arm: str = "coreset-0.5", seed: int = 1, psnr: float = 20.0, after: Optional[float] = 12.0, **values: Any
) -> RunRecord:
    """A run that was pruned to half width; every field can be given.

    Args:
        arm: Name of the arm.
        seed: Seed.
        psnr: At the end, in dB.
        after: Right after the cut, in dB; None for a run without a cut.
        values: Fields of the record; `live` is the share of weights that are not zero after the cut, `lpips` that of
            the end, `edges` the options of an event that masks edges.
    """
    ratio = values.get("pruning_ratio", 0.5 if after is not None else None)
    role: Role = values.get("role", "pruned")
    live, lpips, edges = values.pop("live", 1.0), values.pop("lpips", None), values.pop("edges", None)
    masks = role in ("masked", "edges") or live < 1
    small = sizes(0.0 if masks else ratio or 0.0, live)
    stages = [Stage("end", STEPS, small, quality(psnr, lpips))]
    if after is not None:
        stages.insert(0, Stage("right after", CUT, small, quality(after, lpips)))
        stages.insert(0, Stage("before", CUT, sizes(), quality(17.0, lpips)))
    points = curve(psnr, 0.0 if masks else ratio or 0.0, after)
    train = points[-1].train_seconds
    history = []
    if edges is not None:
        history = [PruneEvent(CUT, None, "edge", values.get("recovery", "continue"), options=edges)]
    fields: dict[str, Any] = dict(
        name=f"{arm}-s{seed}",
        arm=arm,
        seed=seed,
        role=role,
        strategy="coreset",
        score=None,
        pruning_ratio=ratio,
        recovery="continue" if after is not None else None,
        method="nerf-prune",
        data="DemoDataParser",
        scene="demo-data",
        scale="cpu",
        parent=f"dense-start-s{seed}" if after is not None or role == "dense" else None,
        digest="0f" * 8,
        config={},
        command="ns-prune bench paper",
        created="2025-01-01T00:00:00Z",
        machine=CPU,
        rays_per_batch=256,
        steps=STEPS,
        stages=stages,
        history=history,
        curve=points,
        seconds=Seconds(train / 2, train, train / 2 * 1.9, 0.05 if after is not None else 0.0, 30.0),
        rays_per_sec=256 / (DENSE_SECONDS * (1 - (0.0 if masks else ratio or 0.0)) ** 1.2),
        eval_rays_per_sec=1e4,
        peak_memory_mb=500.0,
        eval_views=2,
        curve_rays=1000,
    )
    return RunRecord(**{**fields, **values})


def dense(seed: int = 1, psnr: float = 20.5, **values: Any) -> RunRecord:
    """The dense control."""
    return run(
        **{"arm": "dense", "seed": seed, "psnr": psnr, "after": None, "role": "dense", "strategy": "none", **values}
    )


def speed(ratio: float = 0.5, **values: Any) -> SpeedRecord:
    """A pruned network that is twice as fast at a ratio of one half; blocks differ by 5 %."""
    factor = 1 / (1 - ratio)

    def arm(ratio: float, faster: float) -> SpeedArm:
        steps = [0.1 / faster * wobble for wobble in (1.0, 1.05, 0.95)]
        return SpeedArm(sizes(ratio), steps, [1e4 * faster] * 3, [2.0 / faster] * 3, 400.0 / faster)

    fields: dict[str, Any] = dict(
        name=f"speed-{ratio:g}",
        scene="demo-data",
        scale="cpu",
        digest="0f" * 8,
        method="nerf-prune",
        config={},
        command="ns-prune bench speed",
        created="2025-01-01T00:00:00Z",
        machine=CPU,
        rays_per_batch=256,
        image_size=[100, 100],
        pruning_ratio=ratio,
        warm_up_blocks=2,
        steps_per_block=10,
        dense=arm(0.0, 1.0),
        pruned=arm(ratio, factor),
    )
    return SpeedRecord(**{**fields, **values})


def anatomy() -> Anatomy:
    """Half of the weights below 0.05."""
    layers = [name for name in sizes().parts]
    quantiles = {
        score: {name: [0.01 * scale * (1 + i) for i in range(33)] for name in layers}
        for scale, score in ((1, "w_in"), (2, "w_out"), (0.02, "w_in_w_out"))
    }
    edges = [i / 100 for i in range(41)]
    return Anatomy(edges, [1000] * 5 + [round(1000 * 0.85**i) for i in range(35)], quantiles)


def everything(seeds: tuple[int, ...] = (1, 2, 3), machine: MachineRecord = CPU) -> list[RunRecord | SpeedRecord]:
    """All suites as `ns-prune bench` would record them."""
    draw = random.Random(0)
    records: list[RunRecord | SpeedRecord] = [speed(ratio, machine=machine) for ratio in (0.25, 0.5, 0.75)]
    for seed in seeds:

        def add(arm: str, psnr: float, after: Optional[float] = None, seed: int = seed, **values: Any) -> None:
            records.append(run(arm, seed, psnr + draw.gauss(0, 0.1), after, machine=machine, **values))

        add("dense-start", 17.0, role="start", strategy="none", anatomy=anatomy() if seed == seeds[0] else None)
        add("dense", 20.5, role="dense", strategy="none")
        for ratio, loss in ((0.5, 0.4), (0.75, 1.6)):
            common: dict[str, Any] = {"pruning_ratio": ratio}
            add(f"uniform-{ratio}", 20.3 - loss, 9.0, strategy="uniform", **common)
            for score, gain in (("w_in", 0.0), ("w_out", 0.15), ("w_in_w_out", 0.1)):
                add(
                    f"importance-{score}-{ratio}",
                    20.3 - loss + gain,
                    12.0,
                    strategy="importance",
                    score=score,
                    **common,
                )
            add(f"coreset-{ratio}", 20.4 - loss, 11.0, score="w_in_w_out", **common)
            add(f"coreset-mussay-{ratio}", 20.2 - loss, 13.0, strategy="coreset-mussay", score="sensitivity", **common)
            add(f"scratch-{ratio}", 18.9 - loss, 5.0, strategy="any", recovery="scratch", **common)
            add(f"small-{ratio}", 20.3 - loss, role="small", strategy="none", **common)
            add(f"small-{ratio}-equal-time", 20.5 - loss, role="small-equal-time", strategy="none", **common)
        add("masked-importance-w_out-0.5", 20.0, 12.0, role="masked", strategy="importance", score="w_out", live=0.3)
        if seed != seeds[0]:
            continue
        for option, value, live in (("threshold", 0.05, 0.55), ("threshold", 0.1, 0.3), ("keep_fraction", 0.4, 0.4)):
            for recovery in ("continue", "scratch"):
                name = f"edge-{option.split('_')[0]}-{value:g}" + ("-scratch" if recovery == "scratch" else "")
                edges = {f"edge_{option}": value}
                add(
                    name,
                    20.4 if recovery == "continue" else 19.0,
                    15.0,
                    role="edges",
                    strategy="edge",
                    recovery=recovery,
                    pruning_ratio=None,
                    live=live,
                    edges=edges,
                )
        for library, criterion in (
            ("Torch-Pruning", "magnitude-l2"),
            ("Torch-Pruning", "taylor"),
            ("torch.nn.utils.prune", "l2"),
        ):
            live = 0.3 if "torch.nn" in library else 1.0
            add(f"{library}-{criterion}", 19.9, 12.5, role="peer", strategy=library, score=criterion, live=live)
    return records


def save(records: Sequence[RunRecord | SpeedRecord], root: Path, images: bool = False) -> Path:
    """Writes records, and pictures that get blurrier with lower quality, as `ns-prune bench` lays them out."""
    for record in records:
        kind = "runs" if isinstance(record, RunRecord) else "speed"
        if images and isinstance(record, RunRecord):
            record = msgspec.structs.replace(record, images={"0": _pictures(record, root)})  # noqa: PLW2901  a copy with pictures
        write_record(record, root / kind / f"{record.name}.json")
    return root


def _pictures(record: RunRecord, root: Path) -> dict[str, str]:
    y, x = np.mgrid[:48, :64] / 8.0
    truth = np.stack([np.sin(x) * np.cos(y), np.cos(x * y / 4), np.sin(y)], axis=-1) * 0.5 + 0.5
    noise = np.random.default_rng(record.seed).normal(size=truth.shape) * (np.hypot(x - 5, y - 2) < 2)[..., None]
    names = {"truth": "images/truth.png"}
    pictures = {"truth": truth}
    for stage in record.stages:
        if stage.label != "before":
            names[stage.label] = f"images/{record.name}/{stage.label.replace(' ', '-')}.png"
            pictures[stage.label] = np.clip(truth + noise * 2 / stage.quality.psnr + 0.05, 0, 1)
    for stage, picture in pictures.items():
        path = root / names[stage]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 255).round().astype(np.uint8)).save(path)
    return names
