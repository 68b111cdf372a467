"""What a promise about quality rests on: pairs of views, their standard error, and views that the cut has not seen."""

import math
from itertools import pairwise

import pytest
import torch

from nerfstudio_prune.apply.quality import HeldOut, Noted, drop_of
from nerfstudio_prune.apply.rays import psnr_of_rays
from nerfstudio_prune.data.held_out import MOST, split_views


def test_a_loss_by_hand() -> None:
    """Losses of 0.1, 0.3 and 0.5 dB: the mean is 0.3, their deviation 0.2, the standard error 0.2 / √3."""
    drop = drop_of(torch.tensor([30.0, 25.0, 20.0]).double(), torch.tensor([29.9, 24.7, 19.5]).double())
    assert drop.mean == pytest.approx(0.3)
    assert drop.error == pytest.approx(0.2 / math.sqrt(3))
    assert drop.bound == pytest.approx(0.3 + 0.4 / math.sqrt(3))
    assert drop.psnr == pytest.approx((29.9 + 24.7 + 19.5) / 3)


def test_one_view_promises_nothing() -> None:
    """How much views differ cannot be told from one of them."""
    assert drop_of(torch.tensor([30.0]), torch.tensor([30.0])).bound == math.inf


def test_the_bound_holds_where_pixels_of_a_view_are_alike() -> None:
    """Each view has a loss of its own, which all of its pixels share: of 500 cuts the bound of 12 views is below the
    true mean loss in few. Taken for independent, 12 views of 100 pixels would claim so with a tenth of the error."""
    generator = torch.Generator().manual_seed(0)
    truth, missed, claimed = 0.2, 0, 0
    for _ in range(500):
        of_views = truth + 0.1 * torch.randn(12, generator=generator).double()
        pixels = of_views[:, None] + 0.05 * torch.randn(12, 100, generator=generator)
        before = torch.full((12,), 30.0).double()
        missed += drop_of(before, before - pixels.mean(dim=1)).bound < truth
        claimed += float(pixels.mean() + 2 * pixels.std() / pixels.numel() ** 0.5) < truth
    assert missed <= 0.06 * 500
    assert claimed > 0.2 * 500


def test_rays_that_a_draw_misses_are_put_back() -> None:
    """Errors of a view with a long tail: 100 rays of it show it a tenth of a dB and more too good in the mean of 4,000
    draws, and no longer do so when what they miss on average is put back."""
    generator = torch.Generator().manual_seed(0)
    view = (1.5 * torch.randn(100_000, generator=generator).double()).exp() * 1e-3
    truth = float(-10 * view.mean().log10())
    draws = view[torch.randint(len(view), (4000, 100), generator=generator)]
    plain = float((-10 * draws.mean(dim=1).log10()).mean()) - truth
    corrected = float(torch.stack([psnr_of_rays(draw) for draw in draws]).mean()) - truth
    assert plain > 0.1
    assert abs(corrected) < 0.06


def test_rays_without_errors() -> None:
    """Equal pictures, and a view of one ray, have no spread to put back."""
    assert float(psnr_of_rays(torch.zeros(5).double())) == pytest.approx(120)
    assert float(psnr_of_rays(torch.full((1,), 0.01).double())) == pytest.approx(20)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 100, 1000])
def test_views_are_kept_back(count: int) -> None:
    """No view is judged by and measured on; of few views half are measured on, of many an eighth, evenly spaced."""
    judged, back = split_views(count)
    assert sorted([*judged, *back]) == list(range(count))
    assert len(back) == {1: 0, 2: 1, 3: 1, 16: 8, 17: 8, 100: 12, 1000: MOST}[count]
    gaps = {second - first for first, second in pairwise(back)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_what_an_event_measured_is_kept() -> None:
    """The loss is that between the first and the last measurement; without views there is none."""
    quality = iter([torch.tensor([30.0, 28.0]).double(), torch.tensor([29.0, 27.0]).double()])
    noted = Noted(HeldOut("two views", lambda model: next(quality)))
    assert noted.drop is None
    assert noted(None) == {"psnr": 29.0} and noted.drop is None
    assert noted(None) == {"psnr": 28.0}
    assert noted.drop is not None and (noted.drop.mean, noted.drop.error) == (1.0, 0.0)
    empty = Noted(HeldOut("nothing", lambda model: torch.zeros(0)))
    assert empty(None) == empty(None) == {} and empty.drop is None
