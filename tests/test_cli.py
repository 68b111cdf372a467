"""The command line: what messages tell people to type must be there to be typed."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from nerfstudio_prune import cli
from nerfstudio_prune.bench.command import Bench
from nerfstudio_prune.inspect.command import Inspect
from nerfstudio_prune.nerf import saved_run

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*(?![\w.-])")
"""An option; those of `ns-train` have dots in their names and are others."""
ALSO = {Inspect: [Path(saved_run.__file__)]}
"""Files outside of its own room that speak to the users of a command."""


def texts(tree: ast.AST) -> Iterator[str]:
    """All texts of a module, docstrings included, but for the arguments of git."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "git":
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        yield from texts(node)


def options(command: Any) -> set[str]:
    """Options of a command as they are typed."""
    return {"--" + f.name.replace("_", "-") for f in fields(command) if f.init}


@pytest.mark.parametrize("command", [Bench, Inspect])
def test_flags_in_messages_exist(command: Any) -> None:
    """Somebody whose command was refused types what the message says; a flag that is misspelt there is refused again,
    and a test of the message alone would hold on to the mistake."""
    files = [*sorted(Path(inspect.getfile(command)).parent.glob("*.py")), *ALSO.get(command, [])]
    named = {
        (flag, file.name)
        for file in files
        for text in texts(ast.parse(file.read_text("utf-8")))
        for flag in FLAG.findall(text)
    }
    assert len(named) >= 3
    assert {(flag, file) for flag, file in named if flag not in options(command)} == set()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_options_are_named_as_their_fields(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The test above takes options for the names of fields; it would check nothing if they were typed otherwise."""
    with pytest.raises(SystemExit) as caught:
        cli.parse([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    positional = {"--suite", "--records"}
    assert {flag for flag in options(cli.COMMANDS[name]) - positional if not re.search(rf"{flag}\b", text)} == set()
