"""Colours that depend on the direction from which a Gaussian is seen."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import View


def colors_of(gaussians: Gaussians, view: View, sh_degree: int) -> Float[Tensor, "gaussians 3"]:
    """Colours as a camera sees them, at least 0. Differentiable.

    Args:
        gaussians: The scene.
        view: The camera, of the same device and precision.
        sh_degree: Degree up to which the spherical harmonics count.

    Raises:
        ValueError: If the degree is not in [0, that of the scene].
    """
    if not 0 <= sh_degree <= gaussians.sh_degree:
        raise ValueError(f"sh_degree must be in [0, {gaussians.sh_degree}], the scene's degree, got {sh_degree}")
    camera = -view.viewmat[:3, :3].T @ view.viewmat[:3, 3]
    directions = F.normalize(gaussians.means - camera, dim=-1)
    bases = harmonics(directions, sh_degree)
    colors = bases[:, :1] * gaussians.features_dc
    if sh_degree > 0:
        rest = gaussians.features_rest[:, : bases.shape[1] - 1]
        colors = colors + (bases[:, 1:, None] * rest).sum(dim=1)
    return (colors + 0.5).clamp(min=0)


def harmonics(directions: Float[Tensor, "gaussians 3"], degree: int) -> Float[Tensor, "gaussians coefficients"]:
    """Real spherical harmonics in the order and with the signs of gsplat (Sloan, JCGT 2(2), 2013).

    Args:
        directions: Unit vectors.
        degree: In [0, 3].
    """
    x, y, z = directions.unbind(-1)
    bases = [torch.full_like(x, 0.2820947917738781)]
    if degree > 0:
        bases += [-0.48860251190292 * y, 0.48860251190292 * z, -0.48860251190292 * x]
    if degree > 1:
        cos2, sin2, zz = x * x - y * y, 2 * x * y, z * z
        bases += [
            0.5462742152960395 * sin2,
            -1.092548430592079 * z * y,
            0.9461746957575601 * zz - 0.3153915652525201,
            -1.092548430592079 * z * x,
            0.5462742152960395 * cos2,
        ]
        if degree > 2:
            cos3, sin3 = x * cos2 - y * sin2, x * sin2 + y * cos2
            outer, inner = -2.285228997322329 * zz + 0.4570457994644658, 1.445305721320277 * z
            bases += [
                -0.5900435899266435 * sin3,
                inner * sin2,
                outer * y,
                z * (1.865881662950577 * zz - 1.119528997770346),
                outer * x,
                inner * cos2,
                -0.5900435899266435 * cos3,
            ]
    return torch.stack(bases, dim=-1)
