"""Solids with closed-form intersections, in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

Colors = Float[np.ndarray, "points 3"]
Points = Float[np.ndarray, "points 3"]
Rays = Float[np.ndarray, "rays 3"]


def dot(first: Points, second: Points) -> Float[np.ndarray, "points"]:
    """Scalar product of each pair."""
    return np.einsum("ij,ij->i", first, second)


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A textured solid; `entry`, `normals` and `paint` work in its own frame."""

    center: tuple[float, float, float]
    """Origin of the solid's frame in the scene."""
    bound: float
    """Radius of a sphere about the frame's origin that holds the solid."""
    paint: Callable[[Points], Colors]
    """Gives the colour of points of the surface."""
    gloss: float
    """Strength of the highlight, 0 for a dull surface."""
    shininess: float = 40.0
    """Blinn-Phong exponent: the larger, the smaller the highlight."""
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    """Rotation from the solid's frame to the scene's."""

    def entry(self, points: Rays, directions: Rays, start: Float[np.ndarray, "rays"]) -> Float[np.ndarray, "rays"]:
        """Where rays enter the solid: the least t >= start at which `points + t * directions` is on the surface.

        Args:
            points: A point on each ray, near the frame's origin for the sake of precision.
            directions: Unit directions of the rays.
            start: The t of the beginning of each ray, which lies outside the solid.

        Returns:
            The t of the first hit, infinite where there is none.
        """
        raise NotImplementedError

    def normals(self, points: Points) -> Points:
        """Outward unit normals at points of the surface."""
        raise NotImplementedError

    def to_local(self, points: Points) -> Points:
        """Points of the scene in the solid's frame."""
        return (points - np.asarray(self.center, dtype=np.float32)) @ self.rotation

    def intersect(self, origins: Rays, directions: Rays) -> Float[np.ndarray, "rays"]:
        """Distance at which rays of the scene enter the solid.

        Args:
            origins: Starts of the rays, outside the solid.
            directions: Unit directions of the rays.

        Returns:
            Distance along each ray, infinite where it misses.
        """
        to_center = np.asarray(self.center, dtype=np.float32) - origins
        along = dot(to_center, directions)
        near = (dot(to_center, to_center) - along**2 < self.bound**2) & (along > -self.bound)
        closest = origins[near] + along[near, None] * directions[near]
        distances = np.full(len(origins), np.inf, dtype=np.float32)
        distances[near] = along[near] + self.entry(
            self.to_local(closest), directions[near] @ self.rotation, -along[near]
        )
        return distances


@dataclass(frozen=True, kw_only=True)
class Convex(Solid):
    """A convex solid cut out by quadrics: those points p where `a . p**2 + b . p + c <= 0` for each row (a, b, c)."""

    quadrics: Float[np.ndarray, "surfaces 7"]

    def values(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "surfaces *batch"]:
        """Value of each quadric at points, negative inside and 0 on the surface."""
        flat = points.reshape(-1, 3).T
        values = self.quadrics[:, :3] @ flat**2 + self.quadrics[:, 3:6] @ flat + self.quadrics[:, 6:]
        return values.reshape(len(self.quadrics), *points.shape[:-1])

    def entry(self, points: Rays, directions: Rays, start: Float[np.ndarray, "rays"]) -> Float[np.ndarray, "rays"]:
        a = self.quadrics[:, :3] @ directions.T**2
        half_b = self.quadrics[:, :3] @ (points * directions).T + 0.5 * self.quadrics[:, 3:6] @ directions.T
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(half_b**2 - a * self.values(points))
            crossings = np.stack([-half_b - root, -half_b + root], axis=1) / a[:, None]
            values = self.values(points + crossings[..., None] * directions)
        surfaces = np.arange(len(self.quadrics))
        values[surfaces, surfaces] = 0.0
        hit = np.isfinite(crossings) & (values <= 0.0).all(axis=0)
        first = np.where(hit, crossings, np.inf).min(axis=(0, 1))
        return np.where(first > start, first, np.inf)

    def normals(self, points: Points) -> Points:
        gradients = 2.0 * self.quadrics[:, None, :3] * points + self.quadrics[:, None, 3:6]
        lengths = np.maximum(np.linalg.norm(gradients, axis=-1), 1e-6)
        nearest = (self.values(points) / lengths).argmax(axis=0), np.arange(len(points))
        return gradients[nearest] / lengths[nearest][:, None]


def sphere(radius: float) -> Float[np.ndarray, "1 7"]:
    """Quadric of a ball about the origin."""
    return np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, -(radius**2)]], dtype=np.float32)


def cube(half: float) -> Float[np.ndarray, "3 7"]:
    """Quadrics of a cube about the origin, with edges of twice `half`."""
    return np.hstack([np.eye(3), np.zeros((3, 3)), np.full((3, 1), -(half**2))]).astype(np.float32)


def frustum(bottom: float, top: float, height: float) -> Float[np.ndarray, "2 7"]:
    """Quadrics of a cone cut off at z = 0 and z = `height`, where its radii are `bottom` and `top`."""
    slope = (top - bottom) / height
    side = [1.0, 1.0, -(slope**2), 0.0, 0.0, -2.0 * bottom * slope, -(bottom**2)]
    return np.array([side, [0.0, 0.0, 1.0, 0.0, 0.0, -height, 0.0]], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Torus(Solid):
    """A ring about the z axis, met by sphere tracing because its quartic is unstable in single precision."""

    major: float
    """Radius of the circle in the middle of the tube."""
    minor: float
    """Radius of the tube."""

    def entry(self, points: Rays, directions: Rays, start: Float[np.ndarray, "rays"]) -> Float[np.ndarray, "rays"]:
        reach = np.sqrt(np.maximum(self.bound**2 - dot(points, points), 0.0))
        t = np.maximum(-reach, start)
        first = np.full_like(t, np.inf)
        active = np.arange(len(t))
        while len(active):
            x, y, z = (points[active] + t[active, None] * directions[active]).T
            gap = np.hypot(np.hypot(x, y) - self.major, z) - self.minor
            arrived = gap < 2e-4
            first[active[arrived]] = t[active[arrived]]
            t[active] += gap
            active = active[~arrived & (t[active] < reach[active])]
        return first

    def normals(self, points: Points) -> Points:
        core = points * [1.0, 1.0, 0.0]
        core *= self.major / np.linalg.norm(core, axis=-1, keepdims=True)
        return (points - core) / np.linalg.norm(points - core, axis=-1, keepdims=True)
