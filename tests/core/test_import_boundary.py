"""Which way imports point: method -> neurons -> core, and the last two without Nerfstudio."""

import subprocess
import sys
from pathlib import Path

import pytest

import nerfstudio_prune

ROOT = Path(nerfstudio_prune.__file__).parent
SCRIPT = """
import importlib, sys
blocked, modules = sys.argv[1].split(","), sys.argv[2].split(",")
for name in blocked:
    sys.modules[name] = None
for name in modules:
    importlib.import_module(name)
print(*modules)
"""


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        ("core", ["nerfstudio", "nerfstudio_prune.neurons", "nerfstudio_prune.nerf", "nerfstudio_prune.scenes"]),
        ("neurons", ["nerfstudio", "nerfstudio_prune.nerf", "nerfstudio_prune.scenes"]),
    ],
)
def test_package_imports_without_what_stands_above_it(package: str, blocked: list[str]) -> None:
    """Core serves whatever is pruned (splats come later), and the neurons' part must be usable on any network where
    Nerfstudio is not installed. Every module is imported in a fresh interpreter where the packages above it cannot
    be; one wrong import line fails here and nowhere else, since all is installed elsewhere."""
    files = sorted((ROOT / package).glob("*.py"))
    modules = [f"nerfstudio_prune.{package}.{file.stem}".removesuffix(".__init__") for file in files]
    assert len(modules) >= 4
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
