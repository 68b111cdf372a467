"""Analytic ray tracer of the demo scene, with NumPy alone: textured solids on a round plate, seen from a sphere.

Distances are in scene units, angles in radians unless named otherwise, colours in 0..1 as displayed (no gamma).
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from nerfstudio_prune.scenes.solids import Colors, Convex, Points, Rays, Solid, Torus, cube, dot, frustum, sphere

SCENE_VERSION = 1
"""To be raised whenever the pixels or the poses of an unchanged setting change."""
CAMERA_DISTANCE = 4.0
"""Distance of every camera from the origin, at which it looks."""
FIELD_OF_VIEW = float(np.deg2rad(40.0))
"""Full horizontal and vertical field of view of every camera."""
ELEVATION_RANGE = (float(np.deg2rad(10.0)), float(np.deg2rad(75.0)))
"""Lowest and highest elevation of a camera above the plate."""
LIGHT = np.array([0.48, -0.36, 0.80], dtype=np.float32)
"""Unit vector towards the only light, which is infinitely far away."""
AMBIENT, DIFFUSE = 0.48, 0.60
SHADOW_OFFSET = 2e-3
"""How far above its surface a shadow ray starts, so that it does not hit the point it comes from."""
RAYS_PER_CHUNK = 1 << 16
"""Chosen so that the intermediate arrays of a chunk stay in the processor's cache."""


def fibonacci_directions(sines: Float[np.ndarray, "n"], start: float = 0.0) -> Float[np.ndarray, "n 3"]:
    """Unit vectors that spread evenly when the sines of their elevations do.

    Args:
        sines: Sine of the elevation of each vector, -1 to 1.
        start: Azimuth of the first vector; each next one is turned by the golden angle.

    Returns:
        The vectors.
    """
    azimuths = start + np.pi * (3.0 - np.sqrt(5.0)) * np.arange(len(sines))
    cosines = np.sqrt(1.0 - sines**2)
    return np.stack([cosines * np.cos(azimuths), cosines * np.sin(azimuths), sines], axis=-1)


def _mix(choice: Bool[np.ndarray, "points"], first: tuple[float, ...], second: tuple[float, ...]) -> Colors:
    return np.where(choice[:, None], np.array(first, dtype=np.float32), np.array(second, dtype=np.float32))


def _turns(points: Points) -> Float[np.ndarray, "points"]:
    """Azimuth of points about their z axis, as a fraction of a turn."""
    return np.arctan2(points[:, 1], points[:, 0]) / (2.0 * np.pi)


def _paint_plate(points: Points) -> Colors:
    """Polar checker between a rim and a middle in blue."""
    radii = np.hypot(points[:, 0], points[:, 1])
    odd = (np.floor(radii / 0.12) + np.floor(_turns(points) * 36.0)) % 2 > 0
    checker = _mix(odd, (0.95, 0.92, 0.85), (0.56, 0.58, 0.63))
    return np.where((np.abs(radii - 0.66) > 0.42)[:, None], np.array([0.17, 0.29, 0.49], dtype=np.float32), checker)


_DOTS = fibonacci_directions(np.linspace(-0.99, 0.99, 110)).astype(np.float32)


def _paint_ball(points: Points) -> Colors:
    """White dots on blue."""
    units = points / np.linalg.norm(points, axis=-1, keepdims=True)
    return _mix((units @ _DOTS.T).max(axis=-1) > np.cos(0.115), (0.97, 0.95, 0.90), (0.10, 0.36, 0.76))


def _paint_cube(points: Points) -> Colors:
    """Checker of seven squares to an edge."""
    # Slightly too large squares keep the faces off the boundary between two layers of cells.
    odd = np.floor(points / 0.0858 + 0.5).sum(axis=-1) % 2 > 0
    return _mix(odd, (0.98, 0.74, 0.20), (0.58, 0.20, 0.12))


def _paint_cone(points: Points) -> Colors:
    """Climbing spiral stripes."""
    return _mix((points[:, 2] / 0.14 + 2.0 * _turns(points)) % 1.0 < 0.5, (0.95, 0.95, 0.88), (0.10, 0.54, 0.32))


def _paint_ring(points: Points) -> Colors:
    """Stripes that wind about the tube."""
    around_tube = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]) - RING.major) / (2.0 * np.pi)
    return _mix((14.0 * _turns(points) + around_tube) % 1.0 < 0.5, (0.90, 0.20, 0.22), (0.99, 0.82, 0.66))


def _rotation(axis: int, degrees: float) -> Float[np.ndarray, "3 3"]:
    """Rotation about one of the axes x (0), y (1) or z (2)."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]], dtype=np.float32)
    return np.roll(matrix, axis, axis=(0, 1))


PLATE = Convex(center=(0.0, 0.0, -0.45), bound=1.19, paint=_paint_plate, gloss=0.1, quadrics=frustum(1.18, 1.18, 0.1))
"""Lies below all the others, so that it casts no shadow on them."""
BALL = Convex(
    center=(0.5, -0.42, 0.05), bound=0.41, paint=_paint_ball, gloss=0.75, shininess=60.0, quadrics=sphere(0.4)
)
CUBE = Convex(
    center=(-0.5, -0.38, -0.05),
    bound=0.53,
    paint=_paint_cube,
    gloss=0.2,
    rotation=_rotation(2, 28.0),
    quadrics=cube(0.3),
)
CONE = Convex(center=(-0.3, 0.55, -0.35), bound=1.16, paint=_paint_cone, gloss=0.35, quadrics=frustum(0.36, 0.0, 1.15))
RING = Torus(
    center=(0.52, 0.5, 0.022),
    bound=0.39,
    paint=_paint_ring,
    gloss=0.6,
    rotation=_rotation(2, -40.0) @ _rotation(1, 78.0),
    major=0.27,
    minor=0.11,
)
SOLIDS: tuple[Solid, ...] = (PLATE, BALL, CUBE, CONE, RING)


def shade(points: Points, normals: Points, directions: Points, albedo: Colors, solid: Solid) -> Colors:
    """Colour of surface points: ambient light, Lambert shading and a Blinn-Phong highlight with hard shadows.

    Args:
        points: Points on the surface, in the scene.
        normals: Outward unit normals there.
        directions: Unit directions in which the points are looked at.
        albedo: Colours of the surface there, 0 to 1.
        solid: The solid to which the points belong.

    Returns:
        Colours, 0 to 1.
    """
    facing = normals @ LIGHT
    lit = facing > 0.0
    for blocker in SOLIDS:
        if blocker is not PLATE:
            starts = points[lit] + SHADOW_OFFSET * normals[lit]
            towards_light = np.broadcast_to(LIGHT, starts.shape)
            lit[lit] = np.isinf(blocker.intersect(starts, towards_light))
    halfway = LIGHT - directions
    halfway /= np.linalg.norm(halfway, axis=-1, keepdims=True)
    highlight = solid.gloss * np.maximum(dot(normals, halfway), 0.0) ** solid.shininess
    sky = AMBIENT * (0.8 + 0.2 * normals[:, 2])
    return np.clip(albedo * (sky + lit * DIFFUSE * facing)[:, None] + (lit * highlight)[:, None], 0.0, 1.0)


def trace(origins: Rays, directions: Rays) -> Float[np.ndarray, "rays 4"]:
    """Colour and coverage seen along rays.

    Args:
        origins: Starts of the rays, outside all solids.
        directions: Unit directions of the rays.

    Returns:
        Red, green, blue and alpha; alpha is 1 where a solid is hit and all four are 0 elsewhere.
    """
    distances = np.stack([solid.intersect(origins, directions) for solid in SOLIDS])
    nearest = distances.argmin(axis=0)
    distance = distances.min(axis=0)
    colors = np.zeros((len(origins), 4), dtype=np.float32)
    for index, solid in enumerate(SOLIDS):
        seen = (nearest == index) & np.isfinite(distance)
        points = origins[seen] + distance[seen, None] * directions[seen]
        local = solid.to_local(points)
        normals = solid.normals(local) @ solid.rotation.T
        colors[seen, :3] = shade(points, normals, directions[seen], solid.paint(local), solid)
        colors[seen, 3] = 1.0
    return colors


def camera_rays(camera_to_world: Float[np.ndarray, "4 4"], image_size: int, supersampling: int) -> tuple[Rays, Rays]:
    """Rays through a regular grid of points in each pixel.

    Args:
        camera_to_world: Pose of the camera in OpenGL's convention: x right, y up, looking along -z.
        image_size: Width and height in pixels.
        supersampling: Points along each side of a pixel; 1 gives its centre.

    Returns:
        Origins and unit directions, row by row from the top left, one for each point of the finer grid.
    """
    side = image_size * supersampling
    slopes = np.tan(FIELD_OF_VIEW / 2.0) * ((2.0 * np.arange(side) + 1.0) / side - 1.0)
    x, y = np.meshgrid(slopes, -slopes)
    directions = np.stack([x, y, np.full_like(x, -1.0)], axis=-1).reshape(-1, 3) @ camera_to_world[:3, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    directions = directions.astype(np.float32)
    return np.broadcast_to(camera_to_world[:3, 3].astype(np.float32), directions.shape), directions


def render_view(
    camera_to_world: Float[np.ndarray, "4 4"], image_size: int, supersampling: int
) -> UInt8[np.ndarray, "image_size image_size 4"]:
    """One picture of the scene.

    Args:
        camera_to_world: Pose of the camera in OpenGL's convention.
        image_size: Width and height in pixels.
        supersampling: Rays along each side of a pixel.

    Returns:
        RGBA with straight alpha: the colour is that of the covered part of the pixel.
    """
    origins, directions = camera_rays(camera_to_world, image_size, supersampling)
    chunks = [
        trace(origins[start : start + RAYS_PER_CHUNK], directions[start : start + RAYS_PER_CHUNK])
        for start in range(0, len(origins), RAYS_PER_CHUNK)
    ]
    samples = np.concatenate(chunks).reshape(image_size, supersampling, image_size, supersampling, 4)
    pixels = samples.mean(axis=(1, 3))
    pixels[..., :3] /= np.maximum(pixels[..., 3:], 1e-6)
    return np.rint(pixels * 255.0).astype(np.uint8)


def camera_poses(num_views: int, rng: np.random.Generator) -> Float[np.ndarray, "num_views 4 4"]:
    """Cameras spread over a zone of the sphere about the scene, all looking at the origin.

    Args:
        num_views: Number of cameras.
        rng: Source of the turn of the whole set and of the elevation of each camera within its slot.

    Returns:
        Camera-to-world matrices in OpenGL's convention, z up.
    """
    low, high = np.sin(ELEVATION_RANGE)
    sines = low + (high - low) * (np.arange(num_views) + rng.uniform(0.1, 0.9, num_views)) / num_views
    backward = fibonacci_directions(sines, start=rng.uniform(0.0, 2.0 * np.pi))
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    poses = np.tile(np.eye(4), (num_views, 1, 1))
    poses[:, :3] = np.stack([right, np.cross(backward, right), backward, CAMERA_DISTANCE * backward], axis=-1)
    return poses
