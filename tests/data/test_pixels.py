"""Which pixels count: those that the host's own samplers draw, for whoever reads a view."""

from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from support.pictures import HEIGHT, WIDTH, mask, scene

from nerfstudio_prune.data.pixels import CountedDataset, count_pixels, counted_pixels, crop_circle
from nerfstudio_prune.data.sampling import draw_within_masks

KEPT = (slice(2, 6), slice(3, 9))
FISHEYE = {"camera_model": "OPENCV_FISHEYE", "fisheye_crop_radius": 3.0}


def views(folder: Path, ignore_mask: bool = False, scale: float = 1.0, **options: Any) -> CountedDataset:
    """Training views of a data set."""
    parser = NerfstudioDataParserConfig(data=scene(folder, views=4, **options), eval_mode="all").setup()
    dataset = CountedDataset(parser.get_dataparser_outputs("train"), scale)
    dataset.ignore_mask = ignore_mask
    return dataset


@pytest.mark.parametrize(("height", "width", "radius"), [(9, 12, 3.0), (8, 7, 3.4), (6, 6, 6.0), (5, 9, 0.5)])
def test_crop_circle_holds_what_the_host_draws(height: int, width: int, radius: float) -> None:
    """A rule of our own beside the host's would calibrate on pixels that training never sees. Many draws of the host
    find every pixel that the circle touches well, and none outside."""
    torch.manual_seed(0)
    sampler = PixelSampler(PixelSamplerConfig(), fisheye_crop_radius=radius)
    drawn = torch.zeros(height, width, dtype=torch.bool)
    _, y, x = sampler.sample_method_fisheye(200_000, 1, height, width).T
    drawn[y, x] = True
    found = crop_circle(height, width, radius)
    assert not bool((drawn & ~found).any())
    assert int((found & ~drawn).sum()) <= 1  # the circle may only just touch a pixel
    assert bool(found.all()) == (radius == 6.0) and bool(found.any())


def test_masks_limit_the_pixels(tmp_path: Path) -> None:
    """White counts, black does not, whatever the picture shows; a view's own data and what is asked without its picture
    must agree."""
    dataset = views(tmp_path, every_mask=KEPT, masks={2: mask((0, 0))})
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    expected[2:6, 3:9] = True
    assert torch.equal(counted_pixels(dataset[0]), expected) and torch.equal(dataset.pixels(0), expected)  # type: ignore[arg-type]
    assert counted_pixels(dataset[2]).nonzero().tolist() == [[0, 0]]
    assert dataset.limited == "masks"
    assert count_pixels(dataset) == [(24, 96), (24, 96), (1, 96), (24, 96)]


def test_masks_come_before_the_lens_and_may_be_ignored(tmp_path: Path) -> None:
    """The host asks for a mask first, and where it ignores masks for the radius of the lens."""
    both = {**FISHEYE, "every_mask": KEPT}
    assert views(tmp_path / "a", **both).limited == "masks"
    ignoring = views(tmp_path / "b", ignore_mask=True, **both)
    circle = crop_circle(HEIGHT, WIDTH, 3.0)
    assert ignoring.limited == "fisheye_crop_radius"
    assert torch.equal(counted_pixels(ignoring[1]), circle) and torch.equal(ignoring.pixels(1), circle)  # type: ignore[arg-type]
    free = views(tmp_path / "c", ignore_mask=True, every_mask=KEPT)
    assert free.limited == "" and "mask" not in free[0] and free.pixels(0) is None
    assert count_pixels(free) == [(96, 96)] * 4


def test_without_limits_a_view_is_what_the_host_gives(tmp_path: Path) -> None:
    """Runs on data without masks must not change by a bit; a mask of ones would change how pixels are drawn."""
    dataset = views(tmp_path)
    host = super(CountedDataset, dataset).get_data(1)
    assert host.keys() == dataset[1].keys() == {"image_idx", "image"} and torch.equal(
        host["image"], dataset[1]["image"]
    )
    assert dataset.limited == "" and bool(counted_pixels(dataset[1]).all())


def test_scaled_views_have_scaled_masks(tmp_path: Path) -> None:
    """`camera-res-scale-factor` shrinks pictures, cameras and masks together."""
    dataset = views(tmp_path, scale=0.5, every_mask=KEPT)
    assert counted_pixels(dataset[0]).shape == (4, 6) == tuple(dataset.pixels(0).shape)  # type: ignore[union-attr]
    assert count_pixels(dataset)[0] == (6, 24)


def test_subset_keeps_cameras_and_files_together(tmp_path: Path) -> None:
    """A view that lost its camera would be trained from another place."""
    dataset = views(tmp_path, ignore_mask=True, every_mask=KEPT, **FISHEYE)
    part = dataset.subset([3, 1])
    assert [name.name for name in part.image_filenames] == ["003.png", "001.png"] and part.ignore_mask
    assert torch.equal(part.cameras.camera_to_worlds, dataset.cameras.camera_to_worlds[[3, 1]])
    assert torch.equal(part[0]["image"], dataset[3]["image"]) and part.crop_radius == 3.0
    assert part._dataparser_outputs.mask_filenames == [dataset._dataparser_outputs.mask_filenames[i] for i in (3, 1)]  # type: ignore[index]


@pytest.mark.parametrize("lost", ["001.png", "001_mask.png"])
def test_file_that_has_gone_is_named(tmp_path: Path, lost: str) -> None:
    """An event reads photographs in mid-training; an error without the file's name helps nobody, and one that is no
    ValueError would end a run that goes on after errors."""
    dataset = views(tmp_path, every_mask=KEPT)
    (tmp_path / "images" / lost).unlink()
    with pytest.raises(ValueError, match=rf"picture .*001\.png, or its mask, cannot be read.*{lost}"):
        dataset[1]
    if "mask" in lost:
        with pytest.raises(ValueError, match=f"the mask .*{lost} cannot be read"):
            dataset.pixels(1)


def draw(method: Any, masks: torch.Tensor, count: int) -> torch.Tensor:
    """Draws of a sampler's method for rejection."""
    images, height, width = masks.shape[:3]
    return method(
        mask=masks, num_samples=count, num_images=images, image_height=height, image_width=width, device="cpu"
    )


def test_draws_are_the_hosts_where_it_works() -> None:
    """A run with masks that trained before must see the same pixels."""
    masks = torch.rand(3, 8, 12, 1, generator=torch.Generator().manual_seed(0)) < 0.4
    torch.manual_seed(1)
    theirs = draw(PixelSampler(PixelSamplerConfig()).rejection_sample_mask, masks, 500)
    torch.manual_seed(1)
    ours = draw(draw_within_masks(PixelSampler(PixelSamplerConfig())).rejection_sample_mask, masks, 500)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("rejection", [True, False])
@pytest.mark.parametrize("images", [1, 3])
def test_draws_where_the_host_fails(rejection: bool, images: int) -> None:
    """One view (the host squeezes its axis away), and fewer pixels than rays: they are drawn evenly, more than once
    each, and none outside of the masks; and so for as long as the training lasts."""
    masks = torch.zeros(images, 40, 60, 1, dtype=torch.bool)
    masks[images - 1, 3, 5] = masks[0, 39, 59] = True
    config = PixelSamplerConfig(rejection_sample_mask=rejection, max_num_iterations=2)
    sampler = draw_within_masks(PixelSampler(config, num_rays_per_batch=400))
    assert config.rejection_sample_mask == rejection  # the host shares it between training and evaluation
    torch.manual_seed(0)
    for _ in range(2):
        batch = sampler.sample(
            {"image": torch.rand(images, 40, 60, 3), "mask": masks, "image_idx": torch.arange(images)}
        )
        places, counts = batch["indices"].unique(dim=0, return_counts=True)
        assert sorted(map(tuple, places.tolist())) == sorted([(0, 39, 59), (images - 1, 3, 5)])
        assert 140 < int(counts.min()) <= int(counts.max()) < 260 and bool(batch["mask"].all())


def test_no_pixel_to_draw() -> None:
    """Said by its cause, where the host would fail for the size of a population."""
    sampler = draw_within_masks(PixelSampler(PixelSamplerConfig(max_num_iterations=2)))
    with pytest.raises(ValueError, match="the masks leave no pixel to draw"):
        draw(sampler.rejection_sample_mask, torch.zeros(2, 4, 4, 1, dtype=torch.bool), 8)
