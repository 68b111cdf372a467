"""What renders for the tabs of Nerfstudio's viewer: threads of the host's, mended where they lose something or end."""

import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException, SetTrace
from rich.markup import escape
from viser import ViserServer

from nerfstudio_prune.viewer.gate import is_up

MOVING_SECONDS = 0.1
"""The camera counts as moving for this long after it moved, as in the host."""


class NoTab:
    """Stands for what renders for a tab that has gone, or has not quite come."""

    running = False

    def action(self, action: Any) -> None:
        """Does nothing."""


class Tabs(dict[int, Any]):
    """The host's table of what renders for which tab, in which it looks up tabs that have gone.

    It does so with viser's lock held, which an exception would not release.
    """

    def __init__(self, server: ViserServer, tabs: Mapping[int, Any]) -> None:
        super().__init__(tabs)
        self._server = server

    def __setitem__(self, client_id: int, machine: Any) -> None:
        Renderer(machine, lambda: is_up(self._server))
        super().__setitem__(client_id, machine)

    def __missing__(self, client_id: int) -> NoTab:
        return NoTab()


class Renderer:
    """Mends what renders for a tab, a thread of the host's that loses requests and ends with the first error.

    Args:
        machine: The thread, before it is started.
        is_wanted: Whether anybody can still look at its pictures.
    """

    def __init__(self, machine: Any, is_wanted: Callable[[], bool]) -> None:
        self.machine = machine
        self.is_wanted = is_wanted
        self._asked: Any = None
        self._told = ""
        self._run, machine.run = machine.run, self.run
        self._act, machine.action = machine.action, self.action
        self._render, machine._render_img = machine._render_img, self.render
        machine.check_interrupt = self.check_interrupt

    def run(self) -> None:
        """Renders for as long as there is a tab."""
        machine = self.machine
        while machine.running and self.is_wanted():
            try:
                self._run()
            except Exception as error:  # whatever it was, the next picture may be fine
                if machine.running and self.is_wanted() and str(error) != self._told:
                    self._told = str(error)
                    CONSOLE.print(f"[yellow]Viewer: a picture failed, {type(error).__name__}: {escape(str(error))}")
                time.sleep(MOVING_SECONDS)
                machine.state = "low_static"

    def action(self, action: Any) -> None:
        """Asks for a picture; what was asked for and never rendered is asked for again where the host sees no need."""
        if action.action == "static":
            action = self._asked or action
        elif action.action != "step":
            self._asked = action
        try:
            self._act(action)
        except AttributeError:  # the thread has taken the last request between two looks at it
            self.machine.next_action = action
            self.machine.render_trigger.set()

    def render(self, camera: Any) -> Any:
        """Renders a picture."""
        if self._asked is not None and self._asked.camera_state is camera:
            self._asked = None
        try:
            return self._render(camera)
        except IOChangeException:
            # What ended it may have been rendered before: the host would take this one for shown, and ask no more.
            if self.machine.state == "high":
                self.machine.state = "low_static"
            raise

    def check_interrupt(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Ends a picture that is not wanted any more, as the host's does, at any line but those that end the tracing.

        From there the thread would go on being traced, and be ended at a line that gives the lock back.
        """
        if frame.f_code is SetTrace.__exit__.__code__:
            return None
        if event == "line" and self.machine.interrupt_render_flag:
            self.machine.interrupt_render_flag = False
            raise IOChangeException
        return self.check_interrupt
