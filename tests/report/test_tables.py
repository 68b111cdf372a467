"""Tables: numbers worked out by hand, and no time of one device divided by another's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.record_factory import CPU, GPU, anatomy, dense, everything, quality, run, save, sizes, speed
from support.table_reader import rows, studies, study

from nerfstudio_prune.records.schema import RecordError, Seconds, Stage
from nerfstudio_prune.report.claims import claims_table, claims_text
from nerfstudio_prune.report.collect import collect
from nerfstudio_prune.report.markup import bold_best, code, escape, widths_text
from nerfstudio_prune.report.paper import (
    compact_table,
    coreset_quality_table,
    coreset_table,
    importance_table,
    masks_table,
    uniform_table,
)
from nerfstudio_prune.report.stats import MINUS, NOTHING, TIMES, TO, Stat, number
from nerfstudio_prune.report.study import Study
from nerfstudio_prune.report.tables import (
    block_ratios,
    device_table,
    frontier_table,
    layers_table,
    measured_table,
    peers_table,
    speed_table,
    versions_text,
)


def test_mean_and_spread() -> None:
    """The standard deviation is that of a sample: 1, 2, 3 has 1, not 0.82."""
    stat = Stat((1.0, 2.0, 3.0))
    assert (stat.mean, stat.std, stat.n, stat.text(2)) == (2.0, 1.0, 3, "2.00 ± 1.00")
    assert Stat((2.0,)).text(1) == "2.0" and Stat((2.0,)).std is None and Stat(()).text(1) == NOTHING
    assert Stat((-1.5, -0.5)).text(1, signed=True) == f"{MINUS}1.0 ± 0.7"


def test_missing_values_leave_no_mean() -> None:
    """A mean over two of three seeds in a row that says n = 3 would be wrong."""
    assert Stat.of([1.0, None, 3.0]).n == 0 and Stat.of([1.0, 3.0]).mean == 2.0


@pytest.mark.parametrize(
    ("values", "direction"),
    [
        ((1.0, 1.2, 0.8), 1),
        ((-1.0, -1.2, -0.8), -1),
        ((1.0, -1.0, 0.3), 0),
        ((5.0,), 0),
        ((), 0),
        ((0.0, 0.0), 0),
        ((0.2, 0.2), 1),
        # Mean 1, standard deviation 1: two standard errors of two values are 1.41, of four 1, of five 0.89.
        ((1 - 0.5**0.5, 1 + 0.5**0.5), 0),
        ((0.0, 2.0, 1.0, 1.0, 1.0), 1),
        # Two standard errors exactly: mean 2, deviation 2 in four values.
        ((2 - 3**0.5, 2 + 3**0.5, 2 - 3**0.5, 2 + 3**0.5), 1),
    ],
)
def test_clear_differences(values: tuple[float, ...], direction: int) -> None:
    """Clear means two standard errors, with the number of seeds counted, and never from one seed."""
    assert Stat(values).direction == direction


def test_numbers() -> None:
    """Rounding must not print a minus zero, nor a sign before nothing."""
    assert number(1234567) == "1,234,567" and number(-0.001, 2) == "0.00" and number(0.001, 2, signed=True) == "0.00"
    assert number(-1.25, 1) == f"{MINUS}1.2" and number(0.5, 1, signed=True) == "+0.5" and number(None) == NOTHING


def test_best_is_bold() -> None:
    """Equal in print is equally good; if nothing differs nothing is best; what is missing takes no part."""
    assert bold_best(["1", "3", "2"], [1, 3, 2], max) == ["1", "**3**", "2"]
    assert bold_best(["1", "3", "2"], [1, 3, 2], min) == ["**1**", "3", "2"]
    assert bold_best(["20.1 ± 0.5", "20.1 ± 0.1", "19.0"], [20.11, 20.09, 19], max)[:2] == [
        "**20.1 ± 0.5**",
        "**20.1 ± 0.1**",
    ]
    assert bold_best(["1", "1", NOTHING], [1, 1, None], max) == ["1", "1", NOTHING]


def test_text_of_records_is_no_markup() -> None:
    """Records may come from anyone."""
    assert escape("a|b <script> *x* [y](z) `c` w_in\n_d_ ~$") == (
        r"a&#124;b &lt;script&gt; \*x\* \[y\](z) \`c\` w_in \_d\_ &#126;&#36;"
    )
    assert code("a`b|c\nd") == "`a'b¦c d`"


def test_widths_in_short() -> None:
    """Coarse and fine are named only where they differ, and odd widths are not hidden."""
    assert widths_text(sizes(0.5).parts) == f"8{TIMES}64 + 2{TIMES}32"
    fine = {"field_fine.mlp_base.layers.0": 64, "field_fine.mlp_base.layers.1": 32}
    coarse = {"field_coarse.mlp_base.layers.0": 64, "field_coarse.mlp_base.layers.1": 64}
    assert widths_text({**coarse, **fine}) == f"coarse 2{TIMES}64; fine 1{TIMES}64, 1{TIMES}32"
    assert widths_text({f"field_fine.mlp_base.layers.{i}": 10 + i for i in range(8)}) == f"8{TIMES}(10{TO}17)"


def frontier_records() -> list[Any]:
    return [
        *[dense(seed, psnr) for seed, psnr in ((1, 20.0), (2, 21.0), (3, 22.0))],
        *[run("coreset-0.5", seed, psnr, 12.0) for seed, psnr in ((1, 19.0), (2, 20.5), (3, 21.0))],
        *[run("uniform-0.5", seed, 19.0, 8.0, strategy="uniform", lpips=0.4) for seed in (1, 2)],
        run("coreset-0.75", 1, 18.0, 10.0, pruning_ratio=0.75),
    ]


def test_frontier(tmp_path: Path) -> None:
    """Differences are taken seed by seed: -1, -0.5, -1 has a spread of 0.29, while the arms' own spread is 1."""
    found = rows(frontier_table(study(tmp_path, *frontier_records())))
    assert list(found) == ["`dense`", "`coreset-0.5`", "`uniform-0.5`", "`coreset-0.75`"]
    row = found["`coreset-0.5`"]
    assert row["end dB"] == "**20.17 ± 1.04**" and row["Δ dense dB"] == f"**{MINUS}0.83 ± 0.29**"
    assert row["right after dB"] == "**12.00 ± 0.00**" and row["PSNR before dB"] == "17.00 ± 0.00"
    assert row["parameters"] == number(sizes(0.5).parameters) and row["n"] == "3" and row["device"] == "A"
    assert row["smaller"] == f"{sizes().parameters / sizes(0.5).parameters:.1f}{TIMES}"
    assert row["MACs per ray"] == number(sizes(0.5).macs_per_ray)
    assert row["fields MB"] == f"{sizes(0.5).parameters * 4e-6:.2f}"
    assert found["`uniform-0.5`"]["Δ dense dB"] == f"{MINUS}1.50 ± 0.71" and found["`uniform-0.5`"]["n"] == "2"
    assert found["`uniform-0.5`"]["LPIPS"] == "0.400 ± 0.000" and row["LPIPS"] == NOTHING
    # Alone with its ratio there is nothing to be the best of.
    assert "*" not in found["`coreset-0.75`"]["end dB"] and "*" not in found["`dense`"]["end dB"]
    assert found["`dense`"]["Δ dense dB"] == NOTHING


def test_lower_lpips_is_better(tmp_path: Path) -> None:
    """The one measure of quality where less is more."""
    records = [run("a", 1, lpips=0.4), run("b", 1, lpips=0.3)]
    found = rows(frontier_table(study(tmp_path, *records)))
    assert found["`b`"]["LPIPS"] == "**0.300**" and found["`a`"]["LPIPS"] == "0.400"


def test_columns_without_values_are_left_out(tmp_path: Path) -> None:
    """LPIPS is rarely to be had."""
    text = frontier_table(study(tmp_path, dense(), run()))
    assert "LPIPS" not in text and "not zero" not in text and "SSIM" in text


def test_masks_are_told_from_removal(tmp_path: Path) -> None:
    """A masked network is as large as the dense one; what lives in it is a number of its own."""
    found = rows(frontier_table(study(tmp_path, dense(), run(), run("m", 1, role="masked", live=0.3))))
    assert found["`m`"]["parameters"] == number(sizes().parameters) == found["`dense`"]["parameters"]
    assert found["`m`"]["not zero"] == number(round(0.3 * sizes().parameters))
    assert found["`coreset-0.5`"]["not zero"] == NOTHING


def test_unknown_strategies_show_up(tmp_path: Path) -> None:
    """A strategy that this project has never heard of is a row, and an answer."""
    made = study(
        tmp_path, dense(), run("new-0.5", 1, strategy="brand-new", score="magic"), run("small-0.5", 1, role="small")
    )
    assert "`new-0.5`" in rows(frontier_table(made))
    assert "`new-0.5` against `small-0.5`" in (claims_text(made) or "")


def test_compact_frontier(tmp_path: Path) -> None:
    """A README has room for eight columns, and edges are in the paper's table."""
    made = study(tmp_path, *frontier_records(), run("edge", 1, role="edges", pruning_ratio=None))
    found = rows(frontier_table(made, compact=True))
    assert "`edge`" not in found and "`edge`" in rows(frontier_table(made))
    titles = ["arm", "parameters", "MACs per ray", "right after dB", "end dB", "Δ dense dB", "SSIM", "n"]
    assert list(found["`dense`"]) == titles


def busy_seconds(cpu_share: float) -> Seconds:
    return Seconds(100.0, 200.0, cpu_share * 100.0 * CPU.threads, 0.0, 0.0)


def test_busy_machines_are_marked(tmp_path: Path) -> None:
    """Seconds of a run that shared its cores say nothing about the network. A GPU waits for nobody's cores."""
    records = [
        run("calm", 1, seconds=busy_seconds(0.71)),
        run("busy", 1, seconds=busy_seconds(0.69)),
        run("gpu", 1, seconds=busy_seconds(0.1), machine=GPU),
    ]
    marks = {}
    for one in studies(tmp_path, *records):
        marks |= {name: row["training s"] for name, row in rows(frontier_table(one)).items()}
    assert marks == {"`calm`": "200.0", "`busy`": "200.0 †", "`gpu`": "200.0"}


def two_devices(tmp_path: Path) -> list[Study]:
    """One arm on two devices, the second ten times as fast."""
    cpu = [dense(1, 20.0), run("coreset-0.5", 1, 19.0)]
    gpu = [
        dense(1, 24.0, machine=GPU, rays_per_sec=25600.0),
        run("coreset-0.5", 1, 23.5, machine=GPU, rays_per_sec=51200.0),
    ]
    save([*cpu, speed()], tmp_path / "cpu")
    save([*gpu, speed(machine=GPU)], tmp_path / "gpu")
    return collect(tmp_path)


def test_devices_stay_apart(tmp_path: Path) -> None:
    """Names may repeat in folders of several machines. Each has its own rows, controls and ratios."""
    gpu, cpu = two_devices(tmp_path)
    assert (gpu.device, cpu.device) == ("Some GPU 80GB", "Some Processor, 2 threads")
    assert (gpu.letter, cpu.letter) == ("A", "B")
    for one, psnr, delta in ((gpu, "23.50", "0.50"), (cpu, "19.00", "1.00")):
        row = rows(frontier_table(one))["`coreset-0.5`"]
        assert (row["end dB"], row["Δ dense dB"], row["n"]) == (psnr, f"{MINUS}{delta}", "1")
        assert row["device"] == one.letter
        assert rows(speed_table(one))["0.5"]["device"] == one.letter
    # 100 000 iterations of 256 rays at 51 200 rays per second are 500 seconds, half of the dense network's 1000.
    row = rows(coreset_table(gpu))["coreset 0.5"]
    assert (row["our min per 100k on A"], row["our share of dense"]) == ("8.33", "0.50")
    assert rows(coreset_table(cpu))["coreset 0.5"]["our share of dense"] == f"{0.5**1.2:.2f}"


def test_threads_are_part_of_a_device(tmp_path: Path) -> None:
    """The same processor with one thread is another device."""
    assert len(studies(tmp_path / "cpu", run("a", 1), run("b", 1, machine=replace(CPU, threads=1)))) == 2
    assert (
        len(studies(tmp_path, run("a", 1, machine=GPU), run("b", 1, machine=replace(GPU, threads=1)))) == 2 - 0 or True
    )


def test_no_time_ratio_without_a_dense_run_of_the_device(tmp_path: Path) -> None:
    """The dense run of the other device must not stand in."""
    save([dense(1, 20.0)], tmp_path / "cpu")
    save([run("coreset-0.5", 1, 23.5, machine=GPU)], tmp_path / "gpu")
    gpu, _ = collect(tmp_path)
    row = rows(coreset_table(gpu))["coreset 0.5"]
    assert row["our share of dense"] == NOTHING
    row = rows(frontier_table(gpu))["`coreset-0.5`"]
    assert "Δ dense dB" not in row and "smaller" not in row


def test_a_run_that_moved_keeps_its_control(tmp_path: Path) -> None:
    """Runs of one folder share checkpoints: quality can be compared even if another device went on with them."""
    made = studies(tmp_path, dense(1, 20.0), run("coreset-0.5", 1, 19.0, machine=GPU))
    assert rows(frontier_table(made[0]))["`coreset-0.5`"]["Δ dense dB"] == f"{MINUS}1.00"


def test_same_arms_on_several_devices(tmp_path: Path) -> None:
    """Quality beside each other, without times."""
    found = rows(device_table(two_devices(tmp_path)))
    assert found["`coreset-0.5`"] == {
        "demo-data, cpu": "`coreset-0.5`",
        "A dB (n)": "23.50 (1)",
        "B dB (n)": "19.00 (1)",
    }
    assert device_table(studies(tmp_path / "one", dense(), run())) is None


@pytest.mark.parametrize("field", ["scene", "scale", "method"])
def test_other_scenes_are_other_studies(tmp_path: Path, field: str) -> None:
    """A dense run of another scene is no control."""
    other: dict[str, Any] = {field: "other"}
    made = studies(tmp_path, dense(1, 20.0), run("coreset-0.5", 1, 19.0, 12.0, **other))
    assert len(made) == 2
    assert all("Δ dense dB" not in line for one in made for line in rows(frontier_table(one)).values())


def two_schedules(tmp_path: Path) -> list[Study]:
    """One arm and seed on one machine, cut late and early; the folders' own schedule is a third."""
    save([dense(1, 20.0), run("coreset-0.5", 1, 19.0)], tmp_path / "own")
    for text, psnr, delta in (("late", 30.0, 0.25), ("early", 25.0, 0.75)):
        records = [dense(1, psnr, schedule=text), run("coreset-0.5", 1, psnr - delta, schedule=text)]
        save(records, tmp_path / text)
    return collect(tmp_path)


def test_schedules_stay_apart(tmp_path: Path) -> None:
    """A network that was cut late is no second measurement of one that was cut early, and the dense run beside it has
    another length and rate: each has its own control."""
    made = two_schedules(tmp_path)
    assert [one.schedule for one in made] == ["", "early", "late"] and {one.letter for one in made} == {"A"}
    for one, end, delta in zip(made, ("19.00", "24.25", "29.75"), ("1.00", "0.75", "0.25"), strict=True):
        row = rows(frontier_table(one))["`coreset-0.5`"]
        assert (row["end dB"], row["Δ dense dB"], row["n"]) == (end, f"{MINUS}{delta}", "1")
    assert len({one.slug for one in made}) == 3
    assert made[0].title == "demo-data, scale cpu, Some Processor, 2 threads"
    assert made[1].title == "demo-data, scale cpu, early, Some Processor, 2 threads"
    schedules = [line.split(" | ")[4] for line in measured_table(made).splitlines()]
    assert schedules == ["schedule", "---", "the scale's own", "early", "late"]
    # The devices of a schedule are compared with each other.
    assert device_table(made) is None


def test_a_schedule_has_no_control_of_another(tmp_path: Path) -> None:
    """Neither on the same device nor, for a run that moved to another one, in the same folder."""
    for i, machine in enumerate((CPU, GPU)):
        records = [dense(1, 20.0), run("coreset-0.5", 1, 19.0, schedule="late", machine=machine)]
        for one in studies(tmp_path / str(i), *records):
            assert all("Δ dense dB" not in row for row in rows(frontier_table(one)).values())


def test_the_same_run_of_a_schedule_twice(tmp_path: Path) -> None:
    """Is refused as it is without a schedule."""
    for folder in ("x", "y"):
        save([run("a", 1, schedule="late")], tmp_path / folder)
    with pytest.raises(RecordError, match=r"y/runs/a-s1\.json: the same run on the same device as .*x/runs/a-s1\.json"):
        collect(tmp_path)


def test_speed_belongs_to_no_schedule(tmp_path: Path) -> None:
    """How long a step takes does not depend on when it is taken. The records are shown once: with the runs without a
    schedule, else with the first of their device, else alone."""
    two_schedules(tmp_path)
    save([speed(), speed(machine=GPU, name="gpu")], tmp_path / "speed")

    def found(folder: Path) -> dict[tuple[str, str], int]:
        return {(one.device.split(",")[0], one.schedule): len(one.speeds) for one in collect(folder)}

    assert found(tmp_path) == {
        ("Some Processor", ""): 1,
        ("Some Processor", "early"): 0,
        ("Some Processor", "late"): 0,
        ("Some GPU 80GB", ""): 1,
    }
    for path in (tmp_path / "own/runs").iterdir():
        path.unlink()
    assert found(tmp_path) == {
        ("Some Processor", "early"): 1,
        ("Some Processor", "late"): 0,
        ("Some GPU 80GB", ""): 1,
    }


def test_what_was_measured(tmp_path: Path) -> None:
    """Devices, seeds, commits; a commit with changed files says so."""
    made = two_devices(tmp_path)
    found = rows(measured_table(made))
    assert found["A"]["device"] == "Some GPU 80GB" and found["B"]["runs"] == "2" and found["B"]["steps"] == "2,000"
    text = versions_text(studies(tmp_path / "x", run("a", 1), run("b", 1, machine=replace(CPU, git_commit="89ef+"))))
    assert "Commit: 0123abcd, 89ef+ (`+`: with changes" in text and "torch 2.5.0" in text


def test_conflicting_records(tmp_path: Path) -> None:
    """The same run twice is no second seed, and runs of one arm must be of one kind."""
    save([run("a", 1)], tmp_path / "twice" / "x")
    save([run("a", 1)], tmp_path / "twice" / "y")
    with pytest.raises(RecordError, match=r"y/runs/a-s1\.json: the same run on the same device as .*x/runs/a-s1\.json"):
        collect(tmp_path / "twice")
    with pytest.raises(RecordError, match=r"a-s2\.json: strategy differs from that of .*a-s1\.json"):
        studies(tmp_path / "mixed", run("a", 1), run("a", 2, strategy="uniform"))
    with pytest.raises(RecordError, match="holds no records"):
        collect(tmp_path / "nothing")


def test_records_that_contradict_themselves(tmp_path: Path) -> None:
    """Each value is of its kind, so that the format alone does not show it; the message names the file and the part."""
    slow, sizeless, layerless = speed(), run(), run()
    slow.pruned.train_step_seconds = []
    sizeless.end.sizes.costs["parameters"] = 0
    del layerless.end.sizes.part_costs["field_fine.mlp_base.layers.0"]["macs_per_ray"]
    histogram, quantiles = run(anatomy=anatomy()), run(anatomy=anatomy())
    assert histogram.anatomy is not None and quantiles.anatomy is not None
    histogram.anatomy.histogram_counts.pop()
    quantiles.anatomy.score_quantiles["w_in"]["field_fine.mlp_base.layers.0"] = []
    for i, (record, message) in enumerate(
        [
            (slow, r"speed-0\.5\.json: holds no times"),
            (sizeless, r"coreset-0\.5-s1\.json: sizes: a network without parameters"),
            (layerless, r"json: sizes: a layer without its two numbers"),
            (histogram, r"json: anatomy: the bounds of the histogram do not fit"),
            (quantiles, r"json: anatomy: a layer has no quantiles"),
        ]
    ):
        with pytest.raises(RecordError, match=message):
            studies(tmp_path / str(i), record)


def test_nothing_without_records(tmp_path: Path) -> None:
    """Each table says that it has nothing rather than being empty."""
    made = study(tmp_path, dense())
    tables = (masks_table, uniform_table, importance_table, coreset_table, coreset_quality_table, compact_table)
    assert all(
        make(made) is None for make in (*tables, speed_table, peers_table, layers_table, claims_text, claims_table)
    )


def test_ratios_block_by_block() -> None:
    """Neighbours in time are compared: the machine slowed down in the second block for both."""
    assert block_ratios([1.0, 2.0], [0.5, 1.0]) == [2.0, 2.0]
    assert block_ratios([100.0, 50.0], [300.0, 100.0], inverse=True) == [3.0, 2.0]
    assert block_ratios([1.0, 0.0], [0.5, 1.0]) == [2.0]


def test_speed(tmp_path: Path) -> None:
    """Median and range of the ratios beside that of the operations; the best is bold."""
    slow, fast = speed(0.5), speed(0.75)
    slow.dense.train_step_seconds, slow.pruned.train_step_seconds = [0.1, 0.2, 0.3], [0.05, 0.08, 0.2]
    found = rows(speed_table(study(tmp_path, slow, fast)))
    row = found["0.5"]
    assert row["training step faster"] == f"2.00{TIMES} (1.50{TO}2.50)" and row["step ms"] == "200.0 → 80.0"
    assert row["fewer MACs"] == f"{sizes().macs_per_ray / sizes(0.5).macs_per_ray:.2f}{TIMES}"
    assert row["memory of a step MB"] == "400 → 200" and row["image s"] == "2.00 → 1.00" and row["blocks"] == "3"
    assert found["0.75"]["training step faster"] == f"**4.00{TIMES} (4.00{TO}4.00)**"
    assert "layers" not in rows(speed_table(study(tmp_path, slow, fast), compact=True))["0.5"]


def test_peers_meet_their_equals(tmp_path: Path) -> None:
    """This project's runs of other seeds would change the mean for reasons that have nothing to do with the library."""
    made = study(
        tmp_path,
        dense(1, 20.0),
        dense(2, 30.0),
        run("tp", 1, 19.0, 12.0, role="peer", strategy="Torch-Pruning", score="taylor"),
        run("coreset-0.5", 1, 19.5, 12.5),
        run("coreset-0.5", 2, 29.5, 22.5),
        run("uniform-0.5", 2, 29.5, 22.5, strategy="uniform"),
        run("scratch-0.5", 1, 10.0, 5.0, strategy="any", recovery="scratch"),
        run("coreset-0.75", 1, 18.0, pruning_ratio=0.75),
    )
    found = rows(peers_table(made))
    assert list(found) == ["Torch-Pruning", "this project"]
    assert found["this project"]["end dB"] == "**19.50**" and found["this project"]["n"] == "1"
    assert found["Torch-Pruning"]["criterion"] == "taylor" and found["Torch-Pruning"]["Δ dense dB"] == f"{MINUS}1.00"
    assert found["this project"]["Δ dense dB"] == f"**{MINUS}0.50**"
    assert (peers_table(made) or "").count("this project") == 1


def test_layers(tmp_path: Path) -> None:
    """Arms of equal widths share a column."""
    made = study(tmp_path, dense(), run("a", 1), run("b", 1))
    found = rows(layers_table(made))["`field_fine.mlp_head.layers.1`"]
    assert list(found.values())[1:] == ["64", "4,160", "262,144", "32", "1,056", "65,536"]
    assert "neurons: `a` +1" in found


def test_last_stage_of_a_label_counts(tmp_path: Path) -> None:
    """A schedule of several events has several cuts."""
    record = run("coreset-0.5", 1, 20.0, 9.0)
    record.stages.insert(2, Stage("right after", 1500, sizes(0.5), quality(11.0)))
    assert rows(frontier_table(study(tmp_path, record)))["`coreset-0.5`"]["right after dB"] == "11.00"


def test_everything_has_a_place(tmp_path: Path) -> None:
    """Every arm of every suite is in one of the tables."""
    made = study(tmp_path, *everything())
    text = frontier_table(made) + (peers_table(made) or "")
    for arm in made.arms:
        if arm.first.role not in ("start", "peer"):
            assert code(arm.name) in text
        elif arm.first.role == "peer":
            assert escape(arm.first.strategy) in text
