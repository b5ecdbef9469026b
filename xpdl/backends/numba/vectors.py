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
def multiply_tile(
    typing, vectors, x, x0, rows, r0, columns, f, f0, f_step, start, s0, s_step, y, y0, targets, t0
):
    """y[t] = start[t] + sum over k of x[x0 + rows[r0 + t] + columns[k]] f[k], for t < ROWS.

    f[k] is `vectors` registers of numbers from f0 + k f_step on; so is start[t], from
    s0 + t s_step on, and y[t], from y0 + targets[t0 + t] on.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None  # Numba then asks again, with the number itself as the type
    width, place = vectors.literal_value, types.intp
    signature = types.none(
        *(vectors, x, place, rows, place, columns, f, place, place),
        *(start, place, place, y, place, targets, place),
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        x, rows, columns, f, start, y, targets = 1, 3, 5, 6, 9, 12, 14
        x0, r0, f0, f_step, s0, s_step, y0, t0 = (
            arguments[i] for i in (2, 4, 7, 8, 10, 11, 13, 15)
        )
        places = [builder.add(x0, code.number(rows, r0, _size(t))) for t in range(ROWS)]
        sums = {
            (t, v): cgutils.alloca_once_value(
                builder, code.load(start, s0, builder.mul(s_step, _size(t)), _size(v * LANES))
            )
            for t in range(ROWS)
            for v in range(width)
        }
        with cgutils.for_range(builder, code.arrays[columns].nitems) as loop:
            column, line = code.number(columns, loop.index), builder.mul(loop.index, f_step)
            factors = [code.load(f, f0, line, _size(v * LANES)) for v in range(width)]
            for t in range(ROWS):
                number = code.everywhere(code.number(x, places[t], column))
                for v in range(width):
                    total = code.multiply_add(number, factors[v], builder.load(sums[t, v]))
                    builder.store(total, sums[t, v])
        for (t, v), total in sums.items():
            target = code.number(targets, t0, _size(t))
            code.store(builder.load(total), y, y0, target, _size(v * LANES))
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


TAPS = 9
"""So many numbers of a filter are taken together: those of a window of 3 x 3."""


@intrinsic
def weigh_places(typing, x, rows, r0, places, f, start, s0, y, y0, targets):
    """y[t] = start + sum over k of x[rows[r0 + t] + places[k]] f[k], for t < ROWS.

    All of one register: LANES neighbours in x, in f from k LANES on, in start from s0 on, and in y
    from y0 + targets[r0 + t] on.
    """
    place = types.intp
    signature = types.none(x, rows, place, places, f, start, place, y, place, targets)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        x, rows, places, f, start, y, targets = 0, 1, 3, 4, 5, 7, 9
        r0, s0, y0 = (arguments[i] for i in (2, 6, 8))
        begins = [code.number(rows, r0, _size(t)) for t in range(ROWS)]
        first = code.load(start, s0)
        sums = [cgutils.alloca_once_value(builder, first) for _ in range(ROWS)]
        with cgutils.for_range(builder, code.arrays[places].nitems) as loop:
            at = code.number(places, loop.index)
            factor = code.load(f, builder.mul(loop.index, _size(LANES)))
            for begin, total in zip(begins, sums, strict=True):
                number = code.load(x, begin, at)
                builder.store(code.multiply_add(number, factor, builder.load(total)), total)
        for t, total in enumerate(sums):
            code.store(builder.load(total), y, y0, code.number(targets, r0, _size(t)))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def sum_places(typing, x, rows, places, k0, g, g0, g_step, count, sums, s0):
    """sums[k] += sum over r < count of x[rows[r] + places[k0 + k]] g[r], for k < TAPS.

    And sums[TAPS] += sum of g[r]. All of one register: LANES neighbours in x, in g from
    g0 + r g_step on, and in sums from s0 + k LANES on.
    """
    place = types.intp
    signature = types.none(x, rows, places, place, g, place, place, place, sums, place)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        x, rows, places, g, sums = 0, 1, 2, 4, 8
        k0, g0, g_step, count, s0 = (arguments[i] for i in (3, 5, 6, 7, 9))
        taps = [code.number(places, k0, _size(k)) for k in range(TAPS)]
        totals = [
            cgutils.alloca_once_value(builder, code.load(sums, s0, _size(k * LANES)))
            for k in range(TAPS + 1)
        ]
        with cgutils.for_range(builder, count) as loop:
            begin = code.number(rows, loop.index)
            gradient = code.load(g, g0, builder.mul(loop.index, g_step))
            for tap, total in zip(taps, totals, strict=False):
                product = code.multiply_add(code.load(x, begin, tap), gradient, builder.load(total))
                builder.store(product, total)
            builder.store(builder.fadd(builder.load(totals[-1]), gradient), totals[-1])
        for k, total in enumerate(totals):
            code.store(builder.load(total), sums, s0, _size(k * LANES))
        return context.get_dummy_value()

    return signature, generate
