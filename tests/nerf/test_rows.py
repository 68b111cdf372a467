"""Large pictures are rendered some rows at a time, and nobody is to see where one part ends."""

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import OrientedBox
from support.tiny_run import tiny_model

from nerfstudio_prune.nerf import rows
from nerfstudio_prune.nerf.rows import rows_of_rays

POSE = torch.tensor([[[1.0, 0.0, 0.0, 0.2], [0.0, 1.0, 0.0, -0.1], [0.0, 0.0, 1.0, 3.5]]])
BOX = OrientedBox(torch.eye(3), torch.zeros(3), torch.full((3,), 1.5))


def camera(kind: CameraType = CameraType.PERSPECTIVE) -> Cameras:
    """Of 13 rows of 10 pixels."""
    return Cameras(POSE, 12.0, 11.0, 5.0, 6.5, 10, 13, camera_type=kind)


@pytest.mark.parametrize("kind", [CameraType.PERSPECTIVE, CameraType.FISHEYE, CameraType.EQUIRECTANGULAR])
@pytest.mark.parametrize("box", [None, BOX], ids=["whole", "cropped"])
def test_rays_are_those_of_the_host(kind: CameraType, box: OrientedBox | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, crop included, and the last part may have fewer rows."""
    whole = camera(kind).generate_rays(camera_indices=0, keep_shape=True, obb_box=box)
    (same,) = rows_of_rays(camera(kind), box)
    assert torch.equal(same.directions, whole.directions)
    monkeypatch.setattr(rows, "RAYS_AT_ONCE", 45)
    parts = list(rows_of_rays(camera(kind), box))
    assert [tuple(part.shape) for part in parts] == [(4, 10), (4, 10), (4, 10), (1, 10)]
    for name in ("origins", "directions", "pixel_area", "camera_indices", *(("nears", "fars") if box else ())):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name


def test_a_picture_in_parts_is_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of other sizes round otherwise in the last bits, and that is all there is to see."""
    torch.manual_seed(0)
    model = tiny_model().eval()
    whole = model.get_outputs_for_camera(camera())
    monkeypatch.setattr(rows, "RAYS_AT_ONCE", 45)
    parts = model.get_outputs_for_camera(camera())
    assert parts.keys() == whole.keys() and whole["rgb_fine"].std() > 0
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-4, rtol=1e-4)
