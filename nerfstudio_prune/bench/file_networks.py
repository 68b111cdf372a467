"""Finished networks, large ones and tiny ones, as files of `ns-prune export`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from nerfstudio_prune.bench.file_jobs import FORMS
from nerfstudio_prune.bench.file_measuring import Picture, Show, TrueView, Written
from nerfstudio_prune.bench.machine import clock_of
from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.data.pixels import CountedDataset, counted_pixels
from nerfstudio_prune.engine.saved_run import SavedRun, read_config
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.from_run import scene_of
from nerfstudio_prune.export.kilo_run_file import KiloRunFile
from nerfstudio_prune.export.kilo_samples import NetworkSamples
from nerfstudio_prune.export.kilo_samples import collect_samples as collect_of_tiny
from nerfstudio_prune.export.numbers import Numbers, numbers_of
from nerfstudio_prune.export.outcome import SEED
from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.export.run_data import read_data
from nerfstudio_prune.export.run_file import RunFile
from nerfstudio_prune.kilo.saved_run import load_run as load_tiny
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.nerf.rows import rows_of_rays
from nerfstudio_prune.nerf.saved_run import load_run
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.records.file_schema import FileUnit
from nerfstudio_prune.records.schema import Clock

BYTES = 4
"""Of a number in float32."""


class _Exported(ABC):
    """A run whose files `ns-prune export` writes.

    Args:
        run: The run.
        parameters: How many it has.
        wanted: Test views to be measured on, evenly spaced.
    """

    unit: FileUnit = "parameters"

    def __init__(self, run: SavedRun[Any], parameters: int, wanted: int) -> None:
        self.run, self.units, self.plain_bytes = run, parameters, BYTES * parameters
        self.checkpoint = run.checkpoint
        self.model = run.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu")).eval()
        clock, self.now = clock_of(self.model.device)
        self.clock: Clock = clock
        self.data = read_data(run.config.pipeline.datamanager, None)
        self.scene = scene_of(run.config_file, self.data.parsed)
        self.views: Sequence[TrueView] = _views(self.data.test, wanted, self.model)
        begin = self.now()
        self.samples = self.collected()
        self.calibration = self.now() - begin

    def show(self, camera: Cameras) -> Picture:
        """What the checkpoint shows of a view."""
        return _picture(camera, lambda rays: self.model(rays)["rgb"])

    def write(self, label: str, folder: Path) -> Written:
        """Writes a file of one form."""
        path = folder / f"{label.replace(' ', '-')}.safetensors"
        begin = self.now()
        numbers = numbers_of(Export(self.run.config_file, path, **FORMS[label]))
        content = self.encoded(numbers, self.samples if numbers.reads_samples else None)
        # Samples are collected once; each file that reads them would have had to.
        seconds = self.now() - begin + (self.calibration if numbers.reads_samples else 0.0)
        write_file(path, content)
        return Written(path, FORMS[label], seconds)

    @abstractmethod
    def collected(self) -> Any:
        """Calibration samples of the run."""

    @abstractmethod
    def encoded(self, numbers: Numbers, samples: Any) -> bytes:
        """The content of a file.

        Args:
            numbers: What its weights are to be.
            samples: Calibration samples; None where its weights do not depend on any.
        """

    def read(self, path: Path) -> Show:
        """Reads a file."""
        network = load_exported(path).to(self.model.device)
        return lambda camera: _picture(camera, lambda rays: network(rays.origins, rays.directions)["rgb"])


class NetworkFiles(_Exported):
    """A large network.

    Args:
        config: The run's config.yml.
        wanted: Test views to be measured on, evenly spaced.
    """

    def __init__(self, config: Path, wanted: int) -> None:
        run = load_run(read_config(config), config)
        parameters = sum(p.numel() for fields in run.model.fields().values() for p in fields.parameters())
        super().__init__(run, parameters, wanted)

    def collected(self) -> Mapping[str, Samples]:
        """Calibration samples of each field."""
        return collect_samples(self.model, self.data.training, Calibration(), SEED)

    def encoded(self, numbers: Numbers, samples: Any) -> bytes:
        """The content of a file."""
        return RunFile(self.run, numbers, self.scene, samples).encode()


class TinyFiles(_Exported):
    """Tiny networks.

    Args:
        config: The run's config.yml.
        wanted: Test views to be measured on, evenly spaced.
    """

    def __init__(self, config: Path, wanted: int) -> None:
        run = load_tiny(read_config(config), config)
        super().__init__(run, run.model.networks.num_parameters, wanted)

    def collected(self) -> NetworkSamples:
        """Calibration samples of each network."""
        return collect_of_tiny(self.model, self.data.training, SEED)

    def encoded(self, numbers: Numbers, samples: Any) -> bytes:
        """The content of a file."""
        return KiloRunFile(self.run, numbers, self.scene, samples).encode()


def _picture(camera: Cameras, colours: Callable[[RayBundle], Float[Tensor, "rays 3"]]) -> Picture:
    """A view, some rows at a time."""
    return torch.cat([colours(rays.flatten()).view(rays.origins.shape) for rays in rows_of_rays(camera)])


def _views(dataset: CountedDataset, wanted: int, model: Any) -> list[TrueView]:
    """Test views, evenly spaced, without what does not count in them."""
    count, device, found = min(wanted, len(dataset)), model.device, []
    for index in (i * len(dataset) // count for i in range(count)):
        data = dataset[index]
        truth = model.renderer_rgb.blend_background(data["image"].to(device))
        used = counted_pixels(data).to(device) if "mask" in data else None
        found.append(TrueView(index, dataset.cameras[index : index + 1].to(device), truth, used))
    return found
