"""`ns-prune report`: Markdown, an HTML page and the tables of other Markdown files, made from records only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro

from nerfstudio_prune.records.files import write_file
from nerfstudio_prune.report.collect import collect
from nerfstudio_prune.report.readme import fill, named_tables


@dataclass
class Report:
    """Make tables, plots and a page from records of `ns-prune bench`; nothing is trained or measured."""

    records: tyro.conf.Positional[Path]
    """Folder of records; all below it are read."""
    output: Path = Path("report")
    """Folder that gets report.md, index.html, plots and images."""
    readme: tuple[Path, ...] = ()
    """Markdown files whose tables between `<!-- ns-prune report: NAME begin -->` and `... end -->` are rewritten."""
    check: bool = False
    """Write nothing; fail if a table of --readme does not show what the records say."""

    def main(self) -> None:
        """Makes the report.

        Raises:
            RecordError: If the records cannot be read; names the file.
            ValueError: If a file cannot be read or a marker of it is wrong, or, with `check`, a table is stale; names
                the file.
        """
        if self.check and not self.readme:
            raise ValueError("--check needs --readme: it looks at the tables of these files")
        studies = collect(self.records)
        # All before anything is written: a wrong marker in the last file leaves the first one as it is.
        filled = {path: self._filled(path, named_tables(studies)) for path in self.readme}
        if self.check:
            self._check({path: changed for path, (_, changed) in filled.items()})
            return
        # Drawing is slow to import, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.report.document import render  # noqa: PLC0415

        for name, content in render(studies).items():
            write_file(self.output / name, content)
        print(f"{self.output / 'index.html'} and {self.output / 'report.md'}, from {self.records}")
        for path, (text, changed) in filled.items():
            if changed:
                write_file(path, text.encode())
            print(f"{path}: {', '.join(changed) + ' rewritten' if changed else 'nothing to change'}")

    def _filled(self, path: Path, tables: Mapping[str, Callable[[], str]]) -> tuple[str, list[str]]:
        try:
            # Not `read_text`: it would turn the line ends of the file into others.
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--readme {path}: cannot be read: {error}") from error
        return fill(text, tables, str(path))

    def _check(self, changed: Mapping[Path, list[str]]) -> None:
        stale = {path: names for path, names in changed.items() if names}
        if stale:
            found = "; ".join(f"{path}: {', '.join(names)}" for path, names in stale.items())
            command = f"ns-prune report {self.records} --readme {' '.join(map(str, stale))}"
            raise ValueError(f"{found}: not what the records say; `{command}` rewrites them")
        print(f"{', '.join(map(str, changed))}: all tables show what the records say")
