// Operations on one row: quantize, norm, gate, widen, combine, and reductions of logits. Included
// by kernels.cc (see vec.h). Codes and scale bits are those of format/quantize.h. Remainders go
// through the same vector code on a padded copy.
#pragma once

ATOM_INLINE int round_up(int x, int to) { return (x + to - 1) / to * to; }

// Calls f(i, count) for whole vectors of [0, size), then for the remainder.
template <typename Function>
ATOM_INLINE void for_vectors(int size, const Function& f) {
  int i = 0;
  for (; i + kLanes <= size; i += kLanes) f(i, kLanes);
  if (i < size) f(i, size - i);
}
ATOM_INLINE F load_part(const float* from, int count) {
  if (count == kLanes) return load(from);
  F v{};
  __builtin_memcpy(&v, from, (size_t)count * sizeof(float));
  return v;
}
ATOM_INLINE void store_part(float* to, F v, int count) {
  if (count == kLanes) return store(to, v);
  __builtin_memcpy(to, &v, (size_t)count * sizeof(float));
}

// ---- quantize

// Largest magnitude of whole vectors; NaN when a NaN or an infinity is among them.
ATOM_INLINE float absmax(const float* x, int size) {
  I largest{};  // magnitudes order like their bits; NaN and infinity are on top
  for (int i = 0; i < size; i += kLanes) largest = max(largest, bits_of(load(x + i)) & 0x7fffffff);
  const int32_t bits = max_lanes(largest);
  return bits >= 0x7f800000 ? __builtin_nanf("") : __builtin_bit_cast(float, bits);
}

// The value of largest magnitude, the positive one of two; NaN as above.
ATOM_INLINE float extreme(const float* x, int size) {
  I largest{};
  F top = broadcast(-__builtin_inff());
  for (int i = 0; i < size; i += kLanes) {
    const F v = load(x + i);
    largest = max(largest, bits_of(v) & 0x7fffffff);
    top = max(v, top);
  }
  const int32_t bits = max_lanes(largest);
  if (bits >= 0x7f800000) return __builtin_nanf("");
  const float magnitude = __builtin_bit_cast(float, bits);
  return max_lanes(top) == magnitude ? magnitude : -magnitude;
}

// clamp(rne(x * inv)), 0 where that is NaN. The bounds are integers, so they may clamp before
// rounding.
ATOM_INLINE I quantize_vector(F x, F inv, F low, F high) {
  F r = x * inv;
  r = r == r ? r : F{};
  return round_to_int(min(max(r, low), high));
}

// Nearest E2M1 code, ties to the even pattern: half to even in steps of 1 below 4, 2 below 8, 4 above.
ATOM_INLINE I quantize_e2m1(F x, F inv) {
  F r = x * inv;
  r = r == r ? r : F{};
  r = min(max(r, broadcast(-12.0f)), broadcast(12.0f));
  const F magnitude = (F)(bits_of(r) & 0x7fffffff);
  const I large = magnitude < 4.0f ? I{} : magnitude < 8.0f ? broadcast(1) : broadcast(2);
  const F step = (F)((large + 127) << 23), inverse = (F)((127 - large) << 23);
  return round_to_int(to_float(round_to_int(r * inverse)) * step);
}

// A value that is not negative as E4M3: half to even, at most 448, at least the smallest one.
ATOM_INLINE float round_to_e4m3(float x) {
  if (x > 448.0f) return 448.0f;
  if (x < 0x1p-6f) {
    const float rounded = (x + 0x1.8p14f) - 0x1.8p14f;  // multiples of 2^-9
    return rounded > 0 ? rounded : 0x1p-9f;
  }
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return __builtin_bit_cast(float, (bits + 0x7ffffu + ((bits >> 20) & 1u)) & ~0xfffffu);
}

// Half the scale of an FP4 group of magnitude `largest`. `global` is that of the segment (nvfp4).
ATOM_INLINE float fp4_step(Fp4Scale rule, float largest, float clip, float global) {
  if (rule == Fp4Scale::kE4M3) {
    if (!(largest == largest && global == global)) return __builtin_nanf("");
    return (largest == 0.0f ? 0.5f : 0.5f * round_to_e4m3(largest / 6.0f * global)) / global;
  }
  if (largest == 0.0f) return 0.5f;
  if (rule == Fp4Scale::kF32 || largest != largest) return largest * (clip / 12.0f);
  // 2^(floor(log2 x) - 3); the two smallest are subnormal.
  const int exponent = (int)(__builtin_bit_cast(uint32_t, largest) >> 23) - 3;
  const uint32_t bits = exponent > 0    ? (uint32_t)exponent << 23
                        : exponent == 0 ? 0x00400000u
                                        : 0x00200000u;
  return __builtin_bit_cast(float, bits);
}

// Of a segment, zero-padded to a multiple of 64 values: NaN when one of them is not finite.
ATOM_INLINE float nvfp4_global(const float* x, int size) {
  const float largest = absmax(x, round_up(size, kLanes));
  return largest == 0.0f ? 1.0f : 2688.0f / (largest < 0x1p-114f ? 0x1p-114f : largest);
}

// One segment in its order, zero-padded to a multiple of 64 values.
static void quantize_segment(const Input& y, const InputSegment& s, int row, const float* x) {
  const bool int4 = s.element == Element::kInt4;
  const F low = broadcast(int4 ? -8.0f : -127.0f), high = broadcast(int4 ? 7.0f : 127.0f);
  const bool e2m1 = s.element == Element::kE2M1;
  const float global = s.fp4_scale == Fp4Scale::kE4M3 ? nvfp4_global(x, s.size) : 1.0f;
  int8_t* codes = s.codes + row * s.stride;
  int32_t* sums = s.code_sums + int64_t{row} * s.sums;
  for (int g = 0; g < s.groups; ++g) {
    const int begin = g * s.group;
    const int end = round_up(smaller(begin + s.group, s.size), kLanes);
    const bool with_sign = int4 && y.signed_scales;
    const float largest =
        with_sign ? extreme(x + begin, end - begin) : absmax(x + begin, end - begin);
    const float scale = e2m1              ? fp4_step(s.fp4_scale, largest, y.clip, global)
                        : largest == 0.0f ? 1.0f
                        : with_sign       ? largest * (y.clip / -8.0f)
                        : int4            ? largest * (y.clip / 7.0f)
                                          : largest / 127.0f;
    s.scales[int64_t{row} * s.groups + g] = scale;
    const F inv = broadcast(1.0f / scale);
    for (int i = begin; i < end; i += s.sum_span) {
      const int span_end = smaller(i + s.sum_span, end);
      I sum{};
      for (int j = i; j < span_end; j += kLanes) {
        const I q =
            e2m1 ? quantize_e2m1(load(x + j), inv) : quantize_vector(load(x + j), inv, low, high);
        store_bytes(codes + j, q);
        sum += q;
      }
      sums[i / s.sum_span] = sum_lanes(sum);
    }
  }
  const int written = round_up(s.size, kLanes);
  __builtin_memset(codes + written, 0, (size_t)(s.stride - written));
}

// ---- Walsh-Hadamard transform: the operations of format/hadamard.h

// Values whose indices differ in bit kDistance meet; the upper one becomes lower - upper.
template <int kDistance, int... kLane>
ATOM_INLINE F butterfly(F v, std::integer_sequence<int, kLane...> lanes) {
  constexpr I kSign = {((kLane & kDistance) != 0 ? INT32_MIN : 0)...};
  return swap_lanes<kDistance>(v, lanes) + (F)((I)v ^ kSign);
}
template <int kDistance = 1>
ATOM_INLINE F butterflies(F v, int size) {
  if constexpr (kDistance < kLanes) {
    if (kDistance >= size) return v;
    v = butterfly<kDistance>(v, std::make_integer_sequence<int, kLanes>());
    return butterflies<kDistance * 2>(v, size);
  }
  return v;
}

static void hadamard(float* x, int size) {
  const F norm = broadcast((float)(1.0 / __builtin_sqrt((double)size)));
  if (size < 2 * kLanes) {
    for_vectors(size, [&](int i, int count) {
      store_part(x + i, butterflies(load_part(x + i, count), size) * norm, count);
    });
    return;
  }
  for (int i = 0; i < size; i += kLanes) store(x + i, butterflies(load(x + i), size));
  for (int distance = kLanes; distance < size; distance *= 2) {
    const F factor = distance * 2 == size ? norm : broadcast(1.0f);
    for (int block = 0; block < size; block += 2 * distance)
      for (int i = block; i < block + distance; i += kLanes) {
        const F a = load(x + i), b = load(x + i + distance);
        store(x + i, (a + b) * factor);
        store(x + i + distance, (a - b) * factor);
      }
  }
}

// Whole blocks, then what is left in ever smaller powers of two.
static void block_hadamard(float* x, int size, int block) {
  for (int at = 0; at < size;) {
    while (block > size - at) block /= 2;
    hadamard(x + at, block);
    at += block;
  }
}

static size_t row_scratch(const Input& y) {
  return (size_t)(round_up(larger(y.at[0].size, y.at[1].size), 64)) * sizeof(float);
}

static void quantize_row(const Input& y, int row, const float* x, std::byte* scratch) {
  float* ordered = (float*)scratch;
  int from = 0;
  for (const InputSegment& s : y.at) {
    if (s.size == 0) continue;
    const bool integer = is_integer(s.element);
    float* to = integer ? ordered : s.values + row * s.stride;
    if (y.order != nullptr)
      for (int i = 0; i < s.size; ++i) to[i] = x[y.order[from + i]];
    else
      __builtin_memcpy(to, x + from, (size_t)s.size * sizeof(float));
    if (y.hadamard != 0 && &s == y.at) block_hadamard(to, s.size, y.hadamard);
    if (integer) {
      __builtin_memset(to + s.size, 0, (size_t)(round_up(s.size, 64) - s.size) * sizeof(float));
      quantize_segment(y, s, row, to);
    }
    from += s.size;
  }
}

// ---- norm, gate, embedding, combine

static void norm_row(const float* x, const float* gain, float epsilon, int k, float* y) {
  D squares[2] = {};
  for_vectors(k, [&](int i, int count) {
    const F v = load_part(x + i, count);
    for (int half = 0; half < 2; ++half) {
      HalfF part;
      __builtin_memcpy(&part, (const char*)&v + half * sizeof part, sizeof part);
      const D wide = __builtin_convertvector(part, D);
      squares[half] += wide * wide;
    }
  });
  const double mean = sum_lanes(squares[0] + squares[1]) / k;
  const F inv = broadcast((float)(1.0 / __builtin_sqrt(mean + (double)epsilon)));
  for_vectors(k, [&](int i, int count) {
    store_part(y + i, (load_part(x + i, count) * inv) * load_part(gain + i, count), count);
  });
}

static void gate_row(const float* x, int k, float* y) {
  for_vectors(k, [&](int i, int count) {
    const F g = load_part(x + i, count);
    const F silu = g / (exp(-g) + 1.0f);
    store_part(y + i, silu * load_part(x + k + i, count), count);
  });
}

static void widen_row(Element element, const void* from, int size, float* to) {
  if (element == Element::kF32) {
    __builtin_memcpy(to, from, (size_t)size * sizeof(float));
    return;
  }
  for_vectors(size, [&](int i, int count) {
    uint16_t part[kLanes] = {};
    __builtin_memcpy(part, (const char*)from + int64_t{i} * 2, (size_t)count * 2);
    store_part(to + i, element == Element::kF16 ? widen_f16(part) : widen_bf16(part), count);
  });
}

static void combine_row(const float* const* rows, const float* weights, int count, int n,
                        float* y) {
  for_vectors(n, [&](int i, int lanes) {
    F sum{};
    for (int j = 0; j < count; ++j)
      sum = fma(broadcast(weights[j]), load_part(rows[j] + i, lanes), sum);
    store_part(y + i, load_part(y + i, lanes) + sum, lanes);
  });
}

// ---- logits

static float largest(const float* x, int size) {
  F top = broadcast(x[0]);
  I nan{};
  for_vectors(size, [&](int i, int count) {
    F v = load_part(x + i, count);
    for (int j = count; j < kLanes; ++j) v[j] = x[0];
    nan |= v != v;
    top = max(v, top);
  });
  int32_t any = 0;
  for (int j = 0; j < kLanes; ++j) any |= nan[j];
  return any != 0 ? __builtin_nanf("") : max_lanes(top);
}

static double sum_exp(const float* x, int size, float largest) {
  D sum{};
  const D top = broadcast((double)largest);
  int i = 0;
  for (; i + kHalfLanes <= size; i += kHalfLanes)
    sum += exp(__builtin_convertvector(load_as<HalfF>(x + i), D) - top);
  double total = sum_lanes(sum);
  for (; i < size; ++i) total += exp(broadcast((double)x[i]) - top)[0];
  return total;
}
