"""Which room may import which: one table, held against every import of every module."""

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.layers import LAYERS

import nerfstudio_prune

PACKAGE = "nerfstudio_prune"
ROOT = Path(nerfstudio_prune.__file__).resolve().parent


def modules_below(folder: Path, name: str) -> dict[str, Path]:
    """Name of every module in a folder -> its file.

    Args:
        folder: The folder.
        name: Name of the package that the folder is, without `nerfstudio_prune`; empty for that package itself.
    """
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        found[".".join(part for part in (name, *parts) if part and part != "__init__")] = file
    return found


def imports_of(source: str, name: str, is_package: bool, known: set[str], package: str = PACKAGE) -> set[str]:
    """Modules of its package that a module imports anywhere: inside functions, for type checkers only, or by name.

    A string that is exactly the path of a module counts, for that is how `importlib` is told.

    Args:
        source: The module's text.
        name: Its name, without the package's.
        is_package: Whether it is an `__init__.py`.
        known: Names of all modules of the package.
        package: Name of the package.

    Returns:
        Names of modules, without the package's; empty stands for the package itself.
    """
    paths: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                own = f"{package}.{name}".rstrip(".").split(".")
                above = own[: len(own) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            inside = [f"{base}.{alias.name}" for alias in node.names]
            submodules = [path for path in inside if path.removeprefix(f"{package}.") in known]
            # `from package import something` reads the package itself only where something is no module of it.
            paths += submodules if len(submodules) == len(inside) else [base, *submodules]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            paths += [node.value] if node.value.removeprefix(f"{package}.") in known else []
    return {path.removeprefix(package).removeprefix(".") for path in paths if f"{path}.".startswith(f"{package}.")}


def room_of(module: str) -> str:
    """Room of a module; empty for the package itself."""
    return module.partition(".")[0]


# The build takes `method_configs` into the package from beside it.
MODULES = {**modules_below(ROOT, ""), **modules_below(ROOT.parent / "method_configs", "method_configs")}
IMPORTS = {
    (name, imported)
    for name, file in MODULES.items()
    for imported in imports_of(file.read_text(), name, file.name == "__init__.py", set(MODULES))
    if room_of(imported) != room_of(name)
}
"""Importing module and imported one, where they are of different rooms."""


def against_the_table(imports: set[tuple[str, str]], layers: dict[str, tuple[str, ...]]) -> set[tuple[str, str]]:
    """Imports of another room that the table does not name."""
    return {
        (name, imported)
        for name, imported in imports
        if room_of(imported) and room_of(imported) not in layers.get(room_of(name), ())
    }


def test_every_module_belongs_to_a_room() -> None:
    """A file that no row of the table names could import what it likes."""
    assert {room_of(name) for name in MODULES if name} == set(LAYERS)
    assert "method_configs.nerf_prune" in MODULES and "nerf.teacher.teacher" in MODULES


def test_imports_follow_the_table() -> None:
    """The lower rooms are there to be used again by what is pruned next; one import upwards, be it inside a function,
    and they drag along what they were to be free of. An exception that nothing needs any more has to go."""
    found = against_the_table(IMPORTS, LAYERS)
    assert sorted(found) == [], "imports against the table"


def test_the_package_itself_imports_nothing() -> None:
    """Whoever imports any room runs the package's `__init__` first."""
    assert [imported for name, imported in IMPORTS if not name] == []


def test_rooms_have_no_circle() -> None:
    """Rooms that import one another are one room with two names: neither can be read, tested or used alone. Neither the
    table nor the imports go round; the sorter names the rooms of a circle."""
    graph: dict[str, set[str]] = {room: set() for room in LAYERS}
    for name, imported in IMPORTS:
        graph[room_of(name)].add(room_of(imported))
    for rooms in (LAYERS, graph):
        assert set(TopologicalSorter(rooms).static_order()) == set(LAYERS)


def test_no_room_holds_a_third_of_the_lines() -> None:
    """A room that large is the whole house again, where everything is next to everything."""
    lines: Counter[str] = Counter()
    for name, file in MODULES.items():
        lines[room_of(name)] += len(file.read_text().splitlines())
    room, most = lines.most_common(1)[0]
    assert 3 * most < sum(lines.values()), f"{room} has {most} of {sum(lines.values())} lines"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import house.up.attic", {"up.attic"}),
        ("import house.up.attic as a, other", {"up.attic"}),
        ("from house.up.attic import box", {"up.attic"}),
        ("from house.up import attic", {"up.attic"}),
        ("from house.up import attic, key", {"up", "up.attic"}),
        ("from house import up as u", {"up"}),
        ("from house import __version__", {""}),
        ("def f():\n    from house.up.attic import box", {"up.attic"}),
        ("if TYPE_CHECKING:\n    import house.up", {"up"}),
        ("from ..up import attic", {"up.attic"}),
        ("from .. import up", {"up"}),
        ("from .shelf import jar", {"down.shelf"}),
        ("import_module('house.up.attic')", {"up.attic"}),
        ("text = 'house.up.attic is high'\nimport household.up", set()),
    ],
)
def test_reader_finds_every_kind_of_import(source: str, expected: set[str]) -> None:
    """The table is worth what the reader sees. Module `house.down.cellar` imports, each way that Python has."""
    known = {"", "up", "up.attic", "down", "down.shelf", "down.cellar"}
    assert imports_of(source, "down.cellar", False, known, "house") == expected


def test_reader_knows_packages_from_modules() -> None:
    """One dot means another folder in an `__init__.py` than in the modules beside it."""
    known = {"", "up", "up.attic", "down", "down.shelf"}
    assert imports_of("from .shelf import jar", "down", True, known, "house") == {"down.shelf"}
    assert imports_of("from ..up import attic", "down", True, known, "house") == {"up.attic"}


def test_checker_finds_a_wrong_import() -> None:
    """A check that lets everything pass looks like a clean house."""
    layers = {"down": (), "up": ("down",)}
    fine, wrong, homeless = ("up.attic", "down.shelf"), ("down.shelf", "up.attic"), ("shed", "down")
    assert against_the_table({fine, wrong, homeless, ("down", "")}, layers) == {wrong, homeless}


SCRIPT = """
import importlib, sys
blocked, modules = sys.argv[1].split(","), sys.argv[2].split(",")
for name in blocked:
    sys.modules[name] = None
for name in modules:
    importlib.import_module(name)
print(*modules)
"""


@pytest.mark.parametrize("room", ["core", "neurons"])
def test_room_imports_without_what_stands_above_it(room: str) -> None:
    """Core serves whatever is pruned, and the neurons' part must be usable on any network where Nerfstudio is not
    installed. Every module is imported in a fresh interpreter where Nerfstudio and all other rooms cannot be."""
    others = [other for other in LAYERS if other != room and other not in LAYERS[room]]
    modules = [f"{PACKAGE}.{name}" for name in MODULES if room_of(name) == room]
    assert len(modules) >= 4
    blocked = ["nerfstudio", *(f"{PACKAGE}.{other}" for other in others)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, ",".join(blocked), ",".join(modules)],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == modules


OTHER_PYTHONS = ("core", "neurons", "occupancy", "kilonerf")
"""Rooms that `.ci/other_pythons` tests."""


def test_other_pythons_have_what_they_test() -> None:
    """`.ci/other_pythons` installs some packages and no Nerfstudio. One import more in these rooms, in their tests or
    in what these share, and the other versions are not tested at all: every collection fails there."""
    (installed,) = re.findall(
        r"pip install .*constraints\.txt (.*)", (ROOT.parent / ".ci" / "other_pythons").read_text()
    )
    tests = Path(__file__).resolve().parents[1]
    waiting = [file for name, file in MODULES.items() if room_of(name) in OTHER_PYTHONS]
    waiting += [tests / "conftest.py", *(file for room in OTHER_PYTHONS for file in tests.glob(f"{room}/**/*.py"))]
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            waiting += [tests / f"{name.replace('.', '/')}.py" for name in names if name.startswith("support.")]
            tops = {name.partition(".")[0] for name in names} - {PACKAGE, "support", *sys.stdlib_module_names}
            assert tops <= set(installed.split()), f"{file} imports {tops}"
    assert len(seen) > 50
