// The vector operations of the kernels, once per instruction set: AVX-512 with VNNI, AVX2 with FMA
// and F16C, or the compiler's generic vectors of four lanes. Arithmetic, shifts, comparisons and
// selections use the compiler's vector operators, so only what those lack stands here.
//
// Included by kernels.cc alone, inside the anonymous namespace of one instruction set: nothing here
// may be merged by the linker with a copy compiled for another set, so no standard inline function
// is used either. A selection `a < b ? a : b` takes b when one of them is NaN; the kernels rely on
// that.
#pragma once

#define ATOM_INLINE static inline __attribute__((always_inline))
#define ATOM_INLINE_MEMBER inline __attribute__((always_inline))

#if defined(__AVX512VNNI__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float F __attribute__((vector_size(4 * kLanes)));      // NOLINT: vector types want typedef
typedef int32_t I __attribute__((vector_size(4 * kLanes)));    // NOLINT
typedef float HalfF __attribute__((vector_size(2 * kLanes)));  // NOLINT
typedef double D __attribute__((vector_size(4 * kLanes)));     // NOLINT: half as many lanes
typedef int64_t L __attribute__((vector_size(4 * kLanes)));    // NOLINT
inline constexpr int kHalfLanes = kLanes / 2;

template <typename V, typename T>
ATOM_INLINE V load_as(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
ATOM_INLINE F load(const float* from) { return load_as<F>(from); }
template <typename V, typename T>
ATOM_INLINE void store(T* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}

ATOM_INLINE F broadcast(float x) { return x - F{}; }
ATOM_INLINE I broadcast(int32_t x) { return x + I{}; }
ATOM_INLINE D broadcast(double x) { return x - D{}; }
// Four bytes to every lane.
template <typename T>
ATOM_INLINE I broadcast_word(const T* from) {
  int32_t word;
  __builtin_memcpy(&word, from, sizeof word);
  return broadcast(word);
}

ATOM_INLINE F to_float(I v) { return __builtin_convertvector(v, F); }
ATOM_INLINE I bits_of(F v) { return (I)v; }
ATOM_INLINE F min(F a, F b) { return a < b ? a : b; }  // b when either is NaN
ATOM_INLINE F max(F a, F b) { return a > b ? a : b; }  // b when either is NaN
ATOM_INLINE I max(I a, I b) { return a > b ? a : b; }

// Reductions in a fixed order: halves are folded onto each other.
template <int kWidth, typename V, int... kLane>
ATOM_INLINE V swap_lanes(V v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, (kLane ^ kWidth)...);
}
template <int kWidth, typename V, typename Fold>
ATOM_INLINE V fold(V v, const Fold& f) {
  constexpr int kCount = sizeof(V) / sizeof(v[0]);
  v = f(v, swap_lanes<kWidth>(v, std::make_integer_sequence<int, kCount>()));
  if constexpr (kWidth > 1)
    return fold<kWidth / 2>(v, f);
  else
    return v;
}
template <typename V>
ATOM_INLINE auto sum_lanes(V v) {
  return fold<sizeof(V) / sizeof(v[0]) / 2>(v, [](V a, V b) { return a + b; })[0];
}
template <typename V>
ATOM_INLINE auto max_lanes(V v) {  // of floats: NaN may be lost
  return fold<sizeof(V) / sizeof(v[0]) / 2>(v, [](V a, V b) { return a > b ? a : b; })[0];
}

// acc + sum over the four bytes of each lane of w (unsigned) times a (signed), in plain vectors.
ATOM_INLINE I dot_bytes(I acc, I w, I a) {
  for (int byte = 0; byte < 4; ++byte)
    acc += ((w >> (8 * byte)) & 255) * ((a << (24 - 8 * byte)) >> 24);
  return acc;
}

// E2M1 patterns, a byte each (0 .. 15), become codes + kE2M1Offset: by a table of sixteen bytes where bytes can be
// shuffled, else computed (codes grow by 1 up to the pattern 4, then by 2 and 4).
inline constexpr int kE2M1Offset = 12;
inline constexpr int64_t kE2M1Low = 0x181412100f0e0d0c, kE2M1High = 0x00040608090a0b0c;
typedef int8_t B __attribute__((vector_size(4 * kLanes)));  // NOLINT
ATOM_INLINE I computed_e2m1_bytes(I patterns) {
  const B pattern = (B)patterns, index = pattern & 7;
  const B code = index - (B)(index > 4) - (B)(index > 5) + ((B)(index > 6) & 3);  // true is -1
  return (I)((pattern > 7 ? -code : code) + (int8_t)kE2M1Offset);
}
// Byte by byte, so that no borrow crosses.
ATOM_INLINE I subtract_bytes(I bytes, int value) { return (I)((B)bytes - (int8_t)value); }

// ---- what differs

// Two halves side by side.
struct Pair {
  float first, second;
};
#if defined(__F16C__)
ATOM_INLINE Pair widen_pair(const void* from) {
  const __m128 wide = _mm_cvtph_ps(_mm_cvtsi32_si128(load_as<int32_t>((const char*)from)));
  return {wide[0], wide[1]};
}
#endif

#if defined(__AVX512VNNI__)

ATOM_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
ATOM_INLINE I round_to_int(F v) { return (I)_mm512_cvtps_epi32(v); }
ATOM_INLINE F widen_f16(const uint16_t* from) { return _mm512_cvtph_ps(load_as<__m256i>(from)); }
ATOM_INLINE void narrow_f16(uint16_t* to, F v) {
  store(to, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
ATOM_INLINE I widen_u16(const uint16_t* from) {
  return (I)_mm512_cvtepu16_epi32(load_as<__m256i>(from));
}
ATOM_INLINE I widen_u8(const uint8_t* from) {
  return (I)_mm512_cvtepu8_epi32(load_as<__m128i>(from));
}
ATOM_INLINE void store_bytes(void* to, I v) { store((char*)to, _mm512_cvtepi32_epi8((__m512i)v)); }
// kLanes nibbles, the lower of a byte first.
ATOM_INLINE I widen_u4(const uint8_t* from) {
  const __m256i low = (__m256i)(__v8si)_mm256_set1_epi32(load_as<int32_t>(from));
  const __m256i high = (__m256i)(__v8si)_mm256_set1_epi32(load_as<int32_t>(from + 4));
  const I words = (I)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  return (words >> I{0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28}) & 15;
}

ATOM_INLINE I e2m1_bytes(I patterns) {
  const __m512i table = _mm512_broadcast_i32x4(_mm_set_epi64x(kE2M1High, kE2M1Low));
  return (I)_mm512_shuffle_epi8(table, (__m512i)patterns);
}

// Products of packed bytes, four to a lane: exact s32 sums. Weights are unsigned: code + offset.
struct UnsignedDot {
  using Sum = I;
  ATOM_INLINE Sum step(Sum sum, I w, I a) {
    // As an intrinsic GCC 12 copies and spills the accumulators.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a));
    return sum;
  }
  ATOM_INLINE I finish(Sum sum) { return sum; }
  static constexpr int flush_steps(int) { return 1 << 30; }
  static constexpr int kE2M1FlushSteps = 1 << 30;
};
using NibbleDot = UnsignedDot;
using ByteDot = UnsignedDot;
inline constexpr int kByteOffset = 128;  // int8 weights are packed as code + 128
inline constexpr int kTileRows = 12, kByteTileRows = 12;

#elif defined(__AVX2__)

ATOM_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
ATOM_INLINE I round_to_int(F v) { return (I)_mm256_cvtps_epi32(v); }
ATOM_INLINE F widen_f16(const uint16_t* from) { return _mm256_cvtph_ps(load_as<__m128i>(from)); }
ATOM_INLINE void narrow_f16(uint16_t* to, F v) {
  store(to, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
ATOM_INLINE I widen_u16(const uint16_t* from) {
  return (I)_mm256_cvtepu16_epi32(load_as<__m128i>(from));
}
ATOM_INLINE I widen_u8(const uint8_t* from) {
  return (I)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load_as<int64_t>(from)));
}
ATOM_INLINE void store_bytes(void* to, I v) {
  const __m256i low = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(255));
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  store((char*)to, _mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
}
ATOM_INLINE I widen_u4(const uint8_t* from) {
  return (broadcast_word(from) >> I{0, 4, 8, 12, 16, 20, 24, 28}) & 15;
}

alignas(32) static const int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

ATOM_INLINE I e2m1_bytes(I patterns) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_set_epi64x(kE2M1High, kE2M1Low));
  return (I)_mm256_shuffle_epi8(table, (__m256i)patterns);
}

// u4 weights (code + 8) or E2M1 (code + 12): pairs of products are added in 16 bits and widened every flush_steps().
struct NibbleDot {
  using Sum = __m256i;  // sixteen s16
  ATOM_INLINE Sum step(Sum sum, I w, I a) {
    // As intrinsics GCC 12 takes all the products first and spills.
    __m256i pairs;
    asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(pairs) : "x"(w), "x"(a));
    return sum;
  }
  ATOM_INLINE I finish(Sum sum) {
    I wide;  // the ones are a memory operand: a register for them would spill a sum of the inner
             // loop
    asm("vpmaddwd %2, %1, %0" : "=x"(wide) : "x"(sum), "m"(kOnes));
    return wide;
  }
  // A step adds at most 2 * 15 * |code| in magnitude: 240 for int4 inputs, 3810 for int8.
  static constexpr int flush_steps(int input_bits) { return input_bits == 4 ? 128 : 8; }
  static constexpr int kE2M1FlushSteps = 56;  // 2 * 24 * 12 a step
};
// s8 weights: |a| * (w with the sign of a). No code is -128, so no pair saturates (2 * 127 * 127 <
// 2^15).
struct ByteDot {
  using Sum = I;
  ATOM_INLINE Sum step(Sum sum, I w, I a) {
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)a), _mm256_sign_epi8((__m256i)w, (__m256i)a));
    return sum + (I)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  ATOM_INLINE I finish(Sum sum) { return sum; }
  static constexpr int flush_steps(int) { return 1 << 30; }
};
inline constexpr int kByteOffset = 0;
inline constexpr int kTileRows = 6, kByteTileRows = 4;

#else

ATOM_INLINE F fma(F a, F b, F c) { return a * b + c; }  // two roundings: this set has no fused one
ATOM_INLINE I round_to_int(F v) {
#if defined(__SSE2__)
  return (I)_mm_cvtps_epi32(v);
#else
  I r;
  for (int i = 0; i < kLanes; ++i) r[i] = (int32_t)__builtin_nearbyintf(v[i]);
  return r;
#endif
}
ATOM_INLINE I widen_u16(const uint16_t* from) {
  I v;
  for (int i = 0; i < kLanes; ++i) v[i] = from[i];
  return v;
}
ATOM_INLINE I widen_u8(const uint8_t* from) {
  I v;
  for (int i = 0; i < kLanes; ++i) v[i] = from[i];
  return v;
}
// Exponent and mantissa move to their f32 places; the product rescales, subnormals included.
ATOM_INLINE F widen_f16(const uint16_t* from) {
  const I h = widen_u16(from), magnitude = (h & 0x7fff) << 13;
  const I finite = (I)((F)magnitude * 0x1p112f);
  const I special = magnitude | 0x7f800000;
  return (F)(((magnitude >= 0x0f800000) ? special : finite) | ((h & 0x8000) << 16));
}
ATOM_INLINE Pair widen_pair(const void* from) {
  uint16_t halves[kLanes] = {};
  __builtin_memcpy(halves, from, 4);
  const F wide = widen_f16(halves);
  return {wide[0], wide[1]};
}
// Half to even. A denormal result is rounded by the addition of 0.5, whose last bit weighs 2^-24.
ATOM_INLINE void narrow_f16(uint16_t* to, F v) {
  const I bits = (I)v, magnitude = bits & 0x7fffffff;
  const I normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const I small = (I)((F)magnitude + 0.5f) - 0x3f000000;
  I half = magnitude < 0x38800000 ? small : normal;
  half = magnitude >= 0x477ff000 ? I{} + 0x7c00 : half;
  half = magnitude > 0x7f800000 ? 0x7e00 | ((magnitude >> 13) & 0x3ff) : half;
  half |= (bits >> 16) & 0x8000;
  for (int i = 0; i < kLanes; ++i) to[i] = (uint16_t)half[i];
}
ATOM_INLINE void store_bytes(void* to, I v) {
  for (int i = 0; i < kLanes; ++i) ((uint8_t*)to)[i] = (uint8_t)v[i];
}
ATOM_INLINE I widen_u4(const uint8_t* from) {
  return ((from[0] | from[1] << 8) >> I{0, 4, 8, 12}) & 15;
}

ATOM_INLINE I e2m1_bytes(I patterns) { return computed_e2m1_bytes(patterns); }

struct PlainDot {
  using Sum = I;
  ATOM_INLINE Sum step(Sum sum, I w, I a) { return dot_bytes(sum, w, a); }
  ATOM_INLINE I finish(Sum sum) { return sum; }
  static constexpr int flush_steps(int) { return 1 << 30; }
  static constexpr int kE2M1FlushSteps = 1 << 30;
};
using NibbleDot = PlainDot;
using ByteDot = PlainDot;
inline constexpr int kByteOffset = 128;
inline constexpr int kTileRows = 4, kByteTileRows = 4;

#endif

ATOM_INLINE F widen_bf16(const uint16_t* from) { return (F)(widen_u16(from) << 16); }

// ---- exponentials

// 2^n / 2 twice, so that the ends of the range (denormal, infinite) are rounded once.
ATOM_INLINE F scale_by_power(F v, I n) {
  const I half = n >> 1;
  return v * (F)((half + 127) << 23) * (F)((n - half + 127) << 23);
}

// e^x to about 1 ulp: x = n ln 2 + r with |r| <= ln 2 / 2 and ln 2 in two parts, e^r by a
// polynomial. exp(0) is 1, exp(-infinity) is 0, a NaN stays one.
ATOM_INLINE F exp(F x) {
  x = min(broadcast(89.0f), x);
  x = max(broadcast(-105.0f), x);
  const I n = round_to_int(x * 1.44269504088896341f);
  const F fn = to_float(n);
  F r = fma(fn, broadcast(-0.693359375f), x);
  r = fma(fn, broadcast(2.12194440e-4f), r);
  F p = broadcast(1.0f / 5040);
  p = fma(p, r, broadcast(1.0f / 720));
  p = fma(p, r, broadcast(1.0f / 120));
  p = fma(p, r, broadcast(1.0f / 24));
  p = fma(p, r, broadcast(1.0f / 6));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p, r * r, r) + 1.0f;
  // n of a NaN is the most negative integer: its power must not turn the NaN into a number
  return x == x ? scale_by_power(p, n) : x;
}

inline constexpr double kInverseFactorial[] = {1.0,         1.0,          0.5,          1.0 / 6,
                                               1.0 / 24,    1.0 / 120,    1.0 / 720,    1.0 / 5040,
                                               1.0 / 40320, 1.0 / 362880, 1.0 / 3628800};

// e^x in f64 for x <= 0, relative error below 1e-14; 0 below -700, a NaN stays one.
ATOM_INLINE D exp(D x) {
  const D magic = broadcast(0x1.8p52);  // adding it rounds to an integer, held in the low bits
  const D inside = x < -700.0 ? broadcast(-700.0) : x;
  const D shifted = inside * 1.4426950408889634 + magic;
  const D n = shifted - magic;
  const D r = (inside - n * 0x1.62e42fefa3800p-1) - n * 0x1.ef35793c76730p-45;
  D p = broadcast(1.0 / 39916800);  // 1 / 11!
#pragma GCC unroll 16
  for (int i = 11; i > 0; --i) p = p * r + kInverseFactorial[i - 1];
  const D power = (D)(((L)shifted << 52) + (L)broadcast(1.0));
  return x < -700.0 ? D{} : p * power;
}
