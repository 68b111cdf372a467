"""The panel on a real training of Gaussians with the host's own viewer: previews, outputs, undo. No browser."""

import random
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.models.splatfacto import SplatfactoModel
from support.fakes import FakeGui
from support.live import with_panel
from support.nonsense import nonsense
from support.panel_splats import make_splat_config, splat_cut
from support.tiny_run import copied_state, same_bits, start

from nerfstudio_prune.viewer.panel import PrunePanel
from nerfstudio_prune.viewer.scene_view import NOTHING_KEPT

Config = Callable[..., Any]
SHOWN = ["rgb", "depth", "accumulation", "background", "significance", "removed", "difference", "rgb_before"]


@pytest.fixture
def tiny(tmp_path: Path, scene_cache: Path) -> Config:
    """Makes configurations of runs for a panel."""
    return partial(make_splat_config, tmp_path, scene_cache)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Iterator[tuple[Any, Any]]:
    """A run that has cut and lowered the degree, with its panel."""
    config = make_splat_config(tmp_path_factory.mktemp("finished"), scene_cache, start_step=6)
    with with_panel(config) as (trainer, panel):
        trainer.train()
        panel.stop()
        yield trainer, panel


def camera() -> Cameras:
    """A camera of 18 x 16 pixels that looks at the scene."""
    pose = torch.eye(4)[None, :3].clone()
    pose[0, 2, 3] = 4.0
    return Cameras(camera_to_worlds=pose, fx=20.0, fy=20.0, cx=9.0, cy=8.0, width=18, height=16)


def screen(output: str, other: str, split: bool) -> Any:
    """The viewer's choice of outputs."""
    return SimpleNamespace(output_render=output, split_output_render=other, split=split)


def after_step(trainer: Any, wanted: int, function: Callable[[], None]) -> None:
    """Calls something at the end of one step, with the trainer's lock held, after the pruning."""

    def run(step: int, location: Any) -> None:
        if location.name == "AFTER_TRAIN_ITERATION" and step == wanted:
            function()

    trainer.callbacks.append(SimpleNamespace(run_callback_at_location=run))


def gaussians_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.gaussians.items()}


def everything(trainer: Any) -> list[Any]:
    """What a training goes on from."""
    optimizers = trainer.optimizers.optimizers
    states = [{k: v for p in o.param_groups[0]["params"] for k, v in o.state[p].items()} for o in optimizers.values()]
    lists = [[len(p) for p in parameters] for parameters in trainer.optimizers.parameters.values()]
    model = trainer.pipeline.model
    running = {name: tensor.clone() for name, tensor in model.running.items()}
    picture = [model.background_color.tolist(), model.crop_box, model.training]
    state = {**copied_state(model), "_extra_state": None}
    return [state, [dict(s) for s in states], lists, running, picture, torch.get_rng_state()]


def unlocked(trainer: Any, function: Callable[[], Any]) -> Any:
    """Does on another thread what takes the trainer's lock."""
    found: list[Any] = []
    trainer.train_lock.release()
    try:
        thread = threading.Thread(target=lambda: found.append(function()))
        thread.start()
        thread.join(60)
    finally:
        trainer.train_lock.acquire()
    (value,) = found
    return value


CUTS = {
    "removal": splat_cut(),
    "opacity": splat_cut(score="opacity", ratio=0.7),
    "random": splat_cut("random", None, None),
    "merge": splat_cut("merge", None, None),
}


def test_preview_is_what_pruning_then_gives_and_undo_takes_back(tiny: Config) -> None:
    """The promise of the panel: the preview is bit for bit what the cut then gives, made without touching parameters,
    moments, the densification's notes or the random state; and an undo brings all of that back bit for bit."""
    with with_panel(tiny(start_step=11)) as (trainer, panel):
        panel.stop()
        done: list[str] = []

        def act() -> None:
            steering, model = trainer.pipeline.steering, trainer.pipeline.model
            for name, cut in CUTS.items():
                before = everything(trainer)
                preview = unlocked(trainer, lambda cut=cut: panel.session.preview(cut))
                assert same_bits(before, everything(trainer))
                steering.request("prune", cut)
                steering.on_step(8)
                assert not steering.message.error, steering.message.text
                kept = round(1000 * (1 - cut["pruning_ratio"]))
                assert preview.after.parts == {"gaussians": kept, "sh_degree": 3} and model.num_points == kept
                assert same_bits(gaussians_of(preview.model), gaussians_of(model))
                assert set(preview.pictures) == ({"significance"} if preview.scores else set()) | {"removed"}
                steering.request("undo")
                steering.on_step(8)
                assert same_bits(before, everything(trainer))
                done.append(name)

        after_step(trainer, 8, act)
        trainer.train()
        assert done == list(CUTS)


OF_NEURONS = re.compile(r"network|neuron|layer|weights|lr_factor|\brays?\b|MACs", re.IGNORECASE)


def test_words_are_those_of_gaussians(tiny: Config, capsys: Any) -> None:
    """A person who prunes Gaussians looks in vain for the network, the layer or the rays that a hint speaks of: in what
    hangs on the elements, in what came of requests, and on the console, also where something fails."""
    with with_panel(tiny(start_step=7, on_error="continue")) as (trainer, panel):
        panel.stop()
        texts: list[str] = []

        def ask(name: Any, cut: Any = None) -> None:
            trainer.pipeline.steering.request(name, cut)
            trainer.pipeline.steering.on_step(6)
            texts.append(trainer.pipeline.steering.message.text)
            panel.tick()
            texts.extend(panel._texts.values())

        def act() -> None:
            panel.tick()
            for name in ("scores", "opacities", "Gaussians", "PSNR"):
                panel.plot.value = name
                unlocked(trainer, panel._draw)
                texts.append(panel._plot.figure.to_json())
            ask("undo")
            ask("prune", splat_cut())
            ask("prune", {**splat_cut(), "pruning_ratio": 0.1})
            ask("undo")
            ask("retarget", {**splat_cut(), "pruning_ratio": 0.95})

        after_step(trainer, 6, act)
        trainer.train()
        assert [bool(event.error) for event in trainer.pipeline.model.prune_state.history] == [True, False]
    gui = FakeGui()  # which keeps what it is given; the host's sends it to pages
    PrunePanel(gui, panel.session, panel.scene, lambda: None)
    texts += [element.label for element in gui.elements]
    hints = [element.options["hint"] for element in gui.elements if "hint" in element.options]
    assert len(hints) > 10 and all(hints)
    told = capsys.readouterr().out.replace("Train Rays / Sec", "")  # the host's column
    assert "training goes on with the model as it was" in " ".join(told.split())
    texts += [*hints, *told.splitlines()]
    assert [text for text in texts if OF_NEURONS.search(text)] == []


def test_training_that_is_looked_at_is_the_training_that_is_not(tiny: Config) -> None:
    """A person who looks must not change what is looked at: with renders of all outputs in other colours and cropped,
    scores and plots after every step, the run measures and ends bit for bit like one without a viewer."""
    plain = start(tiny("plain", start_step=6))
    plain.train()
    with with_panel(tiny("watched", start_step=6)) as (trainer, panel):
        panel.stop()
        shown = panel.scene.screen = screen("rgb_before", "removed", True)

        def look() -> None:
            unlocked(trainer, lambda: panel.session.score(splat_cut()))
            scene = panel.scene
            scene.set_background(torch.tensor([0.1, 0.9, 0.3]))
            shown.output_render = "significance" if shown.output_render == "rgb_before" else "rgb_before"
            scene.get_outputs_for_camera(camera(), OrientedBox(torch.eye(3), torch.zeros(3), torch.ones(3)))
            panel.session.status()

        for step in range(12):
            after_step(trainer, step, look)
        trainer.train()
        assert same_bits(gaussians_of(plain.pipeline.model), gaussians_of(trainer.pipeline.model))
        events = [t.pipeline.model.prune_state.history for t in (plain, trainer)]
        assert len(events[0]) == 2
        assert [e.metrics_after for e in events[0]] == [e.metrics_after for e in events[1]]


def test_outputs_of_an_event(tiny: Config) -> None:
    """What the event took is shown alone, in the place where it was, until it is undone; and the heat map is that of
    the scores that were taken last. The names are the same all the time, for a tab that holds others dies."""
    with with_panel(tiny(start_step=6)) as (trainer, panel):
        panel.stop()
        scene, model, pictures = panel.scene, trainer.pipeline.model, list[dict[str, torch.Tensor]]()
        scene.screen = screen("removed", "significance", True)
        whole: list[Any] = []

        def picture() -> None:
            pictures.append(scene.get_outputs_for_camera(camera()))

        def before_event() -> None:
            picture()
            unlocked(trainer, lambda: panel.session.score(splat_cut(score="opacity")))
            picture()
            whole.append(gaussians_of(model))

        def undo() -> None:
            picture()
            trainer.pipeline.steering.request("undo")
            trainer.pipeline.steering.on_step(7)
            picture()

        # While Gaussians grow there is nothing to cut; a person waits for a step and must know which.
        told: list[str] = []
        after_step(trainer, 2, lambda: told.extend([panel.session.obstacle("prune"), panel.session.status().stage]))
        after_step(trainer, 5, before_event)
        after_step(trainer, 7, undo)
        trainer.train()
        assert all(list(found) == SHOWN for found in pictures)
        assert told[0].endswith("the first step at whose end an event may happen is 6") and told[1] == "growing"
        nothing, scored, cut, undone = pictures
        assert not bool(nothing["significance"].any()) and bool((nothing["removed"] == NOTHING_KEPT).all())
        assert scored["significance"].shape == (16, 18, 1) and 0.2 < float(scored["significance"].max()) <= 1
        assert bool((cut["removed"] != NOTHING_KEPT).any()) and cut["removed"].shape == (16, 18, 3)
        assert torch.equal(cut["significance"], scored["significance"])
        assert bool((undone["removed"] == NOTHING_KEPT).all())
        assert scene.failure == ""


def test_outputs_are_rendered_only_when_shown(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one more picture, for as long as the viewer is open."""
    trainer, panel = finished
    model, scene, rendered = trainer.pipeline.model, panel.scene, [0]
    panel.session.score(splat_cut())
    inner = type(model).render

    def render(*args: Any, **options: Any) -> Any:
        rendered[0] += 1
        return inner(*args, **options)

    monkeypatch.setattr(type(model), "render", render)
    for name, count in (("rgb", 1), ("significance", 2), ("removed", 1), ("rgb_before", 2), ("difference", 2)):
        scene.screen = screen(name, "rgb", False)
        rendered[0] = 0
        scene.get_outputs_for_camera(camera())
        # The last event left all Gaussians: it only lowered the degree.
        assert rendered[0] == count, name


def test_host_takes_the_scene_for_gaussians(finished: Any) -> None:
    """The host gives models of Gaussians the colour of its panel, and takes their depth as it is: for other models it
    takes it for a distance along the ray. What it sets must not stay in the model that is trained."""
    trainer, panel = finished
    model, scene, control = trainer.pipeline.model, panel.scene, trainer.viewer_state.control_panel
    scene.screen = screen("rgb", "rgb", False)
    assert isinstance(scene, SplatfactoModel) and trainer.viewer_state.get_model() is scene
    assert control.background_color == (255, 255, 255) and control.max_res == 512
    model.eval()
    plain = model.get_outputs_for_camera(camera())
    for colour in ([1.0, 1.0, 1.0], [0.0, 0.5, 1.0]):
        scene.set_background(torch.tensor(colour))
        outputs = scene.get_outputs_for_camera(camera())
        light = plain["rgb"] - (1 - plain["accumulation"])
        expected = light + (1 - plain["accumulation"]) * torch.tensor(colour)
        assert torch.allclose(outputs["rgb"], expected.clamp(0, 1), atol=1e-5)
    nowhere = OrientedBox(torch.eye(3), torch.full((3,), 100.0), torch.ones(3))
    assert not bool(scene.get_outputs_for_camera(camera(), nowhere)["accumulation"].any())
    assert torch.equal(model.background_color, model.behind) and model.crop_box is None
    assert torch.equal(model(camera())["rgb"], plain["rgb"])


def test_nonsense_is_refused(finished: Any) -> None:
    """Values come from pages that anybody may have written; each must be refused by name, and change nothing."""
    trainer, panel = finished
    session = panel.session
    draw = random.Random(0)
    for field in session.form.fields(session.options):
        for _ in range(20):
            value = nonsense(draw, field.check)
            if value is not None:
                with pytest.raises(ValueError, match=field.name):
                    session.preview({**splat_cut(), field.name: value})
    with pytest.raises(ValueError, match="pruning_ratio must be in"):
        session.preview(splat_cut(ratio=1.0))
    with pytest.raises(ValueError, match="at least 100 of"):
        session.preview(splat_cut(ratio=0.95))
    with pytest.raises(ValueError, match="strategy random takes no score"):
        session.score(splat_cut("random", None, None))
    assert trainer.pipeline.model.num_points == 340
