"""Nonsense for the panel: values that no element offers, set past all checks of the server.

By hand, for 10,000 of them: `python tests/stress/panel_values.py --count 10000`.
"""

import argparse
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fakes import FakeGui, FakeScreen, FakeSession, uncalibrated
from support.nonsense import nonsense
from support.tiny_run import tiny_model

from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.viewer import panel as panel_module
from nerfstudio_prune.viewer.panel import PrunePanel, check_press
from nerfstudio_prune.viewer.scene_view import SceneView


class CheckedSession(FakeSession):
    """A fake run whose requests and previews go through the form, as those of a real one do."""

    def request(self, name: Any, cut: Any = None) -> None:
        if cut is not None:
            self.form.options(cut, self.options)
        super().request(name, cut)

    def preview(self, cut: Any) -> Any:
        self.form.options(cut, self.options)
        return super().preview(cut)


def throw(count: int, seed: int = 0) -> Counter[str]:
    """Sets elements to nonsense, presses everything, and looks at what comes of it.

    Args:
        count: How many values.
        seed: Seed of the choices.

    Returns:
        What came of the values: `refused` ones were named in a complaint, `harmless` ones asked for nothing.

    Raises:
        AssertionError: If one was asked for, or changed what holds.
    """
    draw, found = random.Random(seed), Counter[str]()
    model = tiny_model()
    session = CheckedSession(PruneConfig().filled(), subject_of("obs", model, uncalibrated))
    panel = PrunePanel(FakeGui(), session, SceneView(model, FakeScreen(), lambda: None), lambda: None)
    checks = panel.checks()
    good = {id(element): element.value for element, _ in checks}
    for _ in range(count):
        element, check = draw.choice(checks)
        # What arrives for a button does not matter: it is pressed.
        button = getattr(check, "func", None) is check_press
        value = None if button else nonsense(draw, check)
        panel.message = panel_module.Message()
        if not button:
            element.value = value
        for press in ([], [panel.prune], [panel.retarget], [panel.draw], [panel.preview])[draw.randrange(5)]:
            press.act(True)
        element.act()
        panel._changed_at = None if panel._changed_at is None else panel._changed_at - panel_module.SETTLE_SECONDS
        panel._rests_until = 0.0
        panel.tick()
        for name, cut in session.requests:
            assert cut is None or session.form.options(cut, session.options) is not None, (name, cut)
        assert session.paused in (False, True) and panel.scene.failure == ""
        found["refused" if panel.message.error else "harmless"] += 1
        session.requests.clear()
        for other, _ in checks:
            other.value, other.disabled = good[id(other)], False
        panel.tick()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(dict(throw(asked.count, asked.seed)))
