"""Generated tables between the markers of Markdown files, such as the README, and which tables there are."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Optional, get_args

from nerfstudio_prune.records.cost_schema import CostRecord
from nerfstudio_prune.report.claims import claims_text
from nerfstudio_prune.report.cost_tables import cost_tables
from nerfstudio_prune.report.file_study import FileStudy
from nerfstudio_prune.report.file_tables import file_tables
from nerfstudio_prune.report.frontier_study import FrontierStudy
from nerfstudio_prune.report.frontier_tables import frontier_tables
from nerfstudio_prune.report.headline import find_headline, headline_table, sentences
from nerfstudio_prune.report.kilo_study import KiloStudy
from nerfstudio_prune.report.kilo_tables import kilo_tables
from nerfstudio_prune.report.markup import escape, missing
from nerfstudio_prune.report.paper import compact_table
from nerfstudio_prune.report.splat_study import SplatStudy
from nerfstudio_prune.report.splat_targets import splat_tables
from nerfstudio_prune.report.study import Moment, Study, by_study, without_ablations
from nerfstudio_prune.report.tables import ablation_text, frontier_table, peers_table, speed_table

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


def named_tables(
    studies: Sequence[Study],
    splats: Sequence[SplatStudy] = (),
    costs: Sequence[CostRecord] = (),
    kilo: Sequence[KiloStudy] = (),
    files: Sequence[FileStudy] = (),
    frontier: Sequence[FrontierStudy] = (),
) -> dict[str, Callable[[], str]]:
    """Tables that a file may hold: name -> what makes it.

    Args:
        studies: Those of networks.
        splats: Those of Gaussians.
        costs: Records of what networks cost.
        kilo: Those of tiny networks.
        files: Those of small files.
        frontier: Those of all kinds of runs beside each other.
    """
    plain = without_ablations(studies)
    ablation = partial(ablation_text, compact=True)
    moments = {moment: [study for study in studies if study.moment == moment] for moment in get_args(Moment)}
    return {
        "summary": lambda: "\n".join(f"- {sentence}" for sentence in sentences(studies)),
        "headline": partial(_headline, studies),
        **{moment: partial(_short, found, "ablation", ablation) for moment, found in moments.items()},
        "frontier": partial(_short, plain, "frontier", _frontier),
        "paper": partial(_short, plain, "paper", compact_table),
        "speed": partial(_short, studies, "speed", partial(speed_table, compact=True)),
        "peers": partial(_short, plain, "peers", partial(peers_table, compact=True)),
        "claims": partial(_short, plain, "frontier", claims_text),
        **cost_tables(costs),
        **splat_tables(splats),
        **kilo_tables(kilo),
        **file_tables(files),
        **frontier_tables(frontier, files),
    }


def _headline(studies: Sequence[Study]) -> str:
    headline, table = find_headline(studies), headline_table(studies)
    return missing("ablation") if headline is None or table is None else f"{table}\n\n{caption(headline.study)}"


def caption(study: Study) -> str:
    """Line below a table: where its numbers come from."""
    seeds = sorted({run.seed for arm in study.arms for run in arm.runs})
    parts = [escape(study.title)]
    views = sorted({run.eval_views for arm in study.arms for run in arm.runs})
    if views:
        parts.append(f"{views[0] if len(views) == 1 else f'{views[0]} to {views[-1]}'} views")
    return ", ".join(parts) + (f", seeds {', '.join(map(str, seeds))}" if seeds else "") + "."


def _frontier(study: Study) -> Optional[str]:
    return frontier_table(study, compact=True) if any(arm.inherits for arm in study.arms) else None


def _short(studies: Sequence[Study], suite: str, make: Callable[[Study], Optional[str]]) -> str:
    parts = [f"{text}\n\n{caption(study)}" for study, text in by_study(studies, make)]
    return "\n\n".join(parts) or missing(suite)
