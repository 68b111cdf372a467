"""Fewer Gaussians without photos: neighbours that look alike become one, pair by pair.

After NanoGS (arXiv 2603.16103): pairs of neighbours are merged by moment matching, cheapest first. What a pair costs is
judged here as pictures see it and not in space: a Gaussian of opacity o is a spot of height o, however deep it is, and
of two spots in front of each other one hides a part of the other. The cost is the squared error of the picture,
averaged over directions of view, in front of a background drawn mostly from the scene's own colours. A Gaussian may
also leave without an heir, where that costs less than to stretch another one.
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int64
from scipy.spatial import KDTree
from torch import Tensor

from nerfstudio_prune.gaussians.pruner import check_gaussians
from nerfstudio_prune.gaussians.scores import opacities
from nerfstudio_prune.raster.gaussians import Gaussians

NEIGHBOURS = 12
"""Nearest neighbours of each Gaussian that it may be merged with."""
DIRECTIONS = 8
"""Directions of view, spread evenly over half of a sphere."""
SHARE_OF_PASS = 0.15
"""Largest share of the Gaussians that leaves before costs are taken anew."""
MAX_OPACITY = 0.999
"""Opacity beyond which rasterisers clip."""
PIXEL_VARIANCE = 0.3
"""What rasterisers add to the projected variances, in squared pixels."""
ANY_COLOR = 0.25
"""Share of what lies behind a Gaussian that is no part of the scene, and may have any colour."""
CHUNK = 1 << 16
"""Pairs that are judged at once; bounds the memory."""
SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: a colour of degree 0 is 0.5 + SH_C0 · features_dc."""


@dataclass(frozen=True, eq=False)
class Merged:
    """A scene with fewer Gaussians, and where the old ones went."""

    gaussians: Gaussians
    """The new scene, in the order of `representatives`."""
    parents: Int64[Tensor, " before"]
    """Old Gaussian -> new one that it is part of; -1 for one that left without an heir."""
    representatives: Int64[Tensor, " after"]
    """New Gaussian -> old one that stands for it, the heavier part of each pair. Sorted and unique: the `keep` of a
    cut."""


@dataclass(frozen=True, eq=False)
class _Scene:
    """What a pass computes with, in float64 on the CPU."""

    means: Float[Tensor, "gaussians 3"]
    covariances: Float[Tensor, "gaussians 3 3"]
    floors: Float[Tensor, " gaussians"]
    """Smallest variance of any part, below which rounding must not bring a merged Gaussian."""
    opacities: Float[Tensor, " gaussians"]
    harmonics: Float[Tensor, "gaussians coefficients 3"]
    """All of them, that of degree 0 first."""
    representatives: Int64[Tensor, " gaussians"]

    def select(self, index: Int64[Tensor, " kept"]) -> "_Scene":
        return _Scene(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def joined(self, other: "_Scene") -> "_Scene":
        return _Scene(**{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})

    def __len__(self) -> int:
        return len(self.means)


@torch.no_grad()
def merge(gaussians: Gaussians, n_keep: int, *, pixel_size: float = 0.0) -> Merged:
    """Merges pairs of Gaussians until so many are left. Deterministic; on the CPU, wherever the scene lives.

    Mean, covariance and harmonics of a new Gaussian are the means of its two parts', weighted by opacity · projected
    area, with the spread of the centres added to the covariance. Its opacity conserves what the pair keeps from the
    background, averaged over directions of view; where that would take more than an opaque Gaussian, it becomes larger.

    Args:
        gaussians: The scene, N Gaussians.
        n_keep: How many shall be left, in [1, N].
        pixel_size: What a pixel covers at the scene's distance, in world units, where pictures of one size are meant.
            Rasterisers blur by about half a pixel, which for thin Gaussians is most of what is seen. 0: no blur.

    Returns:
        Exactly `n_keep` Gaussians, with the dtype and device of the old ones. Those that were not merged are bit for
        bit what they were.

    Raises:
        ValueError: If a number is out of range or the scene is not finite.
    """
    check_gaussians(dict(gaussians.items()))
    if not 1 <= n_keep <= len(gaussians):
        raise ValueError(f"n_keep must be in [1, {len(gaussians)}], got {n_keep}")
    if not 0 <= pixel_size < math.inf:
        raise ValueError(f"pixel_size must be a length that is at least 0, got {pixel_size}")
    judge = _Judge(scene := _scene_of(gaussians), PIXEL_VARIANCE * pixel_size**2)
    parents = torch.arange(len(scene))
    while len(scene) > n_keep:
        pairs = _candidates(scene.means)
        costs = torch.cat([judge.costs(scene, *part.unbind(1)) for part in pairs.split(CHUNK)])
        leave = min(len(scene) - n_keep, max(1, int(SHARE_OF_PASS * len(scene))))
        scene, heirs = _leave(scene, judge, pairs[_cheapest_disjoint(pairs, costs, leave)])
        parents = torch.where(parents < 0, -1, heirs[parents.clamp(min=0)])
    return _result(gaussians, scene, parents)


def _scene_of(gaussians: Gaussians) -> _Scene:
    scene = gaussians.detach().to(torch.device("cpu")).to(torch.float64)
    variances = (2 * scene.scales).exp()
    rotations = _rotations(scene.quats)
    return _Scene(
        scene.means,
        (rotations * variances[:, None]) @ rotations.transpose(1, 2),
        variances.amin(dim=1),
        opacities(scene),
        torch.cat([scene.features_dc[:, None], scene.features_rest], dim=1),
        torch.arange(len(scene)),
    )


class _Judge:
    """What pairs become, and what pictures lose by it."""

    def __init__(self, scene: _Scene, blur: float) -> None:
        """Chooses directions of view, and takes the background's distribution from the scene.

        Args:
            scene: The whole scene.
            blur: What pictures add to projected variances.
        """
        right, down = _planes(DIRECTIONS)
        self.right, self.down, self.blur = right, down, blur
        colors = 0.5 + SH_C0 * scene.harmonics[:, 0]
        weights = scene.opacities * self.areas(self.project(scene.covariances)).mean(dim=1)
        weights = (weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny))[:, None]
        mean = (weights * colors).sum(dim=0)
        self.background = (1 - ANY_COLOR) * mean + ANY_COLOR / 2
        own = (weights * (colors - self.background).square()).sum()
        any_color = (1 / 12 + (0.5 - self.background).square()).sum()
        self.spread = ((1 - ANY_COLOR) * own + ANY_COLOR * any_color).sqrt()

    def project(self, covariances: Float[Tensor, "pairs 3 3"]) -> Float[Tensor, "pairs directions 3"]:
        """Covariances in each picture, blurred: x x, x y, y y."""
        right, down = self.right, self.down
        return torch.stack(
            [
                torch.einsum("di,nij,dj->nd", right, covariances, right) + self.blur,
                torch.einsum("di,nij,dj->nd", right, covariances, down),
                torch.einsum("di,nij,dj->nd", down, covariances, down) + self.blur,
            ],
            dim=-1,
        )

    @staticmethod
    def areas(projected: Float[Tensor, "pairs directions 3"]) -> Float[Tensor, "pairs directions"]:
        """Area of the ellipse of one standard deviation, over π."""
        xx, xy, yy = projected.unbind(-1)
        return (xx * yy - xy.square()).clamp(min=1e-300).sqrt()

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
        determinant = (xx * yy - xy.square()).clamp(min=1e-300)
        distance = (yy * x.square() - 2 * xy * x * y + xx * y.square()) / determinant
        return self.areas(first) * self.areas(second) * determinant.rsqrt() * (-distance / 2).exp()

    def apart(self, offsets: Float[Tensor, "pairs 3"]) -> Float[Tensor, "pairs directions 2"]:
        """Offsets as pictures see them."""
        return torch.stack([offsets @ self.right.T, offsets @ self.down.T], dim=-1)

    def features(self, scene: _Scene) -> Float[Tensor, "gaussians features"]:
        """Vectors whose products are those of differences to the background, averaged over directions and backgrounds.

        Spherical harmonics are orthonormal, so that the mean of a product over all directions is that of the
        coefficients, over 4π.
        """
        differences = SH_C0 * scene.harmonics
        differences[:, 0] += 0.5 - self.background
        return torch.cat([differences.flatten(1), self.spread.expand(len(scene), 1)], dim=1)

    def merged(self, first: _Scene, second: _Scene) -> tuple[_Scene, Float[Tensor, " pairs"]]:
        """One Gaussian for each pair, and the share of the first one in it."""
        seen = [self.project(first.covariances), self.project(second.covariances)]
        areas = [self.areas(projected) for projected in seen]
        weights = torch.stack([first.opacities * areas[0].mean(dim=1), second.opacities * areas[1].mean(dim=1)])
        # Two that are both fully transparent count alike.
        share = (weights[0] + 1e-300) / (weights.sum(dim=0) + 2e-300)
        one, other = share[:, None], 1 - share[:, None]
        offsets = second.means - first.means
        covariances = (
            one[..., None] * first.covariances
            + other[..., None] * second.covariances
            + (one * other)[..., None] * offsets[:, :, None] * offsets[:, None]
        )
        hidden = first.opacities * second.opacities * self.overlap(*seen, self.apart(offsets)).mean(dim=1)
        opacity = (weights.sum(dim=0) - hidden) / self.areas(self.project(covariances)).mean(dim=1)
        excess = (opacity / MAX_OPACITY).clamp(min=1)
        merged = _Scene(
            one * first.means + other * second.means,
            covariances * excess[:, None, None],
            torch.minimum(first.floors, second.floors),
            opacity / excess,
            one[..., None] * first.harmonics + other[..., None] * second.harmonics,
            torch.where(share >= 0.5, first.representatives, second.representatives),
        )
        return merged, share

    def costs(
        self, scene: _Scene, first: Int64[Tensor, " pairs"], second: Int64[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """Squared error of pictures when each pair becomes one; of a Gaussian with itself: when it leaves.

        A pair is a spot a, a spot b, and minus what one hides of the other, a·b, half of it in each colour, for either
        may be the one in front. A product of spots is a spot as well, so all integrals are closed.
        """
        a, b = scene.select(first), scene.select(second)
        m, share = self.merged(a, b)
        f, g = self.features(a), self.features(b)
        ff, fg, gg = f.square().sum(dim=1), (f * g).sum(dim=1), g.square().sum(dim=1)
        A, B, M = self.project(a.covariances), self.project(b.covariances), self.project(m.covariances)
        ab, am = self.apart(b.means - a.means), self.apart(m.means - a.means)
        P, ap, height = _product(A, B, ab)
        heights = torch.stack(
            [
                a.opacities[:, None].expand_as(height),
                b.opacities[:, None].expand_as(height),
                -(a.opacities * b.opacities)[:, None] * height,
                -m.opacities[:, None].expand_as(height),
            ]
        )
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
        leaves = a.opacities.square() * ff * self.areas(A).mean(dim=1) / 2
        return torch.where(first == second, leaves, total.mean(dim=1).clamp(min=0))


def _product(
    A: Float[Tensor, "pairs directions 3"],
    B: Float[Tensor, "pairs directions 3"],
    apart: Float[Tensor, "pairs directions 2"],
) -> tuple[Tensor, Tensor, Tensor]:
    """The product of two spots of height 1: its covariance, its centre as seen from the first one's, its height."""
    xx, xy, yy = (A + B).unbind(-1)
    x, y = apart.unbind(-1)
    determinant = (xx * yy - xy.square()).clamp(min=1e-300)
    # (A⁻¹ + B⁻¹)⁻¹ = A (A + B)⁻¹ B, written for matrices of two rows.
    wx, wy = (yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant
    centre = torch.stack([A[..., 0] * wx + A[..., 1] * wy, A[..., 1] * wx + A[..., 2] * wy], dim=-1)
    height = (-(x * wx + y * wy) / 2).exp()
    a, b = (v[..., 0] * v[..., 2] - v[..., 1].square() for v in (A, B))
    covariance = (a[..., None] * B + b[..., None] * A) / determinant[..., None]
    return covariance, centre, height


def _candidates(means: Float[Tensor, "gaussians 3"]) -> Int64[Tensor, "pairs 2"]:
    """Each Gaussian with its nearest neighbours, each pair once, and each Gaussian with itself."""
    count = len(means)
    own = torch.arange(count)
    near = torch.from_numpy(KDTree(means.numpy()).query(means.numpy(), k=min(NEIGHBOURS + 1, count))[1])
    pairs = torch.stack([own[:, None].expand_as(near), near], dim=-1).flatten(0, 1).sort(dim=1).values
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    keys = torch.cat([pairs[:, 0] * count + pairs[:, 1], own * (count + 1)]).unique()
    return torch.stack([keys // count, keys % count], dim=1)


def _cheapest_disjoint(
    pairs: Int64[Tensor, "pairs 2"], costs: Float[Tensor, " pairs"], leave: int
) -> Int64[Tensor, " chosen"]:
    """What a walk from the cheapest pair to the dearest takes if no Gaussian may be taken twice: at most `leave` pairs.

    In rounds: a pair that is the cheapest of both its Gaussians' is one that the walk takes.
    """
    rank = torch.empty(len(pairs), dtype=torch.int64)
    rank[costs.argsort(stable=True)] = torch.arange(len(pairs))
    count, open_, chosen = int(pairs.max()) + 1, torch.arange(len(pairs)), []
    while len(open_):
        first, second = pairs[open_].unbind(1)
        best = torch.full((count,), len(pairs), dtype=torch.int64)
        best.scatter_reduce_(0, first, rank[open_], "amin").scatter_reduce_(0, second, rank[open_], "amin")
        take = (best[first] == rank[open_]) & (best[second] == rank[open_])
        chosen.append(open_[take])
        free = torch.ones(count, dtype=torch.bool)
        free[pairs[open_[take]].flatten()] = False
        open_ = open_[free[first] & free[second]]
    found = torch.cat(chosen)
    return found[rank[found].argsort()[:leave]]


def _leave(scene: _Scene, judge: _Judge, pairs: Int64[Tensor, "pairs 2"]) -> tuple[_Scene, Int64[Tensor, " gaussians"]]:
    """Carries out a pass.

    Returns:
        The scene after it, and for each Gaussian before it its heir, -1 for none.
    """
    first, second = pairs.unbind(1)
    stays = torch.ones(len(scene), dtype=torch.bool)
    stays[pairs.flatten()] = False
    apart = first != second
    one, other = first[apart], second[apart]
    merged, _ = judge.merged(scene.select(one), scene.select(other))
    after = scene.select(stays.nonzero()[:, 0]).joined(merged)
    order = after.representatives.argsort()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    heirs = torch.full((len(scene),), -1, dtype=torch.int64)
    heirs[stays] = place[: int(stays.sum())]
    heirs[one] = heirs[other] = place[int(stays.sum()) :]
    return after.select(order), heirs


def _result(gaussians: Gaussians, scene: _Scene, parents: Int64[Tensor, " before"]) -> Merged:
    """The scene with the parameters that are trained; Gaussians with one part only are copied."""
    kept = gaussians.detach().select(scene.representatives)
    parts = torch.bincount(parents[parents >= 0], minlength=len(scene))
    new = (parts > 1).nonzero()[:, 0]
    merged = scene.select(new)
    variances, axes = torch.linalg.eigh(merged.covariances)
    axes[:, :, 0] *= torch.linalg.det(axes).sign()[:, None]
    values = {
        "means": merged.means,
        "scales": torch.maximum(variances, merged.floors[:, None]).log() / 2,
        "quats": _quaternions(axes),
        "features_dc": merged.harmonics[:, 0],
        "features_rest": merged.harmonics[:, 1:],
        "opacities": torch.logit(merged.opacities, eps=1e-7)[:, None],
    }
    tensors = {
        name: old.index_copy(0, new.to(old.device), values[name].to(old.device, old.dtype))
        for name, old in kept.items()
    }
    return Merged(Gaussians.of(tensors), parents.to(kept.means.device), scene.representatives.to(kept.means.device))


def _planes(count: int) -> tuple[Float[Tensor, "directions 3"], Float[Tensor, "directions 3"]]:
    """Two axes of the picture for each direction of view; directions by Fibonacci's spiral on half of a sphere."""
    index = torch.arange(count, dtype=torch.float64)
    z = (index + 0.5) / count
    angle = index * math.pi * (3 - math.sqrt(5))
    radius = (1 - z.square()).sqrt()
    forward = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=1)
    right = torch.stack([-angle.sin(), angle.cos(), torch.zeros_like(z)], dim=1)
    return right, torch.linalg.cross(forward, right)


def _rotations(quats: Float[Tensor, "gaussians 4"]) -> Float[Tensor, "gaussians 3 3"]:
    """Rotations of quaternions w x y z of any length."""
    w, x, y, z = (quats / quats.norm(dim=1, keepdim=True).clamp(min=1e-300)).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _quaternions(rotations: Float[Tensor, "gaussians 3 3"]) -> Float[Tensor, "gaussians 4"]:
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
