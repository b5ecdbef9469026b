// Half-precision numbers of CUDA, on a CPU: storage of 2 bytes, and conversions that round to the
// nearest even number and overflow to infinity. Conversions are explicit, which is stricter than
// CUDA's own header: what compiles here does not depend on which operators that one defines.
#pragma once

#ifndef REHEARSAL_SIGNATURES_ONLY

struct __half {
    unsigned short bits;

    __half() = default;
    explicit __half(float x) {
        _Float16 rounded = static_cast<_Float16>(x);
        __builtin_memcpy(&bits, &rounded, 2);
    }
    explicit operator float() const {
        _Float16 number;
        __builtin_memcpy(&number, &bits, 2);
        return static_cast<float>(number);
    }
};
static_assert(sizeof(__half) == 2, "a half takes two bytes");

typedef __half half;

static inline float __half2float(__half x) { return static_cast<float>(x); }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline __half __float2half(float x) { return __half(x); }
static inline __half __double2half(double x) {
    _Float16 rounded = static_cast<_Float16>(x);
    __half y;
    __builtin_memcpy(&y.bits, &rounded, 2);
    return y;
}
static inline unsigned short __half_as_ushort(__half x) { return x.bits; }
static inline __half __ushort_as_half(unsigned short bits) {
    __half x;
    x.bits = bits;
    return x;
}

#endif
