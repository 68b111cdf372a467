"""Quaternions and matrices of rotations."""

import torch
from jaxtyping import Float
from torch import Tensor


def rotations_of(quats: Float[Tensor, "gaussians 4"]) -> Float[Tensor, "gaussians 3 3"]:
    """Rotations of quaternions w x y z of any length."""
    w, x, y, z = (quats / quats.norm(dim=1, keepdim=True).clamp(min=1e-300)).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def quaternions_of(rotations: Float[Tensor, "gaussians 3 3"]) -> Float[Tensor, "gaussians 4"]:
    """Unit quaternions w x y z, w >= 0: the eigenvector of the largest eigenvalue of Bar-Itzhack's matrix (2000)."""
    r = rotations.unflatten(1, (3,)).unbind(1)
    xx, xy, xz = r[0].unbind(-1)
    yx, yy, yz = r[1].unbind(-1)
    zx, zy, zz = r[2].unbind(-1)
    rows = [
        [xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, xx - yy - zz, xy + yx, xz + zx],
        [xz - zx, xy + yx, yy - xx - zz, yz + zy],
        [yx - xy, xz + zx, yz + zy, zz - xx - yy],
    ]
    matrices = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    quats = torch.linalg.eigh(matrices).eigenvectors[:, :, -1]
    return torch.where(quats[:, :1] < 0, -quats, quats)
