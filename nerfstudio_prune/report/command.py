"""`ns-prune report`: Markdown, an HTML page and the tables of a README, made from records only."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import tyro

from nerfstudio_prune.report.collect import collect
from nerfstudio_prune.report.readme import fill
from nerfstudio_prune.report.sections import readme_tables
from nerfstudio_prune.report.study import Study


@dataclass
class Report:
    """Make tables, plots and a page from records of `ns-prune bench`; nothing is trained or measured."""

    records: tyro.conf.Positional[Path]
    """Folder of records; all below it are read."""
    output: Path = Path("report")
    """Folder that gets report.md, index.html, plots and images."""
    readme: Optional[Path] = None
    """Markdown file whose tables between `<!-- ns-prune report: NAME begin -->` and `... end -->` are rewritten."""
    check: bool = False
    """Write nothing; fail if a table of --readme does not show what the records say."""

    def main(self) -> None:
        """Makes the report.

        Raises:
            RecordError: If the records cannot be read; names the file.
            ValueError: If a marker of the file is wrong, or, with `check`, a table is stale.
        """
        if self.check and self.readme is None:
            raise ValueError("--check needs --readme: it looks at the tables of that file")
        studies = collect(self.records)
        text, changed = self._filled_readme(studies)
        if self.check:
            if changed:
                raise ValueError(
                    f"{self.readme}: {', '.join(changed)}: not what the records say; "
                    f"`ns-prune report {self.records} --readme {self.readme}` rewrites it"
                )
            print(f"{self.readme}: all tables show what the records say")
            return
        # Drawing is slow to import, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.report.document import render  # noqa: PLC0415

        files = render(studies)
        for name, content in files.items():
            write_file(self.output / name, content)
        if self.readme is not None and changed:
            write_file(self.readme, text.encode())
        print(f"{self.output / 'index.html'} and {self.output / 'report.md'}, from {self.records}")
        if self.readme is not None:
            print(f"{self.readme}: {', '.join(changed) + ' rewritten' if changed else 'nothing to change'}")

    def _filled_readme(self, studies: list[Study]) -> tuple[str, list[str]]:
        if self.readme is None:
            return "", []
        tables: dict[str, Callable[[], str]] = readme_tables(studies)
        # Not `read_text`: it would turn the line ends of the file into others.
        return fill(self.readme.read_bytes().decode(), tables, str(self.readme))


def write_file(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).chmod(mode)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
