"""Pictures for the pages that look on: soon, then sharp. Knows no server and no network.

While a camera moves, a picture has as many pixels as can be rendered in time; once it rests, each further one has twice
as many rows, up to the sharpest.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.opening.cameras import Pose, rays_of

RenderFn = Callable[[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]], Float[Tensor, "rays channels"]]
"""Origins and directions of rays -> what is shown of them."""
ShowFn = Callable[[Float[Tensor, "height width channels"]], None]
"""Takes a picture that is done."""
LEAST = 16
"""Rows of the smallest picture."""
FIRST_RATE = 2000.0
"""Rays in a second, until it is known how many."""


class Pace:
    """How many rays can be rendered in a second, as the last pictures were.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.rate = FIRST_RATE

    def note(self, rays: int, seconds: float) -> None:
        """Takes up what some rays took.

        Args:
            rays: How many.
            seconds: How long.
        """
        self.rate += 0.5 * (rays / max(seconds, 1e-6) - self.rate)

    def rows_in(self, seconds: float, aspect: float, most: int) -> int:
        """Rows of the largest picture that is rendered in time.

        Args:
            seconds: The time.
            aspect: Width of the picture by its height.
            most: Rows of the sharpest picture.
        """
        return max(LEAST, min(most, int((self.rate * seconds / aspect) ** 0.5)))


@dataclass
class _Look:
    """What one page looks at."""

    pose: Pose
    show: ShowFn
    shown: int = 0
    """Rows of the picture that was shown of it; 0: none yet."""


class Pictures:
    """Renders what all pages look at, one picture after the other.

    Args:
        render: Renders rays; called by one thread at a time.
        most: Rows of the sharpest picture.
        seconds: What a picture may take while the camera moves.
        pace: How fast it is.
    """

    def __init__(self, render: RenderFn, most: int, seconds: float, pace: Optional[Pace] = None) -> None:
        self.render, self.most, self.seconds = render, most, seconds
        self.pace = Pace() if pace is None else pace
        self._looks: dict[int, _Look] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def look(self, page: int, pose: Pose, show: ShowFn) -> None:
        """A page looks somewhere else; what was being rendered for it is given up.

        Args:
            page: Number of the page.
            pose: Its camera.
            show: Takes its pictures.
        """
        with self._changed:
            self._looks[page] = _Look(pose, show)
            self._changed.notify()

    def leave(self, page: int) -> None:
        """A page was closed.

        Args:
            page: Its number.
        """
        with self._changed:
            self._looks.pop(page, None)

    def again(self, most: int) -> None:
        """All pages are to be shown anew, for something else is to be seen.

        Args:
            most: Rows of the sharpest picture from now on.
        """
        with self._changed:
            self.most = most
            self._looks = {page: _Look(look.pose, look.show) for page, look in self._looks.items()}
            self._changed.notify()

    def stop(self) -> None:
        """Ends `run` soon."""
        with self._changed:
            self._stopped = True
            self._looks.clear()
            self._changed.notify()

    def run(self) -> None:
        """Renders until it is stopped."""
        while not self._stopped:
            if not self.step():
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._next() is not None)

    def step(self) -> bool:
        """Renders one picture and shows it; False if all pages have their sharpest one."""
        with self._changed:
            found = self._next()
        if found is None:
            return False
        page, look = found
        if look.shown:
            height = min(self.most, 2 * look.shown)
        else:
            height = self.pace.rows_in(self.seconds, look.pose.aspect, self.most)
        picture = self._picture(page, look, height)
        if picture is not None:
            look.shown = height
            look.show(picture)
        return True

    def _next(self) -> Optional[tuple[int, _Look]]:
        """The page whose picture is the coarsest."""
        waiting = [(look.shown, page) for page, look in self._looks.items() if look.shown < self.most]
        if not waiting:
            return None
        page = min(waiting)[1]
        return page, self._looks[page]

    @torch.no_grad()
    def _picture(self, page: int, look: _Look, height: int) -> Optional[Float[Tensor, "height width channels"]]:
        """A whole picture; None if the page looks elsewhere meanwhile."""
        width, rows, begin = max(1, round(height * look.pose.aspect)), [], 0
        while begin < height:
            if self._looks.get(page) is not look:
                return None
            # Some rows at a time, which take about as long as a picture may.
            end = min(height, begin + max(1, int(self.pace.rate * self.seconds / width)))
            before = self.pace.clock()
            rows.append(self.render(*rays_of(look.pose, width, height, begin, end)).view(end - begin, width, -1))
            self.pace.note((end - begin) * width, self.pace.clock() - before)
            begin = end
        return torch.cat(rows)
