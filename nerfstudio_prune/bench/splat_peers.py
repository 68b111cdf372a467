"""Gaussians made fewer by another program: `splat-transform` of PlayCanvas, which merges pairs and sees no photos."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nerfstudio_prune.bench.runs import JobSkipped
from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.splat_quality import SplatMeter
from nerfstudio_prune.bench.splat_setup import make_splat_trainer, record_fields
from nerfstudio_prune.bench.splat_suite import PEER, SplatPeer, SplatScale
from nerfstudio_prune.bench.splat_zero_shot import zero_shot_row
from nerfstudio_prune.gaussians.budget import count_from_ratio
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.records.splat_schema import ZeroShotRecord

INSTALL = "`npm install -g @playcanvas/splat-transform@2` brings it, where there is Node"
LONGEST_SECONDS = 3600


def measure_splat_peer(
    job: SplatPeer,
    scale: SplatScale,
    scene: Scene,
    folder: Path,
    checkpoint: Path,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> ZeroShotRecord:
    """Lets the other program make the model of a checkpoint smaller, and renders what it leaves.

    Args:
        job: What to try.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        checkpoint: The model.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].

    Raises:
        JobSkipped: If the program is not there.
    """
    program = shutil.which(PEER)
    if program is None:
        raise JobSkipped(f"{PEER} is not on the PATH; {INSTALL}")
    version = _run(program, "-v").split()[0].lstrip("v")
    options = {**scale.options, "pipeline.prune.strategy": "none"}
    trainer = make_splat_trainer(job.name, job.seed, options, scene, 1, folder, checkpoint)
    pipeline: Any = trainer.pipeline
    meter = SplatMeter(trainer, scale.views)
    whole = pipeline.model.gaussians.detach()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "whole.ply"
        write_ply(whole, source)
        # Through the same files, so that what they change is not taken for what the program does.
        copied = read_ply(source).to(whole.means.device)
        quality = meter.quality(pipeline.model.with_gaussians(copied))
        rows.append(zero_shot_row("dense, by .ply", 0, 1.0, copied, quality, 0.0))
        for keep in job.keeps:
            target = Path(name) / "fewer.ply"
            start = _children_seconds()
            count = count_from_ratio(len(whole), 1 - keep)
            _run(program, "-w", "-q", "-g", "cpu", str(source), "-F", str(count), str(target))
            seconds = _children_seconds() - start
            left = read_ply(target).to(whole.means.device)
            quality = meter.quality(pipeline.model.with_gaussians(left))
            rows.append(zero_shot_row(PEER, 0, keep, left, quality, seconds))
            advance((len(rows) - 1) / len(job.keeps))
    fields = record_fields(job, scale, scene, options, pipeline.model.device, identity)
    fields["machine"].versions[PEER] = version
    return ZeroShotRecord(
        **fields,
        parent=job.parent,
        train_views=0,
        views=meter.counts(),
        rows=rows,
        clock=meter.clock,
    )


def _run(program: str, *arguments: str) -> str:
    """What the program prints.

    Raises:
        RuntimeError: If it fails, with the end of what it said.
    """
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{PEER} {' '.join(arguments)} failed: {(done.stderr or done.stdout)[-500:]}")
    return (done.stdout or done.stderr).replace(f"{PEER} ", "").strip()


def _children_seconds() -> float:
    """Processor time of the programs that this process has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _names(coefficients: int) -> list[str]:
    """Properties of a `.ply` of Gaussians, in the order that the first implementation wrote them in."""
    return [
        *"xyz",
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(3 * coefficients)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write_ply(gaussians: Gaussians, path: Path) -> None:
    """Writes Gaussians as `ns-export gaussian-splat` does, without normals and with quaternions of length 1.

    Args:
        gaussians: The scene.
        path: The file.
    """
    columns = [
        gaussians.means,
        gaussians.features_dc,
        gaussians.features_rest.transpose(1, 2).flatten(1),
        gaussians.opacities,
        gaussians.scales,
        torch.nn.functional.normalize(gaussians.quats, dim=1),
    ]
    values = torch.cat(columns, dim=1).float().cpu().numpy().astype("<f4")
    properties = "".join(f"property float {name}\n" for name in _names(gaussians.features_rest.shape[1]))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(values)}\n{properties}end_header\n"
    path.write_bytes(header.encode() + values.tobytes())


def read_ply(path: Path) -> Gaussians:
    """Reads Gaussians that another program wrote.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no binary file of floats with all properties of Gaussians. Names the file.
    """
    content = path.read_bytes()
    head, found, body = content.partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii", errors="replace").splitlines()]
    names = [line[-1] for line in lines if line[:1] == ["property"]]
    kinds = {line[1] for line in lines if line[:1] == ["property"]}
    counts = [int(line[2]) for line in lines if line[:2] == ["element", "vertex"]]
    coefficients = sum(name.startswith("f_rest_") for name in names) // 3
    missing = [name for name in _names(coefficients) if name not in names]
    if not found or kinds != {"float"} or len(counts) != 1 or missing or len(body) < 4 * len(names) * counts[0]:
        raise ValueError(f"{path}: expected a binary .ply of Gaussians in floats; missing: {', '.join(missing) or '-'}")
    values = np.frombuffer(body, "<f4", counts[0] * len(names)).reshape(counts[0], len(names))
    table = torch.from_numpy(values.copy())

    def columns(*wanted: str) -> torch.Tensor:
        return table[:, [names.index(name) for name in wanted]].contiguous()

    rest = columns(*(f"f_rest_{i}" for i in range(3 * coefficients)))
    return Gaussians(
        means=columns(*"xyz"),
        scales=columns(*(f"scale_{i}" for i in range(3))),
        quats=columns(*(f"rot_{i}" for i in range(4))),
        features_dc=columns(*(f"f_dc_{i}" for i in range(3))),
        features_rest=rest.reshape(counts[0], 3, coefficients).transpose(1, 2).contiguous(),
        opacities=columns("opacity"),
    )
