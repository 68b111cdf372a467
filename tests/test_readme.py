"""What the README shows must work as it stands there."""

import importlib.util
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from nerfstudio_prune.bench.suites import SCALES, SUITES
from nerfstudio_prune.cli import parse
from nerfstudio_prune.nerf.config import FieldTargetConfig, FilledPruneConfig, PruneConfig
from nerfstudio_prune.nerf.presets import PRESETS, PresetName
from nerfstudio_prune.nerf.teacher.config import TeacherConfig
from nerfstudio_prune.neurons.strategies import STRATEGIES, select

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The README's module with a strategy of one's own, imported as a user would import it."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    path = tmp_path / "my_prune.py"
    path.write_text(code)
    monkeypatch.delitem(STRATEGIES, "soft", raising=False)
    spec = importlib.util.spec_from_file_location("my_prune", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    STRATEGIES.pop("soft", None)


def test_own_strategy_is_registered_and_selects(example) -> None:
    """A researcher copies this block first; it must register, take its options and keep its contract."""
    spec = example.my_prune
    assert spec.config.method_name == "my-prune"
    spec.config.pipeline.prune.validate()
    strategy = spec.config.pipeline.prune.filled().make_strategy()
    assert isinstance(strategy, example.SoftImportance) and strategy.temperature == 0.1
    scores = torch.tensor([1.0, 1e-6, 2.0, 0.0, 3.0])
    selection = select(strategy, scores, 3, torch.Generator().manual_seed(0))
    assert selection.keep.tolist() == [0, 2, 4]


def test_stock_method_is_untouched_by_the_example(example) -> None:
    """The example copies the method; changing the registered one would change every later run of the process."""
    from nerfstudio_prune.method_configs.nerf_prune import nerf_prune  # type: ignore[import-not-found]  # noqa: PLC0415

    assert nerf_prune.config.pipeline.prune.strategy is None


def test_commands_in_the_readme_parse() -> None:
    """Whoever copies a line must not meet an option that was renamed; nothing is carried out here."""
    blocks = re.findall(r"^```\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    joined = [block.replace("\\\n", " ") for block in blocks]
    lines = [line for block in joined for line in block.splitlines() if line.startswith("ns-prune ")]
    assert {line.split()[1] for line in lines} == {"bench", "report", "inspect"}
    for line in lines:
        command = parse(shlex.split(line, comments=True)[1:])
        assert type(command).__name__.lower() == line.split()[1]


def test_suites_and_scales_in_the_readme_are_those_there_are() -> None:
    """The table is where a user learns what there is to run."""
    section = README.split("## Measure it yourself")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(.*?)` \|", section, flags=re.MULTILINE)) == set(SUITES)
    assert set(re.findall(r"`--scale (\w+)`", section)) == set(SCALES)


def test_options_in_the_readme_exist() -> None:
    """An option that was renamed must not live on in the README."""
    table = README.split("## Options that matter")[1].split("##")[0]
    names = {
        name for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE) for name in re.findall("`(.*?)`", row)
    }
    assert len(names) > 15
    known = {field.name.replace("_", "-") for field in fields(PruneConfig)}
    nested = {f"{own}.{field.name}" for own in ("coarse", "fine") for field in fields(FieldTargetConfig)}
    nested |= {f"teacher.{field.name.replace('_', '-')}" for field in fields(TeacherConfig)}
    names |= set(re.findall(r"`(teacher\.[\w-]+)`", table))
    assert names - known - nested == set()


def test_presets_in_the_readme_are_those_there_are() -> None:
    """The numbers of a preset stand and fall with its values; the table has to name them all, and the default."""
    section = README.split("### Presets")[1].split("##")[0]
    assert set(re.findall(r"^\| `(.*?)` \|", section, flags=re.MULTILINE)) == set(PRESETS)
    (default,) = re.findall(r"^\| `(.*?)` \|.*the default:", section, flags=re.MULTILINE)
    assert default == FilledPruneConfig.preset
    shares: dict[PresetName, str] = {"best": "target_parameters", "fast": "target_macs", "tiny": "target_parameters"}
    for name, share in shares.items():
        (row,) = re.findall(rf"^\| `{name}` .*$", section, flags=re.MULTILINE)
        assert f"{PRESETS[name][share]:.0%}".replace("%", " %") in row


def test_no_placeholder_and_no_dead_picture() -> None:
    """A table that was never filled in, or a picture that is not there, is the first thing a newcomer sees."""
    assert re.findall(r"^[A-Z_]+$", README, flags=re.MULTILINE) == []
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures and all((Path(__file__).parents[1] / picture).is_file() for picture in pictures)
