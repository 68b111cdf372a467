"""Saved runs of Gaussians in Nerfstudio's own commands, and what their configuration is read by."""

import json
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.render import DatasetRender, _render_trajectory_video
from nerfstudio.utils.eval_utils import eval_setup
from plyfile import PlyData
from support import tiny_splats
from support.stock_splats import StockTraining
from support.tiny_splats import counts, pictures, train

from nerfstudio_prune.engine.checkpoints import CheckpointError
from nerfstudio_prune.engine.config_file import read_config_file
from nerfstudio_prune.splats.pipeline import SplatPrunePipeline

Config = Callable[..., Any]
DEGREES = (3, 2, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> dict[int, Any]:
    """Degree of the spherical harmonics -> a finished run that was pruned to it."""
    folder, found = tmp_path_factory.mktemp("trained"), {}
    for degree in DEGREES:
        options = {"sh_degree": degree, "start_step": 10, "sh_step": 11, "pruning_ratio": 0.5, "rounds": 1}
        config = tiny_splats.tiny_config(folder, scene_cache, f"degree{degree}", **options)
        config.max_num_iterations = 13
        config.save_config()
        found[degree] = train(config)
    return found


@pytest.fixture
def gaussian_splat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The host's exporter of Gaussians. Its module imports open3d, which needs libraries of a desktop and seconds, and
    which this exporter has no use for."""
    before = set(sys.modules)
    if "open3d" not in sys.modules:
        monkeypatch.setitem(sys.modules, "open3d", ModuleType("open3d"))
    from nerfstudio.scripts.exporter import ExportGaussianSplat  # noqa: PLC0415  what it imports has to be there

    yield ExportGaussianSplat
    for name in set(sys.modules) - before:
        if name.startswith(("nerfstudio.scripts.exporter", "nerfstudio.exporter")):
            del sys.modules[name]


@pytest.mark.parametrize("degree", DEGREES)
def test_ns_eval(trained: dict[int, Any], degree: int, tmp_path: Path) -> None:
    """`ns-eval` takes the run as it is: its checkpoint, with other numbers of Gaussians and coefficients than the
    configuration beside it says, renders what the run rendered."""
    run = trained[degree]
    output = tmp_path / "metrics.json"
    ComputePSNR(load_config=run.base_dir / "config.yml", output_path=output).main()
    found = json.loads(output.read_text())["results"]
    _, pipeline, path, step = eval_setup(run.base_dir / "config.yml", test_mode="test")
    assert isinstance(pipeline, SplatPrunePipeline) and step == 12 and path.parent == run.checkpoint_dir
    model = pipeline.model
    assert model.gaussians.sh_degree == degree and not model.training
    assert torch.equal(pictures(model, run), pictures(run.pipeline.model, run))
    views = pipeline.datamanager.eval_dataset
    shown = pictures(run.pipeline.model, run, cameras=views.cameras)
    true = torch.stack([views.get_image_float32(view) for view in range(len(views))])
    errors = (shown - true).square().mean(dim=(1, 2, 3))
    assert found["psnr"] == pytest.approx(float(-10 * errors.log10().mean()), abs=1e-4) and "lpips" not in found


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("mode", ["sh_coeffs", "rgb"])
def test_ns_export(
    trained: dict[int, Any], degree: int, mode: Any, tmp_path: Path, gaussian_splat: Any, capsys: Any
) -> None:
    """`ns-export gaussian-splat` writes as many coefficients as the model has left; it asks the configuration, which
    still has the degree of the start, only whether there were any."""
    run = trained[degree]
    gaussian_splat(load_config=run.base_dir / "config.yml", output_dir=tmp_path, ply_color_mode=mode).main()
    vertices = PlyData.read(tmp_path / "splat.ply")["vertex"]
    gaussians = run.pipeline.model.gaussians.detach()
    seen = gaussians.opacities[:, 0] >= -5.5373  # others no rasteriser draws
    assert len(vertices) == int(seen.sum()) > 0
    rest = [name for name in vertices.data.dtype.names if name.startswith("f_rest_")]
    assert len(rest) == (3 * ((degree + 1) ** 2 - 1) if mode == "sh_coeffs" else 0)
    assert np.array_equal(vertices["x"], gaussians.means[seen, 0].numpy())
    assert np.array_equal(vertices["scale_2"], gaussians.scales[seen, 2].numpy())
    if mode == "sh_coeffs":
        assert np.array_equal(vertices["f_dc_1"], gaussians.features_dc[seen, 1].numpy())
        for i, name in enumerate(rest):  # red's coefficients first, then green's
            channel, coefficient = divmod(i, (degree + 1) ** 2 - 1)
            assert np.array_equal(vertices[name], gaussians.features_rest[seen, coefficient, channel].numpy())


@pytest.mark.parametrize("degree", [2, 0])
def test_ns_render(trained: dict[int, Any], degree: int, tmp_path: Path) -> None:
    """`ns-render` asks for pictures of a data set, and of camera paths, at other sizes."""
    config = trained[degree].base_dir / "config.yml"
    names = ["rgb", "rgba", "depth", "accumulation"]
    DatasetRender(load_config=config, output_path=tmp_path, rendered_output_names=names, image_format="png").main()
    assert {path.parent.name: 1 for path in tmp_path.rglob("*.png")} == dict.fromkeys(names, 1)
    _, pipeline, _, _ = eval_setup(config, test_mode="inference")
    cameras = deepcopy(trained[degree].pipeline.datamanager.train_dataset.cameras)
    _render_trajectory_video(
        pipeline,
        cameras,
        tmp_path / "path" / "out.mp4",
        ["rgb"],
        rendered_resolution_scaling_factor=2.0,
        output_format="images",
        image_format="png",
    )
    assert len(list((tmp_path / "path" / "out").glob("*.png"))) == len(cameras)


def test_rendered_depth_and_crop(trained: dict[int, Any]) -> None:
    """Nothing that a viewer or `ns-render` asks for may depend on how many Gaussians there are: a crop box without any
    gives the background."""
    run = trained[0]
    model, camera = run.pipeline.model.eval(), run.pipeline.datamanager.train_dataset.cameras[:1]
    for scale, empty in ((10.0, False), (1e-6, True)):
        box = OrientedBox.from_params((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (scale, scale, scale))
        outputs = model.get_outputs_for_camera(camera, obb_box=box)
        assert outputs["rgb"].shape == (16, 16, 3) and outputs["depth"].shape == (16, 16, 1)
        assert bool((outputs["accumulation"] == 0).all()) == empty
    model.crop_box = None


def test_rgba_picture_put_on_the_background_is_the_picture(trained: dict[int, Any]) -> None:
    """Other programs compose a transparent render by the rule of straight alpha; what lies behind in the viewer or the
    data must not be in it, and a crop box without Gaussians gives nothing at all."""
    run = trained[2]
    model, camera = run.pipeline.model.eval(), run.pipeline.datamanager.train_dataset.cameras[:1]
    gaussians = model.gaussians
    model = model.with_gaussians(replace(gaussians, opacities=torch.full_like(gaussians.opacities, -1.0)))
    outputs = model.get_outputs_for_camera(camera)
    rgba = model.get_rgba_image(outputs)
    colour, alpha = rgba.split([3, 1], dim=-1)
    assert torch.equal(alpha, outputs["accumulation"]) and bool(((alpha > 0.2) & (alpha < 0.8)).any())
    behind = model.behind.expand_as(colour)
    assert float(behind.min()) > 0.1  # on black nothing would have to be taken away
    torch.testing.assert_close(colour * alpha + behind * (1 - alpha), outputs["rgb"], rtol=0, atol=1e-5)
    nowhere = OrientedBox.from_params((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1e-6, 1e-6, 1e-6))
    assert not bool(model.get_rgba_image(model.get_outputs_for_camera(camera, obb_box=nowhere)).any())


def test_nothing_but_the_model_is_in_a_checkpoint(trained: dict[int, Any]) -> None:
    """A teacher, a snapshot or the network of a metric in there would make the file twice as large; all of it loads
    without code."""
    path = trained[2].checkpoint_dir / "step-000000012.ckpt"
    state = torch.load(path, weights_only=True)["pipeline"]
    names = {f"_model.gauss_params.{name}" for name in tiny_splats.NAMES}
    assert set(state) == names | {"_model.device_indicator_param", "_model._extra_state"}
    model = trained[2].pipeline.model
    assert state["_model.gauss_params.means"].shape == (model.num_points, 3)
    assert state["_model.gauss_params.features_rest"].shape == (model.num_points, 8, 3)
    extra = state["_model._extra_state"]
    assert not extra["masks"] and not extra["rewind_snapshot"]
    assert extra["memory"] == {"growth": {"num_iterations": 13}}
    numbers = sum(value.numel() for value in _tensors(torch.load(path, weights_only=True)))
    assert numbers <= 3 * model.num_points * 38 + 100  # parameters and two moments; 38 numbers each at degree 2


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def test_config_file(trained: dict[int, Any]) -> None:
    """`ns-prune` reads a run's `config.yml` without running anything that it names; it must give what the host's own
    loader gives."""
    path = trained[2].base_dir / "config.yml"
    theirs = yaml.load(path.read_text(), Loader=yaml.Loader)
    ours: Any = read_config_file(path)
    assert ours == theirs and ours.pipeline.prune == trained[2].config.pipeline.prune
    assert ours.pipeline._target is SplatPrunePipeline


def test_saved_config_resumes_the_run(trained: dict[int, Any]) -> None:
    """`ns-train --load-config` starts from the saved file."""
    run = trained[2]
    config = yaml.load((run.base_dir / "config.yml").read_text(), Loader=yaml.Loader)
    config.timestamp, config.load_dir, config.max_num_iterations = "again", run.checkpoint_dir, 2
    again = train(config)
    assert counts(again) == counts(run) and again.pipeline.model.gaussians.sh_degree == 2


def test_checkpoint_that_is_not_of_gaussians(trained: dict[int, Any], tmp_path: Path, stock_lpips: None) -> None:
    """What `ns-eval` finds wrong names the file; the run's own checkpoint may have been overwritten."""
    run = trained[3]
    config = yaml.load((run.base_dir / "config.yml").read_text(), Loader=yaml.Loader)
    config.output_dir, config.experiment_name, config.timestamp = tmp_path, "bad", "run"
    folder = config.get_checkpoint_dir()
    path = StockTraining().train(2).save(folder) / "step-000000001.ckpt"
    saved = torch.load(path, weights_only=False)
    saved["pipeline"]["_model.gauss_params.means"][3, 1] = float("nan")
    torch.save(saved, path)
    (config.get_base_dir() / "config.yml").write_text(yaml.dump(config))
    with pytest.raises(CheckpointError, match=r"step-000000001.ckpt: .*gauss_params.means.*finite"):
        eval_setup(config.get_base_dir() / "config.yml")
