"""Speaks to viser's server as a page does, without a page: what a stranger's script or another site's page can say."""

import socket
import time
from collections.abc import Callable
from typing import Any, Optional

import msgspec
from websockets.sync.client import connect

PATIENCE = 60.0


class RawClient:
    """A connection to a viewer.

    Args:
        port: Where it listens, on 127.0.0.1.
        origin: What the header Origin says; None for no such header.
        host: What the header Host says; None for what it is.
        camera: Whether to say where the camera is, before which the server knows no tab.
    """

    def __init__(
        self, port: int, origin: Optional[str] = None, host: Optional[str] = None, camera: bool = True
    ) -> None:
        # The name in the address becomes the header Host.
        self.socket = connect(
            f"ws://{host or '127.0.0.1'}:{port}",
            sock=socket.create_connection(("127.0.0.1", port)),
            origin=origin,  # type: ignore[arg-type]
            max_size=None,
            compression=None,
        )
        self.messages: list[dict[str, Any]] = []
        """All that has arrived, oldest first."""
        if camera:
            self.move()

    def say(self, kind: str, **values: Any) -> None:
        """Sends a message."""
        self.socket.send(msgspec.msgpack.encode({"type": kind, **values}))

    def move(self, height: float = 0.0) -> None:
        """Says where the camera is."""
        pose = {"wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, height, 40.0)}
        look = {"look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 1.0, 0.0)}
        self.say("ViewerCameraMessage", **pose, **look, fov=0.8, aspect=1.0)

    def set(self, element: Any, value: Any) -> None:
        """Sets an element of the server, or presses it, whatever it is."""
        self.say("GuiUpdateMessage", id=element._impl.id, updates={"value": value})

    def read(self, until: Callable[[], bool]) -> None:
        """Reads what arrives until something holds.

        Raises:
            AssertionError: If it takes too long.
        """
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline
            try:
                self.messages += msgspec.msgpack.decode(bytes(self.socket.recv(timeout=0.05, decode=False)))
            except TimeoutError:
                continue

    def drain(self, seconds: float) -> None:
        """Reads what arrives for some time, and forgets it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self.socket.recv(timeout=left)
            except TimeoutError:
                return

    def close(self) -> None:
        """Leaves."""
        self.socket.close()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
