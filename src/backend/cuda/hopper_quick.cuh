// What the quick producers (hopper_quick_rows.cu, hopper_quick_gate.cu) do with a tile: as hopper_tile.cuh, for rows
// that can_be_quick() takes: whole tiles, and steps of integer formats that follow from a tile or from the row. Values
// out of the ordinary take the definition's path, in a branch of the warp.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_tile.cuh"

namespace atom::backend::cuda::hopper {

// Where a lane's chunk c of four values lies: rows in f32 are read 16 bytes at a time, as hopper_tile.cuh says; 16 bytes of
// f16 are kRun = 8 values, two chunks side by side.
template <int kRun>
__device__ constexpr int chunk_at(int c) {
  return c / (kRun / 4) * (kTeam * kRun) + c % (kRun / 4) * 4;
}

// A lane's part of a row, the same for every row. Where no tile is left it reads another's, and writes nothing.
struct Part {
  int first;  // of the lane's values where they wait in shared memory, chunk c kChunk * c behind it; in f32 rows too
  int lane;   // of the team
  int segment;
  bool exists, wide, of_int8, is_signed;
  float factor;  // of the extreme value, to the step; not of int8
  int codes_at;  // the lane's first, from the beginning of the record
  bool begins;   // writes the step
};
// The first of the lane's values in a row.
template <int kRun>
__device__ __forceinline__ int first_in_row(const Part& p) {
  return p.first + (kRun - 4) * p.lane;
}
// seventh: clip / 7.
template <int kRun = 4>
__device__ __forceinline__ Part part_at(const ProduceTask& t, const RowCut& cut, float seventh,
                                        int tile) {
  const int tiles = cut.tiles[0] + cut.tiles[1];
  Part p;
  p.exists = tile < tiles;
  tile = min(tile, tiles - 1);
  p.lane = static_cast<int>(threadIdx.x) % kTeam;
  p.first = tile * kTile + 4 * p.lane;
  p.segment = tile < cut.tiles[0] ? 0 : 1;
  const InputSegment& s = t.y.at[p.segment];
  const int of_segment = tile - (p.segment == 0 ? 0 : cut.tiles[0]);
  p.wide = cut.wide[p.segment] != 0;
  p.of_int8 = s.scaling == Scaling::kInt8;
  p.is_signed = s.scaling == Scaling::kInt4Signed;
  p.factor = p.is_signed ? t.clip * -0.125f : seventh;
  p.codes_at = s.codes_at + of_segment * kTile + kRun * p.lane;
  p.begins = p.exists && p.lane == 0 && (of_segment == 0 || !p.wide);
  return p;
}

__device__ __forceinline__ void put_four(Values& v, int c, const float4& four) {
  v.at[c][0] = four.x, v.at[c][1] = four.y, v.at[c][2] = four.z, v.at[c][3] = four.w;
}
__device__ __forceinline__ void get_four(Values& v, int c, const float* from) {
  put_four(v, c, *reinterpret_cast<const float4*>(from));
}

// ---- the transform: all blocks are whole and of one length

template <int kDistance, int kRun>
__device__ __forceinline__ void whole_butterfly(Values& v, int lane) {
  if constexpr (kDistance < kRun || kDistance >= kTeam * kRun) {
    constexpr int kStep = kDistance < kRun ? kDistance : kDistance / kTeam;
    float* at = &v.at[0][0];
#pragma unroll
    for (int i = 0; i < 4 * kChunks; ++i) {
      if ((i & kStep) != 0) continue;
      const float a = at[i], b = at[i + kStep];
      at[i] = a + b;
      at[i + kStep] = a - b;
    }
  } else {
    constexpr int kLanes = kDistance / kRun;
    const float sign = (lane & kLanes) != 0 ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < 4 * kChunks; ++i) {
      float& x = v.at[i / 4][i % 4];
      x = fmaf(sign, x, __shfl_xor_sync(kAllLanes, x, kLanes));
    }
  }
}
// kBlock: the block's length, or 0: any.
template <int kBlock, int kRun>
__device__ __forceinline__ void whole_butterflies(Values& v, int lane, int block) {
  if constexpr (kBlock != 0) block = kBlock;
  whole_butterfly<1, kRun>(v, lane);
  if (block > 2) whole_butterfly<2, kRun>(v, lane);
  asm volatile("" : "+r"(lane));
  if (block > 4) whole_butterfly<4, kRun>(v, lane);
  if (block > 8) whole_butterfly<8, kRun>(v, lane);
  if (block > 16) whole_butterfly<16, kRun>(v, lane);
  if (block > 32) whole_butterfly<32, kRun>(v, lane);
  if (block > 64) whole_butterfly<64, kRun>(v, lane);
}
// Of the first segment's tiles. Those of the second wait in shared memory, `kept` [its size], while their warps go
// through the same motions.
template <int kRun = 4>
__device__ __forceinline__ void quick_transform(Values& v, const Part& p, int block,
                                                const InputView& y, float* kept) {
  if (block < 2) return;
  if (p.segment != 0 && p.exists)
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
      store_four(kept + (p.first - y.at[0].size) + c * kChunk, v.at[c]);
  if (block == kTile)
    whole_butterflies<kTile, kRun>(v, p.lane, block);
  else
    whole_butterflies<0, kRun>(v, p.lane, block);
  const float factor = hadamard_factor(block);
#pragma unroll
  for (int i = 0; i < 4 * kChunks; ++i) v.at[i / 4][i % 4] *= factor;
  if (p.segment == 0 || !p.exists) return;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) get_four(v, c, kept + (p.first - y.at[0].size) + c * kChunk);
}

// ---- keys (extreme_key) and steps

// Of this lane's values, 0 where there is no tile. The sign is right where the segment's steps have one.
__device__ __forceinline__ uint32_t quick_key(const Values& v, const Part& p) {
  const auto& at = v.at;
  float high[kChunks], low[kChunks];
  if (__any_sync(kAllLanes, p.is_signed) == 0) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
      high[c] = max_or_nan(max_or_nan(fabsf(at[c][0]), fabsf(at[c][1])),
                           max_or_nan(fabsf(at[c][2]), fabsf(at[c][3])));
    const float most = max_or_nan(max_or_nan(high[0], high[1]), max_or_nan(high[2], high[3]));
    return p.exists ? magnitude_bits(most) << 1 : 0u;
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    high[c] = max_or_nan(max_or_nan(at[c][0], at[c][1]), max_or_nan(at[c][2], at[c][3]));
    low[c] = min_or_nan(min_or_nan(at[c][0], at[c][1]), min_or_nan(at[c][2], at[c][3]));
  }
  const float top = max_or_nan(max_or_nan(high[0], high[1]), max_or_nan(high[2], high[3]));
  const float end = min_or_nan(min_or_nan(low[0], low[1]), min_or_nan(low[2], low[3]));
  const uint32_t most = magnitude_bits(max_or_nan(fabsf(top), fabsf(end)));
  return p.exists ? most << 1 | (top >= -end ? 1u : 0u) : 0u;
}

struct Step {
  float step, inv;
  bool regular;  // codes are the rounded products
};
__device__ __forceinline__ bool is_between(float x, float low, float high) {
  return magnitude_bits(x) - __float_as_uint(low) <= __float_as_uint(high) - __float_as_uint(low);
}
// Of any x, through f64, whose second rounding is innocent: no quotient of two f32 lies that near the middle of two.
__device__ __forceinline__ float divided_by_127(float x) {
  constexpr double kPer127 = 1.0 / 127.0;
  const double estimate = x * kPer127;
  return static_cast<float>(fma(fma(-127.0, estimate, static_cast<double>(x)), kPer127, estimate));
}
__device__ __forceinline__ float reciprocal(float x) {
  const double seed = reciprocal_seed(x), off = fma(-static_cast<double>(x), seed, 1.0);
  const auto result = static_cast<float>(fma(seed, fma(off, off, off), seed));
  return x == 0.0f ? __uint_as_float(kInfinityBits | (__float_as_uint(x) & 0x80000000u)) : result;
}
// The bits of input_step, signed_step and 1 / step. Of numbers that are neither very large nor very small a quotient is
// the estimate, corrected once: by 127 it was compared with the division for all mantissas, and 1 / x is what the
// division compiles to.
__device__ __forceinline__ Step quick_step(const Part& p, uint32_t key) {
  constexpr float kPer127 = 1.0f / 127.0f;
  const float absmax = __uint_as_float(key >> 1);
  const float estimate = absmax * kPer127;
  const float of_int8 = fmaf(fmaf(-127.0f, estimate, absmax), kPer127, estimate);
  const float extreme = p.is_signed && (key & 1u) == 0 ? -absmax : absmax;
  Step s;
  s.step = p.of_int8 ? of_int8 : extreme * p.factor;
  float seed;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(seed) : "f"(s.step));
  s.inv = fmaf(seed, fmaf(-s.step, seed, 1.0f), seed);
  s.regular = is_between(absmax, 0x1p-90f, 0x1p+90f) && is_between(s.step, 0x1p-100f, 0x1p+100f);
  if (__all_sync(kAllLanes, s.regular || !p.exists) == 0 && !s.regular) [[unlikely]] {
    s.step = p.of_int8 ? divided_by_127(absmax) : extreme * p.factor;
    if (key >> 1 == 0) s.step = 1.0f;
    if (key >> 1 >= kInfinityBits)
      s.step = p.is_signed ? __uint_as_float(0x7fffffffu) : quiet_nan();  // a product's NaN
    s.inv = reciprocal(s.step);
  }
  return s;
}

// ---- codes

__device__ __forceinline__ Codes quick_codes(const Values& v, const Part& p, const Step& s) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  Codes codes;
  if (__all_sync(kAllLanes, s.regular || !p.exists) == 0) [[unlikely]] {
    const Steps steps = {{s.step, s.step, s.step, s.step}, {s.inv, s.inv, s.inv, s.inv}};
    return codes_of(v, steps, p.of_int8 ? Scaling::kInt8 : Scaling::kInt4);
  }
  if (__all_sync(kAllLanes, p.of_int8) != 0) {  // never beyond 127
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      uint32_t code[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) code[i] = __float_as_uint(v.at[c][i] * s.inv + kRound);
      codes.at[c] = pack_codes(code[0], code[1], code[2], code[3]);
    }
    return codes;
  }
  const float low = p.of_int8 ? -127.0f : -8.0f, high = p.of_int8 ? 127.0f : 7.0f;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) codes.at[c] = rounded_codes(v.at[c], s.inv, low, high);
  return codes;
}

// Writes codes, the step, and the sum of a tile's codes where the segment is one tile. Returns the sum of this lane's,
// 0 where there is no tile.
template <int kRun = 4>
__device__ __forceinline__ int quick_write(const InputView& y, const Part& p, const Values& v,
                                           const Step& s, uint8_t* record) {
  const Codes codes = quick_codes(v, p, s);
  int sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) sum = __dp4a(static_cast<int>(codes.at[c]), 0x01010101, sum);
  if (p.exists)
#pragma unroll
    for (int c = 0; c < kChunks; c += kRun / 4) {
      uint8_t* to = record + p.codes_at + chunk_at<kRun>(c);
      if constexpr (kRun == 4)
        *reinterpret_cast<uint32_t*>(to) = codes.at[c];
      else
        *reinterpret_cast<uint2*>(to) = make_uint2(codes.at[c], codes.at[c + 1]);
    }
  const InputSegment& of = y.at[p.segment];
  if (p.begins)
    reinterpret_cast<float*>(record + of.scales_at)[(p.codes_at - of.codes_at) / kTile] = s.step;
  const bool counts = p.of_int8 && !p.wide;
  if (__any_sync(kAllLanes, counts) != 0) {
    const int tile_sum = team_sum(sum);
    if (counts && p.begins) *reinterpret_cast<int32_t*>(record + of.sum_at) = tile_sum;
  }
  return p.exists ? sum : 0;
}

// ---- of the whole row, for wide segments: a set for this row and one for the row before

struct WideShared {
  uint32_t most[2][2][kWarp];
  int sums[2][2][kWarp];
};
__device__ __forceinline__ int warp_of_block() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ __forceinline__ int warps_of_block() { return static_cast<int>(blockDim.x) / kWarp; }
__device__ __forceinline__ int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarp; }

// Of lane i, what warp i has put there; nothing in the lanes behind.
template <typename T>
__device__ __forceinline__ T of_warps(const T (&values)[kWarp], T nothing, int warps) {
  const int lane = lane_of_warp();
  return lane < warps ? values[lane] : nothing;
}

// `warp` is one of those `warps` that share the row: the block, unless said otherwise.
// keys: of this thread's tiles, of both segments.
__device__ __forceinline__ void put_keys(const RowCut& cut, uint2 keys, int set, WideShared& shared,
                                         int warp = warp_of_block()) {
  const uint32_t of[2] = {keys.x, keys.y};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (cut.wide[i] == 0) continue;
    const uint32_t most = __reduce_max_sync(kAllLanes, of[i]);
    if (lane_of_warp() == 0) shared.most[set][i][warp] = most;
  }
}
__device__ __forceinline__ uint2 get_keys(const RowCut& cut, int set, const WideShared& shared,
                                          int warps = warps_of_block()) {
  uint2 keys = {0, 0};
  if (cut.wide[0] != 0)
    keys.x = __reduce_max_sync(kAllLanes, of_warps(shared.most[set][0], 0u, warps));
  if (cut.wide[1] != 0)
    keys.y = __reduce_max_sync(kAllLanes, of_warps(shared.most[set][1], 0u, warps));
  return keys;
}
__device__ __forceinline__ void put_sums(const RowCut& cut, const int (&sums)[2], int set,
                                         WideShared& shared, int warp = warp_of_block()) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (cut.wide[i] == 0) continue;
    const int sum = __reduce_add_sync(kAllLanes, sums[i]);
    if (lane_of_warp() == 0) shared.sums[set][i][warp] = sum;
  }
}
// By the first warp, behind a barrier.
__device__ __forceinline__ void write_wide_sums(const InputView& y, const RowCut& cut, int set,
                                                const WideShared& shared, uint8_t* row,
                                                int warp = warp_of_block(),
                                                int warps = warps_of_block()) {
  if (warp != 0) return;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (cut.wide[i] == 0 || y.at[i].scaling != Scaling::kInt8) continue;
    const int sum = __reduce_add_sync(kAllLanes, of_warps(shared.sums[set][i], 0, warps));
    if (lane_of_warp() == 0) *reinterpret_cast<int32_t*>(row + y.at[i].sum_at) = sum;
  }
}

}  // namespace atom::backend::cuda::hopper
