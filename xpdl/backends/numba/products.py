"""Products and transforms in vector registers, for convolutions.

As in `vectors`, arrays are flat float32, places are counted from their beginning, and nothing is
checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic

from xpdl.backends.numba.vectors import LANES, ROWS, Code, constant, floats

# Winograd's F(2x2, 3x3), from the points 0, 1, -1 and infinity: of an image's tile d, of filters g
# and of the gradient e of a tile's results, Y = A^T ((G g G^T) * (B^T d B)) A. The last two are
# what backpropagation makes of it: (A e A^T), and G^T (...) G.
_B_T = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1))
_G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_A_T = ((1, 1, 1, 0), (0, 1, -1, 1))
MATRICES = (_B_T, _G, _A_T, tuple(zip(*_A_T, strict=True)), tuple(zip(*_G, strict=True)))
IMAGE, FILTERS, RESULT, RESULT_GRADIENT, FILTERS_GRADIENT = range(5)
OUTPUTS = (RESULT,)


@intrinsic
def multiply_places(
    typing, vectors, more, x, x0, rows, columns, f, f0, start, s0, y, y0, targets, least
):
    """y[r] = start + sum over k of x[x0 + rows[r] + columns[k]] f[k], a multiple of ROWS rows.

    f[k] is `vectors` registers of numbers, one k behind the other from f0 on; so is start, from s0
    on, and y[r], from y0 + targets[r] on. With `more`, the sums are added to what y holds instead.
    No result is less than `least`, but NaN stays.
    """
    if not (isinstance(vectors, types.IntegerLiteral) and isinstance(more, types.IntegerLiteral)):
        return None  # Numba then asks again, with the numbers themselves as types
    width, adds, place = vectors.literal_value, more.literal_value, types.intp
    signature = types.none(
        *(vectors, more, x, place, rows, columns, f, place),
        *(start, place, y, place, targets, types.float32),
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        x, rows, columns, f, start, y, targets = 2, 4, 5, 6, 8, 10, 12
        x0, f0, s0, y0 = (arguments[i] for i in (3, 7, 9, 11))
        least = code.everywhere(arguments[13])
        tiles = builder.udiv(code.arrays[rows].nitems, constant(ROWS))
        with cgutils.for_range(builder, tiles) as outer:
            r = builder.mul(outer.index, constant(ROWS))
            places = [builder.add(x0, code.number(rows, r, constant(t))) for t in range(ROWS)]

            def begin(t: int, v: int) -> Any:
                if adds:
                    return code.load(
                        y, y0, code.number(targets, r, constant(t)), constant(v * LANES)
                    )
                return code.load(start, s0, constant(v * LANES))

            sums = code.sums(width, begin)
            with cgutils.for_range(builder, code.arrays[columns].nitems) as loop:
                column = code.number(columns, loop.index)
                line = builder.mul(loop.index, constant(width * LANES))
                factors = [code.load(f, f0, line, constant(v * LANES)) for v in range(width)]
                code.add_products(x, places, column, factors, sums)
            for (t, v), total in sums.items():
                target = code.number(targets, r, constant(t))
                number = code.no_less(builder.load(total), least)
                code.store(number, y, y0, target, constant(v * LANES))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def multiply_rows(
    typing, vectors, more, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles
):
    """y[r] = sum over k < count of x[x0 + r x_row + k x_column] f[k], for r < ROWS tiles.

    f[k] is `vectors` registers of numbers from f0 + k f_step on; so is y[r], from y0 + r y_row on.
    With `more`, the sums are added to what y holds.
    """
    if not (isinstance(vectors, types.IntegerLiteral) and isinstance(more, types.IntegerLiteral)):
        return None
    width, adds, place = vectors.literal_value, more.literal_value, types.intp
    signature = types.none(
        *(vectors, more, x, place, place, place, place),
        *(f, place, place, y, place, place, place),
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        x, f, y = 2, 7, 10
        x0, x_row, x_column, count, f0, f_step, y0, y_row, tiles = (
            arguments[i] for i in (3, 4, 5, 6, 8, 9, 11, 12, 13)
        )
        nothing = ir.Constant(floats, [0.0] * LANES)
        with cgutils.for_range(builder, tiles) as outer:
            r = builder.mul(outer.index, constant(ROWS))
            rows = [builder.add(r, constant(t)) for t in range(ROWS)]
            places = [builder.add(x0, builder.mul(x_row, row)) for row in rows]
            targets = [builder.add(y0, builder.mul(y_row, row)) for row in rows]
            sums = code.sums(
                width,
                lambda t, v: code.load(y, targets[t], constant(v * LANES)) if adds else nothing,
            )
            with cgutils.for_range(builder, count) as loop:
                line = builder.mul(loop.index, f_step)
                factors = [code.load(f, f0, line, constant(v * LANES)) for v in range(width)]
                column = builder.mul(loop.index, x_column)
                code.add_products(x, places, column, factors, sums)
            for (t, v), total in sums.items():
                code.store(builder.load(total), y, targets[t], constant(v * LANES))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_and_add(typing, vectors, x, x0, x_step, count, y, y0, total, t0):
    """Copy `vectors` registers of numbers, `count` times, and add them up.

    From x0 + r x_step on they go behind one another, from y0 on; the sum is added to total, from t0
    on.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    width, place = vectors.literal_value, types.intp
    signature = types.none(vectors, x, place, place, place, y, place, total, place)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        x, y, total = 1, 5, 7
        x0, x_step, count, y0, t0 = (arguments[i] for i in (2, 3, 4, 6, 8))
        sums = [
            cgutils.alloca_once_value(builder, ir.Constant(floats, [0.0] * LANES))
            for _ in range(width)
        ]
        with cgutils.for_range(builder, count) as loop:
            there = builder.mul(loop.index, x_step)
            here = builder.mul(loop.index, constant(width * LANES))
            for v in range(width):
                number = code.load(x, x0, there, constant(v * LANES))
                code.store(number, y, y0, here, constant(v * LANES))
                builder.store(builder.fadd(builder.load(sums[v]), number), sums[v])
        for v in range(width):
            before = code.load(total, t0, constant(v * LANES))
            code.store(builder.fadd(before, builder.load(sums[v])), total, t0, constant(v * LANES))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transform_tile(
    typing, matrix, x, x0, x_down, xd, x_across, xa, x_step, zeros,
    y, y0, y_down, yd, y_across, ya, y_step, spare, chunks, biases, least,
):  # fmt: skip
    """Y = M X M^T for LANES squares X of numbers at once, and for `chunks` of them.

    M is MATRICES[matrix]. X[i, j] is the register of numbers at x0 + x_down[xd + i]
    + x_across[xa + j], and `x_step` further for each chunk, and Y[i, j] likewise. A place before
    the array's beginning is outside of the image: what is read there is `zeros`, what is written
    goes to `spare`. To what OUTPUTS make, biases[LANES chunk ...] is added, and nothing is less
    than `least`, but NaN stays.
    """
    if not isinstance(matrix, types.IntegerLiteral):
        return None
    rows, place = MATRICES[matrix.literal_value], types.intp
    biased = matrix.literal_value in OUTPUTS
    signature = types.none(
        *(matrix, x, place, x_down, place, x_across, place, place, zeros),
        *(y, place, y_down, place, y_across, place, place, spare, place, biases, types.float32),
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        x, x_down, x_across, zeros, y, y_down, y_across, spare, biases = (
            *(1, 3, 5, 8, 9, 11, 13, 16, 18),
        )
        xd, xa, x_step, yd, ya, y_step = (arguments[i] for i in (4, 6, 7, 12, 14, 15))
        least = code.everywhere(arguments[19])
        sources = code.square(x, arguments[2], (x_down, xd), (x_across, xa), len(rows[0]), zeros)
        targets = code.square(y, arguments[10], (y_down, yd), (y_across, ya), len(rows), spare)
        with cgutils.for_range(builder, arguments[17]) as loop:
            there, here = builder.mul(loop.index, x_step), builder.mul(loop.index, y_step)
            square = [[code.load_from(source, there) for source in line] for line in sources]
            for line, into in zip(code.transform(rows, square), targets, strict=True):
                for total, target in zip(line, into, strict=True):
                    if biased:
                        bias = code.load(biases, builder.mul(loop.index, constant(LANES)))
                        total = builder.fadd(total, bias)
                        total = code.no_less(total, least)
                    code.store_into(target, here, total)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def pool_tile(typing, m, m0, m_down, m_across, y, y0, winners, w0, chunks, biases):
    """Y = the largest of M X M^T + biases, M being MATRICES[RESULT], and of 0; and which it is.

    X[i, j] is the register of numbers at m0 + m_down[i] + m_across[j], and LANES further for each
    of `chunks`; so are y, from y0 on, and `winners` (bytes), from w0 on. Of equals the first wins;
    NaN wins over all.
    """
    place = types.intp
    signature = types.none(*(m, place, m_down, m_across, y, place, winners, place, place, biases))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        m, m_down, m_across, y, winners, biases = 0, 2, 3, 4, 6, 9
        m0, y0, w0 = (arguments[i] for i in (1, 5, 7))
        down, across = (
            [code.number(places, constant(i)) for i in range(4)] for places in (m_down, m_across)
        )
        zero = code.everywhere(ir.Constant(ir.FloatType(), 0.0))
        with cgutils.for_range(builder, arguments[8]) as loop:
            here = builder.mul(loop.index, constant(LANES))
            square = [[code.load(m, m0, i, j, here) for j in across] for i in down]
            bias = code.load(biases, here)
            results = [
                code.no_less(builder.fadd(total, bias), zero)
                for line in code.transform(MATRICES[RESULT], square)
                for total in line
            ]
            largest, winner = code.largest(results)
            code.store(largest, y, y0, here)
            code.store(winner, winners, w0, here)
        return context.get_dummy_value()

    return signature, generate
