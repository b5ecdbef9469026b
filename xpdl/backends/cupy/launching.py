"""Launching kernels of our own: how many threads, in pieces of which size, and random numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Pair, Shape, accumulation_dtype
from xpdl.backends.cupy.backend import CapturingCupyBackend
from xpdl.backends.generators import RandomGenerator, check_generator_state
from xpdl.errors import ShapeError

# The windows of so many images are laid out at once, in bytes: they should still be in the GPU's
# second cache (40 MB and more since Ampere) when the product reads them.
COLUMN_BYTES = 32 * 1024 * 1024

# Kernels that take an index apart count in 32 bits.
MOST_AT_ONCE = 2**30

THREADS = 256
# Enough blocks to fill any GPU several times over; a thread then does several numbers.
MOST_BLOCKS = 16 * 1024

# A piece of 16 bytes is the most that a thread reads at once.
PIECE = 16

# So many blocks add up their rows apart; the last to finish adds what they have.
MOST_PARTS = 256

# Of a batch of so many scores one block counts the hits.
MOST_SCORES = 2**20

REALS = {"float16": "__half", "float32": "float", "float64": "double"}
"""The types for which the kernels are compiled, and their names in CUDA."""

NOWHERE = np.uint64(0)  # a null pointer


def kernel_source() -> str:
    """Return the CUDA source of the kernels."""
    return files("xpdl.backends.cupy").joinpath("kernels.cu").read_text(encoding="utf-8")


def kernel_options(dtype: Any) -> tuple[str, ...]:
    """Return the compiler's options for arrays of `dtype`."""
    return ("-std=c++17", f"-DREAL={REALS[np.dtype(dtype).name]}")


class PhiloxGenerator:
    """NumPy's generator ``Generator(Philox(SeedSequence(seed)))``, number for number, on a GPU.

    Its key, and how many numbers were drawn, are on the device, so that a captured step draws new
    ones each time that it is replayed, and from another seed once there is one.
    """

    def __init__(self, backend: LaunchingCupyBackend, seed: int | Sequence[int]) -> None:
        self._backend = backend
        self.key = backend.xp.empty(2, np.uint64)
        self.position = backend.xp.empty(1, np.int64)
        self.reseed(seed)

    def reseed(self, seed: int | Sequence[int]) -> None:
        """Begin anew."""
        state = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self.key[...] = self._backend.asarray(state)
        self.position[...] = 0

    def random(self, size: Shape, dtype: Any) -> Array:
        """Return numbers uniform in [0, 1), float32 or float64."""
        dtype = np.dtype(dtype)
        numbers: Array = self._backend.xp.empty(size, dtype)
        double = dtype == np.float64
        kernel = "uniform_doubles" if double else "uniform_floats"
        self._backend.run(kernel, "float32", numbers.size, numbers, self.position, self.key)
        self.advance(numbers.size * (2 if double else 1), double)
        return numbers

    def advance(self, halves: int, whole_words: bool = False) -> None:
        """Count `halves` of 64-bit words as drawn."""
        self._backend.launch(
            *("advance", "float32", (1,), (1,)),
            *(self.position, np.int64(halves), np.bool_(whole_words)),
        )


class LaunchingCupyBackend(CapturingCupyBackend):
    """CuPy with kernels that are compiled when they are first wanted."""

    _finished: Array
    _kernels: dict[tuple[str, str], Any]
    _modules: dict[str, Any]

    # ---- launching ----------------------------------------------------------------------

    def launch(self, name: str, real: str, grid: Shape, block: Shape, *arguments: Any) -> None:
        """Launch a kernel compiled for the float type `real`."""
        kernel = self._kernels.get((name, real))
        if kernel is None:
            if real not in self._modules:
                self._modules[real] = self.xp.RawModule(
                    code=kernel_source(), options=kernel_options(real)
                )
            kernel = self._kernels[name, real] = self._modules[real].get_function(name)
        kernel(grid, block, arguments)

    def run(self, name: str, real: str, count: int, *arguments: Any) -> None:
        """Launch a kernel for `count` numbers, which is its last argument."""
        self.launch_over(name, real, count, *arguments, np.int64(count))

    def launch_over(self, name: str, real: str, count: int, *arguments: Any) -> None:
        if count:
            blocks = min(-(-count // THREADS), MOST_BLOCKS)
            self.launch(name, real, (blocks,), (THREADS,), *arguments)

    def run_in_pieces(self, name: str, first: Array, pieces: bool, *arguments: Any) -> None:
        """Launch a kernel for the numbers of `first`; the last it is told is whether in pieces."""
        threads = threads_for(first, pieces)
        numbers = np.bool_(pieces), np.int64(first.size)
        self.launch_over(name, first.dtype.name, threads, *arguments, *numbers)

    def launch_elementwise(self, name: str, *arrays: Array) -> None:
        """Launch a kernel over arrays that are alike, in pieces where all begin at one."""
        self.run_in_pieces(name, arrays[0], in_pieces(*arrays), *arrays)

    def launch_by_columns(
        self,
        name: str,
        arrays: tuple[Any, ...],
        shape: Pair,
        pieces: bool,
        total: Array | None,
        *numbers: Any,
    ) -> None:
        """Launch a kernel that makes rows, `shape` (rows, columns), of the type of the first array.

        With `total` (columns,), it writes the sum of each column there.
        """
        (rows, columns), first = shape, arrays[0]
        lanes = columns * first.itemsize // PIECE if pieces else columns
        width = min(lanes, THREADS)
        height, across = THREADS // width, -(-lanes // width)
        most = (MOST_BLOCKS if total is None else MOST_PARTS) // across
        blocks = max(1, min(most, -(-rows // (4 * height))))
        sums, parts = total, None
        if total is not None:
            wide = accumulation_dtype(first.dtype)
            parts = self.xp.empty((blocks, columns), wide)
            if total.dtype != wide or not total.flags.c_contiguous:
                sums = self.xp.empty(columns, wide)
        self.launch(
            *(name, first.dtype.name, (across, blocks), (width, height), *arrays),
            *(NOWHERE if a is None else a for a in (parts, sums)),
            *(self._finished, np.bool_(pieces), *numbers),
        )
        if total is not None and sums is not None and sums is not total:
            total[...] = sums

    def launch_together(self, name: str, g: Array, *arguments: Any) -> None:
        """Launch a kernel over float32 numbers g whose last block says how all of them are."""
        pieces = in_pieces(g)
        blocks = max(1, min(-(-threads_for(g, pieces) // THREADS), MOST_PARTS))
        parts = self.xp.empty(blocks, np.bool_)
        numbers = parts, self._finished, np.bool_(pieces), np.int64(g.size)
        self.launch(name, "float32", (blocks,), (THREADS,), *arguments, *numbers)

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        return PhiloxGenerator(self, seed)

    def reseed(self, generator: RandomGenerator, seed: int | Sequence[int]) -> None:
        generator.reseed(seed)  # type: ignore[attr-defined]

    def skip(self, generator: RandomGenerator, numbers: int) -> None:
        generator.advance(numbers)  # type: ignore[attr-defined]

    def generator_state(self, generator: RandomGenerator) -> dict[str, int]:
        return {"halves": int(self.item(generator.position))}  # type: ignore[attr-defined]

    def set_generator_state(self, generator: RandomGenerator, state: Mapping[str, int]) -> None:
        generator.position[...] = check_generator_state(state)[0]  # type: ignore[attr-defined]


def scalars_of(name: str, of: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return what the kernel of an update rule takes of its options; None if there is none."""
    match name:
        case "sgd":
            return ()
        case "momentum" | "nesterov":
            return (of["momentum"],)
        case "adagrad":
            return (of["epsilon"],)
        case "rmsprop":
            return of["decay_rate"], 1 - of["decay_rate"], of["epsilon"]
        case "adam":
            betas = of["beta1"], of["beta2"]
            kept = (number for beta in betas for number in (beta, 1 - beta))
            logarithms = (math.log(beta) if beta else -math.inf for beta in betas)
            return *kept, *logarithms, of["epsilon"]
    return None


def spans_of(images: int, numbers: int, itemsize: int | None = None) -> Iterator[slice]:
    """Cut `images`, each of so many numbers, into spans that a kernel can count.

    With `itemsize`, into spans of at most `COLUMN_BYTES` too, or one image.
    """
    if numbers > MOST_AT_ONCE:
        raise ShapeError(
            f"one image wants {numbers:,} numbers at once, a kernel takes {MOST_AT_ONCE:,}; "
            "use smaller images or windows, or XPDL_PROVIDER=generic."
        )
    most = MOST_AT_ONCE if itemsize is None else min(MOST_AT_ONCE, COLUMN_BYTES // itemsize)
    step = max(1, most // max(1, numbers))
    for start in range(0, images, step):
        yield slice(start, min(start + step, images))


def in_pieces(*arrays: Any, rows: bool = False) -> bool:
    """Tell whether arrays begin where a piece may; and whether their `rows` are of whole pieces.

    Rows are those of the last axis, of an array without gaps.
    """
    if any(a.data.ptr % PIECE for a in arrays):
        return False
    return not rows or all(
        a.flags.c_contiguous and a.shape[-1] * a.itemsize % PIECE == 0 for a in arrays
    )


def threads_for(a: Array, pieces: bool) -> int:
    """Return how many threads do an array, of which each does a piece or a number at a time."""
    return -(-a.size * a.itemsize // PIECE) if pieces else a.size


def fits_rows(b: Array, y: Array) -> bool:
    """Tell whether biases b can be added to the rows of y as they lie."""
    return b.dtype == y.dtype and b.flags.c_contiguous


def are_alike(*arrays: Array) -> bool:
    """Tell whether arrays are of one float type and lie in memory in one way, without gaps."""
    first = arrays[0]
    if first.dtype.name not in REALS:
        return False
    if any(a.dtype != first.dtype or a.shape != first.shape for a in arrays):
        return False
    if all(a.flags.c_contiguous for a in arrays):
        return True
    return first.ndim == 4 and all(a.transpose(0, 2, 3, 1).flags.c_contiguous for a in arrays)
