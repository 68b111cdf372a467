"""The comparison with the host's own model, end to end at tiny sizes, and its parts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig
from support.bench_run import bench, small_host
from support.tiny_run import SCENE_BOX, rays, tiny_model

from nerfstudio_prune.bench.cost_jobs import STOCK_SPEEDS, StockSpeed, network_options, stock_speed
from nerfstudio_prune.bench.peak import peak_flops
from nerfstudio_prune.bench.runs import JobSkipped, RunFolder
from nerfstudio_prune.bench.stock import StockModel, StockModelConfig
from nerfstudio_prune.bench.suites import SCALES
from nerfstudio_prune.bench.timed import PointCounter
from nerfstudio_prune.nerf import empty_space
from nerfstudio_prune.occupancy import OccupancyGrid
from nerfstudio_prune.records.cost_schema import StockSpeedRecord
from nerfstudio_prune.records.files import read_record
from nerfstudio_prune.report.writing import write_report

ONLY = "speed-stock"


@pytest.fixture(scope="module")
def folder(bench_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the record, for reading only.

    After a few steps the scene is fog, and nothing of it is empty: half of each grid is said to be.
    """
    path = tmp_path_factory.mktemp("stock-speed")
    with small_host(bench_cache), pytest.MonkeyPatch.context() as patch:
        for name in ("build_grid", "refresh_grid"):
            patch.setattr(empty_space, name, half_of(getattr(empty_space, name)))
        bench("speed", path, only=ONLY)
    return path


def half_of(make: Callable[..., OccupancyGrid]) -> Callable[..., OccupancyGrid]:
    """Makes grids whose lower half along x is empty."""

    def made(*args: Any) -> OccupancyGrid:
        grid = make(*args)
        cells = grid.cells.clone()
        cells[: (len(cells) + 1) // 2] = False
        return OccupancyGrid(grid.aabb, cells)

    return made


def record(folder: Path) -> StockSpeedRecord:
    """The record."""
    found = read_record(folder / "costs" / f"{ONLY}.json")
    assert isinstance(found, StockSpeedRecord)
    return found


@pytest.mark.slow
def test_arms_and_what_is_told_of_them(folder: Path) -> None:
    """Each width with all samples, without those in empty space, and by one field; the host's model before them."""
    found, job = record(folder), STOCK_SPEEDS["smoke"]
    stock, *own = [arm for arm in found.arms if not arm.label.startswith("stock, ")]
    assert (stock.network, stock.width, stock.eval_rays_per_chunk, stock.matmul_precision) == (
        "stock",
        256,
        4096,
        "highest",
    )
    ways = [(False, False), (True, False), (True, True)]
    assert [(arm.width, arm.skipping, arm.fine_field_only) for arm in own] == [
        (width, *way) for width in job["widths"] for way in ways
    ]
    assert all(len(arm.step_seconds) == len(arm.frame_seconds) == job["rounds"] for arm in found.arms)
    assert all(len(arm.look_seconds) == (job["rounds"] if arm.skipping else 0) for arm in found.arms)
    for arm in found.arms:
        if not arm.skipping:
            assert arm.step_points == arm.frame_points == {"field_coarse": 8.0, "field_fine": 17.0} and arm.rows == 8
        else:
            assert 0 < sum(arm.frame_points.values()) < 25 and 0 < sum(arm.step_points.values()) < 25 and arm.rows == 1
    for alone in (False, True):
        few = [arm.frame_points for arm in own if arm.skipping and arm.fine_field_only == alone]
        assert few[0] == few[1] == few[2]  # all see the same scene
        assert (few[0]["field_coarse"] == 0) == alone
    for view in found.views:
        assert view.fine_field_only is not None and view.fine_field_only.points["field_coarse"] == 0
        assert view.points["field_coarse"] > 0 and view.fine_field_only.agreement is not None
    assert found.rays_per_batch == 32 and len(found.views) == 2 and found.train_steps == job["train_steps"]
    assert found.event.width == 32 and len(found.event.seconds) == 1


@pytest.mark.slow
def test_nothing_is_done_twice_and_tables_can_be_made(
    folder: Path, bench_cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An hour of measurement is not repeated by the same command, and other settings are not taken for these."""
    with small_host(bench_cache):
        bench("speed", folder, only=ONLY)
        assert "…" not in capsys.readouterr().out
        with pytest.raises(ValueError, match="recorded with other settings"):
            bench("speed", folder, only=ONLY, views=1)
    write_report(folder, tmp_path / "report", [])
    assert "Beside the host's own model" in (tmp_path / "report" / "report.md").read_text("utf-8")


def test_stock_model_is_the_hosts(stock_lpips: None) -> None:
    """Beside a copy of the host's model nothing would be said of the host's."""
    own = StockModelConfig().setup(scene_box=SCENE_BOX, num_train_data=4)
    host = VanillaModelConfig().setup(scene_box=SCENE_BOX, num_train_data=4)
    assert isinstance(own, NeRFModel) and type(own).get_outputs is NeRFModel.get_outputs
    assert [name for name in vars(StockModel) if not name.startswith("__")] == ["populate_modules"]
    shapes = {name: tensor.shape for name, tensor in host.state_dict().items() if not name.startswith("lpips")}
    assert {name: tensor.shape for name, tensor in own.state_dict().items()} == shapes


def test_stock_model_downloads_nothing(bench_host: None) -> None:
    """A benchmark has to run where nothing can be reached."""
    assert not list(StockModelConfig().setup(scene_box=SCENE_BOX, num_train_data=4).lpips.parameters())


def test_jobs_of_the_scales() -> None:
    """What is compared is the paper's network and two smaller ones, but where a minute has to do."""
    cpu = stock_speed(SCALES["cpu"])
    assert cpu == StockSpeed(1) and cpu.widths == (256, 128, 64) and cpu.samples == (64, 128)
    assert stock_speed(replace(SCALES["cpu"], seeds=(7,))).seed == 7
    options = network_options(64, (4, 8))
    assert options["pipeline.model.head_mlp_layer_width"] == 32 and options["pipeline.model.skip_connections"] == (4,)


def test_photographs_are_left_out(tmp_path: Path) -> None:
    """The host's vanilla NeRF contracts no space: beside it nothing could be shown of such scenes."""
    scene: Any = SimpleNamespace(method="nerf-prune-real", fingerprint="")
    job = stock_speed(SCALES["smoke"])
    runs = RunFolder(tmp_path, SCALES["smoke"], scene, {})
    with pytest.raises(JobSkipped, match="no unbounded scenes"):
        runs.carry_out(job, lambda done: None)


def test_points_are_counted_without_changing_what_is_shown() -> None:
    """The count says how much work was left out; a hook in its place would make the field do all of it."""
    torch.manual_seed(0)
    model = tiny_model().eval()
    plain = model(rays(6))
    counter = PointCounter(model)
    with counter.counting():
        counted = model(rays(6))
    assert counter.per_ray(6) == {"field_coarse": 8.0, "field_fine": 17.0}
    assert counter.per_ray(6) == {"field_coarse": 0.0, "field_fine": 0.0}
    assert all(torch.equal(plain[name], counted[name]) for name in plain)
    model(rays(6))
    assert counter.per_ray(6) == {"field_coarse": 0.0, "field_fine": 0.0}


def test_peak_by_a_clock_that_is_known() -> None:
    """Two operations for each multiply-accumulate of the fastest product; the precision that was set stays."""
    times = iter([0.0, 1.0, 10.0, 10.5])
    torch.set_float32_matmul_precision("high")
    found = peak_flops(["highest"], torch.device("cpu"), lambda: next(times), sides=(8, 16))
    assert found == max(2 * 4 * 8**3 / 1.0, 2 * 16**3 / 0.5)
    assert torch.get_float32_matmul_precision() == "high"
