"""Scores that a person looks at are those that a cut goes by."""

from typing import Any

import pytest
import torch
from support.tiny_run import start, tiny_widths

from nerfstudio_prune.nerf.choosing import choose, event_seed, layer_scores, whole_cut
from nerfstudio_prune.nerf.config import PruneConfig


@pytest.mark.parametrize("score", ["w_in", "w_out", "sensitivity", "activation", "apoz", "taylor", "obs"])
def test_highest_scores_stay(tiny_config: Any, score: str) -> None:
    """The plot draws the line of the cut through sorted scores; a neuron on the wrong side of it would belie the plot.
    Only the first layer of each field is cut: what follows it sees other activations from then on."""
    first = tuple(f"field_{name}.mlp_base.layers.0" for name in ("coarse", "fine"))
    config = PruneConfig(
        preset="paper", strategy="importance", score=score, groups=first, calibration_rays=64, min_width=2
    ).filled()
    trainer = start(tiny_config(strategy="none"))
    pipeline = trainer.pipeline
    samples = pipeline.calibrate(config.make_calibration(), 3) if config.needs_samples else None
    name, scores = layer_scores(config, pipeline.model, samples)
    assert name == score and {group: len(values) for group, values in scores.items()} == tiny_widths(16, 8)
    widths = whole_cut(config, pipeline.model, 5).targets
    assert widths == dict.fromkeys(first, 8)
    for group, selection in choose(config, pipeline.model, widths, samples, event_seed(42, 5)).items():
        best = scores[group].double().argsort(descending=True, stable=True)[:8].sort().values
        assert torch.equal(selection.keep, best)


@pytest.mark.parametrize(("strategy", "name"), [("obs", "obs"), ("pivoted-qr", "obs"), ("uniform", None)])
def test_rules_without_a_score(tiny_config: Any, strategy: str, name: str | None) -> None:
    """A rule that ranks neurons on samples shows what is nearest to it; one that draws them shows nothing, for any
    score would look like a reason."""
    config = PruneConfig(preset="paper", strategy=strategy, calibration_rays=64).filled()
    pipeline = start(tiny_config(strategy="none")).pipeline
    samples = pipeline.calibrate(config.make_calibration(), 3) if config.needs_samples else None
    found, scores = layer_scores(config, pipeline.model, samples)
    assert found == name and (scores.keys() == tiny_widths(16, 8).keys() if name else scores == {})
    assert all(bool(torch.isfinite(values).all()) for values in scores.values())
