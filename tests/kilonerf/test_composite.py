"""Compositing and early termination, against a loop over each ray in float64."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from nerfstudio_prune.kilonerf.composite import (
    MAX_DEPTH,
    Rendered,
    automatic_passes,
    composite,
    last_colours,
    render,
    weights_of,
)

NUM_RAYS = 40
LENGTH = 0.1


class Frame:
    """Samples of some rays: none on some, opaque things on others."""

    def __init__(self, seed: int = 0, num_rays: int = NUM_RAYS) -> None:
        generator = torch.Generator().manual_seed(seed)
        counts = torch.randint(0, 30, (num_rays,), generator=generator)
        counts[3] = counts[-1] = 0
        self.num_rays = num_rays
        self.ray = torch.arange(num_rays, dtype=torch.int32).repeat_interleave(counts)
        count = len(self.ray)
        place = torch.arange(count) - (counts.cumsum(0) - counts)[self.ray.long()]
        self.distance = 1 + 0.1 * place.float()
        self.length = torch.full((count,), LENGTH)
        self.density = 20 * torch.rand(count, generator=generator) ** 4
        self.rgb = torch.rand(count, 3, generator=generator)
        self.asked: list[int] = []

    def evaluate(self, which: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += which.tolist()
        return self.density[which], self.rgb[which]

    def whole(self) -> Rendered:
        return composite(self.density, self.rgb, self.ray, self.distance, self.length, self.num_rays)

    def passes(self, threshold: float, passes: Sequence[int] | None = None) -> Rendered:
        self.asked = []
        return render(self.evaluate, self.ray, self.distance, self.length, self.num_rays, threshold, passes)


def ray_by_ray(frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
    """Colour, depth and transmittance by the definition."""
    rgb, depth, left = torch.zeros(frame.num_rays, 3).double(), torch.zeros(frame.num_rays).double(), []
    for r in range(frame.num_rays):
        light = 1.0
        for i in (frame.ray == r).nonzero()[:, 0].tolist():
            alpha = 1 - math.exp(-float(frame.density[i].double()) * float(frame.length[i].double()))
            rgb[r] += light * alpha * frame.rgb[i].double()
            depth[r] += light * alpha * float(frame.distance[i])
            light *= 1 - alpha
        left.append(light)
    return rgb, depth, torch.tensor(left, dtype=torch.float64)


def asked_by_hand(frame: Frame, threshold: float, passes: Sequence[int]) -> list[int]:
    """Samples of the passes of each ray that begin where more light than the threshold is left."""
    asked: list[int] = []
    for r in range(frame.num_rays):
        samples, light = (frame.ray == r).nonzero()[:, 0].tolist(), 1.0
        for size in (*passes, len(samples)):
            now, samples = samples[:size], samples[size:]
            if light > threshold:
                asked += now
            light *= math.exp(-sum(float(frame.density[i]) * float(frame.length[i]) for i in now))
    return sorted(asked)


def test_compositing_is_the_sum_along_each_ray() -> None:
    """The equation of NeRF, sample by sample; rays without samples show the background and nothing else."""
    frame = Frame()
    found, (rgb, depth, left) = frame.whole(), ray_by_ray(frame)
    torch.testing.assert_close(found.rgb.double(), rgb, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.depth.double(), depth, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.transmittance.double(), left, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.accumulation.double(), 1 - left, atol=1e-6, rtol=0)
    assert found.evaluated.tolist() == torch.bincount(frame.ray.long(), minlength=NUM_RAYS).tolist()
    background = torch.tensor([0.2, 0.5, 1.0])
    shown = found.over(background)
    assert torch.equal(shown[3], background)
    torch.testing.assert_close(shown.double(), rgb + left[:, None] * background.double(), atol=1e-6, rtol=0)
    of_each = background.expand(NUM_RAYS, 3)
    assert torch.equal(found.over(of_each), shown)


def test_a_large_frame_is_as_exact_as_a_small_one() -> None:
    """One running sum over all rays, in float32, is wrong by 0.002 in a pixel at 10,000 rays, and the more the larger
    the frame is; the last rays must come out as they do alone."""
    rays, samples = 20_000, 20
    generator = torch.Generator().manual_seed(1)
    ray = torch.arange(rays, dtype=torch.int32).repeat_interleave(samples)
    depths = 2 * torch.rand(rays * samples, generator=generator).double()
    whole = weights_of(depths, ray)
    alone = weights_of(depths[-samples:], ray[-samples:])
    torch.testing.assert_close(whole[-samples:], alone, atol=1e-9, rtol=0)
    running = depths.float().cumsum(0)
    bad = torch.exp(-(running - depths.float() - running[-samples - 1]))[-samples:] * -torch.expm1(-depths[-samples:])
    assert float((bad - alone).abs().max()) > 1e-4  # the control: the sum that is not used here


def test_a_wall_does_not_blind_the_rays_behind_it_in_the_list() -> None:
    """A density of 1e30 would swallow all later terms of the running sum; what is opaque is opaque at `MAX_DEPTH`."""
    ray = torch.tensor([0, 0, 1, 1], dtype=torch.int32)
    density = torch.tensor([1e30, 1.0, 3.0, 1.0])
    found = composite(density, torch.eye(3)[[0, 1, 0, 1]], ray, torch.ones(4), torch.ones(4), 2)
    expected = torch.tensor([[1, 0, 0], [1 - math.exp(-3), math.exp(-3) - math.exp(-4), 0]])
    torch.testing.assert_close(found.rgb, expected, atol=1e-6, rtol=0)
    assert math.exp(-MAX_DEPTH) < torch.finfo(torch.float32).eps


BROKEN = (("density", math.nan), ("rgb", math.nan), ("density", -math.inf), ("distance", math.inf))


@pytest.mark.parametrize(("name", "value"), BROKEN)
def test_what_is_no_number_stays_on_its_ray(name: str, value: float) -> None:
    """All rays share one running sum, which would hand a single NaN on to every later ray of the picture, and to all
    gradients. Its own ray shows it; the others are what they are without it, in both ways of rendering."""
    frame, sound = Frame(), Frame()
    sample = int((frame.ray == 5).nonzero()[0])
    getattr(frame, name)[sample] = value
    own = torch.arange(NUM_RAYS) == 5
    for found, expected in (
        (frame.whole(), sound.whole()),
        (frame.passes(0.0), sound.passes(0.0)),
        (frame.passes(0.01, [4, 8]), sound.passes(0.01, [4, 8])),
    ):
        for field in ("rgb", "depth", "transmittance"):
            torch.testing.assert_close(getattr(found, field)[~own], getattr(expected, field)[~own], atol=1e-6, rtol=0)
        assert torch.equal(found.evaluated[~own], expected.evaluated[~own])
        shown = {"rgb": found.rgb, "distance": found.depth, "density": found.transmittance}
        assert bool(shown[name][own].isnan().all())
        assert name != "density" or bool(found.rgb[own].isnan().all() and found.depth[own].isnan().all())


@pytest.mark.parametrize(("name", "value"), BROKEN)
def test_gradients_of_other_rays_do_not_notice_what_is_no_number(name: str, value: float) -> None:
    """A step of an optimizer with one NaN in a gradient ends the run for all networks."""
    gradients = []
    for broken in (True, False):
        frame = Frame()
        sample = int((frame.ray == 5).nonzero()[0])
        if broken:
            getattr(frame, name)[sample] = value
        frame.density.requires_grad_()
        frame.rgb.requires_grad_()
        found = frame.whole()
        others = torch.arange(NUM_RAYS) != 5
        loss = sum((x[others].square().sum() for x in (found.rgb, found.depth, found.transmittance)), torch.zeros(()))
        whole = found.rgb.sum() + found.depth.sum() + found.transmittance.sum()
        gradients.append(torch.autograd.grad(loss, [frame.density, frame.rgb], retain_graph=True))
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(whole, [frame.density, frame.rgb]))
    for found, expected in zip(*gradients, strict=True):
        others = frame.ray != 5
        torch.testing.assert_close(found[others], expected[others], atol=1e-6, rtol=1e-5)


def test_weights_behind_what_is_no_number_are_none() -> None:
    """How much light comes so far is not known there; in front of it, and on other rays, it is."""
    depths = torch.tensor([1.0, math.nan, 1.0, 2.0, 1.0]).double()
    found = weights_of(depths, torch.tensor([0, 0, 0, 1, 1], dtype=torch.int32))
    nan = math.nan
    expected = [1 - math.exp(-1), nan, nan, 1 - math.exp(-2), math.exp(-2) - math.exp(-3)]
    assert found.tolist() == pytest.approx(expected, nan_ok=True)


def test_gradients_of_a_picture_are_those_of_the_definition() -> None:
    """Fine-tuning goes by these; checked against differences in float64."""
    ray = torch.tensor([0, 0, 0, 2, 2], dtype=torch.int32)
    generator = torch.Generator().manual_seed(2)
    density = torch.rand(5, generator=generator).double().requires_grad_()
    rgb = torch.rand(5, 3, generator=generator).double().requires_grad_()
    distance, length = torch.linspace(1, 2, 5).double(), torch.full((5,), 0.5).double()

    def picture(density: Tensor, rgb: Tensor) -> tuple[Tensor, ...]:
        found = composite(density, rgb, ray, distance, length, 3)
        return found.rgb, found.depth, found.transmittance

    assert torch.autograd.gradcheck(picture, (density, rgb))


@pytest.mark.parametrize("passes", [None, [4, 8], [1] * 40])
def test_at_threshold_0_it_is_one_pass(passes: list[int] | None) -> None:
    """Quality is measured so; bit for bit the picture of all samples at once, however the passes are set."""
    frame = Frame()
    found, expected = frame.passes(0.0, passes), frame.whole()
    for a, b in ((found.rgb, expected.rgb), (found.depth, expected.depth), (found.evaluated, expected.evaluated)):
        assert torch.equal(a, b)
    assert torch.equal(found.transmittance, expected.transmittance)
    assert frame.asked == list(range(len(frame.ray)))


def test_passes_that_stop_nothing_are_one_pass() -> None:
    """Light is handed on from pass to pass; at a threshold that no ray reaches all have to give the same."""
    frame = Frame()
    found, expected = frame.passes(1e-30, [3, 1, 7]), frame.whole()
    torch.testing.assert_close(found.rgb, expected.rgb, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.depth, expected.depth, atol=1e-6, rtol=1e-6)
    assert sorted(frame.asked) == list(range(len(frame.ray)))


@pytest.mark.parametrize("passes", [[1] * 40, [4, 8]])
def test_the_error_is_at_most_the_threshold(passes: list[int]) -> None:
    """What is left out is what hardly any light comes through: over black and over white, in colour and opacity, and
    each sample in front of the place where a ray stops is asked for once."""
    for seed, threshold in enumerate((0.001, 0.01, 0.1, 0.3, 0.9)):
        frame = Frame(seed)
        found, exact = frame.passes(threshold, passes), frame.whole()
        for background in (torch.zeros(3), torch.ones(3)):
            assert float((found.over(background) - exact.over(background)).abs().max()) <= threshold + 1e-6
        assert float((found.accumulation - exact.accumulation).abs().max()) <= threshold + 1e-6
        expected = asked_by_hand(frame, threshold, passes)
        assert sorted(frame.asked) == expected
        assert len(expected) < len(frame.ray)
        assert found.evaluated.sum() == len(frame.asked)


def test_rays_that_nothing_comes_through_are_left_out() -> None:
    """This is the gain: behind a wall nothing is evaluated but what was in the same pass."""
    ray = torch.zeros(20, dtype=torch.int32)
    asked: list[int] = []

    def evaluate(which: Tensor) -> tuple[Tensor, Tensor]:
        asked.extend(which.tolist())
        return torch.full((len(which),), 50.0), torch.ones(len(which), 3)

    found = render(evaluate, ray, torch.ones(20), torch.full((20,), 0.1), 2, 0.01, [4, 8])
    assert asked == [0, 1, 2, 3] and found.evaluated.tolist() == [4, 0]
    assert found.transmittance.tolist() == pytest.approx([math.exp(-20), 1.0])


def test_passes_are_as_many_as_leave_the_networks_enough_points() -> None:
    """Each pass starts four products for every network anew; a frame of few samples is done at once, and so is any on a
    CPU. Many points for few networks are no reason for thousands of passes, each of which looks at all rays."""
    assert automatic_passes(60_000, 10_000, 800) == [] and automatic_passes(0, 0, 0) == []
    assert automatic_passes(60_000, 1000, 400) == [30]  # 2 passes of some 30 samples a ray
    assert automatic_passes(60_000, 1000, 300) == [20, 20]  # 3 passes of some 20 samples a ray
    assert automatic_passes(10**6, 10**5, 1) == [4, 4] and automatic_passes(10**6, 10**5, 0) == [4, 4]
    for device in ("cpu", torch.device("cpu")):
        assert automatic_passes(60_000, 1000, 300, device) == []


def test_the_last_sample_of_each_ray_is_its_background() -> None:
    """An unbounded scene goes on behind the last sample in its colour; a ray without samples has none."""
    ray = torch.tensor([0, 0, 2, 4, 4, 4], dtype=torch.int32)
    rgb = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    black = torch.zeros(3)
    expected = torch.stack([rgb[1], black, rgb[2], black, rgb[5], black])
    assert torch.equal(last_colours(rgb, ray, 6), expected)
    assert torch.equal(last_colours(rgb[:0], ray[:0], 2), torch.zeros(2, 3))


def test_nothing_to_render_is_background() -> None:
    """A view beside the scene, or of a model that has no networks yet."""
    none = torch.zeros(0, dtype=torch.int32)
    empty = torch.zeros(0)
    for found in (
        composite(empty, torch.zeros(0, 3), none, empty, empty, 2),
        render(lambda which: (empty, torch.zeros(0, 3)), none, empty, empty, 2, 0.01, [4]),
    ):
        assert found.transmittance.tolist() == [1.0, 1.0] and found.rgb.tolist() == [[0.0] * 3] * 2


def test_thresholds_and_passes_out_of_range_are_named() -> None:
    """At a threshold of 1 nothing would ever be drawn."""
    frame = Frame()
    with pytest.raises(ValueError, match=r"model\.transmittance_threshold must be in \[0, 1\), got 1"):
        frame.passes(1.0)
    with pytest.raises(ValueError, match=r"model\.samples_per_pass must be at least 1, got \[4, 0\]"):
        frame.passes(0.1, [4, 0])
