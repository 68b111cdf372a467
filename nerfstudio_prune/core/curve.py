"""The course of a value over the training, smoothed and thinned out, for a person who looks on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


class TrainingCurve:
    """Running mean of a value of every step. Keeps a bounded number of points, however long the training.

    Values stay on their device until they are asked for, so that no step waits for them.

    Args:
        smoothing: Weight of the past in the running mean, in [0, 1).
        max_points: When there are more points every other one is dropped, >= 2.
    """

    def __init__(self, smoothing: float = 0.95, max_points: int = 1000) -> None:
        self.smoothing = smoothing
        self.max_points = max_points
        self._interval = 1
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._mean: Tensor | float = 0.0
        self._points: list[tuple[int, Tensor]] = []

    def add(self, step: int, value: Float[Tensor, ""]) -> None:
        """Takes up the value of a step; one that is not finite does not count.

        Args:
            step: Training step, larger than the one before.
            value: Its value.
        """
        value = value.detach()
        counts = torch.isfinite(value)
        # The weights of the past sum up to less than 1 at first; dividing by their sum keeps the mean unbiased.
        self._mean = self.smoothing * self._mean + (1 - self.smoothing) * torch.where(counts, value, 0.0)
        self._sum = self.smoothing * self._sum + (1 - self.smoothing) * counts.to(value.dtype)
        if self._count % self._interval == 0:
            points = [*self._points, (step, self._mean / self._sum)]
            if len(points) > self.max_points:
                points, self._interval = points[::2], 2 * self._interval
            self._points = points  # one assignment: another thread may be reading
        self._count += 1

    def points(self) -> list[tuple[int, float]]:
        """Training steps and the running mean there, oldest first."""
        points = [(step, float(value)) for step, value in self._points]
        return [(step, value) for step, value in points if math.isfinite(value)]
