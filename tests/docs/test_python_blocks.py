"""Python code in the documents runs, and does what the text beside it says."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.pages import PAGES, ROOT, page_name, python_blocks
from support.tiny_field import TinyField

from nerfstudio_prune.neurons.scores import SCORES, needs_of, score_by_name
from nerfstudio_prune.neurons.strategies import STRATEGIES, select

PAGE = ROOT / "docs" / "strategies.md"
TESTED = {
    "docs/strategies.md": ("my_prune.py", "my_score.py"),
    "docs/records.md": ("example of records",),
    "docs/export.md": ("lego.py",),
    "docs/splat-files.md": ("read_splats.py",),
    "docs/pack.md": ("read.py",),
}
"""Page -> its blocks: the first lines of those of `strategies.md` name their files; that of `records.md` is run by the
tests of the records, on records, those of the pages of files by those of the files."""


def imported(name: str, folder: Path) -> ModuleType:
    (code,) = [block for block in python_blocks(PAGE) if block.startswith(f"# {name}\n")]
    path = folder / name
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def strategy_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module with a strategy of one's own, imported as a user would import it."""
    monkeypatch.delitem(STRATEGIES, "soft", raising=False)
    yield imported("my_prune.py", tmp_path)
    STRATEGIES.pop("soft", None)


def test_no_block_is_left_out() -> None:
    """A page that gets its first block of code has to be given a test with it."""
    counts = {page_name(page): len(python_blocks(page)) for page in PAGES}
    assert {name: count for name, count in counts.items() if count} == {k: len(v) for k, v in TESTED.items()}


def test_own_strategy_is_registered_and_selects(strategy_module: ModuleType) -> None:
    """A researcher copies this block first; it must register, take its options and keep its contract."""
    spec = strategy_module.my_prune
    assert spec.config.method_name == "my-prune"
    spec.config.pipeline.prune.validate()
    strategy = spec.config.pipeline.prune.resolve().chooses
    assert isinstance(strategy, strategy_module.SoftImportance) and strategy.temperature == 0.1
    scores = torch.tensor([1.0, 1e-6, 2.0, 0.0, 3.0])
    selection = select(strategy, scores, 3, torch.Generator().manual_seed(0))
    assert selection.keep.tolist() == [0, 2, 4]


def test_stock_method_is_untouched_by_the_example(strategy_module: ModuleType) -> None:
    """The example copies the method; changing the registered one would change every later run of the process."""
    from nerfstudio_prune.method_configs.nerf_prune import nerf_prune  # type: ignore[import-not-found]  # noqa: PLC0415

    config: Any = nerf_prune.config
    assert config.pipeline.prune.strategy is None


def test_own_score_is_found_by_its_name(tmp_path: Path) -> None:
    """The second block: a score is looked up by the name it was given, and gives the root mean square of the outgoing
    weights of each neuron, by hand."""
    try:
        imported("my_score.py", tmp_path)
        score = score_by_name("rms_out")
        assert needs_of(score) == "weights"
        for group in TinyField().groups():
            values = score(group)
            assert values.shape == (group.width,)
            expected = [
                sum(float(weight) ** 2 for weight in column) / len(column) for column in group.outgoing.T.tolist()
            ]
            assert values.square().tolist() == pytest.approx(expected)
    finally:
        SCORES.pop("rms_out", None)
