"""Tables of costs, against numbers made by hand."""

from pathlib import Path

import pytest
from support.cost_record_factory import ALL, arm, point, save_costs, scaling, stock_speed
from support.record_factory import run
from support.table_reader import rows

from nerfstudio_prune.records.files import write_record
from nerfstudio_prune.report.collect import collect_all
from nerfstudio_prune.report.cost_study import along, fit_line, operations, peak_shares
from nerfstudio_prune.report.cost_tables import (
    cost_tables,
    large_table,
    lines_table,
    points_table,
    stock_table,
    views_table,
    work_table,
)
from nerfstudio_prune.report.readme import named_tables
from nerfstudio_prune.report.stats import MINUS, TIMES, TO
from nerfstudio_prune.report.writing import write_report


def spread(value: str) -> str:
    """A ratio that is the same in all blocks."""
    return f"{value}{TIMES} ({value}{TO}{value})"


def test_steps_and_frames_beside_stock() -> None:
    """Ratios are those of blocks that took turns: of the medians, the slow second block would shift them."""
    text = stock_table(stock_speed())
    stock, whole, few = (rows(text)[name] for name in ("stock", "256, all samples", "256, skipping"))
    assert (stock["step ms"], stock["of stock's step"], stock["frame s"]) == ("5,000.0", "—", "50.000")
    assert whole["of stock's step"] == spread("0.500") and whole["of our dense step"] == "—"
    assert whole["frame faster than stock's"] == spread("4.00")
    assert few["of stock's step"] == spread("0.062") and few["of our dense step"] == spread("0.125")
    assert few["frame faster than stock's"] == spread("32.00") and few["than our dense's"] == spread("8.00")
    assert "25.00 s, 10.0 of its training steps" in text  # of 2.5 s, median


def test_one_field_is_told_of_by_its_pictures() -> None:
    """It renders by itself and trains beside the other: a time of its steps would be another arm's."""
    cells = rows(stock_table(stock_speed()))["256, one field"]
    assert cells["frame faster than stock's"] == spread("80.00") and cells["than our dense's"] == spread("20.00")
    assert {cells[name] for name in ("step ms", "of stock's step", "with looks", "of our dense step")} == {"—"}
    work = rows(work_table(stock_speed()))["256, one field"]
    assert (work["points a ray, step"], work["points a ray, frame"]) == ("—", "0 + 20")


def test_looks_are_told_apart_and_shared_out() -> None:
    """A step that skips pays for the look at the space: 1.5 s in 500 steps are 3 ms of 5 s."""
    few = rows(stock_table(stock_speed()))["256, skipping"]
    assert few["with looks"] == f"{(0.3125 + 1.5 / 500) / 5:.3f}{TIMES}" and few["look s"] == "1.50"


def test_share_of_the_peak() -> None:
    """Two operations a multiply-accumulate, three products of each layer in training, over the best product."""
    record = stock_speed()
    whole = record.arms[1]
    assert operations(whole, ALL, 256, 3) == 2 * 3 * 8 * 256**2 * 257 * 256
    step, frame = peak_shares(record, whole)
    assert step == pytest.approx(2 * 3 * 8 * 256**2 * 257 * 256 / 2.5 / 200e9)
    assert frame == pytest.approx(2 * 8 * 256**2 * 257 * 100**2 / 12.5 / 200e9)
    cells = rows(work_table(record))["256, all samples"]
    assert (cells["of peak, step"], cells["of peak, frame"]) == (f"{100 * step:.0f} %", f"{100 * frame:.0f} %")
    assert cells["points a ray, frame"] == "64 + 193"


def test_views() -> None:
    """Pictures that are equal have no agreement in dB, and must not look like ones without a value."""
    first, second = rows(views_table(stock_speed())).values()
    both, one = [f"{MINUS}0.010", "49.5", "5 + 32"], [f"{MINUS}0.250", "41.5", "0 + 20"]
    assert list(first.values()) == ["0", "24.00", "23.99", *both, *one]
    assert list(second.values())[3:] == ["0.000", "equal", "64 + 193", "—", "—", "—"]  # a record from before


def test_a_record_without_a_dense_network_of_the_event() -> None:
    """The table shows what is there."""
    record = stock_speed(arms=[arm("stock", 4.0, 40.0, network="stock")])
    text = stock_table(record)
    assert "25.00 s." in text and len(rows(text)) == 1


def test_costs_alone_and_beside_runs(tmp_path: Path) -> None:
    """Either can be measured without the other, and neither changes what is said of the other."""
    folder = save_costs(tmp_path / "records", scaling(), stock_speed())
    write_report(folder, tmp_path / "report", [])
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert all(make() in text for make in cost_tables([scaling(), stock_speed()]).values())
    assert (tmp_path / "report" / "plots" / "scaling-1.svg").is_file() and "plots/scaling-1.svg" in text
    write_record(run("dense"), folder / "runs" / "dense-s1.json")
    write_record(run("dense"), tmp_path / "alone" / "runs" / "dense-s1.json")
    both, alone = (named_tables(*collect_all(path)) for path in (folder, tmp_path / "alone"))
    for name, make in alone.items():
        assert (make() == both[name]()) == (name not in cost_tables([]))
    assert alone["speed-stock"]() == "No records for this; `ns-prune bench speed` makes them."


def test_lines_by_hand() -> None:
    """Through 1, 3 and 4 at 0, 1 and 2 goes 7/6 + 3/2 x, which leaves 1/6 of a variance of 14/3."""
    line = fit_line([0.0, 1.0, 2.0], [1.0, 3.0, 4.0])
    assert line is not None
    assert (line.constant, line.slope, line.r2) == pytest.approx((7 / 6, 3 / 2, 1 - (1 / 6) / (14 / 3)))
    assert fit_line([2.0, 2.0], [1.0, 3.0]) is None
    level = fit_line([1.0, 2.0], [3.0, 3.0])
    assert level is not None and (level.constant, level.slope, level.r2) == (3.0, 0.0, 1.0)


def test_abscissae() -> None:
    """Times of a width follow its multiply-accumulates, not its neurons."""
    points = [point("width", 10, 1.0, width) for width in (16, 32)] + [point("samples", 10, 1.0, samples=8)]
    assert along(points, "width")[0] == [97 * 10 * 16**2 / 1e9, 97 * 10 * 32**2 / 1e9]
    assert along(points, "samples")[0] == [25.0]


def test_lines_and_points_of_a_record() -> None:
    """Constants and slopes are those that the times were made of; what was not varied has no line."""
    text = lines_table(scaling())
    step, frame = rows(text)["step"], rows(text)["frame"]
    assert (step["varied"], step["constant ms"], step["slope ms"], step["R²"]) == ("rays", "1.0", "2 a ray", "1.0000")
    assert (frame["from to"], frame["constant ms"], frame["slope ms"]) == (f"100{TO}900", "5.0", "0.5 a pixel")
    assert text.count("| step |") == text.count("| frame |") == 1
    assert points_table(scaling()).count("| 64 | 32 + 32 |") == 6


def test_the_bound_is_told_beside_the_memory() -> None:
    """A picture that takes more than was promised must be seen to."""
    cells = rows(large_table(scaling()))
    assert (cells["all samples"]["memory MB"], cells["all samples"]["within"]) == ("250", "yes")
    assert (cells["skipping"]["bound MB"], cells["skipping"]["within"]) == ("295", "no")
