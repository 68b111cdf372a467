"""What the viewer shows of Gaussians beside their colours: what each is worth, and what a cut takes."""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from jaxtyping import Float, Int64
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from nerfstudio_prune.splats.model import SplatPruneModel


def stand_in(model: SplatPruneModel, background: Optional[Float[Tensor, "3"]] = None) -> SplatPruneModel:
    """The same Gaussians in a model of its own, in evaluation mode.

    A crop box or a colour that the host's viewer sets there reaches no training and no measurement.

    Args:
        model: The model.
        background: Colour behind everything, in [0, 1]. None: that of the model.
    """
    other = model.with_gaussians(model.gaussians.detach())
    if background is not None:
        other.set_background(background.to(other.device))
    return other


def ranks(scores: Float[Tensor, " gaussians"]) -> Float[Tensor, " gaussians"]:
    """Share of the other Gaussians that score lower, in [0, 1]; equal scores have one rank, the mean of theirs.

    Scores themselves span many orders of magnitude: a picture of them would be black but for some points.

    Args:
        scores: One a Gaussian.
    """
    _, where, counts = scores.unique(return_inverse=True, return_counts=True)
    below = counts.cumsum(0) - counts
    middle = below + (counts - 1).double() / 2
    return (middle / max(len(scores) - 1, 1))[where].float()


@dataclass(frozen=True, eq=False)
class Significance:
    """Heat map of scores: the rank of each Gaussian in place of its colour, black where none is."""

    model: SplatPruneModel
    """The Gaussians as they were scored."""
    ranks: Float[Tensor, " gaussians"]

    def __call__(
        self, camera: Cameras, obb_box: Optional[OrientedBox] = None, background: Optional[Tensor] = None
    ) -> Float[Tensor, "height width 1"]:
        """Draws it; the colour behind does not count.

        Args:
            camera: A single camera.
            obb_box: Box that the scene is cropped to.
            background: Not used.
        """
        gaussians, ranks = self.model.gaussians, self.ranks
        if obb_box is not None:
            inside = obb_box.within(gaussians.means).reshape(-1).nonzero()[:, 0]
            gaussians, ranks = gaussians.select(inside), ranks[inside]
        if not len(gaussians):
            return torch.zeros(int(camera.height), int(camera.width), 1, device=self.model.device)
        drawn = self.model.render(gaussians, camera.to(self.model.device), colors=ranks[:, None])
        return drawn.colors.clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Removed:
    """The Gaussians that a cut takes, alone (LightGaussian, arXiv 2311.17245, Figure 6)."""

    model: SplatPruneModel
    """A model of these Gaussians; None of them would leave nothing to draw."""

    def __call__(
        self, camera: Cameras, obb_box: Optional[OrientedBox] = None, background: Optional[Tensor] = None
    ) -> Float[Tensor, "height width 3"]:
        """Draws them.

        Args:
            camera: A single camera.
            obb_box: Box that the scene is cropped to.
            background: Colour behind everything. None: that of the data.
        """
        outputs: dict[str, Any] = stand_in(self.model, background).get_outputs_for_camera(camera, obb_box=obb_box)
        return outputs["rgb"]


def significance(model: SplatPruneModel, scores: Float[Tensor, " gaussians"]) -> Significance:
    """A heat map of the Gaussians as they are.

    Args:
        model: The model; what it becomes later does not show, if its Gaussians are replaced or those of a copy.
        scores: One a Gaussian.

    Raises:
        ValueError: If there are not as many scores as Gaussians.
    """
    gaussians = model.gaussians.detach()
    if len(scores) != len(gaussians):
        raise ValueError(f"{len(scores)} scores cannot be those of {len(gaussians)} Gaussians")
    return Significance(model.with_gaussians(gaussians), ranks(scores).to(gaussians.means))


def removed(model: SplatPruneModel, leaving: Int64[Tensor, " gone"]) -> Removed:
    """The Gaussians that leave, as they are.

    Args:
        model: The model, before the cut.
        leaving: Their indices, at least one.
    """
    return Removed(model.with_gaussians(model.gaussians.detach().select(leaving)))
