"""Inner loops in vector registers, for `kernels`: what LLVM does not find by itself.

Each function is a piece of LLVM's intermediate code that Numba inlines where it is called. Arrays
are flat, float32 if nothing else is said; places are counted from their beginning. Nothing is
checked here.
"""

from __future__ import annotations

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

floats = ir.VectorType(ir.FloatType(), LANES)
_bytes = ir.VectorType(ir.IntType(8), LANES)


class Code:
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

    def load(self, array: int, *offsets: Any, kind: Any = floats) -> Any:
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
        right = [self.number(columns, c0, constant(j)) for j in range(size)]
        places = []
        for i in range(size):
            below = self.number(rows, r0, constant(i))
            line = []
            for j in range(size):
                place = builder.add(below, right[j])
                outside = builder.icmp_signed("<", place, constant(0))
                inside = self.place(array, start, place)
                chosen = builder.select(outside, self.place(other, constant(0)), inside)
                line.append(cgutils.alloca_once_value(builder, chosen))
            places.append(line)
        return places

    def load_from(self, source: Any, offset: Any) -> Any:
        place = self.builder.gep(self.builder.load(source), [offset])
        return self.builder.load(self.builder.bitcast(place, floats.as_pointer()), align=4)

    def store_into(self, target: Any, offset: Any, vector: Any) -> None:
        place = self.builder.gep(self.builder.load(target), [offset])
        self.builder.store(vector, self.builder.bitcast(place, floats.as_pointer()), align=4)

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
                total = self.multiply_add(ir.Constant(floats, [factor] * LANES), vector, total)
        return total

    def transform(self, rows: Any, square: Any) -> list[list[Any]]:
        """Return M X M^T, for a matrix M whose `rows` are known now, and a square X of vectors."""
        down = [[self.combine(row, column) for column in zip(*square, strict=True)] for row in rows]
        return [[self.combine(row, line) for row in rows] for line in down]

    def larger(self, new: Any, old: Any) -> Any:
        """Tell where a vector's number wins over one that came before it: NaN does, too."""
        a_first_nan = self.builder.and_(
            self.builder.fcmp_unordered("uno", new, new), self.builder.fcmp_ordered("ord", old, old)
        )
        return self.builder.or_(self.builder.fcmp_ordered(">", new, old), a_first_nan)

    def largest(self, vectors: Any) -> tuple[Any, Any]:
        """Return the largest of vectors, and which of them it is, as bytes."""
        largest, winner = vectors[0], ir.Constant(_bytes, [0] * LANES)
        for k, vector in enumerate(vectors[1:], 1):
            wins = self.larger(vector, largest)
            largest = self.builder.select(wins, vector, largest)
            winner = self.builder.select(wins, ir.Constant(_bytes, [k] * LANES), winner)
        return largest, winner

    def scale(self, factor: float, vector: Any) -> Any:
        return self.builder.fmul(ir.Constant(floats, [factor] * LANES), vector)

    def everywhere(self, number: Any, kind: Any = floats) -> Any:
        """Return a vector of one number."""
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        )

    def multiply_add(self, a: Any, b: Any, total: Any) -> Any:
        kind = ir.FunctionType(floats, [floats] * 3)
        name = f"llvm.fma.v{LANES}f32"
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, total]
        )


def constant(number: int) -> Any:
    """Return a number, known now, as a constant that places are counted with."""
    return ir.Constant(ir.IntType(64), number)


@intrinsic
def find_largest(typing, x, x0, places, y, y0, winners, w0):
    """Put the largest of x[x0 + places[k]] into y[y0], and its k into winners[w0] (bytes).

    LANES neighbours at once. Of equals the first wins; NaN wins over all.
    """
    place = types.intp
    signature = types.none(x, place, places, y, place, winners, place)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        x, places, y, winners = 0, 2, 3, 5
        x0, y0, w0 = (arguments[i] for i in (1, 4, 6))
        first = code.load(x, x0, code.number(places, constant(0)))
        largest = cgutils.alloca_once_value(builder, first)
        winner = cgutils.alloca_once_value(builder, ir.Constant(_bytes, [0] * LANES))
        count = code.arrays[places].nitems
        with cgutils.for_range(builder, count, start=constant(1)) as loop:
            new, old = code.load(x, x0, code.number(places, loop.index)), builder.load(largest)
            wins = code.larger(new, old)
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
        code = Code(context, builder, signature, arguments)
        gradient, winners, x, places = 0, 2, 4, 6
        g0, w0, x0 = (arguments[i] for i in (1, 3, 5))
        given, winner = code.load(gradient, g0), code.load(winners, w0, kind=_bytes)
        nothing = ir.Constant(floats, [0.0] * LANES)
        with cgutils.for_range(builder, code.arrays[places].nitems) as loop:
            k = code.everywhere(builder.trunc(loop.index, ir.IntType(8)), _bytes)
            wins = builder.icmp_unsigned("==", winner, k)
            place = code.number(places, loop.index)
            code.store(builder.select(wins, given, nothing), x, x0, place)
        return context.get_dummy_value()

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
        code = Code(context, builder, signature, arguments)
        x, rows, places, f, start, y, targets = 0, 1, 3, 4, 5, 7, 9
        r0, s0, y0 = (arguments[i] for i in (2, 6, 8))
        begins = [code.number(rows, r0, constant(t)) for t in range(ROWS)]
        first = code.load(start, s0)
        sums = [cgutils.alloca_once_value(builder, first) for _ in range(ROWS)]
        with cgutils.for_range(builder, code.arrays[places].nitems) as loop:
            at = code.number(places, loop.index)
            factor = code.load(f, builder.mul(loop.index, constant(LANES)))
            for begin, total in zip(begins, sums, strict=True):
                number = code.load(x, begin, at)
                builder.store(code.multiply_add(number, factor, builder.load(total)), total)
        for t, total in enumerate(sums):
            code.store(builder.load(total), y, y0, code.number(targets, r0, constant(t)))
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
        code = Code(context, builder, signature, arguments)
        x, rows, places, g, sums = 0, 1, 2, 4, 8
        k0, g0, g_step, count, s0 = (arguments[i] for i in (3, 5, 6, 7, 9))
        taps = [code.number(places, k0, constant(k)) for k in range(TAPS)]
        totals = [
            cgutils.alloca_once_value(builder, code.load(sums, s0, constant(k * LANES)))
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
            code.store(builder.load(total), sums, s0, constant(k * LANES))
        return context.get_dummy_value()

    return signature, generate
