"""The opening of a report: a rule chooses what it is about, and its sentences follow the numbers."""

from pathlib import Path
from typing import Any, get_args

from support.record_factory import GPU, curve, dense, run, save, speed
from support.table_reader import rows, studies

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.records.schema import LEARNING_RATE, Role, Seconds
from nerfstudio_prune.report.charts import front_chart
from nerfstudio_prune.report.collect import collect
from nerfstudio_prune.report.headline import find_headline, headline_table, sentences
from nerfstudio_prune.report.readme import named_tables
from nerfstudio_prune.report.stats import MINUS, TIMES
from nerfstudio_prune.report.study import ROLES, Study


def seconds(train: float) -> Seconds:
    """Of a calm machine."""
    return Seconds(train, train, 2 * train, 0.0, 0.0)


def preset(name: str, ratio: float, *psnr: float, time: float = 100.0, **values: Any) -> list[Any]:
    """A run for each seed."""
    return [
        run(
            f"preset-{name}-decay",
            s,
            p,
            strategy=f"preset {name}",
            pruning_ratio=ratio,
            seconds=seconds(time),
            **values,
        )
        for s, p in enumerate(psnr, 1)
    ]


def chosen(tmp_path: Path, *records: Any) -> tuple[str, list[str]]:
    """Name of the network of the headline, and names of its rivals."""
    headline = find_headline(studies(tmp_path, *records))
    assert headline is not None
    return headline.arm.name, [arm.name for arm in headline.rivals]


def test_a_rule_chooses_the_network(tmp_path: Path) -> None:
    """Presets go before recipes and those before single strategies, many seeds before quality, and what was left out of
    a recipe is no result: nobody can pick the arm that looks best today."""
    both = [dense(1, 20.0), dense(2, 20.0)]
    single = [run("coreset-0.5", 1, 25.0), run("uniform-0.5", 1, 21.0, strategy="uniform")]
    assert chosen(tmp_path / "a", *both, *single) == ("coreset-0.5", ["coreset-0.5", "uniform-0.5"])
    two = [run("importance-0.5", s, 18.0, strategy="importance") for s in (1, 2)]
    assert chosen(tmp_path / "b", *both, *single, *two) == ("importance-0.5", ["importance-0.5"])
    recipe = [run("r", 1, 17.0, strategy="recipe"), run("w", 1, 30.0, strategy="recipe without refit")]
    assert chosen(tmp_path / "c", *both, *two, *recipe) == ("r", ["r"])
    presets = [*preset("tiny", 0.75, 16.0), *preset("best", 0.5, 16.5)]
    name, rivals = chosen(tmp_path / "d", *both, *two, *recipe, *presets)
    assert (name, rivals) == ("preset-best-decay", ["preset-best-decay", "preset-tiny-decay"])


def test_nothing_to_say(tmp_path: Path) -> None:
    """Without a dense network beside it no pruned one stands for anything; what was measured is told all the same."""
    made = studies(tmp_path, run("coreset-0.5", 1, 25.0))
    assert find_headline(made) is None and headline_table(made) is None
    (only,) = sentences(made)
    assert only == (
        "**What is behind it:** 1 run of networks up to 64 neurons wide, 2,000 steps, on 1 scene (demo-data) and "
        "1 device (Some Processor, 2 threads); nothing beyond that was measured."
    )


def whole(tmp_path: Path) -> list[Study]:
    """Two seeds of a dense network, a small one of twice its rate, two presets; and speed at two sizes."""
    rate = {LEARNING_RATE: 0.01}
    records = [
        *[dense(s, 20.0 + s, seconds=seconds(200.0), config=rate) for s in (1, 2)],
        *[
            run("small-0.5-decay", s, 20.0 + s, None, role="small", pruning_ratio=0.5, seconds=seconds(50.0), config=c)
            for s, c in ((1, {LEARNING_RATE: 0.02}), (2, {LEARNING_RATE: 0.02}))
        ],
        *preset("best", 0.5, 20.9, 22.1),
        *preset("tiny", 0.75, 20.0, 21.0, time=80.0),
        speed(0.5),
        speed(0.75),
    ]
    return collect(save(records, tmp_path))


def test_sentences_say_what_the_records_say(tmp_path: Path) -> None:
    """Every number worked out by hand: 20.9 and 22.1 against 21 and 22 are no clear difference (0.00 on average), a
    training of 100 s is half of 200 s, and that of the small network (50 s) half of it again."""
    won, against, fast, price, behind = sentences(whole(tmp_path))
    assert "`preset-best`, the best of 2 presets, keeps 27 % of the parameters" in won
    assert won.endswith(
        "ends 0.00 ± 0.14 dB away from the dense network of equal steps in 0.50 of the training time: no clear "
        "difference (2 seeds)."
    )
    assert (
        "0.00 ± 0.14 dB away from a network of that size trained from scratch at 2 times the rate, no clear" in against
    )
    assert against.endswith("(2 seeds), which takes 0.50 of its time.")
    assert fast == (
        "**How fast:** a network with 27 % of the parameters takes 0.50 of the dense one's time for a training step "
        "and 0.50 for rendering, measured in turns (medians of 3 blocks, Some Processor, 2 threads)."
    )
    assert price == (
        "**At which price:** smaller still, `preset-tiny` with 8 % of the parameters ends 1.00 ± 0.00 dB below the "
        "dense network in 0.40 of the training time (2 seeds)."
    )
    assert "8 runs of networks up to 128 neurons wide" in behind
    assert (
        "of 2 comparisons of a pruned network with the dense one of equal steps, 1 end clearly below and none" in behind
    )


def test_times_of_other_devices_are_not_divided(tmp_path: Path) -> None:
    """Nor those of a machine that others used: the sentences then speak of quality only, and there is no figure."""
    records = [dense(1, 20.0), *preset("best", 0.5, 19.0, time=100.0)]
    records[1].seconds.train_cpu = 20.0
    headline = find_headline(studies(tmp_path / "busy", *records))
    assert headline is not None and front_chart(headline) is None
    assert "training time" not in " ".join(sentences(studies(tmp_path / "busy", *records)))
    moved = studies(tmp_path / "moved", dense(1, 20.0), *preset("best", 0.5, 19.0, machine=GPU))
    assert find_headline(moved) is None


def test_figure_shows_the_distance_at_equal_time(tmp_path: Path) -> None:
    """The dashed line ends on the dense curve: its label is what the table says."""
    records = [dense(1, 20.0), run("coreset-0.5", 1, 20.0, curve=curve(20.0, 0.5, 12.0))]
    made = studies(tmp_path, *records)
    headline = find_headline(made)
    assert headline is not None
    plot = front_chart(headline)
    gain = made[0].delta_at_equal_time(headline.arm).text(2, signed=True)
    assert plot is not None and f">{gain} dB<" in plot.svg and "coreset-0.5: 27 % of parameters" in plot.svg
    assert "n = 1" in plot.caption


def test_table_of_a_readme(tmp_path: Path) -> None:
    """About six rows: dense, the small network of that size, the presets; and where the numbers come from."""
    text = named_tables(whole(tmp_path))["headline"]()
    found = rows(text)
    assert list(found) == ["`dense`", "`small-0.5` at 2 times the rate", "`preset-best`", "`preset-tiny`"]
    tiny = found["`preset-tiny`"]
    assert (tiny["training time"], tiny["PSNR dB"], tiny["seeds"]) == ("0.40", "20.50 ± 0.71", "2")
    assert tiny["Δ dense dB"] == f"{MINUS}1.00 ± 0.00" and found["`dense`"]["smaller"] == f"1.0{TIMES}"
    assert text.endswith("demo-data, scale cpu, Some Processor, 2 threads, 2 views, seeds 1, 2.")


def test_a_control_beside_cuts_at_several_steps_is_one_run(tmp_path: Path) -> None:
    """A network from scratch is no other one because others were cut later: counted twice, there would seem to be more
    behind the tables than there is."""
    for text in ("early", "late"):
        save([dense(1, schedule=text)], tmp_path / text)
    assert "**What is behind it:** 1 run of networks" in sentences(collect(tmp_path))[-1]


def test_early_and_late_cuts_have_tables_of_their_own(tmp_path: Path) -> None:
    """What is cut early has the rest of its training to recover: they must not be read as one."""
    for text, step in (("late", 1500), ("middle", 1000), ("early", 300)):
        history = [PruneEvent(step, None, "importance", "continue")]
        record = run(f"recipe-{text}", 1, strategy="recipe", schedule=text, history=history)
        save([dense(1, schedule=text), record], tmp_path / text)
    tables = named_tables(collect(tmp_path))
    assert list(rows(tables["early"]())) == ["`dense`", "`recipe-early`"]
    assert list(rows(tables["middle"]())) == ["`dense`", "`recipe-middle`"]
    assert list(rows(tables["late"]())) == ["`dense`", "`recipe-late`"]


def test_every_role_has_its_traits() -> None:
    """A record of a role without them could be read and not be shown."""
    assert set(ROLES) == set(get_args(Role))
