"""What renders for a tab, with the host's own thread and a model that only notes what it is asked for."""

import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException, SetTrace

from nerfstudio_prune.viewer.tabs import Renderer


def machine() -> Any:
    """The host's thread, not started."""
    viewer: Any = SimpleNamespace(ready=True, get_camera_state=lambda client: "where it is")
    client: Any = SimpleNamespace()
    return RenderStateMachine(viewer, 10.0, client)


def action(kind: Any, camera: Any) -> RenderAction:
    return RenderAction(kind, camera)


def test_picture_is_ended_at_any_line_but_those_that_end_the_tracing() -> None:
    """A camera that moves just when a picture is ready ended it at a line of the host's clean-up: the thread went on
    being traced, and the next movement could end it while it gave the trainer's lock back."""
    found = machine()
    renderer = Renderer(found, lambda: True)

    def render() -> None:
        found.interrupt_render_flag = True
        raise AssertionError("this line comes too late")

    with SetTrace(renderer.check_interrupt):
        found.interrupt_render_flag = True
    assert sys.gettrace() is None
    with pytest.raises(IOChangeException), SetTrace(renderer.check_interrupt):
        render()
    assert sys.gettrace() is None and not found.interrupt_render_flag


def test_request_that_comes_while_another_is_taken_is_not_lost() -> None:
    """The host's thread reads what was asked for, and forgets it a moment later; what is asked for in between is
    forgotten unseen. A preview that was switched off would stay on the screen."""
    found = machine()
    rendered: list[Any] = []
    found._render_img = rendered.append
    found._send_output_to_viewer = lambda outputs, static_render: None
    Renderer(found, lambda: found.running)
    found.state = "high"
    asked, waits = threading.Event(), iter(range(100))

    class Trigger(threading.Event):
        """Called between the two lines of the host."""

        def clear(self) -> None:
            if not asked.is_set():
                asked.set()
                found.action(action("move", "where a person looks"))
            super().clear()

        def wait(self, timeout: Any = None) -> bool:
            if len(rendered) >= 3 or next(waits, None) is None:
                found.running = False
            return super().wait(0.01)

    found.render_trigger = Trigger()
    found.run()
    assert rendered[0] == "where a person looks" and found.state == "high"


def test_picture_that_is_ended_by_a_request_that_was_rendered_before() -> None:
    """Who asks notes the request first, and a moment later that the present picture should end; on a busy machine the
    request may have been rendered by then, and the sharp picture ends that follows it. The host takes it for shown: the
    coarse one would stay until somebody moves."""
    found, rendered = machine(), list[str]()

    def render(camera: Any) -> Any:
        rendered.append(found.state)
        if len(rendered) == 1:
            found.interrupt_render_flag = True
        with SetTrace(found.check_interrupt):
            return outputs(camera)

    def outputs(camera: Any) -> Any:
        return camera

    def send(outputs: Any, static_render: bool) -> None:
        found.running = False

    found._render_img, found._send_output_to_viewer = render, send
    Renderer(found, lambda: found.running)
    waits = iter(range(20))

    def wait(timeout: float) -> bool:
        found.running = found.running and next(waits, None) is not None
        return False

    found.render_trigger.wait = wait  # nobody asks
    found.run()
    assert rendered == ["high", "high"]


def test_request_that_finds_nothing_where_something_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host looks twice at what was asked for last, and between the two looks it may be gone: the error would end
    the training, or leave a lock of viser's held."""
    found = machine()
    found.action = lambda asked: setattr(found, "next_action", None) or found.next_action.action
    Renderer(found, lambda: True)
    wanted = action("step", "here")
    found.action(wanted)
    assert found.next_action is wanted and found.render_trigger.is_set()


def test_a_tab_is_rendered_until_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors are told once, and do not end it; a tab that has gone is not rendered for, and not told of."""
    found, tries = machine(), list[int]()

    def run() -> None:
        tries.append(1)
        found.running = len(tries) < 3
        raise RuntimeError("out of memory")

    found.run = run
    Renderer(found, lambda: True)
    found.run()
    assert len(tries) == 3 and found.state == "low_static"
    assert capsys.readouterr().out.count("a picture failed, RuntimeError: out of memory") == 1
