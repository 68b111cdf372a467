"""The pruning panel: elements, what they call, and a thread that keeps them up to date."""

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Optional, Protocol

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.core.form import Form, FormField
from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.core.subject import FurtherOutput
from nerfstudio_prune.engine.controller import ActionName
from nerfstudio_prune.engine.options import PruneOptions
from nerfstudio_prune.engine.steering import Message, RequestName
from nerfstudio_prune.viewer.elements import add_element
from nerfstudio_prune.viewer.preview import Preview, Scored
from nerfstudio_prune.viewer.scene_view import SceneView
from nerfstudio_prune.viewer.session import Cut, Status
from nerfstudio_prune.viewer.texts import layers_text, obstacle_text, plain, preview_text, request_text, state_text

SCORES, PSNR = "scores", "PSNR"
"""Names of plots; those of the values and of the sizes are called by the subject's words."""
PLOT_ASPECT = 1.0
TICK_SECONDS, LEAST_TICK_SECONDS = 0.5, 0.05
"""How often the state is looked at, and how soon at best after something was touched."""
SETTLE_SECONDS = 0.3
"""A preview is made when a slider has stood still for this long."""
LEAST_REFRESH_SECONDS, REFRESH_SHARE = 10.0, 0.1
"""While training goes on a preview is made anew at most this often, and in at most this share of the time."""
WORK_SHARE = 0.5
"""Previews and plots take at most this share of the time, however often they are asked for: the training waits."""


def check_press(name: str, value: Any) -> None:
    """Checks what arrives for a button.

    Raises:
        ValueError: Names the button.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} can only be pressed, got {shown(value)}")


def plural(word: str) -> str:
    """More than one of something."""
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def offered(field: FormField) -> Any:
    """The value of a field as its element can show it."""
    if not field.slider:
        return field.value
    return min(max(round(field.value, 2), field.low + field.step), field.high - field.step)


class PanelSession(Protocol):
    """The run as the panel sees it; `Session` is one."""

    @property
    def paused(self) -> bool:
        """Whether the planned events wait."""
        ...

    def pause(self, wanted: bool) -> None:
        """Lets the planned events wait, or go on; ValueError if that cannot be."""
        ...

    @property
    def options(self) -> PruneOptions:
        """Options in force."""
        ...

    @property
    def form(self) -> Form:
        """What a person may choose."""
        ...

    @property
    def step(self) -> int:
        """Training step that ended last."""
        ...

    def status(self) -> Status:
        """The state as it is."""
        ...

    def obstacle(self, name: ActionName) -> str:
        """Why something cannot be done; empty if it can."""
        ...

    def request(self, name: RequestName, cut: Optional[Cut] = None) -> None:
        """Passes a request on; ValueError if it cannot be made."""
        ...

    def preview(self, cut: Cut) -> Preview:
        """Makes a cut on a copy; ValueError if it is impossible."""
        ...

    @property
    def further(self) -> Mapping[str, FurtherOutput]:
        """What the viewer offers beside the outputs of the model and the comparison."""
        ...

    @property
    def scored(self) -> Optional[Scored]:
        """What `score` gave last."""
        ...

    def score(self, cut: Cut) -> Scored:
        """Takes the scores of a cut anew, for further outputs; ValueError if it has none."""
        ...

    def counts(self) -> list[tuple[int, int]]:
        """Training step, and how many units there have been since then."""
        ...

    def quality(self, preview: Preview) -> Optional[tuple[float, float]]:
        """PSNR without and with the cut, in dB; None where nothing is measured."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Name of the network -> all its weights, on the CPU."""
        ...

    def course(self) -> list[tuple[int, float]]:
        """Training steps and smoothed PSNR, in dB."""
        ...

    def history(self) -> list[PruneEvent]:
        """Events that happened, oldest first."""
        ...


class PrunePanel:
    """Elements inside the current container of viser, see `start`.

    Callbacks run on viser's threads. They read the elements and leave a note; previews and plots are made by the
    panel's own thread, and requests are carried out by the trainer's.

    Args:
        gui: viser's interface to its elements.
        session: The run.
        scene: What the viewer renders.
        rerender: Makes the viewer render anew.
    """

    def __init__(self, gui: Any, session: PanelSession, scene: SceneView, rerender: Callable[[], None]) -> None:
        self.gui = gui
        self.session = session
        self.scene = scene
        self.rerender = rerender
        self.message = Message()
        """What the panel itself has to say, besides what became of requests."""
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="prune-panel", daemon=True)
        self._texts: dict[str, str] = {}
        self._printed = Message()
        self._prints_from = 0.0
        self._rests_until = 0.0
        self._changed_at: Optional[float] = None
        self._told = ""
        self._made_at = 0.0
        self._made: Optional[tuple[Cut, Preview]] = None
        self._plot_wanted = False
        self._plot: Any = None
        self._event: object = None
        self._paused_at: Optional[int] = None
        self._score_wanted = False
        self._scored_for: object = None
        self._by_scores = {name for name, output in session.further.items() if output.needs == "scores"}
        self._options = session.options
        fields = session.form.fields(self._options)
        self._offered: Cut = {field.name: offered(field) for field in fields}
        self._fields: list[tuple[FormField, Any]] = []
        self._build(fields)

    def _build(self, fields: Sequence[FormField]) -> None:
        gui = self.gui
        self.folder = gui.add_folder("Pruning")
        with self.folder:
            self.state = gui.add_markdown("")
            status = self.session.status()
            words = status.words
            self.layers: Any = None
            if words.part:
                with gui.add_folder(f"{words.part.capitalize()}s", expand_by_default=False):
                    self.layers = gui.add_markdown("")
            with gui.add_folder("Cut"):
                self._build_cut(fields, words.whole)
            with gui.add_folder("Schedule", expand_by_default=False):
                self.pause = self._add(
                    FormField(
                        "pause", False, "Planned prunings wait; one that is overdue happens when this is switched off."
                    )
                )
                self.retarget = gui.add_button(
                    "Use cut for the plan",
                    color="gray",
                    hint="The prunings that are planned still use the choices from above. A resumed run keeps that "
                    "unless it is given such options again.",
                )
                self.reasons = gui.add_markdown("")
            self.plots = gui.add_folder("Plots", expand_by_default=False)
            with self.plots:
                values = plural(words.value)
                sizes = "sizes" if words.part else next(iter(status.labels.values()))
                self._names = (SCORES, values, sizes, PSNR)
                shows = f"of all {plural(words.part)}" if words.part else "over time"
                hint = (
                    f"scores: sorted, and where the cut is. {values}: how large they are. {sizes}: {shows}. "
                    "PSNR: over time, with the prunings."
                )
                self.plot = self._add(FormField("plot", SCORES, hint, self._names))
                self.layer = self._add_layers(status)
                self.draw = gui.add_button("Draw", hint=f"Draws the plot for the {words.whole} as it is now.")
        for element in self.elements.values():
            element.on_update(self._callback(self._on_cut, "cut"))
        self.preview.on_update(self._callback(self._on_preview, "preview"))
        self.pause.on_update(self._callback(self._on_pause, "pause"))
        self.prune.on_click(self._callback(self._on_prune, "prune"))
        self.undo.on_click(self._callback(partial(self._on_request, "undo"), "undo"))
        self.retarget.on_click(self._callback(partial(self._on_request, "retarget"), "retarget"))
        for element in filter(None, (self.plot, self.layer)):
            element.on_update(self._callback(partial(self._on_plot, only_again=True), "plot"))
        self.draw.on_click(self._callback(self._on_plot, "plot"))
        if self.score is not None:
            self.score.on_click(self._callback(self._on_score, "score"))
        self._update_unused()

    def _add_layers(self, status: Status) -> Any:
        """The choice of the parts whose scores are drawn; None where there is nothing to choose."""
        part, places = status.words.part, status.places
        if not part:
            self._layers: dict[str, list[str]] = {}
            return None
        # The networks' own names first, the last one before the others: it gives the picture.
        networks = list(dict.fromkeys(column for _, column in places.values()))[::-1]
        self._layers = {f"all of {name}": [p for p, (_, c) in places.items() if c == name] for name in networks}
        self._layers.update({name: [name] for name in places})
        layers = list(self._layers)
        hint = f"{part.capitalize()}s whose scores are shown; the other plots show all."
        return self._add(FormField(part, layers[0], hint, layers))

    def _callback(self, work: Callable[[], object], name: str) -> Callable[[Any], None]:
        return lambda _: self._guarded(work, name)

    def _add(self, field: FormField) -> Any:
        """The element of a field, inside the current container."""
        element = add_element(self.gui, field, offered(field))
        self._fields.append((field, element))
        return element

    def _checked(self, element: Any) -> Any:
        """The value of an element; ValueError if it is none that its field has."""
        (field,) = [field for field, found in self._fields if found is element]
        field.check(element.value)
        return element.value

    def checks(self) -> list[tuple[Any, Callable[[Any], None]]]:
        """All elements that a page can change or press, each with the check of a value that arrives for it."""
        buttons = {"prune": self.prune, "undo": self.undo, "retarget": self.retarget, "draw": self.draw}
        if self.score is not None:
            buttons["score"] = self.score
        pressed = [(button, partial(check_press, name)) for name, button in buttons.items()]
        return [*((element, field.check) for field, element in self._fields), *pressed]

    def _build_cut(self, fields: Sequence[FormField], whole: str) -> None:
        gui = self.gui
        self.elements: Mapping[str, Any] = {field.name: self._add(field) for field in fields}
        """Name of a field of the form -> its element."""
        self.preview = self._add(
            FormField(
                "preview",
                False,
                "Render the scene as it would look right after this cut. The training goes on uncut; output rgb_before "
                f"then shows the {whole} without the cut.",
            )
        )
        self.forecast = gui.add_markdown("")
        self.prune = gui.add_button(
            "Prune now", hint="Cut at the end of the running step, on the trainer's thread, beside the schedule."
        )
        self.undo = gui.add_button(
            "Undo",
            color="gray",
            hint=f"Back to {whole}, moments and history from before the last pruning of this process; step and "
            "schedule go on, and what it did to learning rates ends. Compare first: outputs rgb_before (grey if "
            "nothing is kept) and difference, split screen.",
        )
        self.requests = gui.add_markdown("")
        self.score: Any = None
        if self._by_scores:
            names = ", ".join(sorted(self._by_scores))
            self.score = gui.add_button(
                "Score now",
                color="gray",
                hint=f"Takes the scores of this cut anew, for output {names}. That is also done when it is first "
                "shown, and after a pruning while it is.",
            )
            self.scored = gui.add_markdown("")

    def start(self) -> None:
        """Begins to keep the elements up to date."""
        self._thread.start()

    def stop(self) -> None:
        """Ends that, and waits until it has ended."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def cut(self) -> Cut:
        """What the elements say, with None for what has no meaning beside the others."""
        values = {name: element.value for name, element in self.elements.items()}
        return {**values, **{name: None for name in self.session.form.unused(values)}}

    def _update_unused(self) -> None:
        unused = self.session.form.unused({name: element.value for name, element in self.elements.items()})
        for name, element in self.elements.items():
            element.disabled = name in unused

    def _on_cut(self) -> None:
        self._update_unused()
        if self.preview.value:
            self._changed_at = time.monotonic()
            self._wake.set()

    def _on_preview(self) -> None:
        if self._checked(self.preview):
            self._changed_at = time.monotonic() - SETTLE_SECONDS
        self._wake.set()

    def _on_prune(self) -> None:
        if self._on_request("prune") and self.preview.value:
            # From now on the real thing is shown.
            self.preview.value = False

    def _on_request(self, name: RequestName) -> bool:
        """Passes a request on, and whether it could be made."""
        try:
            self.session.request(name, None if name == "undo" else self.cut())
            self.message = Message()
        except ValueError as error:
            self.complain(f"{name}: {error}")
            return False
        finally:
            self._wake.set()
        return True

    def _on_pause(self) -> None:
        if self.pause.value == self.session.paused:
            return
        try:
            self.session.pause(self._checked(self.pause))
        finally:
            if self.pause.value != self.session.paused:
                self.pause.value = self.session.paused
            self._wake.set()

    def _on_plot(self, only_again: bool = False) -> None:
        if not only_again or self._plot is not None:
            self._plot_wanted = True
            self._wake.set()

    def _on_score(self) -> None:
        self._score_wanted = True
        self._wake.set()

    def complain(self, text: str) -> None:
        """Tells what cannot be done, in the panel and on the console. May be called by any thread."""
        self.message = Message(text, error=True)

    def _loop(self) -> None:
        while not self._stopped:
            self._wake.wait(TICK_SECONDS)
            time.sleep(LEAST_TICK_SECONDS)
            self._wake.clear()
            try:
                self.tick()
            except Exception as error:  # a panel that shows nothing new is better than none
                if self._stopped or "loop is closed" in str(error):  # the server has gone, or is going
                    return
                CONSOLE.print(f"[red]Pruning panel: {escape(traceback.format_exc())}")
                time.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Brings all elements up to date, and makes previews and plots that are due."""
        status = self.session.status()
        self._print()
        self._offer()
        self._refresh(status)
        if not self.preview.value and (self.scene.preview is not None or self._texts.get("forecast")):
            self._changed_at = self._made = None
            self._show_preview(None, "")
        if status.busy or time.monotonic() < self._rests_until:
            return
        # Step and plan tell an event; what is known of it grows until it is measured.
        last = status.last_event
        event = (status.phase, None if last is None else (last.step, last.scheduled))
        if event != self._event:
            if self._event is not None:
                self._plot_wanted = self._plot_wanted or self._plot is not None
                self._made = None
                if self.preview.value:
                    self._changed_at = time.monotonic()
                self.rerender()
            self._event = event
        paused_at = status.step if status.training == "paused" else None
        if paused_at not in (None, self._paused_at):
            # In a training the viewer shows a step now and then, and the last one only by chance.
            self.rerender()
        self._paused_at = paused_at
        start = time.monotonic()
        if self._preview_due(status):
            self._changed_at = None
            self._guarded(self._make_preview, "preview")
        if self._score_due():
            self._score_wanted, self._scored_for = False, event
            self._guarded(self._take_scores, "score")
        if self._plot_wanted:
            self._plot_wanted = False
            self._guarded(self._draw, "plot")
        end = time.monotonic()
        self._rests_until = end + (end - start) * (1 / WORK_SHARE - 1)

    def _print(self) -> None:
        """Prints what is complained of, not more often than the panel looks: a page can send nonsense much faster."""
        message, now = self.message, time.monotonic()
        if message != self._printed and now >= self._prints_from:
            self._printed, self._prints_from = message, now + TICK_SECONDS
            if message.error:
                CONSOLE.print(f"[red]Pruning panel: {escape(message.text)}")

    def _offer(self) -> None:
        """Follows the options of the run, which a checkpoint may have changed, unless a person has chosen others."""
        options = self.session.options
        if options == self._options:
            return
        untouched = {name: element.value for name, element in self.elements.items()} == self._offered
        self._options = options
        self._offered = {field.name: offered(field) for field in self.session.form.fields(options)}
        if untouched:
            for name, value in self._offered.items():
                if self.elements[name].value != value:
                    self.elements[name].value = value
            self._update_unused()

    def _score_due(self) -> bool:
        """Whether a person asks for scores, or looks at what is drawn from those of another network, or from none."""
        looks = bool(self._by_scores & self.scene.shown()) and self.scene.preview is None
        return self._score_wanted or (looks and self._scored_for != self._event)

    def _take_scores(self) -> None:
        self._set("scored", "⏳ scoring …")
        try:
            self.session.score(self.cut())
            self.message = Message()
        finally:
            scored = self.session.scored
            text = "" if scored is None else f"scores: {plain(scored.score_name)} at step {scored.step:,}"
            self._set("scored", text)
        self.rerender()

    def _preview_due(self, status: Status) -> bool:
        if not self.preview.value:
            return False
        now = time.monotonic()
        if self._changed_at is not None:
            return now >= self._changed_at + SETTLE_SECONDS
        if self._made is None or status.training != "training" or status.step == self._made[1].step:
            return False
        return now >= self._made_at + max(LEAST_REFRESH_SECONDS, self._made[1].seconds / REFRESH_SHARE)

    def _guarded(self, work: Callable[[], object], name: str) -> None:
        """Does work whose failure belongs into the panel and ends nothing."""
        try:
            work()
        except Exception as error:  # as above
            self.complain(f"{name}: {error}")
            if not isinstance(error, ValueError):
                CONSOLE.print(escape(traceback.format_exc()))
            if name == "preview":
                # The next try comes with the next change.
                self._made = None
                self._show_preview(None, "")

    def _made_for(self, cut: Cut) -> Preview:
        """The preview of a cut; that of the last one if it is the same and nothing has changed since."""
        if self._made is None or self._made[0] != cut or self._made[1].step != self.session.step:
            self._made = (cut, self.session.preview(cut))
        return self._made[1]

    def _make_preview(self) -> None:
        cut = self.cut()
        self._set("forecast", f"⏳ computing …  \n{self._told}")
        preview = self._made_for(cut)
        if not self._current(cut):
            return
        self._show_preview(preview, preview_text(preview, None))
        quality = self.session.quality(preview)
        if self._current(cut):
            self._show_preview(preview, preview_text(preview, quality))
            self.message = Message()
        self._made_at = time.monotonic()

    def _current(self, cut: Cut) -> bool:
        """Whether a preview of a cut is still wanted."""
        return bool(self.preview.value) and cut == self.cut()

    def _show_preview(self, preview: Optional[Preview], text: str) -> None:
        changed = preview is not self.scene.preview
        self.scene.preview = preview
        self._told = text
        self._set("forecast", text)
        if changed:
            self.rerender()

    def _draw(self) -> None:
        self._set("requests", "⏳ drawing …")
        from nerfstudio_prune.viewer import figures  # noqa: PLC0415  plotly takes a second

        name, status = self._checked(self.plot), self.session.status()
        words, (_, values, sizes, _) = status.words, self._names
        if name == SCORES:
            preview = self._made_for(self.cut())
            parts = list(preview.scores) if self.layer is None else self._layers[self._checked(self.layer)]
            figure = figures.scores_figure(preview, parts, words.member)
        elif name == values:
            figure = figures.weights_figure(self.session.weights(), words)
        elif name == sizes and words.part:
            names = [" ".join(reversed(place)) for place in status.places.values()]
            figure = figures.sizes_figure(status.sizes, status.initial, status.unit, names)
        elif name == sizes:
            figure = figures.counts_figure(self.session.counts(), sizes)
        else:
            figure = figures.psnr_figure(self.session.course(), self.session.history(), words.measured)
        if self._plot is None:
            # Only now: viser sends plotly's program, 4 MB, with the first plot.
            with self.plots:
                self._plot = self.gui.add_plotly(figure, aspect=PLOT_ASPECT)
        else:
            self._plot.figure = figure

    def _refresh(self, status: Status) -> None:
        """Texts, and which buttons can be pressed."""
        self._set("state", state_text(status))
        if self.layers is not None:
            self._set("layers", layers_text(status))
        buttons: dict[ActionName, Any] = {
            "prune": self.prune,
            "undo": self.undo,
            "retarget": self.retarget,
            "pause": self.pause,
        }
        reasons = {name: self.session.obstacle(name) for name in buttons}
        for name, button in buttons.items():
            button.disabled = bool(reasons[name])
        failure = "" if not self.scene.failure else f"⚠️ comparison: {plain(self.scene.failure)}"
        own = "" if not self.message.text else f"⚠️ {plain(self.message.text)}"
        cut_reasons = obstacle_text({"Prune now": reasons["prune"], "Undo": reasons["undo"]})
        self._set("requests", "  \n".join(filter(None, [own, failure, request_text(status), cut_reasons])))
        self._set("reasons", obstacle_text({"pause": reasons["pause"], "Use cut for the plan": reasons["retarget"]}))

    def _set(self, name: str, text: str) -> None:
        """Changes a text, and sends it only if it is another."""
        if self._texts.get(name) != text:
            self._texts[name] = text
            getattr(self, name).content = text
