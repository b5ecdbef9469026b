"""Inner loops in vector registers, for `kernels`: what LLVM does not find by itself.

Each function is a piece of LLVM's intermediate code that Numba inlines where it is called. Arrays
are flat, float32 if nothing else is said; places are counted from their beginning. Nothing is
checked here.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic

WIDE = binding.get_host_cpu_features().get("avx512f", False)

# A register holds so many float32. A tile is ROWS x 1 or ROWS x 2 registers of sums: few enough
# that none has to be put aside, enough to keep both multipliers busy.
LANES = 16 if WIDE else 8
ROWS = 8 if WIDE else 6

_floats = ir.VectorType(ir.FloatType(), LANES)
_bytes = ir.VectorType(ir.IntType(8), LANES)

# Winograd's F(2x2, 3x3), from the points 0, 1, -1 and infinity: of an image's tile d, of filters g
# and of the gradient e of a tile's results, Y = A^T ((G g G^T) * (B^T d B)) A. The last two are
# what backpropagation makes of it: (A e A^T), and G^T (...) G.
_B_T = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1))
_G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_A_T = ((1, 1, 1, 0), (0, 1, -1, 1))
MATRICES = (_B_T, _G, _A_T, tuple(zip(*_A_T, strict=True)), tuple(zip(*_G, strict=True)))
IMAGE, FILTERS, RESULT, RESULT_GRADIENT, FILTERS_GRADIENT = range(5)
OUTPUTS = (RESULT,)


class _Code:
    """Writes code that reads and writes the arrays among the arguments of an intrinsic."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder = builder
        self.arrays: list[Any] = [
            context.make_array(kind)(context, builder, argument)
            if isinstance(kind, types.Array)
            else None
            for kind, argument in zip(signature.args, arguments, strict=True)
        ]

    def place(self, array: int, *offsets: Any) -> Any:
        total = offsets[0]
        for offset in offsets[1:]:
            total = self.builder.add(total, offset)
        return self.builder.gep(self.arrays[array].data, [total])

    def number(self, array: int, *offsets: Any) -> Any:
        return self.builder.load(self.place(array, *offsets))

    def load(self, array: int, *offsets: Any, kind: Any = _floats) -> Any:
        place = self.builder.bitcast(self.place(array, *offsets), kind.as_pointer())
        return self.builder.load(place, align=1 if kind is _bytes else 4)

    def store(self, vector: Any, array: int, *offsets: Any) -> None:
        place = self.builder.bitcast(self.place(array, *offsets), vector.type.as_pointer())
        self.builder.store(vector, place, align=1 if vector.type is _bytes else 4)

    def sums(self, width: int, start: Any) -> dict[tuple[int, int], Any]:
        """Return a tile's sums, as variables, which begin at start(row, register)."""
        return {
            (t, v): cgutils.alloca_once_value(self.builder, start(t, v))
            for t in range(ROWS)
            for v in range(width)
        }

    def add_products(self, x: int, places: Any, column: Any, factors: Any, sums: Any) -> None:
        """Add x[places[t] + column] times each of `factors` to the sums of row t."""
        for t, place in enumerate(places):
            number = self.everywhere(self.number(x, place, column))
            for v, factor in enumerate(factors):
                total = self.multiply_add(number, factor, self.builder.load(sums[t, v]))
                self.builder.store(total, sums[t, v])

    def no_less(self, vector: Any, least: Any) -> Any:
        low = self.builder.fcmp_ordered("<=", vector, least)
        return self.builder.select(low, least, vector)

    def square(self, array: int, start: Any, down: Any, across: Any, size: int, other: int) -> Any:
        """Return where size x size numbers begin, in `other` for places that are negative."""
        builder = self.builder
        (rows, r0), (columns, c0) = down, across
        right = [self.number(columns, c0, _size(j)) for j in range(size)]
        places = []
        for i in range(size):
            below = self.number(rows, r0, _size(i))
            line = []
            for j in range(size):
                place = builder.add(below, right[j])
                outside = builder.icmp_signed("<", place, _size(0))
                inside = self.place(array, start, place)
                chosen = builder.select(outside, self.place(other, _size(0)), inside)
                line.append(cgutils.alloca_once_value(builder, chosen))
            places.append(line)
        return places

    def load_from(self, source: Any, offset: Any) -> Any:
        place = self.builder.gep(self.builder.load(source), [offset])
        return self.builder.load(self.builder.bitcast(place, _floats.as_pointer()), align=4)

    def store_into(self, target: Any, offset: Any, vector: Any) -> None:
        place = self.builder.gep(self.builder.load(target), [offset])
        self.builder.store(vector, self.builder.bitcast(place, _floats.as_pointer()), align=4)

    def combine(self, factors: Any, vectors: Any) -> Any:
        """Return the sum of vectors, each times a number that is known now."""
        total = None
        terms = [(f, v) for f, v in zip(factors, vectors, strict=True) if f]
        for factor, vector in sorted(terms, key=lambda term: abs(term[0]) != 1 or term[0] < 0):
            if total is None:
                total = vector if factor == 1 else self.scale(factor, vector)
            elif factor == 1:
                total = self.builder.fadd(total, vector)
            elif factor == -1:
                total = self.builder.fsub(total, vector)
            else:
                total = self.multiply_add(ir.Constant(_floats, [factor] * LANES), vector, total)
        return total

    def scale(self, factor: float, vector: Any) -> Any:
        return self.builder.fmul(ir.Constant(_floats, [factor] * LANES), vector)

    def everywhere(self, number: Any, kind: Any = _floats) -> Any:
        """Return a vector of one number."""
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        )

    def multiply_add(self, a: Any, b: Any, total: Any) -> Any:
        kind = ir.FunctionType(_floats, [_floats] * 3)
        name = f"llvm.fma.v{LANES}f32"
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, total]
        )


def _size(number: int) -> Any:
    return ir.Constant(ir.IntType(64), number)


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
        code = _Code(context, builder, signature, arguments)
        x, rows, columns, f, start, y, targets = 2, 4, 5, 6, 8, 10, 12
        x0, f0, s0, y0 = (arguments[i] for i in (3, 7, 9, 11))
        least = code.everywhere(arguments[13])
        tiles = builder.udiv(code.arrays[rows].nitems, _size(ROWS))
        with cgutils.for_range(builder, tiles) as outer:
            r = builder.mul(outer.index, _size(ROWS))
            places = [builder.add(x0, code.number(rows, r, _size(t))) for t in range(ROWS)]

            def begin(t: int, v: int) -> Any:
                if adds:
                    return code.load(y, y0, code.number(targets, r, _size(t)), _size(v * LANES))
                return code.load(start, s0, _size(v * LANES))

            sums = code.sums(width, begin)
            with cgutils.for_range(builder, code.arrays[columns].nitems) as loop:
                column = code.number(columns, loop.index)
                line = builder.mul(loop.index, _size(width * LANES))
                factors = [code.load(f, f0, line, _size(v * LANES)) for v in range(width)]
                code.add_products(x, places, column, factors, sums)
            for (t, v), total in sums.items():
                target = code.number(targets, r, _size(t))
                number = code.no_less(builder.load(total), least)
                code.store(number, y, y0, target, _size(v * LANES))
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
        code = _Code(context, builder, signature, arguments)
        x, f, y = 2, 7, 10
        x0, x_row, x_column, count, f0, f_step, y0, y_row, tiles = (
            arguments[i] for i in (3, 4, 5, 6, 8, 9, 11, 12, 13)
        )
        nothing = ir.Constant(_floats, [0.0] * LANES)
        with cgutils.for_range(builder, tiles) as outer:
            r = builder.mul(outer.index, _size(ROWS))
            rows = [builder.add(r, _size(t)) for t in range(ROWS)]
            places = [builder.add(x0, builder.mul(x_row, row)) for row in rows]
            targets = [builder.add(y0, builder.mul(y_row, row)) for row in rows]
            sums = code.sums(
                width, lambda t, v: code.load(y, targets[t], _size(v * LANES)) if adds else nothing
            )
            with cgutils.for_range(builder, count) as loop:
                line = builder.mul(loop.index, f_step)
                factors = [code.load(f, f0, line, _size(v * LANES)) for v in range(width)]
                column = builder.mul(loop.index, x_column)
                code.add_products(x, places, column, factors, sums)
            for (t, v), total in sums.items():
                code.store(builder.load(total), y, targets[t], _size(v * LANES))
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
        code = _Code(context, builder, signature, arguments)
        x, y, total = 1, 5, 7
        x0, x_step, count, y0, t0 = (arguments[i] for i in (2, 3, 4, 6, 8))
        sums = [
            cgutils.alloca_once_value(builder, ir.Constant(_floats, [0.0] * LANES))
            for _ in range(width)
        ]
        with cgutils.for_range(builder, count) as loop:
            there = builder.mul(loop.index, x_step)
            here = builder.mul(loop.index, _size(width * LANES))
            for v in range(width):
                number = code.load(x, x0, there, _size(v * LANES))
                code.store(number, y, y0, here, _size(v * LANES))
                builder.store(builder.fadd(builder.load(sums[v]), number), sums[v])
        for v in range(width):
            before = code.load(total, t0, _size(v * LANES))
            code.store(builder.fadd(before, builder.load(sums[v])), total, t0, _size(v * LANES))
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
        code = _Code(context, builder, signature, arguments)
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
            down = [[code.combine(row, column) for column in zip(*square, strict=True)]
                    for row in rows]  # fmt: skip
            for line, into in zip(down, targets, strict=True):
                for row, target in zip(rows, into, strict=True):
                    total = code.combine(row, line)
                    if biased:
                        bias = code.load(biases, builder.mul(loop.index, _size(LANES)))
                        total = builder.fadd(total, bias)
                        total = code.no_less(total, least)
                    code.store_into(target, here, total)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def find_largest(typing, x, x0, places, y, y0, winners, w0):
    """Put the largest of x[x0 + places[k]] into y[y0], and its k into winners[w0] (bytes).

    LANES neighbours at once. Of equals the first wins; NaN wins over all.
    """
    place = types.intp
    signature = types.none(x, place, places, y, place, winners, place)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        x, places, y, winners = 0, 2, 3, 5
        x0, y0, w0 = (arguments[i] for i in (1, 4, 6))
        first = code.load(x, x0, code.number(places, _size(0)))
        largest = cgutils.alloca_once_value(builder, first)
        winner = cgutils.alloca_once_value(builder, ir.Constant(_bytes, [0] * LANES))
        count = code.arrays[places].nitems
        with cgutils.for_range(builder, count, start=_size(1)) as loop:
            new, old = code.load(x, x0, code.number(places, loop.index)), builder.load(largest)
            a_first_nan = builder.and_(
                builder.fcmp_unordered("uno", new, new), builder.fcmp_ordered("ord", old, old)
            )
            wins = builder.or_(builder.fcmp_ordered(">", new, old), a_first_nan)
            k = code.everywhere(builder.trunc(loop.index, ir.IntType(8)), _bytes)
            builder.store(builder.select(wins, new, old), largest)
            builder.store(builder.select(wins, k, builder.load(winner)), winner)
        code.store(builder.load(largest), y, y0)
        code.store(builder.load(winner), winners, w0)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def give_to_winner(typing, gradient, g0, winners, w0, x, x0, places):
    """x[x0 + places[k]] = gradient[g0] where winners[w0] (bytes) is k, else 0; LANES at once."""
    place = types.intp
    signature = types.none(gradient, place, winners, place, x, place, places)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        gradient, winners, x, places = 0, 2, 4, 6
        g0, w0, x0 = (arguments[i] for i in (1, 3, 5))
        given, winner = code.load(gradient, g0), code.load(winners, w0, kind=_bytes)
        nothing = ir.Constant(_floats, [0.0] * LANES)
        with cgutils.for_range(builder, code.arrays[places].nitems) as loop:
            k = code.everywhere(builder.trunc(loop.index, ir.IntType(8)), _bytes)
            wins = builder.icmp_unsigned("==", winner, k)
            place = code.number(places, loop.index)
            code.store(builder.select(wins, given, nothing), x, x0, place)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def look(typing, numbers):
    """Return numbers[0] as it is in memory now, whoever wrote it, and rest for a moment."""
    signature = numbers.dtype(numbers)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        if platform.machine() in ("x86_64", "AMD64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            rest = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause")
            builder.call(rest, [])
        return builder.load_atomic(code.place(0, _size(0)), "acquire", 8)

    return signature, generate


@intrinsic
def ring(typing, numbers):
    """Make numbers[0] another number, for who looks."""
    signature = types.none(numbers)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _Code(context, builder, signature, arguments).place(0, _size(0))
        more = builder.add(builder.load_atomic(place, "acquire", 8), _size(1))
        builder.store_atomic(more, place, "release", 8)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def take(typing, counters, which):
    """Return counters[which] and count it up by one, so that no two threads get the same."""
    signature = types.intp(counters, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _Code(context, builder, signature, arguments).place(0, arguments[1])
        return builder.atomic_rmw("add", place, _size(1), "acq_rel")

    return signature, generate
