"""Tables in the documents say what the code says."""

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from nerfstudio.configs.method_configs import all_methods
from support.layers import LAYERS
from support.pages import ROOT, in_code, inline_code, section, table_rows

from nerfstudio_prune.bench.splat_suite import PHOTO_STEPS, SPLAT_SCALES
from nerfstudio_prune.bench.suite_run import WORK
from nerfstudio_prune.bench.suites import SCALES, SUITES
from nerfstudio_prune.gaussians.scores import SCORES as GAUSSIAN_SCORES
from nerfstudio_prune.nerf.config import REPLACED, FieldTargetConfig, PruneConfig, RayOptions
from nerfstudio_prune.nerf.presets import PRESETS, PresetName
from nerfstudio_prune.nerf.teacher.config import TeacherConfig
from nerfstudio_prune.neurons.scores import SCORES, needs_of
from nerfstudio_prune.neurons.strategies import STRATEGIES
from nerfstudio_prune.splats.config import REPLACED as SPLAT_REPLACED
from nerfstudio_prune.splats.config import DistilOptions, SplatPruneConfig, ViewOptions
from nerfstudio_prune.splats.presets import PRESETS as SPLAT_PRESETS
from nerfstudio_prune.splats.presets import TARGETS
from nerfstudio_prune.splats.recipes import StrategyName

README, DOCS = ROOT / "README.md", ROOT / "docs"
SPLATS = DOCS / "splats.md"
SHARES: Mapping[PresetName, str] = {
    "best": "target_parameters",
    "fast": "target_macs",
    "tiny": "target_parameters",
}


def typed(names: Iterable[str]) -> set[str]:
    """Names as they are typed on the command line."""
    return {name.replace("_", "-") for name in names}


def names_of(cls: Any) -> set[str]:
    """Options of a dataclass, as typed."""
    return typed(field.name for field in fields(cls))


def first_names(text: str) -> list[str]:
    """The first name in every row of a table."""
    return [in_code(row[0])[0] for row in table_rows(text)]


def as_number(text: str) -> str | float:
    return float(text) if re.fullmatch(r"[\d.]+", text) else text


def test_readme_shows_eight_rows_of_options_that_exist() -> None:
    """The README is an entrance, not a manual; what it names must be there."""
    rows = table_rows(section(README, "Options"))
    assert len(rows) == 8
    names = {name for row in rows for name in in_code(row[0])}
    assert names <= names_of(PruneConfig) | names_of(SplatPruneConfig)


def test_readme_is_an_entrance() -> None:
    """Grown to a manual it would be read by nobody; what it lacks is in `docs`."""
    assert len(README.read_bytes()) <= 8192


def test_methods_of_the_readme_are_registered() -> None:
    """A method that does not exist is a command that fails."""
    ours = {name for name in all_methods if name.startswith(("nerf-prune", "splat-prune", "kilonerf"))}
    rows = table_rows(section(README, "Methods"))
    assert {name for row in rows for name in in_code(row[0])} == ours


@pytest.mark.parametrize(("page", "title"), [(README, "Presets"), (DOCS / "presets.md", "The four presets")])
def test_presets_are_those_there_are(page: Path, title: str) -> None:
    """The numbers of a preset stand and fall with its values; the tables have to name them all, and the default."""
    rows = {in_code(row[0])[0]: " ".join(row[1:]) for row in table_rows(section(page, title))}
    assert rows.keys() == PRESETS.keys()
    assert [name for name, text in rows.items() if "the default" in text] == [PruneConfig().filled().preset]
    for name, share in SHARES.items():
        assert f"{PRESETS[name][share]:.0%}".replace("%", " %") in rows[name]


def as_filled(options: str) -> dict[str, str | float]:
    """What the cell of a preset gives: option -> value."""
    values = dict(text.split() for text in in_code(options))
    return {option: as_number(value) for option, value in values.items()}


def test_presets_of_gaussians_give_every_value() -> None:
    """The same for the page of Gaussians, whose presets have the same names and other values."""
    rows = table_rows(section(SPLATS, "Presets"))
    assert {row[0].strip("`"): as_filled(row[1]) for row in rows} == {
        name: {option.replace("_", "-"): as_number(str(value)) for option, value in values.items()}
        for name, values in SPLAT_PRESETS.items()
    }
    assert [row[0].strip("`") for row in rows if "the default" in row[2]] == [SplatPruneConfig().filled().preset]


def test_choices_of_gaussians_are_those_there_are() -> None:
    """Strategies, scores, targets and options of the teacher: what is missing here is never tried."""
    rules = {name: row for row in table_rows(section(SPLATS, "Which ones")) for name in in_code(row[0])}
    strategies, scores = set(get_args(StrategyName)), set(GAUSSIAN_SCORES)
    assert rules.keys() == strategies | scores
    needs = {name: "views" if GAUSSIAN_SCORES[name]().needs else "nothing" for name in scores}
    assert {name: rules[name][1] for name in scores} == needs
    assert set(first_names(section(SPLATS, "How far"))) == typed([*TARGETS, "sh_degree"])
    told = {name for row in table_rows(section(SPLATS, "Fewer harmonics")) for name in in_code(row[0])}
    assert told == {"sh-degree", "sh-step"} | {f"distil.{name}" for name in names_of(DistilOptions)}


def test_presets_page_gives_every_value() -> None:
    """Whoever wants a part of a recipe copies it from here."""
    rows = table_rows(section(DOCS / "presets.md", "What each preset fills in"))
    found = {name.strip("`"): as_filled(options) for name, options in rows}
    assert found == {
        name: {option.replace("_", "-"): as_number(str(value)) for option, value in values.items()}
        for name, values in PRESETS.items()
    }


@pytest.mark.parametrize(
    ("title", "replaced"),
    [
        ("Which option replaces what", REPLACED),
        ("Which option replaces what, with Gaussians", SPLAT_REPLACED),
    ],
)
def test_resuming_table_is_what_the_code_does(title: str, replaced: Mapping[str, Set[str]]) -> None:
    """Which earlier options a new one replaces is not to be guessed, and a wrong table is worse than none."""
    found: dict[str, set[str]] = {}
    for given, others in table_rows(section(DOCS / "resuming.md", title)):
        for name in in_code(given):
            assert name not in found
            found[name] = set(in_code(others)) - {name}
    assert found == {name.replace("_", "-"): typed(following) - typed([name]) for name, following in replaced.items()}


def test_resuming_names_the_options_of_the_run_at_hand() -> None:
    """These hold for one run only, which a person who resumes has to know."""
    text = section(DOCS / "resuming.md", "What is stored")
    (sentence,) = re.findall(r"^\w+ options .*? not stored: (.*?)\.", text, flags=re.MULTILINE)
    assert set(in_code(sentence)) == names_of(RayOptions) | names_of(ViewOptions)


def test_suites_and_scales_are_those_there_are() -> None:
    """The tables are where a user learns what there is to run, and how large it is."""
    page = DOCS / "benchmarks.md"
    assert set(first_names(section(page, "Suites"))) == {*SUITES, *WORK}
    rows = {in_code(row[0])[0]: row[1:4] for row in table_rows(section(page, "Scales"))}
    method: Any = all_methods["nerf-prune"]
    expected = {}
    for name, scale in SCALES.items():
        width = scale.options.get("pipeline.model.base_mlp_layer_width", method.pipeline.model.base_mlp_layer_width)
        expected[name] = [str(width), f"{scale.start_steps:,} of {scale.steps:,}", str(len(scale.seeds))]
    assert rows == expected


def test_scales_of_gaussians_are_those_there_are() -> None:
    """Photographs have other numbers than pictures of an object, and hours depend on them."""
    rows = {in_code(row[0])[0]: row[1:] for row in table_rows(section(DOCS / "benchmarks.md", "Gaussians"))}
    expected = {}
    for name, scale in SPLAT_SCALES.items():
        photos = replace(scale, **PHOTO_STEPS.get(name, {}))
        steps = [f"{s.start_steps:,} + {s.recovery_steps:,}" for s in (scale, photos)]
        lower = dict.fromkeys(f"{s.harmonics_steps:,}" for s in (scale, photos))
        expected[name] = [*steps, " / ".join(lower), str(len(scale.seeds))]
    assert rows == expected


def test_strategies_and_scores_are_those_there_are() -> None:
    """The page where a user learns what there is to choose from; what is missing there is never tried."""
    page = DOCS / "strategies.md"
    assert sorted(first_names(section(page, "Strategies there are"))) == sorted([*STRATEGIES, "edge", "none"])
    rows = {in_code(row[0])[0]: row[1] for row in table_rows(section(page, "Scores there are"))}
    assert rows == {name: needs_of(score) for name, score in SCORES.items()}


def test_options_of_the_teacher_are_all_told() -> None:
    """Each of them has a place on the teacher's page."""
    rows = table_rows(section(DOCS / "teacher.md", "Options"))
    assert {name for row in rows for name in in_code(row[0])} == names_of(TeacherConfig)


def test_targets_of_one_field_are_options_of_the_common_target() -> None:
    """The table of resuming speaks of `coarse` and `fine` as targets, which they are only while this holds."""
    assert names_of(FieldTargetConfig) <= names_of(PruneConfig)
    assert {"coarse", "fine"} <= REPLACED["width"]


def test_make_targets_are_all_told() -> None:
    """Who contributes looks here for what there is; a target of the Makefile that is not told is not run, and one that
    is gone must not be told."""
    page = ROOT / "CONTRIBUTING.md"
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    rows = set(first_names(section(page, "Contributing")))
    told = rows | {text.removeprefix("make ") for text in inline_code(page)}
    assert rows <= set(" ".join(phony).split()) <= told


def test_layers_in_the_design_are_those_that_are_checked() -> None:
    """The table is what a contributor goes by; it is only worth something while it is the one that imports are held
    against: every room stands in it once, and may import rooms of smaller numbers only."""
    rows = table_rows(section(DOCS / "design.md", "Rooms and layers"))
    numbers = {in_code(row[1])[0]: int(row[0]) for row in rows}
    assert len(numbers) == len(rows) and set(numbers) == set(LAYERS)
    assert all(numbers[lower] < numbers[room] for room, allowed in LAYERS.items() for lower in allowed)
