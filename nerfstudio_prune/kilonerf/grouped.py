"""Products of many small matrices with sorted rows: each group of rows has a matrix of its own.

Four ways of the same product. None is the best everywhere: on a CPU PyTorch's own is faster where a group has tens of
rows, padded batches where it has few. Tiles need a handful of kernels whatever the groups are, for GPUs, where
PyTorch's own is documented for bfloat16 alone. A loop needs nothing but a matrix product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.functional import pad

Way = Literal["native", "buckets", "tiles", "loop"]
"""native: `torch.nn.functional.grouped_mm`; buckets: padded batches of groups of like size; tiles: one batch of pieces
of `TILE_ROWS` rows, each with a copy of its group's matrix; loop: group by group."""
Evaluation = Literal["auto", "native", "buckets", "tiles", "loop"]
"""A way, or the one that suits the groups and passes on this machine."""

ALIGNED_BYTES = 16
"""Rows of the native way begin at multiples of this."""
LIKE, LIKE_ROWS = 0.7, 4
"""Groups share a bucket if the smaller has this share of the larger one's rows, or lacks no more rows than this."""
TILE_ROWS = 32
"""Rows of a tile: about as many as a group has in a training step, so that little is filled up."""
ROWS_FOR_NATIVE = 8
"""Mean rows of a group from which the native way is the faster one."""


@dataclass(frozen=True, eq=False)
class Groups:
    """How sorted rows fall into groups; groups may be empty."""

    ends: Int32[Tensor, " groups"]
    """Row behind the last one of each group, ascending."""

    @classmethod
    def of_counts(cls, counts: Int64[Tensor, " groups"]) -> "Groups":
        """Groups of given sizes.

        Args:
            counts: Rows of each group, >= 0.
        """
        return cls(counts.cumsum(dim=0).int())

    @cached_property
    def bounds(self) -> list[int]:
        """Row at which each group begins, and the number of rows."""
        return [0, *self.ends.tolist()]

    @property
    def rows(self) -> int:
        """Number of rows of all groups."""
        return self.bounds[-1]

    @cached_property
    def buckets(self) -> list["Bucket"]:
        """Groups of like size side by side; empty ones are in none."""
        ends = self.ends.long()
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        counts, order = (ends - starts).sort(descending=True)
        sizes, found, first = counts.tolist(), [], 0
        while first < len(sizes) and sizes[first]:
            size, last = sizes[first], first
            while last < len(sizes) and sizes[last] and (sizes[last] >= LIKE * size or size - sizes[last] <= LIKE_ROWS):
                last += 1
            groups, within = order[first:last], torch.arange(size, device=ends.device)
            valid = within < counts[first:last, None]
            rows = (starts[groups][:, None] + within).masked_fill(~valid, 0)
            found.append(Bucket(groups, rows, valid))
            first = last
        return found

    @cached_property
    def tiles(self) -> "Tiles":
        """All groups in pieces of equal size."""
        ends = self.ends.long()
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        counts = (ends - starts + TILE_ROWS - 1) // TILE_ROWS
        before = counts.cumsum(dim=0) - counts
        group = torch.arange(len(ends), device=ends.device).repeat_interleave(counts)
        within = torch.arange(TILE_ROWS, device=ends.device)
        first = starts[group] + (torch.arange(len(group), device=ends.device) - before[group]) * TILE_ROWS
        rows = first[:, None] + within
        valid = rows < ends[group][:, None]
        shift = (before * TILE_ROWS - starts).repeat_interleave(ends - starts)
        place = torch.arange(self.rows, device=ends.device) + shift
        return Tiles(group, rows.masked_fill(~valid, 0), valid, place, counts)


@dataclass(frozen=True, eq=False)
class Tiles:
    """Groups in pieces of equal size, the last one of each filled up."""

    group: Int64[Tensor, " tiles"]
    """Group of each tile, ascending."""
    rows: Int64[Tensor, "tiles rows"]
    """Numbers of their rows; 0 where there is none."""
    valid: Bool[Tensor, "tiles rows"]
    """Where there is one."""
    place: Int64[Tensor, " all"]
    """Where each row of the groups stands among those of the tiles."""
    counts: Int64[Tensor, " groups"]
    """Tiles of each group."""

    def gathered(self, x: Float[Tensor, "all width"]) -> Float[Tensor, "tiles rows width"]:
        """Rows of the tiles, zero where there is none."""
        found = x.index_select(0, self.rows.flatten()).view(*self.rows.shape, x.shape[1])
        return found.masked_fill(~self.valid[..., None], 0.0)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Groups that are multiplied at once, the shorter ones filled up."""

    groups: Int64[Tensor, " members"]
    """Their numbers."""
    rows: Int64[Tensor, "members rows"]
    """Numbers of their rows; 0 where there is none."""
    valid: Bool[Tensor, "members rows"]
    """Where there is one."""

    def gathered(self, x: Float[Tensor, "all width"]) -> Float[Tensor, "members rows width"]:
        """Rows of the groups, zero where there is none."""
        found = x.index_select(0, self.rows.flatten()).view(*self.rows.shape, x.shape[1])
        return found.masked_fill(~self.valid[..., None], 0.0)


def grouped_matmul(
    x: Float[Tensor, "rows inputs"],
    weights: Float[Tensor, "groups inputs outputs"],
    groups: Groups,
    way: Evaluation = "auto",
) -> Float[Tensor, "rows outputs"]:
    """Multiplies each group of rows with the group's matrix; gradients reach both.

    Args:
        x: The rows, sorted by group.
        weights: Matrix of each group.
        groups: Which rows are whose. None, empty groups and no rows are allowed.
        way: How; all agree within rounding.

    Raises:
        ValueError: If groups, rows and matrices do not fit, or "native" is asked for where it does not pass its check.
    """
    if len(groups.ends) != len(weights) or groups.rows != len(x):
        raise ValueError(
            f"{len(weights)} matrices and {len(x)} rows need as many groups and rows, got {len(groups.ends)} groups of "
            f"{groups.rows} rows"
        )
    with _full_precision(x.device):
        return _grouped_matmul(x, weights, groups, way)


def _full_precision(device: torch.device) -> torch.autocast:
    """Without autocast, which would give the ways results of other types than they have made room for."""
    return torch.autocast(device.type if device.type in ("cpu", "cuda") else "cpu", enabled=False)


def _grouped_matmul(x: Tensor, weights: Tensor, groups: Groups, way: Evaluation) -> Tensor:
    if way == "auto":
        way = _suited(x, groups)
    elif way == "native" and not native_works(x.device, x.dtype):
        raise ValueError(
            "model.evaluation native needs torch.nn.functional.grouped_mm to agree with a loop; here it does not "
            f"(PyTorch {torch.__version__}, {x.device.type}, {x.dtype}); choose auto, buckets, tiles or loop"
        )
    return _apply(x, weights, groups, way)


def _suited(x: Tensor, groups: Groups) -> Way:
    """The way that is fast for these groups on this device, and passes its check."""
    if x.device.type != "cpu":
        return "tiles"
    dense = groups.rows >= ROWS_FOR_NATIVE * len(groups.ends)
    return "native" if dense and native_works(x.device, x.dtype) else "buckets"


def _apply(x: Tensor, weights: Tensor, groups: Groups, way: Way) -> Tensor:
    result: Any = _GroupedProduct.apply(x, weights, groups, way)
    return result


class _GroupedProduct(torch.autograd.Function):
    """The product, and its gradients as two more such products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, groups: Groups, way: Way) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.groups, ctx.way = groups, way
        return _PRODUCTS[way](x, weights, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, Any, None, None]:
        x, weights = ctx.saved_tensors
        # The native way takes no gradient that is expanded from a sum.
        gradient = gradients[0].contiguous()
        of_x = of_weights = None
        with _full_precision(x.device):
            if ctx.needs_input_grad[0]:
                of_x = _PRODUCTS[ctx.way](gradient, weights.transpose(1, 2), ctx.groups)
            if ctx.needs_input_grad[1]:
                of_weights = _OUTER_PRODUCTS[ctx.way](x, gradient, ctx.groups)
        return of_x, of_weights, None, None


def _loop_product(x: Tensor, weights: Tensor, groups: Groups) -> Tensor:
    result = x.new_empty(len(x), weights.shape[2])
    for group, (begin, end) in enumerate(pairwise(groups.bounds)):
        if end > begin:
            torch.mm(x[begin:end], weights[group], out=result[begin:end])
    return result


def _loop_outer(x: Tensor, gradient: Tensor, groups: Groups) -> Tensor:
    result = x.new_zeros(len(groups.ends), x.shape[1], gradient.shape[1])
    for group, (begin, end) in enumerate(pairwise(groups.bounds)):
        if end > begin:
            torch.mm(x[begin:end].T, gradient[begin:end], out=result[group])
    return result


def _bucket_product(x: Tensor, weights: Tensor, groups: Groups) -> Tensor:
    result = x.new_empty(len(x), weights.shape[2])
    for bucket in groups.buckets:
        product = bucket.gathered(x) @ weights.index_select(0, bucket.groups)
        result.index_copy_(0, bucket.rows[bucket.valid], product[bucket.valid])
    return result


def _bucket_outer(x: Tensor, gradient: Tensor, groups: Groups) -> Tensor:
    result = x.new_zeros(len(groups.ends), x.shape[1], gradient.shape[1])
    for bucket in groups.buckets:
        result.index_copy_(0, bucket.groups, bucket.gathered(x).transpose(1, 2) @ bucket.gathered(gradient))
    return result


def _tile_product(x: Tensor, weights: Tensor, groups: Groups) -> Tensor:
    tiles = groups.tiles
    product = tiles.gathered(x) @ weights.index_select(0, tiles.group)
    return product.flatten(0, 1).index_select(0, tiles.place)


def _tile_outer(x: Tensor, gradient: Tensor, groups: Groups) -> Tensor:
    tiles = groups.tiles
    if not len(tiles.group):
        return x.new_zeros(len(groups.ends), x.shape[1], gradient.shape[1])
    products = tiles.gathered(x).transpose(1, 2) @ tiles.gathered(gradient)
    # In a fixed order, as `index_add` is not on a GPU: a run that is gone on with is the same to the bit.
    return torch.segment_reduce(products, "sum", lengths=tiles.counts, axis=0, initial=0, unsafe=True)


def _missing(tensor: Tensor, dim: int) -> int:
    """Entries that a row lacks to be a multiple of what the native way wants."""
    return -tensor.shape[dim] % (ALIGNED_BYTES // tensor.element_size())


def _native_product(x: Tensor, weights: Tensor, groups: Groups) -> Tensor:
    inputs, outputs = _missing(weights, 1), _missing(weights, 2)
    if inputs or outputs:
        x, weights = pad(x, (0, inputs)), pad(weights, (0, outputs, 0, inputs))
    product = _native_function()(x.contiguous(), weights, offs=groups.ends)
    return product[:, : product.shape[1] - outputs].contiguous() if outputs else product


def _native_outer(x: Tensor, gradient: Tensor, groups: Groups) -> Tensor:
    inputs, outputs = x.shape[1], gradient.shape[1]
    padded_x = pad(x, (0, _missing(x, 1))).contiguous()
    padded_gradient = pad(gradient, (0, _missing(gradient, 1))).contiguous()
    product = _native_function()(padded_x.T, padded_gradient, offs=groups.ends)
    return product[:, :inputs, :outputs].contiguous()


_Product = Callable[[Tensor, Tensor, Groups], Tensor]
_PRODUCTS: dict[Way, _Product] = {
    "native": _native_product,
    "buckets": _bucket_product,
    "tiles": _tile_product,
    "loop": _loop_product,
}
_OUTER_PRODUCTS: dict[Way, _Product] = {
    "native": _native_outer,
    "buckets": _bucket_outer,
    "tiles": _tile_outer,
    "loop": _loop_outer,
}


def _native_function() -> Any:
    """PyTorch's grouped product; older versions have none."""
    function = getattr(functional, "grouped_mm", None)
    if function is None:
        raise NotImplementedError("this PyTorch has no grouped_mm")
    return function


@lru_cache
def native_works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch's grouped product gives what a loop gives, tried once.

    It is documented for bfloat16 on CUDA only. In float32 on a CPU it works in PyTorch 2.11; whether another version
    does is not for the version number to tell.

    Args:
        device: Where the tensors live.
        dtype: Their type.
    """
    if not dtype.is_floating_point:
        return False
    with _full_precision(device):
        return _native_agrees(device, dtype)


def _native_agrees(device: torch.device, dtype: torch.dtype) -> bool:
    tolerance = 16 * torch.finfo(dtype).eps
    groups = Groups(torch.tensor([0, 3, 3, 20, 21], dtype=torch.int32, device=device))
    # Numbers of some irregularity that take nothing from the random state.
    x, weights, gradient = (
        torch.arange(1, count + 1, device=device).mul(0.37).sin().view(shape).to(dtype)
        for count, shape in ((21 * 33, (21, 33)), (5 * 33 * 7, (5, 33, 7)), (21 * 7, (21, 7)))
    )
    with torch.no_grad():
        for native, loop, arguments in (
            (_native_product, _loop_product, (x, weights)),
            (_native_product, _loop_product, (gradient, weights.transpose(1, 2))),
            (_native_outer, _loop_outer, (x, gradient)),
        ):
            try:
                found, expected = native(*arguments, groups), loop(*arguments, groups)
            except (NotImplementedError, RuntimeError, TypeError):
                return False
            if found.shape != expected.shape or not torch.allclose(found, expected, rtol=tolerance, atol=8 * tolerance):
                return False
    return True
