"""What the documents point at is there."""

import importlib
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
from nerfstudio.configs.method_configs import all_methods
from support.pages import PAGES, ROOT, anchors, inline_code, links, page_name, tokens

for family in ("nerf", "splats"):
    importlib.import_module(f"nerfstudio_prune.{family}.pipeline")
METHODS = ("nerf-prune", "splat-prune")
"""Methods whose options pages name."""


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    """A dead link or picture is the first thing a newcomer sees. Addresses on the net are not asked for."""
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: {page_name(target)} has no such heading"


def test_all_pages_are_reached_from_the_readme() -> None:
    """A page that nothing links to is not read."""
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        paths = {(page.parent / link.partition("#")[0]).resolve() for page in new for link in links(page)}
        new = {path for path in paths if path in PAGES} - reached
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_page_says_first_what_it_is_for(page: Path) -> None:
    """Who comes from a search has to see at once whether this is the page that is looked for."""
    heading, _, end, first, *_ = tokens(page)
    assert (heading.type, heading.tag, end.type, first.type) == (
        "heading_open",
        "h1",
        "heading_close",
        "paragraph_open",
    )


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=page_name)
def test_modules_and_files_that_are_named_are_there(page: Path) -> None:
    """Code moves; a page that still names its former place sends its reader astray. Only the changes tell of what
    was."""
    for text in inline_code(page):
        if re.fullmatch(r"nerfstudio_prune(\.\w+)+", text):
            assert pydoc.locate(text) is not None, f"there is no {text}"
        elif re.fullmatch(r"[\w.-]+(/[\w.-]+)*/[\w.-]+\.(py|md|json|toml)", text):
            assert (ROOT / text).exists() or (ROOT / "nerfstudio_prune" / text).exists(), f"there is no {text}"


def has_option(config: Any, name: str) -> bool:
    """Whether a method has an option of that path."""
    for part in name.replace("-", "_").split("."):
        if not hasattr(config, part):
            return False
        config = getattr(config, part)
    return True


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_options_that_are_named_exist(page: Path) -> None:
    """In texts as in commands an option that was renamed must not live on."""
    for name in re.findall(r"--(pipeline\.(?:prune|model)\.[\w.-]*\w)", page.read_text("utf-8")):
        assert any(has_option(all_methods[method], name) for method in METHODS), f"there is no --{name}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    """A table that was never filled in looks like a project that was left."""
    text = page.read_text("utf-8")
    assert re.findall(r"^[A-Z_]{3,}$|\bTODO\b|\bTBD\b|\bFIXME\b", text, flags=re.MULTILINE) == []
