"""The parameters of a scene made of Gaussians, named as in Nerfstudio's splatfacto."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from math import isqrt
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

MAX_SH_DEGREE = 3


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Parameters as they are trained: scales are logarithms and opacities logits, quaternions are of any length."""

    means: Float[Tensor, "gaussians 3"]
    """Centres, in world units."""
    scales: Float[Tensor, "gaussians 3"]
    """Logarithms of the standard deviations along the own axes."""
    quats: Float[Tensor, "gaussians 4"]
    """Rotations of the own axes, w x y z."""
    features_dc: Float[Tensor, "gaussians 3"]
    """Coefficients of the constant spherical harmonic."""
    features_rest: Float[Tensor, "gaussians coefficients 3"]
    """Those of the others: 0, 3, 8 or 15 for degree 0 to 3."""
    opacities: Float[Tensor, "gaussians 1"]
    """Logits of the opacities."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Gaussians":
        """Of tensors by name, such as the `gauss_params` of a splatfacto model."""
        return cls(**{f.name: tensors[f.name] for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Highest degree of the spherical harmonics."""
        return isqrt(self.features_rest.shape[1] + 1) - 1

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of each parameter."""
        return ((f.name, getattr(self, f.name)) for f in fields(self))

    def detach(self) -> "Gaussians":
        """The same tensors outside of any graph."""
        return replace(self, **{name: tensor.detach() for name, tensor in self.items()})

    def clone(self) -> "Gaussians":
        """Copies, in the same graph, as `Tensor.clone`."""
        return replace(self, **{name: tensor.clone() for name, tensor in self.items()})

    def select(self, keep: Int64[Tensor, " kept"]) -> "Gaussians":
        """Some of the Gaussians, in the order of the indices.

        Args:
            keep: Indices of those that stay.
        """
        return replace(self, **{name: tensor.index_select(0, keep.to(tensor.device)) for name, tensor in self.items()})

    def with_sh_degree(self, degree: int) -> "Gaussians":
        """With the spherical harmonics up to a degree only.

        Args:
            degree: At most the present one.

        Raises:
            ValueError: If it is higher.
        """
        if not 0 <= degree <= self.sh_degree:
            raise ValueError(f"degree of the spherical harmonics must be in [0, {self.sh_degree}], got {degree}")
        return replace(self, features_rest=self.features_rest[:, : (degree + 1) ** 2 - 1])

    def to(self, *args: Any) -> "Gaussians":
        """On another device, or with another precision, as `Tensor.to`."""
        return replace(self, **{name: tensor.to(*args) for name, tensor in self.items()})
