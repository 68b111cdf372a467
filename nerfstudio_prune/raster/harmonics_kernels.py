"""Colours from spherical harmonics and their derivative, compiled by Numba; in float64 whatever is stored.

Order and signs of the coefficients are those of gsplat (Sloan, Efficient Spherical Harmonic Evaluation, JCGT 2(2),
2013).
"""

import math

import numpy as np

from nerfstudio_prune.raster.compiled import compiled, inlined

MAX_BASES = 16


@inlined
def _direction(mean, eye):
    x, y, z = mean[0] - eye[0], mean[1] - eye[1], mean[2] - eye[2]
    length = max(math.sqrt(x * x + y * y + z * z), 1e-12)
    return x / length, y / length, z / length, length


@inlined
def _bases(x, y, z, degree, bases):
    """Writes the harmonics of a direction up to a degree."""
    bases[0] = 0.2820947917738781
    if degree > 0:
        bases[1] = -0.48860251190292 * y
        bases[2] = 0.48860251190292 * z
        bases[3] = -0.48860251190292 * x
    if degree > 1:
        cos2, sin2 = x * x - y * y, 2.0 * x * y
        bases[4] = 0.5462742152960395 * sin2
        bases[5] = -1.092548430592079 * z * y
        bases[6] = 0.9461746957575601 * z * z - 0.3153915652525201
        bases[7] = -1.092548430592079 * z * x
        bases[8] = 0.5462742152960395 * cos2
        if degree > 2:
            outer = -2.285228997322329 * z * z + 0.4570457994644658
            bases[9] = -0.5900435899266435 * (x * sin2 + y * cos2)
            bases[10] = 1.445305721320277 * z * sin2
            bases[11] = outer * y
            bases[12] = z * (1.865881662950577 * z * z - 1.119528997770346)
            bases[13] = outer * x
            bases[14] = 1.445305721320277 * z * cos2
            bases[15] = -0.5900435899266435 * (x * cos2 - y * sin2)


@inlined
def _slope(x, y, z, degree, d):
    """Gradient with respect to x, y, z of the harmonics weighted by `d`."""
    d_x = d_y = d_z = 0.0
    if degree > 0:
        d_x -= 0.48860251190292 * d[3]
        d_y -= 0.48860251190292 * d[1]
        d_z += 0.48860251190292 * d[2]
    if degree > 1:
        cos2, sin2 = x * x - y * y, 2.0 * x * y
        d_x += 1.092548430592079 * (y * d[4] - z * d[7] + x * d[8])
        d_y += 1.092548430592079 * (x * d[4] - z * d[5] - y * d[8])
        d_z += -1.092548430592079 * (y * d[5] + x * d[7]) + 2.0 * 0.9461746957575601 * z * d[6]
        if degree > 2:
            outer = -2.285228997322329 * z * z + 0.4570457994644658
            d_x += -0.5900435899266435 * 3.0 * (sin2 * d[9] + cos2 * d[15]) + outer * d[13]
            d_x += 1.445305721320277 * 2.0 * z * (y * d[10] + x * d[14])
            d_y += -0.5900435899266435 * 3.0 * (cos2 * d[9] - sin2 * d[15]) + outer * d[11]
            d_y += 1.445305721320277 * 2.0 * z * (x * d[10] - y * d[14])
            d_z += 1.445305721320277 * (sin2 * d[10] + cos2 * d[14])
            d_z += -2.285228997322329 * 2.0 * z * (y * d[11] + x * d[13])
            d_z += (3.0 * 1.865881662950577 * z * z - 1.119528997770346) * d[12]
    return d_x, d_y, d_z


@compiled
def color(means, constant, rest, eye, degree, radii, colors):
    """Colours of the Gaussians that are seen, at least 0.

    Args:
        means: Centres.
        constant, rest: Coefficients.
        eye: Where the camera is, in float64.
        degree: Up to which the harmonics count.
        radii: 0 for those that are not seen.
        colors: Zeros; gets the colours.
    """
    bases = np.empty(MAX_BASES, np.float64)
    for i in range(len(means)):
        if radii[i] == 0:
            continue
        x, y, z, _ = _direction(means[i], eye)
        _bases(x, y, z, degree, bases)
        red = 0.5 + bases[0] * constant[i, 0]
        green = 0.5 + bases[0] * constant[i, 1]
        blue = 0.5 + bases[0] * constant[i, 2]
        for k in range((degree + 1) ** 2 - 1):
            red += bases[k + 1] * rest[i, k, 0]
            green += bases[k + 1] * rest[i, k, 1]
            blue += bases[k + 1] * rest[i, k, 2]
        colors[i, 0] = max(red, 0.0)
        colors[i, 1] = max(green, 0.0)
        colors[i, 2] = max(blue, 0.0)


@compiled
def color_backward(means, constant, rest, eye, degree, radii, colors, d_colors, d_means, d_constant, d_rest, d_eye):
    """Gradients of the colours.

    Args:
        means, constant, rest, eye, degree, radii, colors: As above.
        d_colors: Gradients of the colours.
        d_means, d_constant, d_rest: Get those of the parameters.
        d_eye: Their sum with respect to where the camera is is added to this.
    """
    bases = np.empty(MAX_BASES, np.float64)
    d = np.empty(MAX_BASES, np.float64)
    used = (degree + 1) ** 2 - 1
    for i in range(len(means)):
        d_means[i] = 0.0
        if radii[i] == 0 or (d_colors[i, 0] == 0.0 and d_colors[i, 1] == 0.0 and d_colors[i, 2] == 0.0):
            d_constant[i] = 0.0
            d_rest[i] = 0.0
            continue
        x, y, z, length = _direction(means[i], eye)
        _bases(x, y, z, degree, bases)
        red = np.float64(d_colors[i, 0]) if colors[i, 0] > 0.0 else 0.0
        green = np.float64(d_colors[i, 1]) if colors[i, 1] > 0.0 else 0.0
        blue = np.float64(d_colors[i, 2]) if colors[i, 2] > 0.0 else 0.0
        d_constant[i, 0] = bases[0] * red
        d_constant[i, 1] = bases[0] * green
        d_constant[i, 2] = bases[0] * blue
        d_rest[i, used:] = 0.0
        if degree == 0:
            continue
        for k in range(used):
            d_rest[i, k, 0] = bases[k + 1] * red
            d_rest[i, k, 1] = bases[k + 1] * green
            d_rest[i, k, 2] = bases[k + 1] * blue
            d[k + 1] = red * rest[i, k, 0] + green * rest[i, k, 1] + blue * rest[i, k, 2]
        d_x, d_y, d_z = _slope(x, y, z, degree, d)
        along = d_x * x + d_y * y + d_z * z
        d_x, d_y, d_z = (d_x - along * x) / length, (d_y - along * y) / length, (d_z - along * z) / length
        d_means[i, 0], d_means[i, 1], d_means[i, 2] = d_x, d_y, d_z
        d_eye[0] -= d_x
        d_eye[1] -= d_y
        d_eye[2] -= d_z
