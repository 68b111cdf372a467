"""The demo, tiny: it must run through, measure at every turn, and leave its picture and files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from PIL import Image
from support.counted_threads import CountedThreads

from nerfstudio_prune.demo import demonstration
from nerfstudio_prune.demo.command import Demo
from nerfstudio_prune.demo.demonstration import Demonstration
from nerfstudio_prune.demo.pictures import details, framed, side_by_side
from nerfstudio_prune.demo.shows import SHOWS, missing
from nerfstudio_prune.engine.checkpoints import checkpoint_bytes, newest_checkpoint
from nerfstudio_prune.engine.host import reset_host
from nerfstudio_prune.engine.threads import Threads
from nerfstudio_prune.scenes.demo_dataparser import default_cache_folder


def refuse_download(url: str, *args: Any, **kwargs: Any) -> None:
    raise AssertionError(f"tried to download {url}")


@dataclass
class Made:
    """A demo that ran."""

    what: Literal["splats", "neurons"]
    demo: Demonstration
    text: str
    """What it printed, with single spaces."""
    folder: Path
    numbers: dict[str, int]
    """Moment -> threads that it was measured with, where torch would take two and one was asked for."""
    held: list[int]
    """Moments before each time that the number was fixed."""


@pytest.fixture(scope="module", params=["splats", "neurons"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A demo of 12 steps on 16x16 pixels."""
    what, folder = request.param, tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        patch.setattr(torch.hub, "download_url_to_file", refuse_download)
        method: Any = all_methods[SHOWS[what].method]
        dataparser = method.pipeline.datamanager.dataparser
        patch.setattr(dataparser, "data", folder / "scene")
        for split in ("train", "val"):
            patch.setattr(dataparser, f"num_{split}_views", 2)
        patch.setattr(dataparser, "supersampling", 1)
        ran: list[Demonstration] = []
        run = Demonstration.run
        patch.setattr(Demonstration, "run", lambda demo: (ran.append(demo), run(demo)))
        counted = CountedThreads(patch, 2)
        patch.setattr(method.pipeline.compute, "num_threads", 1)
        numbers: dict[str, int] = {}
        inner = Demonstration.__call__

        def measured(demo: Demonstration, model: Any) -> dict[str, float]:
            numbers[SHOWS[what].moments[len(demo.moments)]] = counted.number
            return inner(demo, model)

        patch.setattr(Demonstration, "__call__", measured)
        held: list[int] = []
        patch.setattr(Threads, "hold", lambda threads: held.append(len(ran[0].moments)))
        with demonstration.CONSOLE.capture() as capture:
            Demo(what, output_dir=folder / "runs", max_num_iterations=12, image_size=16, num_test_views=2).main()
    yield Made(what, ran[0], " ".join(capture.get().split()), folder, numbers, held)
    reset_host()
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")


def test_moments_that_shrink(made: Made) -> None:
    """The table is the claim of the project: before, right after the cut and at the end, on the same views; sizes fall
    with the cut and not later, and no throughput is claimed where no step was taken, no size of a checkpoint where the
    cut has cleared the moments that make up two thirds of it."""
    show, moments = SHOWS[made.what], {moment.label: moment for moment in made.demo.moments}
    assert tuple(moments) == show.moments
    dense, cut, end = moments[show.dense], moments[show.cut], made.demo.moments[-1]
    assert all(dense.costs[name] > cut.costs[name] >= end.costs[name] for name in dense.costs)
    assert dense.weights_mb == pytest.approx(dense.costs["parameters"] * 4e-6)
    assert dense.checkpoint_mb is not None and end.checkpoint_mb is not None
    assert dense.checkpoint_mb > 2.9 * dense.weights_mb and dense.checkpoint_mb > end.checkpoint_mb
    config: Any = made.demo.config()
    recovery = config.pipeline.prune.filled().recovery
    assert (cut.checkpoint_mb is None) == (recovery == "retrain") == (made.what == "splats")
    assert cut.checkpoint_mb is None or dense.checkpoint_mb > cut.checkpoint_mb
    assert all(m.checkpoint_mb is None or m.checkpoint_mb > 2.9 * m.weights_mb for m in moments.values())
    assert cut.rays_per_sec is None and (dense.rays_per_sec or 0) > 0 and (end.rays_per_sec or 0) > 0
    for moment in made.demo.moments:
        assert moment.image.shape == (16, 16, 3) and moment.image.dtype == np.uint8
        assert 3 < moment.psnr < 60 and -1 <= moment.ssim <= 1 and moment.frame_ms > 0
    assert not np.array_equal(dense.image, end.image)


def test_moments_are_measured_at_one_number_of_threads(made: Made) -> None:
    """The cut network is compared with the dense one: were one of them rendered by more threads, the cut would be
    credited with what the threads did. The number stays as it is from the moment on that the end is compared with."""
    show = SHOWS[made.what]
    since = show.moments[show.moments.index(show.dense) :]
    assert len(since) >= 3 and [made.numbers[moment] for moment in since] == [1] * len(since)
    assert made.held == [show.moments.index(show.dense)]


def test_files(made: Made) -> None:
    """Everything that the last lines name must exist, and lie in the folder that was asked for."""
    (run,) = (made.folder / "runs/demo" / SHOWS[made.what].method).iterdir()
    assert {"config.yml", "side_by_side.png", "nerfstudio_models"} <= {path.name for path in run.iterdir()}
    saved = newest_checkpoint(run / "nerfstudio_models").path
    assert saved.name == "step-000000011.ckpt"
    assert made.demo.moments[-1].checkpoint_mb == pytest.approx(saved.stat().st_size / 1e6, rel=0.05)
    with Image.open(run / "side_by_side.png") as picture:
        wide, high = (3, 2) if made.what == "splats" else (4, 1)
        assert (picture.width - 8) % wide == 0 and picture.height % high == 0 and picture.width > 100
    for path in (run / "config.yml", run / "side_by_side.png", saved):
        assert str(path) in made.text
    assert {path.name for path in made.folder.iterdir()} <= {"runs", "scene", "torch"}


def test_printed_table(made: Made) -> None:
    """The numbers on the console are the recorded ones, and the summary their ratios."""
    text, moments = made.text, made.demo.moments
    assert f"{SHOWS[made.what].method}, mean of 2 test views" in text
    for moment in moments:
        assert f"{moment.costs['parameters']:,}" in text and f"{moment.psnr:.2f}" in text
    (dense,) = (moment for moment in moments if moment.label == SHOWS[made.what].dense)
    assert f"{dense.costs['parameters'] / moments[-1].costs['parameters']:.1f}x fewer parameters" in text
    named = "MACs" if made.what == "neurons" else "Gaussians"
    assert re.search(rf"\d\.\dx fewer {named}", text)
    assert "ns-eval --load-config" in text
    assert "ns-viewer --load-config" in text


def test_missing_rows_are_those_that_left() -> None:
    """What is shown as removed is exactly what was removed, by hand."""
    before = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 4.0], [0.0, 0.0]])
    assert missing(before, before[[0, 2]]).tolist() == [False, True, False, True]


def test_side_by_side_places_pictures_and_keeps_pixels() -> None:
    """Smoothing would hide what pruning does to fine texture: each pixel becomes a block of its own colour."""
    red, blue = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, np.arange(6).reshape(2, 3) * 40
    picture = np.asarray(side_by_side([red, blue], ["", ""], scale=4))
    assert picture.shape == (8 + 24 + 8, 2 * (12 + 8) + 8, 3)
    assert (picture[24:32, 8:20] == [255, 0, 0]).all()
    assert np.array_equal(picture[24:32:4, 28:40:4], blue)
    assert np.array_equal(picture[27:32:4, 31:40:4], blue)
    below = np.asarray(side_by_side([red, red, blue], ["", "", ""], scale=4, columns=2))
    assert below.shape == (2 * 40, 2 * 20 + 8, 3)
    assert np.array_equal(below[64:72:4, 8:20:4], blue)


def test_captions_do_not_run_into_each_other() -> None:
    """A scene that fills little of its view leaves narrow pictures: they are enlarged until what stands above them can
    be read. Without pictures of its own a caption's dark pixels end where its column does."""
    white = np.full((20, 60, 3), 255, np.uint8)
    captions = ["dense: 85,256 parameters, 22.9 dB", "right after pruning: 23,871 parameters, 22.4 dB"]
    both = np.asarray(side_by_side([white, white], captions))
    alone = [np.asarray(side_by_side([white], [caption])) for caption in captions]
    column = (both.shape[1] - 8) // 2
    assert column > 2 * 60 + 8
    first, second = (both[:24, 8 + i * column : (i + 1) * column] for i in range(2))
    assert (both[:24, column : column + 8] == 255).all()  # nothing in the margin between them
    dark = [int((picture < 128).any(axis=-1).sum()) for picture in (first, second)]
    assert dark == [int((picture[:24] < 128).any(axis=-1).sum()) for picture in alone]


def test_frame_is_what_the_truth_shows() -> None:
    """Empty space tells nothing; the frame is the same for all pictures, whatever these show outside of it."""
    truth, other = np.full((9, 12, 3), 255, np.uint8), np.zeros((9, 12, 3), np.uint8)
    truth[3:5, 4:9] = 7
    frames = framed([truth, other], truth, border=1)
    assert [frame.shape for frame in frames] == [(4, 7, 3)] * 2
    assert np.array_equal(frames[0], truth[2:6, 3:10])
    assert framed([other], other)[0].shape == other.shape


def test_detail_is_where_the_cut_hurts_most() -> None:
    """A detail that was chosen by hand could be one that flatters: it is where the picture after the cut is worst."""
    pictures = [np.full((16, 16, 3), value, np.uint8) for value in (10, 20, 10, 40)]
    pictures[2][9:12, 3:6] = 200
    sheet = details(pictures[0], pictures[1:])
    assert sheet.shape == (16, 16, 3)
    assert (sheet[:7, :7] == 10).all() and (sheet[:7, 9:] == 20).all() and (sheet[9:, 9:] == 40).all()
    assert (sheet[9:, :7] == 200).all(axis=-1).sum() == 6 * 5  # a white line is drawn between the four


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


@pytest.mark.parametrize("what", list(SHOWS))
def test_default_run_is_the_registered_method(what: Any) -> None:
    """`make demo` and `ns-train splat-prune-demo` must not drift apart; only the trainer's own evaluation differs, and
    nothing of the registered method may be changed by building it."""
    registered: Any = all_methods[SHOWS[what].method]
    config: Any = Demonstration(Demo(what)).config()
    assert config.pipeline.model == registered.pipeline.model
    assert config.max_num_iterations == registered.max_num_iterations
    assert config.pipeline.prune == registered.pipeline.prune
    assert config.pipeline.datamanager.dataparser.data == default_cache_folder()
    assert config.timestamp != "{timestamp}" and registered.timestamp == "{timestamp}"


def test_demo_renders_the_scene_of_its_method() -> None:
    """Whoever trains the method after the demo does not wait for the views again."""
    registered: Any = all_methods["splat-prune-demo"]
    config: Any = Demonstration(Demo()).config()
    assert config.pipeline.datamanager.dataparser == registered.pipeline.datamanager.dataparser


def test_size_of_a_checkpoint_counts_the_moments(made: Made) -> None:
    """People compare with the files on their disk, which hold two moments per weight."""
    trainer = made.demo._trainer
    saved = newest_checkpoint(trainer.checkpoint_dir).path
    assert checkpoint_bytes(trainer) == pytest.approx(saved.stat().st_size, rel=0.02)
