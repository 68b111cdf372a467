"""Options of pruning: what is refused, in which words, and how the command line reaches them."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import tyro

from nerfstudio_prune.nerf.config import FieldTargetConfig, PruneConfig

NEURON_TARGETS = "width, head_width, pruning_ratio, group_widths, coarse, fine and budgets are targets for neurons"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "prune.width must be at least min_width = 8, got 0"),
        ({"width": -5}, "prune.width must be at least min_width = 8, got -5"),
        ({"width": 7}, "prune.width must be at least min_width = 8, got 7"),
        ({"width": 16, "min_width": 32}, "prune.width must be at least min_width = 32, got 16"),
        ({"head_width": 4}, "prune.head_width must be at least min_width = 8, got 4"),
        ({"coarse": FieldTargetConfig(width=3)}, "prune.coarse.width must be at least min_width = 8, got 3"),
        ({"fine": FieldTargetConfig(head_width=0)}, "prune.fine.head_width must be at least min_width = 8, got 0"),
        ({"group_widths": {"*": 2}}, "prune.group_widths['*'] must be at least min_width = 8, got 2"),
        ({"pruning_ratio": 1.0}, "prune.pruning_ratio must be in [0, 1), got 1.0"),
        ({"pruning_ratio": -0.1}, "prune.pruning_ratio must be in [0, 1), got -0.1"),
        ({"pruning_ratio": math.nan}, "prune.pruning_ratio must be in [0, 1), got nan"),
        ({"fine": FieldTargetConfig(pruning_ratio=1.2)}, "prune.fine.pruning_ratio must be in [0, 1), got 1.2"),
        ({"num_events": 0}, "prune.num_events must be at least 1, got 0"),
        ({"round_to": 0}, "prune.round_to must be at least 1, got 0"),
        ({"min_width": 0}, "prune.min_width must be at least 1, got 0"),
        ({"start_step": -1}, "prune.start_step must be at least 0, got -1"),
        ({"stop_step": -2}, "prune.stop_step must be at least 0, got -2"),
        ({"rewind_step": -3}, "prune.rewind_step must be at least 0, got -3"),
        ({"num_eval_rays": -1}, "prune.num_eval_rays must be at least 0, got -1"),
        ({"recovery_lr": 0.0}, "prune.recovery_lr must be above 0, got 0.0"),
        ({"recovery_lr_factor": 0.0}, "prune.recovery_lr_factor must be above 0, got 0.0"),
        ({"strategy": "edge", "edge_threshold": -0.5}, "prune.edge_threshold must be at least 0, got -0.5"),
        ({"strategy": "edge", "edge_keep_fraction": 0.0}, "prune.edge_keep_fraction must be in (0, 1], got 0.0"),
        ({"strategy": "edge", "edge_keep_fraction": 1.5}, "prune.edge_keep_fraction must be in (0, 1], got 1.5"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    """A number that cannot work must be refused before hours of training, in words that name the option, the number and
    the range."""
    with pytest.raises(ValueError) as caught:
        PruneConfig(**options).validate()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"width": 64, "pruning_ratio": 0.5},
            "prune.width/head_width and prune.pruning_ratio are contradictory targets",
        ),
        (
            {"head_width": 64, "pruning_ratio": 0.5},
            "prune.width/head_width and prune.pruning_ratio are contradictory targets",
        ),
        (
            {"width": 64, "group_widths": {"*": 64}},
            "prune.width and prune.group_widths are contradictory targets; give exactly one of them",
        ),
        (
            {"pruning_ratio": 0.5, "group_widths": {"*": 64}},
            "prune.pruning_ratio and prune.group_widths are contradictory targets",
        ),
        (
            {"coarse": FieldTargetConfig(width=64, pruning_ratio=0.5)},
            "prune.coarse.width/head_width and prune.coarse.pruning_ratio are contradictory targets",
        ),
        (
            {"fine": FieldTargetConfig(head_width=64, pruning_ratio=0.5)},
            "prune.fine.width/head_width and prune.fine.pruning_ratio are contradictory targets",
        ),
        (
            {"group_widths": {"*": 64}, "coarse": FieldTargetConfig(width=64)},
            "prune.group_widths already names layers of both fields; it goes neither with coarse, fine nor groups",
        ),
        (
            {"group_widths": {"*": 64}, "groups": ("*.mlp_base.*",)},
            "prune.group_widths already names layers of both fields",
        ),
        ({"strategy": "edge", "width": 64}, NEURON_TARGETS),
        ({"strategy": "edge", "pruning_ratio": 0.5}, NEURON_TARGETS),
        ({"strategy": "edge", "group_widths": {"*": 64}}, NEURON_TARGETS),
        ({"strategy": "edge", "coarse": FieldTargetConfig(head_width=64)}, NEURON_TARGETS),
        (
            {"strategy": "edge", "edge_threshold": 0.1, "edge_keep_fraction": 0.5},
            "prune.edge_threshold and prune.edge_keep_fraction exclude each other; give one",
        ),
        ({"recovery_lr": 1e-4, "recovery_lr_factor": 2.0}, "both say what the rate is from an event on; give one"),
        ({"edge_threshold": 0.1}, "go with strategy edge, not obs"),
        ({"strategy": "uniform", "edge_keep_fraction": 0.5}, "go with strategy edge, not uniform"),
        (
            {"coreset_variant": "mussay", "recovery": "rewind"},
            "prune.recovery rewind takes weights of an earlier step, which a strategy that re-weights (coreset)",
        ),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    """If one of two contradictory options won silently, the run would be filed under a width it does not have."""
    with pytest.raises(ValueError) as caught:
        PruneConfig(**options).validate()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (
            {"strategy": "corset"},
            ["prune.strategy must be one of coreset, importance, obs, pivoted-qr, uniform, edge, none, got 'corset'"],
        ),
        (
            {"score": "w_inn"},
            [
                "score must be one of activation, apoz, fisher, obs, sensitivity, taylor, w_in, w_in_w_out, w_out, "
                "got 'w_inn'"
            ],
        ),
    ],
)
def test_unknown_names_list_the_known_ones(options: dict[str, Any], messages: list[str]) -> None:
    """Strategies and scores are open registries, so the command line cannot check the names; the message has to."""
    with pytest.raises(ValueError) as caught:
        PruneConfig(**options).validate()
    assert [part for part in messages if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "none"},
        {"width": 8},
        {"pruning_ratio": 0.0},
        {"width": 64, "head_width": 32, "coarse": FieldTargetConfig(pruning_ratio=0.9)},
        {"group_widths": {"*": 8}},
        {"strategy": "edge"},
        {"strategy": "edge", "edge_keep_fraction": 1.0, "groups": ("*.mlp_base.layers.[1-7]",)},
        {"strategy": "edge", "edge_threshold": 0.0},
        {"recovery": "rewind"},
        {"coreset_variant": "mussay", "recovery": "retrain"},
    ],
)
def test_sensible_options_pass(options: dict[str, Any]) -> None:
    """The limits of each range belong to it; a check that is too strict takes a documented use away."""
    PruneConfig(**options).validate()


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({}, None),
        ({"preset": "paper"}, "w_in_w_out"),
        ({"coreset_variant": "mussay"}, "sensitivity"),
        ({"strategy": "importance"}, "w_in_w_out"),
        ({"strategy": "importance", "score": "w_out"}, "w_out"),
        ({"strategy": "uniform"}, None),
        ({"strategy": "edge"}, None),
        ({"strategy": "none"}, None),
    ],
)
def test_score_that_a_strategy_uses(options: dict[str, Any], score: str | None) -> None:
    """The score is part of every record; each variant's own default comes from its paper, and the variant option has to
    reach the strategy."""
    config = PruneConfig(**options).filled()
    assert config.score_name == score
    assert (config.make_score() is None) == (score is None)


def test_open_options_are_filled_in() -> None:
    """Options are open until they are given, so that a resumed run can tell; the defaults that the help texts name are
    put in at one place, and nothing that was given is overwritten there."""
    filled = PruneConfig(preset="paper").filled()
    assert (filled.strategy, filled.coreset_variant, filled.schedule, filled.recovery) == (
        "coreset",
        "paper",
        "one-shot",
        "continue",
    )
    assert (filled.groups, filled.rewind_step, filled.round_to, filled.min_width) == (("*",), 0, 1, 8)
    given = PruneConfig(strategy="edge", groups=("a",), schedule="cubic", recovery="scratch", min_width=2, seed=0)
    for f in fields(PruneConfig):
        if getattr(given, f.name) is not None:
            assert getattr(given.filled(), f.name) == getattr(given, f.name)


def test_command_line() -> None:
    """The options are reached through tyro; nested targets, tuples and the dictionary of widths are where a field's
    type is easily one that the command line cannot build."""
    found = tyro.cli(
        PruneConfig,
        args=(
            "--strategy importance --score w_out --coarse.width 64 --fine.pruning-ratio 0.25 --schedule cubic "
            "--num-events 3 --start-step 10 --stop-step 20 --recovery rewind --recovery-lr 1e-4 --round-to 8 "
            "--groups *.mlp_base.layers.[1-7] field_fine.*"
        ).split(),
    )
    assert found == PruneConfig(
        strategy="importance",
        score="w_out",
        coarse=FieldTargetConfig(width=64),
        fine=FieldTargetConfig(pruning_ratio=0.25),
        schedule="cubic",
        num_events=3,
        start_step=10,
        stop_step=20,
        recovery="rewind",
        recovery_lr=1e-4,
        round_to=8,
        groups=("*.mlp_base.layers.[1-7]", "field_fine.*"),
    )
    assert tyro.cli(PruneConfig, args=["--group-widths", "field_fine.*", "64", "*.mlp_head.*", "32"]).group_widths == {
        "field_fine.*": 64,
        "*.mlp_head.*": 32,
    }


@pytest.mark.parametrize(
    "args",
    [
        ["--schedule", "linear"],
        ["--recovery", "restart"],
        ["--edge-scope", "field"],
        ["--coreset-variant", "braverman"],
        ["--on-error", "ignore"],
    ],
)
def test_command_line_refuses_unknown_choices(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Closed lists of names are checked where they are typed in, and the message offers the choices."""
    with pytest.raises(SystemExit):
        tyro.cli(PruneConfig, args=args)
    assert args[1] in capsys.readouterr().err


def test_every_option_has_a_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    """`ns-train nerf-prune --help` is the reference of the options; a field without a docstring is a blank there."""
    with pytest.raises(SystemExit):
        tyro.cli(PruneConfig, args=["--help"], prog="prune")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in (f.name for f in fields(PruneConfig) if not is_dataclass(getattr(PruneConfig(), f.name))):
        after = text.split(f"--{name.replace('_', '-')} ", 1)[1]
        help_text = after.split("(default", 1)[0]
        assert len(help_text.split()) > 4, f"{name}: {help_text!r}"
