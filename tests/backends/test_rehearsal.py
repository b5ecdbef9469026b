"""The rehearsed GPU itself: that it computes what CUDA would, and refuses what CUDA would."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rehearsal
from rehearsal import (
    CompileError,
    LaunchError,
    OutOfMemoryError,
    RehearsalError,
    compiler,
    kernels,
)
from rehearsal.cublas import round_to_tf32
from rehearsal.errors import CUDARuntimeError

TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(rehearsal.why_not() is not None, reason=str(rehearsal.why_not()))


@pytest.fixture
def cupy():
    yield rehearsal.make_cupy()
    rehearsal.make_cupy()  # gives the device its endless memory back


@pytest.fixture
def compiled(cupy):
    """Return a function that compiles kernels, given as a string, and returns them by name."""

    def compile(code, *options):
        return cupy.RawModule(code=textwrap.dedent(code), options=options).get_function

    return compile


@pytest.fixture(params=kernels.ORDERS)
def order(request, monkeypatch):
    monkeypatch.setattr(kernels, "order", request.param)
    return request.param


# ---- kernels ----------------------------------------------------------------------------------

SCALE = r"""
#include <cuda_fp16.h>

typedef REAL real;

template <class T> __device__ __forceinline__ float wide(T x) { return x; }
template <> __device__ __forceinline__ float wide(__half x) { return __half2float(x); }

template <class T> __device__ __forceinline__ T narrow(float x) { return x; }
template <> __device__ __forceinline__ __half narrow(float x) { return __float2half_rn(x); }

extern "C" __global__ void __launch_bounds__(256)
scale(const real* __restrict__ x, real* y, float factor, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        y[i] = narrow<real>(factor * wide(x[i]));
    }
}
"""


@pytest.mark.parametrize(("real", "dtype"), [("float", np.float32), ("__half", np.float16)])
def test_element_by_element(cupy, compiled, order, rng, real, dtype):
    host = (1e4 * rng.standard_normal(1000)).astype(dtype)
    x, y = cupy.asarray(host), cupy.zeros(1000, dtype)
    compiled(SCALE, f"-DREAL={real}")("scale")(
        (3,), (128,), (x, y, np.float32(7.3), np.int32(1000))
    )
    with np.errstate(over="ignore"):  # beyond 65504 a half is infinite
        expected = (np.float32(7.3) * host.astype(np.float32)).astype(dtype)
    assert np.array_equal(cupy.asnumpy(y), expected)
    assert np.isinf(expected).any() == (real == "__half")


def test_halves_round_as_numpys_do(cupy, compiled):
    code = """
    #include <cuda_fp16.h>
    extern "C" __global__ void both_ways(const float* x, __half* y, float* back) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        y[i] = __float2half(x[i]);
        back[i] = __half2float(y[i]);
    }
    """
    every_half = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    # Each half, and what lies in the middle between it and its neighbour.
    with np.errstate(all="ignore"):
        between = every_half + (np.roll(every_half, -1) - every_half) / 2
        host = np.concatenate([every_half, between, [7e4, -7e4, 65519, 65520, 1e-8]])
        host = np.resize(host.astype(np.float32), 2**18)
        expected = host.astype(np.float16)
    x, y = cupy.asarray(host), cupy.empty(host.shape, np.float16)
    back = cupy.empty(host.shape, np.float32)
    compiled(code)("both_ways")((host.size // 256,), (256,), (x, y, back))
    assert np.array_equal(cupy.asnumpy(y), expected, equal_nan=True)
    assert np.array_equal(cupy.asnumpy(back), expected.astype(np.float32), equal_nan=True)


def test_places_in_three_dimensions(cupy, compiled, order):
    code = """
    extern "C" __global__ void count(int* out) {
        int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        int threads = blockDim.x * blockDim.y * blockDim.z;
        out[block * threads + thread] += 1 + block * threads + thread;
    }
    """
    out = cupy.zeros(2 * 3 * 4 * 5 * 6 * 7, np.int32)
    compiled(code)("count")((2, 3, 4), (5, 6, 7), (out,))
    assert np.array_equal(cupy.asnumpy(out), 1 + np.arange(out.size))


def test_words_of_cuda(cupy, compiled):
    code = """
    #include <math_constants.h>

    __device__ float table[2] = {0.5f, 2.0f};

    extern "C" __global__ void words(float* f, unsigned long long* u, const bool* flag) {
        f[0] = fmaf(2.0f, 3.0f, fmaxf(1.0f, -CUDART_INF_F));
        f[1] = isnan(CUDART_NAN_F) && !isfinite(CUDART_INF_F) ? expf(0.0f) : 0.0f;
        f[2] = log1pf(0.0f) + expm1f(0.0f) + logf(1.0f) + rsqrtf(4.0f);
        f[3] = table[1] * min(3, 4) + max(1.5f, 0.5f);
        f[4] = __uint_as_float(__float_as_uint(-1.25f));
        f[5] = *flag;
        u[0] = __umulhi(0xffffffffu, 0x80000000u);
        u[1] = __umul64hi(0xffffffffffffffffull, 0x8000000000000000ull);
        u[2] = __ldg(u + 1) + 1;
    }
    """
    f, u = cupy.zeros(6, np.float32), cupy.zeros(3, np.uint64)
    compiled(code)("words")((1,), (1,), (f, u, cupy.ones(1, np.bool_)))
    assert cupy.asnumpy(f).tolist() == [7, 1, 0.5, 7.5, -1.25, 1]
    assert cupy.asnumpy(u).tolist() == [2**31 - 1, 2**63 - 1, 2**63]


TOTAL = """
template <int N> __device__ float sum_of_block(float x) {
    __shared__ float part[N];
    part[threadIdx.x] = x;
    __syncthreads();
    for (int step = N / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
        __syncthreads();
    }
    return part[0];
}

#define TOTAL_OF(threads)                                                               \\
    extern "C" __global__ void total##threads(const float* x, float* out, int n) {      \\
        float sum = 0;                                                                  \\
        for (int i = threadIdx.x; i < n; i += threads) sum += x[blockIdx.x * n + i];    \\
        sum = sum_of_block<threads>(sum);                                               \\
        if (threadIdx.x == 0) out[blockIdx.x] = sum;                                    \\
    }
TOTAL_OF(64)
TOTAL_OF(1024)
"""


@pytest.mark.parametrize("threads", [64, 1024])
def test_a_block_waits_for_its_threads(cupy, compiled, order, rng, threads):
    host = rng.random((5, 3000), dtype=np.float32)
    out = cupy.zeros(5, np.float32)
    kernel = compiled(TOTAL)(f"total{threads}")
    kernel((5,), (threads,), (cupy.asarray(host), out, np.int32(3000)))
    assert np.allclose(cupy.asnumpy(out), host.sum(axis=1), rtol=1e-6)
    part = np.resize(np.append(host, np.zeros((5, 1096), np.float32), axis=1), (5, 4096))
    part = part[:, : -(-3000 // threads) * threads].reshape(5, -1, threads)
    sums = part[:, 0].copy()
    for row in range(1, part.shape[1]):
        sums += part[:, row]
    while sums.shape[1] > 1:
        sums = sums[:, : sums.shape[1] // 2] + sums[:, sums.shape[1] // 2 :]
    assert np.array_equal(cupy.asnumpy(out), sums[:, 0]), "the same sums in the same order"


def results_by_order(monkeypatch, run):
    results = []
    for name in kernels.ORDERS:
        monkeypatch.setattr(kernels, "order", name)
        results.append(run().tobytes())
    return set(results)


RACES = {
    "a missing barrier": """
    extern "C" __global__ void reverse(int* x) {
        __shared__ int kept[64];
        kept[threadIdx.x] = x[threadIdx.x];
        x[threadIdx.x] = kept[63 - threadIdx.x];
    }
    """,
    "a barrier that comes too late": """
    extern "C" __global__ void reverse(int* x) {
        __shared__ int kept[64];
        kept[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] = kept[63 - threadIdx.x];
        kept[threadIdx.x] = -1;
    }
    """,
    "blocks that write one place": """
    extern "C" __global__ void reverse(int* x) { x[0] = threadIdx.x; }
    """,
}
RIGHT = """
extern "C" __global__ void reverse(int* x) {
    __shared__ int kept[64];
    kept[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = kept[63 - threadIdx.x];
}
"""


@pytest.mark.parametrize("race", RACES)
def test_a_race_gives_itself_away(cupy, compiled, monkeypatch, race):
    def run(code):
        x = cupy.asarray(np.arange(64, dtype=np.int32))
        compiled(code)("reverse")((1,), (64,), (x,))
        return cupy.asnumpy(x)

    assert len(results_by_order(monkeypatch, lambda: run(RIGHT))) == 1
    assert np.array_equal(run(RIGHT), np.arange(64)[::-1])
    assert len(results_by_order(monkeypatch, lambda: run(RACES[race]))) > 1


@pytest.mark.skipif(compiler.sanitizing(), reason="the sanitizer watches static memory only")
def test_shared_memory_holds_rubbish_at_first(cupy, compiled):
    code = """
    template <int N> __device__ void show(float* out) {
        __shared__ float kept[N];
        out[blockIdx.x * N + threadIdx.x] = kept[threadIdx.x];
        __syncthreads();
        kept[threadIdx.x] = 1;
    }
    extern "C" __global__ void unwritten(float* out) { show<32>(out); }
    """
    out = cupy.zeros((3, 32), np.float32)
    compiled(code)("unwritten")((3,), (32,), (out,))
    assert np.isnan(cupy.asnumpy(out)).all()


def test_a_barrier_that_some_threads_never_reach(cupy, compiled, order):
    code = """
    extern "C" __global__ void early(float* x, int n) {
        if (threadIdx.x >= n) return;
        x[threadIdx.x] = 1;
        __syncthreads();
        x[threadIdx.x] += 1;
    }
    """
    kernel = compiled(code)("early")
    x = cupy.zeros(64, np.float32)
    for _ in range(2):
        with pytest.raises(LaunchError, match=r"early: 24 of 64 threads returned.*line 5"):
            kernel((1,), (64,), (x, np.int32(40)))
        x.fill(0)
        kernel((2,), (64,), (x, np.int32(64)))  # and it still works
    assert (cupy.asnumpy(x) == 2).all()


def test_threads_at_different_barriers(compiled, cupy):
    code = """
    extern "C" __global__ void apart(float* x) {
        if (threadIdx.x < 10) {
            __syncthreads();
        } else {
            __syncthreads();
        }
    }
    """
    with pytest.raises(LaunchError, match=r"line 4.*line 6|line 6.*line 4"):
        compiled(code)("apart")((1,), (32,), (cupy.zeros(1, np.float32),))


# ---- what a launch may be given ---------------------------------------------------------------

ARGUMENTS = """
#include <cuda_fp16.h>
extern "C" __global__ void take(const float* x, __half* h, unsigned char* b, void* any,
                                int i, unsigned int u, long long l, unsigned long long w,
                                float f, double d, bool flag) {
    if (any == nullptr) b[0] = flag;
    b[1] = i == -1 && u == 4294967295u && l == -(1ll << 40) && w == ~0ull && f == 0.1f && d == 0.1;
}
"""


def good_arguments(cupy):
    return {
        "x": cupy.ones(2, np.float32),
        "h": cupy.ones(2, np.float16),
        "b": cupy.zeros(2, np.uint8),
        "any": np.uint64(0),
        "i": np.int32(-1),
        "u": np.uint32(2**32 - 1),
        "l": np.int64(-(2**40)),
        "w": np.uint64(2**64 - 1),
        "f": np.float32(0.1),
        "d": np.float64(0.1),
        "flag": np.bool_(True),
    }


def test_every_kind_of_argument(cupy, compiled):
    take, given = compiled(ARGUMENTS)("take"), good_arguments(cupy)
    take((1,), (1,), tuple(given.values()))
    assert cupy.asnumpy(given["b"]).tolist() == [1, 1]
    take((1,), (1,), tuple((given | {"any": given["h"], "x": np.intp(0)}).values()))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("i", -1, "a int32, got the Python int -1"),
        ("f", 0.1, "a float32, got the Python float"),
        ("flag", True, "a bool, got the Python bool"),
        ("i", np.int64(-1), "a int32, got a NumPy int64"),
        ("u", np.int32(1), "a uint32, got a NumPy int32"),
        ("l", np.uint64(1), "a int64, got a NumPy uint64"),
        ("f", np.float64(0.1), "a float32, got a NumPy float64"),
        ("x", np.ones(2, np.float32), "a NumPy array of float32, whose memory a GPU cannot reach"),
        ("x", None, "got a NoneType"),
        ("x", 0, "the Python int 0"),
        ("any", np.uint64(8), "got a NumPy uint64"),
        ("x", "float16", r"argument 0 of take is a const float32\*, got a device array of float16"),
        ("h", "float32", r"argument 1 of take is a float16\*, got a device array of float32"),
        ("i", "int32", "a int32, got a device array"),
    ],
)
def test_wrong_arguments(cupy, compiled, name, value, says):
    if isinstance(value, str):
        value = cupy.ones(2, value)
    given = good_arguments(cupy) | {name: value}
    with pytest.raises(LaunchError, match=says):
        compiled(ARGUMENTS)("take")((1,), (1,), tuple(given.values()))


def test_an_empty_array_has_no_memory(cupy, compiled):
    code = 'extern "C" __global__ void none(const float* x, int* out) { *out = x == nullptr; }'
    out = cupy.zeros(1, np.int32)
    compiled(code)("none")((1,), (1,), (cupy.zeros((3, 0), np.float32), out))
    assert cupy.asnumpy(out) == 1


def test_too_few_arguments(cupy, compiled):
    with pytest.raises(LaunchError, match="takes 11 arguments, got 1"):
        compiled(ARGUMENTS)("take")((1,), (1,), (np.int32(1),))


@pytest.mark.parametrize(
    ("grid", "block", "says"),
    [
        ((0,), (32,), "a side without any; CuPy would silently make it 1"),
        ((1,), (0,), "a side without any"),
        ((1, 70000), (32,), "a grid has at most"),
        ((2**31,), (32,), "a grid has at most"),
        ((1,), (1025,), "a block has at most 1024"),
        ((1,), (32, 33), "a block has at most 1024"),
        ((1,), (1, 1, 65), "and 64 along z"),
        ((1.0,), (32,), "made of integers"),
        (1, (32,), "a tuple"),
        ((1, 1, 1, 1), (32,), "a tuple"),
    ],
)
def test_wrong_shapes(cupy, compiled, grid, block, says):
    with pytest.raises(LaunchError, match=says):
        compiled(RIGHT)("reverse")(grid, block, (cupy.zeros(64, np.int32),))


@pytest.mark.parametrize(
    ("code", "options", "says"),
    [
        ('extern "C" __global__ void f(int* x) { x[0] = y; }', (), "kernels.cu:1.*'y'|‘y’"),
        (RIGHT, ("--use_fast_math",), "does not know.*use_fast_math"),
        (RIGHT, ("-DX=1", "-arch=sm_90"), "does not know.*sm_90"),
        ('extern "C" __global__ void f() { extern __shared__ int x[]; }', (), "g.. refuses"),
        *(
            (f'extern "C" __global__ void f(float* x) {{ {body}; }}', (), "g.. refuses")
            for body in ("x[0] = INFINITY", "uint32_t i = 0", "x[0] = std::sqrt(x[1])")
        ),
        ('extern "C" __global__ void f(int** x) {}', (), "pointers to pointers"),
    ],
)
def test_what_does_not_compile(compiled, code, options, says):
    with pytest.raises(CompileError, match=f"(?s){says}"):
        compiled(code, *options)("f")


def test_options_are_a_tuple(cupy):
    with pytest.raises(TypeError):
        cupy.RawModule(code=RIGHT, options=["-DX"])


def test_an_unknown_kernel(compiled):
    with pytest.raises(LaunchError, match="no kernel 'revers', only reverse"):
        compiled(RIGHT)("revers")


# ---- reading a source -------------------------------------------------------------------------


def test_which_kernels_wait():
    code = """
    // extern "C" __global__ void commented(int* x) { __syncthreads(); }
    #define WAIT __syncthreads()
    #define GLOBAL extern "C" __global__ void
    #define KERNEL(name, body) GLOBAL __launch_bounds__(64) name(int* x) { body; }
    struct Tile { int n; __device__ void load() { WAIT; } };
    template <class T> __device__ void helper(T x) { Tile tile; tile.load(); }
    namespace deep {
    __device__ inline float far(float x) { return x; }
    __device__ void helper2(int x) { if (x) { helper(x); } }
    }
    KERNEL(by_macro, WAIT)
    KERNEL(by_struct, helper(1))
    KERNEL(alone, x[0] = deep::far(2))
    extern "C" {
    __global__ void by_namespace(int* x) { for (;;) { deep::helper2(1); } }
    __global__ void shared_only(int* x) { __shared__ int y; y = 1; x[0] = y; }
    __global__ void text_only(int* x) { const char* s = "__syncthreads() {"; }
    }
    extern "C" __global__ void last(int* x);
    extern "C" __global__ void last(int* x) { x[0] = 1; }
    """
    assert compiler.kernels_of(code, ()) == {
        "by_macro": True,
        "by_struct": True,
        "alone": False,
        "by_namespace": True,
        "shared_only": True,
        "text_only": False,
        "last": False,
    }


def test_a_library_is_built_once(compiled, monkeypatch):
    compiled(RIGHT)("reverse")
    monkeypatch.setattr(compiler, "_compile", None)
    compiled(RIGHT)("reverse")


# ---- streams and graphs -----------------------------------------------------------------------


@pytest.fixture
def stream(cupy):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        yield stream
        if stream.is_capturing():
            with pytest.raises(CUDARuntimeError, match="Invalidated"):
                stream.end_capture()
        stream.synchronize()


ADD = """
extern "C" __global__ void add(const float* x, float* y, float number, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += x[i] + number;
}
"""


def test_a_graph_is_launched_and_not_before(cupy, compiled, stream):
    add = compiled(ADD)("add")
    x, y = cupy.ones(10, np.float32), cupy.zeros(10, np.float32)
    number = 1.0
    stream.begin_capture()
    assert stream.is_capturing()
    add((1,), (32,), (x, y, np.float32(number), np.int32(10)))
    z = y * 2
    graph = stream.end_capture()
    assert not stream.is_capturing()
    assert (cupy.asnumpy(y) == 0).all(), "captured, not executed"
    graph.launch()
    assert (cupy.asnumpy(y) == 2).all()
    assert (cupy.asnumpy(z) == 4).all()
    number = 100.0
    x.fill(10)
    graph.launch(stream)
    assert (cupy.asnumpy(y) == 13).all(), "the number is frozen, the memory is not"
    assert (cupy.asnumpy(z) == 26).all()


def test_what_cannot_be_captured(cupy, stream):
    x = cupy.ones((2, 2), np.float32)
    refused = {
        "a copy to the host": lambda: cupy.asnumpy(x),
        "get": lambda: x.get(),
        "a copy to the device": lambda: cupy.asarray(np.ones(2, np.float32)),
        "waiting": stream.synchronize,
        "waiting for all": cupy.cuda.Device().synchronize,
        "asking": lambda: stream.done,
    }
    for what, do in refused.items():
        stream.begin_capture()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
            do()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        assert not stream.is_capturing(), what


def test_products_of_cupy_cannot_be_captured(cupy, stream):
    x = cupy.ones((2, 2), np.float32)
    products = [lambda: x @ x, lambda: cupy.matmul(x, x), lambda: x.dot(x)]
    stream.begin_capture()
    for multiply in products:
        with pytest.raises(NotImplementedError, match="cuBLAS API during stream capture"):
            multiply()
    stream.end_capture()


def test_the_null_stream_captures_nothing(cupy):
    with pytest.raises(RuntimeError, match=r"default \(legacy\) stream"):
        cupy.cuda.get_current_stream().begin_capture()


def test_work_beside_a_capture(cupy, stream):
    x = cupy.zeros(2, np.float32)
    stream.begin_capture()
    with cupy.cuda.Stream.null, pytest.raises(RehearsalError, match="would not be captured"):
        x += 1
    stream.end_capture()


def test_streams_that_do_not_wait(cupy, compiled):
    x = cupy.zeros(4, np.float32)
    x += 1
    other = cupy.cuda.Stream(non_blocking=True)
    with other, pytest.raises(RehearsalError, match="may be unfinished"):
        x += 1
    cupy.cuda.get_current_stream().synchronize()
    with other:
        x += 1
    event = other.record()
    with pytest.raises(RehearsalError, match="may be unfinished"):
        cupy.asnumpy(x)
    cupy.cuda.Stream.null.wait_event(event)
    assert (cupy.asnumpy(x) == 2).all()
    blocking = cupy.cuda.Stream()
    x += 1
    with blocking:
        x += 1
    assert (cupy.asnumpy(x) == 4).all()
    other.synchronize()


# ---- memory -----------------------------------------------------------------------------------


def test_memory_ends():
    cupy = rehearsal.make_cupy(memory=4096)
    pool = cupy.get_default_memory_pool()
    assert cupy.cuda.memory.OutOfMemoryError is OutOfMemoryError
    x = cupy.zeros(512, np.float32)
    y = x[::2].reshape(16, 16)
    assert pool.used_bytes() == 2048
    with pytest.raises(OutOfMemoryError, match=r"allocating 4,096 bytes \(allocated so far: 2,048"):
        cupy.zeros(1024, np.float32)
    with pytest.raises(MemoryError):
        cupy.concatenate([x, x])
    del x
    assert pool.used_bytes() == 2048, "a view keeps it"
    del y
    assert pool.used_bytes() == 0
    assert pool.total_bytes() == 2048, "kept for the next"
    assert cupy.cuda.runtime.memGetInfo() == (2048, 4096)
    del_me = cupy.zeros(1024, np.float32)
    assert cupy.cuda.runtime.memGetInfo() == (0, 4096)
    del del_me
    pool.free_all_blocks()
    assert cupy.cuda.runtime.memGetInfo() == (4096, 4096)
    rehearsal.make_cupy()


def test_pools_are_apart(cupy):
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        x = cupy.zeros(100, np.float32)
    cupy.zeros(1000, np.float32)
    assert pool.used_bytes() == 512
    del x
    assert (pool.used_bytes(), pool.total_bytes(), pool.free_bytes()) == (0, 512, 512)
    pool.free_all_blocks()
    assert pool.total_bytes() == 0
    memory = pool.malloc(1000)
    assert pool.used_bytes() == 1024
    assert memory.ptr


# ---- memory of graphs -------------------------------------------------------------------------


def captured(cupy, stream, do, pool):
    with cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        result = do()
        return result, stream.end_capture()


def test_a_graph_keeps_its_pool_to_itself(cupy, stream):
    x = cupy.ones(1000, np.float32)
    pool = cupy.cuda.MemoryPool()
    result, graph = captured(cupy, stream, lambda: (x + 1) * 2, pool)
    assert pool.used_bytes() == 4096, "what was only in between is free"
    assert pool.total_bytes() == 8192
    cupy.zeros(1000, np.float32)  # of another pool
    graph.launch()
    assert (cupy.asnumpy(result) == 4).all()
    # Graphs that are launched one after another may share.
    other, second = captured(cupy, stream, lambda: x * 3, pool)
    with cupy.cuda.using_allocator(pool.malloc), pytest.raises(RehearsalError, match="of its own"):
        cupy.zeros(1000, np.float32)
    with pytest.raises(RehearsalError, match="is given back"):
        pool.free_all_blocks()
    del graph
    pool.free_all_blocks()
    assert pool.total_bytes() == 8192
    del second, result, other
    pool.free_all_blocks()
    assert pool.total_bytes() == 0


def test_a_graph_in_the_common_pool(cupy, stream):
    x = cupy.ones(1000, np.float32)
    pool = cupy.get_default_memory_pool()
    _result, graph = captured(cupy, stream, lambda: (x + 1) * 2, pool)
    with pytest.raises(RehearsalError, match="could be given to another array"):
        x * 2
    del graph
    x * 2


def test_a_graph_without_its_pool(cupy, stream):
    x = cupy.ones(1000, np.float32)
    _, graph = captured(cupy, stream, lambda: (x + 1) * 2, cupy.cuda.MemoryPool())
    with pytest.raises(RehearsalError, match="whose memory pool is no more"):
        graph.launch()


def test_a_graph_without_its_input(cupy, compiled, stream):
    arrays = [cupy.ones(10, np.float32), cupy.zeros(10, np.float32)]

    def add():
        compiled(ADD)("add")((1,), (32,), (*arrays, np.float32(1), np.int32(10)))

    _, graph = captured(cupy, stream, add, cupy.cuda.MemoryPool())
    graph.launch()
    view = arrays[0][:2]
    arrays.clear()
    with pytest.raises(RehearsalError, match="uses an array which is no more"):
        graph.launch()
    del view


# ---- the module -------------------------------------------------------------------------------


def test_the_module_looks_like_cupy(cupy):
    assert cupy.__name__ == "cupy"
    assert cupy.__version__.startswith("14.")
    assert isinstance(cupy.zeros(1, np.float32), cupy.ndarray)
    assert cupy.cuda.Device().id == 0
    assert cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    turned = cupy.asarray(np.ones((2, 3, 4), np.float32)).transpose(2, 0, 1)
    assert cupy.exp(turned).flags.c_contiguous
    assert cupy.asnumpy(turned).flags.c_contiguous
    with pytest.raises(TypeError):
        cupy.random.default_rng([1, 2])
    assert cupy.random.default_rng(1).random((3,), dtype=np.float32).shape == (3,)


# ---- cuBLAS -----------------------------------------------------------------------------------

TYPES = {"float32": 0, "float64": 1, "float16": 2}
COMPUTE = {"float32": 68, "float64": 70}


@pytest.fixture
def cublas(cupy):
    """Return a function that calls cublasGemmEx on a handle of its own."""
    library = rehearsal.cublas_library()
    address, integer = ctypes.c_void_p, ctypes.c_int
    library.cublasCreate_v2.argtypes = [address]
    library.cublasDestroy_v2.argtypes = [address]
    library.cublasSetStream_v2.argtypes = [address, address]
    library.cublasSetWorkspace_v2.argtypes = [address, address, ctypes.c_size_t]
    library.cublasSetMathMode.argtypes = [address, integer]
    library.cublasGetVersion_v2.argtypes = [address, address]
    matrix = [address, integer, integer]
    library.cublasGemmEx.argtypes = [
        address, *5 * [integer], address, *2 * matrix, address, *matrix, integer, integer,
    ]  # fmt: skip
    library.cublasGemmEx.restype = ctypes.c_int
    handle = ctypes.c_void_p()
    assert library.cublasCreate_v2(ctypes.byref(handle)) == 0

    class Calls:
        raw = library

        def __init__(self):
            self.handle = handle

        def gemm(self, a, b, c, transa=0, transb=0, alpha=1.0, beta=0.0, changed=()):
            wide = "float64" if c.dtype == np.float64 else "float32"
            number = ctypes.c_double if wide == "float64" else ctypes.c_float
            m, n = c.shape
            k = a.shape[0] if transa else a.shape[1]
            given = {
                "handle": handle, "transa": transa, "transb": transb, "m": m, "n": n, "k": k,
                "alpha": ctypes.byref(number(alpha)),
                "a": a.data.ptr, "a_type": TYPES[str(a.dtype)], "lda": a.strides[1] // a.itemsize,
                "b": b.data.ptr, "b_type": TYPES[str(b.dtype)], "ldb": b.strides[1] // b.itemsize,
                "beta": ctypes.byref(number(beta)),
                "c": c.data.ptr, "c_type": TYPES[str(c.dtype)], "ldc": c.strides[1] // c.itemsize,
                "compute": COMPUTE[wide], "algorithm": -1,
            }  # fmt: skip
            return library.cublasGemmEx(*(given | dict(changed)).values())

    yield Calls()
    assert library.cublasDestroy_v2(handle) == 0


def columns(cupy, host):
    """Put a matrix on the device, column by column."""
    return cupy.asarray(np.ascontiguousarray(host.T)).T


@pytest.mark.parametrize("transa", [0, 1])
@pytest.mark.parametrize("transb", [0, 1])
@pytest.mark.parametrize(
    ("kind", "out"),
    [("float32",) * 2, ("float64",) * 2, ("float16",) * 2, ("float16", "float32")],
)
def test_products(cupy, cublas, rng, transa, transb, kind, out):
    m, n, k = 5, 7, 9
    a = rng.standard_normal((k, m) if transa else (m, k)).astype(kind)
    b = rng.standard_normal((n, k) if transb else (k, n)).astype(kind)
    before = rng.standard_normal((m, n)).astype(out)
    c = columns(cupy, before)
    status = cublas.gemm(columns(cupy, a), columns(cupy, b), c, transa, transb, 0.5, 2.0)
    assert status == 0
    exact = 0.5 * (a.T if transa else a).astype(float) @ (b.T if transb else b).astype(float)
    exact += 2.0 * before.astype(float)
    tolerance = {"float64": 1e-13, "float32": 1e-5, "float16": 4e-3}[out]
    assert np.allclose(cupy.asnumpy(c), exact, tolerance, tolerance)


def test_what_is_not_read_may_be_nan(cupy, cublas):
    a, b = (columns(cupy, np.ones((4, 4), np.float32)) for _ in range(2))
    c = columns(cupy, np.full((4, 4), np.nan, np.float32))
    assert cublas.gemm(a, b, c) == 0
    assert (cupy.asnumpy(c) == 4).all()


def test_a_matrix_inside_another(cupy, cublas, rng):
    whole = columns(cupy, rng.standard_normal((9, 8)).astype(np.float32))
    out = columns(cupy, np.zeros((10, 8), np.float32))
    assert cublas.gemm(whole[:4, :3], whole[2:5, :6], out[1:5, 1:7]) == 0
    host = cupy.asnumpy(whole)
    expected = np.zeros((10, 8), np.float32)
    expected[1:5, 1:7] = host[:4, :3] @ host[2:5, :6]
    assert np.allclose(cupy.asnumpy(out), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"lda": 3}, 7),
        ({"ldb": 3}, 7),
        ({"ldc": 3}, 7),
        ({"a": None}, 7),
        ({"c": None}, 7),
        ({"m": -1}, 7),
        ({"transa": 3}, 7),
        ({"alpha": None}, 7),
        ({"m": 0}, 0),
        ({"a_type": 2}, 15),
        ({"c_type": 2}, 15),
        ({"compute": 70}, 15),
        ({"handle": None}, 1),
    ],
)
def test_statuses(cupy, cublas, changed, status):
    a, b, c = (columns(cupy, np.ones((4, 4), np.float32)) for _ in range(3))
    assert cublas.gemm(a, b, c, changed=changed) == status


def test_an_empty_sum(cupy, cublas):
    c = columns(cupy, np.ones((4, 4), np.float32))
    assert cublas.gemm(c, c, c, beta=3.0, changed={"k": 0}) == 0
    assert (cupy.asnumpy(c) == 3).all()


def test_tf32(cupy, cublas, rng):
    host = rng.standard_normal((2, 8, 8)).astype(np.float32)
    a, b = (columns(cupy, part) for part in host)
    c = columns(cupy, np.zeros((8, 8), np.float32))
    assert cublas.gemm(a, b, c, changed={"compute": 77}) == 0
    error = np.abs(cupy.asnumpy(c) - host[0].astype(float) @ host[1]).max()
    assert 1e-5 < error < 1e-2
    one = np.float32(1)
    ulp = np.float32(2.0**-10)
    numbers = np.array([one + ulp / 2, one + ulp * 0.51, one + ulp * 1.5, np.inf, -one], np.float32)
    assert round_to_tf32(numbers).tolist() == [1, 1 + ulp, 1 + 2 * ulp, np.inf, -1]


def test_products_are_captured(cupy, cublas, stream):
    a, c = (columns(cupy, np.ones((4, 4), np.float32)) for _ in range(2))
    cublas.raw.cublasSetStream_v2(cublas.handle, stream.ptr)
    stream.begin_capture()
    assert cublas.gemm(a, a, c, alpha=2.0, beta=1.0) == 0
    graph = stream.end_capture()
    assert (cupy.asnumpy(c) == 1).all(), "captured, not executed"
    graph.launch()
    assert (cupy.asnumpy(c) == 9).all()
    a.fill(0)
    graph.launch()
    assert (cupy.asnumpy(c) == 9).all()


def test_a_product_on_another_stream(cupy, cublas, stream):
    a = columns(cupy, np.ones((4, 4), np.float32))
    with pytest.raises(RehearsalError, match="call cublasSetStream_v2 first"):
        cublas.gemm(a, a, a)


def test_the_rest_of_the_handle(cupy, cublas):
    memory = cupy.cuda.MemoryPool().malloc(1024)
    raw, version = cublas.raw, ctypes.c_int()
    assert raw.cublasSetWorkspace_v2(cublas.handle, memory.ptr, 1024) == 0
    assert raw.cublasSetWorkspace_v2(cublas.handle, None, 1024) == 7
    assert raw.cublasSetMathMode(cublas.handle, 3) == 0
    assert raw.cublasGetVersion_v2(cublas.handle, ctypes.byref(version)) == 0
    assert version.value > 120000
    assert raw.cublasGetVersion_v2(None, ctypes.byref(version)) == 1


# ---- memory errors of kernels -----------------------------------------------------------------


def sanitized(arguments):
    """Run Python with the sanitizer in it, as XPDL_REHEARSAL_SANITIZE=1 wants it."""
    found = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip("g++ is installed without its address sanitizer")
    variables = {
        "XPDL_REHEARSAL_SANITIZE": "1",
        "XPDL_REHEARSAL_ORDER": "shuffled",
        "LD_PRELOAD": found,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much behind when it ends
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | variables,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


ASTRAY = """
import numpy as np, rehearsal
cupy = rehearsal.make_cupy()
code = r'''
extern "C" __global__ void beyond(const float* x, float* y, int shift) {
    y[threadIdx.x] = x[(int)threadIdx.x + shift];
}
extern "C" __global__ void beyond_shared(const float* x, float* y, int shift) {
    __shared__ float kept[64];
    kept[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = kept[threadIdx.x + shift];
}
extern "C" __global__ void between(const float* x, float* y, int shift) {
    if (threadIdx.x == 0) y[0] = ((const float4*)(x + shift))->x;
}
'''
kernel = cupy.RawModule(code=code).get_function("{name}")
x, y = cupy.zeros(64, np.float32), cupy.zeros(64, np.float32)
kernel((1,), (64,), (x, y, np.int32(0)))
print("inside", flush=True)
kernel((1,), (64,), (x, y, np.int32({shift})))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shift", "says"),
    [
        ("beyond", 1, "heap-buffer-overflow"),
        ("beyond", -1, "heap-buffer-overflow"),
        ("beyond_shared", 1, "out of bounds"),
        ("between", 1, "misaligned"),
    ],
)
def test_a_kernel_that_goes_astray_is_caught(name, shift, says):
    done = sanitized(["-c", ASTRAY.replace("{name}", name).replace("{shift}", str(shift))])
    assert done.stdout == "inside\n", done.stderr
    assert done.returncode != 0
    assert says in done.stderr
    assert "kernels.cu:" in done.stderr


@pytest.mark.slow
def test_the_kernels_of_xpdl_keep_to_their_memory():
    files = [f"tests/backends/test_{name}.py" for name in ("primitives", "capture", "cupy_fused")]
    done = sanitized(["-m", "pytest", *files, "-q", "-k", "cupy_fused or cupy-on-cpu"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sanitizer_has_to_be_there_from_the_start(compiled, monkeypatch):
    monkeypatch.setenv("XPDL_REHEARSAL_SANITIZE", "1")
    monkeypatch.setenv("LD_PRELOAD", "")
    with pytest.raises(CompileError, match="LD_PRELOAD"):
        compiled(RIGHT)("reverse")


# ---- without a compiler -----------------------------------------------------------------------


def test_it_says_why_it_cannot(monkeypatch):
    assert rehearsal.why_not() is None
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_compiler_version", lambda: "11.4.0")
        assert "g++ 12" in rehearsal.why_not()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.which", lambda name: None)
        assert "not installed" in rehearsal.why_not()
    monkeypatch.setattr("sys.platform", "win32")
    assert "Linux only" in rehearsal.why_not()
