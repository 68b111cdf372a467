"""Commands in the documents are real ones: each is parsed as it would be, and nothing is carried out."""

import importlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion, all_methods
from nerfstudio.plugins.registry import discover_methods
from nerfstudio.scripts import render
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.viewer.run_viewer import RunViewer
from support.pages import COMMANDS, PAGES, PYTHON, ROOT, SHOWN, blocks, commands, page_name, python_blocks

from nerfstudio_prune.cli import parse
from nerfstudio_prune.neurons.strategies import STRATEGIES

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
ALL_COMMANDS = [pytest.param(page, line, id=f"{page_name(page)}: {line}") for page in PAGES for line in commands(page)]


def parse_train(words: list[str]) -> None:
    config: Any = tyro.cli(AnnotatedBaseConfigUnion, args=words)  # type: ignore[arg-type]
    if hasattr(config.pipeline, "prune"):
        config.pipeline.prune.validate()


def parse_export(words: list[str]) -> None:
    try:
        exporter = importlib.import_module("nerfstudio.scripts.exporter")
    except OSError as error:
        pytest.skip(f"Open3D does not load here, so that nobody can export: {error}")
    tyro.cli(exporter.Commands, args=words)


def parse_prune(words: list[str]) -> None:
    command = parse(words)
    assert type(command).__name__.lower() == words[0]


def parse_make(words: list[str]) -> None:
    targets = [word for word in words if "=" not in word]
    assert targets and set(targets) <= set(re.findall(r"^([\w-]+):", MAKEFILE, flags=re.MULTILINE))
    variables = {word.partition("=")[0] for word in words if "=" in word}
    assert variables <= set(re.findall(r"^(\w+) \?=", MAKEFILE, flags=re.MULTILINE))


def parse_pip(words: list[str]) -> None:
    assert words[0] == "install"
    for name in re.findall(r"\[(\w+)\]", " ".join(words)):
        assert f"\n{name} = [" in PYPROJECT.split("[project.optional-dependencies]")[1]
    if "-c" in words:
        assert (ROOT / words[words.index("-c") + 1]).is_file()


def parse_pytest(words: list[str]) -> None:
    paths = [word for word in words if word.startswith("tests")]
    assert all((ROOT / path).exists() for path in paths)
    if "-m" in words:
        markers = re.search(r"^markers = \[(.*?)\]", PYPROJECT, flags=re.DOTALL | re.MULTILINE)
        assert markers is not None and f'"{words[words.index("-m") + 1]}:' in markers[1]


def known(words: list[str]) -> None:
    """A program that is not ours, and of which there is nothing to check."""


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "ns-train": parse_train,
    "ns-eval": lambda words: tyro.cli(tyro.conf.FlagConversionOff[ComputePSNR], args=words) and None,
    "ns-viewer": lambda words: tyro.cli(tyro.conf.FlagConversionOff[RunViewer], args=words) and None,
    "ns-render": lambda words: tyro.cli(render.Commands, args=words) and None,
    "ns-export": parse_export,
    "ns-prune": parse_prune,
    "make": parse_make,
    "pip": parse_pip,
    "pytest": parse_pytest,
    "pre-commit": known,
    "apt-get": known,
}


@pytest.mark.parametrize(("page", "line"), ALL_COMMANDS)
def test_command_parses(page: Path, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever copies a line must not meet an option that was renamed, a file that is gone, or options that contradict
    each other. A program that no one thought of fails too, so that no line is left unread."""
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        monkeypatch.setenv(name, value)
    program, *rest = words
    if program == "ns-train" and rest[0] not in all_methods:
        train_own_method(page, rest, tmp_path, monkeypatch)
        return
    PROGRAMS[program](rest)


def train_own_method(page: Path, words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method of the page's own code, found by the host as the page says."""
    (code,) = [block for block in python_blocks(page) if words[0] in block]
    name = code.splitlines()[0].removeprefix("# ")
    (folder / name).write_text(code)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    registered = dict(STRATEGIES)
    try:
        methods, descriptions = discover_methods()
    finally:
        sys.modules.pop(name.removesuffix(".py"), None)
        for new in STRATEGIES.keys() - registered.keys():
            del STRATEGIES[new]
    assert words[0] in methods, "the host does not find the method: is the variable on the line right?"
    found = {name: methods[name] for name in (words[0], "nerf-prune")}
    union = tyro.extras.subcommand_type_from_defaults(found, descriptions)
    config: Any = tyro.cli(tyro.conf.SuppressFixed[tyro.conf.FlagConversionOff[union]], args=words)  # type: ignore[valid-type]
    assert config.method_name == words[0]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_block_says_what_it_is(page: Path) -> None:
    """Only blocks of a known kind are tested; one without a name would be read by nobody."""
    assert {kind for kind, _ in blocks(page)} <= {COMMANDS, PYTHON, SHOWN}


def test_there_are_commands_of_every_kind() -> None:
    """If the pages were not found, or their blocks not recognised, all of the above would pass."""
    programs = {word for page in PAGES for line in commands(page) for word in shlex.split(line, comments=True)}
    assert {"make", "ns-train", "ns-eval", "ns-viewer", "ns-prune", "pip"} <= programs
    assert {"bench", "report", "inspect"} <= programs
