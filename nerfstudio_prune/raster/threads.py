"""Work in threads: compiled kernels let others run meanwhile."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
BLOCK = 4096
"""Gaussians that one thread works on at a time."""


def in_threads(work: Callable[[int], T], count: int) -> list[T]:
    """Results of a function for 0, 1 … in their order, from as many threads as torch would take.

    Args:
        work: Called with each number once; must write nowhere that another call writes.
        count: Calls.
    """
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        return [work(i) for i in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(count)))


def in_blocks(work: Callable[[slice], T], count: int) -> list[T]:
    """The same for blocks of Gaussians, which do not depend on the number of threads.

    Args:
        work: Called with the range of each block.
        count: Gaussians.
    """
    return in_threads(lambda i: work(slice(i * BLOCK, min((i + 1) * BLOCK, count))), -(-count // BLOCK))
