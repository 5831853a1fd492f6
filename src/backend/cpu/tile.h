// Register tiles: R rows times one panel of two vectors. Included by kernels.cc (see vec.h).
#pragma once

inline constexpr int kColumns = 2 * kLanes;  // of a panel

// c[R, kColumns] += a[R, k] * b[k, kColumns], k ascending, one fused multiply-add each.
struct FloatTile {
  int k;
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
};

template <int R>
void float_tile(const FloatTile& t) {
  const float* b = t.b;
  const float* a = t.a;
  float* c = t.c;
  const int64_t a_stride = t.a_stride, b_stride = t.b_stride, c_stride = t.c_stride;
  F sum[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    sum[r][0] = load(c + r * c_stride);
    sum[r][1] = load(c + r * c_stride + kLanes);
  }
  for (const float* end = a + t.k; a != end; ++a, b += b_stride) {
    const F b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F x = broadcast(a[r * a_stride]);
      sum[r][0] = fma(x, b0, sum[r][0]);
      sum[r][1] = fma(x, b1, sum[r][1]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    store(c + r * c_stride, sum[r][0]);
    store(c + r * c_stride + kLanes, sum[r][1]);
  }
}

// c[r, j] = fma(float(isum), w_scales[g, j] * x_scales[r, g], c[r, j]) for each group g in
// ascending order; isum = sum over the group of x * (code + offset), less zero[r, g] = offset * sum
// of x.
struct IntTile {
  int groups;       // in this call
  int group_steps;  // steps of four k per group
  int steps;        // of all groups; the last may be short
  int flush_steps;
  const int8_t* x;
  int64_t x_stride;
  const uint8_t* w;  // [steps][kColumns][4]
  const float* w_scales;
  const float* x_scales;  // [R, groups]
  const int32_t* zeros;   // [R, groups]
  float* c;               // [R, kColumns]
};

template <int R, typename Dot>
ATOM_INLINE void dot_steps(I (&total)[R][2], const int8_t* x, int64_t x_stride, const uint8_t* w,
                           int steps) {
  typename Dot::Sum sum[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = typename Dot::Sum{};
  for (const uint8_t* end = w + int64_t{steps} * 4 * kColumns; w != end;
       w += 4 * kColumns, x += 4) {
    const I w0 = load_as<I>(w), w1 = load_as<I>(w + 4 * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const I v = broadcast_word(x + r * x_stride);
      sum[r][0] = Dot::step(sum[r][0], w0, v);
      sum[r][1] = Dot::step(sum[r][1], w1, v);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    total[r][0] += Dot::finish(sum[r][0]);
    total[r][1] += Dot::finish(sum[r][1]);
  }
}

template <int R, typename Dot>
void int_tile(const IntTile& t) {
  const uint8_t* w = t.w;
  const int8_t* x = t.x;
  for (int g = 0; g < t.groups; ++g) {
    int left = t.steps - g * t.group_steps;
    if (left > t.group_steps) left = t.group_steps;
    I total[R][2] = {};
    for (; left > 0; left -= t.flush_steps) {
      const int steps = left < t.flush_steps ? left : t.flush_steps;
      dot_steps<R, Dot>(total, x, t.x_stride, w, steps);
      w += int64_t{steps} * 4 * kColumns;
      x += steps * 4;
    }
    const F s0 = load(t.w_scales + g * kColumns), s1 = load(t.w_scales + g * kColumns + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F scale = broadcast(t.x_scales[r * t.groups + g]);
      const I zero = broadcast(t.zeros[r * t.groups + g]);
      float* c = t.c + r * kColumns;
      store(c, fma(to_float(total[r][0] - zero), s0 * scale, load(c)));
      store(c + kLanes, fma(to_float(total[r][1] - zero), s1 * scale, load(c + kLanes)));
    }
  }
}

// Calls f.template run<R>(row) for the rows [begin, end) in tiles of at most Max.
template <int R, typename Function>
ATOM_INLINE void run_tail(int rows, int row, const Function& f) {
  if constexpr (R > 0) {
    if (rows == R) return f.template run<R>(row);
    run_tail<R - 1>(rows, row, f);
  }
}
template <int Max, typename Function>
ATOM_INLINE void for_tiles(int begin, int end, const Function& f) {
  int row = begin;
  for (; row + Max <= end; row += Max) f.template run<Max>(row);
  run_tail<Max - 1>(end - row, row, f);
}
