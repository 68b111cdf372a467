"""Makes the pictures of the panel in its page: `make screenshots` (Chromium is needed; ten minutes on two cores).

Names of functions, `neurons` or `gaussians`, as arguments make some of them only.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from support.browser import PanelPage, Training, chromium

DOCS = Path(__file__).parents[2] / "docs"
SIZE = (900, 900)
STEP = 1400
"""Training step at which there is something to see."""
COMMAND = "ns-train nerf-prune-demo --vis viewer --pipeline.prune.start-step 1900".split()
SPLATS = "ns-train splat-prune-demo --vis viewer --pipeline.prune.start-step 1400".split()


@contextmanager
def opened(command: Sequence[str]) -> Iterator[PanelPage]:
    """A tab that shows a training."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        training = Training([*command, "--output-dir", folder], Path(folder), {})
        try:
            training.wait()
            yield PanelPage(browser, training.url, SIZE)
        finally:
            training.stop()


def gaussians() -> None:
    """Trains the demo of Gaussians, and saves what a cut would take and leave."""
    with opened(SPLATS) as page:
        page.wait_for(r"settled, step", patience=900)
        page.click("Hide Train Cams")
        page.fold("Render Options")
        page.fold("Crop Viewport")
        page.split()
        page.choose("Output render split", "removed")
        page.click("Pause Training")
        page.check("preview")
        page.wait_for(r"with the cut.*PSNR, dB \d", patience=300)
        save(page, "panel-splats.png", page.page.get_by_text("Score now", exact=True))


def neurons() -> None:
    """Trains the demo, prunes it by hand, and saves what a person sees."""
    with opened(COMMAND) as page:
        page.wait_for(rf"dense, step {STEP // 1000},[{STEP // 100 % 10}-9]\d\d", patience=600)
        page.click("Hide Train Cams")
        page.fold("Render Options")
        page.fold("Crop Viewport")
        page.split()
        page.choose("strategy", "importance")
        page.choose("refit", "none")
        page.choose("target", "pruning_ratio")
        page.enter("value", "0.5")
        page.click("Pause Training")  # a picture of the best resolution, soon
        page.check("preview")
        page.wait_for(r"with the cut.*PSNR, dB \d")
        save(page, "panel-preview.png", page.page.get_by_text("Undo", exact=True))
        page.click("Resume Training")
        page.choose("strategy", "obs")
        page.choose("refit", "lstsq")
        page.choose("target", "target_parameters")
        page.enter("value", "0.28")
        page.click("Prune now")
        page.wait_for(r"→ [\d,]+ parameters")
        page.split()
        page.fold("Layers")
        page.fold("Plots")
        page.click("Draw")
        page.choose("plot", "PSNR")
        page.page.wait_for_timeout(20_000)
        page.click("Draw")
        save(page, "panel-pruned.png", page.page.locator(".js-plotly-plot").first)


def save(page: PanelPage, name: str, element: Any) -> None:
    """Scrolls an element of the panel into sight and saves the window in few colours."""
    page.page.wait_for_timeout(12_000)
    element.scroll_into_view_if_needed()
    path = DOCS / name
    page.screenshot(path)
    Image.open(path).convert("RGB").quantize(200).save(path, optimize=True)


if __name__ == "__main__":
    pictures = {"neurons": neurons, "gaussians": gaussians}
    for name in sys.argv[1:] or pictures:
        pictures[name]()
