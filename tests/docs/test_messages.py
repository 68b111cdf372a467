"""Messages that the documents explain are those that the code gives."""

import ast
from pathlib import Path

import pytest
from support.pages import ROOT, in_code, section, table_rows

TROUBLESHOOTING, PANEL = ROOT / "docs" / "troubleshooting.md", ROOT / "docs" / "panel.md"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """All texts in the sources, without what is filled in."""
    files = sorted((ROOT / "nerfstudio_prune").rglob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize(
    ("page", "title"),
    [
        (TROUBLESHOOTING, "Options"),
        (TROUBLESHOOTING, "Data"),
        (TROUBLESHOOTING, "Training"),
        (TROUBLESHOOTING, "Checkpoints"),
        (TROUBLESHOOTING, "Viewer"),
        (TROUBLESHOOTING, "Benchmarks"),
        (PANEL, "When something is carried out"),
    ],
)
def test_message_is_one_that_the_code_gives(page: Path, title: str, texts: list[str]) -> None:
    """Who looks for the message on the screen has to find it; one that was reworded is found no more."""
    rows = table_rows(section(page, title))
    messages = [row[0].strip("`") for row in rows if row[0].startswith("`")]
    assert messages
    for message in messages:
        assert any(message in text for text in texts), f"no source says {message!r}"


def test_observations_are_told_from_messages() -> None:
    """What stands in code there is taken for a message: a row may name one and nothing else."""
    for title in ("Options", "Data", "Training", "Checkpoints", "Viewer", "Benchmarks"):
        for row in table_rows(section(TROUBLESHOOTING, title)):
            if row[0].startswith("`"):
                assert in_code(row[0]) == [row[0].strip("`")]
