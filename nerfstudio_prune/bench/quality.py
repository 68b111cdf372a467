"""Quality of whole views, and what a network is, at one point of a run."""

import hashlib
import time
from pathlib import Path
from typing import Any, Optional

import msgspec
import numpy as np
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.machine import clock_of
from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.data.images import save_image
from nerfstudio_prune.engine.checkpoints import checkpoint_bytes
from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.neurons.scores import weight_scores
from nerfstudio_prune.records.schema import PART_COSTS, Anatomy, ModelSize, Quality, ViewQuality

QUANTILES = 33
HISTOGRAM_BINS = 100


class ViewMeter:
    """Renders and measures a fixed choice of evaluation views.

    Args:
        dataset: Evaluation views.
        views: How many of them, evenly spaced.
        cache: Folder of results by the content of the network: runs that go on from one checkpoint need its quality
            once.
    """

    def __init__(self, dataset: InputDataset, views: int, cache: Path) -> None:
        count = min(views, len(dataset))
        self.dataset = dataset
        self.views = [i * len(dataset) // count for i in range(count)]
        self.cache = cache
        self.seconds = 0.0
        """Time spent so far."""
        self.rays_per_sec = 0.0
        """Rendered rays per second of the newest measurement that was not in the cache."""

    def __call__(self, model: PruneModel, images: Optional[Path] = None) -> Quality:
        """Measures the fine field; random state and mode of the model stay as they are.

        Args:
            model: The model.
            images: Folder for the first view as a picture; None saves none.
        """
        start = time.perf_counter()
        refresh_masks(model)
        path = self.cache / f"{self._fingerprint(model)}.json"
        if path.exists() and images is None:
            quality = msgspec.json.decode(path.read_bytes(), type=Quality)
        else:
            quality = self._measure(model, images)
            write_file(path, msgspec.json.encode(quality))
        self.seconds += time.perf_counter() - start
        return quality

    def _measure(self, model: PruneModel, images: Optional[Path]) -> Quality:
        was_training = model.training
        model.eval()
        results, rays, seconds = [], 0, 0.0
        _, clock = clock_of(model.device)
        try:
            with forked(model.device), torch.no_grad():
                for view in self.views:
                    start = clock()
                    outputs = model.get_outputs_for_camera(self.dataset.cameras[view : view + 1].to(model.device))
                    seconds += clock() - start
                    rays += outputs["rgb"].shape[0] * outputs["rgb"].shape[1]
                    metrics, _ = model.get_image_metrics_and_images(outputs, self.dataset[view])
                    results.append(ViewQuality(view, metrics["psnr"], metrics["fine_ssim"], metrics.get("fine_lpips")))
                    if images is not None and view == self.views[0]:
                        save_image(outputs["rgb"], images)
        finally:
            model.train(was_training)
        self.rays_per_sec = rays / seconds
        return Quality.of(results)

    def truth(self, model: PruneModel) -> torch.Tensor:
        """True colours of the view that pictures are saved of, [height, width, 3]."""
        image: Any = self.dataset[self.views[0]]["image"]
        return model.renderer_rgb.blend_background(image.to(model.device))

    def _fingerprint(self, model: PruneModel) -> str:
        name, limited = self.dataset.image_filenames[0].name, getattr(self.dataset, "limited", "")
        content = hashlib.sha256(repr((self.views, str(name), *([limited] if limited else []))).encode())
        # Weights as they act: under `torch.nn.utils.prune` a layer's `weight` is what the mask leaves of a parameter.
        for name, layer in linears(model.neuron_groups()).items():
            content.update(repr((name, tuple(layer.weight.shape))).encode())
            content.update(layer.weight.detach().cpu().numpy().tobytes())
            content.update(layer.bias.detach().cpu().numpy().tobytes())
        return content.hexdigest()[:32]


def refresh_masks(model: PruneModel) -> None:
    """Brings weights that `torch.nn.utils.prune` masks up to date; it does so itself at the next forward pass only."""
    for layer in linears(model.neuron_groups()).values():
        for hook in layer._forward_pre_hooks.values():
            hook(layer, None)


def measure_sizes(trainer: Trainer) -> ModelSize:
    """What the model is now, all of its networks that are trained."""
    model: Any = trainer.pipeline.model
    refresh_masks(model)
    costs = model.layer_costs()
    parameters = sum(count for count, _ in costs.values())
    return ModelSize(
        parts={group.name: group.width for group in model.neuron_groups()},
        costs={
            "parameters": parameters,
            "nonzero": _count_nonzero(model),
            "macs_per_ray": sum(macs for _, macs in costs.values()),
        },
        part_costs={name: dict(zip(PART_COSTS, values, strict=True)) for name, values in costs.items()},
        fields_mb=parameters * 4 / 1e6,
        checkpoint_mb=checkpoint_bytes(trainer) / 1e6,
    )


def _count_nonzero(model: PruneModel) -> int:
    """Trained values that are not zero, as they act: those of the fields' layers may be masked."""
    layers = linears(model.neuron_groups()).values()
    acting = [tensor for layer in layers for tensor in (layer.weight, layer.bias) if tensor is not None]
    counted = {id(parameter) for layer in layers for parameter in layer.parameters()}
    others = [p for group in model.get_param_groups().values() for p in group if id(p) not in counted]
    return sum(int(torch.count_nonzero(tensor)) for tensor in (*acting, *others))


@torch.no_grad()
def measure_anatomy(model: PruneModel) -> Anatomy:
    """Distributions of the weights of the last (the fine) field's hidden layers, and of all scores in all layers."""
    groups = model.neuron_groups()
    fine = [g.producer.weight.detach().abs().flatten() for g in groups if g.network == groups[-1].network]
    weights = torch.cat(fine).double().cpu().numpy()
    counts, bounds = np.histogram(weights, bins=HISTOGRAM_BINS, range=(0.0, float(weights.max()) or 1.0))
    levels = np.linspace(0, 1, QUANTILES)
    quantiles = {
        name: {
            group.name: [float(f"{value:.4g}") for value in np.quantile(score(group).double().cpu().numpy(), levels)]
            for group in groups
        }
        for name, score in weight_scores().items()
    }
    return Anatomy([float(f"{bound:.5g}") for bound in bounds], [int(count) for count in counts], quantiles)
