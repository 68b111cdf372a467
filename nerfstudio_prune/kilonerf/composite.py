"""Colours of pixels from samples along rays, and when to stop asking for more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Optional

import torch
from jaxtyping import Float, Int32, Int64, Shaped
from torch import Tensor
from torch.nn.functional import pad

MAX_DEPTH = 100.0
"""Optical depth of a sample that counts: behind it there is no light left in any precision. An unbounded one would
swallow all others in the running sum."""

POINTS_PER_NETWORK = 64
"""Points that a network should have in a pass: with fewer, starting its products takes longer than they save."""

MOST_PASSES = 3
"""Each further pass stops few rays more, and starts the products of all networks once more."""

Evaluate = Callable[[Int64[Tensor, " asked"]], tuple[Float[Tensor, " asked"], Float[Tensor, "asked 3"]]]
"""Numbers of samples -> their density, per unit of length, and colour in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """What rays show, in front of a background."""

    rgb: Float[Tensor, "rays 3"]
    """Colour without the background."""
    depth: Float[Tensor, " rays"]
    """Sum of weight times distance, in units of the scene; what the background adds is not in it."""
    transmittance: Float[Tensor, " rays"]
    """Share of the light that comes through to the background, in [0, 1]."""
    evaluated: Int64[Tensor, " rays"]
    """Samples of each ray that were evaluated."""

    @property
    def accumulation(self) -> Float[Tensor, " rays"]:
        """Share of the light that does not come through, in [0, 1]."""
        return 1 - self.transmittance

    def over(self, background: Float[Tensor, "*#rays 3"]) -> Float[Tensor, "rays 3"]:
        """Colour in front of a background.

        Args:
            background: Colour behind the rays, one for each or one for all.
        """
        return self.rgb + self.transmittance[:, None] * background


@dataclass(frozen=True, eq=False)
class Composited(Rendered):
    """What rays show of which all samples are known."""

    weights: Float[Tensor, " samples"]
    """Contribution of each sample to its pixel, see `weights_of`."""


def optical_depths(density: Float[Tensor, " samples"], length: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Density times length, up to `MAX_DEPTH`, in float64.

    Args:
        density: Density, per unit of length, >= 0.
        length: Length of the steps.
    """
    return (density * length).double().clamp(max=MAX_DEPTH)


def weights_of(depths: Float[Tensor, " samples"], ray: Int32[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Contribution of each sample to its pixel: T_i (1 - exp(-tau_i)), T_i = exp(-sum of tau_j in front).

    NeRF (arXiv 2003.08934, equation 3). One running sum over the whole frame, less what it was where the ray begins, in
    float64: in float32 the difference of two large sums is off by 0.002 at 10,000 rays.

    Args:
        depths: Optical depths, in float64.
        ray: Ray of each sample, ascending.

    Returns:
        The contributions; NaN, without a gradient, from a depth that is no number to the end of its ray.
    """
    counts = ray.long().bincount()
    begins = counts.cumsum(dim=0) - counts
    clean = depths if _sound(depths) else _finite(depths)
    behind = pad(clean.cumsum(dim=0), (1, 0))
    at_begin = behind[begins].index_select(0, ray)
    weights = torch.exp(at_begin - behind[:-1]) * -torch.expm1(-clean)
    if clean is depths:
        return weights
    broken = pad((~depths.isfinite()).cumsum(dim=0), (1, 0))
    return weights.masked_fill(broken[1:] > broken[begins].index_select(0, ray), torch.nan)


def _sound(values: Float[Tensor, "*shape"]) -> bool:
    """Whether all values are finite: as a rule they are, and what takes care of others takes as long as all the rest.
    Their sum knows."""
    return bool(values.detach().sum().isfinite())


def _finite(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The values, and 0 without a gradient for what is no finite number: a running sum hands it on to all rays."""
    return torch.where(values.isfinite(), values, 0.0)


def _sums_along_rays(
    weights: Float[Tensor, " samples"],
    rgb: Float[Tensor, "samples 3"],
    distance: Float[Tensor, " samples"],
    depths: Float[Tensor, " samples"],
    counts: Int64[Tensor, " rays"],
) -> Float[Tensor, "rays 5"]:
    """Weighted colours and distances and the optical depths, added up along each ray: differences of a running sum.

    A sum to which a term is no finite number is NaN, and has no gradient; those of other rays do not notice.
    """
    factors = torch.cat([rgb.double(), distance.double()[:, None]], dim=1)
    values = torch.cat([factors * weights[:, None], depths[:, None]], dim=1)
    if _sound(values):
        return _differences(values, counts)
    fine = torch.cat([factors.isfinite() & weights.isfinite()[:, None], depths.isfinite()[:, None]], dim=1)
    values = torch.cat([_finite(factors) * _finite(weights)[:, None], _finite(depths)[:, None]], dim=1)
    return _differences(values, counts).masked_fill(_differences((~fine).long(), counts) > 0, torch.nan)


def _differences(values: Shaped[Tensor, "samples 5"], counts: Int64[Tensor, " rays"]) -> Shaped[Tensor, "rays 5"]:
    """Sums along each ray."""
    ends = counts.cumsum(dim=0)
    running = pad(values.cumsum(dim=0), (0, 0, 1, 0))
    return running.index_select(0, ends) - running.index_select(0, ends - counts)


def composite(
    density: Float[Tensor, " samples"],
    rgb: Float[Tensor, "samples 3"],
    ray: Int32[Tensor, " samples"],
    distance: Float[Tensor, " samples"],
    length: Float[Tensor, " samples"],
    num_rays: int,
) -> Composited:
    """Renders rays from all of their samples.

    Args:
        density: Density of the samples, per unit of length, >= 0.
        rgb: Colour of the samples, in [0, 1].
        ray: Ray of each sample, ascending.
        distance: Distance of each sample.
        length: Length of the step of each sample.
        num_rays: Number of rays; those without samples show the background.

    Returns:
        What the rays show, in the precision of the colours.
    """
    depths = optical_depths(density, length)
    counts = ray.long().bincount(minlength=num_rays)
    weights = weights_of(depths, ray)
    sums = _sums_along_rays(weights, rgb, distance, depths, counts)
    return Composited(
        sums[:, :3].to(rgb.dtype),
        sums[:, 3].to(rgb.dtype),
        torch.exp(-sums[:, 4]).to(rgb.dtype),
        counts,
        weights,
    )


def last_colours(
    rgb: Float[Tensor, "samples 3"], ray: Int32[Tensor, " samples"], num_rays: int
) -> Float[Tensor, "rays 3"]:
    """Colour of the last sample of each ray, the background of unbounded scenes; 0 for rays without samples.

    Args:
        rgb: Colour of the samples.
        ray: Ray of each sample, ascending.
        num_rays: Number of rays.
    """
    counts = ray.long().bincount(minlength=num_rays)
    padded = pad(rgb, (0, 0, 1, 0))  # a black one in front, for rays without samples
    return padded.index_select(0, torch.where(counts > 0, counts.cumsum(dim=0), 0))


def with_last_behind(
    weights: Float[Tensor, " samples"], ray: Int32[Tensor, " samples"], transmittance: Float[Tensor, " rays"]
) -> Float[Tensor, " samples"]:
    """Contributions where the background of each ray has the colour of its last sample, see `last_colours`.

    Args:
        weights: Contributions in front of it.
        ray: Ray of each sample, ascending.
        transmittance: Share of the light of each ray that comes through to the background.
    """
    last = pad(ray.diff(), (0, 1), value=1)[: len(ray)] > 0
    return weights + transmittance.index_select(0, ray).to(weights).where(last, 0.0)


def automatic_passes(samples: int, rays: int, networks: int, device: torch.device | str = "cuda") -> list[int]:
    """Passes that leave each network enough points, at most `MOST_PASSES`, of equally many samples of a mean ray.

    Args:
        samples: Occupied samples of all rays.
        rays: Number of rays that have samples.
        networks: Number of networks.
        device: Where they are evaluated. A CPU does all in one pass: there further ones take longer than they save.

    Returns:
        Samples of each ray in the first, second, ... pass, for `render`; none: one pass.
    """
    if torch.device(device).type == "cpu":
        return []
    count = min(MOST_PASSES, samples // max(1, POINTS_PER_NETWORK * networks))
    return [ceil(samples / (rays * count))] * (count - 1) if count > 1 and rays else []


@torch.no_grad()
def render(
    evaluate: Evaluate,
    ray: Int32[Tensor, " samples"],
    distance: Float[Tensor, " samples"],
    length: Float[Tensor, " samples"],
    num_rays: int,
    threshold: float = 0.0,
    passes: Optional[Sequence[int]] = None,
) -> Rendered:
    """Renders rays front to back in passes, and leaves those out that hardly any light comes through.

    The error of a colour, with any background in [0, 1], is at most the threshold. KiloNeRF (arXiv 2103.13744, section
    3.3) stops at 0.01.

    Args:
        evaluate: Density and colour of samples.
        ray: Ray of each sample, ascending, front to back within a ray.
        distance: Distance of each sample.
        length: Length of the step of each sample.
        num_rays: Number of rays.
        threshold: Transmittance at which a ray is left out, in [0, 1). At 0 all is done in one pass.
        passes: Samples of each ray in the first, second, ... pass; the rest is one more. None: one pass.

    Raises:
        ValueError: If the threshold is out of range or a pass has no sample.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"model.transmittance_threshold must be in [0, 1), got {threshold}")
    sizes = list(passes or ())
    if any(size < 1 for size in sizes):
        raise ValueError(f"model.samples_per_pass must be at least 1, got {sizes}")
    if threshold == 0:
        sizes = []
    counts = ray.long().bincount(minlength=num_rays)
    left = torch.arange(len(ray), device=ray.device)
    place = left - (counts.cumsum(dim=0) - counts)[ray.long()]
    sums = torch.zeros(num_rays, 5, dtype=torch.float64, device=ray.device)
    evaluated = torch.zeros_like(counts)
    begin = 0
    for size in (*sizes, None):
        if size is None:
            now, left = left, left[:0]
        else:
            due = place[left] < begin + size
            now, left, begin = left[due], left[~due], begin + size
        if len(now):
            own = ray[now]
            density, rgb = evaluate(now)
            depths = optical_depths(density, length[now])
            weights = weights_of(depths, own) * torch.exp(-sums[:, 4]).index_select(0, own)
            counts = own.long().bincount(minlength=num_rays)
            sums = sums + _sums_along_rays(weights, rgb, distance[now], depths, counts)
            evaluated = evaluated + counts
        if not len(left):
            break
        alive = torch.exp(-sums[:, 4]) > threshold
        left = left[alive[ray[left].long()]]
    dtype = distance.dtype
    return Rendered(sums[:, :3].to(dtype), sums[:, 3].to(dtype), torch.exp(-sums[:, 4]).to(dtype), evaluated)
