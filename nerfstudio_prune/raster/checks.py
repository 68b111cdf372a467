"""What can be rendered."""

from typing import Optional

from jaxtyping import Shaped
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import View


def check(gaussians: Gaussians, view: View, sh_degree: int, colors: Optional[Shaped[Tensor, "..."]] = None) -> None:
    """Refuses what compiled code would read beyond the end of, or show something else for.

    Args:
        gaussians: The scene.
        view: The camera.
        sh_degree: Degree up to which the spherical harmonics count; of no account where colours are given.
        colors: Colours in place of those of the harmonics.

    Raises:
        ValueError: If something does not fit; says what.
    """
    means = gaussians.means
    for name, tensor in gaussians.items():
        if len(tensor) != len(means) or tensor.dtype != means.dtype or tensor.device != means.device:
            raise ValueError(
                f"{name} must be {means.dtype} on {means.device} and of {len(means)} Gaussians as means are, "
                f"got {tensor.dtype} on {tensor.device} of {len(tensor)}"
            )
    if view.width < 1 or view.height < 1:
        raise ValueError(f"a view must have at least one pixel, got {view.width} x {view.height}")
    if colors is None and not 0 <= sh_degree <= gaussians.sh_degree:
        raise ValueError(f"sh_degree must be in [0, {gaussians.sh_degree}], the scene's degree, got {sh_degree}")
    if colors is not None and colors.dtype != means.dtype:
        raise ValueError(f"colors must be {means.dtype} as the scene is, got {colors.dtype}")
    if colors is not None and (colors.ndim != 2 or len(colors) != len(means) or not 1 <= colors.shape[1] <= 3):
        raise ValueError(f"colors must have shape [{len(means)}, 1 to 3], got {list(colors.shape)}")
