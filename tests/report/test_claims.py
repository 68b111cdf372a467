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
    ("gain", "number_text", "verdict"),
    [(0.5, "+0.52", "higher"), (-0.5, f"{MINUS}0.48", "lower"), (-0.02, "0.00", "no clear difference")],
)
def test_claims_follow_the_numbers(tmp_path: Path, gain: float, number_text: str, verdict: str) -> None:
    """The sentence is right whichever way the numbers fall; the spread is that of the differences, not of the arms."""
    text = claims_text(study(tmp_path, *claim_records(gain))) or ""
    (line,) = [line for line in text.splitlines() if "`w_out` against `w_in`" in line]
    expected = f"`i-w_out` against `i-w_in`: {number_text} dB (standard deviation 0.01 dB, n = 3): {verdict}."
    assert line.endswith(expected)


def test_one_seed_shows_no_clear_difference(tmp_path: Path) -> None:
    """However large it is."""
    made = study(
        tmp_path, run("coreset-0.5", 1, 30.0), run("small-0.5", 1, 10.0, None, role="small", pruning_ratio=0.5)
    )
    text = claims_text(made) or ""
    assert "`coreset-0.5` against `small-0.5`: +20.00 dB (n = 1): no clear difference." in text


def test_claims_compare_seeds_that_both_have(tmp_path: Path) -> None:
    """Seed 3 of the small network has no partner."""
    small = [run("small-0.5", s, 18.0 + s, None, role="small", pruning_ratio=0.5) for s in (1, 2, 3)]
    pruned = [run("coreset-0.5", s, 18.5 + s) for s in (1, 2)]
    assert "+0.50 dB (standard deviation 0.00 dB, n = 2): higher" in (
        claims_text(study(tmp_path, *small, *pruned)) or ""
    )


def test_many_comparisons_are_counted(tmp_path: Path) -> None:
    """The sum names both ends, and the table below has each of them."""
    small = [run("small-0.5", s, 18.0, None, role="small", pruning_ratio=0.5) for s in (1, 2)]
    arms = [
        run(f"{n}-0.5", s, p + s * 0.01 + 0.005, strategy=n)
        for n, p in (("uniform", 17.0), ("x", 19.0))
        for s in (1, 2)
    ]
    made = study(tmp_path, *small, *arms)
    (line,) = [line for line in (claims_text(made) or "").splitlines() if "small from scratch at equal steps" in line]
    assert "Of 2 comparisons: higher 1, lower 1, no clear difference 0" in line
    # 17.015 and 17.025 against 18, 19.015 and 19.025 against 18.
    ends = re.findall(r"([+\u2212]\d\.\d\d) dB \((\S+) against (\S+)\)", line)
    assert ends == [(f"{MINUS}0.98", "`uniform-0.5`", "`small-0.5`"), ("+1.02", "`x-0.5`", "`small-0.5`")]
    assert "| `x-0.5` | `small-0.5` | " in (claims_table(made) or "")


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
    assert f"takes 0.50 of the dense one's time (blocks 0.50 to 0.50, n = 3) with {share:.2f} of its" in text
    assert text.endswith("on device A.")
