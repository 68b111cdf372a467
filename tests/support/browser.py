"""A real training with a viewer, and a real Chromium that looks at it. Used by a test and by `take_screenshots.py`."""

import io
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Software rendering: the page draws with WebGL. No connections of the browser's own.
FLAGS = (
    "--no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --disable-quic"
).split()
PATIENCE = 120.0
"""Seconds for what should happen soon, on a machine that does other things as well."""
START = 300.0
"""Seconds for a process to import all that it needs."""
NOTE_PICTURES = """
const make = URL.createObjectURL, drop = URL.revokeObjectURL, waiting = new Map();
window.pictures = {waiting, last: null};
URL.createObjectURL = blob => {
    const url = make.call(URL, blob);
    if (blob.type === "image/png") waiting.set(url, blob);
    return url;
};
URL.revokeObjectURL = url => {
    if (waiting.has(url)) window.pictures.last = waiting.get(url);
    waiting.delete(url);
    drop.call(URL, url);
};
"""
"""Notes which pictures the page is decoding, and which it has decoded last: it drops the address of each then."""
LAST_PICTURE = """async () => {
    const {waiting, last} = window.pictures;
    if (waiting.size || last === null) return null;
    return Array.from(new Uint8Array(await last.arrayBuffer()));
}"""


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Training:
    """A process with a viewer.

    Args:
        command: Program and options, without those of the viewer's address.
        folder: Where it runs, and where its output goes (`log.txt`).
        environment: Environment variables besides those of this process.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log.txt"
        address = ["--viewer.websocket-port", str(self.port), "--viewer.websocket-host", "127.0.0.1"]
        program = str(Path(sys.executable).parent / command[0])
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [program, *command[1:2], *address, *command[2:]],
                cwd=folder,
                env={**os.environ, **environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Until the page can be opened.

        Raises:
            AssertionError: If the process ends before, or takes too long.
        """
        deadline = time.monotonic() + START
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-4000:]
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  only where there is a browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


class PanelPage:
    """A tab with the viewer, in the words of the panel.

    Args:
        browser: The browser.
        url: Address of the viewer.
        size: Pixels of the window, width and height.
        scale: Pixels of a screenshot for one of the window.
    """

    def __init__(self, browser: Any, url: str, size: tuple[int, int] = (1000, 1700), scale: float = 1.0) -> None:
        self.page = browser.new_page(
            viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale, color_scheme="dark"
        )
        self.page.set_default_timeout(1000 * PATIENCE)
        self.errors: list[str] = []
        """Uncaught errors of the page."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.add_init_script(NOTE_PICTURES)
        self.page.goto(url)
        self.wait_for("Prune now")

    def text(self) -> str:
        """All that can be read."""
        return " ".join(self.page.inner_text("body").split())

    def wait_for(self, pattern: str, gone: bool = False, patience: float = PATIENCE) -> str:
        """Until a regular expression is found in the text, or not any more; gives the text."""
        text = ""

        def found() -> bool:
            nonlocal text
            text = self.text()
            return bool(re.search(pattern, text)) != gone

        self.wait_until(found, pattern, patience)
        return text

    def wait_until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> str:
        """Until a condition holds; gives the text."""
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, f"{what!r} did not come; the page says: {self.text()}"
            self.page.wait_for_timeout(200)
        return self.text()

    def click(self, button: str) -> None:
        """Presses a button, once it can be pressed."""
        self.page.get_by_role("button", name=button, exact=True).click(timeout=1000 * PATIENCE)

    def fold(self, folder: str) -> None:
        """Opens or closes a folder."""
        self.page.get_by_text(folder, exact=True).first.click()
        self.page.wait_for_timeout(500)

    def check(self, box: str) -> None:
        """Presses a check box."""
        self.page.get_by_label(box, exact=True).first.click()

    def row(self, label: str) -> Any:
        """The inputs of an element."""
        return self.page.get_by_text(label, exact=True).first.locator("xpath=ancestor::div[.//input][1]//input")

    def choose(self, label: str, option: str) -> None:
        """Chooses from a list."""
        self.row(label).first.click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def enter(self, label: str, value: str) -> None:
        """Types a number into the field beside a slider."""
        field = self.row(label).locator("visible=true").last
        field.fill(value)
        field.press("Enter")

    def split(self) -> None:
        """Switches the split screen on or off."""
        folder = self.page.get_by_text("Split Screen", exact=True).first
        folder.locator("xpath=ancestor::div[.//input[@type='checkbox']][1]//input").first.click()

    def sent(self) -> Optional[bytes]:
        """The picture that the page has decoded last, a PNG as it was sent; None while others are on their way.

        With a viewer that sends PNG and composes no depth: its pictures are all that the page gets as PNG then.
        """
        found = self.page.evaluate(LAST_PICTURE)
        return None if found is None else bytes(found)

    def drawn(self) -> bytes:
        """What the scene looks like: a screenshot of its canvas, for which the page uses fewer pixels if it is slow."""
        self.page.mouse.move(5, 5)  # no hint over it
        return self.page.screenshot(clip=self.canvas())

    def canvas(self) -> dict[str, float]:
        """Where the scene is drawn: `x`, `y`, `width` and `height`."""
        return self.page.locator("canvas[data-engine]").bounding_box()

    def screenshot(self, path: Path, clip: Optional[dict[str, float]] = None) -> None:
        """Saves the window, or a part of it."""
        self.page.mouse.move(5, 5)  # no hint over anything
        self.page.wait_for_timeout(700)
        self.page.screenshot(path=path, **({} if clip is None else {"clip": clip}))


def pixels(picture: bytes) -> np.ndarray:
    """[height, width, 3], from 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=float)


def coarse(picture: bytes) -> np.ndarray:
    """What is left of a picture in few pixels, each the mean of those it covers."""
    small = Image.open(io.BytesIO(picture)).convert("RGB").resize((8, 16), Image.Resampling.BOX)
    return np.asarray(small, dtype=float)


def steady(
    page: PanelPage, unlike: Optional[np.ndarray] = None, like: Optional[np.ndarray] = None, still: int = 128
) -> np.ndarray:
    """The picture that the page got last, once it is sharp and drawn: the viewer refines what it shows in stages.

    Screenshots are not compared with each other, for the page draws with fewer pixels when it is slow.

    Args:
        page: The tab.
        unlike: A picture that it must not be any more, by more than 5 of 255 in the mean.
        like: A picture that it must become, within 1.
        still: Pixels of the longer side of a sharp picture.
    """
    last, found = np.zeros((1, 1, 3)), dict[str, Any]()

    def difference(other: np.ndarray) -> float:
        return float(np.nanmean(np.abs(last - other))) if last.shape == other.shape else math.nan

    def settled() -> bool:
        nonlocal last
        found.clear()
        picture, canvas = page.sent(), page.canvas()
        if picture is None:
            return False
        last = pixels(picture)
        height, width, _ = found["shape"] = last.shape
        if max(height, width) != still or abs(width - height * canvas["width"] / canvas["height"]) > 1:
            return False
        found["unlike"] = 255.0 if unlike is None else difference(unlike)
        found["like"] = 0.0 if like is None else difference(like)
        if not (found["unlike"] > 5 and found["like"] < 1):
            return False
        found["drawn"] = float(np.abs(coarse(page.drawn()) - coarse(picture)).mean())
        return found["drawn"] < 8

    try:
        page.wait_until(settled, "a steady picture")
    except AssertionError as error:
        raise AssertionError(f"{found}; {error}") from None
    return last
