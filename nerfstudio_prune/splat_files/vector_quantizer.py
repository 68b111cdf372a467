"""A codebook of vectors by weighted k-means (Lloyd 1982), as LightGaussian's vector quantization of harmonics
(arXiv 2311.17245, section 3.4): what counts more, by its global significance, pulls more."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

ITERATIONS = 12
SAMPLES = 2**16
"""Vectors that an iteration looks at, drawn anew each time where there are more."""
DISTANCES_AT_ONCE = 2**22


def build_codebook(
    vectors: Float[Tensor, "vectors values"], weights: Float[Tensor, " vectors"], size: int, seed: int = 0
) -> Float[Tensor, "size values"]:
    """A codebook in half precision, as it is stored.

    Args:
        vectors: At least as many as codes.
        weights: What each counts, at least 0.
        size: Codes.
        seed: Of the first codes and of the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    # Nobody counts nothing, so that there are as many to draw from as codes.
    weights = weights.double() + max(float(weights.double().mean()), 1e-30) * 1e-3
    first = torch.multinomial(weights, size, generator=generator) if len(weights) < 2**24 else torch.arange(size)
    codes = _halved(vectors[first].double())
    for _ in range(ITERATIONS):
        own, counts = vectors.double(), weights
        if len(vectors) > SAMPLES:
            some = torch.randint(len(vectors), (SAMPLES,), generator=generator)
            own, counts = own[some], weights[some]
        nearest, distances = _nearest(own, codes)
        sums = torch.zeros_like(codes).index_add_(0, nearest, own * counts[:, None])
        totals = torch.zeros(size, dtype=torch.float64).index_add_(0, nearest, counts)
        unused = (totals == 0).nonzero()[:, 0]
        codes = sums / totals.clamp(min=1e-300)[:, None]
        # A code that serves nobody takes the vector that is served worst.
        worst = (distances * counts).argsort(descending=True)[: len(unused)]
        codes[unused[: len(worst)]] = own[worst]
        codes = _halved(codes)
    return codes.float()


def assign_codes(
    vectors: Float[Tensor, "vectors values"], codes: Float[Tensor, "size values"]
) -> Int64[Tensor, " vectors"]:
    """The nearest code of each vector.

    Args:
        vectors: Any number.
        codes: The codebook.
    """
    return _nearest(vectors.double(), codes.double())[0]


def _nearest(vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the nearest codes, and squared distances to them."""
    found = [torch.cdist(part, codes).min(dim=1) for part in vectors.split(max(1, DISTANCES_AT_ONCE // len(codes)))]
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found]).square()


def _halved(codes: Tensor) -> Tensor:
    """As the file holds them."""
    return codes.clamp(-65504, 65504).half().double()
