"""Who comes in at the viewer's server, and what they may say. All that is known of viser's connections is here."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Optional

import numpy as np
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from viser import ViserServer
from viser._messages import GuiUpdateMessage, ViewerCameraMessage

from nerfstudio_prune.core.plain import shown

Check = Callable[[Any], None]
"""Raises a ValueError that says what is wrong with a value."""
PATIENCE = 10.0
"""Seconds for the server's own thread to take notice."""
MOST_TOLD = 5
"""Pages that were turned away are told of on the console, but not endlessly."""


def addresses(server: ViserServer) -> list[str]:
    """What the server really listens on, whatever name it was given."""
    return [socket.getsockname()[0] for socket in _websockets(server).sockets]


def share_url(server: ViserServer) -> Optional[str]:
    """Share link to the server; empty while it is being made, None if there is none."""
    tunnel = server._share_tunnel
    return None if tunnel is None else tunnel.get_url() or ""


def is_up(server: ViserServer) -> bool:
    """Whether the server has not been stopped."""
    return server._websock_server._ws_server is not None


def _websockets(server: ViserServer) -> Any:
    found = server._websock_server._ws_server
    assert found is not None
    return found


def is_pose(camera: ViewerCameraMessage) -> bool:
    """Whether a camera can be rendered with; the host's thread that renders would end, and hold a lock of viser's."""
    parts = (camera.wxyz, camera.position, camera.look_at, camera.up_direction, (camera.fov, camera.aspect))
    try:
        arrays = [np.array(part, dtype=float) for part in parts]
    except (TypeError, ValueError):
        return False
    shaped = [array.shape for array in arrays] == [(4,), (3,), (3,), (3,), (2,)]
    return shaped and bool(np.isfinite(np.concatenate(arrays)).all() and arrays[0].any() and (arrays[-1] > 0).all())


class Gate:
    """Stands before a server that runs already; who came in before that has to come again.

    Args:
        server: The server.
        may_open: Says whether a connection with these headers Origin and Host is welcome.
    """

    def __init__(self, server: ViserServer, may_open: Callable[[Sequence[str], Sequence[str]], bool]) -> None:
        self.server = server
        self.may_open = may_open
        self.complain: Callable[[str], None] = lambda text: None
        """Takes what was wrong with something that arrived."""
        self._checks: dict[str, tuple[Any, Check]] = {}
        self._gone: set[int] = set()
        self._connections: dict[Any, Any] = {}
        self._told: set[str] = set()
        inner = server._websock_server
        self._handle, inner._handle_incoming_message = inner._handle_incoming_message, self._received
        inner.on_client_connect(self._connected)
        self._in_its_thread(self._close_doors)

    def guard(self, element: Any, check: Check) -> None:
        """Lets through only values of an element that pass a check, and nothing else that is said of it.

        Args:
            element: An element of the server's `gui`.
            check: The check.
        """
        self._checks[element._impl.id] = (element, check)

    def _in_its_thread(self, work: Callable[[], None]) -> None:
        loop, done = self.server._websock_server._broadcast_buffer.event_loop, threading.Event()
        loop.call_soon_threadsafe(lambda: (work(), done.set()))
        if not done.wait(PATIENCE):
            raise TimeoutError("the viewer's server does not answer")

    def _close_doors(self) -> None:
        websockets = _websockets(self.server)
        register = websockets.register

        def registered(connection: Any) -> None:
            self._watch(connection)
            register(connection)

        websockets.register = registered
        for connection in list(websockets.websockets):
            connection.transport.abort()

    def _watch(self, connection: Any) -> None:
        """Looks at the headers of a connection before it is one, and at its end however that comes."""
        process_request, handle = connection.process_request, connection.ws_handler

        async def asked(path: str, headers: Any) -> Any:
            origins = headers.get_all("Origin")
            if "upgrade" in headers and not self.may_open(origins, headers.get_all("Host")):
                self._tell_once(", ".join(origins))
                return HTTPStatus.FORBIDDEN, [], b"This page may not open the viewer.\n"
            return await process_request(path, headers)

        async def served(websocket: Any) -> None:
            task = asyncio.current_task()
            try:
                await handle(websocket)
            except Exception as error:  # bytes that are no message
                self.complain(f"a connection was closed, it sent what is no message: {str(error)[:80]}")
            finally:
                client = self._connections.pop(task, None)
                if client is not None:
                    self._see_off(client)

        connection.process_request, connection.ws_handler = asked, served

    def _tell_once(self, origin: str) -> None:
        origin = origin[:80]
        if origin not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(origin)
            CONSOLE.print(f"[yellow]Viewer: a page of {escape(origin)} was turned away, it is not the viewer's own")

    def _connected(self, client: Any) -> None:
        self._connections[asyncio.current_task()] = client
        handle = client._handle_incoming_message

        def received(client_id: int, message: Any) -> None:
            if client_id in self._gone or (isinstance(message, ViewerCameraMessage) and not is_pose(message)):
                return
            handle(client_id, message)
            # The first message makes a tab of it. Where the tab has gone meanwhile, nobody would notice any more.
            if client_id in self._gone:
                self._see_off(client)

        client._handle_incoming_message = received

    def _see_off(self, client: Any) -> None:
        """Lets everybody know that a client has gone; those who know it already do nothing."""
        self._gone.add(client.client_id)
        inner = self.server._websock_server
        for callback in inner._client_disconnect_cb:
            callback(client)
        inner._client_state_from_id.pop(client.client_id, None)

    def _received(self, client_id: Any, message: Any) -> None:
        if client_id not in self.server.get_clients():
            return
        if isinstance(message, GuiUpdateMessage) and not self._passes(message):
            return
        try:
            self._handle(client_id, message)
        except (KeyError, AssertionError):
            # The server looks through one list of tabs and up in another.
            if client_id in self.server.get_clients():
                raise

    def _passes(self, message: GuiUpdateMessage) -> bool:
        """Whether an update of an element may be handed on; says why not, and to the pages what holds instead."""
        if not isinstance(message.id, str) or not isinstance(message.updates, Mapping):
            self.complain("an update that names no element or no values was ignored")
            return False
        if message.id not in self._checks:
            return True
        element, check = self._checks[message.id]
        try:
            if set(message.updates) != {"value"}:
                raise ValueError(f"only values can be set from a page, got {shown(list(message.updates))}")
            check(message.updates["value"])
        except ValueError as error:
            self.complain(str(error))
            if not element._impl.is_button:
                self.server._websock_server.queue_message(GuiUpdateMessage(message.id, {"value": element.value}))
            return False
        return True
