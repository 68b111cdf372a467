"""Options of pruning as they are typed behind `--prune`: the method's own, with its own checks."""

import re

import pytest

from nerfstudio_prune.apply.kinds import KINDS
from nerfstudio_prune.apply.options import check_promise, given_options
from nerfstudio_prune.cli import parse
from nerfstudio_prune.nerf.config import PruneConfig


def test_values_have_the_types_of_the_method() -> None:
    """Numbers, words, lists, mappings and groups within the group, with dashes or underscores; what is not named stays
    open, for the preset."""
    words = {
        "target-parameters": "0.15",
        "strategy": "importance",
        "score": "w_out",
        "groups": '["*.mlp_base.*", "*.mlp_head.*"]',
        "min_width": "4",
    }
    options = given_options(PruneConfig(), words)
    assert options == PruneConfig(
        target_parameters=0.15,
        strategy="importance",
        score="w_out",
        groups=("*.mlp_base.*", "*.mlp_head.*"),
        min_width=4,
    )
    nested = given_options(PruneConfig(), {"coarse.pruning-ratio": "0.5", "fine.width": "32"})
    assert (nested.coarse.pruning_ratio, nested.fine.width) == (0.5, 32)
    assert given_options(PruneConfig(), {"group-widths": "{'*': 8}"}).group_widths == {"*": 8}
    assert given_options(PruneConfig(), {}) == PruneConfig()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"widht": "3"}, "--prune widht: there is no such option; expected one of calibration_floor, "),
        ({"coarse": "3"}, "--prune coarse: there is no such option; expected one of coarse.head_width"),
        ({"coarse.size": "3"}, "--prune coarse.size: there is no such option"),
        ({"width.size": "3"}, "--prune width.size: there is no such option"),
        ({"width": "narrow"}, "prune.width must be a whole number, got 'narrow'"),
        ({"pruning-ratio": "1.5"}, "prune.pruning_ratio must be in [0, 1), got 1.5"),
        ({"start-step": "3"}, "--prune start-step: is about a training; apply cuts at once"),
        ({"schedule": "cubic"}, "--prune schedule: is about a training"),
        ({"teacher.steps": "30"}, "--prune teacher.steps: is about a training"),
        ({"num-eval-rays": "3"}, "--prune num-eval-rays: is about a training"),
    ],
)
def test_what_is_refused(words: dict[str, str], message: str) -> None:
    """A name that is misspelt, a value that is none, and what has a meaning in a training only."""
    with pytest.raises(ValueError, match=re.escape(message)):
        given_options(PruneConfig(), words)


def test_a_promise_leaves_the_size_open() -> None:
    """Two wishes about the size contradict each other, also those of one field or of single weights."""
    (targets,) = (kind.targets for kind in KINDS if isinstance(kind.options(), PruneConfig))
    check_promise(given_options(PruneConfig(), {"strategy": "obs", "preset": "tiny"}), targets, 0.2)
    for words in ({"width": "8"}, {"target-macs": "0.5"}, {"fine.width": "8"}, {"edge-threshold": "0.1"}):
        (name,) = words
        with pytest.raises(ValueError, match=f"--target-psnr-drop searches.*prune.{name.replace('-', '_')} says"):
            check_promise(given_options(PruneConfig(), words), targets, 0.2)
    for drop in (0.0, -1.0, float("nan"), 1000.0):
        with pytest.raises(ValueError, match="--target-psnr-drop must be in"):
            check_promise(PruneConfig(), targets, drop)


def test_a_cut_without_recovery_looks_closer() -> None:
    """Nothing makes up for what calibration has not seen; what is given holds, and weights alone need no samples."""
    (kind,) = (kind for kind in KINDS if isinstance(kind.options(), PruneConfig))
    closer, usual = kind.without_recovery(PruneConfig(), 10**6), PruneConfig().filled()
    assert usual.calibration_samples and closer.calibration_samples == 4 * usual.calibration_samples
    assert closer.calibration_rays == usual.calibration_rays
    assert usual.calibration_samples and closer.calibration_samples == 4 * usual.calibration_samples
    assert kind.without_recovery(PruneConfig(calibration_rays=64), 10**6).calibration_rays == 64
    # More rays than pixels would be refused by a training that goes on.
    assert kind.without_recovery(PruneConfig(), 1000).calibration_rays is None
    # Of a budget the coarse field gets less than in a training; given widths are what they are.
    for name in ("coarse_colour_weight", "coarse_error_weight"):
        assert 0 < getattr(closer, name) < getattr(usual, name)
        assert getattr(kind.without_recovery(given_options(PruneConfig(), {name: "0.5"}), 10**6), name) == 0.5
        assert getattr(kind.without_recovery(PruneConfig(width=8), 10**6), name) is None
    blind = PruneConfig(strategy="importance", preset="paper")
    assert kind.without_recovery(blind, 10**6) == blind


def test_the_command_line() -> None:
    """Pairs of names and values, in one option."""
    command = parse(["apply", "--load-config", "c.yml", "--prune", "strategy", "obs", "target-parameters", "0.2"])
    assert command.prune == {"strategy": "obs", "target-parameters": "0.2"}
    assert parse(["apply", "--load-config", "c.yml", "--dry-run"]).dry_run
