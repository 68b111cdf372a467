"""Lowering the degree with a teacher: cameras beside cameras, and the loss."""

import pytest
import torch
from support.splats_by_hand import camera

from nerfstudio_prune.gaussians.distillation import (
    centre_of,
    distillation_loss,
    is_pseudo_step,
    median_neighbour_distance,
    pseudo_pose,
)
from nerfstudio_prune.raster.interface import View


def turned() -> View:
    """A camera that looks along an odd direction."""
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = -rotation @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    return View(viewmat, torch.eye(3, dtype=torch.float64), 8, 8)


def test_centre_of_a_camera() -> None:
    """Where everything below is measured from."""
    assert centre_of(turned()).tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert centre_of(camera([1, -2, 0.5])).tolist() == pytest.approx([1.0, -2.0, 0.5])


def pose() -> torch.Tensor:
    """Camera to world, turned in an odd direction."""
    return torch.linalg.inv(turned().viewmat)[:3]


def test_pseudo_views_are_spread_as_equation_7_says_and_look_the_same_way() -> None:
    """Noise of a variance for a deviation, or one that turns the camera, would still look plausible."""
    first, draw = pose(), torch.Generator().manual_seed(0)
    before = first.clone()
    made = torch.stack([pseudo_pose(first, 0.2, draw) for _ in range(4000)])
    assert torch.equal(made[:, :, :3], first[:, :3].expand(4000, 3, 3))
    shifts = made[:, :, 3] - torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    covariance = shifts.T @ shifts / len(shifts)
    torch.testing.assert_close(covariance, 0.04 * torch.eye(3, dtype=torch.float64), atol=0.003, rtol=0)
    assert shifts.mean(0).abs().max() < 0.015
    assert torch.equal(first, before)


def test_pseudo_views_repeat_with_the_seed() -> None:
    """The same run twice is the same run."""
    first, second = (pseudo_pose(pose()[None], 0.1, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(pseudo_pose(pose(), 0.0, torch.Generator()), pose())
    with pytest.raises(ValueError, match="sigma must be a length that is at least 0, got -1"):
        pseudo_pose(pose(), -1.0, torch.Generator())


def test_median_distance_of_neighbours() -> None:
    """By hand: cameras at 0, 1, 3, 7 have neighbours at 1, 1, 2, 4; the lower median is 1."""
    assert median_neighbour_distance([camera([x, 0, 0]) for x in (0, 1, 3, 7)]) == pytest.approx(1.0)
    assert median_neighbour_distance([camera([x, 0, 0]) for x in (0, 1, 3)]) == pytest.approx(1.0)
    assert median_neighbour_distance([camera([0, 0, 0])] * 3) == 0
    with pytest.raises(ValueError, match="needs at least 2 training views, got 1"):
        median_neighbour_distance([camera([0, 0, 0])])


def test_loss_is_equation_6() -> None:
    """Squared distances of colours, mean over pixels: (0.09 + 0.16) / 2. The teacher does not learn."""
    teacher = torch.zeros(1, 2, 3, requires_grad=True)
    student = torch.tensor([[[0.3, 0.4, 0.0], [0.0, 0.0, 0.0]]], requires_grad=True)
    loss = distillation_loss(student, teacher)
    assert loss.item() == pytest.approx(0.125)
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad[0, 0].tolist() == pytest.approx([0.3, 0.4, 0.0])


@pytest.mark.parametrize("share", [0.0, 0.25, 2 / 3, 1.0])
def test_pseudo_steps_have_their_share(share: float) -> None:
    """Two of three steps, evenly spread, whatever the length of the run."""
    steps = [is_pseudo_step(step, share) for step in range(1200)]
    assert sum(steps) == pytest.approx(1200 * share, abs=1)
    for start in range(0, 1200, 12):
        assert sum(steps[start : start + 12]) == pytest.approx(12 * share, abs=1)
    with pytest.raises(ValueError, match=r"share of pseudo views must be in \[0, 1\]"):
        is_pseudo_step(0, 1.5)
