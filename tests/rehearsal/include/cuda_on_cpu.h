// CUDA C++ for g++: enough of the language that an unmodified kernel source compiles and runs on a
// CPU. It is put in front of the source (-include), and `launch` below is called for each kernel.
//
// A kernel that never waits for its neighbours runs as two plain loops, over blocks and threads.
// One with __syncthreads() gets a fiber for each thread of a block; the barrier hands the CPU to
// the next thread, so that nobody passes it before all have come.
#pragma once

#ifndef REHEARSAL_SIGNATURES_ONLY

#include <link.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <type_traits>
#include <utility>
#include <vector>

#include "cuda_fp16.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static
// Nothing else is thread-local in a library of kernels, so that shared memory can be found, and
// every block can be given rubbish there, as on a GPU. The sanitizer watches static arrays only.
// Dynamic shared memory (`extern __shared__`) does not compile.
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

struct uint3 {
    unsigned int x, y, z;
};
struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

#define REHEARSAL_VECTOR(type, name)                                                    \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                            \
    struct alignas(4 * sizeof(type)) name##4 { type x, y, z, w; };                      \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }             \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
REHEARSAL_VECTOR(float, float)
REHEARSAL_VECTOR(int, int)
REHEARSAL_VECTOR(unsigned int, uint)
#undef REHEARSAL_VECTOR

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

// ---- functions of the device -------------------------------------------------------------------

static inline unsigned int __umulhi(unsigned int a, unsigned int b) {
    return static_cast<unsigned int>((static_cast<unsigned long long>(a) * b) >> 32);
}
static inline int __mulhi(int a, int b) {
    return static_cast<int>((static_cast<long long>(a) * b) >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
static inline int __popc(unsigned int x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
static inline T __ldg(const T* p) { return *p; }

// Blocks and threads run one after the other here.
static inline void __threadfence() {}
static inline unsigned int atomicInc(unsigned int* p, unsigned int most) {
    unsigned int before = *p;
    *p = before >= most ? 0 : before + 1;
    return before;
}

template <class To, class From>
static inline To rehearsal_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline int __float_as_int(float x) { return rehearsal_bits<int>(x); }
static inline unsigned int __float_as_uint(float x) { return rehearsal_bits<unsigned int>(x); }
static inline float __int_as_float(int x) { return rehearsal_bits<float>(x); }
static inline float __uint_as_float(unsigned int x) { return rehearsal_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return rehearsal_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return rehearsal_bits<double>(x); }

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __fdividef(float a, float b) { return a / b; }
// The C library has functions of these names for itself.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }  // NaN gives 0
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }

#define REHEARSAL_MIN_MAX(type)                                             \
    static inline type min(type a, type b) { return b < a ? b : a; }        \
    static inline type max(type a, type b) { return a < b ? b : a; }
REHEARSAL_MIN_MAX(int)
REHEARSAL_MIN_MAX(unsigned int)
REHEARSAL_MIN_MAX(long)
REHEARSAL_MIN_MAX(unsigned long)
REHEARSAL_MIN_MAX(long long)
REHEARSAL_MIN_MAX(unsigned long long)
#undef REHEARSAL_MIN_MAX
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// ---- blocks and threads ------------------------------------------------------------------------

namespace rehearsal {

enum Order { forward, backward, shuffled };

// What Python packs for a launch; the kernel's arguments follow, 8 bytes each.
struct Launch {
    unsigned int grid[3], block[3];
    int order;
    unsigned int seed;
    unsigned long long arguments[];
};

static char message[512];  // why the last launch failed

// Numbers 0..n-1 in the order that a test asked for.
struct Sequence {
    size_t n;
    int order;
    std::vector<unsigned int> places;

    Sequence(size_t n, int order) : n(n), order(order), places(order == shuffled ? n : 0) {
        for (size_t i = 0; i < places.size(); i++) places[i] = static_cast<unsigned int>(i);
    }
    // Fisher and Yates, over a linear congruential generator.
    void shuffle(uint64_t& state) {
        for (size_t i = places.size(); i > 1; i--) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(places[i - 1], places[(state >> 33) % i]);
        }
    }
    size_t operator[](size_t i) const {
        return order == forward ? i : order == backward ? n - 1 - i : places[i];
    }
};

static inline uint3 place(size_t i, const dim3& shape) {
    if (i < shape.x) return {static_cast<unsigned int>(i), 0, 0};
    size_t row = i / shape.x;
    return {static_cast<unsigned int>(i % shape.x), static_cast<unsigned int>(row % shape.y),
            static_cast<unsigned int>(row / shape.y)};
}

struct Memory {
    char* start;
    size_t size;
};

// Find the thread-local memory of the library that this code is in.
static int find_shared(dl_phdr_info* library, size_t, void* found) {
    bool here = false;
    size_t size = 0;
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const auto& part = library->dlpi_phdr[i];
        size_t offset = reinterpret_cast<size_t>(&find_shared) - library->dlpi_addr;
        here |= part.p_type == PT_LOAD && offset - part.p_vaddr < part.p_memsz;
        if (part.p_type == PT_TLS) size = part.p_memsz;
    }
    if (!here) return 0;
    *static_cast<Memory*>(found) = {static_cast<char*>(library->dlpi_tls_data), size};
    return 1;
}

static Memory shared_memory() {
    static thread_local volatile char first_use;  // makes this thread's memory exist
    first_use = 0;
    Memory memory{nullptr, 0};
    dl_iterate_phdr(find_shared, &memory);
    return memory;
}

// ---- fibers ------------------------------------------------------------------------------------

// Tells the sanitizer to which stack the CPU goes next, and that it has come.
#ifdef __SANITIZE_ADDRESS__
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
void __asan_unpoison_memory_region(const volatile void* start, size_t size);
}
static void depart(void** save, const void* bottom, size_t size) {
    __sanitizer_start_switch_fiber(save, bottom, size);
}
static void arrive(void* save, const void** bottom, size_t* size) {
    __sanitizer_finish_switch_fiber(save, bottom, size);
}
static void forget_stack(char* stack, size_t size) { __asan_unpoison_memory_region(stack, size); }
static const size_t STACK = 1024 * 1024;
#else
static void depart(void**, const void*, size_t) {}
static void arrive(void*, const void**, size_t*) {}
static void forget_stack(char*, size_t) {}
static const size_t STACK = 256 * 1024;  // reserved; only what is touched takes memory
#endif

struct Fiber {
    ucontext_t start;
    void* at[5];
    char* stack = nullptr;
    size_t colour = 0;      // by which the stacks' tops fall into different lines of the cache
    bool begun = false;     // it has a place to go back to
    bool finished = true;   // it has run the kernel for this block
    int line = 0;           // of the barrier at which it waits
    void* sanitizer = nullptr;
};

static std::vector<Fiber> fibers;
static Fiber* running;  // none in a kernel of plain loops
static void* scheduler[5];
static void* scheduler_sanitizer;
static const void* scheduler_stack;
static size_t scheduler_size;
static void (*body)(void*);
static void* body_data;

// The compiler's own jumps, which cross from stack to stack like those of <setjmp.h>, but cost a
// few instructions. They may not stay inside one function.
[[noreturn]] static __attribute__((noinline)) void jump(void** to) { __builtin_longjmp(to, 1); }

static __attribute__((noinline)) void leave() {
    if (!__builtin_setjmp(running->at)) {
        depart(&running->sanitizer, scheduler_stack, scheduler_size);
        jump(scheduler);
    }
    arrive(running->sanitizer, &scheduler_stack, &scheduler_size);
}

// A fiber serves one thread index after another, so that it is made once and not for each block.
static void serve() {
    arrive(nullptr, &scheduler_stack, &scheduler_size);
    for (;;) {
        body(body_data);
        running->finished = true;
        leave();
    }
}

// ucontext only makes a stack's first frame; its switching costs a system call.
static __attribute__((noinline)) void resume(Fiber* fiber) {
    running = fiber;
    if (__builtin_setjmp(scheduler)) {
        arrive(scheduler_sanitizer, nullptr, nullptr);
        return;
    }
    depart(&scheduler_sanitizer, fiber->stack, STACK);
    if (fiber->begun) jump(fiber->at);
    fiber->begun = true;
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = fiber->stack;
    fiber->start.uc_stack.ss_size = STACK - fiber->colour;
    fiber->start.uc_link = nullptr;
    makecontext(&fiber->start, serve, 0);
    setcontext(&fiber->start);
}

[[noreturn]] static void die(const char* why) {
    fprintf(stderr, "rehearsal: %s\n", why);
    abort();
}

static __attribute__((noinline)) void barrier(int line) {
    if (!running) die("__syncthreads() in a kernel that was taken for one without");
    running->line = line;
    leave();
}

#define __syncthreads() rehearsal::barrier(__LINE__)

static void need_fibers(size_t n) {
    if (fibers.size() < n) fibers.resize(n);
    for (size_t i = 0; i < n; i++) {
        if (fibers[i].stack) continue;
        void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) die("no memory for a thread's stack");
        fibers[i].stack = static_cast<char*>(stack);
        fibers[i].colour = i % 61 * 192;
    }
}

// Forget the threads that a failed block left in the middle.
static int give_up(size_t n) {
    for (size_t i = 0; i < n; i++) {
        fibers[i].begun = false;
        forget_stack(fibers[i].stack, STACK);
    }
    return 1;
}

// Let each unfinished thread of the block go on to the next barrier or to the end.
// Returns how many wait at a barrier; -1 where that is undefined on a GPU.
static long advance(const Sequence& threads) {
    long waiting = 0, finished = 0;
    size_t first = 0;
    for (size_t i = 0; i < threads.n; i++) {
        size_t t = threads[i];
        if (!fibers[t].finished) {
            threadIdx = place(t, blockDim);
            resume(&fibers[t]);
        }
        if (fibers[t].finished) {
            finished++;
        } else if (!waiting++) {
            first = t;
        } else if (fibers[t].line != fibers[first].line) {
            snprintf(message, sizeof message,
                     "thread %zu waits at the barrier in line %d, thread %zu at that in line %d; "
                     "all threads of a block must come to the same one",
                     t, fibers[t].line, first, fibers[first].line);
            return -1;
        }
    }
    if (waiting && finished) {
        snprintf(message, sizeof message,
                 "%ld of %zu threads returned, while thread %zu waits for them at the barrier in "
                 "line %d; that is undefined on a GPU",
                 finished, threads.n, first, fibers[first].line);
        return -1;
    }
    return waiting;
}

static int run_block(Sequence& threads, uint64_t& state, const Memory& shared) {
    if (shared.start) memset(shared.start, 0xff, shared.size);  // NaN, as a float of any width
    for (size_t t = 0; t < threads.n; t++) fibers[t].finished = false;
    for (;;) {
        threads.shuffle(state);  // anew between barriers
        long waiting = advance(threads);
        if (waiting < 0) return give_up(threads.n);
        if (!waiting) return 0;
    }
}

// ---- launching ---------------------------------------------------------------------------------

template <class T>
static T argument(uint64_t slot) {
    static_assert(sizeof(T) <= 8, "an argument takes at most 8 bytes");
    T value;
    memcpy(&value, &slot, sizeof value);
    return value;
}

template <bool Waits, auto Kernel, class... A, size_t... I>
static int run(const Launch& launch, void (*)(A...), std::index_sequence<I...>) {
    gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
    blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);
    auto call = [&launch] { Kernel(argument<A>(launch.arguments[I])...); };
    (void)launch;
    uint64_t state = launch.seed;
    Sequence blocks(static_cast<size_t>(gridDim.x) * gridDim.y * gridDim.z, launch.order);
    Sequence threads(static_cast<size_t>(blockDim.x) * blockDim.y * blockDim.z, launch.order);
    blocks.shuffle(state);
    threads.shuffle(state);
    Memory shared{nullptr, 0};
    if (Waits) {
        shared = shared_memory();
        need_fibers(threads.n);
        body = [](void* data) { (*static_cast<decltype(call)*>(data))(); };
        body_data = &call;
    }
    for (size_t b = 0; b < blocks.n; b++) {
        blockIdx = place(blocks[b], gridDim);
        if (Waits) {
            if (run_block(threads, state, shared)) {
                running = nullptr;
                return 1;
            }
            continue;
        }
        for (size_t t = 0; t < threads.n; t++) {
            threadIdx = place(threads[t], blockDim);
            call();
        }
    }
    running = nullptr;
    return 0;
}

template <bool Waits, auto Kernel, class... A>
static int launch(const void* packed, void (*kernel)(A...)) {
    return run<Waits, Kernel>(*static_cast<const Launch*>(packed), kernel,
                              std::index_sequence_for<A...>());
}

// ---- what Python has to know of a kernel -------------------------------------------------------

// A letter of NumPy's type codes ("f4"), with * for a pointer and c before what is only read.
template <class T>
static void append_type(char*& out) {
    using Plain = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<Plain>) {
        using Pointee = std::remove_pointer_t<Plain>;
        static_assert(!std::is_pointer_v<Pointee>, "pointers to pointers are not rehearsed");
        *out++ = '*';
        if (std::is_const_v<Pointee>) *out++ = 'c';
        append_type<Pointee>(out);
    } else if constexpr (std::is_void_v<Plain>) {
        *out++ = 'V';
    } else {
        constexpr bool half = std::is_same_v<Plain, __half>;
        static_assert(half || std::is_arithmetic_v<Plain>, "an argument is a number or a pointer");
        *out++ = std::is_same_v<Plain, bool>              ? 'b'
                 : half || std::is_floating_point_v<Plain> ? 'f'
                 : std::is_signed_v<Plain>                 ? 'i'
                                                           : 'u';
        *out++ = static_cast<char>('0' + sizeof(Plain));
    }
}

template <class... A>
static const char* signature(void (*)(A...)) {
    static char text[8 * sizeof...(A) + 1];
    char* out = text;
    ((append_type<A>(out), *out++ = ' '), ...);
    *out = 0;
    return text;
}

}  // namespace rehearsal

extern "C" __attribute__((visibility("default"))) const char* rehearsal_message() {
    return rehearsal::message;
}

#define REHEARSAL_KERNEL(name, waits)                                                         \
    extern "C" __attribute__((visibility("default"))) int rehearsal_launch_##name(            \
        const void* packed) {                                                                 \
        return rehearsal::launch<waits, name>(packed, name);                                  \
    }                                                                                         \
    extern "C" __attribute__((visibility("default"))) const char* rehearsal_signature_##name() { \
        return rehearsal::signature(name);                                                    \
    }

// ---- what CuPy's compiler does not have --------------------------------------------------------

// NVRTC knows no header of the C or C++ library, so these would compile here and not there. A
// source may define them for itself.
#undef INFINITY
#undef NAN
#undef HUGE_VAL
#undef HUGE_VALF
#define int8_t nvrtc_has_no_int8_t
#define int16_t nvrtc_has_no_int16_t
#define int32_t nvrtc_has_no_int32_t
#define int64_t nvrtc_has_no_int64_t
#define uint8_t nvrtc_has_no_uint8_t
#define uint16_t nvrtc_has_no_uint16_t
#define uint32_t nvrtc_has_no_uint32_t
#define uint64_t nvrtc_has_no_uint64_t
#define intptr_t nvrtc_has_no_intptr_t
#define uintptr_t nvrtc_has_no_uintptr_t
#define uint nvrtc_has_no_uint
#define ulong nvrtc_has_no_ulong
#define ushort nvrtc_has_no_ushort
#pragma GCC poison std

#endif  // REHEARSAL_SIGNATURES_ONLY
