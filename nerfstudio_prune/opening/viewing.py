"""A file in the browser: viser's page, and what it is shown. No Nerfstudio."""

import socket
import threading
import time
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from viser import ClientHandle, ViserServer

from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.opening.cameras import first_look, pose_of
from nerfstudio_prune.opening.refining import Pictures
from nerfstudio_prune.opening.view_command import View

OUTPUTS = ("rgb", "depth", "accumulation")
MAX_PORT = 2**16 - 1
LOCAL = ("127.0.0.1", "0.0.0.0")
"""Addresses that are reached at localhost."""
LEAST_RESOLUTION, MOST_RESOLUTION = 64, 2048
"""Rows of the sharpest picture."""
JPEG = 90
"""Quality of the pictures that pages are sent, of 100."""


class FileViewer:
    """A server that shows a file to all pages that open it.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `View.main`.
    """

    def __init__(self, options: View) -> None:
        _check(options)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = load_exported(options.file).to(self.device)
        self.pictures = Pictures(self._render, options.resolution, options.seconds)
        self.server = ViserServer(options.host, options.port, verbose=False)
        self.server.gui.configure_theme(dark_mode=True, show_logo=False)
        self.server.scene.set_up_direction("+z")
        self._add_elements(options)
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(lambda client: self.pictures.leave(client.client_id))
        self.worker = threading.Thread(target=self.pictures.run, daemon=True)
        self.worker.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.get_port()

    def stop(self) -> None:
        """Closes the server; pages are told."""
        self.pictures.stop()
        self.worker.join(timeout=10)
        self.server.stop()

    def _add_elements(self, options: View) -> None:
        metadata, gui = self.network.metadata, self.server.gui
        size = options.file.stat().st_size
        gui.add_markdown(f"{size:,} bytes, {metadata.parameters:,} parameters, step {metadata.step:,}")
        self._output = gui.add_dropdown("Output", OUTPUTS)
        resolution = gui.add_slider(
            "Rows at most", LEAST_RESOLUTION, MOST_RESOLUTION, step=1, initial_value=options.resolution
        )
        self._output.on_update(lambda _: self.pictures.again(self.pictures.most))
        resolution.on_update(lambda _: self.pictures.again(_rows(resolution.value, self.pictures.most)))

    def _connected(self, client: ClientHandle) -> None:
        camera = client.camera
        camera.position, camera.look_at = first_look(self.network.metadata)
        camera.on_update(lambda _: self._look(client))
        self._look(client)

    def _look(self, client: ClientHandle) -> None:
        pose = pose_of(client.camera)
        if pose is not None:
            self.pictures.look(client.client_id, pose, lambda picture: _send(client, picture))

    def _render(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> Float[Tensor, "rays channels"]:
        found = self.network(origins.to(self.device), directions.to(self.device))
        # Whatever a page says that it has chosen.
        return found[self._output.value if self._output.value in OUTPUTS else OUTPUTS[0]]


def view(options: View) -> None:
    """Shows a file until it is interrupted.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `View.main`.
    """
    viewer = FileViewer(options)
    name = "localhost" if options.host in LOCAL else options.host
    print(f"{options.file} is shown at http://{name}:{viewer.port}. Ctrl+C ends it.", flush=True)
    try:
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
    finally:
        viewer.stop()


def _check(options: View) -> None:
    if not 1 <= options.port <= MAX_PORT:
        raise ValueError(f"--port must be in [1, {MAX_PORT}], got {options.port}")
    if not LEAST_RESOLUTION <= options.resolution <= MOST_RESOLUTION:
        raise ValueError(f"--resolution must be in [{LEAST_RESOLUTION}, {MOST_RESOLUTION}], got {options.resolution}")
    if not 0.01 <= options.seconds <= 60:
        raise ValueError(f"--seconds must be in [0.01, 60], got {options.seconds:g}")
    try:
        # viser would wait for another address for ever.
        family, kind, protocol, _, address = socket.getaddrinfo(options.host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.bind(address)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {options.host!r} is no address of this machine: {error}") from error


def _rows(value: Any, otherwise: int) -> int:
    """Rows of the sharpest picture that a page asks for, if that is a number of rows."""
    fits = isinstance(value, (int, float)) and LEAST_RESOLUTION <= value <= MOST_RESOLUTION
    return int(value) if fits else otherwise


def _send(client: ClientHandle, picture: Float[Tensor, "height width channels"]) -> None:
    """Shows a picture on a page; one channel is grey, from its smallest value to its largest."""
    if picture.shape[-1] == 1:
        low, high = picture.min(), picture.max()
        picture = ((picture - low) / (high - low).clamp(min=1e-9)).expand(-1, -1, 3)
    image = (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()
    with suppress(OSError, RuntimeError):  # it was closed meanwhile
        client.scene.set_background_image(image, format="jpeg", jpeg_quality=JPEG)
