"""Which sum the score `removal` goes by where nobody says: what the rasteriser gives cheaply, and told."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.splats_by_hand import drawn

from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.interface import SUMS, Contributions, Sum
from nerfstudio_prune.raster.probes import BY_GRADIENTS
from nerfstudio_prune.splats.config import SplatPruneConfig
from nerfstudio_prune.splats.subject import GaussianSubject, ViewEvidence


def subject_on(cheap: frozenset[Sum]) -> GaussianSubject:
    """Gaussians whose rasteriser has some sums cheaply."""
    model: Any = SimpleNamespace(gaussians=drawn(20), rasterizer=SimpleNamespace(cheap=cheap))
    return GaussianSubject(model, lambda recipe, seed: pytest.fail("nobody asked for it"))


@pytest.mark.parametrize(
    ("given", "cheap", "used"),
    [
        (None, CpuRasterizer.cheap, "l1"),
        (None, BY_GRADIENTS, "l2"),
        ("l1", BY_GRADIENTS, "l1"),
        ("l2", CpuRasterizer.cheap, "l2"),
    ],
)
def test_the_norm_fits_the_rasteriser_and_is_recorded(given: Any, cheap: frozenset[Sum], used: str) -> None:
    """A record that does not say which sum was taken compares a CPU's cuts with a GPU's as if they were of one rule;
    and only that sum is asked of the views."""
    asked: list[Any] = []

    def look(gaussians: Any, wants: Any = SUMS, /) -> Contributions:
        asked.append(set(wants))
        return Contributions(20, {name: torch.arange(20.0).double() for name in wants})

    subject, recipe = subject_on(cheap), SplatPruneConfig(removal_norm=given).resolve()
    assert recipe.options["removal_norm"] == given
    assert subject.recorded(recipe) == {**recipe.options, "removal_norm": used}
    name, scores = subject.scores(recipe, ViewEvidence(look, None, []))
    assert name == "removal"
    assert scores["gaussians"].tolist() == list(range(20))
    assert asked == [{f"removal_{used}"}]


@pytest.mark.parametrize("options", [{"strategy": "random"}, {"score": "opacity"}, {"preset": "paper"}])
def test_nothing_else_is_decided(options: dict[str, Any]) -> None:
    """Rules without that score are recorded as they were given."""
    recipe = SplatPruneConfig(**options).resolve()
    assert subject_on(BY_GRADIENTS).recorded(recipe) == dict(recipe.options)
