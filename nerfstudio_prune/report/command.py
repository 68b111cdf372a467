"""`ns-prune report`: Markdown, an HTML page and the tables of other Markdown files, made from records only."""

from dataclasses import dataclass
from pathlib import Path

import tyro


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
        if not self.records.is_dir():
            found = "is a file" if self.records.exists() else "does not exist"
            raise ValueError(f"{self.records}: {found}; expected a folder of records, which `ns-prune bench` writes")
        # What reads records imports torch, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.report.writing import check_tables, write_report  # noqa: PLC0415

        if self.check:
            check_tables(self.records, self.readme)
        else:
            write_report(self.records, self.output, self.readme)
