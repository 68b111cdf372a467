"""What a machine can compute at most: the best product of matrices."""

from collections.abc import Callable, Collection

import torch

from nerfstudio_prune.engine.products import Precision

SIDES = (512, 1024, 2048)
"""Sides of the matrices: some fit into a cache, others keep all units busy for longer."""


@torch.no_grad()
def peak_flops(
    precisions: Collection[Precision], device: torch.device, clock: Callable[[], float], sides: tuple[int, ...] = SIDES
) -> float:
    """Operations a second of the best product of square float32 matrices; two for each multiply-accumulate.

    Args:
        precisions: Precisions of products to try; which one is set is left as it was.
        device: Where to compute.
        clock: Seconds.
        sides: Sides of the matrices.
    """
    former, best = torch.get_float32_matmul_precision(), 0.0
    generator = torch.Generator().manual_seed(0)
    try:
        for precision in sorted(precisions):
            torch.set_float32_matmul_precision(precision)
            for side in sides:
                one, other = (torch.randn(side, side, generator=generator).to(device) for _ in range(2))
                result = torch.empty(side, side, device=device)
                torch.mm(one, other, out=result)
                count = max(1, (sides[-1] // side) ** 2)
                start = clock()
                for _ in range(count):
                    torch.mm(one, other, out=result)
                best = max(best, 2 * count * side**3 / max(clock() - start, 1e-9))
    finally:
        torch.set_float32_matmul_precision(former)
    return best
