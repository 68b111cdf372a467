"""One number per Gaussian; higher means keep. `SCORES` is the registry: name -> dataclass whose fields are its options.

A score sees one Gaussian at a time. Those behind each other cover up for one another, which is why selecting takes
scores anew in rounds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Optional, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import Contributions, Sum

RemovalNorm = Literal["l1", "l2"]
REMOVAL_SUMS: Mapping[str, Sum] = {"l1": "removal_l1", "l2": "removal_l2"}
"""Norm of the score `removal` -> what it sums up, the better one first."""
VolumeReference = Literal["largest-90", "released"]


class Score(ABC):
    """Rule that gives each Gaussian a number. A subclass is a dataclass whose fields are its options.

    Register it with `@register_score("name")`; a field `x` is then filled from the option `x` of the same name.
    """

    name: ClassVar[str] = ""
    """As in the registry."""

    @property
    @abstractmethod
    def needs(self) -> Set[Sum]:
        """Sums over views that it is computed from; empty for one that looks at the Gaussians alone."""

    def on(self, cheap: Set[Sum]) -> "Score":
        """The same score with what its options leave open decided by what a rasteriser gives cheaply.

        Args:
            cheap: See `Rasterizer.cheap`.
        """
        return self

    @abstractmethod
    def of(self, gaussians: Gaussians, seen: Contributions) -> Float[Tensor, " gaussians"]:
        """Scores in float64, on the Gaussians' device.

        Args:
            gaussians: The scene.
            seen: What views see of it: the sums that the score needs, perhaps among others.
        """

    @torch.no_grad()
    def __call__(
        self, gaussians: Gaussians, contributions: Optional[Contributions] = None
    ) -> Float[Tensor, " gaussians"]:
        """Scores a scene.

        Args:
            gaussians: The scene, N Gaussians.
            contributions: What views see of it. None where the score needs none.

        Returns:
            Scores in float64, on the Gaussians' device; higher means keep.

        Raises:
            ValueError: If contributions are missing, lack a sum that the score needs, or are those of another number
                of Gaussians.
        """
        count, device = len(gaussians), gaussians.means.device
        if contributions is None:
            if self.needs:
                raise ValueError(f"score {self.name} is taken from what views see, and nothing was collected")
            contributions = Contributions(count, {})
        if contributions.count != count:
            raise ValueError(
                f"contributions are those of {contributions.count} Gaussians, and the scene has {count}; collect "
                "them anew after Gaussians came or went"
            )
        return self.of(gaussians.detach(), contributions).to(device, torch.float64)


SCORES: dict[str, type[Score]] = {}
"""Name -> score class, as in the option `score`."""

S = TypeVar("S", bound=type[Score])


def register_score(name: str) -> Callable[[S], S]:
    """Class decorator that makes a score available under a name.

    Raises:
        ValueError: If the name is taken.
    """

    def register(cls: S) -> S:
        if name in SCORES:
            raise ValueError(f"score name {name!r} is taken")
        SCORES[name] = cls
        cls.name = name
        return cls

    return register


def score_by_name(name: str, options: Optional[Mapping[str, Any]] = None) -> Score:
    """Makes a score of `SCORES`.

    Args:
        name: Name in the registry.
        options: Options of all scores by name; each takes those that it has. None: the defaults.

    Raises:
        ValueError: If there is none of that name; lists the names. Or if one of its options is out of range.
    """
    if name not in SCORES:
        raise ValueError(f"score must be one of {', '.join(sorted(SCORES))}, got {name!r}")
    score: Any = SCORES[name]
    given = options or {}
    return score(**{f.name: given[f.name] for f in fields(score) if f.name in given})


def opacities(gaussians: Gaussians) -> Float[Tensor, " gaussians"]:
    """Opacities in [0, 1], in float64."""
    return gaussians.opacities[:, 0].double().sigmoid()


def log_volumes(gaussians: Gaussians) -> Float[Tensor, " gaussians"]:
    """Logarithms of the products of the three standard deviations, in float64; the product itself might underflow."""
    return gaussians.scales.double().sum(dim=1)


@register_score("removal")
@dataclass
class Removal(Score):
    """What the pictures change by when that Gaussian leaves, summed over pixels and channels.

    T·alpha·(c - B) with B the colour of all that lies behind, background included, is exactly what a pixel loses, for a
    picture is affine in every opacity.
    """

    removal_norm: Optional[str] = None
    """Absolute values (`l1`) or squares (`l2`) are summed; gsplat estimates the latter by random probes. None: l1,
    unless `on` finds it dear and the other one cheap."""

    def __post_init__(self) -> None:
        if self.removal_norm is not None:
            _check_choice("removal_norm", self.removal_norm, RemovalNorm)

    @property
    def needs(self) -> Set[Sum]:
        """Those of the norm."""
        return {REMOVAL_SUMS[self.removal_norm or "l1"]}

    def on(self, cheap: Set[Sum]) -> "Removal":
        """With a norm that is cheap, l1 if both are or none is."""
        if self.removal_norm is not None:
            return self
        return replace(self, removal_norm=next((norm for norm, name in REMOVAL_SUMS.items() if name in cheap), "l1"))

    def of(self, gaussians: Gaussians, seen: Contributions) -> Float[Tensor, " gaussians"]:
        """The sums."""
        return seen[REMOVAL_SUMS[self.removal_norm or "l1"]]


@register_score("contribution")
@dataclass
class Contribution(Score):
    """Sum of T·alpha over all pixels: the importance of Mini-Splatting (arXiv 2403.14166)."""

    @property
    def needs(self) -> Set[Sum]:
        """Its weights."""
        return {"weights"}

    def of(self, gaussians: Gaussians, seen: Contributions) -> Float[Tensor, " gaussians"]:
        """The sums."""
        return seen.weights


@register_score("max_weight")
@dataclass
class MaxWeight(Score):
    """Largest T·alpha of any pixel (RadSplat, arXiv 2403.13806)."""

    @property
    def needs(self) -> Set[Sum]:
        """Its largest weight."""
        return {"max_weights"}

    def of(self, gaussians: Gaussians, seen: Contributions) -> Float[Tensor, " gaussians"]:
        """The largest ones."""
        return seen.max_weights


@register_score("significance")
@dataclass
class Significance(Score):
    """Global significance of LightGaussian (arXiv 2311.17245, Eq. 4 and 5): hits · opacity · (V / V_ref)^β.

    `largest-90` is the paper: V_ref is the volume at the 90th percentile, and the quotient is clipped to [0, 1].
    `released` is its public code: V_ref is the entry 0.9·N of volumes sorted from the largest down, so the 10th
    percentile, and nothing is clipped.
    """

    volume_power: float = 0.1
    """β, >= 0; 0 takes the volume out."""
    volume_reference: str = "largest-90"
    """What volumes are divided by."""

    def __post_init__(self) -> None:
        _check_choice("volume_reference", self.volume_reference, VolumeReference)
        if not 0 <= self.volume_power < float("inf"):
            raise ValueError(f"volume_power must be finite and at least 0, got {self.volume_power}")

    @property
    def needs(self) -> Set[Sum]:
        """Its hits."""
        return {"hits"}

    def of(self, gaussians: Gaussians, seen: Contributions) -> Float[Tensor, " gaussians"]:
        """The product."""
        volumes = log_volumes(gaussians)
        paper = self.volume_reference == "largest-90"
        reference = volumes.sort(descending=not paper).values[len(volumes) * 9 // 10]
        relative = volumes - reference
        if paper:
            relative = relative.clamp(max=0)
        return seen.hits.double() * opacities(gaussians) * (self.volume_power * relative).exp()


@register_score("hits_opacity")
@dataclass
class HitsOpacity(Score):
    """Pixels that it is composited into, times its opacity: Eq. 4 of LightGaussian without the volume."""

    @property
    def needs(self) -> Set[Sum]:
        """Its hits."""
        return {"hits"}

    def of(self, gaussians: Gaussians, seen: Contributions) -> Float[Tensor, " gaussians"]:
        """The product."""
        return seen.hits.double() * opacities(gaussians)


@register_score("hits")
@dataclass
class Hits(Score):
    """Pixels that it is composited into; the paper's ablation."""

    @property
    def needs(self) -> Set[Sum]:
        """Its hits."""
        return {"hits"}

    def of(self, gaussians: Gaussians, seen: Contributions) -> Float[Tensor, " gaussians"]:
        """The counts."""
        return seen.hits


@register_score("opacity")
@dataclass
class Opacity(Score):
    """Opacity alone; the paper's counter-example (Figure 3). Needs no views."""

    @property
    def needs(self) -> Set[Sum]:
        """None."""
        return set()

    def of(self, gaussians: Gaussians, seen: Contributions) -> Float[Tensor, " gaussians"]:
        """Opacities in [0, 1]."""
        return opacities(gaussians)


def _check_choice(option: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{option} must be one of {', '.join(get_args(choices))}, got {value!r}")
