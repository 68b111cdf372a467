"""Records of runs beside each other with plausible numbers, made by hand: for tests of what reads records."""

from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.records.files import FRONTIER_FOLDERS, write_record
from nerfstudio_prune.records.frontier_schema import Family, FrontierArm, FrontierRecord
from nerfstudio_prune.records.schema import MachineRecord
from support.file_record_factory import quality
from support.record_factory import CPU


def frontier_arm(
    label: str,
    family: Family,
    run: Optional[str],
    psnr: Optional[float],
    frame: float,
    train: Optional[float],
    units: int = 80_000,
) -> FrontierArm:
    """A run whose pictures take the same time in three rounds."""
    shown = None if psnr is None else quality(psnr)
    return FrontierArm(label, family, run, units, 4 * units, train, shown, [frame] * 3)


def frontier_record(seed: int = 1, machine: MachineRecord = CPU, scene: str = "lego_100") -> FrontierRecord:
    """The host's model, a dense and a pruned network, and Gaussians."""
    common: dict[str, Any] = {
        "data": "BlenderDataParser",
        "scale": "cpu",
        "digest": "0123456789abcdef",
        "command": "ns-prune bench frontier-all",
        "created": "2026-01-01T00:00:00+00:00",
        "schedule": "cut at 12,000 of 15,000 steps",
        "clock": "processor",
        "config": {},
        "method": "nerf-prune",
    }
    arms = [
        frontier_arm("vanilla-nerf", "stock", None, None, 50.0, None, 1_000_000),
        frontier_arm("dense", "network", f"preset-dense-decay-s{seed}", 28.5, 1.0, 1200.0, 100_000),
        frontier_arm("best", "network", f"preset-best-decay-s{seed}", 28.0 + 0.1 * seed, 0.5, 1000.0),
        frontier_arm("Gaussians", "Gaussians", f"dense-s{seed}", 31.5, 0.02, 150.0, 11_000),
    ]
    return FrontierRecord(
        name=f"frontier-s{seed}", seed=seed, scene=scene, machine=machine, image_size=[100, 100], arms=arms, **common
    )


def save_frontier(folder: Path, *records: FrontierRecord) -> None:
    """Writes records as a suite does."""
    for record in records:
        write_record(record, folder / FRONTIER_FOLDERS[0] / f"{record.name}.json")
