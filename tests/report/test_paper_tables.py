"""The paper's tables: its numbers beside ours of the same width, both readings of its retraining."""

from pathlib import Path
from typing import Any

import pytest
from support.record_factory import dense, run, sizes
from support.table_reader import rows, study

from nerfstudio_prune.report.paper import (
    compact_table,
    coreset_quality_table,
    coreset_table,
    importance_table,
    masks_table,
    minutes_per_100k,
    uniform_table,
)
from nerfstudio_prune.report.stats import MINUS, NOTHING, TIMES


def test_edges(tmp_path: Path) -> None:
    """Table 1: ours beside the paper's, by threshold and by share, and both readings of its retraining."""
    edge: dict[str, Any] = dict(role="edges", strategy="edge", pruning_ratio=None)
    made = study(
        tmp_path,
        dense(1, 20.0),
        run("t", 1, 19.5, 15.0, live=0.6, edges={"edge_threshold": 0.05, "edge_keep_fraction": None}, **edge),
        run("t-scratch", 1, 18.5, 5.0, live=0.6, edges={"edge_threshold": 0.05}, recovery="scratch", **edge),
        run("u", 1, 19.2, 14.5, live=0.3, edges={"edge_threshold": 0.1}, **edge),
        run("l", 1, 19.1, 14.2, live=0.4, edges={"edge_keep_fraction": 0.4}, **edge),
        run("k", 1, 19.0, 14.0, live=0.2, edges={"edge_keep_fraction": 0.2}, **edge),
    )
    found = rows(masks_table(made))
    assert list(found) == ["threshold 0", "threshold 0.05", "threshold 0.1", "share kept 0.4", "share kept 0.2"]
    assert list(found["threshold 0.05"].values())[1:] == ["40", "60", "21.3", "**15.00**", "**19.50**", "18.50", "1"]
    for name, paper in (("threshold 0.1", "20.8"), ("share kept 0.4", "21.3")):
        assert found[name]["paper dB"] == paper
    assert list(found["share kept 0.2"].values())[1:] == ["20", "20", "20.8", "14.00", "19.00", NOTHING, "1"]
    assert found["threshold 0"]["paper dB"] == "21.5" and found["threshold 0"]["our end, weights kept dB"] == "20.00"


def test_uniform_importance_coreset(tmp_path: Path) -> None:
    """Tables 2 to 4: the paper's numbers beside ours of the same width, and the run from a new initialisation."""
    quarter: dict[str, Any] = dict(pruning_ratio=0.75)
    made = study(
        tmp_path,
        dense(1, 20.0),
        run("uniform-0.75", 1, 17.0, 8.0, strategy="uniform", **quarter),
        run("scratch-0.75", 1, 16.0, 5.0, strategy="any", recovery="scratch", **quarter),
        run("coreset-0.75", 1, 18.0, 9.0, **quarter),
        run("coreset-0.5", 1, 19.5, 12.0),
        run("mussay", 1, 19.9, 12.5, strategy="coreset-mussay"),
        *[run(f"i-{s}", 1, p, 12.0, strategy="importance", score=s) for s, p in (("w_out", 19.6), ("w_in", 19.1))],
        run("i-taylor", 1, 19.3, 12.0, strategy="importance", score="taylor"),
    )
    row = rows(uniform_table(made))["uniform 0.75"]
    assert row["paper layers"] == f"64{TIMES}64" and row["paper MB"] == "0.70" and row["paper dB"] == "16.5"
    assert row["our layers"] == f"8{TIMES}32 + 2{TIMES}16" and row["our MB"] == f"{sizes(0.75).fields_mb:.2f}"
    assert (row["our end, weights kept dB"], row["our end, new initialisation dB"]) == ("17.00", "16.00")
    assert rows(uniform_table(made))["dense"]["our end, weights kept dB"] == "20.00"

    found = rows(importance_table(made))
    assert list(found) == ["none, dense", "`w_in`", "`w_out`", "`taylor`"]
    assert found["`w_in`"]["paper dB"] == "19.5" and found["`w_in`"]["paper Δ dense dB"] == f"{MINUS}2.0"
    assert found["`w_out`"]["our end, weights kept dB"] == "**19.60**"
    assert found["`w_out`"]["our Δ dense dB"] == f"{MINUS}0.40" and found["`taylor`"]["paper dB"] == NOTHING
    assert found["`w_out`"]["our end, new initialisation dB"] == NOTHING  # there is one of the other width only

    found = rows(coreset_table(made))
    assert list(found) == ["dense", "coreset 0.5", "coreset 0.75"]
    paper = [(row["paper parameters"], row["paper MB"], row["paper min per 100k"]) for row in found.values()]
    assert paper == [("595K", "2.38", "78.75"), ("288K", "1.14", "51.25"), ("177K", "0.70", "46.25")]
    # 2560 rays per second in batches of 256: 10 000 seconds.
    assert found["dense"]["our min per 100k on A"] == "166.67" and found["dense"]["our share of dense"] == "1.00"
    assert [row["paper share of dense"] for row in found.values()] == ["1.00", "0.65", "0.59"]
    found = rows(coreset_quality_table(made))
    assert found["coreset 0.5"]["paper dB"] == "21.3" and found["coreset 0.75"]["our Δ dense dB"] == f"{MINUS}2.00"

    text = compact_table(made) or ""
    assert "Dense: 21.5 dB in the paper, 20.00 dB here (n = 1)." in text
    lines = [line for line in text.splitlines() if "quarter" in line or "0.25 of" in line]
    assert lines == [
        f"| 2 | uniform, 0.25 of the width left | 16.5 | 8.00 | 17.00 | 16.00 | {MINUS}3.00 | 1 |",
        f"| 4 | coreset, 0.25 of the width left | 20.1 | 9.00 | 18.00 | 16.00 | {MINUS}2.00 | 1 |",
    ]


def test_minutes_per_100k_iterations() -> None:
    """A run that diverged before its speed was measured has none."""
    assert minutes_per_100k(run(rays_per_batch=600, rays_per_sec=1000.0)) == pytest.approx(1000.0)
    assert minutes_per_100k(run(rays_per_sec=0.0)) is None
