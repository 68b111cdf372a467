"""What a file shows, beside what the checkpoint shows, on test views."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Optional

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.data.metrics import MIN_SSIM_SIZE, counted, masked, ssim
from nerfstudio_prune.data.pixels import CountedDataset, counted_pixels
from nerfstudio_prune.export.rendering import ExportedNeRF
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.rows import rows_of_rays


@dataclass(frozen=True)
class Quality:
    """Means over views."""

    psnr: float
    """In dB."""
    ssim: Optional[float]
    """None where pictures are too small for its window."""


@dataclass(frozen=True)
class Comparison:
    """Quality of a file and of the checkpoint that it was made from."""

    views: int
    """Views that all was measured on."""
    checkpoint: Quality
    file: Quality
    agreement: float
    """PSNR of the file's pictures against those of the checkpoint, over all their pixels, in dB; infinite if equal."""


@dataclass(frozen=True)
class RunData:
    """What a run was trained on, as far as a file needs it."""

    parsed: Any
    """What the data parser gives for the training views."""
    training: CountedDataset
    """The training views."""
    test: CountedDataset
    """The test views."""


def read_data(datamanager: Any, data: Optional[Path]) -> RunData:
    """Reads cameras and names of pictures, as the host does; no training picture is loaded.

    Args:
        datamanager: Options of the run's data manager.
        data: Where the data are now. None: where they were.

    Raises:
        ValueError: If they cannot be read, or have no test views; names the path.
    """
    known = data or datamanager.data  # the latter is the host's other name for the parser's
    if known is not None:
        datamanager.dataparser.data = known
    try:
        parser = datamanager.dataparser.setup()
        parsed = {split: parser.get_dataparser_outputs(split) for split in ("train", "test")}
        training, test = (CountedDataset(own, datamanager.camera_res_scale_factor) for own in parsed.values())
    except Exception as error:  # the host's parsers raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{getattr(datamanager.dataparser, 'data', 'data')}: {reason}") from error
    if not len(test):
        raise ValueError(f"{datamanager.dataparser.data}: no test views")
    for dataset in (training, test):
        dataset.ignore_mask = getattr(datamanager.pixel_sampler, "ignore_mask", False)
    return RunData(parsed["train"], training, test)


@torch.no_grad()
def compare(model: PruneModel, network: ExportedNeRF, dataset: CountedDataset, views: int) -> Comparison:
    """Renders test views with both. Neither leaves empty space out, so that they differ by their weights alone.

    Args:
        model: The checkpoint's model.
        network: What was read back of the file, on the same device.
        dataset: Test views.
        views: How many of them, evenly spaced.
    """
    count = min(views, len(dataset))
    model.eval()
    found: tuple[list[Quality], list[Quality]] = ([], [])
    squares, pixels = 0.0, 0
    for i in range(count):
        view = i * len(dataset) // count
        data = dataset[view]
        truth = model.renderer_rgb.blend_background(data["image"].to(model.device))
        used = counted_pixels(data).to(model.device) if "mask" in data else None
        pictures = _pictures(model, network, dataset.cameras[view : view + 1].to(model.device))
        for qualities, picture in zip(found, pictures, strict=True):
            qualities.append(_quality(picture, truth, used))
        first, second = pictures
        squares += float((first - second).double().square().sum())
        pixels += first.numel()
    return Comparison(count, _mean(found[0]), _mean(found[1]), _decibels(squares / pixels))


def _pictures(model: PruneModel, network: ExportedNeRF, camera: Any) -> Sequence[Float[Tensor, "H W 3"]]:
    """A view by both, some rows at a time."""
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for rays in rows_of_rays(camera):
        flat, shape = rays.flatten(), rays.origins.shape
        rows[0].append(model(flat)["rgb"].view(shape))
        rows[1].append(network(flat.origins, flat.directions)["rgb"].view(shape))
    return [torch.cat(parts) for parts in rows]


def _quality(picture: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"], used: Optional[Tensor]) -> Quality:
    shown, true = (image.moveaxis(-1, 0)[None] for image in (masked(picture, truth, used), truth))
    error = (counted(shown, used) - counted(true, used)).double().square().mean()
    similarity = ssim(true, shown, used) if min(truth.shape[:2]) >= MIN_SSIM_SIZE else None
    return Quality(_decibels(float(error)), similarity)


def _mean(qualities: Sequence[Quality]) -> Quality:
    similarities = [quality.ssim for quality in qualities if quality.ssim is not None]
    return Quality(fmean(q.psnr for q in qualities), fmean(similarities) if similarities else None)


def _decibels(error: float) -> float:
    return -10 * math.log10(error) if error > 0 else math.inf
