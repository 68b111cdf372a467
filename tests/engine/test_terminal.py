"""Consoles that do not know every character: a message must never be what ends a training."""

import io
import sys

import pytest
from rich.console import Console
from rich.table import Table

from nerfstudio_prune.engine.terminal import print_in_any_encoding

TEXT = "width 256 → 128 \N{MULTIPLICATION SIGN} 2 ± 1 … ⏳ 10⁶ Δ ─"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("cp1252", "width 256 -> 128 \N{MULTIPLICATION SIGN} 2 ± 1 … ? 10^6 Delta -"),
        ("ascii", "width 256 -> 128 x 2 +- 1 ... ? 10^6 Delta -"),
        ("utf-8", TEXT),
    ],
)
def test_what_cannot_be_written_is_written_plainly(
    monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str
) -> None:
    """Windows, and a cron job with `LC_ALL=C`, give such streams. What an encoding has stays as it is."""
    files = [io.BytesIO(), io.BytesIO()]
    for name, file in zip(("stdout", "stderr"), files, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(file, encoding=encoding))
    print_in_any_encoding()
    for stream in (sys.stdout, sys.stderr):
        print(TEXT, "bad name \udcff", file=stream, flush=True)
    assert [file.getvalue().decode(encoding) for file in files] == [f"{expected} bad name ?\n"] * 2


def test_tables_stay_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their frames come from rich, which asks the stream for its encoding."""
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="ascii"))
    print_in_any_encoding()
    table = Table("group", "width")
    table.add_row("head", "8 → 4")
    console = Console(width=40)
    console.print(table)
    console.rule()
    sys.stdout.flush()
    lines = file.getvalue().decode("ascii").splitlines()
    assert "| head  | 8 -> 4 |" in lines and lines[-1] == 40 * "-"


def test_other_streams_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks and tests put streams there that have no encoding to speak of."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    print_in_any_encoding()
    print(TEXT)
    assert sys.stdout.getvalue() == f"{TEXT}\n"  # type: ignore[attr-defined]
