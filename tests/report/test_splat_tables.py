"""Tables of Gaussians: numbers worked out by hand, and nothing compared that cannot be."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.record_factory import CPU, run
from support.splat_record_factory import row, save_splats, splat_run, splat_speed, zero_shot
from support.table_reader import column, table_cells

from nerfstudio_prune.records.files import write_record
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.collect import collect_all
from nerfstudio_prune.report.readme import named_tables
from nerfstudio_prune.report.splat_study import SplatStudy, collect_splats
from nerfstudio_prune.report.splat_tables import (
    NO_RECORDS,
    harmonics_table,
    recovered_table,
    splat_speed_table,
    zero_shot_table,
)
from nerfstudio_prune.report.splat_targets import TARGETS, lightgaussian_table, splat_tables, targets_table
from nerfstudio_prune.report.stats import MINUS, NOTHING, TIMES, TO
from nerfstudio_prune.report.writing import write_report

CUT = {"before": 31.0, "right after": 29.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of a small suite."""
    for seed in (0, 1):
        save_splats(
            tmp_path,
            splat_run("dense-start", seed, "start", {"end": 31.0}),
            splat_run("dense", seed, "dense", {"end": 32.0 + seed}),
            splat_run("removal-6-34", seed, psnr={**CUT, "end": 31.5 + seed}, keep=0.34),
            splat_run("significance-34", seed, psnr={**CUT, "end": 29.0}, keep=0.34, score="significance", rounds=1),
            splat_run("capped-34", seed, "capped", {"end": 31.0 + seed}, keep=0.34),
            splat_run(
                "sh2-photo",
                seed,
                "harmonics",
                {"before": 31.5, "right after": 31.0, "end": 31.4 + 0.2 * seed},
                keep=0.34,
                degree=2,
                distil="photo",
            ),
            zero_shot(seed),
            splat_speed(seed),
        )
    return tmp_path


@pytest.fixture
def study(folder: Path) -> SplatStudy:
    """What these records are compared as."""
    (found,) = collect_splats(folder)
    return found


def test_recovered(study: SplatStudy) -> None:
    """The difference to the dense run is taken seed by seed: its spread is 0 where both rise alike."""
    text = recovered_table(study)
    assert text is not None
    assert column(text, "arm") == ["`dense`", "`removal-6-34`", "`significance-34`", "`capped-34`"]
    assert column(text, "end dB")[1] == "32.00 ± 0.71"
    assert column(text, "Δ dense dB") == [
        NOTHING,
        f"{MINUS}0.50 ± 0.00",
        f"{MINUS}3.50 ± 0.71",
        f"{MINUS}1.00 ± 0.00",
    ]
    assert column(text, "right after dB")[0] == NOTHING and column(text, "n") == ["2"] * 4
    assert column(text, "Gaussians")[:2] == ["1,000 ± 0", "340 ± 0"]
    assert column(text, "validation dB")[1] == "31.50 ± 0.71"


def test_harmonics(study: SplatStudy) -> None:
    """What lowering the degree costs is told against the model right before it."""
    text = harmonics_table(study)
    assert text is not None
    assert column(text, "cut alone, Δ dB") == [f"{MINUS}0.50 ± 0.00"]
    assert column(text, "end, Δ dB") == ["0.00 ± 0.14"]
    assert column(text, "degree") == ["2"] and column(text, "learns from") == ["photo"]


def test_zero_shot(study: SplatStudy) -> None:
    """The best rule comes first; a share that a rule was not tried at is no number."""
    text = zero_shot_table(study)
    assert text is not None and "Whole model: 31.00 ± 0.00 dB." in text
    assert column(text, "rule") == ["removal, 6 rounds", "significance"]
    assert column(text, "keep 34 % dB") == ["**29.00 ± 0.00**", "23.50 ± 0.00"]


def test_a_rule_of_some_seeds(tmp_path: Path) -> None:
    """A rule that one seed lacks shows the mean of those that there are, and its spread says nothing."""
    save_splats(tmp_path, zero_shot(0), zero_shot(1, [row("dense", 0, 1.0, 31.0), row("removal", 6, 0.34, 28.0)]))
    (study,) = collect_splats(tmp_path)
    text = zero_shot_table(study)
    assert text is not None and column(text, "keep 34 % dB") == ["**28.50 ± 0.71**", "23.50"]


def test_speed(study: SplatStudy) -> None:
    """Each factor is that of two blocks that were measured one right after the other."""
    text = splat_speed_table(study)
    assert text is not None
    assert column(text, "step faster") == [f"2.00{TIMES} (2.00{TO}2.00)"] * 2
    assert column(text, "step ms")[0] == "45.0 → 22.5" and column(text, "frame ms")[0] == "19.0 → 9.5"


def test_targets(folder: Path) -> None:
    """A target is reached or not, and one that nothing was measured for is left out."""
    text = targets_table(collect_splats(folder))
    found = {cells[1]: cells for cells in table_cells(text)[1:]}
    dense = found[f"… recovered: less dense of equal steps, at least {MINUS}0.4 dB"]
    assert dense[2:] == [f"{MINUS}0.50 ± 0.00 dB", "no", "2"]
    capped = next(cells for words, cells in found.items() if "less capped of equal steps" in words)
    assert capped[2:4] == ["+0.50 ± 0.00 dB", "yes"]
    over = next(cells for words, cells in found.items() if "over the paper's score" in words)
    assert over[2:4] == ["+5.50 ± 0.00 dB", "yes"]
    assert len(table_cells(text)[1:]) < len([target for target in TARGETS if target.scene == "lego_100"])
    assert targets_table([]) == NO_RECORDS


def test_lightgaussian(study: SplatStudy) -> None:
    """The paper's numbers are those of the paper; ours stand beside, with the same baseline of each difference."""
    text = lightgaussian_table(study)
    assert text is not None
    first = table_cells(text.partition("Table 3")[0])[1:]
    assert first[1][:3] == ["+ pruning by significance", "30.32", f"{MINUS}1.36"]
    assert first[1][3:5] == ["23.50 ± 0.00", f"{MINUS}7.50"]
    assert first[2][5:7] == ["32.00 ± 0.71", "+1.00"]


def test_studies_do_not_mix(folder: Path) -> None:
    """Another device, another scene: never in one row."""
    other = replace(CPU, device="Another")
    save_splats(folder / "b", splat_run("dense", 0, "dense", {"end": 10.0}, machine=other))
    save_splats(folder / "c", splat_run("dense", 0, "dense", {"end": 20.0}, scene="fox_135x240", val=False))
    studies = collect_splats(folder)
    assert [(study.scene, study.device) for study in studies] == [
        ("fox_135x240", "Some Processor, 2 threads"),
        ("lego_100", "Another, 2 threads"),
        ("lego_100", "Some Processor, 2 threads"),
    ]
    assert "validation dB" not in (recovered_table(studies[0]) or "")


def test_conflicts_name_the_files(folder: Path) -> None:
    """Two measurements of one run, or two meanings of one arm, would make a mean of nothing."""
    save_splats(folder / "again", splat_run("dense", 0, "dense", {"end": 10.0}))
    with pytest.raises(RecordError, match=r"dense-s0\.json: the same run"):
        collect_splats(folder)
    (folder / "again" / "splat-runs" / "dense-s0.json").unlink()
    save_splats(folder / "again", splat_run("removal-6-34", 5, keep=0.2, psnr={"end": 20.0}))
    with pytest.raises(RecordError, match=r"keep differs"):
        collect_splats(folder)


def test_choices_without_test_views(folder: Path) -> None:
    """Tables tell test views; a record that has none is named, and no key error ends the report."""
    save_splats(folder / "again", zero_shot(5, [replace(row("removal", 6, 0.34, 29.0), psnr={"val": 29.0})]))
    with pytest.raises(RecordError, match=r"zero-shot-s5\.json: a choice without the quality of test views"):
        collect_splats(folder)


def test_rounds_beside_the_paper_are_compared_seed_by_seed(tmp_path: Path) -> None:
    """A seed that lacks one of the two, or another program's choices, must not shift the pairs: +5 and +7, not +6 and
    what stands next."""
    both = [[row("removal", 6, 0.34, 20.0 + n), row("significance", 1, 0.34, 15.0)] for n in (0, 9, 2)]
    records = [zero_shot(seed, choices if seed != 1 else choices[:1]) for seed, choices in enumerate(both)]
    other = zero_shot(0, [row("splat-transform", 0, 0.34, 22.0)])
    other.name = "peer-splat-transform-s0"
    (study,) = collect_splats(save_splats(tmp_path, *records, other))
    (line,) = [cells for cells in table_cells(targets_table([study]))[1:] if "over the paper" in cells[1]]
    assert line[2].startswith("+6.00 ± 1.41") and line[4] == "2"


def test_networks_keep_their_tables(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Measuring Gaussians must not change a byte of what is said of networks."""
    alone = tmp_path_factory.mktemp("alone")
    write_record(run("dense"), alone / "runs" / "dense-s1.json")
    write_record(run("dense"), folder / "runs" / "dense-s1.json")
    before, after = (named_tables(*collect_all(path)) for path in (alone, folder))
    for name, make in before.items():
        if not name.startswith("splats-"):
            assert make() == after[name]()
        else:
            assert make() == NO_RECORDS != after[name]()


def test_a_report_of_gaussians_alone(folder: Path, tmp_path: Path) -> None:
    """A person who has measured nothing else gets a page too."""
    write_report(folder, tmp_path / "report", [])
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert all(make() in text for make in splat_tables(collect_splats(folder)).values())


def test_no_records(tmp_path: Path) -> None:
    """An empty folder is a mistake in the command, as for networks."""
    with pytest.raises(RecordError, match="holds no records"):
        collect_all(tmp_path)
