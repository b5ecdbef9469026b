// The kernels of the CuPy backend's provider "fused".
//
// Compiled once for each float type, with -DREAL=float, __half or double. Each kernel computes what
// the method of the same name of xpdl.backends.base.Backend computes in plain array code; sums of
// half-precision numbers are carried in float. No thread adds to a number that another adds to: what
// blocks make apart, the last of them to finish adds up, in a fixed order, so that the same input
// gives the same bits in every run.
//
// `pieces` says that all arrays begin, and all rows of channels end, where 16 bytes may, which a
// thread then reads and writes at once.
//
// Images are (N, C, H, W) to the caller. "channels last" means memory in the order N, H, W, C. An
// array that may lie in memory in any way comes with its strides, counted in elements. NVRTC, by
// which CuPy compiles, has no C++ library and no macros such as INFINITY.

#include <cuda_fp16.h>

#ifndef REAL
#define REAL float
#endif

// The type in which numbers are computed and summed.
template <typename T> struct Wide { using type = T; };
template <> struct Wide<__half> { using type = float; };
using wide = Wide<REAL>::type;

__device__ __forceinline__ float read(__half x) { return __half2float(x); }
__device__ __forceinline__ float read(float x) { return x; }
__device__ __forceinline__ double read(double x) { return x; }
__device__ __forceinline__ float read(unsigned char x) { return x; }

__device__ __forceinline__ void write(__half *place, float x) { *place = __float2half_rn(x); }
__device__ __forceinline__ void write(float *place, float x) { *place = x; }
__device__ __forceinline__ void write(double *place, double x) { *place = x; }

// max(x, 0) that keeps NaN, which fmax would hide.
__device__ __forceinline__ wide positive(wide x) { return x <= 0 ? wide(0) : x; }

// All i below `count`, shared by the threads of the grid. Dividing 64-bit numbers is slow on a GPU:
// where an index is taken apart, it is an int, and the caller sees to it that count <= 2^30.
#define EACH(type, i, count)                                                               \
  for (type i = blockIdx.x * (type)blockDim.x + threadIdx.x; i < (count);                  \
       i += (type)gridDim.x * blockDim.x)

// N numbers side by side, which a thread reads and writes at once.
template <typename T, int N> struct alignas(N * sizeof(T)) Pack {
  T at[N];
};
#define WIDTH (16 / (int)sizeof(REAL))  // the numbers in 16 bytes
#define WIDE_WIDTH (16 / (int)sizeof(wide))

template <int N, typename T>
__device__ __forceinline__ Pack<T, N> read_pack(const T *__restrict__ x, long long first) {
  return *(const Pack<T, N> *)(x + first);
}
template <int N, typename T>
__device__ __forceinline__ void write_pack(T *__restrict__ x, long long first, Pack<T, N> pack) {
  *(Pack<T, N> *)(x + first) = pack;
}

// f(N, first) for each N numbers side by side, of which the first has that index, in pieces; what is
// left, or all where nothing may be read in pieces, number by number, with N = 1.
template <int N> struct Count {
  static constexpr int value = N;
};
template <int N, typename F>
__device__ __forceinline__ void each_pack(long long count, bool pieces, F f) {
  const long long whole = pieces ? count / N : 0;
  EACH(long long, i, whole) f(Count<N>(), i * N);
  EACH(long long, i, count - whole * N) f(Count<1>(), whole * N + i);
}

// y[i] = f(a[i], b[i]) for all i < count.
template <typename F>
__device__ __forceinline__ void pass(const REAL *__restrict__ a, const REAL *__restrict__ b,
                                     REAL *__restrict__ y, long long count, bool pieces, F f) {
  each_pack<WIDTH>(count, pieces, [=](auto numbers, long long i) {
    constexpr int N = decltype(numbers)::value;
    Pack<REAL, N> left = read_pack<N>(a, i), right = read_pack<N>(b, i), result;
    for (int j = 0; j < N; j++) write(&result.at[j], f(read(left.at[j]), read(right.at[j])));
    write_pack<N>(y, i, result);
  });
}

// ---- what blocks do together ----------------------------------------------------------------

// Whether this block is the last of the grid to come here: it may read what the others wrote
// before. `finished` is 0 before the kernel, and after it.
__device__ __forceinline__ bool last_block(unsigned int *finished) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    const unsigned int others = gridDim.x * gridDim.y - 1;
    last = atomicInc(finished, others) == others;
  }
  __syncthreads();
  __threadfence();
  return last;
}

// Whether something is so in all threads: 1 or 0 in the last block, which knows, -1 in the others.
__device__ __forceinline__ int in_all(bool here, bool *parts, unsigned int *finished) {
  __shared__ bool all;
  if (threadIdx.x == 0) all = true;
  __syncthreads();
  if (!here) all = false;
  __syncthreads();
  if (threadIdx.x == 0) parts[blockIdx.x] = all;
  if (!last_block(finished)) return -1;
  const volatile bool *written = parts;
  for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x)
    if (!written[i]) all = false;
  __syncthreads();
  return all;
}

// Rows of numbers, N at a time, that make(row, column) returns, and the sum of each column.
// Blocks are (lanes, height) threads in a grid (blocks of lanes, parts); a lane is N columns.
// `parts` (parts, columns) and `total` (columns) may be null: then nothing is added up. `shared`
// holds N numbers a thread.
template <int N, typename Make>
__device__ __forceinline__ void sum_columns(int rows, int columns, wide *shared, wide *parts,
                                            wide *total, unsigned int *finished, Make make) {
  const int lanes = blockDim.x * N, threads = blockDim.x * blockDim.y;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int begin = blockIdx.x * lanes, column = begin + threadIdx.x * N;
  wide sum[N];
  for (int j = 0; j < N; j++) sum[j] = 0;
  if (column < columns)
    for (int row = blockIdx.y * blockDim.y + threadIdx.y; row < rows;
         row += gridDim.y * blockDim.y) {
      Pack<wide, N> made = make(row, column);
      for (int j = 0; j < N; j++) sum[j] += made.at[j];
    }
  if (!total) return;
  for (int j = 0; j < N; j++) shared[thread * N + j] = sum[j];
  __syncthreads();
  for (int i = thread; i < lanes; i += threads) {
    wide all = 0;
    for (int y = 0; y < blockDim.y; y++) all += shared[y * lanes + i];
    if (begin + i < columns) parts[(long long)blockIdx.y * columns + begin + i] = all;
  }
  if (!last_block(finished)) return;
  const volatile wide *written = parts;
  const int width = min(columns, threads), groups = threads / width;
  const int lane = thread % width, group = thread / width;
  for (int first = 0; first < columns; first += width) {
    const bool adds = first + lane < columns;
    wide all = 0;
    if (adds && group < groups)
      for (int part = group; part < gridDim.y; part += groups)
        all += written[(long long)part * columns + first + lane];
    __syncthreads();
    shared[thread] = all;
    __syncthreads();
    if (!adds || group > 0) continue;
    for (int i = 1; i < groups; i++) all += shared[i * width + lane];
    total[first + lane] = all;
  }
}
// What sum_columns wants as `shared`, for any N.
#define SHARED_SUMS __shared__ wide shared[256 * WIDTH];

// ---- windows ------------------------------------------------------------------------------

// One row per window, the places of a window side by side, the channels of a place innermost.
// Rows are (n, oh, ow); col is (n * oh * ow, fh * fw * c). One thread writes one number.
extern "C" __global__ void im2col(const REAL *__restrict__ x, REAL *__restrict__ col, int n, int c,
                                  int h, int w, int oh, int ow, int fh, int fw, int sh, int sw,
                                  int ph, int pw, long long xn, long long xc, long long xh,
                                  long long xw) {
  const int width = fh * fw * c;
  EACH(int, i, n * oh * ow * width) {
    int place = i % width, row = i / width;
    int channel = place % c, tap = place / c;
    int image = row / (oh * ow), window = row % (oh * ow);
    int y = window / ow * sh + tap / fw - ph, left = window % ow * sw + tap % fw - pw;
    bool inside = y >= 0 && y < h && left >= 0 && left < w;
    REAL value;
    write(&value, 0);
    if (inside) value = x[image * xn + channel * xc + y * xh + left * xw];
    col[i] = value;
  }
}

// The same where x is channels last and the channels of a pixel fill whole pieces of 16 bytes, of
// which one thread copies one. `c` counts pieces.
extern "C" __global__ void im2col_pieces(const void *__restrict__ image,
                                         void *__restrict__ matrix, int n, int c, int h, int w,
                                         int oh, int ow, int fh, int fw, int sh, int sw, int ph,
                                         int pw) {
  const uint4 *x = (const uint4 *)image;
  uint4 *col = (uint4 *)matrix;
  const int width = fh * fw * c;
  EACH(int, i, n * oh * ow * width) {
    int place = i % width, row = i / width;
    int channel = place % c, tap = place / c;
    int number = row / (oh * ow), window = row % (oh * ow);
    int y = window / ow * sh + tap / fw - ph, left = window % ow * sw + tap % fw - pw;
    uint4 value = {0, 0, 0, 0};
    if (y >= 0 && y < h && left >= 0 && left < w)
      value = x[(((long long)number * h + y) * w + left) * c + channel];
    col[i] = value;
  }
}

// The adjoint of im2col: each pixel gathers from the windows that saw it. x is channels last.
template <int N>
__device__ __forceinline__ void add_windows(const REAL *__restrict__ col, REAL *__restrict__ x,
                                            int n, int c, int h, int w, int oh, int ow, int fh,
                                            int fw, int sh, int sw, int ph, int pw) {
  const int lanes = c / N;
  EACH(int, i, n * h * w * lanes) {
    int channel = i % lanes * N, pixel = i / lanes;
    int left = pixel % w + pw, y = pixel / w % h + ph, image = pixel / (w * h);
    wide sum[N];
    for (int j = 0; j < N; j++) sum[j] = 0;
    // Tap (k, l) of window (p, q) saw this pixel where y = p sh + k and left = q sw + l.
    for (int k = y % sh; k < fh && k <= y; k += sh) {
      int p = (y - k) / sh;
      if (p >= oh) continue;
      for (int l = left % sw; l < fw && l <= left; l += sw) {
        int q = (left - l) / sw;
        if (q >= ow) continue;
        long long row = ((long long)image * oh + p) * ow + q;
        Pack<REAL, N> seen = read_pack<N>(col, (row * fh * fw + k * fw + l) * c + channel);
        for (int j = 0; j < N; j++) sum[j] += read(seen.at[j]);
      }
    }
    Pack<REAL, N> result;
    for (int j = 0; j < N; j++) write(&result.at[j], sum[j]);
    write_pack<N>(x, (long long)pixel * c + channel, result);
  }
}

extern "C" __global__ void col2im(const REAL *__restrict__ col, REAL *__restrict__ x, bool pieces,
                                  int n, int c, int h, int w, int oh, int ow, int fh, int fw,
                                  int sh, int sw, int ph, int pw) {
  if (pieces)
    add_windows<WIDTH>(col, x, n, c, h, w, oh, ow, fh, fw, sh, sw, ph, pw);
  else
    add_windows<1>(col, x, n, c, h, w, oh, ow, fh, fw, sh, sw, ph, pw);
}

// y and winners are channels last. Of equals the first wins, NaN wins over all; padding never does.
template <int N>
__device__ __forceinline__ void pool_windows(const REAL *__restrict__ x, REAL *__restrict__ y,
                                             unsigned short *__restrict__ winners, int n, int c,
                                             int h, int w, int oh, int ow, int fh, int fw, int sh,
                                             int sw, int ph, int pw, long long xn, long long xc,
                                             long long xh, long long xw) {
  const wide zero = 0;
  const int lanes = c / N;
  EACH(int, i, n * oh * ow * lanes) {
    int channel = i % lanes * N, window = i / lanes;
    int q = window % ow, p = window / ow % oh, image = window / (ow * oh);
    wide best[N];
    int winner[N];
    for (int j = 0; j < N; j++) {
      best[j] = -1 / zero;  // of a window that sees padding alone
      winner[j] = -1;
    }
    for (int k = 0; k < fh; k++) {
      int row = p * sh + k - ph;
      if (row < 0 || row >= h) continue;
      for (int l = 0; l < fw; l++) {
        int column = q * sw + l - pw;
        if (column < 0 || column >= w) continue;
        Pack<REAL, N> seen = read_pack<N>(x, image * xn + channel * xc + row * xh + column * xw);
        for (int j = 0; j < N; j++) {
          wide value = read(seen.at[j]);
          if (winner[j] < 0 || value > best[j] || (value != value && best[j] == best[j])) {
            best[j] = value;
            winner[j] = k * fw + l;
          }
        }
      }
    }
    Pack<REAL, N> largest;
    Pack<unsigned short, N> won;
    for (int j = 0; j < N; j++) {
      write(&largest.at[j], best[j]);
      won.at[j] = winner[j];
    }
    write_pack<N>(y, (long long)window * c + channel, largest);
    if (winners) write_pack<N>(winners, (long long)window * c + channel, won);
  }
}

extern "C" __global__ void max_pooling(const REAL *__restrict__ x, REAL *__restrict__ y,
                                       unsigned short *__restrict__ winners, bool pieces, int n,
                                       int c, int h, int w, int oh, int ow, int fh, int fw, int sh,
                                       int sw, int ph, int pw, long long xn, long long xc,
                                       long long xh, long long xw) {
  if (pieces)
    pool_windows<WIDTH>(x, y, winners, n, c, h, w, oh, ow, fh, fw, sh, sw, ph, pw, xn, xc, xh, xw);
  else
    pool_windows<1>(x, y, winners, n, c, h, w, oh, ow, fh, fw, sh, sw, ph, pw, xn, xc, xh, xw);
}

// dx is channels last; each pixel gathers from the windows that it won. Where y, which is channels
// last too, is not null, a window's gradient counts where y > 0. For parts and total see sum_columns.
template <int N>
__device__ __forceinline__ void pool_backward(
    const REAL *__restrict__ dout, const unsigned short *__restrict__ winners,
    const REAL *__restrict__ y, REAL *__restrict__ dx, wide *shared, wide *parts, wide *total,
    unsigned int *finished, int n, int c, int h, int w, int oh, int ow, int fh, int fw, int sh,
    int sw, int ph, int pw, long long dn, long long dc, long long dh, long long dw) {
  sum_columns<N>(n * h * w, c, shared, parts, total, finished, [=](int pixel, int channel) {
    int left = pixel % w + pw, top = pixel / w % h + ph, image = pixel / (w * h);
    Pack<wide, N> sum;
    for (int j = 0; j < N; j++) sum.at[j] = 0;
    for (int k = top % sh; k < fh && k <= top; k += sh) {
      int p = (top - k) / sh;
      if (p >= oh) continue;
      for (int l = left % sw; l < fw && l <= left; l += sw) {
        int q = (left - l) / sw;
        if (q >= ow) continue;
        long long window = (((long long)image * oh + p) * ow + q) * c + channel;
        Pack<unsigned short, N> won = read_pack<N>(winners, window);
        Pack<REAL, N> gradient = read_pack<N>(dout, image * dn + channel * dc + p * dh + q * dw);
        Pack<REAL, N> pooled;
        if (y) pooled = read_pack<N>(y, window);
        for (int j = 0; j < N; j++)
          if (won.at[j] == k * fw + l)
            sum.at[j] += read(gradient.at[j]) * wide(!y || read(pooled.at[j]) > 0 ? 1 : 0);
      }
    }
    Pack<REAL, N> result;
    for (int j = 0; j < N; j++) write(&result.at[j], sum.at[j]);
    write_pack<N>(dx, (long long)pixel * c + channel, result);
    return sum;
  });
}

extern "C" __global__ void max_pooling_backward(
    const REAL *__restrict__ dout, const unsigned short *__restrict__ winners,
    const REAL *__restrict__ y, REAL *__restrict__ dx, wide *parts, wide *total,
    unsigned int *finished, bool pieces, int n, int c, int h, int w, int oh, int ow, int fh, int fw,
    int sh, int sw, int ph, int pw, long long dn, long long dc, long long dh, long long dw) {
  SHARED_SUMS
  if (pieces)
    pool_backward<WIDTH>(dout, winners, y, dx, shared, parts, total, finished, n, c, h, w, oh, ow,
                         fh, fw, sh, sw, ph, pw, dn, dc, dh, dw);
  else
    pool_backward<1>(dout, winners, y, dx, shared, parts, total, finished, n, c, h, w, oh, ow, fh,
                     fw, sh, sw, ph, pw, dn, dc, dh, dw);
}

// ---- element by element -------------------------------------------------------------------

// y (rows, k) in place: y + b, and with `relu` no less than 0. b may be null.
extern "C" __global__ void add_bias(REAL *__restrict__ y, const REAL *__restrict__ b, bool relu,
                                    bool pieces, int count, int k) {
  if (!pieces) {
    EACH(int, i, count) {
      wide value = read(y[i]);
      if (b) value += read(b[i % k]);
      write(&y[i], relu ? positive(value) : value);
    }
    return;
  }
  EACH(int, i, count / WIDTH) {
    Pack<REAL, WIDTH> numbers = read_pack<WIDTH>(y, i * WIDTH), biases;
    if (b) biases = read_pack<WIDTH>(b, i * WIDTH % k);
    for (int j = 0; j < WIDTH; j++) {
      wide value = read(numbers.at[j]);
      if (b) value += read(biases.at[j]);
      write(&numbers.at[j], relu ? positive(value) : value);
    }
    write_pack<WIDTH>(y, i * WIDTH, numbers);
  }
}

extern "C" __global__ void relu(const REAL *__restrict__ x, REAL *__restrict__ y, bool pieces,
                                long long count) {
  pass(x, x, y, count, pieces, [](wide value, wide) { return positive(value); });
}

// As in plain code, a gradient that is not finite stays so where y is 0: 0 times NaN is NaN.
__device__ __forceinline__ wide where_positive(wide gradient, wide y) {
  return gradient * wide(y > 0 ? 1 : 0);
}

extern "C" __global__ void relu_backward(const REAL *__restrict__ dout, const REAL *__restrict__ y,
                                         REAL *__restrict__ dx, bool pieces, long long count) {
  pass(dout, y, dx, count, pieces, [](wide a, wide b) { return where_positive(a, b); });
}

extern "C" __global__ void dropout_backward(const REAL *__restrict__ dout,
                                            const REAL *__restrict__ mask, REAL *__restrict__ dx,
                                            bool pieces, long long count) {
  pass(dout, mask, dx, count, pieces, [](wide a, wide b) { return a * b; });
}

// Rows of x (length, width) by index, as REAL, divided by `divisor` in `wide`. An index below 0
// counts from the end; where there is no such row, the result is NaN, and nothing is read. In pieces
// a row is of whole packs, in which the larger of the two types fills 16 bytes.
template <typename T>
__device__ __forceinline__ void gather_rows(const T *__restrict__ x,
                                            const long long *__restrict__ indices,
                                            REAL *__restrict__ rows, bool pieces, int width,
                                            long long length, wide divisor, long long count) {
  constexpr int LARGER = sizeof(T) > sizeof(REAL) ? sizeof(T) : sizeof(REAL);
  each_pack<16 / LARGER>(count, pieces, [=](auto numbers, long long first) {
    constexpr int N = decltype(numbers)::value;
    const int i = first;
    long long row = indices[i / width];
    if (row < 0) row += length;
    const bool there = row >= 0 && row < length;
    Pack<T, N> seen;
    if (there) seen = read_pack<N>(x, row * width + i % width);
    Pack<REAL, N> result;
    for (int j = 0; j < N; j++)
      write(&result.at[j], there ? wide(read(seen.at[j])) / divisor : wide(nanf("")));
    write_pack<N>(rows, i, result);
  });
}

extern "C" __global__ void gather_bytes(const unsigned char *__restrict__ x,
                                        const long long *__restrict__ indices,
                                        REAL *__restrict__ rows, bool pieces, int width,
                                        long long length, wide divisor, long long count) {
  gather_rows(x, indices, rows, pieces, width, length, divisor, count);
}

extern "C" __global__ void gather_floats(const float *__restrict__ x,
                                         const long long *__restrict__ indices,
                                         REAL *__restrict__ rows, bool pieces, int width,
                                         long long length, wide divisor, long long count) {
  gather_rows(x, indices, rows, pieces, width, length, divisor, count);
}

// ---- sums ---------------------------------------------------------------------------------

// The sum of each column of x (rows, columns); see sum_columns for the rest.
template <int N>
__device__ __forceinline__ void sum_read(const REAL *__restrict__ x, wide *shared, wide *parts,
                                         wide *total, unsigned int *finished, int rows,
                                         int columns) {
  sum_columns<N>(rows, columns, shared, parts, total, finished, [=](int row, int column) {
    Pack<REAL, N> numbers = read_pack<N>(x, (long long)row * columns + column);
    Pack<wide, N> made;
    for (int j = 0; j < N; j++) made.at[j] = read(numbers.at[j]);
    return made;
  });
}

extern "C" __global__ void sum_rows(const REAL *__restrict__ x, wide *parts, wide *total,
                                    unsigned int *finished, bool pieces, int rows, int columns) {
  SHARED_SUMS
  if (pieces)
    sum_read<WIDTH>(x, shared, parts, total, finished, rows, columns);
  else
    sum_read<1>(x, shared, parts, total, finished, rows, columns);
}

// relu_backward and the sum of each column of what it gives, where all are (rows, columns).
template <int N>
__device__ __forceinline__ void sum_positive(const REAL *__restrict__ dout,
                                             const REAL *__restrict__ y, REAL *__restrict__ dx,
                                             wide *shared, wide *parts, wide *total,
                                             unsigned int *finished, int rows, int columns) {
  sum_columns<N>(rows, columns, shared, parts, total, finished, [=](int row, int column) {
    const long long first = (long long)row * columns + column;
    Pack<REAL, N> gradient = read_pack<N>(dout, first), outputs = read_pack<N>(y, first), result;
    Pack<wide, N> made;
    for (int j = 0; j < N; j++) {
      made.at[j] = where_positive(read(gradient.at[j]), read(outputs.at[j]));
      write(&result.at[j], made.at[j]);
    }
    write_pack<N>(dx, first, result);
    return made;
  });
}

extern "C" __global__ void relu_backward_and_sum(const REAL *__restrict__ dout,
                                                 const REAL *__restrict__ y, REAL *__restrict__ dx,
                                                 wide *parts, wide *total, unsigned int *finished,
                                                 bool pieces, int rows, int columns) {
  SHARED_SUMS
  if (pieces)
    sum_positive<WIDTH>(dout, y, dx, shared, parts, total, finished, rows, columns);
  else
    sum_positive<1>(dout, y, dx, shared, parts, total, finished, rows, columns);
}

// Combine what all threads of a block (a power of two) hold; each gets the result.
struct Add {
  __device__ static wide of(wide a, wide b) { return a + b; }
};
struct Larger {
  __device__ static wide of(wide a, wide b) { return a > b || a != a ? a : b; }
};
template <typename Operation> __device__ wide combine(wide value, wide *shared) {
  __syncthreads();
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half)
      shared[threadIdx.x] = Operation::of(shared[threadIdx.x], shared[threadIdx.x + half]);
    __syncthreads();
  }
  return shared[0];
}

// A block computes one row of scores x (n, k): y = softmax(x) and its loss. Targets are class
// numbers, or, where `labels` is null, a distribution (n, k).
extern "C" __global__ void softmax_with_loss(const REAL *__restrict__ x,
                                             const long long *__restrict__ labels,
                                             const wide *__restrict__ targets,
                                             wide *__restrict__ y, wide *__restrict__ losses,
                                             int k) {
  __shared__ wide shared[256];
  const long long row = (long long)blockIdx.x * k;
  const wide zero = 0;
  wide largest = read(x[row + min((int)threadIdx.x, k - 1)]), sum = 0, loss = 0;
  for (int j = threadIdx.x; j < k; j += blockDim.x) largest = Larger::of(read(x[row + j]), largest);
  largest = combine<Larger>(largest, shared);
  for (int j = threadIdx.x; j < k; j += blockDim.x) sum += exp(read(x[row + j]) - largest);
  wide log_sum = log(combine<Add>(sum, shared));
  for (int j = threadIdx.x; j < k; j += blockDim.x) {
    wide log_y = read(x[row + j]) - largest - log_sum;
    y[row + j] = exp(log_y);
    wide target = labels ? wide(labels[blockIdx.x] == j ? 1 : 0) : targets[row + j];
    if (target != 0) loss -= target * log_y;
  }
  loss = combine<Add>(loss, shared);
  if (threadIdx.x == 0) {
    bool known = !labels || (labels[blockIdx.x] >= 0 && labels[blockIdx.x] < k);
    losses[blockIdx.x] = known ? loss : zero / zero;
  }
}

// One block: the mean of n numbers.
extern "C" __global__ void mean_of(const wide *__restrict__ x, wide *__restrict__ mean, int n) {
  __shared__ wide shared[256];
  wide sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
  sum = combine<Add>(sum, shared);
  if (threadIdx.x == 0) mean[0] = sum / n;
}

// dx = (y s - t) dout / n, s the sum of a row of targets, 1 where `sums` is null. `dout` is a
// number, or, where `dout_there` is not null, lies there.
extern "C" __global__ void softmax_with_loss_backward(const wide *__restrict__ y,
                                                      const long long *__restrict__ labels,
                                                      const wide *__restrict__ targets,
                                                      const wide *__restrict__ sums,
                                                      const wide *__restrict__ dout_there,
                                                      wide dout, REAL *__restrict__ dx, int n,
                                                      int k) {
  wide factor = (dout_there ? dout_there[0] : dout) / n;
  EACH(int, i, n * k) {
    wide target = labels ? wide(labels[i / k] == i % k ? 1 : 0) : targets[i];
    wide whole = sums ? y[i] * sums[i / k] : y[i];
    write(&dx[i], (whole - target) * factor);
  }
}

// ---- random numbers -----------------------------------------------------------------------

// Philox 4x64-10 (Salmon et al. 2011), with NumPy's use of its words: word i of the stream is word
// i % 4 of block 1 + i / 4.
__device__ __forceinline__ unsigned long long philox(unsigned long long index,
                                                     unsigned long long key0,
                                                     unsigned long long key1) {
  unsigned long long a = index / 4 + 1, b = 0, c = 0, d = 0;
  for (int round = 0; round < 10; round++) {
    unsigned long long high0 = __umul64hi(0xD2E7470EE14C6C93ull, a);
    unsigned long long low0 = 0xD2E7470EE14C6C93ull * a;
    unsigned long long high1 = __umul64hi(0xCA5A826395121157ull, c);
    unsigned long long low1 = 0xCA5A826395121157ull * c;
    a = high1 ^ b ^ key0;
    b = low1;
    c = high0 ^ d ^ key1;
    d = low0;
    key0 += 0x9E3779B97F4A7C15ull;
    key1 += 0xBB67AE8584CAA73Bull;
  }
  unsigned long long place = index % 4;
  return place == 0 ? a : place == 1 ? b : place == 2 ? c : d;
}

// Number i of a stream of floats in [0, 1): 24 bits each, of the lower half of a word first.
__device__ __forceinline__ float uniform_float(unsigned long long i, unsigned long long key0,
                                               unsigned long long key1) {
  unsigned long long word = philox(i / 2, key0, key1);
  unsigned int half = i % 2 ? word >> 32 : word;
  return (half >> 8) * (1.0f / 16777216.0f);
}

// The numbers from `position` on, which is counted on the device (see `advance`).
extern "C" __global__ void uniform_floats(float *__restrict__ numbers,
                                          const long long *__restrict__ position,
                                          const unsigned long long *__restrict__ key,
                                          long long count) {
  EACH(long long, i, count) { numbers[i] = uniform_float(position[0] + i, key[0], key[1]); }
}

extern "C" __global__ void uniform_doubles(double *__restrict__ numbers,
                                           const long long *__restrict__ position,
                                           const unsigned long long *__restrict__ key,
                                           long long count) {
  EACH(long long, i, count) {
    numbers[i] = (philox((position[0] + 1) / 2 + i, key[0], key[1]) >> 11) / 9007199254740992.0;
  }
}

// One thread: count what was drawn, `words` halves of words from an even place on, or from here.
extern "C" __global__ void advance(long long *__restrict__ position, long long halves,
                                   bool whole_words) {
  if (blockIdx.x == 0 && threadIdx.x == 0)
    position[0] = (whole_words ? (position[0] + 1) / 2 * 2 : position[0]) + halves;
}

// y = x mask, where mask is 0 with probability `ratio`, else `scale`; what was drawn is counted.
extern "C" __global__ void dropout(const REAL *__restrict__ x, REAL *__restrict__ y,
                                   REAL *__restrict__ mask, long long *position,
                                   unsigned int *finished,
                                   const unsigned long long *__restrict__ key, float ratio,
                                   float scale, bool pieces, long long count) {
  const long long start = position[0];
  each_pack<WIDTH>(count, pieces, [=](auto numbers, long long i) {
    constexpr int N = decltype(numbers)::value;
    Pack<REAL, N> seen = read_pack<N>(x, i), factors, result;
    for (int j = 0; j < N; j++) {
      bool kept = uniform_float(start + i + j, key[0], key[1]) >= ratio;
      write(&factors.at[j], kept ? scale : 0);
      write(&result.at[j], read(seen.at[j]) * read(factors.at[j]));
    }
    write_pack<N>(mask, i, factors);
    write_pack<N>(y, i, result);
  });
  if (last_block(finished) && threadIdx.x == 0) position[0] = start + count;
}

// ---- what a step came to ------------------------------------------------------------------

// Where the largest of k numbers is: of equals the first; NaN is the largest of all.
template <typename T> __device__ __forceinline__ int place_of_largest(const T *x, int k) {
  wide best = read(x[0]);
  int place = 0;
  for (int j = 1; j < k; j++) {
    wide value = read(x[j]);
    if (value > best || (value != value && best == best)) {
      best = value;
      place = j;
    }
  }
  return place;
}

// One block: how many rows of scores (n, k) are largest at their target, a class number or, where
// `labels` is null, the largest of a distribution; and of how many.
extern "C" __global__ void count_hits(const REAL *__restrict__ scores,
                                      const long long *__restrict__ labels,
                                      const wide *__restrict__ targets,
                                      double *__restrict__ sums, int n, int k) {
  __shared__ int shared[256];
  int found = 0;
  for (int row = threadIdx.x; row < n; row += blockDim.x) {
    const long long first = (long long)row * k;
    long long target = labels ? labels[row] : place_of_largest(targets + first, k);
    found += place_of_largest(scores + first, k) == target;
  }
  shared[threadIdx.x] = found;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < blockDim.x; i++) found += shared[i];
  sums[0] = found;
  sums[1] = n;
}

// good: whether loss[0] and all of g are finite; marked: the loss, or NaN where they are not.
extern "C" __global__ void all_finite(const wide *__restrict__ loss, const wide *__restrict__ g,
                                      bool *good, wide *marked, bool *parts,
                                      unsigned int *finished, bool pieces, long long count) {
  bool finite = isfinite(loss[0]);
  each_pack<WIDE_WIDTH>(count, pieces, [&](auto numbers, long long i) {
    constexpr int N = decltype(numbers)::value;
    Pack<wide, N> seen = read_pack<N>(g, i);
    for (int j = 0; j < N; j++) finite = finite && isfinite(seen.at[j]);
  });
  int all = in_all(finite, parts, finished);
  if (all < 0 || threadIdx.x > 0) return;
  good[0] = all;
  marked[0] = all ? loss[0] : wide(nanf(""));
}

// ---- half precision -----------------------------------------------------------------------

// g divided by scale[0], in place; good: whether all of it is finite then.
extern "C" __global__ void unscale(wide *__restrict__ g, const wide *__restrict__ scale,
                                   bool *good, bool *parts, unsigned int *finished, bool pieces,
                                   long long count) {
  const wide factor = 1 / scale[0];
  bool finite = true;
  each_pack<WIDE_WIDTH>(count, pieces, [&](auto numbers, long long i) {
    constexpr int N = decltype(numbers)::value;
    Pack<wide, N> seen = read_pack<N>(g, i);
    for (int j = 0; j < N; j++) {
      seen.at[j] *= factor;
      finite = finite && isfinite(seen.at[j]);
    }
    write_pack<N>(g, i, seen);
  });
  int all = in_all(finite, parts, finished);
  if (all >= 0 && threadIdx.x == 0) good[0] = all;
}

// One thread; see Backend.adjust_loss_scale for the four numbers.
extern "C" __global__ void adjust_loss_scale(float *__restrict__ state,
                                             const bool *__restrict__ good, float patience,
                                             float growth, float largest) {
  if (blockIdx.x || threadIdx.x) return;
  if (!good[0]) {
    state[0] /= growth;
    state[1] = 0;
    state[2] += 1;
    state[3] += 1;
    return;
  }
  state[1] += 1;
  state[2] = 0;
  if (state[1] >= patience) {
    state[0] = fminf(state[0] * growth, largest);
    state[1] = 0;
  }
}

// ---- update rules -------------------------------------------------------------------------

// Learning rate and count are numbers, or, where a pointer is not null, lie there. Where `go` is
// not null and false, nothing changes but `copy`, which may be null: p as half precision.
#define RULE_ARGUMENTS                                                                     \
  const bool *__restrict__ go, __half *__restrict__ copy, const wide *__restrict__ rate_there, \
      wide rate, bool pieces, long long count
#define RULE_BEGINS if (rate_there) rate = rate_there[0];

// rule(p, g, s, t) for each number of the parameters, their gradients, and what the rule keeps of
// each, which may be null.
template <typename Rule>
__device__ __forceinline__ void update(wide *__restrict__ p, const wide *__restrict__ g,
                                       wide *__restrict__ s, wide *__restrict__ t,
                                       const bool *__restrict__ go, __half *__restrict__ copy,
                                       bool pieces, long long count, Rule rule) {
  const bool skips = go && !go[0];
  if (skips && !copy) return;
  each_pack<WIDE_WIDTH>(count, pieces, [=](auto numbers, long long i) {
    constexpr int N = decltype(numbers)::value;
    Pack<wide, N> parameters = read_pack<N>(p, i);
    if (!skips) {
      Pack<wide, N> gradients = read_pack<N>(g, i), first = {}, second = {};
      if (s) first = read_pack<N>(s, i);
      if (t) second = read_pack<N>(t, i);
      for (int j = 0; j < N; j++)
        rule(parameters.at[j], gradients.at[j], first.at[j], second.at[j]);
      if (s) write_pack<N>(s, i, first);
      if (t) write_pack<N>(t, i, second);
      write_pack<N>(p, i, parameters);
    }
    if (!copy) return;
    Pack<__half, N> halves;
    for (int j = 0; j < N; j++) write(&halves.at[j], float(parameters.at[j]));
    write_pack<N>(copy, i, halves);
  });
}
#define RULE_REST go, copy, pieces, count

extern "C" __global__ void sgd(wide *__restrict__ p, const wide *__restrict__ g, RULE_ARGUMENTS) {
  RULE_BEGINS
  update(p, g, nullptr, nullptr, RULE_REST,
         [=](wide &p, wide g, wide &, wide &) { p -= rate * g; });
}

extern "C" __global__ void momentum(wide *__restrict__ p, const wide *__restrict__ g,
                                    wide *__restrict__ v, wide keep, RULE_ARGUMENTS) {
  RULE_BEGINS
  update(p, g, v, nullptr, RULE_REST, [=](wide &p, wide g, wide &v, wide &) {
    v = keep * v - rate * g;
    p += v;
  });
}

extern "C" __global__ void nesterov(wide *__restrict__ p, const wide *__restrict__ g,
                                    wide *__restrict__ v, wide keep, RULE_ARGUMENTS) {
  RULE_BEGINS
  update(p, g, v, nullptr, RULE_REST, [=](wide &p, wide g, wide &v, wide &) {
    v = keep * v - rate * g;
    p += keep * v - rate * g;
  });
}

extern "C" __global__ void adagrad(wide *__restrict__ p, const wide *__restrict__ g,
                                   wide *__restrict__ h, wide epsilon, RULE_ARGUMENTS) {
  RULE_BEGINS
  update(p, g, h, nullptr, RULE_REST, [=](wide &p, wide g, wide &h, wide &) {
    h += g * g;
    p -= rate * g / (sqrt(h) + epsilon);
  });
}

extern "C" __global__ void rmsprop(wide *__restrict__ p, const wide *__restrict__ g,
                                   wide *__restrict__ h, wide keep, wide take, wide epsilon,
                                   RULE_ARGUMENTS) {
  RULE_BEGINS
  update(p, g, h, nullptr, RULE_REST, [=](wide &p, wide g, wide &h, wide &) {
    h = keep * h + take * (g * g);
    p -= rate * g / (sqrt(h) + epsilon);
  });
}

// log1 and log2 are the logarithms of keep1 and keep2: 1 - keep^count, without cancellation.
extern "C" __global__ void adam(wide *__restrict__ p, const wide *__restrict__ g,
                                wide *__restrict__ m, wide *__restrict__ v, wide keep1, wide take1,
                                wide keep2, wide take2, wide log1, wide log2, wide epsilon,
                                const wide *__restrict__ iteration_there, wide iteration,
                                RULE_ARGUMENTS) {
  RULE_BEGINS
  if (iteration_there) iteration = iteration_there[0];
  const wide correction1 = -expm1(iteration * log1);
  const wide correction2 = sqrt(-expm1(iteration * log2));
  const wide step = rate / correction1;
  update(p, g, m, v, RULE_REST, [=](wide &p, wide g, wide &m, wide &v) {
    m = keep1 * m + take1 * g;
    v = keep2 * v + take2 * (g * g);
    p -= step * m / (sqrt(v) / correction2 + epsilon);
  });
}
