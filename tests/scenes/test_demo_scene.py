"""Geometry, cameras, shading and texture of the demo scene."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from nerfstudio_prune.scenes import demo_scene
from nerfstudio_prune.scenes.demo_scene import (
    BALL,
    CAMERA_DISTANCE,
    CONE,
    CUBE,
    ELEVATION_RANGE,
    FIELD_OF_VIEW,
    LIGHT,
    PLATE,
    RING,
    SOLIDS,
    camera_poses,
    camera_rays,
    render_view,
    shade,
    trace,
)
from nerfstudio_prune.scenes.solids import Convex, Solid, frustum, sphere


def make_rng() -> np.random.Generator:
    return np.random.default_rng(0)


def is_inside(name: str, points: np.ndarray) -> np.ndarray:
    """Membership of points in a solid's frame, written down independently of the renderer."""
    x, y, z = np.moveaxis(points, -1, 0)
    if name == "ball":
        return x**2 + y**2 + z**2 <= 0.4**2
    if name == "cube":
        return np.maximum(np.maximum(abs(x), abs(y)), abs(z)) <= 0.3
    if name == "cone":
        return (z >= 0) & (z <= 1.15) & (np.hypot(x, y) <= 0.36 * (1 - z / 1.15))
    if name == "plate":
        return (z >= 0) & (z <= 0.1) & (np.hypot(x, y) <= 1.18)
    return np.hypot(np.hypot(x, y) - 0.27, z) <= 0.11


def random_rays(solid: Solid, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rays from the sphere of the cameras, in all directions around, to points near a solid."""
    rng = make_rng()
    origins = rng.normal(size=(count, 3))
    origins *= CAMERA_DISTANCE / np.linalg.norm(origins, axis=-1, keepdims=True)
    targets = np.array(solid.center) + rng.uniform(-0.5, 0.5, (count, 3))
    directions = targets - origins
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return origins.astype(np.float32), directions.astype(np.float32)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of 8-bit images in decibels."""
    return float(-10.0 * np.log10(np.mean((first / 255.0 - second / 255.0) ** 2)))


NAMED_SOLIDS = {"ball": BALL, "cube": CUBE, "cone": CONE, "plate": PLATE, "ring": RING}


@pytest.mark.parametrize("name", NAMED_SOLIDS)
def test_entry_is_found_where_dense_marching_finds_it(name):
    """A wrong root or a bounding sphere too tight shows as holes that no picture-level test would notice."""
    solid, step = NAMED_SOLIDS[name], 2e-3
    origins, directions = random_rays(solid, 400)
    found = solid.intersect(origins, directions)

    steps = np.arange(2.0, 6.0, step)
    samples = origins[:, None] + steps[:, None] * directions[:, None]
    inside = is_inside(name, (samples - np.array(solid.center)) @ solid.rotation)
    marched = np.where(inside.any(axis=1), steps[inside.argmax(axis=1)], np.inf)

    both = np.isfinite(found) & np.isfinite(marched)
    assert 50 < both.sum() < 400
    # Marching may step over a grazed edge, and so may find nothing or a later part of the solid.
    assert np.isfinite(found[np.isfinite(marched)]).all()
    assert (np.isfinite(found) & ~np.isfinite(marched)).mean() < 0.02
    assert (found[both] <= marched[both] + 1e-3).all()
    assert (marched[both] - found[both] < step + 1e-3).mean() > 0.97


def test_intersections_match_hand_computed_distances():
    """Numbers from pencil and paper tie the frame, the centre and the units down."""
    origins = np.array([[4, 0, 0], [0, 0, 4], [4, 0, 3]], dtype=np.float32)
    directions = np.array([[-1, 0, 0], [0, 0, -1], [-1, 0, 0]], dtype=np.float32)
    ball = Convex(center=(1.0, 0.0, 0.0), bound=0.5, paint=BALL.paint, gloss=0.0, quadrics=sphere(0.5))
    np.testing.assert_allclose(ball.intersect(origins, directions), [2.5, np.inf, np.inf], atol=1e-6)
    # At height 0 the cut cone, which starts at -1, has half of its height below: radius (1 + 0.5) / 2.
    cone = Convex(center=(0.0, 0.0, -1.0), bound=2.1, paint=BALL.paint, gloss=0.0, quadrics=frustum(1.0, 0.5, 2.0))
    np.testing.assert_allclose(cone.intersect(origins, directions), [3.25, 3.0, np.inf], atol=1e-6)


@pytest.mark.parametrize("name", NAMED_SOLIDS)
def test_normals_are_unit_and_point_out_of_the_solid(name):
    """An inward or skewed normal would light the wrong side."""
    solid, step = NAMED_SOLIDS[name], 5e-3
    origins, directions = random_rays(solid, 300)
    distances = solid.intersect(origins, directions)
    hit = np.isfinite(distances)
    points = solid.to_local(origins[hit] + distances[hit, None] * directions[hit])
    normals = solid.normals(points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1.0, atol=1e-4)
    assert not is_inside(name, points + step * normals).any()
    # Close to an edge, a step inwards may leave through the other face.
    assert is_inside(name, points - step * normals).mean() > 0.95


def test_normal_of_a_cone_leans_with_its_slope():
    """A cone as wide as it is high has a normal half way between outwards and upwards."""
    cone = Convex(center=(0.0, 0.0, 0.0), bound=1.1, paint=BALL.paint, gloss=0.0, quadrics=frustum(1.0, 0.0, 1.0))
    normals = cone.normals(np.array([[0.5, 0.0, 0.5], [0.2, 0.1, 0.0]], dtype=np.float32))
    np.testing.assert_allclose(normals, [[0.5**0.5, 0.0, 0.5**0.5], [0.0, 0.0, -1.0]], atol=1e-6)


def test_everything_lies_within_the_scene_box_and_the_picture():
    """A solid cut off by the frame, the scene box or the near plane could not be learnt."""
    for pose in camera_poses(12, make_rng()):
        origins, directions = camera_rays(pose, 60, 1)
        colors = trace(origins, directions)
        distances = np.min([solid.intersect(origins, directions) for solid in SOLIDS], axis=0)
        hit = np.isfinite(distances)
        np.testing.assert_array_equal(colors[:, 3], hit)
        assert (colors[~hit] == 0.0).all()
        assert 2.0 < distances[hit].min() and distances[hit].max() < 6.0
        assert np.abs(origins[hit] + distances[hit, None] * directions[hit]).max() < 1.2
        border = np.ones((60, 60), dtype=bool)
        border[1:-1, 1:-1] = False
        assert not hit.reshape(60, 60)[border].any()


def test_cameras_look_at_the_origin_from_the_upper_half():
    """The methods of Nerfstudio expect rigid OpenGL poses; near 2 and far 6 expect the distance 4."""
    poses = camera_poses(50, make_rng())
    rotations, positions = poses[:, :3, :3], poses[:, :3, 3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    np.testing.assert_allclose(positions - CAMERA_DISTANCE * rotations[:, :, 2], 0.0, atol=1e-12)
    np.testing.assert_allclose(rotations[:, 2, 0], 0.0, atol=1e-12)
    assert (rotations[:, 2, 1] > 0.0).all()
    elevations = np.arcsin(positions[:, 2] / CAMERA_DISTANCE)
    assert ELEVATION_RANGE[0] < elevations.min() and elevations.max() < ELEVATION_RANGE[1]


def test_training_cameras_are_well_spread():
    """Neighbours that nearly coincide would waste views and leave gaps elsewhere."""
    positions = camera_poses(60, make_rng())[:, :3, 3] / CAMERA_DISTANCE
    angles = np.rad2deg(np.arccos(np.clip(positions @ positions.T - 2.0 * np.eye(60), -1.0, 1.0)))
    # Evenly, 60 views of this zone would be some 17 degrees apart.
    assert angles.min(axis=1).min() > 8.0
    assert angles.min(axis=1).max() < 25.0


def test_cameras_depend_on_the_seed_alone():
    """A scene must be the same on every machine, and another seed must give another one."""
    first, again, other = (camera_poses(9, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other)[:, :3, 3].max(axis=-1).min() > 0.05


def test_rays_pass_through_pixel_centres():
    """Half a pixel of offset against the host's rays would blur every reconstruction."""
    pose = camera_poses(1, make_rng())[0]
    origins, directions = camera_rays(pose, 9, 1)
    np.testing.assert_allclose(origins[40] + CAMERA_DISTANCE * directions[40], 0.0, atol=1e-6)
    # The top left pixel centre is 8/9 of the way from the middle to the corner, to the left and up.
    slope = np.tan(FIELD_OF_VIEW / 2.0) * 8.0 / 9.0
    expected = pose[:3, :3] @ np.array([-slope, slope, -1.0])
    np.testing.assert_allclose(directions[0], expected / np.linalg.norm(expected), atol=1e-6)


def test_picture_is_the_mean_of_its_rays_with_straight_alpha():
    """Premultiplied colours would give dark seams when the host blends them with the background."""
    pose = camera_poses(1, make_rng())[0]
    pixels = render_view(pose, 20, 2)
    samples = trace(*camera_rays(pose, 20, 2)).reshape(40, 40, 4)
    partial = np.argwhere((pixels[..., 3] > 0) & (pixels[..., 3] < 255))
    assert len(partial) > 10
    for row, column in partial:
        block = samples[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(4, 4)
        covered = block[block[:, 3] > 0]
        assert abs(int(pixels[row, column, 3]) - 255 * len(covered) / 4) <= 0.5 + 1e-3
        np.testing.assert_allclose(pixels[row, column, :3], 255 * covered[:, :3].mean(axis=0), atol=0.51)


def test_chunks_do_not_change_the_picture(monkeypatch):
    """Rays are traced in chunks only to save memory."""
    pose = camera_poses(1, make_rng())[0]
    whole = render_view(pose, 16, 2)
    monkeypatch.setattr(demo_scene, "RAYS_PER_CHUNK", 100)
    # The matrix products may round differently for other sizes.
    assert np.abs(render_view(pose, 16, 2).astype(int) - whole).max() <= 1


def test_highlight_depends_on_the_view():
    """Without view dependence, the branch of a network that takes the direction could be pruned for free."""
    normal = LIGHT[None]
    point = np.array(BALL.center, dtype=np.float32) + 0.4 * normal
    albedo = np.array([[0.05, 0.1, 0.2]], dtype=np.float32)
    sideways = np.cross(LIGHT, [0.0, 0.0, 1.0])[None]
    sideways /= np.linalg.norm(sideways)
    against_light = shade(point, normal, -normal, albedo, BALL)
    from_the_side = shade(point, normal, -(0.5 * normal + 0.75**0.5 * sideways), albedo, BALL)
    # Head on, the highlight adds all of its strength; 60 degrees aside it adds cos(30 degrees) ** 60 of it, nothing.
    np.testing.assert_allclose(against_light - from_the_side, BALL.gloss * (1.0 - 0.75**30), atol=1e-5)
    # The same through whole rays: one point, one colour of texture, two directions.
    towards_camera = np.concatenate([normal, 0.5 * normal + 0.75**0.5 * sideways]).astype(np.float32)
    colors = trace(point + 3.0 * towards_camera, -towards_camera)
    assert (colors[0, :3] - colors[1, :3]).max() > 0.2


def test_shading_follows_lambert_and_shadows_remove_direct_light():
    """Hand-computed: ambient plus diffuse where lit, ambient alone under the ball."""
    up = np.array([[0.0, 0.0, 1.0]], dtype=np.float32)
    white = np.full((1, 3), 0.5, dtype=np.float32)
    open_point = np.array([[0.0, -1.0, -0.35]], dtype=np.float32)
    shadowed = np.array(BALL.center, dtype=np.float32) - LIGHT * 0.4 / LIGHT[2]
    assert shadowed[2] == pytest.approx(-0.35)
    along_plate = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    lit = shade(open_point, up, along_plate, white, PLATE)
    dark = shade(shadowed[None], up, along_plate, white, PLATE)
    np.testing.assert_allclose(dark, 0.5 * demo_scene.AMBIENT, atol=1e-6)
    np.testing.assert_allclose(lit, 0.5 * (demo_scene.AMBIENT + demo_scene.DIFFUSE * 0.8), atol=1e-3)


def test_texture_is_fine_but_not_finer_than_the_pixels():
    """Blur must cost PSNR, or pruning could not be seen; but aliased texture could not be learnt at all."""
    for pose in camera_poses(4, make_rng()):
        sharp, finer = (render_view(pose, 100, supersampling) for supersampling in (3, 6))
        image = Image.fromarray(sharp).convert("RGB")
        blurred = image.resize((25, 25), Image.Resampling.BOX).resize((100, 100), Image.Resampling.BICUBIC)
        # Only the surfaces: their outlines against the background cost PSNR without any texture.
        covered = (sharp[..., 3] == 255).reshape(25, 4, 25, 4).all(axis=(1, 3)).repeat(4, axis=0).repeat(4, axis=1)
        assert covered.mean() > 0.15
        assert psnr(np.asarray(blurred)[covered], sharp[covered, :3]) < 20.0
        assert psnr(finer[covered, :3], sharp[covered, :3]) > 30.0


def test_renderer_imports_without_nerfstudio():
    """The dataparser is imported on every start of ns-train, and scripts use the renderer by itself."""
    code = "import sys, nerfstudio_prune.scenes.demo_scene; sys.exit('nerfstudio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
