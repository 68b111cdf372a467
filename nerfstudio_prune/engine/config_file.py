"""Reads the `config.yml` of a run without running anything that it names.

The host's own loader imports and calls whatever the file says. This one makes configurations, choices and paths, and
nothing else: a class is named by the file and looked up, but never called.
"""

import re
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path, PureWindowsPath
from types import FunctionType
from typing import Any, get_type_hints

import yaml
from nerfstudio.configs.base_config import PrintableConfig
from nerfstudio.engine.trainer import TrainerConfig
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from nerfstudio_prune.core.files import read_file

MAX_BYTES = 256_000
"""Thirty times the largest of the registered methods."""
CONFIGS = ("nerfstudio", "nerfstudio_prune")
"""Packages whose configurations are read."""
TARGETS = (*CONFIGS, "torch.optim")
"""Packages whose classes a configuration may name."""
SCRIPTS = "nerfstudio.scripts"
"""Programs of the host; no configuration names one."""
FUNCTIONS = "nerfstudio.data"
"""Where the functions are that a configuration may name, those that put batches together."""
GENERIC = "__class_getitem__"
"""What a class has that works on others, such as the host's data manager of a data set."""
_PATH = re.compile(r"pathlib(?:\._local)?\.(?:Pure)?(Posix|Windows)?Path")


class ConfigFileError(ValueError):
    """A file that is no configuration of a run, or one that is not read here. Names the line where that is known."""


def read_config_file(path: Path) -> TrainerConfig:
    """Reads the configuration of a run.

    Args:
        path: A file as the host writes it.

    Raises:
        OSError: If it cannot be read.
        ConfigFileError: If it names what is no part of Nerfstudio or of this project, a value is of the wrong type, or
            it is no configuration of a run.
    """
    try:
        text = read_file(path, MAX_BYTES).decode()
        config = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError, ArithmeticError) as error:
        raise ConfigFileError(_short(error)) from error
    if not isinstance(config, TrainerConfig):
        raise ConfigFileError(f"it holds a {type(config).__name__}")
    return config


def _short(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return next(iter(str(error).splitlines()), "") or type(error).__name__


class _Loader(yaml.SafeLoader):
    """Reads plain values, and what `_CONSTRUCTORS` adds to them."""

    def flatten_mapping(self, node: Any) -> None:
        """Refuses merge keys: the host writes none, and a few lines of them make a very large mapping."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise _problem("merges mappings, which no configuration does", node)


def _problem(text: str, node: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def _look_up(name: str, packages: tuple[str, ...], node: Any) -> Any:
    """What a dotted path leads to, if it is defined in one of some packages; nothing is called."""
    module, _, attribute = name.rpartition(".")
    if not _within(module, packages):
        raise _problem(
            f"names {name:.100}, which is no part of Nerfstudio or nerfstudio-prune; a run of another plugin cannot be "
            "opened here",
            node,
        )
    try:
        found = vars(import_module(module)).get(attribute)
    except Exception as error:  # a module of another version may be missing, or fail in any way
        raise _problem(f"names {name:.100}, which cannot be imported: {_short(error)}", node) from error
    # By where it is defined: modules of the host hold other modules, and what they take from those.
    if not isinstance(found, (type, FunctionType)) or not _within(found.__module__, packages):
        raise _problem(f"names {name:.100}, which is no class that a configuration names", node)
    return found


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages) and not module.startswith(SCRIPTS)


def _name(loader: Any, name: str, node: Any) -> Any:
    """`!!python/name`: a class, or a function that puts batches together."""
    if node.value:
        raise _problem("gives a name and a value at once", node)
    found = _look_up(name, TARGETS, node)
    if not isinstance(found, type) and not _within(found.__module__, (FUNCTIONS,)):
        raise _problem(f"names {name:.100}, which is no class that a configuration names", node)
    return found


def _object(loader: Any, name: str, node: Any) -> Any:
    """`!!python/object`: a configuration, with defaults in place of fields that an earlier version did not have."""
    kind = _look_up(name, CONFIGS, node)
    if not (isinstance(kind, type) and issubclass(kind, PrintableConfig) and is_dataclass(kind)):
        raise _problem(f"names {name:.100}, which is no configuration", node)
    if not isinstance(node, yaml.MappingNode):
        raise _problem(f"{kind.__name__}: expected its fields with their values", node)
    values = loader.construct_mapping(node, deep=True)
    found, hints = object.__new__(kind), get_type_hints(kind)
    for field in fields(kind):
        if field.name in values:
            value = values.pop(field.name)
            _check_type(value, hints[field.name], f"{kind.__name__}.{field.name}", node)
        elif field.default is not MISSING:
            value = field.default
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        else:
            raise _problem(f"{kind.__name__}.{field.name} is missing", node)
        object.__setattr__(found, field.name, value)
    for name in values:
        # A field of another version is passed over; one that would hide a method is none.
        if not isinstance(name, str) or hasattr(kind, name):
            raise _problem(f"{kind.__name__}.{name!s:.60} is no field", node)
    return found


def _check_type(value: Any, hint: Any, name: str, node: Any) -> None:
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError as error:
        raise _problem(f"{name}: {_short(error)}", node) from error


def _apply(loader: Any, name: str, node: Any) -> Any:
    """`!!python/object/apply`: a path, a choice, or a class with the class that it works on."""
    if not isinstance(node, yaml.SequenceNode):
        raise _problem(f"{name:.100}: expected a list of arguments", node)
    arguments = loader.construct_sequence(node, deep=True)
    path = _PATH.fullmatch(name)
    if path is not None:
        if not all(isinstance(part, str) for part in arguments):
            raise _problem("expected a path of texts", node)
        return Path(PureWindowsPath(*arguments).as_posix() if path[1] == "Windows" else Path(*arguments))
    if name == "_operator.getitem":
        if [isinstance(part, type) for part in arguments] != [True, True] or not hasattr(arguments[0], GENERIC):
            raise _problem("expected a class and the class that it works on", node)
        return arguments[0][arguments[1]]
    kind = _look_up(name, CONFIGS, node)
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise _problem(f"calls {name:.100}, which nothing here does", node)
    choices = [choice for choice in kind if [choice.value] == arguments]
    if not choices:
        raise _problem(f"{kind.__name__}: expected one of {', '.join(str(c.value) for c in kind)}", node)
    return choices[0]


def _tuple(loader: Any, node: Any) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_CONSTRUCTORS = {"python/name:": _name, "python/object:": _object, "python/object/apply:": _apply}
for _tag, _constructor in _CONSTRUCTORS.items():
    _Loader.add_multi_constructor(f"tag:yaml.org,2002:{_tag}", _constructor)
_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
