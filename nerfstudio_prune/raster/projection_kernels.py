"""Projection of Gaussians and its derivative, compiled by Numba; one after the other, in float64 whatever is stored."""

import math

import numpy as np

from nerfstudio_prune.raster.compiled import compiled, inlined

NEAR_PLANE = 0.01
"""Gaussians whose centre is nearer to the camera are not drawn; world units along its z."""
FAR_PLANE = 1e10
"""The same for those further away."""
BLUR = 0.3
"""Added to the variances in the picture, pixels squared: no Gaussian is much smaller than a pixel."""


@inlined
def _normalized(quat):
    w, x, y, z = np.float64(quat[0]), np.float64(quat[1]), np.float64(quat[2]), np.float64(quat[3])
    length = max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    return w / length, x / length, y / length, z / length, length


@inlined
def _axes(w, x, y, z):
    """Rotation matrix of a unit quaternion, row by row."""
    return (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        (2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        (2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
    )


@inlined
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inlined
def _times(row, matrix):
    """A row times a matrix."""
    return (
        row[0] * matrix[0][0] + row[1] * matrix[1][0] + row[2] * matrix[2][0],
        row[0] * matrix[0][1] + row[1] * matrix[1][1] + row[2] * matrix[2][1],
        row[0] * matrix[0][2] + row[1] * matrix[1][2] + row[2] * matrix[2][2],
    )


@inlined
def _combined(a, v, b, w):
    """a v + b w of two vectors."""
    return a * v[0] + b * w[0], a * v[1] + b * w[1], a * v[2] + b * w[2]


@inlined
def _in_camera(mean, viewmat):
    m = (np.float64(mean[0]), np.float64(mean[1]), np.float64(mean[2]))
    return (
        _dot(viewmat[0], m) + viewmat[0, 3],
        _dot(viewmat[1], m) + viewmat[1, 3],
        _dot(viewmat[2], m) + viewmat[2, 3],
    )


@inlined
def _limits(focal, centre, size):
    """Tangents are clamped to these: far outside of the picture the affine approximation makes huge Gaussians of small
    ones."""
    margin = 0.3 * 0.5 * size / focal
    return -centre / focal - margin, (size - centre) / focal + margin


@inlined
def _spans(z, tangent_x, tangent_y, viewmat, fx, fy):
    """The camera's derivative times its rotation: what a step in the world is in pixels, x and y."""
    r0 = (viewmat[0, 0], viewmat[0, 1], viewmat[0, 2])
    r1 = (viewmat[1, 0], viewmat[1, 1], viewmat[1, 2])
    r2 = (viewmat[2, 0], viewmat[2, 1], viewmat[2, 2])
    return _combined(fx / z, r0, -fx * tangent_x / z, r2), _combined(fy / z, r1, -fy * tangent_y / z, r2)


@compiled
def project(
    means, scales, quats, logits, viewmat, K, width, height, antialiased, means2d, conics, opacities, depths, radii
):
    """Projects Gaussians.

    Args:
        means, scales, quats, logits: As in `Gaussians`.
        viewmat, K: Of the camera, in float64.
        width, height: Of the picture, in pixels.
        antialiased: Whether opacities make up for the blur.
        means2d, conics, opacities, depths, radii: Get what `Projection` tells; 0 for those that are not seen.
    """
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    low_x, high_x = _limits(fx, cx, width)
    low_y, high_y = _limits(fy, cy, height)
    for i in range(len(means)):
        x, y, z = _in_camera(means[i], viewmat)
        depths[i] = z
        radii[i] = 0
        means2d[i, 0] = means2d[i, 1] = 0.0
        conics[i, 0] = conics[i, 1] = conics[i, 2] = 0.0
        opacities[i] = 0.0
        if not NEAR_PLANE < z < FAR_PLANE:
            continue
        tangent_x, tangent_y = x / z, y / z
        at_x, at_y = fx * tangent_x + cx, fy * tangent_y + cy
        span_x, span_y = _spans(
            z, min(max(tangent_x, low_x), high_x), min(max(tangent_y, low_y), high_y), viewmat, fx, fy
        )
        qw, qx, qy, qz, _ = _normalized(quats[i])
        axes = _axes(qw, qx, qy, qz)
        s = (math.exp(scales[i, 0]), math.exp(scales[i, 1]), math.exp(scales[i, 2]))
        p, q = _times(span_x, axes), _times(span_y, axes)
        p = (p[0] * s[0], p[1] * s[1], p[2] * s[2])
        q = (q[0] * s[0], q[1] * s[1], q[2] * s[2])
        xx, xy, yy = _dot(p, p), _dot(p, q), _dot(q, q)
        sharp = _minors(p, q)
        blurred_xx, blurred_yy = xx + BLUR, yy + BLUR
        # The determinant of xx yy - xy xy with blur, without its cancellation.
        determinant = sharp + BLUR * (xx + yy + BLUR)
        half_trace = 0.5 * (blurred_xx + blurred_yy)
        radius = math.ceil(3.0 * math.sqrt(half_trace + math.sqrt(max(half_trace * half_trace - determinant, 0.01))))
        inside = at_x + radius > 0 and at_x - radius < width and at_y + radius > 0 and at_y - radius < height
        if not inside:
            continue
        radii[i] = int(min(radius, 1e9))
        means2d[i, 0], means2d[i, 1] = at_x, at_y
        conics[i, 0] = blurred_yy / determinant
        conics[i, 1] = -xy / determinant
        conics[i, 2] = blurred_xx / determinant
        opacity = 1.0 / (1.0 + math.exp(-np.float64(logits[i, 0])))
        opacities[i] = opacity * math.sqrt(sharp / determinant) if antialiased else opacity


@inlined
def _minors(p, q):
    """Determinant of [p p, p q; q p, q q] as a sum of squares."""
    a, b, c = p[0] * q[1] - p[1] * q[0], p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2]
    return a * a + b * b + c * c


@inlined
def _all_zero(d_mean2d, d_conic, d_opacity, d_depth):
    """As for a Gaussian behind others."""
    return (
        d_opacity == 0.0
        and d_depth == 0.0
        and d_mean2d[0] == 0.0
        and d_mean2d[1] == 0.0
        and d_conic[0] == 0.0
        and d_conic[1] == 0.0
        and d_conic[2] == 0.0
    )


@compiled
def project_backward(
    means, scales, quats, logits, viewmat, K, width, height, antialiased, radii,
    d_means2d, d_conics, d_opacities, d_depths, d_means, d_scales, d_quats, d_logits, d_viewmat,
):  # fmt: skip
    """Gradients of what `project` tells with respect to the parameters, and to the camera.

    Args:
        means, scales, quats, logits, viewmat, K, width, height, antialiased: As above.
        radii: As `project` gave them.
        d_means2d, d_conics, d_opacities, d_depths: Gradients of the results.
        d_means, d_scales, d_quats, d_logits: Zeros; get those of the parameters.
        d_viewmat: The sum of those of the camera's matrix is added to this; None: not asked for.
    """
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    low_x, high_x = _limits(fx, cx, width)
    low_y, high_y = _limits(fy, cy, height)
    r0 = (viewmat[0, 0], viewmat[0, 1], viewmat[0, 2])
    r1 = (viewmat[1, 0], viewmat[1, 1], viewmat[1, 2])
    r2 = (viewmat[2, 0], viewmat[2, 1], viewmat[2, 2])
    for i in range(len(means)):
        if radii[i] == 0 or _all_zero(d_means2d[i], d_conics[i], d_opacities[i], d_depths[i]):
            continue
        x, y, z = _in_camera(means[i], viewmat)
        tangent_x, tangent_y = min(max(x / z, low_x), high_x), min(max(y / z, low_y), high_y)
        span_x, span_y = _spans(z, tangent_x, tangent_y, viewmat, fx, fy)
        qw, qx, qy, qz, length = _normalized(quats[i])
        axes = _axes(qw, qx, qy, qz)
        s = (math.exp(scales[i, 0]), math.exp(scales[i, 1]), math.exp(scales[i, 2]))
        turned_x, turned_y = _times(span_x, axes), _times(span_y, axes)
        p = (turned_x[0] * s[0], turned_x[1] * s[1], turned_x[2] * s[2])
        q = (turned_y[0] * s[0], turned_y[1] * s[1], turned_y[2] * s[2])
        xx, xy, yy = _dot(p, p), _dot(p, q), _dot(q, q)
        sharp = _minors(p, q)
        determinant = sharp + BLUR * (xx + yy + BLUR)

        # Of the inverse C of a matrix: -C G C.
        a, b, c = (yy + BLUR) / determinant, -xy / determinant, (xx + BLUR) / determinant
        g_a, g_b, g_c = np.float64(d_conics[i, 0]), 0.5 * np.float64(d_conics[i, 1]), np.float64(d_conics[i, 2])
        left_a, left_b = a * g_a + b * g_b, a * g_b + b * g_c
        right_a, right_b = b * g_a + c * g_b, b * g_b + c * g_c
        d_xx = -(left_a * a + left_b * b)
        d_xy = -2.0 * (left_a * b + left_b * c)
        d_yy = -(right_a * b + right_b * c)

        opacity = 1.0 / (1.0 + math.exp(-np.float64(logits[i, 0])))
        d_opacity = np.float64(d_opacities[i])
        if antialiased:
            share = math.sqrt(sharp / determinant)
            if share > 0.0:
                d_ratio = 0.5 * d_opacity * opacity / (share * determinant)
                ratio = sharp / determinant
                d_xx += d_ratio * (yy - ratio * (yy + BLUR))
                d_yy += d_ratio * (xx - ratio * (xx + BLUR))
                d_xy -= 2.0 * d_ratio * (xy - ratio * xy)
            d_opacity *= share
        d_logits[i, 0] = d_opacity * opacity * (1.0 - opacity)

        d_p, d_q = _combined(2.0 * d_xx, p, d_xy, q), _combined(2.0 * d_yy, q, d_xy, p)
        for j in range(3):
            d_scales[i, j] = d_p[j] * p[j] + d_q[j] * q[j]
        d_p = (d_p[0] * s[0], d_p[1] * s[1], d_p[2] * s[2])
        d_q = (d_q[0] * s[0], d_q[1] * s[1], d_q[2] * s[2])
        g0 = _combined(span_x[0], d_p, span_y[0], d_q)
        g1 = _combined(span_x[1], d_p, span_y[1], d_q)
        g2 = _combined(span_x[2], d_p, span_y[2], d_q)
        d_w = 2.0 * (qx * (g2[1] - g1[2]) + qy * (g0[2] - g2[0]) + qz * (g1[0] - g0[1]))
        d_x = 2.0 * (qw * (g2[1] - g1[2]) + qy * (g1[0] + g0[1]) + qz * (g2[0] + g0[2]) - 2.0 * qx * (g1[1] + g2[2]))
        d_y = 2.0 * (qw * (g0[2] - g2[0]) + qx * (g1[0] + g0[1]) + qz * (g2[1] + g1[2]) - 2.0 * qy * (g0[0] + g2[2]))
        d_z = 2.0 * (qw * (g1[0] - g0[1]) + qx * (g2[0] + g0[2]) + qy * (g2[1] + g1[2]) - 2.0 * qz * (g0[0] + g1[1]))
        along = d_w * qw + d_x * qx + d_y * qy + d_z * qz
        d_quats[i, 0] = (d_w - along * qw) / length
        d_quats[i, 1] = (d_x - along * qx) / length
        d_quats[i, 2] = (d_y - along * qy) / length
        d_quats[i, 3] = (d_z - along * qz) / length

        d_span_x = (_dot(axes[0], d_p), _dot(axes[1], d_p), _dot(axes[2], d_p))
        d_span_y = (_dot(axes[0], d_q), _dot(axes[1], d_q), _dot(axes[2], d_q))
        at_x, at_y = np.float64(d_means2d[i, 0]) * fx / z, np.float64(d_means2d[i, 1]) * fy / z
        d_depth = np.float64(d_depths[i]) - at_x * x / z - at_y * y / z
        d_depth -= (_dot(d_span_x, span_x) + _dot(d_span_y, span_y)) / z
        if low_x <= x / z <= high_x:
            d_tangent = -fx / z * _dot(d_span_x, r2) / z
            at_x += d_tangent
            d_depth -= d_tangent * tangent_x
        if low_y <= y / z <= high_y:
            d_tangent = -fy / z * _dot(d_span_y, r2) / z
            at_y += d_tangent
            d_depth -= d_tangent * tangent_y
        for j in range(3):
            d_means[i, j] = at_x * r0[j] + at_y * r1[j] + d_depth * r2[j]
        if d_viewmat is not None:
            for j in range(3):
                mean = np.float64(means[i, j])
                d_viewmat[0, j] += at_x * mean + fx / z * d_span_x[j]
                d_viewmat[1, j] += at_y * mean + fy / z * d_span_y[j]
                d_viewmat[2, j] += d_depth * mean - (fx * tangent_x * d_span_x[j] + fy * tangent_y * d_span_y[j]) / z
            d_viewmat[0, 3] += at_x
            d_viewmat[1, 3] += at_y
            d_viewmat[2, 3] += d_depth
