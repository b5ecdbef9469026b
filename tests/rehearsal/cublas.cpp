// The part of cuBLAS that is called through ctypes, with its own signatures, so that an address cut
// to 32 bits or a number of the wrong size shows here as it would there. The products themselves
// are computed by the function that `rehearsal_set_product` was given.

#include <stddef.h>
#include <stdint.h>

namespace {

enum Status { success = 0, not_initialized = 1, invalid_value = 7, not_supported = 15 };
enum Type { real32 = 0, real64 = 1, real16 = 2 };
enum Compute { compute32 = 68, compute64 = 70, compute32_tf32 = 77 };

const uint64_t MAGIC = 0x7865726863626c73;

struct Handle {
    uint64_t magic;
    void* stream;
    int math_mode;
};

bool valid(const Handle* handle) { return handle && handle->magic == MAGIC; }

// op(A) is (rows, columns); it lies in memory column by column, and transposed if op says so.
bool fits(int operation, int rows, int columns, int leading) {
    int height = operation ? columns : rows;
    return leading >= (height > 1 ? height : 1);
}

bool supported(int a, int b, int c, int compute) {
    if (a != b) return false;
    if (compute == compute64) return a == real64 && c == real64;
    if (compute == compute32_tf32) return a == real32 && c == real32;
    if (compute != compute32) return false;
    return (a == real32 && c == real32) || (a == real16 && (c == real16 || c == real32));
}

typedef void (*Product)(const void* problem);
Product product = nullptr;

struct Problem {
    int64_t transa, transb, m, n, k, a_type, b_type, c_type, lda, ldb, ldc, compute;
    const void *a, *b;
    void* c;
    double alpha, beta;
};

double number(const void* p, int compute) {
    return compute == compute64 ? *static_cast<const double*>(p) : *static_cast<const float*>(p);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void rehearsal_set_product(Product function) { product = function; }

EXPORT int cublasCreate_v2(void** handle) {
    if (!handle) return invalid_value;
    *handle = new Handle{MAGIC, nullptr, 0};
    return success;
}

EXPORT int cublasDestroy_v2(void* pointer) {
    Handle* handle = static_cast<Handle*>(pointer);
    if (!valid(handle)) return not_initialized;
    handle->magic = 0;
    delete handle;
    return success;
}

EXPORT int cublasSetStream_v2(void* pointer, void* stream) {
    Handle* handle = static_cast<Handle*>(pointer);
    if (!valid(handle)) return not_initialized;
    handle->stream = stream;
    return success;
}

EXPORT int cublasGetStream_v2(void* pointer, void** stream) {
    Handle* handle = static_cast<Handle*>(pointer);
    if (!valid(handle)) return not_initialized;
    *stream = handle->stream;
    return success;
}

EXPORT int cublasSetWorkspace_v2(void* handle, void* memory, size_t size) {
    if (!valid(static_cast<Handle*>(handle))) return not_initialized;
    // cuBLAS wants it aligned to 256 bytes, which host memory need not be.
    return size && !memory ? invalid_value : success;
}

EXPORT int cublasSetMathMode(void* pointer, int mode) {
    Handle* handle = static_cast<Handle*>(pointer);
    if (!valid(handle)) return not_initialized;
    handle->math_mode = mode;
    return success;
}

EXPORT int cublasGetVersion_v2(void* handle, int* version) {
    if (!valid(static_cast<Handle*>(handle))) return not_initialized;
    if (!version) return invalid_value;
    *version = 130100;
    return success;
}

EXPORT int cublasGetProperty(int kind, int* value) {
    const int version[] = {13, 1, 0};
    if (kind < 0 || kind > 2 || !value) return invalid_value;
    *value = version[kind];
    return success;
}

EXPORT const char* cublasGetStatusString(int status) {
    switch (status) {
        case success: return "success";
        case not_initialized: return "the library was not initialized";
        case invalid_value: return "an unsupported value or parameter was passed to the function";
        case not_supported: return "the requested functionality is not supported";
        default: return "unknown";
    }
}

EXPORT int cublasGemmEx(void* pointer, int transa, int transb, int m, int n, int k,
                        const void* alpha, const void* a, int a_type, int lda, const void* b,
                        int b_type, int ldb, const void* beta, void* c, int c_type, int ldc,
                        int compute, int algorithm) {
    Handle* handle = static_cast<Handle*>(pointer);
    if (!valid(handle)) return not_initialized;
    if (transa < 0 || transa > 2 || transb < 0 || transb > 2) return invalid_value;
    if (m < 0 || n < 0 || k < 0) return invalid_value;
    if (!fits(transa, m, k, lda) || !fits(transb, k, n, ldb) || !fits(0, m, n, ldc)) {
        return invalid_value;
    }
    if (!supported(a_type, b_type, c_type, compute)) return not_supported;
    if (!alpha || !beta) return invalid_value;
    if (!m || !n) return success;
    if (!c || (k && (!a || !b))) return invalid_value;
    // CUBLAS_TF32_TENSOR_OP_MATH lets plain products of float32 be TF32 too.
    if (compute == compute32 && a_type == real32 && handle->math_mode == 3) {
        compute = compute32_tf32;
    }
    (void)algorithm;
    Problem problem{transa, transb, m, n, k, a_type, b_type, c_type, lda, ldb, ldc, compute,
                    a, b, c, number(alpha, compute), number(beta, compute)};
    product(&problem);
    return success;
}
