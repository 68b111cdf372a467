"""A packed file as the start of a training: the scene is there from the first step on, and the optimizers hold it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_splats import check_whole, pictures, start, train

from nerfstudio_prune.splat_files.formats import write_splats
from nerfstudio_prune.splat_files.packed import encode_packed, read_packed
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians
from nerfstudio_prune.splats.initial import of_degree

Config = Callable[..., Any]


@pytest.fixture
def packed(tiny_config: Config, tmp_path: Path) -> tuple[Any, Path]:
    """A run, and its Gaussians as a file."""
    run = train(tiny_config("first", strategy="none"))
    path = tmp_path / "a.gsvt"
    path.write_bytes(encode_packed(StoredGaussians(run.pipeline.model.gaussians.detach(), False), budget=1e-14))
    return run, path


def with_file(tiny_config: Config, name: str, path: Path, **model: Any) -> Any:
    """A run that begins with the file."""
    config = tiny_config(name, strategy="none")
    for key, value in {"initial_file": path, **model}.items():
        setattr(config.pipeline.model, key, value)
    return config


def test_begins_with_the_file(tiny_config: Config, packed: tuple[Any, Path]) -> None:
    """The same pictures before any step, no moments, and a training that goes on; one that is resumed needs no file."""
    run, path = packed
    second = start(with_file(tiny_config, "second", path))
    model = second.pipeline.model
    assert model.num_points == run.pipeline.model.num_points
    model.step = 10**9
    assert float((pictures(model, run) - pictures(run.pipeline.model, run)).square().mean()) < 1e-6
    check_whole(second)
    assert all(not optimizer.state for optimizer in second.optimizers.optimizers.values())
    model.step = 0
    second.train()
    check_whole(second)
    path.unlink()
    resumed = with_file(tiny_config, "third", path)
    resumed.load_dir = second.checkpoint_dir
    assert start(resumed).pipeline.model.num_points == model.num_points


def test_files_of_other_programs(tiny_config: Config, packed: tuple[Any, Path], tmp_path: Path) -> None:
    """Whoever goes on with a scene of another program must find it there, number for number."""
    run, _ = packed
    path = tmp_path / "a.ply"
    write_splats(path, StoredGaussians(run.pipeline.model.gaussians.detach()))
    model = start(with_file(tiny_config, "other", path)).pipeline.model
    for name, tensor in run.pipeline.model.gaussians.items():
        assert torch.equal(model.gauss_params[name], tensor), name


def test_degrees() -> None:
    """Harmonics that are missing are zero, and those beyond are left out; nothing else changes."""
    from support.splats_by_hand import drawn  # noqa: PLC0415

    own = drawn(4, 2)
    more, less = of_degree(own, 3), of_degree(own, 0)
    assert torch.equal(more.features_rest[:, :8], own.features_rest) and not more.features_rest[:, 8:].any()
    assert more.features_rest.shape[1] == 15 and less.features_rest.shape[1] == 0
    assert of_degree(own, 2).features_rest.shape[1] == 8 and torch.equal(more.means, own.means)


def test_model_without_harmonics(tiny_config: Config, packed: tuple[Any, Path]) -> None:
    """Colours are logits there, and must look the same."""
    _, path = packed
    model = start(with_file(tiny_config, "flat", path, sh_degree=0)).pipeline.model
    expected = (read_packed(path).gaussians.features_dc * 0.28209479 + 0.5).clamp(1 / 510, 1 - 1 / 510)
    assert torch.allclose(torch.sigmoid(model.gaussians.features_dc), expected, atol=1e-4)


def test_errors(tiny_config: Config, packed: tuple[Any, Path], tmp_path: Path) -> None:
    """Each names the option and the file, or what is another than it was."""
    _, path = packed
    stored = read_packed(path)
    other = Placement(((1.0, 0.0, 0.0, 9.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)), 1.0)
    files = {
        "gone.gsvt": (None, "gone.gsvt: cannot be read"),
        "a.obj": (b"", "a.obj: expected a name that ends with .gsvt"),
        "aa.gsvt": (encode_packed(replace(stored, antialiased=True)), "rasterize_mode antialiased, .* is classic"),
        "far.gsvt": (encode_packed(replace(stored, placement=other)), "lies in its data by transform"),
    }
    for name, (content, message) in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"pipeline.model.initial_file .*{message}"):
            start(with_file(tiny_config, name, tmp_path / name))
