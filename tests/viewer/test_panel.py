"""The panel's elements and callbacks, on fakes: what each asks for, what it shows, and what it leaves alone."""

import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from support.fakes import FakeElement, FakeGui, FakeScreen, FakeSession, uncalibrated
from support.tiny_run import form_values, tiny_model, tiny_widths
from support.waiting import wait_until as wait_for

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent, Sizes
from nerfstudio_prune.engine.steering import Message
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.form import OWN_SCORE
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.viewer import panel as panel_module
from nerfstudio_prune.viewer.panel import PrunePanel
from nerfstudio_prune.viewer.scene_view import SceneView
from nerfstudio_prune.viewer.session import Cut

wait_until = partial(wait_for, patience=10.0)


class Bench:
    """A panel on fakes, whose thread does not run: `panel.tick()` is one look of it."""

    def __init__(self, config: PruneConfig | None = None) -> None:
        options = (config or PruneConfig()).filled()
        model = tiny_model()
        self.gui = FakeGui()
        self.session = FakeSession(options, subject_of(options.strategy, model, uncalibrated))
        self.scene = SceneView(model, FakeScreen(), lambda: None)
        self.renders = 0
        self.panel = PrunePanel(self.gui, self.session, self.scene, self._render)
        self.panel.tick()

    def _render(self) -> None:
        self.renders += 1

    def __getitem__(self, label: str) -> FakeElement:
        (found,) = [element for element in self.gui.elements if element.label == label]
        return found

    def settle(self) -> None:
        """The sliders have stood still for long enough."""
        if self.panel._changed_at is not None:
            self.panel._changed_at -= panel_module.SETTLE_SECONDS
        self.panel.tick()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel_module, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(panel_module, "LEAST_TICK_SECONDS", 0.01)
    monkeypatch.setattr(panel_module, "WORK_SHARE", 1.0)


CUTS = {
    "best": (PruneConfig(), form_values("obs", None, "lstsq", "target_parameters", 0.28, 1.0)),
    "paper": (PruneConfig(preset="paper"), form_values("coreset", OWN_SCORE, "none", "pruning_ratio", 0.5, 1.0)),
    "off the slider": (
        PruneConfig(preset="paper", pruning_ratio=0.999),
        form_values("coreset", OWN_SCORE, "none", "pruning_ratio", 0.99),
    ),
    "macs": (PruneConfig(target_macs=0.2), form_values("obs", None, "lstsq", "target_macs", 0.2, 1.0)),
    "dense": (PruneConfig(strategy="none"), form_values("obs", None, "lstsq", "target_parameters", 0.28, 1.0)),
    "scored": (
        PruneConfig(preset="paper", strategy="importance", score="w_out", pruning_ratio=0.7),
        form_values("importance", "w_out", "none", "pruning_ratio", 0.7, 1.0),
    ),
}


@pytest.mark.parametrize(("config", "cut"), CUTS.values(), ids=CUTS)
def test_elements_start_with_the_options_of_the_run(config: PruneConfig, cut: Cut) -> None:
    """A person who presses «Prune now» first of all gets the cut that the run was going to make."""
    assert Bench(config).panel.cut() == cut


def test_every_control_has_a_hint(bench: Bench) -> None:
    """A person sees the names of options only; what they do must be one movement of the mouse away."""
    controls = [element for element in bench.gui.elements if element.kind not in ("markdown", "plotly")]
    assert len(controls) == 14
    assert [element.label for element in controls if not element.options.get("hint")] == []
    assert all(element.options["path"][0] == "Pruning" for element in bench.gui.elements)


CHANGES = [
    ("strategy", "uniform", {"strategy": "uniform", "score": OWN_SCORE}),
    ("refit", "merge", {"refit": "merge"}),
    ("target", "pruning_ratio", {"target": "pruning_ratio"}),
    ("value", 0.4, {"value": 0.4}),
    ("lr_factor", 1.5, {"lr_factor": 1.5}),
]


@pytest.mark.parametrize(("label", "value", "expected"), CHANGES)
def test_prune_asks_for_what_the_elements_say(bench: Bench, label: str, value: Any, expected: dict[str, Any]) -> None:
    """One element that is not read would prune otherwise than the page says, without a word."""
    before = bench.panel.cut()
    bench[label].act(value)
    bench["Prune now"].act()
    assert bench.session.requests == [("prune", {**before, **expected})]


def test_score_is_off_where_the_strategy_takes_none(bench: Bench) -> None:
    """A score that was chosen for another strategy must neither be sent, which would be refused, nor be forgotten."""
    assert bench["score"].disabled
    bench["strategy"].act("importance")
    assert not bench["score"].disabled
    bench["score"].act("fisher")
    assert bench.panel.cut()["score"] == "fisher"
    bench["strategy"].act("pivoted-qr")
    assert bench["score"].disabled and bench.panel.cut()["score"] is None
    bench["strategy"].act("importance")
    assert bench.panel.cut()["score"] == "fisher"


@pytest.mark.parametrize(("label", "name"), [("Undo", "undo"), ("Use cut for the plan", "retarget")])
def test_other_buttons_ask_once(bench: Bench, label: str, name: str) -> None:
    """A click that asked twice would undo, or plan, twice."""
    bench[label].act()
    assert bench.session.requests == [(name, None if name == "undo" else bench.panel.cut())]


def test_pause_holds_the_schedule(bench: Bench) -> None:
    """Both ways; and the box of a second tab that follows must not matter."""
    bench["pause"].act(True)
    assert bench.session.paused
    bench["pause"].act(False)
    assert not bench.session.paused and bench.session.requests == []


def test_pause_that_is_refused_goes_back(bench: Bench) -> None:
    """A box that stays on says that the plan waits, and it does not."""
    bench.session.obstacles = {"pause": "the panel only shows"}
    bench["pause"].act(True)
    bench.panel.tick()
    assert bench["pause"].value is False and not bench.session.paused
    assert bench.panel.requests.content.startswith("⚠️ pause: the panel only shows")


def test_any_page_can_complain_but_not_flood(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Nonsense comes as fast as a network carries it; the console of a training is for other things as well."""
    monkeypatch.setattr(panel_module, "TICK_SECONDS", 3600.0)
    for n in range(1000):
        bench.panel.complain(f"value must be a number, got {n}")
        bench.panel.tick()
    assert capsys.readouterr().out.count("value must be") == 1
    assert bench.panel.requests.content == "⚠️ value must be a number, got 999"


def test_disabled_with_a_reason(bench: Bench) -> None:
    """A button that does nothing must say why; one that can act again must not stay dead."""
    bench.session.obstacles = {"prune": "nothing is trained here", "undo": "nothing is trained here"}
    bench.panel.tick()
    assert [bench[label].disabled for label in ("Prune now", "Undo", "Use cut for the plan")] == [True, True, False]
    assert bench.panel.requests.content == "*Prune now, Undo: nothing is trained here*"
    bench.session.obstacles = {}
    bench.panel.tick()
    assert not bench["Prune now"].disabled and bench.panel.requests.content == ""


def test_schedule_has_its_own_reasons(bench: Bench) -> None:
    """A plan that masks edges can wait like any other, though it cannot go on with neurons."""
    bench.session.obstacles = {"retarget": "strategy edge masks single weights"}
    bench.panel.tick()
    assert not bench["pause"].disabled and bench["Use cut for the plan"].disabled
    assert bench.panel.reasons.content == "*Use cut for the plan: strategy edge masks single weights*"
    assert bench.panel.requests.content == ""


def test_comparison_that_failed_is_told(bench: Bench) -> None:
    """A grey picture looks like a network that is not kept."""
    bench.scene.failure = "out of memory"
    bench.panel.tick()
    assert bench.panel.requests.content == "⚠️ comparison: out of memory"


def test_elements_follow_the_options_of_a_checkpoint(bench: Bench) -> None:
    """The panel is built before the host loads a checkpoint; what that says replaces what was typed, but not what a
    person has chosen meanwhile."""
    bench.session.options = PruneConfig(preset="paper", pruning_ratio=0.3).filled()
    bench.panel.tick()
    assert bench.panel.cut() == form_values("coreset", OWN_SCORE, "none", "pruning_ratio", 0.3)
    assert not bench["score"].disabled
    bench["value"].act(0.7)
    bench.session.options = PruneConfig().filled()
    bench.panel.tick()
    assert bench.panel.cut() == form_values("coreset", OWN_SCORE, "none", "pruning_ratio", 0.7)


def test_request_that_came_too_late_is_told(bench: Bench) -> None:
    """Queued in the very last step it would wait for ever."""
    bench.session.change(training="completed", waiting=("prune",))
    bench.panel.tick()
    assert bench.panel.requests.content == "⚠️ prune: not carried out, the training has ended"


def test_refused_request_is_told_and_a_good_one_clears_it(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The reason belongs where the person looks, and on the console; markup in it must not break the page, which is
    compiled as MDX and shows nothing at all after an unbalanced brace."""
    bench.session.failure = ValueError("prune.pruning_ratio must be in [0, 1), got {1.0} <b>")
    bench["Prune now"].act()
    bench.panel.tick()
    assert bench.session.requests == []
    shown = r"⚠️ prune: prune.pruning\_ratio must be in \[0, 1\), got \{1.0\} \<b\>"
    assert bench.panel.requests.content == shown
    assert "got {1.0} <b>" in " ".join(capsys.readouterr().out.split())
    bench.session.failure = None
    bench["Prune now"].act()
    bench.panel.tick()
    assert bench.panel.requests.content == "" and len(bench.session.requests) == 1


@pytest.mark.parametrize(
    ("training", "text"),
    [("training", "at the end of this step"), ("paused", r"at the next step \(the training is paused\)")],
)
def test_waiting_and_busy_are_shown(bench: Bench, training: Any, text: str) -> None:
    """In a paused run nothing happens for as long as one likes; without a word the click would seem lost."""
    bench.session.change(training=training, waiting=("prune",))
    bench.panel.tick()
    assert bench.panel.requests.content == f"⏳ prune: {text}"
    bench.session.change(busy="pruning at step 8", waiting=())
    bench.panel.tick()
    assert bench.panel.requests.content == "⏳ pruning at step 8 …"
    bench.session.change(busy="", message=Message("Step 8, prune: no", error=True))
    bench.panel.tick()
    assert bench.panel.requests.content == "⚠️ Step 8, prune: no"


def test_nothing_is_sent_when_nothing_changes(bench: Bench) -> None:
    """The panel looks twice a second for as long as a training takes; every message goes to every tab."""
    bench.panel.tick()
    for element in bench.gui.elements:
        element.sent.clear()
    bench.panel.tick()
    bench.panel.tick()
    assert [(element.label, element.sent) for element in bench.gui.elements if element.sent] == []
    assert bench.session.previews == [] and bench.renders == 0


def test_pausing_the_training_shows_the_step_it_stopped_at(bench: Bench) -> None:
    """A viewer shows a step of a training now and then: what was seen last may be many steps old, and a person who
    stops it to compare would compare with that. The step in progress ends after the button was pressed."""
    renders = bench.renders
    bench.session.change(step=8)
    bench.panel.tick()
    assert bench.renders == renders
    for step in (8, 9):
        bench.session.change(step=step, training="paused")
        bench.panel.tick()
        bench.panel.tick()
        renders += 1
        assert bench.renders == renders
    bench.session.change(training="training")
    bench.panel.tick()
    assert bench.renders == renders
    bench.session.change(training="paused")
    bench.panel.tick()
    assert bench.renders == renders + 1


def test_state_follows_the_run(bench: Bench) -> None:
    """What the person came for: the table of sizes, in hand-made numbers."""
    initial = bench.session.state.initial
    sizes = Sizes({name: 4 for name in initial.parts}, {**initial.costs, "parameters": 250})
    event = ScheduledEvent(900, Fraction(1, 4))
    bench.session.change(phase="pruning", step=12_345, sizes=sizes, next_event=event, paused=True, rays_per_sec=1234.5)
    bench.panel.tick()
    lines = bench.panel.state.content.split("\n")
    assert lines[0] == "**pruning**, step 12,345  "
    assert lines[1] == r"next event: step 900, to target\_parameters 0.28, 25% of the way (schedule paused)  "
    assert lines[2] == "1,234 training rays/s"
    assert lines[3:] == [
        "",
        "|  | at first | now |",
        "| :-- | --: | --: |",
        "| parameters | 1,000 | 250 |",
        "| MACs per ray | 2.00 M | 2.00 M |",
        "| MB in fp32 | 0.00 | 0.00 |",
    ]
    assert bench.panel.layers.content.split("\n")[:3] == [
        "| layer | coarse | fine |",
        "| :-- | --: | --: |",
        r"| mlp\_base 0 | 4 of 16 | 4 of 16 |",
    ]


class TestPreview:
    """The box, the slider, and the thread between them."""

    def test_off_costs_nothing(self, bench: Bench) -> None:
        """Off is the normal state: no copy, no samples, no rendering, whatever is moved."""
        bench["value"].act(0.3)
        bench["strategy"].act("uniform")
        bench.settle()
        assert bench.session.previews == [] and bench.scene.preview is None and bench.renders == 0

    def test_on_shows_and_off_shows_the_network_again(self, bench: Bench) -> None:
        """The scene is rendered from the copy, its numbers are told, and both are gone afterwards."""
        bench["preview"].act(True)
        bench.panel.tick()
        assert bench.session.previews == [bench.panel.cut()] and bench.scene.preview is not None
        assert bench.renders == 1
        assert "| parameters | 1,000 | 400 |" in bench.panel.forecast.content
        assert "| PSNR, dB | 20.00 | 19.50 |" in bench.panel.forecast.content
        bench["preview"].act(False)
        bench.panel.tick()
        assert bench.scene.preview is None and bench.panel.forecast.content == "" and bench.renders == 2

    def test_slider_updates_it_once_it_stands_still(self, bench: Bench) -> None:
        """A slider sends dozens of values on its way; a preview of each would take minutes."""
        bench["preview"].act(True)
        bench.panel.tick()
        for value in (0.3, 0.4, 0.5):
            bench["value"].act(value)
            bench.panel.tick()
        assert len(bench.session.previews) == 1
        bench.settle()
        assert [cut["value"] for cut in bench.session.previews] == [0.28, 0.5]

    def test_follows_the_training_but_not_at_any_price(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """The picture would grow old in a training that goes on; anew in every look it would stop the training."""
        bench["preview"].act(True)
        bench.panel.tick()
        bench.session.change(step=20)
        bench.panel.tick()
        assert len(bench.session.previews) == 1
        bench.panel._made_at -= panel_module.LEAST_REFRESH_SECONDS
        bench.panel.tick()
        assert len(bench.session.previews) == 2
        bench.panel._made_at -= panel_module.LEAST_REFRESH_SECONDS
        bench.panel.tick()  # the same step: there is nothing new to see
        assert len(bench.session.previews) == 2

    def test_costs_the_training_at_most_half_of_its_time(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever moves a slider without end would have preview after preview made, each with the trainer's lock."""
        monkeypatch.setattr(panel_module, "WORK_SHARE", 0.5)
        clock = [time.monotonic() + 1]
        monkeypatch.setattr(panel_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        inner, made = bench.session.preview, list[float]()

        def slow(cut: Cut) -> Any:
            made.append(clock[0])
            clock[0] += 4.0
            return inner(cut)

        bench.session.preview = slow  # type: ignore[method-assign]
        bench["preview"].act(True)
        for n in range(100):
            bench["value"].act(0.3 + 0.001 * n)
            bench.panel._changed_at = clock[0] - panel_module.SETTLE_SECONDS
            bench.panel.tick()
            clock[0] += 0.5
        assert len(made) > 3 and min(after - before for before, after in pairwise(made)) >= 8.0

    def test_failure_is_told_and_the_scene_is_whole(self, bench: Bench) -> None:
        """A preview that stays on the screen while the page says something else would be taken for real."""
        bench["preview"].act(True)
        bench.panel.tick()
        bench.session.failure = ValueError("no such cut")
        bench["value"].act(0.9)
        bench.settle()
        assert bench.scene.preview is None and bench.panel.forecast.content == ""
        bench.panel.tick()
        assert bench.panel.requests.content.startswith("⚠️ preview: no such cut")
        tried: list[Cut] = []
        bench.session.preview = tried.append  # type: ignore[method-assign,assignment]
        bench.panel._made_at -= 10 * panel_module.LEAST_REFRESH_SECONDS
        bench.session.change(step=30)
        bench.panel.tick()
        assert tried == []

    def test_late_preview_of_a_box_that_is_off_is_not_shown(self, bench: Bench) -> None:
        """It is made on another thread; a person may have switched it off meanwhile."""
        inner = bench.session.preview

        def slow(cut: Cut) -> Any:
            made = inner(cut)
            bench["preview"].act(False)
            return made

        bench.session.preview = slow  # type: ignore[method-assign]
        bench["preview"].act(True)
        bench.panel.tick()
        bench.panel.tick()
        assert bench.scene.preview is None and bench.panel.forecast.content == ""

    def test_off_wins_whatever_was_under_way(self, bench: Bench) -> None:
        """The box may be switched off between the panel's last look at it and its showing the preview."""
        inner = bench.panel._show_preview

        def too_late(*args: Any) -> None:
            bench["preview"].act(False)
            inner(*args)

        bench.panel._show_preview = too_late  # type: ignore[method-assign]
        bench["preview"].act(True)
        bench.panel.tick()
        bench.panel.tick()
        assert bench.scene.preview is None and bench.panel.forecast.content == "" and bench.panel._made is None

    def test_computing_is_told_once(self, bench: Bench) -> None:
        """A slider that is moved again and again must not pile up lines."""
        told = []
        inner = bench.session.preview

        def told_meanwhile(cut: Cut) -> Any:
            told.append(bench.panel.forecast.content)
            made = inner(cut)
            bench["value"].act(cut["value"] + 0.1)
            return made

        bench.session.preview = told_meanwhile  # type: ignore[method-assign]
        bench["preview"].act(True)
        bench.panel.tick()
        bench.settle()
        bench.settle()
        assert [text.count("⏳") for text in told] == [1, 1, 1]

    def test_prune_now_ends_it(self, bench: Bench) -> None:
        """From then on the real thing is shown; a preview on top of it would hide what was done."""
        bench["preview"].act(True)
        bench.panel.tick()
        bench["Prune now"].act()
        assert bench["preview"].value is False and len(bench.session.requests) == 1

    def test_is_made_anew_after_an_event(self, bench: Bench) -> None:
        """It would show neurons that have left."""
        bench["preview"].act(True)
        bench.panel.tick()
        bench.session.change(phase="recovery", last_event=None)
        bench.panel.tick()
        bench.settle()
        assert len(bench.session.previews) == 2

    def test_is_made_anew_after_another_event_at_the_same_step(self, bench: Bench) -> None:
        """A planned event may be undone, and another cut made by hand, at the end of the very step that it happened
        at. An event that is only measured in the meantime is the same one."""
        sizes = bench.session.state.sizes
        due = ScheduledEvent(7, Fraction(1))
        planned = PruneEvent(7, due, "coreset", "continue", before=sizes, after=sizes)
        bench.session.change(phase="recovery", last_event=planned)
        bench.panel.tick()
        bench["preview"].act(True)
        bench.panel.tick()
        assert len(bench.session.previews) == 1
        bench.session.change(last_event=replace(planned, metrics_after={"psnr": 20.0}, metrics_before={"psnr": 21.0}))
        bench.panel.tick()
        bench.settle()
        assert len(bench.session.previews) == 1
        bench.session.change(last_event=replace(planned, scheduled=None))
        bench.panel.tick()
        bench.settle()
        assert len(bench.session.previews) == 2


class TestPlots:
    """Nothing until the first one is asked for; then on demand, and after events."""

    def plots(self, bench: Bench) -> list[FakeElement]:
        return [element for element in bench.gui.elements if element.kind == "plotly"]

    def test_on_demand_only(self, bench: Bench) -> None:
        """The first one sends a program of 4 MB to every tab."""
        bench["plot"].act("sizes")
        bench.panel.tick()
        assert self.plots(bench) == []
        bench["Draw"].act()
        bench.panel.tick()
        (plot,) = self.plots(bench)
        assert plot.options["path"] == ("Pruning", "Plots")

    @pytest.mark.parametrize("name", ["scores", "weights", "sizes", "PSNR"])
    def test_all_kinds_in_one_element(self, bench: Bench, name: str) -> None:
        """Choosing another one redraws at once, in place."""
        bench["Draw"].act()
        bench.panel.tick()
        bench["plot"].act(name)
        bench.panel.tick()
        (plot,) = self.plots(bench)
        assert len(plot.figure.data) > 0 and plot.figure.layout.autosize

    @pytest.mark.parametrize(
        ("choice", "layers"),
        [
            ("all of fine", list(tiny_widths(0, 0, ("fine",)))),
            ("all of coarse", list(tiny_widths(0, 0, ("coarse",)))),
            ("field_coarse.mlp_head.layers.1", ["field_coarse.mlp_head.layers.1"]),
        ],
    )
    def test_scores_of_the_chosen_layers(self, bench: Bench, choice: str, layers: list[str]) -> None:
        """The fields have layers of the same names; curves of both in one plot could not be told apart."""
        assert list(bench["layer"].options["choices"])[:2] == ["all of fine", "all of coarse"]
        bench["Draw"].act()
        bench["layer"].act(choice)
        bench.panel.tick()
        (plot,) = self.plots(bench)
        assert [curve.name for curve in plot.figure.data if curve.mode == "lines"] == layers

    def test_again_after_an_event(self, bench: Bench) -> None:
        """A plot of the network of before would be taken for that of now."""
        bench["Draw"].act()
        bench.panel.tick()
        (plot,) = self.plots(bench)
        first = plot.figure
        bench.panel.tick()
        assert plot.figure is first
        bench.session.change(phase="recovery", step=9)
        bench.panel.tick()
        assert plot.figure is not first

    def test_waits_while_an_event_is_carried_out(self, bench: Bench) -> None:
        """The lock is taken then, and the panel would show nothing of what goes on."""
        bench.session.change(busy="pruning at step 8")
        bench["Draw"].act()
        bench.panel.tick()
        assert self.plots(bench) == []
        bench.session.change(busy="")
        bench.panel.tick()
        assert len(self.plots(bench)) == 1


@pytest.fixture
def running(bench: Bench) -> Iterator[Bench]:
    """A panel with its thread."""
    bench.panel.start()
    yield bench
    bench.panel.stop()


def test_thread_survives_what_goes_wrong(running: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """One error must not freeze the panel for the rest of a training of hours."""
    status, failures = running.session.status, iter([RuntimeError("boom")] * 3)

    def failing() -> Any:
        for failure in failures:
            raise failure
        return status()

    running.session.status = failing  # type: ignore[method-assign]
    running.session.change(phase="recovery")
    wait_until(lambda: running.panel.state.content.startswith("**recovery**"))
    assert "boom" in capsys.readouterr().out


def test_thread_ends_with_the_server(running: Bench) -> None:
    """viser's loop is closed at the end of a training; the thread must not fill the console from then on."""

    def closed() -> Any:
        raise RuntimeError("Event loop is closed")

    running.session.status = closed  # type: ignore[method-assign]
    wait_until(lambda: not running.panel._thread.is_alive())
