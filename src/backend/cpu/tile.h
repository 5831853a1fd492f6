// Register tiles: R rows times one panel of two vectors. Included by kernels.cc (see vec.h).
#pragma once

inline constexpr int kColumns = 2 * kLanes;  // of a panel

// c[rows, columns] += a[rows, k] * b[k, columns], k ascending, one fused multiply-add each. The
// columns are `panels` panels, b_next and c_next floats apart.
struct FloatProduct {
  int k;  // at least 1
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t b_stride;
  int64_t b_next;
  float* c;
  int64_t c_stride;
  int64_t c_next;
};

// R rows, P panels.
template <int R, int P>
__attribute__((noinline)) void float_tile(const FloatProduct& t) {
  const float* b = t.b;
  const float* a = t.a;
  const int64_t a_stride = t.a_stride, b_stride = t.b_stride, b_next = t.b_next;
  const int64_t c_stride = t.c_stride, c_next = t.c_next;
  F sum[R][P][2];
  const float* from = t.c;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, from += c_stride) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      sum[r][p][0] = load(from + p * c_next);
      sum[r][p][1] = load(from + p * c_next + kLanes);
    }
  }
  const float* end = a + t.k;
  do {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const F b0 = load(b + p * b_next), b1 = load(b + p * b_next + kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const F x = broadcast(a[r * a_stride]);
        sum[r][p][0] = fma(x, b0, sum[r][p][0]);
        sum[r][p][1] = fma(x, b1, sum[r][p][1]);
      }
    }
    ++a;
    b += b_stride;
  } while (a != end);
  float* to = t.c;
  asm("" : "+r"(to));  // else the addresses of the loads are kept, and spilled, until here
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, to += c_stride) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      store(to + p * c_next, sum[r][p][0]);
      store(to + p * c_next + kLanes, sum[r][p][1]);
    }
  }
}

// c[r, j] = fma(float(isum), w_scales[g, j] * x_scales[r, g], c[r, j]) for each group g in
// ascending order; isum = sum over the group of x * (code + offset), less zero[r, g] = offset * sum
// of x. Progressive: totals[r, j] += (isum - zero[r, g]) * multipliers[g, j], in s32.
struct IntTile {
  int groups;       // in this call
  int group_steps;  // steps of four k per group
  int steps;        // of all groups; the last may be short
  int flush_steps;
  const int8_t* x;
  int64_t x_stride;
  const uint8_t* w;       // [steps][kColumns][4]
  const char* factors;    // [groups, kColumns]: f32 scales w_scales, or s32 multipliers
  const float* x_scales;  // [R, groups]
  const int32_t* zeros;   // [R, groups]
  char* sums;             // [R, kColumns]: f32 c, or s32 totals
};

enum class Ending { kNone, kScale, kMultiply };

// Steps of one group, from x and w on. Unless kEnding is kNone, they end the group g, whose sums
// (with those in `total` when it is not null) go into c or totals; otherwise they are added to
// `total`. Not inlined: the loop needs every register.
template <int R, typename Dot, Ending kEnding>
__attribute__((noinline)) void dot_steps(const IntTile& t, int g, const int8_t* x, const uint8_t* w,
                                         int steps, I (*total)[2]) {
  const int64_t x_stride = t.x_stride;
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
  const int groups = t.groups;
  const float* x_scales = t.x_scales + g;
  const int32_t* zeros = t.zeros + g;
  char* c = t.sums;
  const char* factors = t.factors + int64_t{g} * 2 * sizeof(F);
  const F s0 = load_as<F>(factors), s1 = load_as<F>(factors + sizeof(F));
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, x_scales += groups, zeros += groups, c += 2 * sizeof(F)) {
    I v0 = Dot::finish(sum[r][0]), v1 = Dot::finish(sum[r][1]);
    if (total != nullptr) {
      v0 += total[r][0];
      v1 += total[r][1];
    }
    if constexpr (kEnding == Ending::kMultiply) {
      const I zero = broadcast(*zeros);
      store(c, load_as<I>(c) + (v0 - zero) * (I)s0);
      store(c + sizeof(I), load_as<I>(c + sizeof(I)) + (v1 - zero) * (I)s1);
    } else if constexpr (kEnding == Ending::kScale) {
      const F scale = broadcast(*x_scales);
      const I zero = broadcast(*zeros);
      store(c, fma(to_float(v0 - zero), s0 * scale, load_as<F>(c)));
      store(c + sizeof(F), fma(to_float(v1 - zero), s1 * scale, load_as<F>(c + sizeof(F))));
    } else {
      total[r][0] = v0;
      total[r][1] = v1;
    }
  }
}

template <int R, typename Dot, bool kProgressive>
static void int_tile(const IntTile& t) {
  constexpr Ending kEnding = kProgressive ? Ending::kMultiply : Ending::kScale;
  const uint8_t* w = t.w;
  const int8_t* x = t.x;
  for (int g = 0; g < t.groups; ++g) {
    int left = t.steps - g * t.group_steps;
    if (left > t.group_steps) left = t.group_steps;
    I total[R][2];
    const bool several = left > t.flush_steps;
    if (several) __builtin_memset(total, 0, sizeof total);
    for (; left > t.flush_steps; left -= t.flush_steps) {
      dot_steps<R, Dot, Ending::kNone>(t, g, x, w, t.flush_steps, total);
      w += int64_t{t.flush_steps} * 4 * kColumns;
      x += t.flush_steps * 4;
    }
    dot_steps<R, Dot, kEnding>(t, g, x, w, left, several ? total : nullptr);
    w += int64_t{left} * 4 * kColumns;
    x += left * 4;
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

// Few rows take several panels at once: a tile needs about eight chains of additions to hide their
// latency.
inline constexpr int kMostPanels = 4;
ATOM_INLINE int panels_at_once(int rows) { return rows == 1 ? kMostPanels : rows <= 3 ? 2 : 1; }

struct FloatSweep {
  FloatProduct product;
  template <int R>
  ATOM_INLINE_MEMBER void run(int row) const {
    FloatProduct t = product;
    t.a += row * t.a_stride;
    t.c += row * t.c_stride;
    float_tile<R, 1>(t);
  }
};

static void multiply(FloatProduct t, int rows, int panels) {
  for (const int step = panels_at_once(rows); panels >= step; panels -= step) {
    if (rows == 1)
      float_tile<1, kMostPanels>(t);
    else if (rows == 2)
      float_tile<2, 2>(t);
    else if (rows == 3)
      float_tile<3, 2>(t);
    else
      for_tiles<kTileRows>(0, rows, FloatSweep{t});
    t.b += step * t.b_next;
    t.c += step * t.c_next;
  }
  for (; panels > 0; --panels, t.b += t.b_next, t.c += t.c_next)
    for_tiles<kTileRows>(0, rows, FloatSweep{t});
}
