"""A training that begins with the Gaussians of a file, its own or of another program."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stored_splats import PLACEMENT, stored
from support.tiny_splats import start, train

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.formats import write_splats
from nerfstudio_prune.splat_files.stored import StoredGaussians
from nerfstudio_prune.splats.initial_file import initial_gaussians, placement_of

SH_C0 = 0.28209479177387814


def test_a_training_begins_with_the_file(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    """Whoever goes on with another program's scene must find it there, harmonics included, and be able to train it. To
    show the run the file is not needed: it may be gone by then."""
    path = tmp_path / "a.ply"
    given = stored(50, 3).gaussians
    given.means[:, 2] -= 3  # where the cameras look
    write_splats(path, StoredGaussians(given))
    config = tiny_config()
    config.pipeline.model.initial_file = path
    model = start(config).pipeline.model
    for name, tensor in given.items():
        assert torch.equal(model.gauss_params[name], tensor), name
    trainer = train(config)
    assert not torch.equal(trainer.pipeline.model.means[:1], given.means[:1])
    path.unlink()
    shown = config.pipeline.setup(device="cpu", test_mode="test")
    assert len(shown.model.means) > 0
    with pytest.raises(ValueError, match=r"^--pipeline\.model\.initial-file .*a\.ply: cannot be read"):
        start(config)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_degrees_are_those_of_the_model(degree: int, tmp_path: Path) -> None:
    """Files of any degree begin a model of any: what is missing is zero, what is more is left out."""
    given = stored(5, 2)
    write_splats(tmp_path / "a.ply", given)
    found = initial_gaussians(tmp_path / "a.ply", degree, PLACEMENT)
    both = min(len(found.features_rest[0]), 8)
    assert found.sh_degree == degree and torch.equal(found.features_dc, given.gaussians.features_dc)
    assert torch.equal(found.features_rest[:, :both], given.gaussians.features_rest[:, :both])
    assert not found.features_rest[:, both:].any()


def test_a_model_without_harmonics_has_logits(tmp_path: Path) -> None:
    """The host puts the colours of degree 0 through a sigmoid: taken over as they are they would all change."""
    given = stored(5, 2)
    write_splats(tmp_path / "a.ply", given)
    found: Gaussians = initial_gaussians(tmp_path / "a.ply", 0, PLACEMENT)
    colours = (0.5 + SH_C0 * given.gaussians.features_dc).clamp(1 / 510, 1 - 1 / 510)
    assert torch.allclose(found.features_dc.sigmoid(), colours, atol=1e-6) and found.sh_degree == 0


def test_a_file_that_lies_elsewhere(tmp_path: Path) -> None:
    """Gaussians of a scene that was turned or scaled otherwise would stand beside the cameras; nobody would know why
    nothing is learnt."""
    path = tmp_path / "a.ply"
    write_splats(path, stored(5, 0, placement=PLACEMENT))
    transform = torch.tensor([*PLACEMENT.transform, (0.0, 0.0, 0.0, 1.0)])
    assert len(initial_gaussians(path, 0, placement_of(transform, PLACEMENT.scale))) == 5
    with pytest.raises(ValueError, match=r"a\.ply: lies elsewhere in the space of the data, with scale 0\.7; expected"):
        initial_gaussians(path, 0, replace(PLACEMENT, scale=0.71))
    transform[1, 3] += 1
    with pytest.raises(ValueError, match="lies elsewhere"):
        initial_gaussians(path, 0, placement_of(transform, PLACEMENT.scale))
