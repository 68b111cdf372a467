"""Options of pruning Gaussians: what is refused, in which words, and how the command line reaches them."""

import math
import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast, get_args, get_type_hints

import pytest
import tyro
from nerfstudio.models.splatfacto import SplatfactoModelConfig

from nerfstudio_prune.engine.options import Group
from nerfstudio_prune.gaussians.scores import SCORES
from nerfstudio_prune.splats.checks import RULES, check_config, check_model
from nerfstudio_prune.splats.config import DistilOptions, SplatPruneConfig
from nerfstudio_prune.splats.model import SplatPruneModelConfig
from nerfstudio_prune.splats.pipeline import SplatPrunePipelineConfig
from nerfstudio_prune.splats.presets import PRESETS, TARGETS

BIG = "1,000,000,000"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruning_ratio": 1.0}, "prune.pruning_ratio must be in [0, 1), got 1.0"),
        ({"pruning_ratio": -0.1}, "prune.pruning_ratio must be in [0, 1), got -0.1"),
        ({"pruning_ratio": math.nan}, "prune.pruning_ratio must be a finite number, got nan"),
        ({"target_gaussians": 0}, f"prune.target_gaussians must be in [1, {BIG}], got 0"),
        ({"target_gaussians": 10**12}, f"prune.target_gaussians must be in [1, {BIG}], got 1000000000000"),
        ({"target_mb": 0.0}, "prune.target_mb must be in (0, 1,000,000], got 0.0"),
        ({"target_mb": 1e300}, "prune.target_mb must be in (0, 1,000,000], got 1e+300"),
        ({"max_psnr_drop": 0.0}, "prune.max_psnr_drop must be in (0, 100], got 0.0"),
        ({"max_psnr_drop": math.inf}, "prune.max_psnr_drop must be a finite number, got inf"),
        ({"sh_degree": 4}, "prune.sh_degree must be in [0, 3], got 4"),
        ({"sh_degree": -1}, "prune.sh_degree must be in [0, 3], got -1"),
        ({"rounds": 0}, "prune.rounds must be in [1, 100], got 0"),
        ({"rounds": 101}, "prune.rounds must be in [1, 100], got 101"),
        ({"volume_power": -0.5}, "prune.volume_power must be in [0, 10], got -0.5"),
        ({"num_events": 0}, "prune.num_events must be in [1, 1,000], got 0"),
        ({"round_to": 0}, "prune.round_to must be in [1, 1,048,576], got 0"),
        ({"start_step": -1}, f"prune.start_step must be in [0, {BIG}], got -1"),
        ({"stop_step": 10**12}, f"prune.stop_step must be in [0, {BIG}], got 1000000000000"),
        ({"sh_step": -2}, f"prune.sh_step must be in [0, {BIG}], got -2"),
        ({"num_eval_views": -1}, "prune.num_eval_views must be in [0, 1,000,000], got -1"),
        ({"recovery_lr_factor": 0.0}, "prune.recovery_lr_factor must be in [0.001, 100], got 0.0"),
        ({"recovery_warm_up": -1}, f"prune.recovery_warm_up must be in [0, {BIG}], got -1"),
        ({"auto_start": 0.0}, "prune.auto_start must be in (0, 1,000], got 0.0"),
        ({"seed": -1}, "prune.seed must be in [0, 2^63), got -1"),
        ({"distil": DistilOptions(steps=-1)}, f"prune.distil.steps must be in [0, {BIG}], got -1"),
        ({"distil": DistilOptions(sigma=-0.1)}, "prune.distil.sigma must be in [0, 100], got -0.1"),
        ({"distil": DistilOptions(sigma=math.nan)}, "prune.distil.sigma must be a finite number, got nan"),
        ({"distil": DistilOptions(share=1.5)}, "prune.distil.share must be in [0, 1], got 1.5"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    """A number that cannot work is refused before hours of training, in words that name the option, what was found and
    the range."""
    with pytest.raises(ValueError) as caught:
        SplatPruneConfig(**options).validate()
    assert str(caught.value) == message
    with pytest.raises(ValueError) as caught:
        SplatPruneConfig(**options).check_values()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruning_ratio": "0.5"}, "prune.pruning_ratio must be a finite number, got '0.5'"),
        ({"target_gaussians": 1000.5}, "prune.target_gaussians must be a whole number, got 1000.5"),
        ({"rounds": True}, "prune.rounds must be a whole number, got True"),
        ({"preset": []}, "prune.preset must be one of best, paper, tiny, got []"),
        ({"preset": "fast"}, "prune.preset must be one of best, paper, tiny, got 'fast'"),
        ({"strategy": "coreset"}, "prune.strategy must be one of rank, merge, random, none, got 'coreset'"),
        ({"score": 3}, "prune.score must be a text, got 3"),
        ({"removal_norm": "l3"}, "prune.removal_norm must be one of l1, l2, got 'l3'"),
        ({"volume_reference": "x"}, "prune.volume_reference must be one of largest-90, released, got 'x'"),
        ({"schedule": "linear"}, "prune.schedule must be one of one-shot, iterative, cubic, got 'linear'"),
        ({"on_error": None}, "prune.on_error must be one of stop, continue, got None"),
        ({"distil": 5}, "prune.distil must be options with their values, got 5"),
        ({"distil": {"target": "x"}}, "prune.distil.target must be one of photo, teacher, mixed, got 'x'"),
        ({"distil": {"loss": "l1"}}, "prune.distil.loss must be one of splatfacto, l2, got 'l1'"),
        ({"distil": {"geometry": 1}}, "prune.distil.geometry must be"),
        ({"distil": {"steps": "all"}}, "prune.distil.steps must be a whole number, got 'all'"),
    ],
)
def test_values_of_another_type(options: dict[str, Any], message: str) -> None:
    """A YAML file and a script put any value into the dataclass; the command line's parser is not there to look."""
    with pytest.raises(ValueError) as caught:
        SplatPruneConfig(**options).validate()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pruning_ratio": 0.5, "target_gaussians": 1000},
            "prune.pruning_ratio, prune.target_gaussians are contradictory targets; give exactly one of them",
        ),
        ({"target_mb": 1.0, "max_psnr_drop": 1.0}, "prune.target_mb, prune.max_psnr_drop are contradictory targets"),
        ({"recovery": "scratch"}, "prune.recovery must be continue or retrain for Gaussians"),
        ({"recovery": "rewind"}, "prune.recovery must be continue or retrain for Gaussians"),
        (
            {"recovery_lr": 1e-3},
            "prune.recovery_lr is one rate, and Gaussians have one optimizer for each",
        ),
        ({"score": "w_in"}, f"prune.score must be one of {', '.join(sorted(SCORES))}, got 'w_in'"),
        ({"schedule": "one-shot", "num_events": 3, "start_step": 1}, ""),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    """If one of two won silently, the run would be filed under a size that it does not have."""
    config = SplatPruneConfig(**options)
    if not message:  # what the schedule says of the number of events
        config.validate()
        return
    with pytest.raises(ValueError) as caught:
        config.validate()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({"preset": name} for name in PRESETS),
        {"strategy": "none"},
        {"strategy": "none", "recovery": "scratch"},
        {"pruning_ratio": 0.0},
        {"target_gaussians": 1},
        {"strategy": "random", "score": None},
        {"strategy": "merge", "sh_degree": 0},
        {"preset": "tiny", "target_mb": 0.5},
        {"recovery": "retrain", "recovery_lr_factor": 2.0},
        {"distil": DistilOptions(steps=0)},
        {"distil": DistilOptions(share=1.0, sigma=0.0)},
    ],
)
def test_sensible_options_pass(options: dict[str, Any]) -> None:
    """The limits of each range belong to it; a check that is too strict takes a documented use away."""
    config = SplatPruneConfig(**options)
    config.validate()
    config.resolve()


def test_presets() -> None:
    """Open options are filled in at one place: by the preset, then by the defaults. An own target takes the place of
    the preset's, and what is given stays."""
    best = SplatPruneConfig().filled()
    assert (best.preset, best.strategy, best.score, best.rounds, best.pruning_ratio, best.sh_degree) == (
        *("best", "rank", "removal", 6, 0.66, 2),
    )
    paper = SplatPruneConfig(preset="paper").resolve()
    assert (paper.score, paper.rounds, paper.distil.target, paper.aim) == (
        *("significance", 1, "teacher", ("pruning_ratio", 0.66)),
    )
    tiny = SplatPruneConfig(preset="tiny", target_gaussians=500).resolve()
    assert (tiny.aim, tiny.sh_degree) == (("target_gaussians", 500), 1)
    random = SplatPruneConfig(strategy="random").resolve()
    assert (random.score, random.score_function, random.rounds, random.aim) == (
        *(None, None, 1, ("pruning_ratio", 0.66)),
    )
    none = SplatPruneConfig(strategy="none").resolve()
    assert (none.aim, none.sh_degree, none.prunes, none.target) == (None, None, False, "nothing")
    own = SplatPruneConfig(preset="paper", distil=DistilOptions(target="photo", steps=3)).filled()
    assert (own.distil.target, own.distil.steps) == ("photo", 3)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_can_be_asked_for(name: str) -> None:
    """Rounds take scores anew as others leave, which says nothing new where no view is looked at."""
    recipe = SplatPruneConfig(score=name).resolve()
    assert recipe.score == name and recipe.score_function is not None
    assert recipe.rounds == (6 if SCORES[name]().needs else 1)
    assert ("6 rounds" in recipe.rule) == bool(SCORES[name]().needs)


def test_texts() -> None:
    """What stands in plans, records and on the panel."""
    cases = {
        ("pruning_ratio", 0.66): "pruning_ratio 0.66",
        ("target_gaussians", 12_000): "target_gaussians 12,000",
        ("target_mb", 1.5): "target_mb 1.5",
        ("max_psnr_drop", 0.5): "max_psnr_drop 0.5",
    }
    for (name, value), text in cases.items():
        recipe = SplatPruneConfig(sh_degree=1, **{name: value}).resolve()
        assert recipe.target == f"{text}, sh_degree 1" and recipe.rule == "preset best, rank by removal in 6 rounds"
    assert SplatPruneConfig(preset="tiny", strategy="merge").resolve().rule == "preset tiny, merge"


def test_steps_of_a_run() -> None:
    """The degree is lowered 3/8 of the way from the last event to the end: 21,000 of 30,000 steps, as LightGaussian's
    share of recovery and distillation; the teacher stays for a fifth of the run, or what is left."""
    options = SplatPruneConfig().filled()
    whole = replace(options, start_step=15_600, stop_step=18_000, num_events=1).with_own_steps(0, 30_000)
    assert (whole.sh_step, whole.distil.steps) == (21_000, 6000)
    late = replace(options, start_step=30_000, stop_step=30_000, num_events=1).with_own_steps(30_000, 45_000)
    assert (late.sh_step, late.distil.steps) == (35_625, 3000)
    several = replace(options, start_step=100, stop_step=200, num_events=2).with_own_steps(0, 281)
    assert (several.sh_step, several.distil.steps) == (230, 50)
    alone = replace(options, sh_degree=None, sh_step=5, start_step=10, stop_step=10, num_events=1)
    assert alone.with_own_steps(0, 20).sh_step is None


def test_command_line() -> None:
    """The options are reached through tyro; nested ones are where a field's type is easily one that it cannot build."""
    found = tyro.cli(
        SplatPruneConfig,
        args=(
            "--preset paper --strategy rank --score significance --volume-power 0.2 --volume-reference released "
            "--rounds 2 --target-gaussians 5000 --sh-degree 1 --sh-step 900 --distil.steps 50 --distil.target mixed "
            "--distil.loss l2 --distil.geometry False --distil.share 0.5 --recovery retrain --start-step 800"
        ).split(),
    )
    assert found == SplatPruneConfig(
        preset="paper",
        strategy="rank",
        score="significance",
        volume_power=0.2,
        volume_reference="released",
        rounds=2,
        target_gaussians=5000,
        sh_degree=1,
        sh_step=900,
        distil=DistilOptions(steps=50, target="mixed", loss="l2", geometry=False, share=0.5),
        recovery="retrain",
        start_step=800,
    )


@pytest.mark.parametrize("args", [["--strategy", "edge"], ["--preset", "fast"], ["--distil.target", "pupil"]])
def test_command_line_refuses_unknown_choices(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Closed lists of names are checked where they are typed in, and the message offers the choices."""
    with pytest.raises(SystemExit):
        tyro.cli(SplatPruneConfig, args=args)
    assert args[1] in capsys.readouterr().err


def help_of(default: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Option -> its text in `--help`, in the order there."""
    with pytest.raises(SystemExit):
        tyro.cli(type(default), default=default, args=["--help"], prog="prune")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    parts = [part.partition(" ") for part in re.split(r" --(?=[a-z.-]+[a-z] )", text)[1:]]
    return {name.replace("-", "_"): rest for name, _, rest in parts}


def test_every_option_has_a_help_text_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """`ns-train splat-prune --help` is the reference; a field without a docstring is a blank there, and «default: None»
    is no default."""
    found = help_of(SplatPruneConfig(), capsys)
    for name in (f.name for f in fields(SplatPruneConfig) if not is_dataclass(getattr(SplatPruneConfig(), f.name))):
        assert len(found[name].split("(default", 1)[0].split()) > 4, name
    texts = {f.name: f.metadata["text"] for f in fields(SplatPruneConfig) if "text" in f.metadata}
    texts |= {f"distil.{f.name}": f.metadata["text"] for f in fields(DistilOptions)}
    assert [name for name, text in texts.items() if f"(default: {text})" not in found[name]] == []
    assert {name for name, text in found.items() if "(default: None)" in text} == {*TARGETS}
    assert list(found)[1:3] == ["preset", "strategy"]


def test_every_default_is_said_once() -> None:
    """An open option is None in the class; its default stands in the field's metadata and nowhere else."""
    for cls in (SplatPruneConfig, DistilOptions):
        options = {f.name for f in fields(cls) if f.default is None}
        assert options - cls.defaults().keys() == ({*TARGETS} if cls is SplatPruneConfig else set())
    filled = SplatPruneConfig(strategy="none").filled()
    assert {name: getattr(filled, name) for name in SplatPruneConfig.defaults()} == {
        **SplatPruneConfig.defaults(),
        "strategy": "none",
    }


GROUPS = [cls for cls in (*SplatPruneConfig.__mro__, DistilOptions) if issubclass(cls, Group)]


@pytest.mark.parametrize("group", GROUPS, ids=lambda cls: cls.__name__)
def test_rules_of_a_group(group: type[Group]) -> None:
    """Each rule names options of its own class, no option has two, and no number is without one."""
    own = set(vars(group).get("__annotations__", {}))
    named = [name for names, _, _ in vars(group).get("rules", ()) for name in names]
    assert set(named) <= own and len(named) == len(set(named))
    hints = get_type_hints(group)
    numbers = {name for name in own if {hints[name], *get_args(hints[name])} & {int, float}}
    ruled = {name for base in group.__mro__ for names, _, _ in vars(base).get("rules", ()) for name in names}
    assert numbers <= ruled


def test_stored_options_come_back() -> None:
    """They go into checkpoints as plain values; options of the run at hand are not stored and hold as they are."""
    config = SplatPruneConfig(
        strategy="merge", target_mb=2.0, distil=DistilOptions(sigma=0.3), on_error="continue", num_eval_views=7
    )
    stored = config.stored()
    assert stored["distil"]["sigma"] == 0.3 and stored["target_mb"] == 2.0
    assert stored.keys() == {f.name for f in fields(SplatPruneConfig)} - {"on_error", "num_eval_views", "panel"}
    again = SplatPruneConfig(num_eval_views=2).with_stored(stored)
    assert again == replace(config, num_eval_views=2, on_error="stop").filled()
    assert SplatPruneConfig.from_plain({"distil": None}) == SplatPruneConfig()
    assert SplatPruneConfig(distil=cast(Any, None)).typed() == SplatPruneConfig()


# Options of the model, which are the host's


HOSTS_OWN = {"_target", "collider_params", "camera_optimizer", "loss_coefficients", "prompt", "enable_collider"}
HOSTS_OWN |= {"eval_num_rays_per_chunk"}
"""Options that are configurations themselves, or that splatfacto does not read."""


def test_every_option_of_the_model_has_a_rule() -> None:
    """The host's dataclass has types and no ranges; a new option of a later version would pass unchecked."""
    names = {f.name for f in fields(SplatPruneModelConfig)}
    ruled = [name for rule in RULES for name in rule[0]]
    assert len(ruled) == len(set(ruled)) and set(ruled) <= names
    assert {f.name for f in fields(SplatfactoModelConfig)} <= names == set(ruled) | names & HOSTS_OWN


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("rasterizer", "cuda", "one of auto, gsplat, cpu, got 'cuda'"),
        ("background_color", "pink", "one of auto, random, black, white, got 'pink'"),
        ("warmup_length", -1, f"in [0, {BIG}], got -1"),
        ("refine_every", 0, f"in [1, {BIG}], got 0"),
        ("refine_every", 1.5, "a whole number, got 1.5"),
        ("resolution_schedule", 0, f"in [1, {BIG}], got 0"),
        ("num_downscales", 9, "in [0, 8], got 9"),
        ("cull_alpha_thresh", 0.5, "in (0, 0.5): opacities are reset to twice of it, got 0.5"),
        ("cull_alpha_thresh", 0.0, "in (0, 0.5): opacities are reset to twice of it, got 0.0"),
        ("cull_scale_thresh", math.nan, "a finite number, got nan"),
        ("reset_alpha_every", 0, f"in [1, {BIG}], got 0"),
        ("densify_grad_thresh", -1.0, "in [0, 1,000,000], got -1.0"),
        ("n_split_samples", 3, "2: gsplat splits a Gaussian into two, got 3"),
        ("sh_degree_interval", 0, f"in [1, {BIG}], got 0"),
        ("num_random", 9, "in [10, 100,000,000], got 9"),
        ("random_scale", 0.0, "in (0, 1,000,000], got 0.0"),
        ("ssim_lambda", 1.1, "in [0, 1], got 1.1"),
        ("stop_split_at", -5, f"in [0, {BIG}], got -5"),
        ("sh_degree", 4, "in [0, 3], got 4"),
        ("max_gauss_ratio", 0.5, "in [1, 1,000,000], got 0.5"),
        ("schedule_steps", 0, f"in [1, {BIG}], got 0"),
        ("use_absgrad", 1, "True or False, got 1"),
        ("rasterize_mode", "fast", "one of classic, antialiased, got 'fast'"),
        ("grid_shape", (2, 0, 2), "three numbers in [1, 1,024], got (2, 0, 2)"),
    ],
)
def test_options_of_the_model(option: str, value: Any, expected: str) -> None:
    """Several of these divide by zero at the first step, or never densify, in the host."""
    config = SplatPruneModelConfig(**{option: value})
    with pytest.raises(ValueError) as caught:
        check_model(config)
    assert str(caught.value) == f"pipeline.model.{option} must be {expected}"
    pipeline = SplatPrunePipelineConfig(model=config)
    for trains in (True, False):
        with pytest.raises(ValueError, match=f"^pipeline.model.{option} must be "):
            check_config(pipeline, trains)
