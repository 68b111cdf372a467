"""Puts the panel into Nerfstudio's viewer. All that is known of the host's viewer is here."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.control_panel import ControlPanel
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from rich.markup import escape
from viser import ClientHandle
from viser.transforms import SO3

from nerfstudio_prune.viewer.access import is_loopback, may_open, notice, why_closed
from nerfstudio_prune.viewer.chosen_view import ChosenView
from nerfstudio_prune.viewer.folder import Folder
from nerfstudio_prune.viewer.folder_panel import FolderPanel
from nerfstudio_prune.viewer.gate import Gate, addresses, share_url
from nerfstudio_prune.viewer.panel import PrunePanel
from nerfstudio_prune.viewer.scene_view import SceneView
from nerfstudio_prune.viewer.session import PrunedPipeline, Session, TrainingState
from nerfstudio_prune.viewer.tabs import MOVING_SECONDS, Tabs
from nerfstudio_prune.viewer.turns import FairLock

LEAST_REST, MOST_REST = 0.1, 1.0
"""Seconds that the training leaves to a moving camera after a step: as many as the step took, within these bounds."""


def mount_panel(viewer: Viewer, pipeline: PrunedPipeline) -> PrunePanel:
    """Adds the folder to the control tab, and lets the viewer render through a `SceneView`.

    Args:
        viewer: The viewer, as far as it stands when it looks for controls.
        pipeline: The pipeline it shows.
    """
    server, listens_on = viewer.viser_server, addresses(viewer.viser_server)

    def closed() -> str:
        return why_closed(pipeline.options.panel, listens_on, share_url(server) is not None)

    def welcome(origins: Sequence[str], hosts: Sequence[str]) -> bool:
        local = pipeline.options.panel == "auto" and all(map(is_loopback, listens_on))
        return may_open(origins, hosts, local, share_url(server))

    gate = Gate(server, welcome)
    subject = pipeline.subject
    model: Any = subject.model
    session = Session(pipeline, _take_turns(viewer), lambda: _training(viewer), lambda: viewer.step, closed)
    scene = SceneView(
        model, viewer.control_panel, session.before, subject.further_outputs, session.pictures, subject.stand_in
    )
    with _control_tab(viewer):
        panel = PrunePanel(server.gui, session, scene, lambda: _rerender(viewer))
    gate.complain = panel.complain
    for element, check in panel.checks():
        gate.guard(element, check)
    # Only now, so that a viewer that the panel does not fit into stays as it was.
    viewer.get_model = lambda: scene  # type: ignore[method-assign,assignment,return-value]
    _keep_alive(viewer)
    _keep_training(viewer, lambda: pipeline.steering is not None and bool(pipeline.steering.waiting))
    _split_with(viewer.control_panel, "rgb_before")
    _start_at_a_photo(viewer, pipeline.datamanager)
    if model.device.type == "cpu":
        viewer.control_panel._max_res.value = subject.cpu_still
    backdrop = subject.backdrop()
    if backdrop is not None:
        red, green, blue = (round(255 * float(channel)) for channel in backdrop)
        viewer.control_panel.background_color = (red, green, blue)
    if viewer.trainer is not None:
        told = notice(pipeline.options.panel, listens_on, share_url(server) is not None, server.get_port())
        if told:
            CONSOLE.print(f"[yellow]{escape(told)}", soft_wrap=True)
    panel.start()
    return panel


def mount_folder(viewer: Viewer, folder: Folder, datamanager: Any) -> FolderPanel:
    """Adds a folder of a method that is not steered to the control tab, and lets the viewer render what it offers.

    Args:
        viewer: The viewer, as far as it stands when it looks for controls.
        folder: The folder.
        datamanager: The host's data manager.
    """
    server = viewer.viser_server
    local = all(map(is_loopback, addresses(server)))
    gate = Gate(server, lambda origins, hosts: may_open(origins, hosts, local, share_url(server)))
    _take_turns(viewer)
    view = ChosenView(folder, viewer.control_panel, viewer.trainer is not None)
    with _control_tab(viewer):
        panel = FolderPanel(
            server.gui, folder, view, lambda: (viewer.step, _training(viewer)), lambda: _rerender(viewer)
        )
    gate.complain = panel.complain
    for element, check in panel.checks():
        gate.guard(element, check)
    # As above, when all else is there.
    viewer.get_model = lambda: view  # type: ignore[method-assign,assignment,return-value]
    _keep_alive(viewer)
    _keep_training(viewer, lambda: False)
    _split_with(viewer.control_panel, folder.split)
    _start_at_a_photo(viewer, datamanager)
    if folder.model.device.type == "cpu":
        viewer.control_panel._max_res.value = folder.cpu_still
    panel.start()
    return panel


def _training(viewer: Viewer) -> TrainingState:
    return "none" if viewer.trainer is None else viewer.trainer.training_state


def _rerender(viewer: Viewer) -> None:
    # A tab that comes or goes is in one of the host's lists and not in the other.
    with contextlib.suppress(KeyError, AssertionError):
        viewer._trigger_rerender()


def _take_turns(viewer: Viewer) -> FairLock:
    """A lock that neither a picture nor the training can keep from the other, in place of the host's."""
    lock = FairLock()
    viewer.train_lock = lock  # type: ignore[assignment]
    if viewer.trainer is not None:
        viewer.trainer.train_lock = lock  # type: ignore[assignment]
    return lock


def _start_at_a_photo(viewer: Viewer, datamanager: Any) -> None:
    """New tabs look from beside the first training camera: where the host puts them may be inside of the scene."""
    dataset = datamanager.train_dataset
    if dataset is None or len(dataset) == 0:
        return
    pose = dataset.cameras.camera_to_worlds[0].cpu().double().numpy()
    # So far to its right that its own picture is not in the way.
    position = pose[:, 3] + 2 * viewer.config.camera_frustum_scale * pose[:, 0]
    turn = SO3.from_matrix(pose[:, :3]) @ SO3.from_x_radians(np.pi)

    @viewer.viser_server.on_client_connect
    def _(client: ClientHandle) -> None:
        with client.atomic():
            client.camera.position = position * VISER_NERFSTUDIO_SCALE_RATIO
            client.camera.wxyz = turn.wxyz


def _control_tab(viewer: Viewer) -> Any:
    """The tab that the host's own controls are in, as a context."""
    element = viewer.control_panel._train_speed.gui_handle
    assert element is not None
    return viewer.viser_server.gui._container_handle_from_id[element._impl.parent_container_id]


def _split_with(control_panel: ControlPanel, name: str) -> None:
    """Lets the other half of a split screen show an output until a person chooses something else.

    With every new tab the host sets it to the last of the outputs.

    Args:
        control_panel: The host's controls.
        name: The output.
    """
    update: Any = control_panel.update_output_options

    def updated(options: list[str]) -> None:
        chosen = control_panel.split_output_render
        update(options)
        control_panel._split_output_render.value = chosen if chosen in options else name

    control_panel.update_output_options = updated  # type: ignore[method-assign]


def _keep_alive(viewer: Viewer) -> None:
    """Lets viewer and training survive a tab that comes or goes while the host looks through its lists of tabs."""
    server = viewer.viser_server
    with server._client_lock:  # under which tabs come
        viewer.render_statemachines = Tabs(server, viewer.render_statemachines)


class _Still:
    """The viewer as it is while the camera stands still."""

    last_move_time = 0.0

    def __init__(self, viewer: Viewer) -> None:
        object.__setattr__(self, "_viewer", viewer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._viewer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._viewer, name, value)


def _keep_training(viewer: Viewer, asked: Callable[[], bool]) -> None:
    """Lets the training go on while the camera moves; the host waits, after every step, until it stands still.

    The trainer goes on after a RuntimeError of the viewer, and after nothing else.

    Args:
        viewer: The viewer.
        asked: Whether a person waits for something that only the trainer can do.
    """
    update_scene: Any = type(viewer).update_scene
    end = time.monotonic()

    def updated(step: int, num_rays_per_batch: Optional[int] = None) -> None:
        nonlocal end
        seconds = min(max(time.monotonic() - end, LEAST_REST), MOST_REST)
        rest = time.monotonic() + seconds
        while viewer.render_statemachines and not asked() and time.monotonic() < rest:
            if time.time() - viewer.last_move_time >= MOVING_SECONDS:
                break
            time.sleep(0.01)
        try:
            update_scene(_Still(viewer), step, num_rays_per_batch)
        except Exception as error:  # a training is worth more than its viewer
            CONSOLE.log(f"Viewer: {type(error).__name__}: {escape(str(error))}")
            raise RuntimeError(f"the viewer failed: {error}") from error
        finally:
            end = time.monotonic()

    viewer.update_scene = updated  # type: ignore[method-assign]
