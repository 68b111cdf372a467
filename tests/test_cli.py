"""The command line: what messages tell people to type must be there to be typed."""

import ast
import inspect
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from nerfstudio_prune import cli
from nerfstudio_prune.apply.command import Apply
from nerfstudio_prune.bench.command import Bench
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.inspect.command import Inspect
from nerfstudio_prune.kilo.command import Distil
from nerfstudio_prune.nerf import saved_run
from nerfstudio_prune.opening.eval_command import Eval

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*(?![\w.-])")
"""An option; those of `ns-train` have dots in their names and are others."""
ROOT = Path(__file__).parents[1]
ALSO = {command: [Path(saved_run.__file__)] for command in (Inspect, Export, Apply)}
"""Files outside of its own room that speak to the users of a command."""
OF_THE_HOST = {Apply: {"--load-dir"}}
"""Options of `ns-train` in lines that a command gives for it."""


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


def options_of_room(command: Any) -> set[str]:
    """Those of all commands of its room: what they share does not know which of them it serves."""
    room = Path(inspect.getfile(command)).parent
    return set().union(*(options(c) for c in cli.COMMANDS.values() if Path(inspect.getfile(c)).parent == room))


@pytest.mark.parametrize("command", [Bench, Inspect, Distil, Export, Eval, Apply])
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
    known = {*options_of_room(command), *OF_THE_HOST.get(command, ())}
    assert {(flag, file) for flag, file in named if flag not in known} == set()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_options_are_named_as_their_fields(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The test above takes options for the names of fields; it would check nothing if they were typed otherwise."""
    with pytest.raises(SystemExit) as caught:
        cli.parse([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    positional = {"--suite", "--records", "--what", "--file", "--source", "--target"}
    assert {flag for flag in options(cli.COMMANDS[name]) - positional if not re.search(rf"{flag}\b", text)} == set()


IMPORTED = """
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from nerfstudio_prune import cli
from nerfstudio_prune.apply.command import Apply
for words in ([], *([name] for name in cli.COMMANDS)):
    with suppress(SystemExit), redirect_stdout(StringIO()) as text:
        cli.parse([*words, "--help"])
    assert "usage:" in text.getvalue(), words
print(*(name for name in ("torch", "nerfstudio", "numpy", "matplotlib", "msgspec", "PIL") if name in sys.modules))
import nerfstudio_prune.report.writing, nerfstudio_prune.report.document
print(*(name for name in ("nerfstudio", "viser", "tensorboard") if name in sys.modules))
"""


def test_help_imports_nothing_heavy() -> None:
    """Torch and Nerfstudio take ten seconds to import, and nobody waits so long to see how an option is spelt. A report
    is made of records alone, so that it can be made where no Nerfstudio is installed."""
    command = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["", ""]


def leaving(monkeypatch: pytest.MonkeyPatch, reason: BaseException) -> Any:
    """Status or message with which the command ends when its work raises something."""

    class Command:
        def main(self) -> None:
            raise reason

    monkeypatch.setattr(cli, "parse", Command)
    with warnings.catch_warnings(), pytest.raises(SystemExit) as caught:
        cli.entrypoint()
    return caught.value.code


def test_what_a_person_did_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback looks like a fault of the program; Ctrl+C is none, nor are a full disk and a mistyped option."""
    assert leaving(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert leaving(monkeypatch, BrokenPipeError()) == 141  # piped into `head`, as any program that SIGPIPE ends
    assert leaving(monkeypatch, ValueError("no such score")) == "error: no such score"
    full = OSError(28, "No space left on device", "report.md")
    assert leaving(monkeypatch, full) == "error: [Errno 28] No space left on device: 'report.md'"
    with pytest.raises(ZeroDivisionError):
        leaving(monkeypatch, ZeroDivisionError())


def test_the_host_s_own_warnings_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come at every start, and nobody but Nerfstudio can follow them. All others are printed."""

    class Command:
        def main(self) -> None:
            torch.cuda.amp.custom_fwd(len)
            torch.cuda.amp.custom_bwd(len)
            warnings.warn("something else", FutureWarning, stacklevel=1)

    monkeypatch.setattr(cli, "parse", Command)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.amp.custom_fwd(len)
        assert len(seen) == 1, "torch does not say it any more; the filter can go"
        cli.entrypoint()
    assert [str(warning.message) for warning in seen[1:]] == ["something else"]
