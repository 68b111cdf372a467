"""What a pixel covers at each Gaussian: merging that ignores it loses up to 7 dB."""

import math

import pytest
import torch
from support.splats_by_hand import camera

from nerfstudio_prune.gaussians.pixel_sizes import footprints, spacings
from nerfstudio_prune.raster.interface import View


def test_spacing_of_a_grid_is_its_step() -> None:
    """Three of a grid point's neighbours are one step away, wherever it lies and however large the scene is."""
    axis = torch.arange(10, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    for scale in (1.0, 1e-3, 50.0):
        torch.testing.assert_close(spacings(grid * scale), torch.full((1000,), scale, dtype=torch.float64))


def test_spacing_follows_the_scene() -> None:
    """In an unbounded scene what is far away is sparse, and a pixel covers more there."""
    draw = torch.Generator().manual_seed(0)
    near, far = torch.rand(2000, 3, generator=draw), 100 + 50 * torch.rand(2000, 3, generator=draw)
    sizes = spacings(torch.cat([near, far]))
    assert sizes[2000:].median() / sizes[:2000].median() == pytest.approx(50, rel=0.2)


def test_a_few_specks_that_lie_together_do_not_count_as_small_pixels() -> None:
    """Densification leaves copies at distance 0; the median hears all around."""
    draw = torch.Generator().manual_seed(0)
    means = torch.rand(2000, 3, generator=draw)
    alone = spacings(means).median()
    means[:60] = means[0]
    assert spacings(means)[0] == pytest.approx(float(alone), rel=0.5)


@pytest.mark.parametrize(("count", "expected"), [(1, 0.0), (2, 1.0), (3, 2.0), (4, 2.0)])
def test_spacing_of_hardly_any(count: int, expected: float) -> None:
    """Distances to the third or the farthest: none, [1, 1], [2, 1, 2], [3, 2, 2, 3]; the lower median."""
    means = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [3.0, 0, 0]])[:count]
    assert spacings(means)[0] == expected


def test_footprints_by_hand() -> None:
    """Focal length 16: at depth 4 a pixel covers a quarter; two cameras at 4 and 6 give the mean, 5 / 16."""
    means = torch.tensor([[0.0, 0, 4], [0.0, 0, 1.0], [90.0, 0, 4], [0.0, 0, -3.0]])
    sizes = footprints(means, [camera([0, 0, 0]), camera([0, 0, -2])])
    assert sizes[0].item() == pytest.approx(5 / 16)
    assert sizes[1].item() == pytest.approx(2 / 16)
    assert sizes[2].item() == sizes[3].item() == pytest.approx(5 / 16)


def test_cameras_that_look_away_are_an_error() -> None:
    """Sizes of 0 would pass for pictures without blur."""
    turned = camera([0, 0, 0])
    viewmat = turned.viewmat.clone()
    viewmat[:3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    view = View(viewmat, turned.K, 16, 16)
    with pytest.raises(ValueError, match="no Gaussian lies in the frame of any of the 1 views"):
        footprints(torch.tensor([[0.0, 0, 4]]), [view])
    assert math.isclose(float(footprints(torch.tensor([[0.0, 0, -4]]), [view])[0]), 0.25)
