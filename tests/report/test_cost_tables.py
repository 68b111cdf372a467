"""Tables of costs, against numbers made by hand."""

from pathlib import Path

import pytest
from support.cost_record_factory import ALL, arm, save_costs, stock_speed
from support.record_factory import run
from support.table_reader import rows

from nerfstudio_prune.records.files import write_record
from nerfstudio_prune.report.collect import collect_all
from nerfstudio_prune.report.cost_study import operations, peak_shares
from nerfstudio_prune.report.cost_tables import cost_tables, stock_table, views_table, work_table
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
    assert list(first.values()) == ["0", "24.00", "23.99", f"{MINUS}0.010", "49.5", "5 + 32"]
    assert list(second.values())[3:] == ["0.000", "equal", "64 + 193"]


def test_a_record_without_a_dense_network_of_the_event() -> None:
    """The table shows what is there."""
    record = stock_speed(arms=[arm("stock", 4.0, 40.0, network="stock")])
    text = stock_table(record)
    assert "25.00 s." in text and len(rows(text)) == 1


def test_costs_alone_and_beside_runs(tmp_path: Path) -> None:
    """Either can be measured without the other, and neither changes what is said of the other."""
    folder = save_costs(tmp_path / "records", stock_speed())
    write_report(folder, tmp_path / "report", [])
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert all(make() in text for make in cost_tables([stock_speed()]).values())
    write_record(run("dense"), folder / "runs" / "dense-s1.json")
    write_record(run("dense"), tmp_path / "alone" / "runs" / "dense-s1.json")
    both, alone = (named_tables(*collect_all(path)) for path in (folder, tmp_path / "alone"))
    for name, make in alone.items():
        assert (make() == both[name]()) == (name not in cost_tables([]))
    assert alone["speed-stock"]() == "No records for this; `ns-prune bench speed` makes them."
