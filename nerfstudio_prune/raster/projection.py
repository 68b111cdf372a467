"""From Gaussians in space to Gaussians in a picture (Zwicker et al., EWA Splatting, 2002), as gsplat 1.4 does it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from nerfstudio_prune.raster import projection_kernels as kernels
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import View
from nerfstudio_prune.raster.threads import in_blocks


@dataclass(frozen=True, eq=False)
class Projection:
    """Gaussians as they lie in a picture; all but the depth is 0 for those that are not seen."""

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
    """Projects Gaussians on a CPU by the local affine approximation of the camera.

    Differentiable, also in the camera's matrix.

    Args:
        gaussians: The scene.
        view: The camera, of the same device and precision.
        antialiased: Whether opacities make up for the blur (Mip-Splatting, arXiv 2311.16493, its 2D filter).
    """
    parameters = (gaussians.means, gaussians.scales, gaussians.quats, gaussians.opacities)
    return Projection(*_Projecting.apply(*parameters, view.viewmat, view, antialiased))  # type: ignore[arg-type]


class _Projecting(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        scales: Tensor,
        quats: Tensor,
        logits: Tensor,
        viewmat: Tensor,
        view: View,
        antialiased: bool,
    ) -> tuple[Tensor, ...]:
        count = len(means)
        results = [means.new_empty(count, 2), means.new_empty(count, 3), means.new_empty(count), means.new_empty(count)]
        radii = torch.empty(count, dtype=torch.int32)
        arrays = [t.detach().contiguous().numpy() for t in (means, scales, quats, logits)]
        camera = (*_camera(view), view.width, view.height, antialiased)
        out = [t.numpy() for t in (*results, radii)]
        in_blocks(lambda b: kernels.project(*(a[b] for a in arrays), *camera, *(o[b] for o in out)), count)
        ctx.save_for_backward(means, scales, quats, logits, radii)
        ctx.camera, ctx.dtype = camera, viewmat.dtype
        ctx.mark_non_differentiable(radii)
        return (*results, radii)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # type: ignore[override]
        *parameters, radii = ctx.saved_tensors
        wanted = [torch.zeros_like(p, memory_format=torch.contiguous_format) for p in parameters]
        arrays = [t.detach().contiguous().numpy() for t in parameters]
        given = [t.contiguous().numpy() for t in (radii, *gradients[:4])]
        out = [t.numpy() for t in wanted]

        def one(block: slice) -> np.ndarray:
            d_viewmat = np.zeros((4, 4))
            kernels.project_backward(
                *(a[block] for a in arrays),
                *ctx.camera,
                *(g[block] for g in given),
                *(o[block] for o in out),
                d_viewmat if ctx.needs_input_grad[4] else None,
            )
            return d_viewmat

        d_viewmat = torch.from_numpy(sum(in_blocks(one, len(radii)), np.zeros((4, 4))))
        return (*wanted, d_viewmat.to(ctx.dtype) if ctx.needs_input_grad[4] else None, None, None)


def _camera(view: View) -> tuple[np.ndarray, np.ndarray]:
    return view.viewmat.detach().double().contiguous().numpy(), view.K.detach().double().contiguous().numpy()
