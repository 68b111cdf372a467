"""The table of an ablation: a recipe, what it is worth without each of its parts, and the dense run at equal time."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest
from msgspec import structs
from support.record_factory import CPU, GPU, dense, everything, run, save, sizes, speed
from support.table_reader import rows, study

from nerfstudio_prune.records.schema import LEARNING_RATE, CurvePoint, RunRecord, Seconds
from nerfstudio_prune.report.collect import collect
from nerfstudio_prune.report.command import Report
from nerfstudio_prune.report.readme import named_tables
from nerfstudio_prune.report.stats import MINUS, NOTHING, TIMES, number
from nerfstudio_prune.report.study import gain_at_equal_time
from nerfstudio_prune.report.tables import ablation_table, ablation_text

LATE = "cut at 3,000 of 3,300 steps, rate 0.002 decaying to 0.0002"


def calm(total: float) -> Seconds:
    """Times of a run that had its threads to itself."""
    return Seconds(10.0, total, 10.0 * CPU.threads, 0.1, 5.0)


def curve(*points: tuple[float, float]) -> list[CurvePoint]:
    """Points of (seconds, PSNR), a hundred steps apart."""
    return [CurvePoint(100 * (i + 1), seconds, psnr) for i, (seconds, psnr) in enumerate(points)]


def control(seed: int = 1, psnr: float = 24.0, **values: Any) -> RunRecord:
    """A dense run of an ablation: 10, 20 and 22 dB after 10, 20 and 40 seconds."""
    points = curve((10.0, 10.0), (20.0, 20.0), (40.0, 22.0))
    return dense(seed, psnr, **{"arm": "dense-decay", "curve": points, "seconds": calm(40.0), **values})


def arm(name: str, strategy: str, psnr: float, seed: int = 1, **values: Any) -> RunRecord:
    """A pruned run of an ablation that ends with 22 dB after 30 seconds."""
    points = curve((10.0, 10.0), (20.0, 20.0), (30.0, 22.0))
    fields = {"strategy": strategy, "curve": points, "seconds": calm(30.0), **values}
    return run(f"{name}-decay", seed, psnr, **fields)


def small(seed: int, psnr: float, **values: Any) -> RunRecord:
    """A small network from scratch that ends with 20 dB after 15 seconds."""
    fields = {"role": "small", "strategy": "none", "curve": curve((15.0, 20.0)), "seconds": calm(15.0), **values}
    return run(**{"arm": "small-0.5-decay", "seed": seed, "psnr": psnr, "after": None, "pruning_ratio": 0.5, **fields})


def ablation() -> list[RunRecord]:
    """Two seeds of the whole recipe, one of everything else."""
    return [
        arm("uniform-0.5", "uniform", 21.0),
        arm("recipe-0.5-without-refit", "recipe without refit", 23.0),
        arm("recipe-0.5-without-budget", "recipe without budget", 22.5),
        arm("recipe-0.7", "recipe", 23.5, pruning_ratio=0.7),
        arm("preset-best", "preset best", 23.75, pruning_ratio=0.6),
        *[arm("recipe-0.5", "recipe", psnr, seed, after=20.0) for seed, psnr in ((1, 24.5), (2, 25.0))],
        *[small(seed, psnr) for seed, psnr in ((1, 22.0), (2, 23.5))],
        run("dense-start-decay", 1, 17.0, None, role="start", strategy="none"),
        *[control(seed, psnr) for seed, psnr in ((1, 24.0), (2, 25.0))],
    ]


def test_network_at_another_rate_is_marked(tmp_path: Path) -> None:
    """After an early cut the small network is trained at the larger rate that it bears; a reader who compares it with
    the dense one has to know."""
    faster = small(1, 22.0, config={LEARNING_RATE: 8e-3})
    records = [control(config={LEARNING_RATE: 4e-3}), faster, arm("recipe-0.5", "recipe", 23.0)]
    assert set(rows(ablation_table(study(tmp_path, *records)))) == {
        "`dense`",
        "`small-0.5` at 2 times the rate",
        "`recipe-0.5`",
    }


def test_several_cuts_have_no_before_and_after(tmp_path: Path) -> None:
    """The last of five cuts removes little: shown beside the one cut of another arm it would look free."""
    gradual = arm("preset-tiny", "preset tiny", 23.0)
    first, second, end = gradual.stages
    several = structs.replace(gradual, stages=[first, second, first, second, end])
    found = rows(ablation_table(study(tmp_path, control(), several, arm("recipe-0.5", "recipe", 24.0))))
    assert {found["`preset-tiny`"][title] for title in ("before dB", "right after dB")} == {NOTHING}
    assert NOTHING not in {found["`recipe-0.5`"][title] for title in ("before dB", "right after dB")}


def test_numbers_of_the_table(tmp_path: Path) -> None:
    """By hand, seed by seed: +0.5 and 0 to the dense run, +2.5 and +1.5 to the small one; after 30 seconds, half of the
    way from 20 to 40, the dense curve is at 21 dB, the recipe's at 22."""
    found = rows(ablation_table(study(tmp_path, *ablation())))
    row = found["`recipe-0.5`"]
    assert row == {
        "arm": "`recipe-0.5`",
        "parameters": number(sizes(0.5).parameters),
        "smaller": f"{sizes().parameters / sizes(0.5).parameters:.1f}{TIMES}",
        "MACs per ray": number(sizes(0.5).macs_per_ray),
        "before dB": "17.00 ± 0.00",
        "right after dB": "20.00 ± 0.00",
        "end dB": "24.75 ± 0.35",
        "Δ dense dB": "+0.25 ± 0.35",
        "Δ small dB": "+2.00 ± 0.71",
        "training s": "30.0 ± 0.0",
        "Δ dense at equal time dB": "+1.00 ± 0.00",
        "n": "2",
    }
    # After 15 seconds the dense curve is at 15 dB, the small one's at 20.
    assert found["`small-0.5`"]["Δ dense at equal time dB"] == "+5.00 ± 0.00"
    assert found["`small-0.5`"]["Δ dense dB"] == f"{MINUS}1.75 ± 0.35"
    assert found["`recipe-0.5-without-refit`"]["Δ small dB"] == "+1.00"
    for name, titles in {
        "`dense`": ("before dB", "right after dB", "Δ dense dB", "Δ small dB", "Δ dense at equal time dB"),
        "`small-0.5`": ("before dB", "right after dB", "Δ small dB"),
    }.items():
        assert {title for title, cell in found[name].items() if cell == NOTHING} == set(titles)


def test_order_of_the_table(tmp_path: Path) -> None:
    """What it is about stands at the top: the controls, the recipe from the largest to the smallest, a preset among
    them, then what is missing without each part."""
    made = study(tmp_path, *ablation())
    assert list(rows(ablation_table(made))) == [
        "`dense`",
        "`small-0.5`",
        "`recipe-0.5`",
        "`preset-best`",
        "`recipe-0.7`",
        "`recipe-0.5-without-budget`",
        "`recipe-0.5-without-refit`",
        "`uniform-0.5`",
    ]
    compact = rows(ablation_table(made, compact=True))
    assert "MACs per ray" not in compact["`dense`"] and len(compact["`dense`"]) == 11


def test_seeds_without_a_partner_are_told(tmp_path: Path) -> None:
    """A mean over fewer runs than the row names would mislead."""
    records = [*[control(seed) for seed in (1, 2)], *[arm("recipe-0.5", "recipe", 25.0, seed) for seed in (1, 2, 3)]]
    row = rows(ablation_table(study(tmp_path, *records, small(1, 22.0))))["`recipe-0.5`"]
    assert (row["n"], row["Δ small dB"], row["Δ dense dB"]) == ("3", "+3.00 (n = 1)", "+1.00 ± 0.00 (n = 2)")
    assert row["Δ dense at equal time dB"] == "+1.00 ± 0.00 (n = 2)"


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (arm("recipe-0.5", "recipe", 24.0), True),
        (arm("recipe-0.5-without-obs", "recipe without obs", 24.0), True),
        (arm("preset-best", "preset best", 24.0), True),
        (arm("x", "preset best", 24.0, role="masked"), False),
        (arm("importance-w_out-0.5", "importance", 24.0), False),
    ],
)
def test_what_makes_an_ablation(tmp_path: Path, record: RunRecord, shown: bool) -> None:
    """A decaying rate alone does not: other suites may be run with one."""
    made = study(tmp_path, control(), record)
    assert made.ablation == shown == (ablation_table(made) is not None)


def test_small_networks_of_other_sizes_are_no_control(tmp_path: Path) -> None:
    """The column is about half the width."""
    other = small(1, 22.0, arm="small-0.75-decay", pruning_ratio=0.75)
    found = rows(ablation_table(study(tmp_path, control(), arm("recipe-0.5", "recipe", 25.0), other)))
    assert "Δ small dB" not in found["`recipe-0.5`"] and list(found)[1] == "`small-0.75`"


def test_a_busy_machine_has_its_footnote(tmp_path: Path) -> None:
    """On a page of results as well, which has seconds in no other table."""
    busy = arm("recipe-0.5", "recipe", 25.0, seconds=Seconds(10.0, 30.0, 5.0, 0.1, 5.0))
    made = study(tmp_path, control(), busy)
    for compact in (False, True):
        text = ablation_text(made, compact) or ""
        assert "| 30.0 † |" in text and "\n\n† The machine was busy" in text
    assert "†" not in (ablation_text(study(tmp_path / "calm", *ablation())) or "")


@pytest.mark.parametrize(
    ("end", "gain"),
    [
        ((30.0, 22.0), 1.0),
        ((12.5, 11.5), -1.0),
        ((20.0, 20.25), 0.25),
        # The ends of the dense curve belong to it.
        ((10.0, 10.0), 0.0),
        ((40.0, 21.0), -1.0),
        ((9.9, 10.0), None),
        ((40.1, 23.0), None),
    ],
)
def test_equal_time(end: tuple[float, float], gain: Optional[float]) -> None:
    """What a user wins who stops the dense run when the pruned one is done: the dense curve lies on straight lines
    between 10, 20 and 22 dB at 10, 20 and 40 seconds. Beyond its ends nothing was measured."""
    record = arm("recipe-0.5", "recipe", 30.0, curve=curve((5.0, 99.0), end))
    assert gain_at_equal_time(record, control()) == (None if gain is None else pytest.approx(gain))


BUSY = Seconds(10.0, 30.0, 0.6 * 10.0 * CPU.threads, 0.1, 5.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: structs.replace(record, machine=GPU),
        lambda record: structs.replace(record, machine=replace(CPU, threads=1)),
        lambda record: structs.replace(record, clock="processor"),
        lambda record: structs.replace(record, seconds=BUSY),
        lambda record: structs.replace(record, curve_rays=500),
        lambda record: structs.replace(record, curve=[]),
    ],
)
def test_no_equal_time_where_times_or_rays_differ(change: Callable[[RunRecord], RunRecord]) -> None:
    """Seconds of another device, by another clock or of a machine that did other things are no measure of training, and
    other rays none of quality. It does not matter which of the two it is."""
    record, other = arm("recipe-0.5", "recipe", 24.0), control()
    assert gain_at_equal_time(record, other) == pytest.approx(1.0)
    assert gain_at_equal_time(change(record), other) is None
    assert gain_at_equal_time(record, change(other)) is None


def test_a_run_that_moved_has_no_equal_time(tmp_path: Path) -> None:
    """Its quality is compared with the dense run of its folder, its time is not."""
    records = [control(), arm("recipe-0.5", "recipe", 24.5, machine=GPU)]
    (gpu,) = [one for one in collect(save(records, tmp_path)) if one.device == GPU.key]
    row = rows(ablation_table(gpu))["`recipe-0.5`"]
    assert row["Δ dense dB"] == "+0.50" and "Δ dense at equal time dB" not in row


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Folder with the other suites, and one that holds an ablation as well."""
    ordinary = everything(seeds=(1,))
    peer = run("peer", 1, 10.0, role="peer", strategy="Torch-Pruning", score="taylor")
    edges = run("e", 1, 10.0, role="edges", strategy="edge", pruning_ratio=None, edges={"edge_threshold": 0.05})
    save(ordinary, tmp_path / "plain/own")
    save(ordinary, tmp_path / "both/own")
    late = [structs.replace(record, schedule=LATE) for record in (*ablation(), peer, edges)]
    save(late, tmp_path / "both/late")
    return tmp_path / "plain", tmp_path / "both"


def test_pages_of_results_keep_ablations_apart(both: tuple[Path, Path]) -> None:
    """In a recipe more than the choice of neurons differs, at another length: among the strategies it would pass for a
    better choice. Its own table names the schedule."""
    plain, together = (named_tables(collect(folder)) for folder in both)
    for name in set(plain) - {"summary", "headline", "early", "middle", "late"}:
        assert together[name]() == plain[name]() and "recipe" not in together[name]()
    text = together["middle"]()
    assert list(rows(text))[:3] == ["`dense`", "`small-0.5`", "`recipe-0.5`"]
    assert text.splitlines()[-1] == f"demo-data, scale cpu, {LATE}, Some Processor, 2 threads, 2 views, seeds 1, 2."
    assert (
        plain["middle"]()
        == plain["early"]()
        == together["early"]()
        == "No records for this; `ns-prune bench ablation` makes them."
    )


def test_report_keeps_ablations_apart(both: tuple[Path, Path], tmp_path: Path) -> None:
    """Sections about the choice of neurons and the paper leave them out; size, time and layers are facts of theirs too.
    Headings tell the two studies of one device apart."""
    Report(both[1], tmp_path / "out").main()
    text = (tmp_path / "out/report.md").read_text()
    sections = dict(re.findall(r"^## \d+\. (.*?)$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL))
    headings = {title: re.findall(r"^### (A: .*)$", part, re.MULTILINE) for title, part in sections.items()}
    own, late = "A: demo-data, scale cpu, Some Processor, 2 threads", f"A: demo-data, scale cpu, {LATE}, Some Processor"
    for title in ("What the comparisons say", "The paper's tables", "Other libraries", "Speed"):
        assert headings[title] == [own], title
    assert headings["Presets and recipes"] == [f"{late}, 2 threads"]
    for title in ("Quality against size and time", "Layers and scores"):
        assert headings[title] == [own, f"{late}, 2 threads"], title
    assert (
        "`recipe-0.5-without-refit`" in sections["Presets and recipes"]
        and "held-out rays" in sections["Presets and recipes"]
    )
    assert len(set(re.findall(r"\]\((plots/frontier-[^)]+)\)", text))) == 2


def test_report_of_an_ablation_alone(tmp_path: Path) -> None:
    """A folder of that suite and the speed beside it is a report, too."""
    save([*ablation(), speed()], tmp_path / "records")
    Report(tmp_path / "records", tmp_path / "out").main()
    text = (tmp_path / "out/report.md").read_text()
    assert "| `recipe-0.5` |" in text and "| 0.5 | " in text
    assert "What the comparisons say\n\n" in text and "`ns-prune bench frontier` makes them" in text
