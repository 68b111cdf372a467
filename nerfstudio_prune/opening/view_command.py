"""`ns-prune view`: a file in the browser."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class View:
    """Look at a file of ns-prune export in the browser: walk through its scene, without run, data or Nerfstudio. Ends
    with Ctrl+C."""

    file: tyro.conf.Positional[Path]
    """The .safetensors file."""
    port: int = 7007
    """Port to listen at; the next free one if it is taken."""
    host: str = "127.0.0.1"
    """Address to listen on. The default is reached from this machine only; 0.0.0.0 from everywhere."""
    resolution: int = 512
    """Height of the sharpest picture in pixels, which is there when the camera has rested for long enough."""
    seconds: float = 0.2
    """What a picture may take while the camera moves; its resolution follows from that."""

    def main(self) -> None:
        """Opens the viewer, and shows until it is interrupted.

        Raises:
            ValueError: If the file cannot be read, there is no such address or port, or an option is out of its range.
        """
        # It imports torch, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.opening.viewing import view  # noqa: PLC0415

        view(self)
