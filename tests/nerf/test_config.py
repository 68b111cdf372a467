"""Options of pruning: what is refused, in which words, and how the command line reaches them."""

import math
import re
from dataclasses import fields, is_dataclass
from typing import Any, cast, get_args, get_type_hints

import pytest
import tyro

from nerfstudio_prune.engine.options import Group
from nerfstudio_prune.nerf.config import FieldTargetConfig, PruneConfig
from nerfstudio_prune.nerf.presets import BUDGETS
from nerfstudio_prune.nerf.recipes import Calibration, EdgeRecipe, FieldRecipe, NeuronRecipe
from nerfstudio_prune.nerf.teacher.config import TeacherConfig
from nerfstudio_prune.neurons.refit import Refit

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
        ({"pruning_ratio": math.nan}, "prune.pruning_ratio must be a finite number, got nan"),
        ({"fine": FieldTargetConfig(pruning_ratio=1.2)}, "prune.fine.pruning_ratio must be in [0, 1), got 1.2"),
        ({"num_events": 0}, "prune.num_events must be in [1, 1,000], got 0"),
        ({"round_to": 0}, "prune.round_to must be in [1, 1,048,576], got 0"),
        ({"min_width": 0}, "prune.min_width must be in [1, 65,536], got 0"),
        ({"start_step": -1}, "prune.start_step must be in [0, 1,000,000,000], got -1"),
        ({"start_fraction": 1.0}, "prune.start_fraction must be in [0, 1), got 1.0"),
        ({"stop_step": -2}, "prune.stop_step must be in [0, 1,000,000,000], got -2"),
        ({"rewind_step": -3}, "prune.rewind_step must be in [0, 1,000,000,000], got -3"),
        ({"num_eval_rays": -1}, "prune.num_eval_rays must be in [0, 1,048,576], got -1"),
        ({"recovery_lr": 0.0}, "prune.recovery_lr must be in [1e-10, 1], got 0.0"),
        ({"recovery_lr_factor": 0.0}, "prune.recovery_lr_factor must be in [0.001, 100], got 0.0"),
        (
            {"strategy": "edge", "edge_threshold": -0.5},
            "prune.edge_threshold must be in [0, 1,000,000], got -0.5",
        ),
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
        ({"recovery_lr": math.inf}, "prune.recovery_lr must be a finite number, got inf"),
        ({"density_weight": math.inf}, "prune.density_weight must be a finite number, got inf"),
        ({"recovery_lr": 1e30}, "prune.recovery_lr must be in [1e-10, 1], got 1e+30"),
        ({"recovery_lr": 1e-300}, "prune.recovery_lr must be in [1e-10, 1], got 1e-300"),
        ({"recovery_lr_factor": 1e9}, "prune.recovery_lr_factor must be in [0.001, 100], got 1000000000.0"),
        ({"shrink_weight": 1e30}, "prune.shrink_weight must be in (0, 1,000], got 1e+30"),
        ({"refit_ridge": 1e300}, "prune.refit_ridge must be in [0, 1,000,000], got 1e+300"),
        ({"coarse_error_weight": 1e300}, "prune.coarse_error_weight must be in [1e-06, 1,000,000], got 1e+300"),
        ({"density_weight": 1e-300}, "prune.density_weight must be in [1e-06, 1,000,000], got 1e-300"),
        ({"target_mb": 1e300}, "prune.target_mb must be in (0, 1,000,000], got 1e+300"),
        ({"auto_start": 1e300}, "prune.auto_start must be in (0, 1,000], got 1e+300"),
        ({"calibration_rays": 10**12}, "prune.calibration_rays must be in [1, 262,144], got 1000000000000"),
        ({"calibration_samples": 10**12}, "prune.calibration_samples must be in [1, 1,048,576], got 1000000000000"),
        ({"num_eval_rays": 10**9}, "prune.num_eval_rays must be in [0, 1,048,576], got 1000000000"),
        ({"num_events": 10**11, "schedule": "cubic"}, "prune.num_events must be in [1, 1,000], got 100000000000"),
        ({"start_step": 10**12}, "prune.start_step must be in [0, 1,000,000,000], got 1000000000000"),
        ({"seed": -1}, "prune.seed must be in [0, 2^63), got -1"),
        ({"seed": 2**63}, "prune.seed must be a whole number, got 9223372036854775808"),
        ({"groups": ()}, "prune.groups must be at least one pattern of names, got ()"),
        ({"group_widths": {}}, "prune.group_widths must be at least one pattern of names, got {}"),
        ({"teacher": TeacherConfig(steps=9, jitter=1e30)}, "prune.teacher.jitter must be in [0, 100], got 1e+30"),
        ({"teacher": TeacherConfig(hard_pool=10**12)}, "prune.teacher.hard_pool must be in [1, 262,144], got 100000"),
        ({"coarse": FieldTargetConfig(width=10**30)}, "prune.coarse.width must be a whole number, got 1000000000000"),
    ],
)
def test_numbers_that_no_machine_could_bear(options: dict[str, Any], message: str) -> None:
    """Each of these came to NaN weights without a word, to terabytes, to hours, or to an error in mid-run that named no
    option."""
    with pytest.raises(ValueError) as caught:
        PruneConfig(**options).validate()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": "8"}, "prune.width must be a whole number, got '8'"),
        ({"width": 8.5}, "prune.width must be a whole number, got 8.5"),
        ({"refit": "edge"}, "prune.refit must be one of none, lstsq, merge, got 'edge'"),
        ({"schedule": "x"}, "prune.schedule must be one of one-shot, iterative, cubic, got 'x'"),
        ({"preset": []}, "prune.preset must be one of paper, fast, best, tiny, got []"),
        ({"strategy": ["obs"]}, "prune.strategy must be a text, got ['obs']"),
        ({"score": 3}, "prune.score must be a text, got 3"),
        ({"groups": "*"}, "prune.groups must be a list of texts, got '*'"),
        (
            {"group_widths": {"*": "8"}},
            "prune.group_widths must be a mapping of texts to whole numbers, got {'*': '8'}",
        ),
        ({"teacher": 5}, "prune.teacher must be options with their values, got 5"),
        ({"teacher": {"steps": True}}, "prune.teacher.steps must be a whole number, got True"),
        ({"fine": TeacherConfig()}, "prune.fine must be options with their values, got TeacherConfig("),
        ({"on_error": None}, "prune.on_error must be one of stop, continue, got None"),
        ({"recovery_lr": "1e-3"}, "prune.recovery_lr must be a finite number, got '1e-3'"),
    ],
)
def test_values_of_another_type(options: dict[str, Any], message: str) -> None:
    """A YAML file and a script put any value into the dataclass; the command line's parser is not there to look."""
    with pytest.raises(ValueError) as caught:
        PruneConfig(**options).validate()
    assert str(caught.value).startswith(message)


def test_no_teacher_at_all_is_no_teacher() -> None:
    """None stands for what is not given, for a group of options too; a checkpoint may say so of the teacher."""
    config = PruneConfig(teacher=cast(Any, None))
    config.validate()
    assert config.typed() == PruneConfig() == PruneConfig.from_plain({"teacher": None})


def test_one_option_alone_is_checked_without_the_others() -> None:
    """At the start of a resumed run the others are still in the checkpoint, which is not loaded yet."""
    PruneConfig(width=3, pruning_ratio=0.5).check_values()
    with pytest.raises(ValueError, match=r"^prune\.teacher\.jitter must be in"):
        PruneConfig(teacher=TeacherConfig(jitter=1e9)).check_values()


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
                "prune.score must be one of activation, apoz, fisher, obs, sensitivity, taylor, w_in, w_in_w_out, "
                "w_out, got 'w_inn'"
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
    recipe = PruneConfig(**options).resolve()
    assert recipe.score == score
    assert (getattr(recipe, "score_function", None) is None) == (score is None)


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


GROUPS = [cls for cls in (*PruneConfig.__mro__, TeacherConfig, FieldTargetConfig) if issubclass(cls, Group)]
WITHOUT_DEFAULT = {"width", "head_width", "pruning_ratio", "group_widths", "edge_threshold", *BUDGETS}
"""Options that mean something only if they are given."""
CHECKED_ELSEWHERE = {"width", "head_width"}
"""Numbers whose least value is another option's."""


def help_of(default: PruneConfig, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Option -> its text in `--help`, in the order there."""
    with pytest.raises(SystemExit):
        tyro.cli(PruneConfig, default=default, args=["--help"], prog="prune")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    parts = [part.partition(" ") for part in re.split(r" --(?=[a-z])", text)[1:]]
    return {name.replace("-", "_"): rest for name, _, rest in parts}


def test_every_default_is_said_once() -> None:
    """An open option is None in the class; its default stands in the field's metadata and nowhere else. Each field is
    either such an option, or one of the few that mean something only if they are given, or has a value from the
    start."""
    for cls in (PruneConfig, TeacherConfig):
        options = {f.name for f in fields(cls) if f.default is None}
        defaults = cls.defaults()
        assert defaults.keys() == {f.name for f in fields(cls) if "default" in f.metadata}
        assert options - defaults.keys() == (WITHOUT_DEFAULT if cls is PruneConfig else set())
        assert all(getattr(cls(), name) is None for name in options)
    assert FieldTargetConfig.defaults() == {}


def test_filled_options_are_the_defaults() -> None:
    """The bare preset says nothing, so that each default is filled in, and nothing is left open that has one."""
    filled = PruneConfig(preset="paper").filled()
    assert {name: getattr(filled, name) for name in PruneConfig.defaults()} == {
        **PruneConfig.defaults(),
        "preset": "paper",
    }
    assert all(getattr(filled, name) is None for name in WITHOUT_DEFAULT)
    teacher = TeacherConfig().filled()
    assert vars(teacher) == TeacherConfig.defaults() and None not in vars(teacher).values()


def test_defaults_are_those_of_the_classes_that_use_them() -> None:
    """Who calls the calibration or a refit from Python, and who runs a training, get the same."""
    recipe = PruneConfig(strategy="obs", refit="lstsq", preset="paper").resolve()
    assert isinstance(recipe, NeuronRecipe)
    assert recipe.calibration == Calibration() and recipe.refit == Refit("lstsq")


def test_help_says_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """What is None in the class would be told as «default: None», which is no default at all."""
    found = help_of(PruneConfig(), capsys)
    texts = {f.name: f.metadata["text"] for f in fields(PruneConfig) if "text" in f.metadata}
    texts |= {f"teacher.{f.name}": f.metadata["text"] for f in fields(TeacherConfig)}
    assert texts.keys() <= found.keys()
    wrong = [name for name, text in texts.items() if f"(default: {text})" not in found[name]]
    assert wrong == []
    assert {name for name, text in found.items() if "(default: None)" in text} == {
        *WITHOUT_DEFAULT,
        *(f"{f}.{name}" for f in ("coarse", "fine") for name in ("width", "head_width", "pruning_ratio")),
    }
    assert (
        "(default: start_fraction of max_num_iterations" in found["start_step"]
        and "(default: the preset's, else 512)" in found["calibration_rays"]
    )


def test_help_says_what_a_method_brings(capsys: pytest.CaptureFixture[str]) -> None:
    """`nerf-prune-demo` has a start step of its own; its help must not name another one."""
    found = help_of(PruneConfig(start_step=75, schedule="cubic", groups=("a", "b")), capsys)
    assert "(default: 75)" in found["start_step"] and "(default: cubic)" in found["schedule"]
    assert "(default: a b)" in found["groups"] and "(default: keep)" in found["refit_moments"]


def test_help_begins_with_what_is_chosen_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Forty-five options are too many to search; preset and strategy stand in front of the details of some strategy."""
    assert list(help_of(PruneConfig(), capsys))[1:3] == ["preset", "strategy"]


@pytest.mark.parametrize("group", GROUPS, ids=lambda cls: cls.__name__)
def test_rules_of_a_group(group: type[Group]) -> None:
    """A group of options is one class with its rules: each rule names options of its own class, no option has two, and
    no number is without one."""
    own = set(vars(group).get("__annotations__", {}))
    named = [name for names, _, _ in vars(group).get("rules", ()) for name in names]
    assert set(named) <= own and len(named) == len(set(named))
    hints = get_type_hints(group)
    numbers = {name for name in own if {hints[name], *get_args(hints[name])} & {int, float}}
    ruled = {name for base in group.__mro__ for names, _, _ in vars(base).get("rules", ()) for name in names}
    assert numbers - CHECKED_ELSEWHERE <= ruled


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, NeuronRecipe),
        ({"strategy": "uniform"}, NeuronRecipe),
        ({"strategy": "edge"}, EdgeRecipe),
        ({"strategy": "none"}, FieldRecipe),
    ],
)
def test_recipe_of_a_strategy(options: dict[str, Any], kind: type) -> None:
    """Below the options everybody reads the recipe; a dense control has no neurons to choose and plans nothing."""
    config = PruneConfig(shrink_steps=5, recovery_lr=1e-4, recovery_decay=10, round_to=16, **options)
    recipe = config.resolve()
    assert type(recipe) is kind and recipe.prunes == (options.get("strategy") != "none")
    assert (recipe.recovery_lr, recipe.recovery_decay, recipe.round_to) == (1e-4, 10, 16)
    assert recipe.options == config.filled().stored()
    assert recipe.shrink_steps == (5 if kind is NeuronRecipe else 0)  # no neurons leave elsewhere


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, False),
        ({"strategy": "importance", "score": "w_out"}, False),
        ({"strategy": "importance", "score": "activation"}, True),
        ({"strategy": "importance", "score": "taylor"}, True),
        ({"strategy": "obs"}, True),
        ({"strategy": "uniform", "refit": "merge"}, False),
        ({"strategy": "uniform", "refit": "lstsq"}, True),
        ({"strategy": "uniform", "target_macs": 0.5}, True),
    ],
)
def test_calibration_only_where_it_is_needed(options: dict[str, Any], needed: bool) -> None:
    """Rays that nobody looks at cost seconds at every event; a strategy without the samples that it ranks by fails."""
    recipe = PruneConfig(preset="paper", calibration_rays=9, density_weight=2.0, **options).resolve()
    assert isinstance(recipe, NeuronRecipe)
    gradients = options.get("score") == "taylor"
    expected = Calibration(num_rays=9, density_weight=2.0, loss_gradients=gradients) if needed else None
    assert recipe.calibration == expected


def test_stored_options_come_back() -> None:
    """They go into checkpoints as plain values; options of the run at hand are not stored and hold as they are."""
    config = PruneConfig(
        strategy="uniform", groups=("a", "b"), coarse=FieldTargetConfig(width=9), on_error="continue", num_eval_rays=5
    )
    stored = config.stored()
    assert stored["groups"] == ["a", "b"] and stored["coarse"]["width"] == 9 and stored["teacher"]["steps"] is None
    assert stored.keys() == {f.name for f in fields(PruneConfig)} - {"on_error", "num_eval_rays", "panel"}
    again = PruneConfig(num_eval_rays=7).with_stored(stored)
    assert (
        again
        == PruneConfig(
            strategy="uniform", groups=("a", "b"), coarse=FieldTargetConfig(width=9), num_eval_rays=7
        ).filled()
    )
