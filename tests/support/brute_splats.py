"""A rasteriser by brute force and scenes that are made by hand."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import Contributions, Rendering, View

SH_C0 = 0.28209479177387814


class BruteRasterizer:
    """Every Gaussian at every pixel, in float64; colours of degree 0 only."""

    name = "brute"

    def __init__(self) -> None:
        self.counts: list[int] = []
        """Gaussians of each scene that contributions were asked for."""

    def layers(self, scene: Gaussians, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Alpha [N, H·W], colour [N, 3] and index of each Gaussian, front to back."""
        scene, viewmat, K = scene.to(torch.float64), view.viewmat.double(), view.K.double()
        local = scene.means @ viewmat[:3, :3].T + viewmat[:3, 3]
        order = local[:, 2].argsort(stable=True)
        order = order[local[order, 2] > 0.01]
        scene, local = scene.select(order), local[order]
        w, x, y, z = nn.functional.normalize(scene.quats, dim=1).unbind(1)
        rotation = torch.stack(
            [
                torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
                torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
                torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
            ],
            1,
        )
        half = rotation * scene.scales.exp()[:, None]
        depth = local[:, 2]
        jacobian = torch.zeros(len(order), 2, 3, dtype=torch.float64)
        jacobian[:, 0, 0], jacobian[:, 1, 1] = K[0, 0] / depth, K[1, 1] / depth
        jacobian[:, 0, 2], jacobian[:, 1, 2] = -K[0, 0] * local[:, 0] / depth**2, -K[1, 1] * local[:, 1] / depth**2
        flat = jacobian @ viewmat[:3, :3] @ half
        conics = (flat @ flat.transpose(1, 2) + 0.3 * torch.eye(2, dtype=torch.float64)).inverse()
        centres = (local @ K.T)[:, :2] / depth[:, None]
        rows, columns = torch.meshgrid(torch.arange(view.height), torch.arange(view.width), indexing="ij")
        pixels = torch.stack([columns.flatten(), rows.flatten()], -1) + 0.5
        offsets = pixels - centres[:, None]
        alpha = scene.opacities.sigmoid() * (-(offsets @ conics * offsets).sum(-1) / 2).exp()
        alpha = torch.where(alpha < 1 / 255, 0, alpha.clamp(max=0.999))
        return alpha, (0.5 + SH_C0 * scene.features_dc).clamp(min=0), order

    def render(self, gaussians: Gaussians, view: View, sh_degree: int, **_: Any) -> Rendering:
        alpha, colors, order = self.layers(gaussians, view)
        weights = alpha * self.transmittance(alpha)
        picture = (weights.T @ colors).unflatten(0, (view.height, view.width))
        seen = torch.zeros(len(gaussians), dtype=torch.int64)
        seen[order] = (alpha > 0).any(dim=1).long()
        alphas = weights.sum(0).view(view.height, view.width, 1)
        return Rendering(picture, alphas, None, torch.zeros(len(gaussians), 2), seen)

    @staticmethod
    def transmittance(alpha: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(alpha[:1]), (1 - alpha).cumprod(0)[:-1]])

    def contributions(
        self,
        gaussians: Gaussians,
        view: View,
        sh_degree: int,
        background: Tensor,
        *,
        antialiased: bool = False,
        pixels: Optional[Tensor] = None,
        seed: int = 0,
    ) -> Contributions:
        """Removal by really removing each Gaussian."""
        self.counts.append(len(gaussians))
        chosen = torch.ones(view.height, view.width, dtype=torch.bool) if pixels is None else pixels
        alpha, _, order = self.layers(gaussians, view)
        weights = (alpha * self.transmittance(alpha))[:, chosen.flatten()]
        found = Contributions.zeros(len(gaussians), torch.device("cpu"))
        found.hits[order] = (weights > 0).sum(1).double()
        found.weights[order] = weights.sum(1)
        found.max_weights[order] = weights.amax(1) if weights.shape[1] else weights.sum(1)
        whole = self.picture(gaussians, view, background)
        for i in range(len(gaussians)):
            others = torch.tensor([j for j in range(len(gaussians)) if j != i], dtype=torch.int64)
            lost = (self.picture(gaussians.select(others), view, background) - whole)[chosen]
            found.removal_l1[i], found.removal_l2[i] = lost.abs().sum(), lost.square().sum()
        return found

    def picture(self, gaussians: Gaussians, view: View, background: Tensor) -> Tensor:
        """Colours in front of a background [H, W, 3]."""
        if not len(gaussians):
            return background.double().expand(view.height, view.width, 3)
        rendering = self.render(gaussians, view, 0)
        return rendering.colors + (1 - rendering.alphas) * background.double()


def camera(position: Sequence[float], size: int = 16) -> View:
    """A camera that looks along z from a place."""
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, 3] = -torch.tensor(position, dtype=torch.float64)
    K = torch.tensor([[size, 0.0, size / 2], [0.0, size, size / 2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return View(viewmat, K, size, size)


def made(
    means: Sequence[Sequence[float]], opacity: Sequence[float], size: Sequence[float], color: Sequence[Sequence[float]]
) -> Gaussians:
    """Round Gaussians of degree 0 from opacities, standard deviations and colours in [0, 1]."""
    count = len(means)
    kind = torch.float64
    return Gaussians(
        torch.tensor(means, dtype=kind),
        torch.tensor(size, dtype=kind).log()[:, None].expand(count, 3).clone(),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=kind).repeat(count, 1),
        (torch.tensor(color, dtype=kind) - 0.5) / SH_C0,
        torch.zeros(count, 0, 3, dtype=kind),
        torch.logit(torch.tensor(opacity, dtype=kind))[:, None],
    )


def drawn(count: int, sh_degree: int = 0, seed: int = 0) -> Gaussians:
    """A cloud of random Gaussians in front of `camera([0, 0, 0])`."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    return Gaussians(
        normal(count, 3) * torch.tensor([0.6, 0.6, 0.3]) + torch.tensor([0.0, 0.0, 3.0]),
        normal(count, 3) * 0.3 - 1.8,
        normal(count, 4),
        normal(count, 3),
        normal(count, (sh_degree + 1) ** 2 - 1, 3) * 0.1,
        normal(count, 1),
    )
