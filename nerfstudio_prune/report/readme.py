"""Generated tables between markers of a Markdown file."""

import re
from collections.abc import Callable, Mapping

MARKER = re.compile(r"^<!-- ns-prune report: (\S+) (begin|end) -->[ \t]*\n?", re.MULTILINE)


def fill(text: str, tables: Mapping[str, Callable[[], str]], where: str) -> tuple[str, list[str]]:
    """Puts the tables between their markers.

    Args:
        text: Content of the file.
        tables: Name -> what makes the table.
        where: Name of the file, for messages.

    Returns:
        The new content, and the names of the tables that changed.

    Raises:
        ValueError: If a table is unknown, or a marker has no partner.
    """
    parts, changed, position, open_marker = [], [], 0, None
    for match in MARKER.finditer(text):
        name, kind = match.groups()
        line = f"{where}:{text.count(chr(10), 0, match.start()) + 1}"
        if name not in tables:
            raise ValueError(f"{line}: unknown table {name!r}; the tables are {', '.join(tables)}")
        if kind == "begin":
            if open_marker is not None:
                raise ValueError(f"{line}: table {name!r} begins before {open_marker[0]!r} ends")
            open_marker = (name, match.end(), line)
            continue
        if open_marker is None or open_marker[0] != name:
            raise ValueError(f"{line}: end of table {name!r} without its begin")
        start = open_marker[1]
        content = f"\n{tables[name]().strip()}\n\n"
        if text[start : match.start()] != content and name not in changed:
            changed.append(name)
        parts += [text[position:start], content]
        position, open_marker = match.start(), None
    if open_marker is not None:
        raise ValueError(f"{open_marker[2]}: table {open_marker[0]!r} begins and does not end")
    return "".join(parts) + text[position:], changed
