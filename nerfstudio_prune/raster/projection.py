"""From Gaussians in space to Gaussians in a picture (Zwicker et al., EWA Splatting, 2002), as gsplat 1.4 does it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import View

NEAR_PLANE = 0.01
"""Gaussians whose centre is nearer to the camera are not drawn; world units along its z."""
FAR_PLANE = 1e10
"""The same for those further away."""
BLUR = 0.3
"""Added to the variances in the picture, pixels squared: no Gaussian is much smaller than a pixel."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Gaussians as they lie in a picture. Of those that are not seen (radius 0) only the shapes hold."""

    means2d: Float[Tensor, "gaussians 2"]
    """Centres, in pixels."""
    conics: Float[Tensor, "gaussians 3"]
    """Inverse of the covariances: xx, xy, yy; 1 / pixels squared."""
    opacities: Float[Tensor, " gaussians"]
    """In [0, 1]."""
    depths: Float[Tensor, " gaussians"]
    """Along the camera's z, in world units."""
    radii: Int[Tensor, " gaussians"]
    """Three standard deviations in pixels, rounded up; 0 for one that is not seen."""


def project(gaussians: Gaussians, view: View, antialiased: bool = False) -> Projection:
    """Projects Gaussians by the local affine approximation of the camera. Differentiable.

    Args:
        gaussians: The scene.
        view: The camera, of the same device and precision.
        antialiased: Whether opacities make up for the blur (Mip-Splatting, arXiv 2311.16493, equation 9 without its 3D
            filter).
    """
    rotation, translation = view.viewmat[:3, :3], view.viewmat[:3, 3]
    in_camera = gaussians.means @ rotation.T + translation
    depths = in_camera[:, 2]
    in_front = (depths > NEAR_PLANE) & (depths < FAR_PLANE)
    x, y, z = torch.where(in_front[:, None], in_camera, torch.ones_like(in_camera)).unbind(-1)

    (fx, _, cx), (_, fy, cy), _ = view.K.tolist()
    margin_x, margin_y = 0.3 * 0.5 * view.width / fx, 0.3 * 0.5 * view.height / fy
    means2d = torch.stack((fx * x / z + cx, fy * y / z + cy), dim=-1)
    # The tangents are clamped: far outside of the picture the affine approximation makes huge Gaussians of small ones.
    tangent_x = (x / z).clamp(-cx / fx - margin_x, (view.width - cx) / fx + margin_x)
    tangent_y = (y / z).clamp(-cy / fy - margin_y, (view.height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack((fx / z, zero, -fx * tangent_x / z, zero, fy / z, -fy * tangent_y / z), dim=-1)
    axes = jacobian.reshape(-1, 2, 3) @ rotation @ (_rotations(gaussians.quats) * gaussians.scales.exp()[:, None, :])
    xx, xy, yy = axes[:, 0].square().sum(-1), (axes[:, 0] * axes[:, 1]).sum(-1), axes[:, 1].square().sum(-1)

    opacities = gaussians.opacities.squeeze(-1).sigmoid()
    sharp = xx * yy - xy * xy
    xx, yy = xx + BLUR, yy + BLUR
    determinants = (xx * yy - xy * xy).clamp(min=1e-10)
    if antialiased:
        opacities = opacities * (sharp / determinants).clamp(min=0).sqrt()
    conics = torch.stack((yy, -xy, xx), dim=-1) / determinants[:, None]
    with torch.no_grad():
        radii = _radii(xx, yy, determinants, means2d, in_front, view)
    return Projection(means2d, conics, opacities, depths, radii)


def _rotations(quats: Float[Tensor, "gaussians 4"]) -> Float[Tensor, "gaussians 3 3"]:
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    return torch.stack(
        (
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ),
        dim=-1,
    ).reshape(-1, 3, 3)  # fmt: skip


def _radii(
    xx: Float[Tensor, " gaussians"],
    yy: Float[Tensor, " gaussians"],
    determinants: Float[Tensor, " gaussians"],
    means2d: Float[Tensor, "gaussians 2"],
    in_front: Tensor,
    view: View,
) -> Int[Tensor, " gaussians"]:
    half_trace = 0.5 * (xx + yy)
    variances = half_trace + (half_trace.square() - determinants).clamp(min=0.01).sqrt()
    radii = (3 * variances.sqrt()).ceil()
    x, y = means2d.unbind(-1)
    inside = (x + radii > 0) & (x - radii < view.width) & (y + radii > 0) & (y - radii < view.height)
    return torch.where(in_front & inside, radii, 0).int()
