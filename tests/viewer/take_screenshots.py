"""Makes the README's pictures of the panel: `make screenshots` (Chromium is needed; four minutes on two cores)."""

import tempfile
from pathlib import Path

from browser import PanelPage, Training, chromium
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
SIZE = (900, 900)
STEP = 1000
"""Training step at which there is something to see."""
COMMAND = "ns-train nerf-prune-demo --vis viewer --pipeline.prune.start-step 1900".split()


def main() -> None:
    """Trains the demo, prunes it by hand, and saves what a person sees."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        training = Training([*COMMAND, "--output-dir", folder], Path(folder), {})
        try:
            training.wait()
            page = PanelPage(browser, training.url, SIZE)
            page.wait_for(rf"step ({STEP // 1000},[0-9]{{3}})")
            page.click("Hide Train Cams")
            page.fold("Render Options")
            page.fold("Crop Viewport")
            page.split()
            page.choose("strategy", "importance")
            page.choose("refit", "none")
            page.enter("value", "0.6")
            page.check("preview")
            page.wait_for(r"with the cut.*PSNR, dB \d")
            save(page, "panel-preview.png", "preview")
            page.choose("strategy", "obs")
            page.choose("refit", "lstsq")
            page.enter("value", "0.28")
            page.wait_until(lambda: page.row("value").last.input_value() == "0.28", "the new value")
            page.click("Prune now")
            page.wait_for(r"→ [\d,]+ parameters")
            page.split()
            page.fold("Layers")
            page.fold("Plots")
            page.click("Draw")
            page.choose("plot", "PSNR")
            page.wait_for("recovery, step|pruning, step")
            page.page.wait_for_timeout(15_000)
            save(page, "panel-pruned.png", "PSNR")
        finally:
            training.stop()


def save(page: PanelPage, name: str, element: str) -> None:
    """Scrolls an element of the panel into sight and saves the window in few colours."""
    page.page.wait_for_timeout(4000)
    page.page.get_by_text(element, exact=True).last.scroll_into_view_if_needed()
    path = DOCS / name
    page.screenshot(path)
    Image.open(path).convert("RGB").quantize(96).save(path, optimize=True)


if __name__ == "__main__":
    main()
