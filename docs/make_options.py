"""Makes `docs/options.md` from the field docstrings of the configuration dataclasses: `make docs`."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from inspect import get_annotations, getdoc
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object

from nerfstudio_prune.engine.compute import ComputeConfig
from nerfstudio_prune.kilo.pipeline import KiloPipelineConfig
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModelConfig
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig
from nerfstudio_prune.splats.config import SplatPruneConfig
from nerfstudio_prune.splats.model import SplatPruneModelConfig

PAGE = Path(__file__).parent / "options.md"
PACKAGE = "nerfstudio_prune."
"""Options of dataclasses in other packages are told by their own documentation."""
SECTIONS: dict[str, type] = {
    "--pipeline.prune.": PruneConfig,
    "--pipeline.model.": PruneModelConfig,
    "splat-prune --pipeline.prune.": SplatPruneConfig,
    "splat-prune --pipeline.model.": SplatPruneModelConfig,
    "kilonerf --pipeline.": KiloPipelineConfig,
    "--pipeline.compute.": ComputeConfig,
    "splat-prune --pipeline.compute.": ComputeConfig,
    "demo-data --": DemoDataParserConfig,
}
"""What stands before the names of options on the command line -> the dataclass that has them."""

INTRODUCTION = """\
# Options

Every option that this project adds to those of Nerfstudio, with its type, its default and its meaning. This page is
made from the sources (`make docs`); `ns-train nerf-prune --help` and `ns-train splat-prune --help` say the same.

Names are given as they are typed, without what stands before them: the line below each heading says that. Where it
names `splat-prune`, the options are those of the methods for Gaussians; where it names `kilonerf`, of that one; where
it names no method, of those for NeRFs.
In texts, and in the `config.yml` of a run, the same names have underscores. A default of — means that nothing holds
unless the option is given. Where the default is the preset's, see [Presets](presets.md); an option that is given takes
the place of those of the preset that contradict it. What happens when options are given again on a resumed run is told
in [Resuming](resuming.md).
"""


def page() -> str:
    """The whole page."""
    prefixes_of: dict[tuple[type, str], list[str]] = {}
    for cls, prefixes in _dataclasses().items():
        groups: dict[type, list[Field[Any]]] = {}
        for option in _own_options(cls):
            groups.setdefault(_homes(cls, option.name)[-1][0], []).append(option)
        for home, options in groups.items():
            # Methods share groups; one whose defaults are other ones has a table of its own.
            prefixes_of.setdefault((home, _table(cls, options)), []).extend(prefixes)
    parts = [INTRODUCTION]
    for (home, table), prefixes in prefixes_of.items():
        first = " ".join((getdoc(home) or home.__name__).partition("\n\n")[0].split())
        heading, _, more = first.partition(". ")
        before = " and ".join(f"`{prefix}`" for prefix in prefixes)
        text = f"{more}\n\nAfter {before}:" if more else f"After {before}:"
        parts.append(f"## {heading.rstrip('.')}\n\n{text}\n\n{table}")
    return "\n".join(parts)


def _dataclasses() -> dict[type, list[str]]:
    """Every dataclass of options, those that are fields of others too -> its prefixes on the command line."""
    found: dict[type, list[str]] = {}

    def add(cls: type, prefix: str) -> None:
        found.setdefault(cls, []).append(prefix)
        for option in _options(cls):
            if is_dataclass(option.default_factory):
                add(option.default_factory, f"{prefix}{_typed(option.name)}.")  # type: ignore[arg-type]

    for prefix, cls in SECTIONS.items():
        add(cls, prefix)
    return found


def _options(cls: Any) -> Iterator[Field[Any]]:
    """Options that are this project's own; the host's are in its own documentation."""
    for option in fields(cls):
        if option.name != "_target" and _homes(cls, option.name):
            yield option


def _own_options(cls: type) -> list[Field[Any]]:
    return [option for option in _options(cls) if not is_dataclass(option.default_factory)]


def _homes(cls: type, name: str) -> list[tuple[type, str]]:
    """This project's dataclasses that define an option, with its docstring there; none for an option of the host.

    The last one is the group that the option comes from.
    """
    found = []
    for base in cls.__mro__:
        if base.__module__.startswith(PACKAGE) and name in get_annotations(base):
            found.append((base, _docs(base).get(name, "")))
    return [home for home in found if home[1]] or found


@cache
def _docs(cls: type) -> dict[str, str]:
    """Option -> its docstring in the class."""
    return {param.arg_name: " ".join((param.description or "").split()) for param in parse_from_object(cls).params}


def _table(cls: type, options: list[Field[Any]]) -> str:
    hints = get_type_hints(cls)
    rows = ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
    for option in options:
        text, default = _text_and_default(cls, option, hints[option.name])
        cells = (f"`{_typed(option.name)}`", _type(hints[option.name]), default, text)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _typed(name: str) -> str:
    return name.replace("_", "-")


def _type(hint: Any) -> str:
    """A type as a person types it."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if NoneType in arguments:
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return _type(inner)
    if arguments:
        inner = " ".join(_type(argument) for argument in arguments if argument is not Ellipsis)
        return f"{inner} …"
    return hint.__name__.lower()


def _text_and_default(cls: type, option: Field[Any], hint: Any) -> tuple[str, str]:
    """Text of an option, and what holds if it is not given: what the field or its last words say, else its value."""
    _, text = _homes(cls, option.name)[0]
    said = re.search(r"(?:^| )None: (.*)\.$", text)
    if said and option.default is not None:
        said = None  # what None stands for is not what holds
    if said:
        text = text[: said.start()]
    value = option.metadata.get("text", said[1] if said else None)
    if value is not None:
        return text, f"`{value}`" if _is_value(value, hint) else value
    if option.default is None or option.default is MISSING:
        return text, "—"
    return text, f"`{' '.join(map(str, option.default)) if isinstance(option.default, tuple) else option.default}`"


def _is_value(text: str, hint: Any) -> bool:
    """Whether a text can be typed as a value, or describes one."""
    choices = [value for argument in (hint, *get_args(hint)) for value in get_args(argument)]
    return text in choices or re.fullmatch(r"[-+.\de]+", text) is not None


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
