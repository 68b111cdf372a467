"""The demo, tiny: it must run through, measure three times, and leave its picture and files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from PIL import Image

from nerfstudio_prune.demo import demonstration
from nerfstudio_prune.demo.command import Demo
from nerfstudio_prune.demo.demonstration import Demonstration, side_by_side
from nerfstudio_prune.engine.checkpoints import checkpoint_bytes, newest_checkpoint
from nerfstudio_prune.engine.host import reset_host
from nerfstudio_prune.scenes.demo_dataparser import default_cache_folder


def refuse_download(url: str, *args: Any, **kwargs: Any) -> None:
    raise AssertionError(f"tried to download {url}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demonstration, str, Path]]:
    """A demo of 12 steps on 16x16 pixels, what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        patch.setattr(torch.hub, "download_url_to_file", refuse_download)
        dataparser = all_methods["nerf-prune-demo"].pipeline.datamanager.dataparser  # type: ignore[attr-defined]
        patch.setattr(dataparser, "data", folder / "scene")
        for split in ("train", "val"):
            patch.setattr(dataparser, f"num_{split}_views", 2)
        patch.setattr(dataparser, "supersampling", 1)
        made: list[Demonstration] = []
        run = Demonstration.run
        patch.setattr(Demonstration, "run", lambda demo: (made.append(demo), run(demo)))
        with demonstration.CONSOLE.capture() as capture:
            Demo(output_dir=folder / "runs", max_num_iterations=12, image_size=16, num_test_views=2).main()
        (small,) = made
    yield small, " ".join(capture.get().split()), folder
    reset_host()
    torch.set_flush_denormal(False)


def test_three_records_that_shrink(demo: tuple[Demonstration, str, Path]) -> None:
    """The table is the claim of the project: dense, right after the cut and at the end, on the same views; sizes fall
    with the cut and not later, and no throughput claimed where no step was taken."""
    dense, cut, end = demo[0].records
    assert [record.label for record in demo[0].records] == ["dense", "right after pruning", "after recovery"]
    assert dense.parameters > cut.parameters == end.parameters
    assert dense.macs_per_ray > cut.macs_per_ray == end.macs_per_ray
    assert dense.field_mb == pytest.approx(dense.parameters * 4e-6) and dense.checkpoint_mb > 2.9 * dense.field_mb
    assert dense.checkpoint_mb > cut.checkpoint_mb
    assert cut.rays_per_sec is None and (dense.rays_per_sec or 0) > 0 and (end.rays_per_sec or 0) > 0
    for record in demo[0].records:
        assert record.image.shape == (16, 16, 3) and record.image.dtype == np.uint8
        assert 3 < record.psnr < 60 and -1 <= record.ssim <= 1
    assert not np.array_equal(dense.image, end.image)


def test_files(demo: tuple[Demonstration, str, Path]) -> None:
    """Everything that the last lines name must exist, and lie in the folder that was asked for."""
    small, text, folder = demo
    (run,) = (folder / "runs/demo/nerf-prune-demo").iterdir()
    assert {"config.yml", "side_by_side.png", "nerfstudio_models"} <= {path.name for path in run.iterdir()}
    saved = newest_checkpoint(run / "nerfstudio_models").path
    assert saved.name == "step-000000011.ckpt"
    assert small.records[-1].checkpoint_mb == pytest.approx(saved.stat().st_size / 1e6, rel=0.05)
    # Four pictures of 32 pixels with margins of 8 between and around, and room for a caption.
    with Image.open(run / "side_by_side.png") as picture:
        assert picture.size == (4 * 40 + 8, 32 + 20 + 8)
    for path in (run / "config.yml", run / "side_by_side.png", saved):
        assert str(path) in text
    assert {path.name for path in folder.iterdir()} <= {"runs", "scene", "torch"}


def test_printed_table(demo: tuple[Demonstration, str, Path]) -> None:
    """The numbers on the console are the recorded ones, and the summary their ratios."""
    small, text, _ = demo
    assert "nerf-prune-demo, mean of 2 test views" in text
    for record in small.records:
        assert f"{record.parameters:,}" in text and f"{record.macs_per_ray:,}" in text and f"{record.psnr:.2f}" in text
    dense, _, end = small.records
    assert f"{dense.parameters / end.parameters:.1f}x fewer parameters" in text
    assert f"{dense.macs_per_ray / end.macs_per_ray:.1f}x fewer MACs" in text
    assert "ns-eval --load-config" in text
    assert "ns-viewer --load-config" in text


def test_side_by_side_places_pictures_and_keeps_pixels() -> None:
    """Smoothing would hide what pruning does to fine texture: each pixel becomes a block of its own colour."""
    red, blue = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, np.arange(6).reshape(2, 3) * 40
    picture = np.asarray(side_by_side([red, blue], ["", ""], scale=4))
    assert picture.shape == (8 + 20 + 8, 2 * (12 + 8) + 8, 3)
    assert (picture[20:28, 8:20] == [255, 0, 0]).all()
    assert np.array_equal(picture[20:28:4, 28:40:4], blue)
    assert np.array_equal(picture[23:28:4, 31:40:4], blue)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": 3}, "view must be in [0, 2], got 3"),
        ({"view": -1}, "view must be in [0, 2], got -1"),
        ({"max_num_iterations": 3}, "max_num_iterations must be at least 4, got 3"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Both would fail only after the training, when the picture or the summary is made."""
    with pytest.raises(ValueError) as caught:
        Demo(output_dir=tmp_path, **options).main()
    assert message in str(caught.value) and list(tmp_path.iterdir()) == []


def test_default_run_is_the_registered_method() -> None:
    """`make demo` and `ns-train nerf-prune-demo` must not drift apart; only the views and the trainer's own evaluation
    differ, and nothing of the registered method may be changed by building it."""
    registered: Any = all_methods["nerf-prune-demo"]
    config: Any = Demonstration(Demo()).config()
    assert config.pipeline.model == registered.pipeline.model
    assert config.max_num_iterations == registered.max_num_iterations
    assert config.pipeline.prune == registered.pipeline.prune
    assert config.pipeline.datamanager.dataparser.data == default_cache_folder()
    assert config.timestamp != "{timestamp}" and registered.timestamp == "{timestamp}"


def test_size_of_a_checkpoint_counts_the_moments(demo: tuple[Demonstration, str, Path]) -> None:
    """People compare with the files on their disk, which hold two moments per weight."""
    trainer = demo[0]._trainer
    saved = newest_checkpoint(trainer.checkpoint_dir).path
    assert checkpoint_bytes(trainer) == pytest.approx(saved.stat().st_size, rel=0.02)
