"""What the viewer renders: the network that is trained or a preview of a cut, and the one from before beside it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Optional, Protocol

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from nerfstudio_prune.core.subject import FurtherOutput, Picture
from nerfstudio_prune.engine.threads import follow_training

NOTHING_KEPT = 0.5
"""Grey that `rgb_before` shows where no network from before is known, and other colours where nothing is."""


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


def on_screen(screen: Screen) -> set[str]:
    """Names of the outputs that the viewer shows.

    Args:
        screen: What it shows.
    """
    return {screen.output_render, screen.split_output_render} if screen.split else {screen.output_render}


class Renderable(Protocol):
    """What renders an image: a model of the host, of whatever method."""

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        ...

    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> dict[str, Tensor]:
        """Name of the output -> [height, width, channels]; `rgb` among them."""
        ...


class Shown(Protocol):
    """A cut that is shown before it is made; a `Preview` is one."""

    @property
    def model(self) -> Any:
        """The model as it would be."""
        ...

    @property
    def pictures(self) -> Mapping[str, Picture]:
        """Further outputs of that cut."""
        ...


def as_it_is(model: Any, background: Optional[Float[Tensor, "3"]]) -> Any:
    """Lets the viewer render a model itself, whatever colour it asks for.

    Args:
        model: The model.
        background: Not used.
    """
    return model


class SceneView:
    """Stands in for the model in the viewer, and only there. The host takes it for a model of its kind.

    Adds the outputs `difference`, the mean absolute difference of the two colours, and `rgb_before`: what the network
    from before the last event shows, or while a preview is on, the network without that cut. They are rendered only
    when the viewer shows them, and are filled with one value otherwise: the viewer resets its choice when the names
    of the outputs change, and a second tab that still holds the old ones would fail. So are those that a subject offers
    further.

    Args:
        model: The model that is trained.
        screen: What the viewer shows.
        before: Gives the network from before the last event, if it is known.
        further: What the subject offers further.
        pictures: Gives those of them that can be drawn while no preview is on.
        stand_in: What is rendered in place of a model, see `Subject.stand_in`.
    """

    def __init__(
        self,
        model: Renderable,
        screen: Screen,
        before: Callable[[], Optional[Renderable]],
        further: Mapping[str, FurtherOutput] = MappingProxyType({}),
        pictures: Callable[[], Mapping[str, Picture]] = dict,
        stand_in: Callable[[Any, Optional[Tensor]], Any] = as_it_is,
    ) -> None:
        self.model = model
        self.screen = screen
        self.before = before
        self.further = further
        self.pictures = pictures
        self.stand_in = stand_in
        self.background: Optional[Tensor] = None
        """Colour that the host asks for behind everything, [3]; None where it asks for none."""
        self.preview: Optional[Shown] = None
        """A cut that is shown in place of the model; None if no preview is on. Set by the panel's thread."""
        self.failure = ""
        """Why the comparison could not be rendered; empty if it could, or was not asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        """What the host asks for where it treats a kind of models in its own way, such as the depth of Gaussians."""
        return type(self.model)

    def set_background(self, background_color: Float[Tensor, "3"]) -> None:
        """Notes the colour that the host wants behind what it shows; the model that is trained keeps its own.

        Args:
            background_color: The colour, [3] in [0, 1].
        """
        self.background = background_color

    def shown(self) -> set[str]:
        """Names of the outputs that are on the screen."""
        return on_screen(self.screen)

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
            # Both belong to the thread, and this is one of the viewer's.
            torch.set_flush_denormal(True)
            follow_training()
        preview, shown, background = self.preview, self.shown(), self.background

        def rendered(model: Any) -> dict[str, Tensor]:
            return self.stand_in(model, background).get_outputs_for_camera(camera, obb_box=obb_box)

        outputs = rendered(self.model if preview is None else preview.model)
        rgb = outputs["rgb"]
        rgb_before, difference = torch.full_like(rgb, NOTHING_KEPT), torch.zeros_like(rgb[..., :1])
        more = {name: difference if kind.channels == 1 else rgb_before for name, kind in self.further.items()}
        wanted = shown & more.keys()
        if not (wanted or shown & {"rgb_before", "difference"}):
            return {**outputs, **more, "difference": difference, "rgb_before": rgb_before}
        try:
            if shown & {"rgb_before", "difference"}:
                other = self.model if preview is not None else self.before()
                if other is not None:
                    rgb_before = rendered(other)["rgb"]
                    difference = (rgb - rgb_before).abs().mean(dim=-1, keepdim=True)
            if wanted:
                known = {**self.pictures(), **({} if preview is None else preview.pictures)}
                for name in wanted & known.keys():
                    more[name] = known[name](camera, obb_box, background)
            self.failure = ""
        except RuntimeError as error:  # out of memory, say; the viewer's thread would end, and its picture with it
            self.failure = str(error)
        return {**outputs, **more, "difference": difference, "rgb_before": rgb_before}
