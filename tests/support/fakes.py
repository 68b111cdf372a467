"""viser's elements and the run behind the panel, without server, browser or training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Optional

import torch

from nerfstudio_prune.core.events import PruneEvent, Sizes
from nerfstudio_prune.core.form import Form
from nerfstudio_prune.core.subject import FurtherOutput, Subject
from nerfstudio_prune.engine.controller import ActionName
from nerfstudio_prune.engine.options import PruneOptions
from nerfstudio_prune.engine.steering import Message, RequestName
from nerfstudio_prune.viewer.preview import Preview, Scored
from nerfstudio_prune.viewer.session import Cut, Status


class FakeElement:
    """An element of any kind; notes every change that would be sent to the page."""

    sent: list[tuple[str, Any]]
    callbacks: list[Callable[[Any], None]]
    content: str
    figure: Any

    def __init__(self, kind: str, label: str = "", value: Any = None, **options: Any) -> None:
        object.__setattr__(self, "sent", [])
        object.__setattr__(self, "callbacks", [])
        self.kind, self.label, self.options = kind, label, options
        self.disabled = False
        self.value = value
        self.sent.clear()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("value", "content", "disabled", "figure") and getattr(self, name, None) != value:
            self.sent.append((name, value))
        object.__setattr__(self, name, value)

    def on_update(self, function: Callable[[Any], None]) -> None:
        self.callbacks.append(function)

    on_click = on_update

    def act(self, value: Any = None) -> None:
        """A person changes the value, or presses the button; a button that is disabled does nothing."""
        if self.disabled:
            return
        if value is not None:
            self.value = value
        for function in self.callbacks:
            function(SimpleNamespace(target=self))


class FakeFolder:
    """A container; what is added inside of `with` is in it."""

    def __init__(self, gui: "FakeGui", label: str) -> None:
        self.gui, self.path = gui, [*gui.path, label]

    def __enter__(self) -> None:
        self.outside, self.gui.path = self.gui.path, self.path

    def __exit__(self, *error: object) -> None:
        self.gui.path = self.outside


class FakeGui:
    """Stands in for `viser.ViserServer.gui`."""

    def __init__(self) -> None:
        self.elements: list[FakeElement] = []
        self.path: list[str] = []

    def _add(self, kind: str, label: str = "", value: Any = None, **options: Any) -> FakeElement:
        self.elements.append(FakeElement(kind, label, value, path=tuple(self.path), **options))
        return self.elements[-1]

    def add_folder(self, label: str, **options: Any) -> "FakeFolder":
        return FakeFolder(self, label)

    def add_markdown(self, content: str) -> FakeElement:
        element = self._add("markdown")
        element.content = content
        return element

    def add_button(self, label: str, **options: Any) -> FakeElement:
        return self._add("button", label, **options)

    def add_checkbox(self, label: str, initial_value: bool, **options: Any) -> FakeElement:
        return self._add("checkbox", label, initial_value, **options)

    def add_number(self, label: str, initial_value: float, **options: Any) -> FakeElement:
        return self._add("number", label, initial_value, **options)

    def add_slider(self, label: str, low: float, high: float, step: float, value: float, **options: Any) -> FakeElement:
        assert low <= value <= high
        return self._add("slider", label, value, **options)

    def add_dropdown(
        self, label: str, choices: Sequence[str], value: Optional[str] = None, **options: Any
    ) -> FakeElement:
        assert value is None or value in choices
        return self._add("dropdown", label, value if value is not None else choices[0], choices=choices, **options)

    def add_plotly(self, figure: Any, **options: Any) -> FakeElement:
        element = self._add("plotly", **options)
        element.figure = figure
        return element


class FakeScreen:
    """Stands in for the viewer's control panel: one output is shown."""

    output_render, split_output_render, split = "rgb", "rgb", False


def uncalibrated(calibration: Any, seed: int) -> Any:
    """Stands in for the collection of samples where there are no rays."""
    raise AssertionError("this test has no rays to calibrate on")


class FakeSession:
    """Stands in for `Session`: notes what the panel asks for, and says what a test wants it to say."""

    def __init__(self, options: PruneOptions, subject: Subject[Any]) -> None:
        self.subject = subject
        self.options = options
        self.paused = False
        self.step = 7
        self.obstacles: dict[str, str] = {}
        self.requests: list[tuple[str, Optional[Cut]]] = []
        self.previews: list[Cut] = []
        self.failure: Optional[Exception] = None
        self.scored: Optional[Scored] = None
        sizes = Sizes(subject.sizes().parts, {"parameters": 1000, "macs_per_ray": 2_000_000})
        self.state = Status(
            phase="dense",
            step=7,
            training="training",
            paused=False,
            next_event=None,
            target="target_parameters 0.28",
            sizes=sizes,
            initial=sizes,
            unit=subject.unit,
            labels=subject.labels,
            places={part: subject.place(part) for part in sizes.parts},
            summary=self._summary(sizes, sizes),
            rays_per_sec=0.0,
            last_event=None,
            waiting=(),
            busy="",
            message=Message(),
            words=subject.words,
        )

    @property
    def form(self) -> Form:
        return self.subject.form

    def status(self) -> Status:
        return self.state

    def change(self, **values: Any) -> None:
        """The run goes on."""
        state = replace(self.state, **values)
        self.state = replace(state, summary=self._summary(state.initial, state.sizes))
        self.step = state.step

    def obstacle(self, name: ActionName) -> str:
        return self.obstacles.get(name, "")

    def pause(self, wanted: bool) -> None:
        if self.obstacle("pause"):
            raise ValueError(self.obstacle("pause"))
        self.paused = wanted

    def request(self, name: RequestName, cut: Optional[Cut] = None) -> None:
        if self.failure is not None:
            raise self.failure
        if self.obstacle(name):
            raise ValueError(self.obstacle(name))
        self.requests.append((name, cut))

    def preview(self, cut: Cut) -> Preview:
        if self.failure is not None:
            raise self.failure
        self.previews.append(cut)
        sizes = self.state.sizes
        halves = {name: size // 2 for name, size in sizes.parts.items()}
        after = Sizes(halves, {"parameters": 400, "macs_per_ray": 500_000})
        scores = {name: torch.arange(size, dtype=torch.float64) for name, size in sizes.parts.items()}
        summary = self._summary(sizes, after)
        return Preview(self.state.step, self.subject.detached().model, sizes, after, summary, "w_out", scores, 0.5)

    def quality(self, preview: Preview) -> Optional[tuple[float, float]]:
        return 20.0, 19.5

    @property
    def further(self) -> Mapping[str, FurtherOutput]:
        return self.subject.further_outputs

    def score(self, cut: Cut) -> Scored:
        if self.failure is not None:
            raise self.failure
        self.scored = Scored(self.state.step, "w_out", {})
        return self.scored

    def counts(self) -> list[tuple[int, int]]:
        return [(0, 1000), (5, 400)]

    def weights(self) -> dict[str, torch.Tensor]:
        return self.subject.weights()

    def course(self) -> list[tuple[int, float]]:
        return [(0, 10.0), (1, 11.0)]

    def history(self) -> list[PruneEvent]:
        return []

    def _summary(self, before: Sizes, after: Sizes) -> list[tuple[str, str, str]]:
        rows = zip(self.subject.summary(before), self.subject.summary(after), strict=True)
        return [(label, first, then) for (label, first), (_, then) in rows]
