"""Widths and bits under one size: what is written is the best of what was measured, and the run is not touched."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from support.exported import small_model
from support.saved_run import save_run
from support.tiny_kilo import make_kilo
from support.tiny_run import make_config

from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.fitting import SizeError
from nerfstudio_prune.export.joint import Tried, best_of
from nerfstudio_prune.export.reading import read_exported
from nerfstudio_prune.export.run_file import RunFile


def files(sizes: dict[float, int], quality: dict[float, float]) -> Callable[[float], Tried]:
    """Files of given sizes and qualities; 0 bytes stand for too many neurons, less for too few."""
    file = object.__new__(RunFile)

    def attempt(share: float) -> Tried:
        if sizes[share] <= 0:
            raise SizeError(f"{share} is too large") if sizes[share] == 0 else ValueError("nothing as small")
        return Tried(share, file, bytes(sizes[share]), quality[share])

    return attempt


def test_the_best_of_what_was_measured() -> None:
    """By hand: at 1 nothing fits; 0.5 is better than 0.7 and 0.35; at 0.25 all bits are there and the file is not full,
    so that 0.1 is not tried, though it would be better."""
    quality = {0.7: 20.0, 0.5: 22.0, 0.35: 21.0, 0.25: 19.0, 0.1: 30.0}
    sizes = {1.0: 0, 0.7: 100, 0.5: 98, 0.35: 99, 0.25: 90, 0.1: 50}
    best, tried = best_of([*sizes], files(sizes, quality), 100)
    assert best.share == 0.5 and [one.share for one in tried] == [0.7, 0.5, 0.35, 0.25]


def test_nothing_fits() -> None:
    """The size of the smallest one is told, not that of the largest; what cannot be cut as far ends the search."""
    with pytest.raises(SizeError, match=r"0\.5 is too large"):
        best_of([1.0, 0.5], files({1.0: 0, 0.5: 0}, {}), 100)
    best, tried = best_of([1.0, 0.5, 0.2], files({1.0: 100, 0.5: -1, 0.2: 100}, {1.0: 20.0, 0.2: 30.0}), 100)
    assert best.share == 1.0 and len(tried) == 1


def test_command(tmp_path: Path, scene_cache: Path) -> None:
    """The file tells of the cut and of the widths before it, all that was tried is shown, and the run stays as it
    was."""
    run = save_run(tmp_path / "run", small_model(), make_config(tmp_path, scene_cache))
    checkpoint = run.parent / "nerfstudio_models" / "step-000000009.ckpt"
    before = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    with pytest.raises(SizeError, match=r"got [\d,]+ at 2 bits") as caught:
        Export(run, tmp_path / "x", target_mb=0.001, views=0).main()
    least = int(str(caught.value).partition("got ")[2].partition(" at")[0].replace(",", ""))
    # Less than the whole network takes at two bits: something must be cut.
    options = Export(run, tmp_path / "a", target_mb=(least - 300) / 1e6, widths="joint", views=1)
    with CONSOLE.capture() as capture:
        options.main()
    text, found = " ".join(capture.get().split()), read_exported(tmp_path / "a")
    assert found.size <= least - 300
    (cut,) = found.metadata.cuts  # type: ignore[union-attr]
    assert cut.after < cut.before and found.metadata.parameters < cut.after  # type: ignore[operator]
    fine = found.metadata.fine  # type: ignore[union-attr]
    assert max(layer.rows for layer in fine.trunk) <= max(fine.trained) and 16 in fine.trained
    assert "Neurons against bits" in text and "written" in text and "Pictures of 1 test view" in text
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a"]


def test_what_it_needs(tmp_path: Path, scene_cache: Path) -> None:
    """A size that is shared, views to measure on, and one large network; nothing is written without."""
    config = make_config(tmp_path, scene_cache)
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig(data=tmp_path / "moved")
    run = save_run(tmp_path / "run", small_model(), config)
    with pytest.raises(ValueError, match="--widths joint goes with --target-mb"):
        Export(run, tmp_path / "a", bits=4.0, widths="joint").main()
    with pytest.raises(ValueError, match=r"--widths joint needs training views: .*moved"):
        Export(run, tmp_path / "a", target_mb=1.0, widths="joint").main()
    tiny = save_run(tmp_path / "tiny", small_model(), make_kilo(tmp_path, scene_cache))
    with pytest.raises(ValueError, match="--widths joint is for runs of nerf-prune"):
        Export(tiny, tmp_path / "a", target_mb=1.0, widths="joint").main()
    assert not (tmp_path / "a").exists()
