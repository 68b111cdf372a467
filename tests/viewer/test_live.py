"""The panel on a real trainer and the host's own viewer: previews, what is rendered, robustness. No browser."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from support.browser import free_port
from support.counted_threads import CountedThreads
from support.live import caught_panel, with_panel
from support.raw_client import RawClient
from support.tiny_run import copied_state, form_values, same_bits, start, tiny_widths, widths
from support.waiting import wait_until as wait_for
from websockets.exceptions import InvalidStatus

from nerfstudio_prune.engine.controller import ActionName
from nerfstudio_prune.engine.run import event_seed
from nerfstudio_prune.engine.steering import RequestName
from nerfstudio_prune.engine.threads import Threads
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.viewer import mounting
from nerfstudio_prune.viewer.scene_view import NOTHING_KEPT, SceneView
from nerfstudio_prune.viewer.session import Cut

Config = Callable[..., Any]
wait_until = partial(wait_for, patience=120.0)
HALF = form_values("importance", "w_out", "none", "pruning_ratio", 0.5)
CUTS = {
    "half": HALF,
    "random": form_values("uniform", None, "none", "pruning_ratio", 0.5),
    "refit": form_values("importance", "activation", "lstsq", "pruning_ratio", 0.5),
    "budget": form_values("obs", None, "lstsq", "target_parameters", 0.4),
}


def camera() -> Cameras:
    """A camera of 6 x 5 pixels that looks at the scene."""
    pose = torch.eye(4)[None, :3]
    pose[0, 2, 3] = 4.0
    return Cameras(camera_to_worlds=pose, fx=8.0, fy=8.0, cx=3.0, cy=2.5, width=6, height=5)


def fields_of(model: Any) -> Mapping[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if name.startswith("field_")}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_preview_is_what_pruning_then_gives(tiny_config: Config, cut: Cut) -> None:
    """The promise of the preview: bit for bit the network right after the cut, made without touching the one that is
    trained, its moments, its gradients, the random state or the order of the data."""
    with with_panel(tiny_config("run", start_step=9, min_width=2)) as (trainer, panel):
        pipeline, found = trainer.pipeline, []
        panel.stop()

        def look(step: int) -> None:
            if step != 4:
                return
            before = everything(trainer)
            training = {name: module.training for name, module in pipeline.model.named_modules()}
            trainer.train_lock.release()  # the panel's thread takes it
            try:
                found.append(panel.session.preview(cut))
            finally:
                trainer.train_lock.acquire()
            assert same_bits(before, everything(trainer))
            assert training == {name: module.training for name, module in pipeline.model.named_modules()}
            pipeline.steering.request("prune", cut)
            pipeline.steering.on_step(step)
            found.append(fields_of(pipeline.model))

        trainer.callbacks.append(SimpleNamespace(run_callback_at_location=after_train(look)))
        trainer.train()
        preview, pruned = found
        assert preview.after.costs["parameters"] < preview.before.costs["parameters"]
        shown = fields_of(preview.model)
        assert shown.keys() == pruned.keys()
        assert [name for name in shown if not torch.equal(shown[name], pruned[name])] == []


def after_train(function: Callable[[int], None]) -> Callable[..., None]:
    def run(step: int, location: Any) -> None:
        if location.name == "AFTER_TRAIN_ITERATION":
            function(step)

    return run


def everything(trainer: Any) -> list[Any]:
    """What a training goes on from."""
    optimizer = trainer.optimizers.optimizers["fields"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numpy_state: Any = np.random.get_state()  # noqa: NPY002  the host draws from the global state
    gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
    moments = [deepcopy(dict(optimizer.state[p])) for p in parameters]
    return [copied_state(trainer.pipeline.model), moments, gradients, torch.get_rng_state(), numpy_state[1].tolist()]


def test_training_with_previews_is_the_training_without(tiny_config: Config) -> None:
    """A person who looks must not change what is looked at: with previews, plots and renders in every step the network
    ends bit for bit like that of a run without a viewer."""
    plain = start(tiny_config("plain", start_step=5))
    plain.train()
    with with_panel(tiny_config("watched", start_step=5)) as (trainer, panel):

        def look(step: int) -> None:
            trainer.train_lock.release()
            try:
                preview = panel.session.preview(CUTS["budget"])
                panel.session.quality(preview)
                panel.session.weights()
                with trainer.train_lock:
                    training = trainer.pipeline.model.training
                    trainer.pipeline.model.eval()
                    panel.scene.get_outputs_for_camera(camera())
                    trainer.pipeline.model.train(training)
            finally:
                trainer.train_lock.acquire()

        panel.stop()
        trainer.callbacks.append(SimpleNamespace(run_callback_at_location=after_train(look)))
        trainer.train()
        assert same_bits(fields_of(plain.pipeline.model), fields_of(trainer.pipeline.model))


class Screen:
    """The viewer's choice of outputs."""

    def __init__(self, output: str = "rgb", other: str = "rgb_before", split: bool = False) -> None:
        self.output_render, self.split_output_render, self.split = output, other, split


class Counted:
    """A model that notes how often it is rendered, and shows one colour."""

    device = torch.device("cpu")

    def __init__(self, grey: float) -> None:
        self.grey, self.renders = grey, 0

    def get_outputs_for_camera(self, camera: Any, obb_box: Any = None) -> dict[str, torch.Tensor]:
        self.renders += 1
        return {"rgb": torch.full((2, 3, 3), self.grey), "depth": torch.ones(2, 3, 1)}


SHOWN = [(Screen(), False), (Screen("rgb", "rgb_before", True), True), (Screen("rgb", "depth", True), False)]
SHOWN += [(Screen("difference"), True), (Screen("rgb_before"), True), (Screen("depth", "difference", True), True)]


@pytest.mark.parametrize(("screen", "rendered"), SHOWN)
@pytest.mark.parametrize("previewed", [False, True])
def test_comparison_is_rendered_only_when_shown(screen: Screen, rendered: bool, previewed: bool) -> None:
    """A second render doubles the time of every picture, for as long as the viewer is open."""
    now, cut, before = Counted(0.5), Counted(0.75), Counted(0.25)
    view = SceneView(now, screen, lambda: before)  # type: ignore[arg-type]
    view.preview = SimpleNamespace(model=cut, pictures={}) if previewed else None  # type: ignore[assignment]
    outputs = view.get_outputs_for_camera(camera())
    assert list(outputs) == ["rgb", "depth", "difference", "rgb_before"]
    assert (now.renders, cut.renders, before.renders) == ((rendered, 1, 0) if previewed else (1, 0, rendered))
    assert float(outputs["rgb"][0, 0, 0]) == (0.75 if previewed else 0.5)
    assert outputs["difference"].shape == (2, 3, 1)
    if rendered:
        assert float(outputs["rgb_before"][0, 0, 0]) == (0.5 if previewed else 0.25)
        assert float(outputs["difference"][0, 0, 0]) == 0.25


def test_comparison_that_fails_leaves_the_picture() -> None:
    """The viewer's thread ends with any error but its own interrupt, and the picture would be frozen from then on. Out
    of memory is the likely one: the network from before is one more on the GPU."""

    class Failing(Counted):
        error: Exception = RuntimeError("out of memory")

        def get_outputs_for_camera(self, camera: Any, obb_box: Any = None) -> dict[str, torch.Tensor]:
            raise self.error

    failing = Failing(0.0)
    view = SceneView(Counted(1.0), Screen("difference"), lambda: failing)  # type: ignore[arg-type,return-value]
    outputs = view.get_outputs_for_camera(camera())
    assert float(outputs["rgb"][0, 0, 0]) == 1.0 and not bool(outputs["difference"].any())
    assert view.failure == "out of memory"
    failing.error = IOChangeException()
    with pytest.raises(IOChangeException):
        view.get_outputs_for_camera(camera())
    view.screen = Screen("rgb")
    view.get_outputs_for_camera(camera())
    view.before, view.screen = (lambda: Counted(0.5)), Screen("difference")  # type: ignore[assignment,return-value]
    view.get_outputs_for_camera(camera())
    assert view.failure == ""


def test_preview_knows_its_step(tiny_config: Config) -> None:
    """While it waits for the lock the training goes on; seed and label must be those of the weights that are cut, or
    the preview of a random choice is another one than the cut."""
    with with_panel(tiny_config(start_step=9)) as (trainer, panel):
        panel.stop()
        taken, threads = [], []
        inner = trainer.pipeline.calibrate

        def calibrate(calibration: Any, seed: int) -> Any:
            taken.append((trainer.pipeline.controller.run.step, seed))
            return inner(calibration, seed)

        trainer.pipeline.calibrate = calibrate
        previews = []

        def ask(step: int) -> None:
            thread = threading.Thread(target=lambda: previews.append(panel.session.preview(CUTS["budget"])))
            thread.start()
            time.sleep(0.05)  # it waits for the lock, which this step holds
            threads.append(thread)

        trainer.callbacks.insert(0, SimpleNamespace(run_callback_at_location=before_train(ask)))
        trainer.train()
        for thread in threads:
            thread.join(60)
        assert len(previews) == 10
        assert sorted(preview.step for preview in previews) == sorted(step for step, _ in taken[-10:])
        assert [seed for _, seed in taken[-10:]] == [event_seed(42, step) for step, _ in taken[-10:]]


@pytest.mark.parametrize("name", ["mount_panel", "PrunePanel"])
def test_viewer_goes_on_without_a_panel(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A viewer of another version may lack what the panel holds on to; hours of training do not depend on a panel."""

    def fail(*args: Any) -> None:
        raise AttributeError("no such tab")

    monkeypatch.setattr(mounting, name, fail)
    config = tiny_config(start_step=3)
    config.vis, config.viewer.websocket_host, config.viewer.websocket_port = "viewer", "127.0.0.1", free_port()
    config.viewer.quit_on_train_completion = True
    trainer = start(config)
    trainer.train()
    trainer.viewer_state.viser_server.stop()
    assert trainer.viewer_state.get_model() is trainer.pipeline.model
    assert widths(trainer.pipeline.model) == tiny_widths(8, 4) and trainer.pipeline.controller.snapshot is None
    assert "goes on without a pruning panel: AttributeError('no such tab')" in " ".join(capsys.readouterr().out.split())


def test_nothing_kept_is_grey() -> None:
    """The names of the outputs must be the same with and without an event: where they change, the viewer resets what a
    person has chosen, and a tab that still holds the old names dies."""
    outputs = SceneView(Counted(1.0), Screen("rgb_before"), lambda: None).get_outputs_for_camera(camera())  # type: ignore[arg-type]
    assert bool((outputs["rgb_before"] == NOTHING_KEPT).all()) and not bool(outputs["difference"].any())


def test_viewer_renders_with_the_threads_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering holds the training up: beside another program two threads would take twenty times as long for it."""
    counted = CountedThreads(monkeypatch, 2)
    with Threads(1, torch.device("cpu")).in_force():
        counted.number = 2  # as the viewer's thread found it
        SceneView(Counted(1.0), Screen("rgb"), lambda: None).get_outputs_for_camera(camera())  # type: ignore[arg-type]
        assert counted.number == 1


def test_compare_shows_the_network_from_before(tiny_config: Config) -> None:
    """Through a real event: `rgb_before` must stay what it was while the training goes on, and end with an undo."""
    with with_panel(tiny_config(start_step=3)) as (trainer, panel):
        model = trainer.pipeline.model
        pictures: dict[Any, dict[str, torch.Tensor]] = {}
        panel.stop()
        panel.scene.screen = Screen("rgb", "rgb_before", True)

        def look(step: int) -> None:
            model.eval()
            if step == 7:
                trainer.pipeline.steering.request("undo")
                trainer.pipeline.steering.on_step(step)
            pictures[step] = panel.scene.get_outputs_for_camera(camera())
            model.train()

        def before_event(step: int) -> None:
            if step == 4:
                return
            controller = trainer.pipeline.controller
            if step == 3:
                measure = controller.measure

                def and_look(found: Any) -> dict[str, float]:
                    if not controller.run.state.history:
                        model.eval()
                        pictures["dense"] = model.get_outputs_for_camera(camera())
                        model.train()
                    return measure(found)

                and_look.description = measure.description  # type: ignore[attr-defined]
                controller.measure = and_look

        trainer.callbacks.insert(0, SimpleNamespace(run_callback_at_location=before_train(before_event)))
        trainer.callbacks.append(SimpleNamespace(run_callback_at_location=after_train(look)))
        trainer.train()
        for step in (3, 4, 6):
            assert torch.equal(pictures[step]["rgb_before"], pictures["dense"]["rgb"])
        assert not torch.equal(pictures[6]["rgb"], pictures["dense"]["rgb"])
        assert bool((pictures[7]["rgb_before"] == NOTHING_KEPT).all())
        assert widths(model) == tiny_widths(16, 8)


def before_train(function: Callable[[int], None]) -> Callable[..., None]:
    def run(step: int, location: Any) -> None:
        if location.name == "BEFORE_TRAIN_ITERATION":
            function(step)

    return run


def test_finished_run_in_the_viewer(tiny_config: Config, tmp_path: Path) -> None:
    """`ns-viewer`: nobody trains there. The state is shown, a cut can be tried, and what cannot be done says why."""
    config = tiny_config("finished", start_step=5)
    trainer = start(config)
    trainer.train()
    loaded, pipeline, _, step = eval_setup(trainer.base_dir / "config.yml", test_mode="test")
    loaded.viewer.websocket_host, loaded.viewer.websocket_port = "127.0.0.1", free_port()
    with caught_panel() as panels:
        viewer = Viewer(
            loaded.viewer, tmp_path / "log.txt", tmp_path, pipeline, train_lock=threading.Lock(), share=False
        )
    (panel,) = panels
    try:
        viewer.update_scene(step=step)
        panel.stop()
        status = panel.session.status()
        assert (status.phase, status.step, status.training) == ("recovery", 9, "none")
        assert dict(status.sizes.parts) == tiny_widths(8, 4) and dict(status.initial.parts) == tiny_widths(16, 8)
        panel.tick()
        assert panel.prune.disabled and panel.undo.disabled and panel.retarget.disabled and panel.pause.disabled
        assert panel.requests.content == "*Prune now, Undo: nothing is trained here*"
        assert panel.reasons.content == "*pause, Use cut for the plan: nothing is trained here*"
        with pytest.raises(ValueError, match="nothing is trained here"):
            panel.session.request("prune", HALF)
        before = copied_state(pipeline.model)
        preview = panel.session.preview(form_values("obs", None, "lstsq", "pruning_ratio", 0.75))
        assert dict(preview.after.parts) == tiny_widths(4, 2)
        assert panel.session.quality(preview) is not None and same_bits(before, copied_state(pipeline.model))
    finally:
        panel.stop()
        viewer.viser_server.stop()


def test_sizes_after_another_cut_at_the_same_step(tiny_config: Config) -> None:
    """Sizes are read off the tensors only after an event. A planned one that is undone, and replaced by hand, at the
    end of its own step leaves a history as long and as old as before; the table must not stay that of the first."""
    with with_panel(tiny_config(start_step=3)) as (trainer, panel):
        panel.stop()
        found: list[dict[str, int]] = []

        def look(step: int) -> None:
            if step == 3:
                found.append(dict(panel.session.status().sizes.parts))
                trainer.pipeline.steering.request("undo")
                trainer.pipeline.steering.request("prune", {**HALF, "value": 0.25})
                trainer.pipeline.steering.on_step(step)
                found.append(dict(panel.session.status().sizes.parts))

        trainer.callbacks.append(SimpleNamespace(run_callback_at_location=after_train(look)))
        trainer.train()
        assert found == [tiny_widths(8, 4), tiny_widths(12, 6)]


def test_neurons_can_be_tried_where_edges_are_masked(tiny_config: Config) -> None:
    """The form offers cuts of neurons in every run. One that masks single weights cannot make them, but a person may
    see what they would bring, on top of the masks."""
    with with_panel(tiny_config(strategy="edge", start_step=3)) as (trainer, panel):
        trainer.train()
        panel.stop()
        trainer.training_state = "training"
        before = copied_state(trainer.pipeline.model)
        preview = panel.session.preview(HALF)
        assert dict(preview.before.parts) == tiny_widths(16, 8) and dict(preview.after.parts) == tiny_widths(8, 4)
        assert bool((preview.model.field_fine.mlp_base.layers[1].weight == 0).any())
        assert panel.session.quality(preview) is not None and same_bits(before, copied_state(trainer.pipeline.model))
        with pytest.raises(ValueError, match="strategy edge masks single weights; the panel removes neurons"):
            panel.session.request("prune", HALF)


def test_obstacles_of_a_training(tiny_config: Config) -> None:
    """Each reason must be the right one, for a person acts on it."""
    with with_panel(tiny_config(start_step=3)) as (trainer, panel):
        obstacle, controller = panel.session.obstacle, trainer.pipeline.controller
        assert (obstacle("prune"), obstacle("retarget")) == ("", "")
        assert obstacle("undo") == "no pruning in this process to undo"
        run = controller.run
        recipe = run.recipe
        run.recipe = replace(run.options, min_width=16).resolve()
        assert obstacle("prune") == "nothing to prune: all layers are at min_width 16"
        run.recipe = replace(run.options, recovery="rewind").resolve()
        assert obstacle("prune").startswith("recovery rewind has no snapshot: kept from rewind_step 0")
        run.recipe = recipe
        trainer.train()
        names = ("prune", "undo", "retarget", "pause")
        assert [obstacle(name) for name in names] == ["the training has ended"] * 4
        trainer.training_state = "training"
        assert [obstacle(name) for name in names[1:]] == ["", "no event is planned", "no event is planned"]
        run.paused = True
        assert obstacle("pause") == ""
        run.subject = subject_of("edge", trainer.pipeline.model, trainer.pipeline.calibrate)
        assert obstacle("prune").startswith("strategy edge masks single weights")


def test_kept_network_is_in_no_checkpoint(tiny_config: Config) -> None:
    """It would double the file, and a run that is resumed could not tell whose weights these are."""
    with with_panel(tiny_config("watched", start_step=5)) as (trainer, _):
        trainer.train()
        plain = start(tiny_config("plain", start_step=5))
        plain.train()
        assert trainer.pipeline.controller.snapshot is not None and plain.pipeline.controller.snapshot is None
        sizes = [next(t.checkpoint_dir.glob("*.ckpt")).stat().st_size for t in (trainer, plain)]
        assert abs(sizes[0] - sizes[1]) < 200
        assert trainer.pipeline.state_dict().keys() == plain.pipeline.state_dict().keys()


@pytest.mark.slow
def test_without_a_viewer_nothing_of_it_is_imported(tmp_path: Path) -> None:
    """plotly and the panel take a second and memory that a training on a cluster has no use for."""
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.tiny_run import make_config, start
start(make_config(Path(sys.argv[2]), Path(sys.argv[2]))).train()
mount = ("nerfstudio_prune.viewer", "nerfstudio_prune.viewer.panel_mount")
viewer = [name for name in sys.modules if name.startswith("nerfstudio_prune.viewer") and name not in mount]
print(viewer + [name for name in sys.modules if name.split(".")[0] == "plotly"])
"""
    command = [sys.executable, "-c", script, str(Path(__file__).parents[1]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_lists_of_tabs_that_disagree_do_not_end_the_training(tiny_config: Config) -> None:
    """The host looks through one list of tabs and up in another; a tab that has just come or gone is in one of them
    only. Some of its look-ups happen with a lock of viser's held, which an error would not release. The trainer
    survives a RuntimeError of the viewer and nothing else."""

    def no_camera(client: Any) -> None:
        raise AssertionError

    with with_panel(tiny_config(start_step=5)) as (trainer, panel):
        viewer = trainer.viewer_state
        viewer.viser_server.get_clients = lambda: {3: SimpleNamespace()}
        viewer.get_camera_state = lambda client: SimpleNamespace()
        viewer.update_camera_poses = lambda: None
        viewer.render_statemachines[4] = SimpleNamespace(run=None, action=None, _render_img=None)
        viewer.train_util, viewer.last_step = 0.9, -10_000
        viewer.update_scene(100, 32)
        assert viewer.last_step == 100
        viewer._trigger_rerender()
        panel.rerender()
        assert list(viewer.render_statemachines) == [4]
        viewer.get_camera_state = no_camera
        with pytest.raises(RuntimeError, match="the viewer failed"):
            viewer.update_scene(1_000_000, 32)
        trainer.train()
        assert trainer.step == 9


def test_stranger_presses_and_nothing_is_pruned(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Who reaches the address needs no page, and buttons that are grey on a page keep no script out: the run itself has
    to refuse, and to go on as planned."""
    buttons: tuple[ActionName, ...] = ("prune", "undo", "retarget", "pause")
    config = tiny_config(start_step=7)
    with with_panel(config, "0.0.0.0") as (trainer, panel), stranger(trainer, panel, buttons[:3:2]) as heard:
        trainer.train()
        assert heard == {"prune", "retarget", "pause"}
        assert [(event.step, event.scheduled is not None) for event in panel.session.history()] == [(7, True)]
        assert not panel.session.paused and panel.pause.value is False
        trainer.training_state = "training"
        (reason,) = {panel.session.obstacle(name) for name in buttons}
        assert reason.startswith("the panel only shows, for others reach 0.0.0.0 too")
        with pytest.raises(ValueError, match="the panel only shows"):
            panel.session.request("undo")
        panel.tick()
        assert panel.prune.disabled and panel.undo.disabled and panel.retarget.disabled and panel.pause.disabled
        assert "the panel only shows" in panel.requests.content
    text = " ".join(capsys.readouterr().out.split())
    assert "The viewer listens on 0.0.0.0: its pruning panel only shows." in text
    assert "Traceback" not in text


def test_steer_lets_everybody_prune(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A person who wants that can have it, and is told what it means."""
    config = tiny_config(start_step=9, panel="steer")
    with with_panel(config, "0.0.0.0") as (trainer, panel), stranger(trainer, panel, ["prune"]) as heard:
        trainer.train()
        assert heard == {"prune", "pause"}
        events = [(event.step, event.scheduled is None) for event in panel.session.history()]
        assert len(events) == 1 and events[0][1]
    text = " ".join(capsys.readouterr().out.split())
    assert "The viewer listens on 0.0.0.0: anyone who reaches it can prune this training" in text


@contextmanager
def stranger(trainer: Any, panel: Any, buttons: Sequence[str]) -> Iterator[set[str]]:
    """Presses buttons and holds the plan, by hand-made messages and in that order, before the second step ends.

    Gives the names of what was asked of the session.
    """
    heard: set[str] = set()
    session = panel.session
    request, pause = session.request, session.pause

    def requested(name: Any, cut: Any = None) -> None:
        try:
            request(name, cut)
        finally:
            heard.add(name)

    def paused(wanted: bool) -> None:
        try:
            pause(wanted)
        finally:
            heard.add("pause")

    session.request, session.pause = requested, paused
    with RawClient(trainer.config.viewer.websocket_port) as client:
        wait_until(lambda: bool(trainer.viewer_state.viser_server.get_clients()))

        def press(step: int) -> None:
            if step == 1:
                for button in buttons:
                    client.set(getattr(panel, button), True)
                client.set(panel.pause, True)
                wait_until(lambda: len(heard) == len(buttons) + 1)

        trainer.callbacks.insert(0, SimpleNamespace(run_callback_at_location=after_train(press)))
        yield heard


def test_moving_camera_starves_nobody(tiny_config: Config) -> None:
    """The host waits after every step until the camera stands still, and what renders for a moving camera takes the
    lock again and again: a person who looks around would stop the training, and their own request with it."""
    config = tiny_config(start_step=900)
    config.max_num_iterations = 10_000
    with with_panel(config) as (trainer, panel):
        over, gave_up, carried_out = threading.Event(), threading.Event(), list[int]()
        steering = trainer.pipeline.steering

        def look_around(client: RawClient) -> None:
            for n in range(10_000):
                client.move(0.1 * (n % 30))
                client.drain(1 / 60)
                if over.is_set():
                    return

        def ask() -> None:
            try:
                requests: list[tuple[RequestName, Optional[Cut]]] = [("prune", HALF), ("undo", None), ("prune", HALF)]
                for name, cut in requests:
                    start = panel.session.step
                    wait_until(lambda start=start: panel.session.step >= start + 3)
                    start = panel.session.step
                    panel.session.request(name, cut)
                    wait_until(lambda: not steering.waiting)
                    carried_out.append(panel.session.step - start)
            except BaseException:
                gave_up.set()
                raise
            finally:
                trainer.stop_training = True
                over.set()

        port = config.viewer.websocket_port
        for origin, name in (("https://evil.example", None), ("http://evil.example", "evil.example")):
            with pytest.raises(InvalidStatus):  # 403
                RawClient(port, origin, name)
        with RawClient(port, origin="http://localhost:9999") as client:  # through a tunnel
            threads = [threading.Thread(target=look_around, args=(client,)), threading.Thread(target=ask)]
            for thread in threads:
                thread.start()
            trainer.train()
            for thread in threads:
                thread.join(60)
        assert not gave_up.is_set()
        assert len(carried_out) == 3 and max(carried_out) <= 3
        assert [event.scheduled for event in panel.session.history()] == [None]


def test_picture_that_fails_is_not_the_last(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """The host's thread would end with it: memory that runs out once freezes the picture for the rest of a training."""
    config = tiny_config(start_step=900)
    config.max_num_iterations = 10_000
    with with_panel(config) as (trainer, panel):
        failures, rendered = iter([KeyError("rgb"), RuntimeError("out of memory")]), [0]

        def get_outputs_for_camera(*args: Any, **options: Any) -> Any:
            rendered[0] += 1
            for failure in failures:
                raise failure
            trainer.stop_training = True
            return inner(*args, **options)

        inner, panel.scene.get_outputs_for_camera = panel.scene.get_outputs_for_camera, get_outputs_for_camera
        with RawClient(config.viewer.websocket_port):
            trainer.train()
        assert rendered[0] >= 3 and trainer.step < 9_999
    text = capsys.readouterr().out
    assert "a picture failed, KeyError: 'rgb'" in text and "out of memory" in text and "Traceback" not in text


def test_tabs_that_leave_at_any_time_leave_nothing_behind(
    tiny_config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    """A tab is closed while its camera moves, before it was ever shown, or with messages on their way. The host would
    print an error for each, hold a lock of viser's for ever, and go on to render for nobody."""
    config = tiny_config(start_step=900)
    config.max_num_iterations = 10_000
    with with_panel(config) as (trainer, panel):
        viewer, errors = trainer.viewer_state, list[Exception]()

        def come_and_go() -> None:
            try:
                draw = random.Random(0)
                for _ in range(6):
                    with RawClient(config.viewer.websocket_port, camera=draw.random() < 0.8) as client:
                        for n in range(draw.randrange(30)):
                            client.move(n)
                            client.set(panel.preview, draw.random() < 0.3)
                wait_until(lambda: not viewer.viser_server.get_clients())
                wait_until(lambda: not viewer.render_statemachines)
                with RawClient(config.viewer.websocket_port) as client:  # the server still speaks
                    client.read(lambda: any(m["type"] == "GuiUpdateMessage" for m in client.messages))
                start = panel.session.step
                wait_until(lambda: panel.session.step >= start + 2)  # and the training goes on
            except Exception as error:
                errors.append(error)
            finally:
                trainer.stop_training = True

        thread = threading.Thread(target=come_and_go)
        thread.start()
        trainer.train()
        thread.join(60)
        assert errors == [] and trainer.step > 0
        # Each ends with the picture that it is at.
        wait_until(lambda: not any(isinstance(thread, RenderStateMachine) for thread in threading.enumerate()))
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
