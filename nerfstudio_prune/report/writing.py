"""Writes a report, and the tables of other Markdown files, or checks that these are up to date."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from nerfstudio_prune.core.files import read_file, write_files
from nerfstudio_prune.report.collect import collect_all
from nerfstudio_prune.report.readme import fill, named_tables

MAX_BYTES = 16_000_000
"""More than any Markdown file has."""


def write_report(records: Path, output: Path, readme: Iterable[Path]) -> None:
    """Makes a report.

    Args:
        records: Folder of records.
        output: Folder that gets the files.
        readme: Markdown files whose tables are rewritten.

    Raises:
        RecordError: If the records cannot be read; names the file.
        ValueError: If a Markdown file cannot be read, a marker of it is wrong, or the files cannot be written; names
            the file. No file is changed then.
    """
    # Drawing is slow to import, and a check needs none of it.
    from nerfstudio_prune.report.document import render  # noqa: PLC0415

    found = collect_all(records)
    # All before anything is written: a wrong marker in the last file leaves the first one as it is.
    filled = {path: _filled(path, named_tables(*found)) for path in readme}
    contents = {output / name: content for name, content in render(*found).items()}
    contents |= {path: text.encode() for path, (text, changed) in filled.items() if changed}
    try:
        write_files(contents)
    except OSError as error:
        raise ValueError(f"--output {output}: the report cannot be written, no file was changed: {error}") from error
    print(f"{output / 'index.html'} and {output / 'report.md'}, from {records}")
    for path, (_, changed) in filled.items():
        print(f"{path}: {', '.join(changed) + ' rewritten' if changed else 'nothing to change'}")


def check_tables(records: Path, readme: Iterable[Path]) -> None:
    """Checks that the tables of Markdown files show what the records say; writes nothing.

    Args:
        records: Folder of records.
        readme: The files.

    Raises:
        RecordError: If the records cannot be read; names the file.
        ValueError: If a file cannot be read, a marker of it is wrong, or a table is stale; names the file.
    """
    found = collect_all(records)
    changed = {path: _filled(path, named_tables(*found))[1] for path in readme}
    stale = {path: names for path, names in changed.items() if names}
    if stale:
        found = "; ".join(f"{path}: {', '.join(names)}" for path, names in stale.items())
        command = f"ns-prune report {records} --readme {' '.join(map(str, stale))}"
        raise ValueError(f"{found}: not what the records say; `{command}` rewrites them")
    print(f"{', '.join(map(str, changed))}: all tables show what the records say")


def _filled(path: Path, tables: Mapping[str, Callable[[], str]]) -> tuple[str, list[str]]:
    try:
        # Not `read_text`: it would turn the line ends of the file into others.
        text = read_file(path, MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--readme {path}: cannot be read: {error}") from error
    return fill(text, tables, str(path))
