"""What the demo of a method shows: the moments that are measured, and which of them are seen in the picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splats.model import SplatPruneModel

LeftOut = Callable[[Any, Any, Cameras], Float[Tensor, "height width 3"]]
"""Renders, for a model as it was, that model after a cut, and a camera, what the cut took."""


@dataclass(frozen=True)
class Show:
    """A demo of a method."""

    method: str
    moments: tuple[str, ...]
    """Names of the moments that are measured, in their order; the last one is the end of the run."""
    dense: str
    """The moment right before the cut, which the end is compared with."""
    cut: str
    """The moment right after it."""
    seen: tuple[str, ...]
    """Moments in the picture."""
    from_start: bool = False
    """Whether the first moment is the beginning of the run, or else the one right before the first event."""
    copy: Callable[[Any], Any] = lambda model: None
    """What is to be kept of the model right before the cut."""
    left_out: Optional[LeftOut] = None
    """Shows what the cut took; None where that is no picture."""


def copied(model: SplatPruneModel) -> Gaussians:
    """The Gaussians as they are now, whatever becomes of the model's."""
    return model.gaussians.detach().clone()


def missing(before: Float[Tensor, "before values"], after: Float[Tensor, "after values"]) -> Bool[Tensor, " before"]:
    """Rows that are not there any more, of rows of which a cut took some and left the others as they are."""
    kept = {row.tobytes() for row in after.cpu().numpy()}
    return torch.tensor([row.tobytes() not in kept for row in before.cpu().numpy()], dtype=torch.bool)


def render_missing(before: Gaussians, model: SplatPruneModel, camera: Cameras) -> Float[Tensor, "height width 3"]:
    """The Gaussians that a cut took, alone.

    Args:
        before: Those that there were.
        model: What is left.
        camera: A single camera.
    """
    gone = missing(before.means, model.gaussians.means.detach())
    return model.with_gaussians(before.select(gone.nonzero()[:, 0])).get_outputs_for_camera(camera)["rgb"]


SHOWS: Mapping[str, Show] = {
    "splats": Show(
        method="splat-prune-demo",
        moments=("at the start", "grown", "right after the cut", "recovered", "degree lowered", "at the end"),
        dense="grown",
        cut="right after the cut",
        seen=("grown", "right after the cut", "at the end"),
        from_start=True,
        copy=copied,
        left_out=render_missing,
    ),
    "neurons": Show(
        method="nerf-prune-demo",
        moments=("dense", "right after pruning", "after recovery"),
        dense="dense",
        cut="right after pruning",
        seen=("dense", "right after pruning", "after recovery"),
    ),
}
"""What is pruned -> its demo."""
