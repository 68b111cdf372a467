"""The project's Markdown: its pages, what they show and what they link to."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
"""All Markdown that is read: at the top and below `docs`."""
COMMANDS, PYTHON, SHOWN = "bash", "python", "text"
"""What the fenced blocks are: commands, modules, and what is only looked at."""


def page_name(page: Path) -> str:
    """Name of a page in a test."""
    return page.relative_to(ROOT).as_posix()


def tokens(page: Path) -> list[Token]:
    """Blocks of a page."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Kind and content of all fenced blocks."""
    return [(token.info.strip(), token.content) for token in tokens(page) if token.type == "fence"]


def python_blocks(page: Path) -> list[str]:
    """Python code of a page, block by block."""
    return [content for kind, content in blocks(page) if kind == PYTHON]


def commands(page: Path) -> list[str]:
    """Command lines of a page, without those that are empty or a comment."""
    found = []
    for kind, content in blocks(page):
        if kind == COMMANDS:
            lines = content.replace("\\\n", " ").splitlines()
            found += [line for line in lines if shlex.split(line, comments=True)]
    return found


def links(page: Path) -> list[str]:
    """Targets of all links and pictures."""
    inline = [child for token in tokens(page) for child in token.children or ()]
    targets = [token.attrGet("href" if token.type == "link_open" else "src") for token in inline]
    return [str(target) for target in targets if target is not None]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called behind a `#`, by the rule of GitHub."""
    found: list[str] = []
    parsed = tokens(page)
    for opening, heading in pairwise(parsed):
        if opening.type == "heading_open":
            text = "".join(child.content for child in heading.children or ())
            name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.append(f"{name}-{found.count(name)}" if name in found else name)
    return set(found)


def section(page: Path, title: str) -> str:
    """Text below a heading, up to the next one of any level."""
    text = page.read_text("utf-8")
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page_name(page)} has no section {title!r}"
    return found[1]


def table_rows(text: str) -> list[list[str]]:
    """Cells of all tables in a text, without their heads."""
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    heads = {i - 1 for i, row in enumerate(rows) if set("".join(row)) <= set("-: |")}
    return [[cell.strip() for cell in row] for i, row in enumerate(rows) if i not in heads and i - 1 not in heads]


def inline_code(page: Path) -> list[str]:
    """What stands as code within the texts of a page."""
    inline = [child for token in tokens(page) for child in token.children or ()]
    return [token.content for token in inline if token.type == "code_inline"]


def in_code(text: str) -> list[str]:
    """What stands between backticks in a text without fenced blocks."""
    return re.findall(r"`([^`]+)`", text)
