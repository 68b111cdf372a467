"""A tiny training in this process with the host's own viewer and a real server, but no browser."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nerfstudio_prune.viewer import mounting
from nerfstudio_prune.viewer.panel import PrunePanel
from support.browser import free_port
from support.tiny_run import start


@contextmanager
def with_panel(config: Any, host: str = "127.0.0.1", **options: Any) -> Iterator[tuple[Any, PrunePanel]]:
    """A trainer with a viewer, and its panel.

    Args:
        config: Configuration of the run.
        host: What the viewer listens on.
        options: Of `tiny_run.start`.
    """
    config.vis = "viewer"
    config.viewer.websocket_host, config.viewer.websocket_port = host, free_port()
    config.viewer.quit_on_train_completion = True
    with caught_panel() as panels:
        trainer = start(config, **options)
    (panel,) = panels
    try:
        yield trainer, panel
    finally:
        panel.stop()
        trainer.viewer_state.viser_server.stop()


@contextmanager
def caught_panel() -> Iterator[list[PrunePanel]]:
    """Catches the panels that are mounted meanwhile."""
    panels: list[PrunePanel] = []
    inner: Callable[..., PrunePanel] = mounting.PrunePanel

    def spy(*args: Any) -> PrunePanel:
        panels.append(inner(*args))
        return panels[-1]

    mounting.PrunePanel = spy  # type: ignore[misc,assignment]
    try:
        yield panels
    finally:
        mounting.PrunePanel = inner  # type: ignore[misc,assignment]
