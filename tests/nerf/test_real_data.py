"""Real captures: a render with an alpha channel, and photographs taken by hand with lens distortion."""

from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from support.tiny_run import make_config, tiny_widths, train, widths

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
