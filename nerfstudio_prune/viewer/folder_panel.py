"""The elements of a folder, and a thread that keeps its texts up to date."""

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.viewer.chosen_view import ChosenView
from nerfstudio_prune.viewer.elements import add_element
from nerfstudio_prune.viewer.folder import Folder
from nerfstudio_prune.viewer.session import TrainingState
from nerfstudio_prune.viewer.texts import plain

TICK_SECONDS, LEAST_TICK_SECONDS = 0.5, 0.05
"""How often texts are brought up to date, and how soon at best after something was touched."""
CLOSED = "loop is closed"
"""What viser says once its server has gone."""


class FolderPanel:
    """Elements of a folder inside the current container of viser, see `start`.

    Args:
        gui: viser's interface to its elements.
        folder: The folder.
        view: What the viewer renders.
        state: Gives the training step that ended last, and what the trainer does.
        rerender: Makes the viewer render anew.
    """

    def __init__(
        self,
        gui: Any,
        folder: Folder,
        view: ChosenView,
        state: Callable[[], tuple[int, TrainingState]],
        rerender: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.view = view
        self.state = state
        self.rerender = rerender
        self._complaint = ""
        self._told = self._text = ""
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="folder-panel", daemon=True)
        with gui.add_folder(folder.title):
            self.text = gui.add_markdown("")
            self.elements = [(field, add_element(gui, field, field.value)) for field in folder.fields()]
            """Each field with its element."""
        for _, element in self.elements:
            element.on_update(lambda _: self._on_change())

    def checks(self) -> list[tuple[Any, Callable[[Any], None]]]:
        """All elements that a page can change, each with the check of a value that arrives for it."""
        return [(element, field.check) for field, element in self.elements]

    def complain(self, text: str) -> None:
        """Tells what cannot be done, in the folder and on the console. May be called by any thread."""
        self._complaint = text

    def start(self) -> None:
        """Begins to keep the texts up to date."""
        self._thread.start()

    def stop(self) -> None:
        """Ends that, and waits until it has ended."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _on_change(self) -> None:
        try:
            for field, element in self.elements:
                field.check(element.value)
        except ValueError as error:
            self.complain(str(error))
        else:
            self._complaint = ""
            self.view.values = {field.name: element.value for field, element in self.elements}
            self.rerender()
        self._wake.set()

    def _loop(self) -> None:
        while not self._stopped:
            self._wake.wait(TICK_SECONDS)
            time.sleep(LEAST_TICK_SECONDS)
            self._wake.clear()
            try:
                self.tick()
            except Exception as error:  # a folder that shows nothing new is better than none
                if self._stopped or CLOSED in str(error):
                    return
                CONSOLE.print(f"[red]{self.folder.title}: {escape(traceback.format_exc())}")
                time.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Brings the texts up to date."""
        complaint = self._complaint
        if complaint != self._told:
            self._told = complaint
            if complaint:
                CONSOLE.print(f"[red]{self.folder.title}: {escape(complaint)}")
        own = [f"⚠️ {plain(text)}" for text in (complaint, self.view.failure) if text]
        text = "\n\n".join([self.folder.text(*self.state(), self.view.frame), *own])
        if text != self._text:  # or every page would be sent it anew
            self._text = self.text.content = text
