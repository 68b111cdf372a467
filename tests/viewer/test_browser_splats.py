"""The panel for Gaussians as a person uses it: a real training, a real browser. See `test_browser.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import CHROMIUM, PanelPage, Training, chromium, steady

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"),
]

# No growth: what happens does not depend on how far the training has got.
OPTIONS = """ns-train splat-prune-demo --machine.device-type cpu --vis viewer --viewer.image-format png
    --viewer.default-composite-depth False --max-num-iterations 1000000 --output-dir runs --steps-per-save 1000000
    --pipeline.model.schedule-steps None --pipeline.model.stop-split-at 0 --pipeline.model.num-random 1000
    --pipeline.prune.start-step 900000 --pipeline.prune.num-eval-views 1
    demo-data --data scene --image-size 32 --num-train-views 6 --num-val-views 2 --num-test-views 2
    --supersampling 1""".split()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PanelPage]:
    """A tab that shows a training that goes on until it is stopped."""
    environment = {"TORCH_HOME": str(tmp_path / "torch"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    training = Training(OPTIONS, tmp_path, {**environment, "OMP_NUM_THREADS": "1"})
    try:
        training.wait()
        with chromium() as browser:
            found = PanelPage(browser, training.url)
            yield found
            found.page.close()
        assert found.errors == [] and training.process.poll() is None
        assert "Traceback" not in training.log.read_text()
    finally:
        training.stop()


def test_preview_removed_significance_prune_undo(page: PanelPage, tmp_path: Path) -> None:
    """The whole use of the panel in one piece, in the words of Gaussians. The training is paused at first, so that all
    that changes the picture is the preview; what the cut takes and what Gaussians are worth are pictures of their own,
    which only trainer, viewer and page together can show."""

    def sharp(unlike: Any = None, like: Any = None) -> np.ndarray:
        return steady(page, unlike, like, still=128)

    page.wait_for(r"settled, step \d+")
    assert "Layers" not in page.text() and "training pixels/s" in page.wait_for("pixels/s")
    page.enter("Max res", "128")
    # So deep that the picture stays another one, however many steps it recovers for until the training is paused.
    page.enter("pruning_ratio", "0.9")
    page.click("Pause Training")
    page.wait_for("paused")
    uncut = sharp()
    page.check("preview")
    page.wait_for(r"with the cut Gaussians 1,000 100 SH degree 3 3 .*PSNR, dB \d")
    cut = sharp(unlike=uncut)
    page.screenshot(tmp_path / "1-preview.png")
    page.choose("Output type", "removed")
    removed = sharp(unlike=cut)
    page.choose("Output type", "significance")
    sharp(unlike=removed)
    page.screenshot(tmp_path / "2-significance.png")
    page.choose("Output type", "rgb")
    page.check("preview")
    sharp(like=uncut)

    page.click("Prune now")
    page.wait_for("prune: at the next step")
    page.click("Resume Training")
    page.wait_for(r"1,000 → 100 Gaussians, PSNR")
    page.click("Pause Training")
    page.wait_for("paused")
    after = sharp(unlike=uncut)
    page.choose("Output type", "removed")
    sharp(unlike=after)
    page.choose("Output type", "rgb_before")
    sharp(unlike=after)
    page.click("Score now")
    page.wait_for(r"scores: removal at step \d+")
    page.screenshot(tmp_path / "3-pruned.png")
    page.click("Resume Training")
    page.click("Undo")
    page.wait_for(r"is undone, 1,000 Gaussians again")
    page.wait_for("Undo: no pruning in this process to undo")
