"""What is installed is what is in the repository."""

import re
from pathlib import Path

import nerfstudio_prune

ROOT = Path(nerfstudio_prune.__file__).resolve().parents[1]


def test_every_room_is_installed() -> None:
    """A folder that the list of packages lacks is there in a checkout and missing in what users install."""
    (listed,) = re.findall(r"\[tool\.setuptools\]\npackages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S)
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "nerfstudio_prune").rglob("__init__.py")}
    assert set(re.findall(r'"(.*?)"', listed)) == found | {"nerfstudio_prune.method_configs"}
