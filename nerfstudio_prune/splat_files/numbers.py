"""Between the parameters as they are trained and the ranges that packed formats divide into steps. Numpy only."""

import numpy as np
import torch
from jaxtyping import Float, UInt8

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.stored import StoredGaussians

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: colour = 0.5 + SH_C0 * coefficient."""
BYTE = 255
"""Largest code of eight bits."""
SURE = 0.25 / BYTE
"""How near to 0 and 1 an opacity of eight bits is taken to be where its code is the first or the last: within what was
rounded there, and a finite logit."""
INFINITE_LOGIT = 16.0
"""In place of an infinite logit, which programs write for opacities of 0 and 1; within 2e-7 of them."""
FLAT = -20.0
"""In place of the logarithm of a standard deviation of zero."""


def logit_of_bytes(codes: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Logits of opacities in eight bits, all finite.

    Args:
        codes: 255 times the opacities.
    """
    opacities = np.clip(codes.astype(np.float32) / BYTE, SURE, 1 - SURE)
    return np.log(opacities / (1 - opacities))


def bytes_of_logit(logits: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Opacities in eight bits, to the nearest.

    Args:
        logits: Finite.
    """
    return np.rint(sigmoid(logits) * BYTE).astype(np.uint8)


def sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Opacities in [0, 1], without overflow.

    Args:
        logits: Finite.
    """
    return 0.5 * (1 + np.tanh(0.5 * logits))


def codes_of(
    values: Float[np.ndarray, "*shape"], bits: int, low: float | Float[np.ndarray, "..."] = 0.0
) -> Float[np.ndarray, "*shape"]:
    """Evenly spaced codes 0 to 2^bits - 1, to the nearest; what lies outside goes to the first or the last.

    Args:
        values: The first code stands for `low`, the last for `low` + 1.
        bits: Of a code.
        low: Smallest value that has a code.
    """
    last = 2**bits - 1
    return np.clip(np.rint((values - low) * last), 0, last)


def stored_gaussians(
    means: Float[np.ndarray, "gaussians 3"],
    scales: Float[np.ndarray, "gaussians 3"],
    quats: Float[np.ndarray, "gaussians 4"],
    features_dc: Float[np.ndarray, "gaussians 3"],
    features_rest: Float[np.ndarray, "gaussians coefficients 3"],
    opacities: Float[np.ndarray, " gaussians"],
) -> StoredGaussians:
    """Gaussians of what a file held, once all of it is finite in single precision.

    Infinite opacities and flat Gaussians are what other programs write at the ends of their ranges: they get the values
    that `INFINITE_LOGIT` and `FLAT` say.

    Args:
        means: As in `Gaussians`, and so are the others.
        scales: Logarithms; -inf for flat ones.
        quats: w x y z.
        features_dc: Constant harmonic.
        features_rest: The others.
        opacities: Logits; ±inf for 0 and 1.

    Raises:
        FileFormatError: Names what is not finite.
    """
    arrays = {
        "means": means,
        "scales": np.where(np.isneginf(scales), np.float32(FLAT), scales),
        "quats": quats,
        "features_dc": features_dc,
        "features_rest": features_rest,
        "opacities": np.where(np.isinf(opacities), np.copysign(INFINITE_LOGIT, opacities), opacities)[:, None],
    }
    tensors = {}
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            single = np.ascontiguousarray(array, dtype=np.float32)
        wrong = single.size - int(np.isfinite(single).sum())
        if wrong:
            raise refuse(name, "finite numbers", f"{wrong:,} of {single.size:,} that are not")
        tensors[name] = torch.from_numpy(single)
    return StoredGaussians(Gaussians.of(tensors))


def arrays_of(gaussians: Gaussians) -> dict[str, Float[np.ndarray, "gaussians *dims"]]:
    """Parameters in single precision, by name; opacities without their second dimension.

    Args:
        gaussians: On the CPU.
    """
    arrays = {name: tensor.detach().float().numpy() for name, tensor in gaussians.items()}
    arrays["opacities"] = arrays["opacities"][:, 0]
    return arrays
