"""Sentences about the numbers: right whichever way they fall."""

import re
from pathlib import Path
from typing import Any

import pytest
from support.record_factory import run, sizes, speed
from support.table_reader import study

from nerfstudio_prune.report.claims import claims_table, claims_text
from nerfstudio_prune.report.stats import MINUS


def claim_records(gain: float) -> list[Any]:
    values: dict[str, Any] = {"strategy": "importance"}
    return [
        *[run("i-w_in", seed, 19.0 + seed, score="w_in", **values) for seed in (1, 2, 3)],
        *[run("i-w_out", seed, 19.0 + seed + gain + 0.01 * seed, score="w_out", **values) for seed in (1, 2, 3)],
    ]


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (0.5, "0.52 ± 0.01 dB above importance by `w_in`, a clear difference"),
        (-0.5, "0.48 ± 0.01 dB below importance by `w_in`, a clear difference"),
        (-0.02, "0.00 ± 0.01 dB away from importance by `w_in`, no clear difference"),
    ],
)
def test_claims_follow_the_numbers(tmp_path: Path, gain: float, said: str) -> None:
    """The sentence is right whichever way the numbers fall; the spread is that of the differences, not of the arms."""
    text = claims_text(study(tmp_path, *claim_records(gain))) or ""
    (line,) = [line for line in text.splitlines() if "Importance by `w_out`" in line]
    assert line == (
        f"- Importance by `w_out` ends {said} (one comparison: `i-w_out` against `i-w_in`, 3 seeds; "
        "the paper: 0.5 dB above)."
    )


def test_one_seed_shows_no_clear_difference(tmp_path: Path) -> None:
    """However large it is."""
    made = study(
        tmp_path, run("coreset-0.5", 1, 30.0), run("small-0.5", 1, 10.0, None, role="small", pruning_ratio=0.5)
    )
    said = "ends 20.00 dB above a small one trained from scratch for as many steps, no clear difference"
    assert f"{said} (one comparison: `coreset-0.5` against `small-0.5`, 1 seed)." in (claims_text(made) or "")


def test_claims_compare_seeds_that_both_have(tmp_path: Path) -> None:
    """Seed 3 of the small network has no partner."""
    small = [run("small-0.5", s, 18.0 + s, None, role="small", pruning_ratio=0.5) for s in (1, 2, 3)]
    pruned = [run("coreset-0.5", s, 18.5 + s) for s in (1, 2)]
    text = claims_text(study(tmp_path, *small, *pruned)) or ""
    assert "ends 0.50 ± 0.00 dB above a small one" in text and "`small-0.5`, 2 seeds)." in text


def many(*gains: float, seeds: tuple[int, ...] = (1, 2)) -> list[Any]:
    """A small network and pruned ones that end so much above it."""
    small = [run("small-0.5", s, 18.0, None, role="small", pruning_ratio=0.5) for s in seeds]
    arms = [run(f"{g:g}", s, 18 + g + 0.01 * s, strategy=f"s{g:g}") for g in gains for s in seeds]
    return [*small, *arms]


def test_many_comparisons_are_counted(tmp_path: Path) -> None:
    """The sentence says how many point which way and names both ends; the table has each of them."""
    made = study(tmp_path, *many(-1.0, 0.005, 1.0, 2.0))
    (line,) = [line for line in (claims_text(made) or "").splitlines() if "for as many steps" in line]
    # 0.015 and 0.025 above: clear as well, since the spread is as small.
    assert line == (
        "- The pruned network ends clearly above a small one trained from scratch for as many steps in 3 of 4 "
        f"comparisons, clearly below in 1: they reach from {MINUS}0.98 dB (`-1` against `small-0.5`) to +2.02 dB (`2` "
        "against `small-0.5`), over 2 seeds."
    )
    assert "| `2` | `small-0.5` | " in (claims_table(made) or "")


def test_all_and_none_of_the_comparisons(tmp_path: Path) -> None:
    """Counts read as words where they say more, and one seed is said to be too few."""
    (clear,) = [
        line for line in (claims_text(study(tmp_path / "a", *many(1, 2))) or "").splitlines() if "small" in line
    ]
    assert "in all 2 comparisons, clearly below in none: they reach" in clear
    text = claims_text(study(tmp_path / "b", *many(1, 2, seeds=(1,)))) or ""
    assert "None of 2 comparisons shows a clear difference between the pruned network and a small one" in text
    assert text.endswith("over 1 seed, too few to call any clear.")


def test_counts_of_what_points_nowhere(tmp_path: Path) -> None:
    """What is neither above nor below is counted as well: the three numbers make the whole."""
    wide = [run("wide", s, 18 + g, strategy="wide") for s, g in ((1, -1.0), (2, 1.1))]
    text = claims_text(study(tmp_path, *many(1.0), *wide)) or ""
    assert "in 1 of 2 comparisons, clearly below in none, and in 1 there is no clear difference: they reach" in text


def test_claims_keep_roles_apart(tmp_path: Path) -> None:
    """A run that starts from a new initialisation is no pruned network that kept its weights, and ratios do not mix."""
    made = study(
        tmp_path,
        run("coreset-0.75", 1, 18.0, pruning_ratio=0.75),
        run("scratch-0.5", 1, 17.0, strategy="any", recovery="scratch"),
        run("small-0.5", 1, 18.0, None, role="small", pruning_ratio=0.5),
        run("e", 1, 18.0, None, role="small-equal-time", pruning_ratio=0.75),
    )
    assert claims_table(made) is not None
    assert re.findall(r"^\| `.*", claims_table(made) or "", re.MULTILINE) == [
        "| `coreset-0.75` | `e` | 0.00 | 1 | no clear difference |"
    ]


def test_time_claim_names_its_device(tmp_path: Path) -> None:
    """A step takes half of the time, with the share of the operations beside it."""
    text = claims_text(study(tmp_path, speed())) or ""
    share = sizes(0.5).macs_per_ray / sizes().macs_per_ray
    assert text.startswith("With 50 % of the neurons of every layer gone:\n\n- A training step takes 0.50 of the dense")
    said = f"with {share:.2f} of its multiply-accumulates (median of 3 blocks, 0.50 to 0.50, on device A)."
    assert text.endswith(said)
