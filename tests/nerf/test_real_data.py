"""Real captures: a render with an alpha channel, photographs taken by hand with lens distortion; and whole runs on data
of every kind that people have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.utils.eval_utils import eval_setup
from support.pictures import blender_scene, mask, picture, scene
from support.tiny_run import after_each_step, checkpoint, make_config, same_bits, start, tiny_widths, train, widths

from nerfstudio_prune.data.pixels import crop_circle
from nerfstudio_prune.nerf import calibration as calibration_module

KEPT = (slice(2, 6), slice(3, 9))
Run = Callable[..., Any]
DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("method", "folder", "dataparser"),
    [
        ("nerf-prune", "lego_100", BlenderDataParserConfig),
        ("nerf-prune-real", "fox_135x240", NerfstudioDataParserConfig),
    ],
)
def test_real_scene_trains_and_prunes(tmp_path: Path, method: str, folder: str, dataparser: Any) -> None:
    """The built-in scene is kind: one size, no distortion, near and far known. A capture has all of that, and its rays
    must give finite losses before and after a cut, and a finite PSNR on its evaluation views."""
    if not (DATA / folder).is_dir():
        pytest.skip(f"no {folder} in {DATA}")
    config = make_config(tmp_path, tmp_path, method=method, start_step=4)
    config.pipeline.datamanager.dataparser = dataparser(data=DATA / folder)
    trainer = train(config)
    model = trainer.pipeline.model
    assert widths(model) == tiny_widths(8, 4)
    (event,) = model.prune_state.history
    assert 3 < event.metrics_before["psnr"] < 40 and 3 < event.metrics_after["psnr"] < 40
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_real_method_suits_unbounded_scenes(tmp_path: Path) -> None:
    """Near 2 and far 6 cut a hand-held capture in pieces: its samples must begin close to the camera and reach the
    background, where half of them are spread in disparity, and positions must stay in the unit ball."""
    config = make_config(tmp_path, tmp_path, method="nerf-prune-real")
    model = config.pipeline.model.setup(scene_box=None, num_train_data=1)
    origins, directions = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -1.0]])
    bundle = model.collider(RayBundle(origins, directions, torch.full((1, 1), 1e-4)))
    model.eval()
    samples = model.sampler_uniform(bundle)
    starts, ends = samples.frustums.starts[0, :, 0], samples.frustums.ends[0, :, 0]
    assert float(starts[0]) == pytest.approx(0.05) and float(ends[-1]) == pytest.approx(1000.0, rel=1e-3)
    assert 3 <= int((ends <= 1.0).sum()) <= 5  # about half of the 8 samples
    positions = model.field_fine.spatial_distortion(samples.frustums.get_positions())
    assert 0.95 < float(positions.norm(dim=-1).max()) < 1.0
    near = torch.tensor([[0.2, -0.4, 0.6]])
    assert torch.allclose(model.field_fine.spatial_distortion(near), near / 2)
    assert model.renderer_rgb.background_color == "last_sample"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Makes configurations of runs with a cut at step 4 and evaluations of every kind at steps 3, 6 and 9."""

    def make(dataparser: Any, name: str = "run", method: str = "nerf-prune-real", **prune: Any) -> Any:
        config = make_config(tmp_path, tmp_path, name, method, **{"start_step": 4, **prune})
        config.pipeline.datamanager.dataparser = dataparser
        config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 3
        return config

    return make


def photographs(folder: Path, **options: Any) -> NerfstudioDataParserConfig:
    return NerfstudioDataParserConfig(data=scene(folder, **options))


def of_two_sizes(folder: Path) -> NerfstudioDataParserConfig:
    """Masked photographs of two sizes."""
    sizes = {i: 10 if i % 2 else 12 for i in range(10)}
    return photographs(
        folder,
        frames={i: {"w": width, "cx": width / 2} for i, width in sizes.items()},
        pictures={i: picture(width=width, seed=i) for i, width in sizes.items()},
        masks={i: mask(KEPT, width=width) for i, width in sizes.items()},
        w=None,
        cx=None,
    )


@pytest.mark.parametrize(
    ("make", "measured"),
    [
        pytest.param(lambda p: photographs(p, every_mask=KEPT), True, id="masks and one evaluation view"),
        pytest.param(of_two_sizes, True, id="masks and two sizes"),
        pytest.param(lambda p: photographs(p, every_mask=(3, 4)), True, id="fewer pixels than rays"),
        pytest.param(lambda p: InstantNGPDataParserConfig(data=scene(p)), True, id="instant-ngp, one evaluation view"),
        pytest.param(lambda p: photographs(p, views=3), False, id="no evaluation view"),
        pytest.param(
            lambda p: BlenderDataParserConfig(data=blender_scene(p, {"train": 3})), False, id="Blender, no val"
        ),
        pytest.param(
            lambda p: NerfstudioDataParserConfig(data=scene(p, views=3), eval_mode="all"),
            True,
            id="evaluated on training",
        ),
        pytest.param(
            lambda p: photographs(p, every_mask=KEPT, camera_model="EQUIRECTANGULAR"), True, id="panoramas with masks"
        ),
    ],
)
def test_data_of_every_kind_trains(
    tmp_path: Path, run: Run, make: Any, measured: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of these ended in the host's own code: at the first batch, at the first evaluation, or at the first cut. All
    can be trained; where nothing can be measured the cut stands without its PSNR, `ns-eval` says why, and a line has
    said so at the start."""
    trainer = train(run(make(tmp_path / "data")))
    (event,) = trainer.pipeline.model.prune_state.history
    assert widths(trainer.pipeline.model) == tiny_widths(8, 4)
    for metrics in (event.metrics_before, event.metrics_after):
        assert metrics.keys() == ({"psnr"} if measured else set()) and all(map(np.isfinite, metrics.values()))
    assert ("No evaluation views" in capsys.readouterr().out) == (not measured)
    _, pipeline, _, _ = eval_setup(trainer.base_dir / "config.yml", test_mode="val")
    if measured:
        found: Any = pipeline.get_average_eval_image_metrics()
        assert np.isfinite(found["psnr"]) and -1 <= found["fine_ssim"] <= 1
    else:
        with pytest.raises(ValueError, match=r"nothing to evaluate on, there are no evaluation views: .*split"):
            pipeline.get_average_eval_image_metrics()


def test_one_rule_for_the_pixels_of_a_fisheye(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a circular fisheye 81 % of the calibration rays and of the cut's PSNR lay in black corners that training never
    sees. Training, evaluation batch, calibration, the cut's PSNR and `ns-eval` all have to keep to the circle."""
    config = run(
        photographs(tmp_path / "data", camera_model="OPENCV_FISHEYE", fisheye_crop_radius=3.0),
        strategy="importance",
        score="w_in_w_out",
        refit="lstsq",
        calibration_rays=64,
        calibration_samples=128,
    )
    drawn: list[torch.Tensor] = []
    inner = calibration_module.draw_rays

    def spy(*arguments: Any) -> Any:
        rays, colours = inner(*arguments)
        drawn.append(colours)
        return rays, colours

    monkeypatch.setattr(calibration_module, "draw_rays", spy)
    trainer = train(config)
    data, measure = trainer.pipeline.datamanager, trainer.pipeline.measure
    circle = crop_circle(8, 12, 3.0)
    inside = {tuple(c.tolist()) for view in range(9) for c in data.train_dataset[view]["image"][circle]}
    assert len(drawn) == 1 and {tuple(c.tolist()) for c in drawn[0]} <= inside
    for dataset, (_, batch) in ((data.train_dataset, data.next_train(0)), (data.eval_dataset, data.next_eval(0))):
        assert bool(circle[batch["indices"][:, 1], batch["indices"][:, 2]].all()) and dataset.limited
    truth = data.eval_dataset[0]["image"]
    assert {tuple(c.tolist()) for c in measure._batch[1]} <= {tuple(c.tolist()) for c in truth[circle]}
    pipeline = trainer.pipeline
    with torch.no_grad():
        outputs = pipeline.model.eval().get_outputs_for_camera(data.eval_dataset.cameras[0:1])
    error = float(((outputs["rgb_fine"] - truth)[circle] ** 2).mean())
    assert pipeline.get_average_eval_image_metrics()["psnr"] == pytest.approx(-10 * np.log10(error), rel=1e-4)


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_photograph_that_goes_away_in_mid_training(tmp_path: Path, run: Run, on_error: str) -> None:
    """A disk that goes offline is met at an event, when calibration reads photographs. The event fails by the file's
    name, and `on_error` says what becomes of the run; the PSNR needs no file any more."""
    config = run(
        photographs(tmp_path / "data"),
        start_step=4,
        refit="lstsq",
        strategy="importance",
        score="w_out",
        on_error=on_error,
    )
    config.steps_per_eval_image = config.steps_per_eval_all_images = 1000
    trainer = start(config)

    def lose(step: int) -> None:
        for path in (tmp_path / "data" / "images").glob("*") if step == 2 else ():
            path.unlink()

    after_each_step(trainer, lose)
    if on_error == "stop":
        with pytest.raises(ValueError, match=r"picture .*00\d\.png, or its mask, cannot be read"):
            trainer.train()
    else:
        trainer.train()
        assert [".png, or its mask, cannot be read" in e.error for e in trainer.pipeline.model.prune_state.history] == [
            True
        ]
    assert trainer.pipeline.measure(trainer.pipeline.model)["psnr"] > 3


def test_configuration_of_an_earlier_version_is_looked_at_too(tmp_path: Path, run: Run) -> None:
    """A `config.yml` of before names the host's data manager; what it starts needs the same care."""
    config = run(photographs(tmp_path / "data", every_mask=KEPT))
    config.pipeline.datamanager._target = VanillaDataManager
    (event,) = train(config).pipeline.model.prune_state.history
    assert event.metrics_before["psnr"] > 3
    (tmp_path / "data" / "images" / "003.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 20 pictures cannot be trained as they are.\nnot there: .*003\.png"):
        start(config)


def test_masked_runs_resume_bit_for_bit(tmp_path: Path, run: Run) -> None:
    """Draws within masks keep nothing from step to step: a run that stops where pixels are few goes on with the same
    ones."""
    parser = photographs(tmp_path / "data", every_mask=(3, 4), masks={2: mask(KEPT)})
    config = run(parser, "whole")
    config.steps_per_eval_image = config.steps_per_eval_batch = config.steps_per_eval_all_images = 1000
    config.steps_per_save, config.save_only_latest_checkpoint = 6, False
    whole = train(config, same_noise=True)
    resumed = run(parser, "resumed")
    resumed.steps_per_eval_image = resumed.steps_per_eval_batch = resumed.steps_per_eval_all_images = 1000
    resumed.load_dir, resumed.load_step, resumed.max_num_iterations = whole.checkpoint_dir, 6, 3
    again = train(resumed, same_noise=True)
    assert same_bits(checkpoint(whole, 9)["pipeline"], checkpoint(again, 9)["pipeline"])
