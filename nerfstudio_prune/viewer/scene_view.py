"""What the viewer renders: the network that is trained or a preview of a cut, and the one from before beside it."""

from collections.abc import Callable
from typing import Any, Optional, Protocol

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

NOTHING_KEPT = 0.5
"""Grey that `rgb_before` shows where no network from before is known."""


class Screen(Protocol):
    """What the viewer shows; its control panel says so."""

    @property
    def output_render(self) -> str:
        """Name of the output that is shown."""
        ...

    @property
    def split_output_render(self) -> str:
        """Name of the output in the other half of a split screen."""
        ...

    @property
    def split(self) -> bool:
        """Whether the screen is split."""
        ...


class Renderable(Protocol):
    """What renders an image: a model of the host, of whatever method."""

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        ...

    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> dict[str, Tensor]:
        """Name of the output -> [height, width, channels]; `rgb` among them."""
        ...


class SceneView:
    """Stands in for the model in the viewer, and only there.

    Adds the outputs `difference`, the mean absolute difference of the two colours, and `rgb_before`: what the network
    from before the last event shows, or while a preview is on, the network without that cut. They are rendered only
    when the viewer shows them, and are filled with one value otherwise: the viewer resets its choice when the names
    of the outputs change, and a second tab that still holds the old ones would fail.

    Args:
        model: The model that is trained.
        screen: What the viewer shows.
        before: Gives the network from before the last event, if it is known.
    """

    def __init__(self, model: Renderable, screen: Screen, before: Callable[[], Optional[Renderable]]) -> None:
        self.model = model
        self.screen = screen
        self.before = before
        self.preview: Optional[Renderable] = None
        """A cut network that is shown in place of the model; None if no preview is on. Set by the panel's thread."""
        self.failure = ""
        """Why the comparison could not be rendered; empty if it could, or was not asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def shown(self) -> set[str]:
        """Names of the outputs that are on the screen."""
        screen = self.screen
        return {screen.output_render, screen.split_output_render} if screen.split else {screen.output_render}

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> dict[str, Tensor]:
        """Renders an image; called by the viewer with the trainer's lock held.

        Args:
            camera: A single camera.
            obb_box: Box that the scene is cropped to.

        Returns:
            Name of the output -> [height, width, channels]. `rgb_before` has 3 channels and `difference` one, all in
            [0, 1].
        """
        if self.model.device.type == "cpu":
            # The flag belongs to the thread, and this is one of the viewer's.
            torch.set_flush_denormal(True)
        preview = self.preview
        outputs = (preview or self.model).get_outputs_for_camera(camera, obb_box=obb_box)
        rgb = outputs["rgb"]
        rgb_before, difference = torch.full_like(rgb, NOTHING_KEPT), torch.zeros_like(rgb[..., :1])
        if self.shown() & {"rgb_before", "difference"}:
            try:
                other = self.model if preview is not None else self.before()
                if other is not None:
                    rgb_before = other.get_outputs_for_camera(camera, obb_box=obb_box)["rgb"]
                    difference = (rgb - rgb_before).abs().mean(dim=-1, keepdim=True)
                self.failure = ""
            except RuntimeError as error:  # out of memory, say; the viewer's thread would end, and its picture with it
                self.failure = str(error)
        return {**outputs, "difference": difference, "rgb_before": rgb_before}
