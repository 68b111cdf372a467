"""What a pair of Gaussians becomes when it is merged, and what pictures lose by that.

Pictures see a Gaussian of opacity o as a spot of height o, however deep it is, and of two spots in front of each other
one hides a part of the other. The cost of a pair is the squared error of the picture, averaged over directions of view,
in front of a background drawn mostly from the scene's own colours. NanoGS (arXiv 2603.16103) compares densities in
space instead.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nerfstudio_prune.gaussians.rotations import rotations_of
from nerfstudio_prune.gaussians.scores import opacities
from nerfstudio_prune.raster.gaussians import Gaussians

DIRECTIONS = 8
"""Directions of view, spread evenly over half of a sphere."""
MAX_OPACITY = 0.999
"""Opacity beyond which rasterisers clip."""
PIXEL_VARIANCE = 0.3
"""What rasterisers add to the projected variances, in squared pixels."""
ANY_COLOR = 0.25
"""Share of what lies behind a Gaussian that is no part of the scene, and may have any colour."""
SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: a colour of degree 0 is 0.5 + SH_C0 · features_dc."""
TINY = 1e-300
"""What keeps divisors of float64 from being 0."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians by their moments, in float64 on the CPU."""

    means: Float[Tensor, "gaussians 3"]
    covariances: Float[Tensor, "gaussians 3 3"]
    floors: Float[Tensor, " gaussians"]
    """Smallest variance of any part, below which rounding must not bring a merged Gaussian."""
    opacities: Float[Tensor, " gaussians"]
    harmonics: Float[Tensor, "gaussians coefficients 3"]
    """All of them, that of degree 0 first."""
    blurs: Float[Tensor, " gaussians"]
    """What pictures add to its projected variances."""
    visibilities: Float[Tensor, " gaussians"]
    """How much of its light pictures see, in any unit."""
    errors: Float[Tensor, " gaussians"]
    """What pictures have lost where it is: the costs of all pairs that it is made of."""
    representatives: Int64[Tensor, " gaussians"]
    """The old Gaussian that stands for each."""

    def select(self, index: Int64[Tensor, " kept"]) -> "Mixture":
        """Some of them, in the order of the indices; an index may come twice."""
        return Mixture(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def joined(self, other: "Mixture") -> "Mixture":
        """These, then others."""
        return Mixture(**{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})

    def __len__(self) -> int:
        return len(self.means)


def mixture_of(gaussians: Gaussians, pixel_sizes: Float[Tensor, "#gaussians"]) -> Mixture:
    """Moments of a scene, all of it seen alike.

    Args:
        gaussians: The scene.
        pixel_sizes: What a pixel covers at each Gaussian, in world units.
    """
    scene = gaussians.detach().to(torch.device("cpu")).to(torch.float64)
    variances = (2 * scene.scales).exp()
    rotations = rotations_of(scene.quats)
    return Mixture(
        means=scene.means,
        covariances=(rotations * variances[:, None]) @ rotations.transpose(1, 2),
        floors=variances.amin(dim=1),
        opacities=opacities(scene),
        harmonics=torch.cat([scene.features_dc[:, None], scene.features_rest], dim=1),
        blurs=(PIXEL_VARIANCE * pixel_sizes.cpu().double().square()).expand(len(scene)),
        visibilities=torch.ones(len(scene), dtype=torch.float64),
        errors=torch.zeros(len(scene), dtype=torch.float64),
        representatives=torch.arange(len(scene)),
    )


class PairCosts:
    """What pairs become, and what pictures lose by it."""

    def __init__(self, scene: Mixture, antialiased: bool = False) -> None:
        """Chooses directions of view, and takes the background's distribution from the scene.

        Args:
            scene: The whole scene.
            antialiased: Whether pictures make up for their blur by lower opacities.
        """
        self.right, self.down = _planes(DIRECTIONS)
        self.antialiased = antialiased
        colors = 0.5 + SH_C0 * scene.harmonics[:, 0]
        weights = self.light(scene, self.project(scene))
        weights = (weights / weights.sum().clamp(min=TINY))[:, None]
        mean = (weights * colors).sum(dim=0)
        self.background = (1 - ANY_COLOR) * mean + ANY_COLOR / 2
        own = (weights * (colors - self.background).square()).sum()
        any_color = (1 / 12 + (0.5 - self.background).square()).sum()
        self.spread = ((1 - ANY_COLOR) * own + ANY_COLOR * any_color).sqrt()

    def project(self, scene: Mixture) -> Float[Tensor, "pairs directions 3"]:
        """Covariances in each picture, blurred: x x, x y, y y."""
        right, down, covariances, blurs = self.right, self.down, scene.covariances, scene.blurs[:, None]
        return torch.stack(
            [
                torch.einsum("di,nij,dj->nd", right, covariances, right) + blurs,
                torch.einsum("di,nij,dj->nd", right, covariances, down),
                torch.einsum("di,nij,dj->nd", down, covariances, down) + blurs,
            ],
            dim=-1,
        )

    @staticmethod
    def areas(projected: Float[Tensor, "pairs directions 3"]) -> Float[Tensor, "pairs directions"]:
        """Area of the ellipse of one standard deviation, over π."""
        xx, xy, yy = projected.unbind(-1)
        return (xx * yy - xy.square()).clamp(min=TINY).sqrt()

    def heights(self, scene: Mixture, seen: Float[Tensor, "pairs directions 3"]) -> Float[Tensor, "pairs directions"]:
        """Opacities in the middle of the spots that pictures show."""
        if not self.antialiased:
            return scene.opacities[:, None].expand(seen.shape[:2])
        sharp = seen - scene.blurs[:, None, None] * torch.tensor([1.0, 0.0, 1.0], dtype=seen.dtype)
        return scene.opacities[:, None] * self.areas(sharp) / self.areas(seen)

    def light(self, scene: Mixture, seen: Float[Tensor, "pairs directions 3"]) -> Float[Tensor, " pairs"]:
        """What each keeps from the background, over 2π, averaged over directions."""
        return (self.heights(scene, seen) * self.areas(seen)).mean(dim=1)

    def weighted(self, scene: Mixture, weights: Float[Tensor, " gaussians"]) -> Mixture:
        """With visibilities from what views see: light that reaches pixels, over the light that there is.

        Args:
            scene: The whole scene.
            weights: Sums of T·alpha over the pixels of all views.
        """
        light = self.light(scene, self.project(scene))
        return replace(scene, visibilities=torch.where(light > 0, weights / light.clamp(min=TINY), 0))

    def overlap(
        self,
        first: Float[Tensor, "pairs directions 3"],
        second: Float[Tensor, "pairs directions 3"],
        apart: Float[Tensor, "pairs directions 2"],
    ) -> Float[Tensor, "pairs directions"]:
        """Integral of the product of two spots of height 1, over 2π.

        Args:
            first: Projected covariance of the one.
            second: That of the other.
            apart: From one centre to the other.
        """
        xx, xy, yy = (first + second).unbind(-1)
        x, y = apart.unbind(-1)
        determinant = (xx * yy - xy.square()).clamp(min=TINY)
        distance = (yy * x.square() - 2 * xy * x * y + xx * y.square()) / determinant
        return self.areas(first) * self.areas(second) * determinant.rsqrt() * (-distance / 2).exp()

    def apart(self, offsets: Float[Tensor, "pairs 3"]) -> Float[Tensor, "pairs directions 2"]:
        """Offsets as pictures see them."""
        return torch.stack([offsets @ self.right.T, offsets @ self.down.T], dim=-1)

    def features(self, scene: Mixture) -> Float[Tensor, "gaussians features"]:
        """Vectors whose products are those of differences to the background, averaged over directions and backgrounds.

        Spherical harmonics are orthonormal, so that the mean of a product over all directions is that of the
        coefficients, over 4π.
        """
        differences = SH_C0 * scene.harmonics
        differences[:, 0] += 0.5 - self.background
        return torch.cat([differences.flatten(1), self.spread.expand(len(scene), 1)], dim=1)

    def merged(self, first: Mixture, second: Mixture) -> tuple[Mixture, Float[Tensor, " pairs"]]:
        """One Gaussian for each pair, and the share of the first one in it."""
        seen = self.project(first), self.project(second)
        weights = torch.stack([self.light(first, seen[0]), self.light(second, seen[1])])
        # Two that are both fully transparent count alike.
        share = (weights[0] + TINY) / (weights.sum(dim=0) + 2 * TINY)
        one, other = share[:, None], 1 - share[:, None]
        offsets = second.means - first.means
        merged = Mixture(
            means=one * first.means + other * second.means,
            covariances=one[..., None] * first.covariances
            + other[..., None] * second.covariances
            + (one * other)[..., None] * offsets[:, :, None] * offsets[:, None],
            floors=torch.minimum(first.floors, second.floors),
            opacities=torch.ones_like(share),
            harmonics=one[..., None] * first.harmonics + other[..., None] * second.harmonics,
            blurs=share * first.blurs + (1 - share) * second.blurs,
            visibilities=share * first.visibilities + (1 - share) * second.visibilities,
            errors=first.errors + second.errors,
            representatives=torch.where(share >= 0.5, first.representatives, second.representatives),
        )
        heights = self.heights(first, seen[0]) * self.heights(second, seen[1])
        hidden = (heights * self.overlap(*seen, self.apart(offsets))).mean(dim=1)
        opacity = (weights.sum(dim=0) - hidden) / self.light(merged, self.project(merged))
        excess = (opacity / MAX_OPACITY).clamp(min=1)
        larger = replace(merged, covariances=merged.covariances * excess[:, None, None], opacities=opacity / excess)
        return larger, share

    def costs(
        self, scene: Mixture, first: Int64[Tensor, " pairs"], second: Int64[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """Squared error of pictures once each pair has become one; of a Gaussian with itself: once it has left.

        A pair is a spot a, a spot b, and minus what one hides of the other, a·b, half of it in each colour, for either
        may be the one in front. A product of spots is a spot as well, so all integrals are closed.
        """
        a, b = scene.select(first), scene.select(second)
        m, share = self.merged(a, b)
        f, g = self.features(a), self.features(b)
        ff, fg, gg = f.square().sum(dim=1), (f * g).sum(dim=1), g.square().sum(dim=1)
        A, B, M = self.project(a), self.project(b), self.project(m)
        ab, am = self.apart(b.means - a.means), self.apart(m.means - a.means)
        P, ap, height = _product(A, B, ab)
        tops = self.heights(a, A), self.heights(b, B)
        heights = (*tops, -tops[0] * tops[1] * height, -self.heights(m, M))
        # Colours as parts of those of a and b.
        half = torch.full_like(share, 0.5)
        parts = torch.stack([torch.ones_like(share), torch.zeros_like(share), half, share])
        spots, places = (A, B, P, M), (torch.zeros_like(ab), ab, ap, am)
        total = torch.zeros_like(height)
        for i in range(4):
            for j in range(i, 4):
                p, q = parts[i], parts[j]
                color = p * q * ff + (p * (1 - q) + q * (1 - p)) * fg + (1 - p) * (1 - q) * gg
                product = self.overlap(spots[i], spots[j], places[j] - places[i]) * heights[i] * heights[j]
                total += (1 if i == j else 2) * color[:, None] * product
        leaves = ff * (tops[0].square() * self.areas(A)).mean(dim=1) / 2
        # Without what was lost before, large Gaussians that are made of many would take in ever more.
        together = m.visibilities * total.mean(dim=1).clamp(min=0) + b.errors
        return a.errors + torch.where(first == second, a.visibilities * leaves, together)


def _product(
    A: Float[Tensor, "pairs directions 3"],
    B: Float[Tensor, "pairs directions 3"],
    apart: Float[Tensor, "pairs directions 2"],
) -> tuple[Tensor, Tensor, Tensor]:
    """The product of two spots of height 1: its covariance, its centre as seen from the first one's, its height."""
    xx, xy, yy = (A + B).unbind(-1)
    x, y = apart.unbind(-1)
    determinant = (xx * yy - xy.square()).clamp(min=TINY)
    # (A⁻¹ + B⁻¹)⁻¹ = A (A + B)⁻¹ B, written for matrices of two rows.
    wx, wy = (yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant
    centre = torch.stack([A[..., 0] * wx + A[..., 1] * wy, A[..., 1] * wx + A[..., 2] * wy], dim=-1)
    height = (-(x * wx + y * wy) / 2).exp()
    a, b = (v[..., 0] * v[..., 2] - v[..., 1].square() for v in (A, B))
    covariance = (a[..., None] * B + b[..., None] * A) / determinant[..., None]
    return covariance, centre, height


def _planes(count: int) -> tuple[Float[Tensor, "directions 3"], Float[Tensor, "directions 3"]]:
    """Two axes of the picture for each direction of view; directions by Fibonacci's spiral on half of a sphere."""
    index = torch.arange(count, dtype=torch.float64)
    z = (index + 0.5) / count
    angle = index * math.pi * (3 - math.sqrt(5))
    radius = (1 - z.square()).sqrt()
    forward = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=1)
    right = torch.stack([-angle.sin(), angle.cos(), torch.zeros_like(z)], dim=1)
    return right, torch.linalg.cross(forward, right)
