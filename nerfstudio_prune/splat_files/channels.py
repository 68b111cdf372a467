"""Gaussians as rows of numbers whose errors add up: what is rounded, and how it becomes Gaussians again.

Columns: three sizes (logarithms, those far below a smallest one alike), three parts of the smallest rotation, the
opacity's logit, then the colours: for each of the transformed harmonics three transformed colours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.canonical import quaternions_of, smallest_rotations
from nerfstudio_prune.splat_files.evidence import Evidence

SHAPE_CHANNELS = 7
SCALES, ROTATIONS, OPACITIES, COLORS = slice(0, 3), slice(3, 6), slice(6, 7), slice(SHAPE_CHANNELS, None)
MAX_LOG, MAX_LOGIT, MAX_COLOR = 40.0, 40.0, 1e4
"""Magnitudes of logarithms of sizes, of logits, and of coefficients of colours."""
THINNEST = 0.1
"""Sizes are at least this share of the smallest one that is told apart."""
UNSEEN = 0.1
"""Share of the weight that directions count with that nobody looked from."""


@dataclass(frozen=True, eq=False)
class Frame:
    """What the columns are taken from."""

    smallest_scale: float
    """In world units."""
    shape_means: Float[ndarray, "7"]
    """Of the columns before the colours."""
    color_means: Float[ndarray, "coefficients 3"]
    """Of the coefficients of the harmonics."""
    harmonics: Float[ndarray, "coefficients coefficients"]
    """From transformed harmonics to coefficients: rows are the former."""
    colors: Float[ndarray, "3 3"]
    """From transformed colours to red, green and blue: rows are the former."""


def frame_of(gaussians: Gaussians, evidence: Evidence) -> Frame:
    """The frame in which a scene takes the fewest bytes: harmonics and colours are those in which it varies the most
    and the least (Karhunen-Loève), as far as one sees it.

    Args:
        gaussians: On the CPU, finite.
        evidence: What errors do.
    """
    colors = _coefficients(gaussians)
    weights = _weights(evidence.colors)
    means = _half(np.einsum("n,nkc->kc", weights, colors))
    count = colors.shape[1]
    directions = np.eye(count) if evidence.directions is None else evidence.directions
    mixed = (1 - UNSEEN) * directions + UNSEEN * np.eye(count) * np.trace(directions) / count
    values, vectors = np.linalg.eigh(mixed)
    values = np.maximum(values, 1e-3 * values[-1])
    seen = (vectors * np.sqrt(values)) @ vectors.T
    metric = np.einsum("kl,nlc->nkc", seen, colors - means)
    of_colors = _principal(np.einsum("n,nkc,nkd->cd", weights, metric, metric))
    of_harmonics = _principal(np.einsum("n,nkc,nlc->kl", weights, metric, metric))
    # Errors of the transformed ones count as much as those of the constant harmonic.
    harmonics = of_harmonics @ np.linalg.inv(seen)
    sizes = _sizes(gaussians, evidence.smallest_scale)
    logits = gaussians.opacities.double().numpy().clip(-MAX_LOGIT, MAX_LOGIT)
    shape_means = np.concatenate([sizes.mean(axis=0), np.zeros(3), logits.mean(axis=0)]).astype(np.float32)
    return Frame(evidence.smallest_scale, shape_means.astype(float), means, _half(harmonics), _half(of_colors))


def to_channels(gaussians: Gaussians, frame: Frame) -> Float[ndarray, "gaussians channels"]:
    """The columns, less their means.

    Args:
        gaussians: On the CPU, finite.
        frame: See `frame_of`.
    """
    parts, axes = smallest_rotations(gaussians.quats.double().numpy())
    sizes = np.take_along_axis(_sizes(gaussians, frame.smallest_scale), axes, axis=1)
    logits = gaussians.opacities.double().numpy().clip(-MAX_LOGIT, MAX_LOGIT)
    shapes = np.concatenate([sizes, parts, logits], axis=1) - frame.shape_means
    colors = _coefficients(gaussians) - frame.color_means
    transformed = np.einsum("lk,nlc,cd->nkd", np.linalg.inv(frame.harmonics), colors, np.linalg.inv(frame.colors))
    return np.concatenate([shapes, transformed.reshape(len(shapes), -1)], axis=1)


def from_channels(
    means: Float[ndarray, "gaussians 3"], channels: Float[ndarray, "gaussians channels"], frame: Frame
) -> Gaussians:
    """Gaussians of columns; undoes `to_channels` up to the choice of the axes. Values are finite whatever the columns
    hold.

    Args:
        means: Centres.
        channels: The columns, less their means.
        frame: See `frame_of`.
    """
    shapes = channels[:, :SHAPE_CHANNELS] + frame.shape_means
    doubled = np.exp(2 * shapes[:, SCALES].clip(-MAX_LOG, MAX_LOG))
    smallest = frame.smallest_scale
    scales = 0.5 * np.log(np.maximum(doubled - smallest**2, (THINNEST * smallest) ** 2))
    colors = channels[:, COLORS].reshape(len(channels), -1, 3)
    found = np.einsum("kl,nkc,cd->nld", frame.harmonics, colors, frame.colors) + frame.color_means
    found = found.clip(-MAX_COLOR, MAX_COLOR)
    tensors = {
        "means": means,
        "scales": scales,
        "quats": quaternions_of(shapes[:, ROTATIONS]),
        "features_dc": found[:, 0],
        "features_rest": found[:, 1:],
        "opacities": shapes[:, OPACITIES].clip(-MAX_LOGIT, MAX_LOGIT),
    }
    return Gaussians.of({name: torch.from_numpy(np.ascontiguousarray(t)).float() for name, t in tensors.items()})


def seen_of_scales(gaussians: Gaussians, evidence: Evidence) -> Float[ndarray, " gaussians"]:
    """What an error in a column of sizes does, the mean over the three: where all sizes are alike, hardly anything.

    Args:
        gaussians: On the CPU, finite.
        evidence: What errors of logarithms do.
    """
    squared = np.exp(2 * gaussians.scales.double().numpy().clip(-MAX_LOG, MAX_LOG))
    slope = (squared + evidence.smallest_scale**2) / np.maximum(squared, 1e-300)
    return (evidence.scales * np.minimum(np.square(slope), 100)).mean(axis=1)


def _sizes(gaussians: Gaussians, smallest: float) -> Float[ndarray, "gaussians 3"]:
    """Logarithms, those far below the smallest one alike."""
    logs = gaussians.scales.double().numpy().clip(-MAX_LOG, MAX_LOG)
    return 0.5 * np.log(np.exp(2 * logs) + smallest**2)


def _coefficients(gaussians: Gaussians) -> Float[ndarray, "gaussians coefficients 3"]:
    together = torch.cat([gaussians.features_dc[:, None], gaussians.features_rest], dim=1)
    return together.double().clamp(-MAX_COLOR, MAX_COLOR).numpy()


def _weights(colors: Float[ndarray, " gaussians"]) -> Float[ndarray, " gaussians"]:
    """What Gaussians count as, with the sum 1."""
    raised = colors + max(float(colors.mean()), 1e-30) * 1e-3
    return raised / raised.sum()


def _principal(covariance: Float[ndarray, "n n"]) -> Float[ndarray, "n n"]:
    """Directions in rows, that of the largest variance first; signs are fixed, so that the same scene gives the same
    file."""
    vectors = np.linalg.eigh(covariance)[1].T[::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    return vectors * np.sign(largest)


def _half(values: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """As they are read back: half precision."""
    return values.astype("<f2").astype(np.float64)
