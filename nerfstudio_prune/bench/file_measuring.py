"""Stores finished runs in every form of the suite of small files, and measures what is read back."""

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.bench.file_jobs import FORMS, FileRun
from nerfstudio_prune.bench.kilo_setup import saved_config
from nerfstudio_prune.bench.machine import clock_of, describe_machine
from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.suites import Run, Scale, schedule_text
from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.data.pixels import CountedDataset, counted_pixels
from nerfstudio_prune.data.view_quality import decibels, quality_of
from nerfstudio_prune.engine.saved_run import read_config
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.from_run import scene_of
from nerfstudio_prune.export.nerf_exporting import SEED
from nerfstudio_prune.export.numbers import numbers_of
from nerfstudio_prune.export.reading import read_exported
from nerfstudio_prune.export.rendering import network_of
from nerfstudio_prune.export.run_data import read_data
from nerfstudio_prune.export.run_file import RunFile
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.nerf.rows import rows_of_rays
from nerfstudio_prune.nerf.saved_run import load_run
from nerfstudio_prune.records.file_schema import FileRecord, StoredForm
from nerfstudio_prune.records.schema import Quality, RunRecord, ViewQuality

BYTES = 4
"""Of a number in float32."""
Pictures = list[Float[Tensor, "height width 3"]]


def measure_files(
    job: FileRun,
    scale: Scale,
    scene: Scene,
    folder: Path,
    source: Run,
    trained: RunRecord,
    checkpoint: Path,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> FileRecord:
    """Writes a file of each form, reads it back and renders test views with it, empty space included.

    Args:
        job: What to store.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark; the files stay in its work folder.
        source: The run, whose checkpoint is there.
        trained: Its record.
        checkpoint: Its checkpoint.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].
    """
    config = saved_config(source, scale, scene, folder)
    run = load_run(read_config(config), config)
    model = run.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    clock, now = clock_of(model.device)
    data = read_data(run.config.pipeline.datamanager, None)
    place = scene_of(config, data.parsed)
    begin = now()
    samples = collect_samples(model, data.training, Calibration(), SEED)
    calibration = now() - begin
    views = _Views(data.test, scale.views, model)
    checkpoint_quality, own = views.measured(lambda rays: model(rays)["rgb"])
    forms = []
    for i, label in enumerate(job.labels):
        advance((i + 1) / (len(job.labels) + 1))
        target = folder / "work" / "files" / job.name / f"{label.replace(' ', '-')}.safetensors"
        numbers = numbers_of(Export(config, target, **FORMS[label]))
        begin = now()
        content = RunFile(run, numbers, place, samples if numbers.reads_samples else None).encode()
        seconds = now() - begin + (calibration if numbers.reads_samples else 0.0)
        write_file(target, content)
        network = network_of(read_exported(target)).to(model.device)
        quality, shown = views.measured(lambda rays, network=network: network(rays.origins, rays.directions)["rgb"])
        forms.append(
            StoredForm(label, dict(FORMS[label]), target.stat().st_size, quality, _agreement(shown, own), seconds)
        )
    parameters = sum(p.numel() for fields in model.fields().values() for p in fields.parameters())
    return FileRecord(
        name=job.name,
        arm=job.arm,
        seed=job.seed,
        role=job.role,
        run=trained.name,
        method=scene.method,
        data=type(scene.dataparser).__name__.removesuffix("Config"),
        scene=scene.name,
        scale=scale.name,
        config={},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=describe_machine(model.device),
        schedule=schedule_text(source, scale),
        unit="parameters",
        units=parameters,
        plain_bytes=BYTES * parameters,
        checkpoint_bytes=checkpoint.stat().st_size,
        checkpoint=checkpoint_quality,
        forms=forms,
        clock=clock,
        digest=identity["digest"],
        command=identity["command"],
    )


class _Views:
    """Test views, evenly spaced, without what does not count in them."""

    def __init__(self, dataset: CountedDataset, views: int, model: Any) -> None:
        count = min(views, len(dataset))
        self.dataset, self.model = dataset, model
        self.views = [i * len(dataset) // count for i in range(count)]

    @torch.no_grad()
    def measured(self, colours: Callable[[Any], Float[Tensor, "rays 3"]]) -> tuple[Quality, Pictures]:
        """Quality and pictures of what gives colours to rays."""
        self.model.eval()
        found, pictures = [], []
        for view in self.views:
            data = self.dataset[view]
            truth = self.model.renderer_rgb.blend_background(data["image"].to(self.model.device))
            used = counted_pixels(data).to(self.model.device) if "mask" in data else None
            camera = self.dataset.cameras[view : view + 1].to(self.model.device)
            rows = [colours(rays.flatten()).view(rays.origins.shape) for rays in rows_of_rays(camera)]
            pictures.append(torch.cat(rows))
            quality = quality_of(pictures[-1], truth, used)
            if quality.ssim is None:
                raise ValueError(
                    f"test view {view}: too small for SSIM, got {truth.shape[1]} x {truth.shape[0]} pixels"
                )
            found.append(ViewQuality(view, quality.psnr, quality.ssim))
        return Quality.of(found), pictures


def _agreement(shown: Pictures, own: Pictures) -> Optional[float]:
    """PSNR between pictures, in dB; None if they are equal."""
    squares = sum(float((a - b).double().square().sum()) for a, b in zip(shown, own, strict=True))
    return decibels(squares / sum(picture.numel() for picture in own)) if squares else None
