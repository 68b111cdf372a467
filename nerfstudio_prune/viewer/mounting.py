"""Puts the panel into Nerfstudio's viewer. All that is known of the host's viewer is here."""

import contextlib
import threading
from typing import Any

import numpy as np
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.control_panel import ControlPanel
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from viser import ClientHandle
from viser.transforms import SO3

from nerfstudio_prune.viewer.panel import PrunePanel
from nerfstudio_prune.viewer.scene_view import SceneView
from nerfstudio_prune.viewer.session import PrunedPipeline, Session, TrainingState

CPU_MAX_RES = 128
"""Pixels of a still at first on a CPU, where the host's 512 take about a minute."""


def mount_panel(viewer: Viewer, pipeline: PrunedPipeline) -> PrunePanel:
    """Adds the folder to the control tab, and lets the viewer render through a `SceneView`.

    Args:
        viewer: The viewer, as far as it stands when it looks for controls.
        pipeline: The pipeline it shows.
    """
    lock = viewer.train_lock if viewer.train_lock is not None else threading.Lock()

    def training() -> TrainingState:
        return "none" if viewer.trainer is None else viewer.trainer.training_state

    model: Any = pipeline.subject.model
    session = Session(pipeline, lock, training, lambda: viewer.step)
    scene = SceneView(model, viewer.control_panel, session.before)

    def rerender() -> None:
        # A tab that comes or goes is in one of the host's lists and not in the other.
        with contextlib.suppress(KeyError, AssertionError):
            viewer._trigger_rerender()

    with _control_tab(viewer):
        panel = PrunePanel(viewer.viser_server.gui, session, scene, rerender)
    # Only now, so that a viewer that the panel does not fit into stays as it was.
    viewer.get_model = lambda: scene  # type: ignore[method-assign,assignment,return-value]
    _keep_alive(viewer)
    _split_with_before(viewer.control_panel)
    _start_at_a_photo(viewer, pipeline)
    if model.device.type == "cpu":
        viewer.control_panel._max_res.value = CPU_MAX_RES
    panel.start()
    return panel


def _start_at_a_photo(viewer: Viewer, pipeline: PrunedPipeline) -> None:
    """New tabs look from beside the first training camera: where the host puts them may be inside of the scene."""
    dataset = pipeline.datamanager.train_dataset
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


def _split_with_before(control_panel: ControlPanel) -> None:
    """Lets the other half of a split screen show `rgb_before` until a person chooses something else.

    With every new tab the host sets it to the last of the outputs.
    """
    update: Any = control_panel.update_output_options

    def updated(options: list[str]) -> None:
        chosen = control_panel.split_output_render
        update(options)
        control_panel._split_output_render.value = chosen if chosen in options else "rgb_before"

    control_panel.update_output_options = updated  # type: ignore[method-assign]


def _keep_alive(viewer: Viewer) -> None:
    """Lets the training survive a tab that comes or goes while the host looks through its lists of tabs.

    The trainer goes on after a RuntimeError of the viewer, and after nothing else.
    """
    update_scene: Any = viewer.update_scene

    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            update_scene(*args, **kwargs)
        except (KeyError, AssertionError) as error:
            CONSOLE.log(f"Viewer: a tab came or went ({type(error).__name__})")
            raise RuntimeError("a tab came or went") from error

    viewer.update_scene = guarded  # type: ignore[method-assign]
