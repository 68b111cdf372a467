"""Precision of products of float32 matrices: whether PyTorch's faster way is as exact on this machine.

With precision `medium` PyTorch hands products on a CPU to oneDNN. On some machines that is faster and rounds nothing;
on others, those with units for bfloat16, it is faster because it does. Which it is can only be measured.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

Precision = Literal["highest", "high", "medium"]
"""As in `torch.set_float32_matmul_precision`."""
WantedPrecision = Literal["auto", "highest", "high", "medium"]
Product = Callable[[torch.dtype], Tensor]
"""A product, computed in a type."""

ROWS, WIDTHS = 4096, (64, 128)
"""Points and widths of the products that are measured. A machine that rounds may not do so for a thousand rows less."""
ROUNDS = 3
"""Times that all of them are computed with each precision, in turns; the fastest counts."""
GAIN = 1.25
"""How much faster medium has to be. A smaller gain is lost in what a busy machine does to times: a run and the one that
goes on with it would choose differently, and end in other bits."""
MOST_ERROR = 4.0
"""Its largest relative error, as a multiple of that with highest: another order of the same sums."""


@dataclass(frozen=True)
class Comparison:
    """Precision medium beside highest."""

    gain: float
    """How many times faster medium is."""
    error: float
    """Relative error of medium, of the product where it does worst."""
    highest_error: float
    """Relative error of highest, of the same product."""

    @property
    def exact(self) -> bool:
        """Whether medium rounds no more than float32 does."""
        return self.error <= MOST_ERROR * self.highest_error

    @property
    def choice(self) -> Precision:
        """The faster one that is exact."""
        return "medium" if self.exact and self.gain >= GAIN else "highest"

    @property
    def reason(self) -> str:
        """Why, in a few words."""
        times = f"{self.gain:.1f} times as fast"
        if not self.exact:
            return (
                f"medium is {times} here, but rounds the factors: relative error {self.error:.1e}, with highest "
                f"{self.highest_error:.1e}"
            )
        if self.choice == "highest":
            return f"medium is just as exact here, but only {times}"
        return f"{times} here as highest, and as exact: relative error {self.error:.1e}"


def typical_products() -> list[Product]:
    """Those of a layer in training: forward, for the gradient of what came in, for that of the weights; and a batch."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def of_layer(width: int) -> list[Product]:
        x, gradient, weight, bias = drawn(ROWS, width), drawn(ROWS, width), drawn(width, width), drawn(width)
        return [
            lambda kind: torch.addmm(bias.to(kind), x.to(kind), weight.to(kind).T),
            lambda kind: gradient.to(kind) @ weight.to(kind),
            lambda kind: gradient.to(kind).T @ x.to(kind),
        ]

    one, other = drawn(32, 128, 64), drawn(32, 64, 64)
    return [product for width in WIDTHS for product in of_layer(width)] + [lambda kind: one.to(kind) @ other.to(kind)]


@torch.no_grad()
def compare(products: Sequence[Product], clock: Callable[[], float] = time.thread_time) -> Comparison:
    """Computes products with both precisions, on one thread, whose own clock does not see what else the machine does.

    Args:
        products: What to compute.
        clock: Seconds.
    """
    threads, former = torch.get_num_threads(), torch.get_float32_matmul_precision()
    pair: tuple[Precision, Precision] = ("highest", "medium")
    errors: list[list[float]] = []
    seconds: dict[Precision, list[float]] = {precision: [] for precision in pair}
    try:
        torch.set_num_threads(1)
        exact = [product(torch.float64) for product in products]
        for precision in pair:
            torch.set_float32_matmul_precision(precision)
            errors.append([_error(p(torch.float32), e) for p, e in zip(products, exact, strict=True)])
        for _ in range(ROUNDS):
            for precision in pair:
                torch.set_float32_matmul_precision(precision)
                start = clock()
                for product in products:
                    product(torch.float32)
                seconds[precision].append(clock() - start)
    finally:
        torch.set_float32_matmul_precision(former)
        torch.set_num_threads(threads)
    highest_error, error = max(zip(*errors, strict=True), key=lambda both: both[1] / both[0])
    fastest = min(seconds["medium"])
    gain = min(seconds["highest"]) / fastest if fastest else 1.0  # some systems count in hundredths of a second
    return Comparison(gain, error, highest_error)


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@cache
def comparison() -> Comparison:
    """What holds on this machine; measured once for a process."""
    return compare(typical_products())


def set_precision(wanted: WantedPrecision, device: torch.device) -> str:
    """Sets the precision of products, for the whole process.

    Args:
        wanted: The precision; `auto` leaves one that somebody else has set, and the highest on a GPU.
        device: Where the products are computed.

    Returns:
        What `auto` chose and why, in one line; empty where there was nothing to choose.
    """
    if wanted != "auto":
        torch.set_float32_matmul_precision(wanted)
        return ""
    former = torch.get_float32_matmul_precision()
    if former != get_args(Precision)[0]:
        return f"Products: {former}, as it was set before"
    if device.type != "cpu":
        return ""
    found = comparison()
    torch.set_float32_matmul_precision(found.choice)
    return f"Products: {found.choice} ({found.reason})"


def keep_precision(former: object) -> str:
    """Sets the precision that a run on a CPU had chosen before it was interrupted, where this machine is as exact with
    it: chosen by the clock once more it may come out differently, and the run would end in other bits.

    Args:
        former: What its checkpoint says; nothing is done where that is no precision.

    Returns:
        What is in force and why, in one line; empty if nothing was changed.
    """
    if former == torch.get_float32_matmul_precision() or former not in get_args(Precision):
        return ""
    if former != get_args(Precision)[0] and not comparison().exact:
        return ""
    torch.set_float32_matmul_precision(former)  # type: ignore[arg-type]
    return f"Products: {former}, as in the run that goes on here"
