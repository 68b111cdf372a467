"""Colours that depend on the direction from which a Gaussian is seen."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from nerfstudio_prune.raster import harmonics_kernels as kernels
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import View
from nerfstudio_prune.raster.threads import in_blocks


def colors_of(
    gaussians: Gaussians, view: View, sh_degree: int, radii: Int[Tensor, " gaussians"]
) -> Float[Tensor, "gaussians 3"]:
    """Colours as a camera sees them, at least 0; on a CPU. Differentiable, also in the camera's matrix.

    Args:
        gaussians: The scene.
        view: The camera, of the same device and precision.
        sh_degree: Degree up to which the spherical harmonics count, at most that of the scene.
        radii: 0 for Gaussians that are not seen; their colour is 0.
    """
    viewmat = view.viewmat.double()
    eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
    return _Coloring.apply(gaussians.means, gaussians.features_dc, gaussians.features_rest, eye, sh_degree, radii)  # type: ignore[return-value]


class _Coloring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means: Tensor, constant: Tensor, rest: Tensor, eye: Tensor, degree: int, radii: Tensor
    ) -> Tensor:
        colors = torch.zeros_like(means, memory_format=torch.contiguous_format)
        arrays, at = [t.detach().contiguous().numpy() for t in (means, constant, rest)], eye.detach().numpy()
        seen, out = radii.numpy(), colors.numpy()
        in_blocks(lambda b: kernels.color(*(a[b] for a in arrays), at, degree, seen[b], out[b]), len(means))
        ctx.save_for_backward(means, constant, rest, eye, radii, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_colors: Tensor) -> Any:  # type: ignore[override]
        *parameters, eye, radii, colors = ctx.saved_tensors
        wanted = [torch.empty_like(p, memory_format=torch.contiguous_format) for p in parameters]
        arrays, at = [t.detach().contiguous().numpy() for t in parameters], eye.detach().numpy()
        given = [t.detach().contiguous().numpy() for t in (radii, colors, d_colors)]
        out = [t.numpy() for t in wanted]

        def one(block: slice) -> np.ndarray:
            d_eye = np.zeros(3)
            kernels.color_backward(
                *(a[block] for a in arrays), at, ctx.degree, *(g[block] for g in given), *(o[block] for o in out), d_eye
            )
            return d_eye

        parts = in_blocks(one, len(radii))
        return (*wanted, torch.from_numpy(sum(parts, np.zeros(3))), None, None)
