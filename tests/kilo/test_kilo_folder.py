"""The folder in the viewer: what it tells of a run, and that what a person changes there stays in the viewer."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.scripts.render import DatasetRender
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.viewer.viewer import Viewer
from PIL import Image
from support.browser import free_port
from support.fakes import FakeGui, FakeScreen
from support.tiny_kilo import DISTIL, FINETUNE
from support.tiny_run import start

from nerfstudio_prune.kilo.folder import PASS, THRESHOLD, KiloFolder
from nerfstudio_prune.kilo.outputs import FURTHER
from nerfstudio_prune.viewer.chosen_view import ChosenView
from nerfstudio_prune.viewer.folder_panel import FolderPanel
from nerfstudio_prune.viewer.scene_view import NOTHING_KEPT

Make = Callable[..., Any]
ALWAYS = ["rgb", "depth", "accumulation"]


class Screen(FakeScreen):
    """Shows one output, or two."""

    def show(self, left: str, right: str = "") -> None:
        """Chooses them."""
        self.output_render, self.split_output_render, self.split = left, right or left, bool(right)


@pytest.fixture
def watched(make: Make) -> Iterator[tuple[Any, FolderPanel]]:
    """A trainer with the host's own viewer and a real server, and the folder."""
    config = make(grid__resolution=2)
    config.vis = "viewer"
    config.viewer.websocket_host, config.viewer.websocket_port = "127.0.0.1", free_port()
    config.viewer.quit_on_train_completion = True
    trainer = start(config)
    panel = trainer.pipeline.folder_mount.panel
    try:
        yield trainer, panel
    finally:
        panel.stop()
        trainer.viewer_state.viser_server.stop()


def at_each_step(trainer: Any, function: Callable[[int], None]) -> None:
    """Lets something happen at the end of each step."""

    def run(step: int, location: Any) -> None:
        if location.name == "AFTER_TRAIN_ITERATION":
            function(step)

    trainer.callbacks.append(SimpleNamespace(run_callback_at_location=run))


def test_a_run_from_its_beginning_to_its_end(watched: tuple[Any, FolderPanel], tmp_path: Path) -> None:
    """With the teacher in the first phase, without it in the second and in `ns-viewer`, with names that do not change
    under the eyes of a person: the host would go back to its first output. What is changed in the folder acts on the
    next picture, and neither on the training nor on what is measured in it."""
    trainer, panel = watched
    panel.stop()
    pipeline, viewer, view = trainer.pipeline, trainer.viewer_state, panel.view
    assert viewer.get_model() is view and pipeline.folder_mount.mounted
    assert viewer.control_panel._max_res.value == panel.folder.cpu_still
    camera = pipeline.datamanager.train_dataset.cameras[0:1]
    screen = view.screen = Screen()
    config, names, told, teachers = pipeline.model.config, [], [], []

    def look(step: int) -> None:
        screen.show("teacher", "difference")
        with torch.no_grad():
            view.eval()
            shown = view.get_outputs_for_camera(camera)
            view.train()
        names.append(list(shown))
        teachers.append(not bool((shown["teacher"] == NOTHING_KEPT).all()))
        assert bool((shown["networks"] == NOTHING_KEPT).all()) and bool((shown["difference"] > 0).any()) == teachers[-1]
        viewer.step = step
        panel.tick()
        told.append(panel.text.content)

    at_each_step(trainer, look)
    ((_, threshold), (_, samples)) = panel.elements
    threshold.value, samples.value = 0.3, 1
    panel._on_change()
    trainer.train()
    assert all(found == [*ALWAYS, *FURTHER] for found in names)
    # The last step of the first phase is still one with the teacher.
    assert teachers == [True] * DISTIL + [False] * FINETUNE
    assert told[0].startswith(f"**distil**, step 1 of {DISTIL}\n")
    assert told[-1].startswith(f"**finetune**, step {FINETUNE} of {FINETUNE}\n")
    for text in (f"| {pipeline.model.networks.num_parameters:,} |", "samples/ray", " ms, 24 x 24 |"):
        assert text in told[-1]
    assert pipeline.model.config is config and config.transmittance_threshold == 0.01
    assert config.samples_per_pass is None and view.frame is not None
    counts = pipeline.model.eval().get_outputs_for_camera(camera).counts.float()
    assert 0 < view.frame.measured.samples <= float(counts.mean()) < float(counts.max())

    found: Any = eval_setup(trainer.base_dir / "config.yml", test_mode="test")
    loaded, other, _, step = found
    loaded.viewer.websocket_host, loaded.viewer.websocket_port = "127.0.0.1", free_port()
    viewer = Viewer(loaded.viewer, tmp_path / "log.txt", tmp_path, other, train_lock=threading.Lock(), share=False)
    finished = other.folder_mount.panel
    try:
        finished.stop()
        viewer.update_scene(step=step)
        finished.tick()
        assert finished.text.content.startswith(f"**trained**, step {DISTIL + FINETUNE - 1}\n")
        finished.view.screen = screen
        screen.show("networks")
        shown = finished.view.get_outputs_for_camera(camera)
        assert list(shown) == [*ALWAYS, "networks", "samples", "error"]
        assert not bool((shown["networks"] == NOTHING_KEPT).any())
    finally:
        finished.stop()
        viewer.viser_server.stop()

    # As `ns-export pointcloud` makes points: where rays that meet something end, in the mean, is among the cells.
    with torch.no_grad():
        rays, _ = other.datamanager.next_train(0)
        found = other.model(rays)
    rgba, places = other.model.get_rgba_image(found, "rgb"), rays.origins + rays.directions * found["depth"]
    low, high = other.model.cells.live.grid.aabb
    seen = rgba[..., -1] > 0.01
    assert bool(seen.any()) and bool(((places[seen] >= low) & (places[seen] <= high)).all())

    # The same run by `ns-render`, which asks for outputs by name, and finds that there is no teacher.
    render = DatasetRender(
        load_config=trainer.base_dir / "config.yml",
        output_path=tmp_path / "pictures",
        rendered_output_names=["rgb", "networks", "samples", "error", "raw-samples"],
        image_format="png",
    )
    render.main()
    pictures = {path.parent.name: np.asarray(Image.open(path)) for path in (tmp_path / "pictures").rglob("*.png")}
    assert pictures.keys() == {"rgb", "networks", "samples", "error"}
    assert all(picture.shape == (24, 24, 3) and picture.std() > 0 for picture in pictures.values())
    render.rendered_output_names = ["teacher"]
    with pytest.raises(SystemExit):
        render.main()


def test_the_folder_without_a_run(make: Make) -> None:
    """Before there are networks it says so; a value that an element does not offer changes nothing, and is told; what
    cannot be rendered costs the viewer its picture of that, and not the thread."""
    pipeline: Any = make(model__transmittance_threshold=0.7).pipeline.setup(device="cpu", test_mode="val")
    folder, screen = KiloFolder(pipeline.model.eval(), lambda: None), Screen()
    view, drawn = ChosenView(folder, screen, trains=False), []
    panel = FolderPanel(FakeGui(), folder, view, lambda: (7, "none"), lambda: drawn.append(1))
    panel.tick()
    assert panel.text.content == "no networks yet"
    ((field, threshold), (_, samples)) = panel.elements
    # What the run has lies on the slider, wherever it is.
    assert (threshold.label, threshold.value, samples.label, samples.value) == (THRESHOLD, 0.7, PASS, 0)
    threshold.act(0.2)
    samples.act(4)
    changed = folder.stand_in(view.values)
    assert (changed.config.transmittance_threshold, changed.config.samples_per_pass) == (0.2, 4) and len(drawn) == 2
    assert pipeline.model.config.transmittance_threshold == 0.7 and changed.networks is pipeline.model.networks
    for nonsense in (float("nan"), -1, 2, "x", None):
        with pytest.raises(ValueError, match=r"transmittance threshold must be a number in \[0, 0\.7\]"):
            field.check(nonsense)
    threshold.act(-1.0)
    panel.tick()
    assert "transmittance threshold must be" in panel.text.content.replace("\\", "") and view.values[THRESHOLD] == 0.2
    threshold.act(0.0)
    panel.tick()
    assert panel.text.content == "no networks yet" and view.values == {THRESHOLD: 0.0, PASS: 4}

    class Broken:
        """Outputs of which one is too large."""

        counts = torch.zeros(1, 1, 1, dtype=torch.long)

        def __iter__(self) -> Iterator[str]:
            return iter((*ALWAYS, "networks", "samples"))

        def __contains__(self, name: object) -> bool:
            return True

        def __getitem__(self, name: str) -> torch.Tensor:
            if name == "networks":
                raise RuntimeError("out of memory")
            return torch.ones(1, 1, 3)

    folder.stand_in = lambda values: SimpleNamespace(  # type: ignore[method-assign,assignment,return-value]
        device=torch.device("cpu"), get_outputs_for_camera=lambda camera, obb_box: Broken()
    )
    folder.measured = lambda outputs: None  # type: ignore[method-assign,assignment,return-value]
    screen.show("networks")
    camera = pipeline.datamanager.train_dataset.cameras[0:1]
    assert view.get_outputs_for_camera(camera)["networks"].tolist() == [[[NOTHING_KEPT] * 3]]
    assert view.failure == "networks: out of memory"
    screen.show("rgb")
    view.get_outputs_for_camera(camera)
    assert view.failure == ""
