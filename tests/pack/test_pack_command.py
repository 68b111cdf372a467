"""`ns-prune pack`: the file, and what is said of it, which must be true of what was read back."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.utils.rich_utils import CONSOLE
from support.stock_splats import StockTraining

from nerfstudio_prune.pack.command import Pack
from nerfstudio_prune.pack.fitting import largest_budget, smallest_budget
from nerfstudio_prune.splat_files.packed import read_packed


def printed(options: Pack) -> str:
    """What the command says, without the breaks of lines."""
    with CONSOLE.capture() as capture:
        options.main()
    return " ".join(capture.get().split())


def test_file_and_what_is_said_of_it(run: Any, tmp_path: Path) -> None:
    """Sizes are those on the disk, the dense model is that of before the first cut, and quality is that which `ns-eval`
    gives of the checkpoint, and of a checkpoint with the Gaussians of the file."""
    path, config = tmp_path / "new" / "a.gsvt", run.base_dir / "config.yml"
    text = printed(Pack(config, path))
    found, size = read_packed(path), path.stat().st_size
    gaussians, model = found.gaussians, run.pipeline.model
    assert len(gaussians) == model.num_points and gaussians.sh_degree == 1 and found.antialiased is False
    assert found.placement is not None
    event = model.prune_state.succeeded[0]
    count = event.before.parts["gaussians"]
    assert f"{len(gaussians):,} of degree 1, of {count:,} of degree 3 before the first cut" in text
    assert f"{size:,} bytes, {size / len(gaussians):.2f} bytes a Gaussian" in text
    assert f"{248 * count:,} bytes, {248 * count / size:.1f} times the file" in text
    checkpoint = run.checkpoint_dir / "step-000000012.ckpt"
    assert f"{checkpoint.stat().st_size:,} bytes, " in text and f"{4 * 23 * len(gaussians):,} bytes, " in text
    sections = re.findall(r"│ (\w+) │ +([\d,]+) │", text)
    assert sum(int(number.replace(",", "")) for _, number in sections) == size
    pipeline: Any = eval_setup(config, test_mode="test")[1]
    quality = re.findall(r"(checkpoint|read back) │ +([\d.]+) │", text)
    measured = [average_psnr(pipeline)]
    pipeline.model.load_state_dict({**pipeline.model.state_dict(), **named(gaussians)})
    measured.append(average_psnr(pipeline))
    assert [float(value) for _, value in quality[:2]] == pytest.approx(measured, abs=0.006)
    assert abs(measured[0] - measured[1]) < 0.2


def average_psnr(pipeline: Any) -> float:
    """As `ns-eval` gives it."""
    return pipeline.get_average_eval_image_metrics()["psnr"]


def named(gaussians: Any) -> dict[str, torch.Tensor]:
    """Gaussians as in a checkpoint."""
    return {f"gauss_params.{name}": values for name, values in gaussians.items()}


def test_sizes(run: Any, tmp_path: Path) -> None:
    """A largest size is kept to, and one that cannot be is told of with what it takes; the old file stays then."""
    config, path, sizes = run.base_dir / "config.yml", tmp_path / "a.gsvt", []
    for target, bits in ((0.0015, None), (0.003, None), (0.003, 10)):
        Pack(config, path, views=0, target_mb=target, position_bits=bits).main()
        sizes.append(path.stat().st_size)
        assert 0.9 < sizes[-1] / target / 1e6 <= 1
    with pytest.raises(ValueError, match=r"--target-mb 0.0001: expected a file of at most 100 bytes, got [\d,]+ where"):
        Pack(config, path, target_mb=0.0001).main()
    assert path.stat().st_size == sizes[-1]


def test_paper(run: Any, tmp_path: Path) -> None:
    """The profile for comparison goes by what the paper's score says of the training views, and is measured alike."""
    path = tmp_path / "a.gsvt"
    text = printed(Pack(run.base_dir / "config.yml", path, profile="paper"))
    found = read_packed(path).gaussians
    assert len(found) == run.pipeline.model.num_points and "octree" in text and "codebook" in text
    assert abs(float(re.findall(r"file less checkpoint │ +([+-][\d.]+)", text)[0])) < 0.2


def test_run_without_its_data(run: Any, tmp_path: Path) -> None:
    """A run can be packed on a machine that has nothing but its folder; that nothing was measured is told."""
    config = deepcopy(run.config)
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig(data=tmp_path / "gone")
    config.pipeline.datamanager.data, config.timestamp = None, "moved"
    config.save_config()
    moved, path = config.get_base_dir() / "config.yml", tmp_path / "a.gsvt"
    (moved.parent / "nerfstudio_models").symlink_to(run.checkpoint_dir)
    text = printed(Pack(moved, path))
    assert "Quality was not measured" in text and "gone" in text and "--data" in text and "without views" in text
    assert len(read_packed(path).gaussians) == run.pipeline.model.num_points
    size = path.stat().st_size
    Pack(moved, path, profile="tiny").main()
    assert path.stat().st_size < 0.9 * size
    Pack(moved, path, profile="paper").main()
    assert len(read_packed(path).gaussians) == run.pipeline.model.num_points
    with pytest.raises(ValueError, match=r"^--data .*elsewhere"):
        Pack(moved, path, data=tmp_path / "elsewhere").main()


def test_stock_run(run: Any, tmp_path: Path, stock_lpips: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of the stock method are packed as well; those of degree 0 have colours of another kind there."""
    for degree in (3, 0):
        stock = StockTraining(sh_degree=degree).train(2)
        config = stock.config
        config.pipeline.datamanager.dataparser = run.config.pipeline.datamanager.dataparser
        config.output_dir, config.experiment_name, config.timestamp = tmp_path, "stock", f"degree{degree}"
        config.save_config()
        stock.save(config.get_checkpoint_dir())
        path = tmp_path / "a.gsvt"
        text = printed(Pack(config.get_base_dir() / "config.yml", path))
        found = read_packed(path).gaussians
        assert found.sh_degree == degree and "before the first cut" not in text
        difference = float(re.findall(r"file less checkpoint │ +([+-][\d.]+)", text)[0])
        assert abs(difference) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": Path("a.ply")}, "--output a.ply: expected a name that ends with .gsvt"),
        ({"position_bits": 0}, r"--position-bits must be in \[1, 20\], got 0"),
        ({"target_mb": -1.0}, "--target-mb must be above 0"),
        ({"target_mb": 1.0, "profile": "paper"}, "--target-mb is for the profiles small and tiny"),
        ({"views": -1}, "--views must be at least 0"),
        ({"load_config": Path("none.yml")}, "--load-config none.yml: expected the config.yml of a run"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    """Each names its option, before anything is loaded."""
    with pytest.raises(ValueError, match=message):
        Pack(**{"load_config": Path("config.yml"), "output": Path("a.gsvt"), **options}).main()


def test_budgets_by_hand() -> None:
    """The largest one whose loss is within the bound, and the smallest one whose file fits, to a quarter octave."""
    found = largest_budget(lambda budget: budget <= 1e-9)
    assert 1e-9 / 2**0.25 < found <= 1e-9
    found = smallest_budget(lambda budget: int(1e-6 / budget), 1000)
    assert 1e-9 <= found < 1.2e-9
    assert largest_budget(lambda budget: False) == 2.0**-60
