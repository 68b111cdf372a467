"""Studies from records, and tables back into cells."""

from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.report.collect import collect
from nerfstudio_prune.report.study import Study
from support.record_factory import save


def studies(tmp_path: Path, *records: Any) -> list[Study]:
    """What a folder of these records is put together to."""
    return collect(save(list(records), tmp_path))


def study(tmp_path: Path, *records: Any) -> Study:
    """The same of records of one scene, scale, method and device."""
    (only,) = studies(tmp_path, *records)
    return only


def rows(text: Optional[str]) -> dict[str, dict[str, str]]:
    """Cells by first cell and column of the tables of a text; a second column of one title gets a mark."""
    assert text is not None
    result: dict[str, dict[str, str]] = {}
    titles: list[str] = []
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    for i, cells in enumerate(lines):
        if i + 1 < len(lines) and set(lines[i + 1][0]) == {"-"}:
            titles = [title + "'" * cells[:k].count(title) for k, title in enumerate(cells)]
        elif set(cells[0]) != {"-"}:
            assert len(cells) == len(titles)
            result[cells[0]] = dict(zip(titles, cells, strict=True))
    return result


def table_cells(text: str) -> list[list[str]]:
    """Cells of the rows of the first table of a text, its head first."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells[0], *cells[2:]]


def column(text: str, title: str) -> list[str]:
    """A column of the first table of a text, without its head."""
    head, *body = table_cells(text)
    return [cells[head.index(title)] for cells in body]
