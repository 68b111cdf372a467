"""What the viewer renders of a model with many outputs: those that are on the screen, and what all pictures need."""

from collections.abc import Mapping
from typing import Any, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from nerfstudio_prune.engine.host import seconds_now
from nerfstudio_prune.engine.threads import follow_training
from nerfstudio_prune.viewer.folder import Folder, Frame
from nerfstudio_prune.viewer.scene_view import NOTHING_KEPT, Screen, on_screen


class ChosenView:
    """Stands in for the model in the viewer, and only there.

    Outputs that cost something are looked up when the viewer shows them, with the trainer's lock held, and are filled
    with one value otherwise. So are those that the model does not have at the time: the viewer resets its choice when
    the names of the outputs change, and a second tab that still holds the old ones would fail.

    Args:
        folder: What the method offers.
        screen: What the viewer shows.
        trains: Whether there is a training.
    """

    def __init__(self, folder: Folder, screen: Screen, trains: bool) -> None:
        self.folder = folder
        self.screen = screen
        self.further = folder.further(trains)
        """Name of each output that costs something -> its channels."""
        self.values: Mapping[str, Any] = {field.name: field.value for field in folder.fields()}
        """What a person chose."""
        self.frame: Optional[Frame] = None
        """The last picture; None if there was none."""
        self.failure = ""
        """Why an output could not be rendered; empty if it could, or was not asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.folder.model, name)

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> dict[str, Tensor]:
        """Renders an image; called by the viewer with the trainer's lock held.

        Args:
            camera: A single camera.
            obb_box: Box that the scene is cropped to.

        Returns:
            Name of the output -> [height, width, channels], always of the same names.
        """
        model, shown = self.folder.stand_in(self.values), on_screen(self.screen)
        if model.device.type == "cpu":
            # Both belong to the thread, and this is one of the viewer's.
            torch.set_flush_denormal(True)
            follow_training()
        start = seconds_now(model.device)
        outputs = model.get_outputs_for_camera(camera, obb_box=obb_box)
        seconds = seconds_now(model.device) - start
        found = {name: outputs[name] for name in outputs if name not in self.further}
        rgb, failure = found["rgb"], ""
        for name, channels in self.further.items():
            grey, nothing = torch.full_like(rgb, NOTHING_KEPT), torch.zeros_like(rgb[..., :1])
            found[name] = nothing if channels == 1 else grey
            if name in shown and name in outputs:
                try:
                    found[name] = outputs[name]
                except RuntimeError as error:  # out of memory, say; the viewer's thread would end, and its picture
                    failure = f"{name}: {error}"
        self.failure = failure
        height, width = rgb.shape[:2]
        self.frame = Frame(width, height, seconds, self.folder.measured(outputs))
        return found
