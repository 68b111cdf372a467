"""Compositing of projected Gaussians on the CPU, compiled by Numba; eight neighbouring pixels of a row at a time.

Gaussians are walked through in the order of their depth and, each, through the rows of the contour within which its
alpha is at least 1/255, so that no list of pairs is ever made: memory goes with Gaussians and pixels. A picture is
worked on in bands of rows that have nothing to do with each other. Everything stands in one file, as Numba's cache of
compiled functions goes by the file of the function that is called, whatever that calls.
"""

import math
import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import templates
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, overload, register_model

from nerfstudio_prune.raster.compiled import compiled, inlined

intrinsic: Any = numba_intrinsic
infer_global: Any = templates.infer_global
LANES = 8
"""Pixels that are worked on at a time; rows of buffers are longer than those of the picture by as many."""
MIN_ALPHA = 1 / 255
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4
TINY, HUGE = 1e-30, 1e30
"""Conics beyond these are left out: numbers would overflow."""

X, Y, XX, XY, YY, OPACITY, RED, GREEN, BLUE, DEPTH, REACH, FALL = range(12)
"""Columns of what is known of a Gaussian: centre, conic, opacity, colour, depth; the square of the Mahalanobis distance
of its contour; and the part of that square that a row at a distance of one pixel costs."""
COLUMNS = 12
ABS_X, ABS_Y = REACH, FALL
"""Columns of gradients that take the place of what has none."""
HALF_LOG2E = 0.5 * math.log2(math.e)


# Lanes: vectors as LLVM knows them, so that nothing hangs on what its vectoriser can prove.


class Lanes(types.Type):
    """LANES numbers of one type."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(f"Lanes({dtype})")


class Mask(types.Type):
    """LANES truth values."""

    def __init__(self) -> None:
        super().__init__("Mask")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(dmm.lookup(fe_type.dtype).get_value_type(), LANES))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Mask) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), LANES))


def _spread(context: Any, builder: Any, value: Any, of: types.Type, lanes: Lanes) -> Any:
    """A scalar in all lanes; lanes as they are."""
    if isinstance(of, Lanes):
        return value
    value = context.cast(builder, value, of, lanes.dtype)
    vector = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined), value, ir.IntType(32)(0)
    )
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _operator(function: Any, floating: Any, integral: Any, result: Any) -> None:
    """Lets an operator work on lanes, and on lanes and a scalar."""

    @infer_global(function)
    class _Typing(templates.AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            lanes = [t for t in args if isinstance(t, Lanes)]
            if (
                len(args) == 2
                and lanes
                and all(t in lanes or isinstance(t, types.Number | types.Literal) for t in args)
            ):
                return templates.signature(result(lanes[0]), *args)
            return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = next(t for t in sig.args if isinstance(t, Lanes))
        left, right = (_spread(context, builder, a, t, lanes) for a, t in zip(args, sig.args, strict=True))
        return (integral if isinstance(lanes.dtype, types.Integer) else floating)(builder, left, right)

    for kinds in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(function, *kinds)(lower)


def _ordered(sign: str) -> tuple[Any, Any]:
    return lambda b, x, y: b.fcmp_ordered(sign, x, y), lambda b, x, y: b.icmp_signed(sign, x, y)


_operator(operator.add, lambda b, x, y: b.fadd(x, y), lambda b, x, y: b.add(x, y), lambda t: t)
_operator(operator.sub, lambda b, x, y: b.fsub(x, y), lambda b, x, y: b.sub(x, y), lambda t: t)
_operator(operator.mul, lambda b, x, y: b.fmul(x, y), lambda b, x, y: b.mul(x, y), lambda t: t)
_operator(operator.truediv, lambda b, x, y: b.fdiv(x, y), None, lambda t: t)
for _function, _sign in ((operator.gt, ">"), (operator.ge, ">="), (operator.lt, "<"), (operator.le, "<=")):
    _operator(_function, *_ordered(_sign), lambda t: Mask())


@infer_global(operator.and_)
class _AndTyping(templates.AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return templates.signature(Mask(), *args) if all(isinstance(t, Mask) for t in args) else None


@lower_builtin(operator.and_, Mask, Mask)
def _and(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.and_(*args)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, lanes: Any) -> Any:
    made = context.make_array(array_type)(context, builder, array)
    at = cgutils.get_item_pointer(context, builder, array_type, made, [index], wraparound=False)
    return builder.bitcast(at, context.get_value_type(lanes).as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """LANES neighbours of an array of one dimension."""
    lanes = Lanes(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = _address(context, builder, sig.args[0], args[0], args[1], lanes)
        return builder.load(at, align=context.get_abi_sizeof(context.get_value_type(lanes.dtype)))

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Writes LANES neighbours of an array of one dimension."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = _address(context, builder, sig.args[0], args[0], args[1], sig.args[2])
        builder.store(args[2], at, align=context.get_abi_sizeof(context.get_value_type(sig.args[2].dtype)))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def filled(typingctx: Any, like: Any, value: Any) -> Any:
    """A number in all lanes, of the type of an array."""
    lanes = Lanes(like.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _spread(context, builder, args[1], sig.args[1], lanes)

    return lanes(like, value), codegen


@intrinsic
def steps(typingctx: Any, like: Any) -> Any:
    """0, 1, 2 …, of the type of an array."""
    lanes = Lanes(like.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(lanes), [float(i) for i in range(LANES)])

    return lanes(like), codegen


@intrinsic
def select(typingctx: Any, mask: Any, yes: Any, no: Any) -> Any:
    """One or the other, lane by lane; scalars stand for lanes of equal numbers."""
    lanes = yes if isinstance(yes, Lanes) else no

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        yes, no = (_spread(context, builder, a, t, lanes) for a, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], yes, no)

    return lanes(mask, yes, no), codegen


@intrinsic
def muladd(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, in one step where the processor can."""
    lanes = next(t for t in (a, b, c) if isinstance(t, Lanes))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vectors = [_spread(context, builder, v, t, lanes) for v, t in zip(args, sig.args, strict=True)]
        return _call(builder, "llvm.fmuladd", vectors)

    return lanes(a, b, c), codegen


@intrinsic
def absolute(typingctx: Any, a: Any) -> Any:
    """Without its sign."""
    return a(a), lambda context, builder, sig, args: _call(builder, "llvm.fabs", args)


@intrinsic
def nearest(typingctx: Any, a: Any) -> Any:
    """The nearest whole number."""
    return a(a), lambda context, builder, sig, args: _call(builder, "llvm.rint", args)


@intrinsic
def _exp2_by_library(typingctx: Any, a: Any) -> Any:
    return a(a), lambda context, builder, sig, args: _call(builder, "llvm.exp2", args)


def _call(builder: Any, name: str, vectors: Any) -> Any:
    kind = vectors[0].type
    suffix = f"v{LANES}f{64 if isinstance(kind.element, ir.DoubleType) else 32}"
    function = builder.module.declare_intrinsic(f"{name}.{suffix}", (), ir.FunctionType(kind, [kind] * len(vectors)))
    return builder.call(function, vectors)


@intrinsic
def _times_power(typingctx: Any, a: Any, exponent: Any) -> Any:
    """a · 2^exponent for a in [0.5, 2) and whole exponents for which that is a normal number; float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = ir.VectorType(ir.IntType(32), LANES)
        shift = builder.shl(builder.fptosi(args[1], whole), ir.Constant(whole, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(args[0], whole), shift), args[0].type)

    return a(a, exponent), codegen


@intrinsic
def total(typingctx: Any, a: Any) -> Any:
    """Sum of the lanes, pair by pair."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rest, width = args[0], LANES
        while width > 1:
            width //= 2
            pick = [ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(at, at + width))) for at in (0, width)]
            low, high = (builder.shuffle_vector(rest, rest, p) for p in pick)
            rest = builder.fadd(low, high)
        return builder.extract_element(rest, ir.IntType(32)(0))

    return a.dtype(a), codegen


@intrinsic
def largest(typingctx: Any, a: Any) -> Any:
    """Largest of the lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        best = builder.extract_element(args[0], ir.IntType(32)(0))
        for lane in range(1, LANES):
            other = builder.extract_element(args[0], ir.IntType(32)(lane))
            best = builder.select(builder.fcmp_ordered(">", other, best), other, best)
        return best

    return a.dtype(a), codegen


@intrinsic
def count(typingctx: Any, mask: Any) -> Any:
    """Lanes that hold."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(mask), codegen


def exp2(a):
    """2 to the power of lanes that are at most 0; to float32's precision, or the library's in float64."""


@overload(exp2)
def _exp2(a):
    if a.dtype == types.float64:
        return lambda a: _exp2_by_library(a)  # noqa: PLW0108  Numba asks for a function of its own

    def by_polynomial(a):
        a = select(a < -100.0, -100.0, a)
        whole = nearest(a)
        rest = a - whole
        power = muladd(rest, 0.0001546144746153399, 0.0013390867351339444)
        power = muladd(power, rest, 0.009618056669891186)
        power = muladd(power, rest, 0.05550357104253107)
        power = muladd(power, rest, 0.24022650922342728)
        power = muladd(power, rest, 0.6931471880293426)
        return _times_power(muladd(power, rest, 1.0), whole)

    return by_polynomial


# Which Gaussians, in which rows.


@compiled
def sort(keys, order):
    """Sorts indices by their keys, stably: by eleven bits at a time, from the lowest on.

    Args:
        keys: Unsigned numbers of all; those of positive floating-point numbers are in the order of these.
        order: Indices.

    Returns:
        The indices in order.
    """
    other = np.empty_like(order)
    for shift in range(0, 8 * keys.itemsize, 11):
        starts = np.zeros(2049, np.int64)
        for i in order:
            starts[((keys[i] >> shift) & 2047) + 1] += 1
        for digit in range(1, 2049):
            starts[digit] += starts[digit - 1]
        for i in order:
            digit = (keys[i] >> shift) & 2047
            other[starts[digit]] = i
            starts[digit] += 1
        order, other = other, order
    return order


@inlined
def _within(middle, half, size):
    """First and last pixel whose centre may lie within an interval, a little widened; the first is above the last if
    none does. Limited before they become whole numbers, which may be too small for them."""
    first = min(max(middle - half + 0.499, 0.0), float(size))
    last = min(max(middle + half + 0.501, 0.0), float(size))
    return int(first), int(last) - 1


@compiled
def prepare(order, means2d, conics, opacities, colors, depths, width, height, packed, rows, indices):
    """Puts what is known of the Gaussians that touch the picture side by side, in the order given.

    Args:
        order: Gaussians, front to back.
        means2d, conics, opacities, colors, depths: Of all Gaussians. Colours have one to three channels.
        width, height: Of the picture.
        packed: Gets a row per Gaussian that touches it, in columns as above.
        rows: Gets its first row of pixels, and the one after its last.
        indices: Gets its index.

    Returns:
        How many do; those whose numbers are not finite do not.
    """
    kept = 0
    for i in order:
        opacity = np.float64(opacities[i])
        x, y = np.float64(means2d[i, 0]), np.float64(means2d[i, 1])
        xx, xy, yy = np.float64(conics[i, 0]), np.float64(conics[i, 1]), np.float64(conics[i, 2])
        usable = math.isfinite(x) and math.isfinite(y) and TINY < xx < HUGE and TINY < yy < HUGE and abs(xy) < HUGE
        if not (usable and opacity >= MIN_ALPHA):
            continue
        # Rounding can leave a conic without a contour where a Gaussian is millions of times longer than wide.
        fall = max((xx * yy - xy * xy) / xx, 1e-9 * yy)
        reach = 2.0 * math.log(opacity * 255.0) + 1e-3
        first, last = _within(y, math.sqrt(reach / fall), height)
        if first > last:
            continue
        rows[kept, 0] = first
        rows[kept, 1] = last + 1
        indices[kept] = i
        row = packed[kept]
        row[X] = x
        row[Y] = y
        row[XX] = xx
        row[XY] = xy
        row[YY] = yy
        row[OPACITY] = opacity
        for k in range(3):
            row[RED + k] = colors[i, k] if k < colors.shape[1] else 0.0
        row[DEPTH] = depths[i]
        row[REACH] = reach
        row[FALL] = fall
        kept += 1
    return kept


@compiled
def count_members(rows, band_height, starts):
    """Counts the Gaussians that touch each band of rows.

    Args:
        rows: As `prepare` gives them.
        band_height: Rows of a band.
        starts: Gets where the members of each band start, and after the last one how many there are in all.
    """
    starts[:] = 0
    for i in range(len(rows)):
        for band in range(rows[i, 0] // band_height, (rows[i, 1] - 1) // band_height + 1):
            starts[band + 1] += 1
    for band in range(1, len(starts)):
        starts[band] += starts[band - 1]


@compiled
def list_members(rows, band_height, starts, members):
    """Lists them, front to back.

    Args:
        rows, band_height, starts: As above.
        members: Gets the ranks of the Gaussians of one band after those of the other.
    """
    at = starts.copy()
    for i in range(len(rows)):
        for band in range(rows[i, 0] // band_height, (rows[i, 1] - 1) // band_height + 1):
            members[at[band]] = i
            at[band] += 1


@inlined
def _contour(packed, rank):
    """What the rows of a Gaussian ask for: centre, curvature along a row and its inverse, slant of the axis, reach and
    fall; in float64, whatever the pixels are worked on in, as rows are few."""
    g = packed[rank]
    xx = np.float64(g[XX])
    inverse = 1.0 / xx
    return (
        np.float64(g[X]),
        np.float64(g[Y]),
        xx,
        inverse,
        np.float64(g[XY]) * inverse,
        np.float64(g[REACH]),
        np.float64(g[FALL]),
    )


@inlined
def _strength_and_colors(packed, rank):
    """Read once for a Gaussian: the compiler cannot know that nothing writes there meanwhile."""
    g = packed[rank]
    return g[OPACITY], g[RED], g[GREEN], g[BLUE], g[DEPTH]


@inlined
def _interval(middle, inverse, left, width):
    """First and last pixel of a row whose centre may lie within the contour."""
    return _within(middle, np.float64(math.sqrt(np.float32(max(left, 0.0) * inverse))), width)


@inlined
def _strength(from_middle, xx, lost, opacity):
    """Opacity times the Gaussian, before any limit, at distances along the row from where it is strongest."""
    return exp2(muladd(from_middle * from_middle, -HALF_LOG2E * xx, -HALF_LOG2E * lost)) * opacity


@inlined
def _blocks(packed, rank, width):
    """First and last block of LANES columns that a Gaussian may touch."""
    g = packed[rank]
    half = math.sqrt(np.float64(g[REACH]) * g[YY] / (np.float64(g[FALL]) * g[XX]))
    first, last = _within(np.float64(g[X]), half, width)
    return first // LANES, last // LANES


@inlined
def _all_done(done, left, right):
    for block in range(left, right + 1):
        if not done[block]:
            return False
    return True


@inlined
def _any_live(passing, top, bottom, stride, column):
    for line in range(top, bottom):
        if count(load(passing, line * stride + column) > 0.0) > 0:
            return True
    return False


@compiled
def composite(packed, rows, members, top, bottom, width, stride, passing, last, red, green, blue, depth):
    """Composites the Gaussians of a band of rows, front to back.

    Args:
        packed, rows: As `prepare` gives them.
        members: Ranks of those that touch the band, front to back. Those that were added somewhere are moved to its
            front.
        top, bottom: First row of the band, and the one after its last.
        width, stride: Of a row, in pixels; and in numbers of the buffers, which are longer by at least LANES.
        passing: Transmittance, 1 at first and 0 in what is not picture. Negative afterwards where it fell so low that
            nothing more is added.
        last: Gets the rank of the last Gaussian that was added to a pixel.
        red, green, blue: Colours are added to these.
        depth: Depths are added to this; None: not asked for.

    Returns:
        How many pairs of a Gaussian and a pixel were added, and how many members were added somewhere.
    """
    pairs = kept = 0
    done = np.zeros(width // LANES + 1, np.bool_)
    for rank in members:
        before = pairs
        left, right = _blocks(packed, rank, width)
        if _all_done(done, left, right):
            continue
        x, y, xx, inverse, slant, reach, fall = _contour(packed, rank)
        opacity, g_red, g_green, g_blue, g_depth = _strength_and_colors(packed, rank)
        for line in range(max(rows[rank, 0], top), min(rows[rank, 1], bottom)):
            down = line + 0.5 - y
            middle = x - down * slant
            lost = down * down * fall
            first, final = _interval(middle, inverse, reach - lost, width)
            for column in range(first, final + 1, LANES):
                at = line * stride + column
                through = load(passing, at)
                live = through > 0.0
                if count(live) == 0:
                    continue
                strength = _strength(steps(packed) + (column + 0.5 - middle), xx, lost, opacity)
                alpha = select(strength > MAX_ALPHA, MAX_ALPHA, strength)
                rest = through - alpha * through
                met = live & (strength >= MIN_ALPHA)
                added = met & (rest > MIN_TRANSMITTANCE)
                weight = select(added, alpha * through, 0.0)
                store(passing, at, select(added, rest, select(met, through * -1.0, through)))
                store(last, at, select(added, rank, load(last, at)))
                store(red, at, muladd(weight, g_red, load(red, at)))
                store(green, at, muladd(weight, g_green, load(green, at)))
                store(blue, at, muladd(weight, g_blue, load(blue, at)))
                if depth is not None:
                    store(depth, at, muladd(weight, g_depth, load(depth, at)))
                pairs += count(added)
        if pairs > before:
            members[kept] = rank
            kept += 1
        else:
            for block in range(left, right + 1):
                done[block] = done[block] or not _any_live(passing, top, bottom, stride, block * LANES)
    return pairs, kept


@compiled
def composite_backward(
    packed,
    rows,
    members,
    top,
    bottom,
    width,
    stride,
    passing,
    last,
    behind,
    d_red,
    d_green,
    d_blue,
    d_alpha,
    d_depth,
    absolutes,
    out,
):
    """Gradients of what the Gaussians of a band of rows are composited to, walked through back to front.

    With u = c · dL/dC + dL/dA of a Gaussian and h the same composited of all behind it, dL/dalpha = T (u - h): one
    number a pixel stands for all channels.

    Args:
        packed, rows, members, top, bottom, width, stride, last: As above.
        passing: Transmittance behind all; is restored to that before all.
        behind: Zeros; room to work in.
        d_red, d_green, d_blue, d_alpha, d_depth: Gradients of the picture, 0 in what is not picture; `d_depth` may be
            None.
        absolutes: Whether absolute gradients of the centres are asked for: None, or anything else.
        out: Gets a row for each member in the columns of `packed` up to DEPTH, and the absolute gradients after it.
    """
    for position in range(len(members) - 1, -1, -1):
        rank = members[position]
        x, y, xx, inverse, slant, reach, fall = _contour(packed, rank)
        opacity, g_red, g_green, g_blue, g_depth = _strength_and_colors(packed, rank)
        xy, yy = packed[rank, XY], packed[rank, YY]
        zero = filled(packed, 0.0)
        sum_0 = sum_x = sum_y = sum_xx = sum_xy = sum_yy = zero
        sum_red = sum_green = sum_blue = sum_depth = sum_abs_x = sum_abs_y = zero
        for line in range(max(rows[rank, 0], top), min(rows[rank, 1], bottom)):
            down = line + 0.5 - y
            middle = x - down * slant
            lost = down * down * fall
            first, final = _interval(middle, inverse, reach - lost, width)
            for column in range(first, final + 1, LANES):
                at = line * stride + column
                live = load(last, at) >= rank
                if count(live) == 0:
                    continue
                strength = _strength(steps(packed) + (column + 0.5 - middle), xx, lost, opacity)
                added = live & (strength >= MIN_ALPHA)
                limited = strength > MAX_ALPHA
                alpha = select(added, select(limited, MAX_ALPHA, strength), 0.0)
                through = load(passing, at) / (1.0 - alpha)
                store(passing, at, through)
                red, green, blue = load(d_red, at), load(d_green, at), load(d_blue, at)
                gain = muladd(red, g_red, load(d_alpha, at))
                gain = muladd(green, g_green, gain)
                gain = muladd(blue, g_blue, gain)
                weight = alpha * through
                sum_red = muladd(weight, red, sum_red)
                sum_green = muladd(weight, green, sum_green)
                sum_blue = muladd(weight, blue, sum_blue)
                if d_depth is not None:
                    gain = muladd(load(d_depth, at), g_depth, gain)
                    sum_depth = muladd(weight, load(d_depth, at), sum_depth)
                hidden = load(behind, at)
                gain = gain - hidden
                store(behind, at, muladd(alpha, gain, hidden))
                # Of the logarithm of the strength.
                slope = select(limited, 0.0, weight * gain)
                across = steps(packed) + (column + 0.5 - x)
                slope_x = slope * across
                slope_y = slope * down
                sum_0 = sum_0 + slope
                sum_x = sum_x + slope_x
                sum_y = sum_y + slope_y
                sum_xx = muladd(slope_x, across, sum_xx)
                sum_xy = muladd(slope_x, down, sum_xy)
                sum_yy = muladd(slope_y, down, sum_yy)
                if absolutes is not None:
                    sum_abs_x = sum_abs_x + absolute(muladd(slope_x, xx, slope_y * xy))
                    sum_abs_y = sum_abs_y + absolute(muladd(slope_x, xy, slope_y * yy))
        row = out[position]
        total_x, total_y = total(sum_x), total(sum_y)
        row[X] = xx * total_x + xy * total_y
        row[Y] = xy * total_x + yy * total_y
        row[XX] = -0.5 * total(sum_xx)
        row[XY] = -total(sum_xy)
        row[YY] = -0.5 * total(sum_yy)
        row[OPACITY] = total(sum_0) / opacity
        row[RED] = total(sum_red)
        row[GREEN] = total(sum_green)
        row[BLUE] = total(sum_blue)
        row[DEPTH] = total(sum_depth)
        row[ABS_X] = total(sum_abs_x)
        row[ABS_Y] = total(sum_abs_y)


@compiled
def contribute(packed, rows, members, top, bottom, width, stride, passing, last, red, green, blue, counted, out):
    """What each Gaussian of a band of rows does to its pixels, walked through back to front.

    Args:
        packed, rows, members, top, bottom, width, stride, last: As above.
        passing: Transmittance behind all; is restored to that before all.
        red, green, blue: Colours behind all; become those of the picture.
        counted: 1 for pixels that count, 0 for others.
        out: Gets a row for each member: pixels, sum and largest of T alpha, sums of |T alpha (c - B)| and its squares.
    """
    for position in range(len(members) - 1, -1, -1):
        rank = members[position]
        x, y, xx, inverse, slant, reach, fall = _contour(packed, rank)
        opacity, g_red, g_green, g_blue, _ = _strength_and_colors(packed, rank)
        zero = filled(packed, 0.0)
        sum_weights = max_weights = sum_1 = sum_2 = zero
        hits = 0
        for line in range(max(rows[rank, 0], top), min(rows[rank, 1], bottom)):
            down = line + 0.5 - y
            middle = x - down * slant
            lost = down * down * fall
            first, final = _interval(middle, inverse, reach - lost, width)
            for column in range(first, final + 1, LANES):
                at = line * stride + column
                live = load(last, at) >= rank
                if count(live) == 0:
                    continue
                strength = _strength(steps(packed) + (column + 0.5 - middle), xx, lost, opacity)
                added = live & (strength >= MIN_ALPHA)
                alpha = select(added, select(strength > MAX_ALPHA, MAX_ALPHA, strength), 0.0)
                through = load(passing, at) / (1.0 - alpha)
                store(passing, at, through)
                weight = alpha * through * load(counted, at)
                behind = load(red, at)
                change = g_red - behind
                store(red, at, muladd(alpha, change, behind))
                lost_red = weight * change
                behind = load(green, at)
                change = g_green - behind
                store(green, at, muladd(alpha, change, behind))
                lost_green = weight * change
                behind = load(blue, at)
                change = g_blue - behind
                store(blue, at, muladd(alpha, change, behind))
                lost_blue = weight * change
                hits += count(added & (load(counted, at) > 0.0))
                sum_weights = sum_weights + weight
                max_weights = select(weight > max_weights, weight, max_weights)
                sum_1 = sum_1 + absolute(lost_red) + absolute(lost_green) + absolute(lost_blue)
                sum_2 = muladd(lost_red, lost_red, sum_2)
                sum_2 = muladd(lost_green, lost_green, sum_2)
                sum_2 = muladd(lost_blue, lost_blue, sum_2)
        row = out[position]
        row[0] = hits
        row[1] = total(sum_weights)
        row[2] = largest(max_weights)
        row[3] = total(sum_1)
        row[4] = total(sum_2)


@compiled
def gather(members, indices, parts, out):
    """Adds up what the bands say of each Gaussian, always in the same order.

    Args:
        members: Ranks, band after band.
        indices: Gaussian of each rank.
        parts: A row for each member.
        out: Gets a row for each Gaussian.
    """
    for position in range(len(members)):
        i = indices[members[position]]
        for k in range(out.shape[1]):
            out[i, k] += parts[position, k]


@compiled
def gather_contributions(members, indices, parts, out):
    """The same of what `contribute` tells, where the third column is a maximum.

    Args:
        members, indices, parts, out: As above.
    """
    for position in range(len(members)):
        i = indices[members[position]]
        for k in (0, 1, 3, 4):
            out[i, k] += parts[position, k]
        out[i, 2] = max(out[i, 2], parts[position, 2])
