// The kernels of the CuPy backend's provider "fused".
//
// Compiled once for each float type, with -DREAL=float, __half or double. Each kernel computes what
// the method of the same name of xpdl.backends.base.Backend computes in plain array code; sums of
// half-precision numbers are carried in float. No kernel adds to memory that another thread adds to,
// and every sum has a fixed order, so that the same input gives the same bits in every run.
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
extern "C" __global__ void col2im(const REAL *__restrict__ col, REAL *__restrict__ x, int n, int c,
                                  int h, int w, int oh, int ow, int fh, int fw, int sh, int sw,
                                  int ph, int pw) {
  EACH(int, i, n * h * w * c) {
    int channel = i % c, pixel = i / c;
    int left = pixel % w + pw, y = pixel / w % h + ph, image = pixel / (w * h);
    wide sum = 0;
    // Tap (k, l) of window (p, q) saw this pixel where y = p sh + k and left = q sw + l.
    for (int k = y % sh; k < fh && k <= y; k += sh) {
      int p = (y - k) / sh;
      if (p >= oh) continue;
      for (int l = left % sw; l < fw && l <= left; l += sw) {
        int q = (left - l) / sw;
        if (q >= ow) continue;
        long long row = ((long long)image * oh + p) * ow + q;
        sum += read(col[(row * fh * fw + k * fw + l) * c + channel]);
      }
    }
    write(&x[i], sum);
  }
}

// y and winners are channels last. Of equals the first wins, NaN wins over all; padding never does.
extern "C" __global__ void max_pooling(const REAL *__restrict__ x, REAL *__restrict__ y,
                                       unsigned short *__restrict__ winners, int n, int c, int h,
                                       int w, int oh, int ow, int fh, int fw, int sh, int sw,
                                       int ph, int pw, long long xn, long long xc, long long xh,
                                       long long xw) {
  const wide zero = 0;
  EACH(int, i, n * oh * ow * c) {
    int channel = i % c, window = i / c;
    int q = window % ow, p = window / ow % oh, image = window / (ow * oh);
    wide best = -1 / zero;  // of a window that sees padding alone
    int winner = -1;
    for (int k = 0; k < fh; k++) {
      int row = p * sh + k - ph;
      if (row < 0 || row >= h) continue;
      for (int l = 0; l < fw; l++) {
        int column = q * sw + l - pw;
        if (column < 0 || column >= w) continue;
        wide value = read(x[image * xn + channel * xc + row * xh + column * xw]);
        if (winner < 0 || value > best || (value != value && best == best)) {
          best = value;
          winner = k * fw + l;
        }
      }
    }
    write(&y[i], best);
    if (winners) winners[i] = winner;
  }
}

// dx is channels last; each pixel gathers from the windows that it won.
extern "C" __global__ void max_pooling_backward(const REAL *__restrict__ dout,
                                                const unsigned short *__restrict__ winners,
                                                REAL *__restrict__ dx, int n, int c, int h, int w,
                                                int oh, int ow, int fh, int fw, int sh, int sw,
                                                int ph, int pw, long long dn, long long dc,
                                                long long dh, long long dw) {
  EACH(int, i, n * h * w * c) {
    int channel = i % c, pixel = i / c;
    int left = pixel % w + pw, y = pixel / w % h + ph, image = pixel / (w * h);
    wide sum = 0;
    for (int k = y % sh; k < fh && k <= y; k += sh) {
      int p = (y - k) / sh;
      if (p >= oh) continue;
      for (int l = left % sw; l < fw && l <= left; l += sw) {
        int q = (left - l) / sw;
        if (q >= ow) continue;
        long long window = ((long long)image * oh + p) * ow + q;
        if (winners[window * c + channel] == k * fw + l)
          sum += read(dout[image * dn + channel * dc + p * dh + q * dw]);
      }
    }
    write(&dx[i], sum);
  }
}

// ---- element by element -------------------------------------------------------------------

// y (rows, k) in place: y + b, and with `relu` no less than 0. b may be null.
extern "C" __global__ void add_bias(REAL *__restrict__ y, const REAL *__restrict__ b, bool relu,
                                    int count, int k) {
  EACH(int, i, count) {
    wide value = read(y[i]);
    if (b) value += read(b[i % k]);
    write(&y[i], relu ? positive(value) : value);
  }
}

extern "C" __global__ void relu(const REAL *__restrict__ x, REAL *__restrict__ y,
                                long long count) {
  EACH(long long, i, count) { write(&y[i], positive(read(x[i]))); }
}

// As in plain code, a gradient that is not finite stays so where y is 0: 0 times NaN is NaN.
extern "C" __global__ void relu_backward(const REAL *__restrict__ dout, const REAL *__restrict__ y,
                                         REAL *__restrict__ dx, long long count) {
  EACH(long long, i, count) { write(&dx[i], read(dout[i]) * wide(read(y[i]) > 0 ? 1 : 0)); }
}

extern "C" __global__ void dropout_backward(const REAL *__restrict__ dout,
                                            const REAL *__restrict__ mask, REAL *__restrict__ dx,
                                            long long count) {
  EACH(long long, i, count) { write(&dx[i], read(dout[i]) * read(mask[i])); }
}

// Rows of x (length, width) by index, as REAL, divided by `divisor` in `wide`. An index below 0
// counts from the end; where there is no such row, the result is NaN, and nothing is read.
template <typename T>
__device__ __forceinline__ void gather_rows(const T *__restrict__ x,
                                            const long long *__restrict__ indices,
                                            REAL *__restrict__ rows, int count, int width,
                                            long long length, wide divisor) {
  EACH(int, i, count) {
    long long row = indices[i / width];
    if (row < 0) row += length;
    wide value = nanf("");
    if (row >= 0 && row < length) value = wide(read(x[row * width + i % width])) / divisor;
    write(&rows[i], value);
  }
}

extern "C" __global__ void gather_bytes(const unsigned char *__restrict__ x,
                                        const long long *__restrict__ indices,
                                        REAL *__restrict__ rows, int count, int width,
                                        long long length, wide divisor) {
  gather_rows(x, indices, rows, count, width, length, divisor);
}

extern "C" __global__ void gather_floats(const float *__restrict__ x,
                                         const long long *__restrict__ indices,
                                         REAL *__restrict__ rows, int count, int width,
                                         long long length, wide divisor) {
  gather_rows(x, indices, rows, count, width, length, divisor);
}

// ---- sums ---------------------------------------------------------------------------------

// The sum of 32 columns over the rows of one block: a part of the sum over all rows, in `wide`.
// Blocks are (column blocks, parts) of 32 x 8 threads; parts is (gridDim.y, columns).
template <typename T>
__device__ __forceinline__ void sum_part(const T *__restrict__ x, wide *__restrict__ parts,
                                         int rows, int columns) {
  __shared__ wide sums[8][33];
  int column = blockIdx.x * 32 + threadIdx.x;
  int share = (rows + gridDim.y - 1) / gridDim.y;
  int begin = blockIdx.y * share, end = min(rows, begin + share);
  wide sum = 0;
  if (column < columns)
    for (int row = begin + threadIdx.y; row < end; row += 8)
      sum += read(x[(long long)row * columns + column]);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < 8; i++) sum += sums[i][threadIdx.x];
    parts[blockIdx.y * columns + column] = sum;
  }
}

extern "C" __global__ void sum_rows(const REAL *__restrict__ x, wide *__restrict__ parts, int rows,
                                    int columns) {
  sum_part(x, parts, rows, columns);
}

extern "C" __global__ void sum_parts(const wide *__restrict__ x, wide *__restrict__ parts, int rows,
                                     int columns) {
  sum_part(x, parts, rows, columns);
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

// dx = (y - t) dout / n. `dout` is a number, or, where `dout_there` is not null, lies there.
extern "C" __global__ void softmax_with_loss_backward(const wide *__restrict__ y,
                                                      const long long *__restrict__ labels,
                                                      const wide *__restrict__ targets,
                                                      const wide *__restrict__ dout_there,
                                                      wide dout, REAL *__restrict__ dx, int n,
                                                      int k) {
  wide factor = (dout_there ? dout_there[0] : dout) / n;
  EACH(int, i, n * k) {
    wide target = labels ? wide(labels[i / k] == i % k ? 1 : 0) : targets[i];
    write(&dx[i], (y[i] - target) * factor);
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
                                          unsigned long long key0, unsigned long long key1,
                                          long long count) {
  EACH(long long, i, count) { numbers[i] = uniform_float(position[0] + i, key0, key1); }
}

extern "C" __global__ void uniform_doubles(double *__restrict__ numbers,
                                           const long long *__restrict__ position,
                                           unsigned long long key0, unsigned long long key1,
                                           long long count) {
  EACH(long long, i, count) {
    numbers[i] = (philox((position[0] + 1) / 2 + i, key0, key1) >> 11) / 9007199254740992.0;
  }
}

// One thread: count what was drawn, `words` halves of words from an even place on, or from here.
extern "C" __global__ void advance(long long *__restrict__ position, long long halves,
                                   bool whole_words) {
  if (blockIdx.x == 0 && threadIdx.x == 0)
    position[0] = (whole_words ? (position[0] + 1) / 2 * 2 : position[0]) + halves;
}

// y = x mask, where mask is 0 with probability `ratio`, else `scale`.
extern "C" __global__ void dropout(const REAL *__restrict__ x, REAL *__restrict__ y,
                                   REAL *__restrict__ mask,
                                   const long long *__restrict__ position, unsigned long long key0,
                                   unsigned long long key1, float ratio, float scale,
                                   long long count) {
  EACH(long long, i, count) {
    bool kept = uniform_float(position[0] + i, key0, key1) >= ratio;
    write(&mask[i], kept ? scale : 0);
    write(&y[i], read(x[i]) * read(mask[i]));
  }
}

// ---- what a step came to ------------------------------------------------------------------

// good becomes false where loss[0] or a number of g is not finite; see unscale.
extern "C" __global__ void all_finite(const wide *__restrict__ loss, const wide *__restrict__ g,
                                      bool *__restrict__ good, long long count) {
  EACH(long long, i, count) {
    if (!isfinite(g[i]) || !isfinite(loss[0])) *good = false;
  }
}

// ---- half precision -----------------------------------------------------------------------

// g divided by scale[0], in place; good becomes false where a number is not finite. It must be
// true before; all who write it write the same.
extern "C" __global__ void unscale(wide *__restrict__ g, const wide *__restrict__ scale,
                                   bool *__restrict__ good, long long count) {
  wide factor = 1 / scale[0];
  EACH(long long, i, count) {
    wide value = g[i] * factor;
    g[i] = value;
    if (!isfinite(value)) *good = false;
  }
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
      wide rate, long long count
#define RULE_BEGINS                                                                        \
  const bool skips = go && !go[0];                                                         \
  if (rate_there) rate = rate_there[0];
#define KEEP_COPY(i)                                                                       \
  if (copy) write(&copy[i], float(p[i]));

extern "C" __global__ void sgd(wide *__restrict__ p, const wide *__restrict__ g, RULE_ARGUMENTS) {
  RULE_BEGINS
  EACH(long long, i, count) {
    if (!skips) p[i] -= rate * g[i];
    KEEP_COPY(i)
  }
}

extern "C" __global__ void momentum(wide *__restrict__ p, const wide *__restrict__ g,
                                    wide *__restrict__ v, wide keep, RULE_ARGUMENTS) {
  RULE_BEGINS
  EACH(long long, i, count) {
    if (!skips) {
      v[i] = keep * v[i] - rate * g[i];
      p[i] += v[i];
    }
    KEEP_COPY(i)
  }
}

extern "C" __global__ void nesterov(wide *__restrict__ p, const wide *__restrict__ g,
                                    wide *__restrict__ v, wide keep, RULE_ARGUMENTS) {
  RULE_BEGINS
  EACH(long long, i, count) {
    if (!skips) {
      v[i] = keep * v[i] - rate * g[i];
      p[i] += keep * v[i] - rate * g[i];
    }
    KEEP_COPY(i)
  }
}

extern "C" __global__ void adagrad(wide *__restrict__ p, const wide *__restrict__ g,
                                   wide *__restrict__ h, wide epsilon, RULE_ARGUMENTS) {
  RULE_BEGINS
  EACH(long long, i, count) {
    if (!skips) {
      h[i] += g[i] * g[i];
      p[i] -= rate * g[i] / (sqrt(h[i]) + epsilon);
    }
    KEEP_COPY(i)
  }
}

extern "C" __global__ void rmsprop(wide *__restrict__ p, const wide *__restrict__ g,
                                   wide *__restrict__ h, wide keep, wide take, wide epsilon,
                                   RULE_ARGUMENTS) {
  RULE_BEGINS
  EACH(long long, i, count) {
    if (!skips) {
      h[i] = keep * h[i] + take * (g[i] * g[i]);
      p[i] -= rate * g[i] / (sqrt(h[i]) + epsilon);
    }
    KEEP_COPY(i)
  }
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
  EACH(long long, i, count) {
    if (!skips) {
      m[i] = keep1 * m[i] + take1 * g[i];
      v[i] = keep2 * v[i] + take2 * (g[i] * g[i]);
      p[i] -= step * m[i] / (sqrt(v[i]) / correction2 + epsilon);
    }
    KEEP_COPY(i)
  }
}
