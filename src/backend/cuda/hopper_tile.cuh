// A tile of a linear's input: 128 values of one segment in the registers of a team of 8 lanes, 16 each, and what
// producers do with it: the Hadamard transform, the largest magnitudes of its groups, codes. All lanes of a warp call
// together, each with its team's tile; a tile without values does no harm. What does not exist in a tile is zero.
#pragma once

#include "backend/cuda/hopper_producers.h"
#include "backend/cuda/input_step.cuh"
#include "backend/cuda/team.cuh"

namespace atom::backend::cuda::hopper {

inline constexpr int kTeam = 8;    // lanes
inline constexpr int kChunks = 4;  // of a tile: 32 values, four of each lane
inline constexpr int kChunk = 32;  // values
inline constexpr int kTeams = kWarp / kTeam;

// Chunk c of the lane's values: values 32 c + 4 lane .. + 3 of the tile.
struct Values {
  float at[kChunks][4];
};

struct Tile {
  int segment;
  int first;  // of the segment
  int valid;  // values that exist, a multiple of 4
  int lane;   // of the team

  __device__ bool has(int chunk) const { return chunk * kChunk + 4 * lane < valid; }
  // This lane's values of a chunk begin there, from the beginning of the segment.
  __device__ int at(int chunk) const { return first + chunk * kChunk + 4 * lane; }
};
__device__ __forceinline__ Tile tile_at(const InputView& y, const RowCut& cut, int index) {
  const int before = cut.tiles[0];
  Tile tile;
  tile.segment = index < before ? 0 : 1;
  tile.first = (index - (tile.segment == 0 ? 0 : before)) * kTile;
  tile.valid = min(kTile, max(0, y.at[tile.segment].size - tile.first));
  tile.lane = static_cast<int>(threadIdx.x) % kTeam;
  return tile;
}
// From the beginning of the row to the segment's.
__device__ __forceinline__ int segment_begin(const InputView& y, const Tile& tile) {
  return tile.segment == 0 ? 0 : y.at[0].size;
}

// How a load goes: a table that no kernel writes, what the kernel before wrote and others read, what nobody reads
// again.
struct Constant {
  __device__ static float4 load(const float4* from) { return __ldg(from); }
};
struct FromL2 {
  __device__ static float4 load(const float4* from) { return __ldcg(from); }
};
struct Once {
  __device__ static float4 load(const float4* from) { return __ldcs(from); }
};
// The lane's values of a tile, zeros where nothing is. `from` is that of the segment's beginning.
template <typename How>
__device__ __forceinline__ void load_tile(Values& to, const float* from, const Tile& tile) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    float4 v = make_float4(0, 0, 0, 0);
    if (tile.has(c)) v = How::load(reinterpret_cast<const float4*>(from + tile.at(c)));
    to.at[c][0] = v.x, to.at[c][1] = v.y, to.at[c][2] = v.z, to.at[c][3] = v.w;
  }
}
__device__ __forceinline__ void store_four(float* to, const float (&v)[4]) {
  *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
}

__device__ __forceinline__ uint32_t team_max(uint32_t value, int lanes) {
#pragma unroll
  for (int distance = 1; distance < kTeam; distance *= 2)
    if (distance < lanes) value = max(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}
template <typename T>
__device__ __forceinline__ T team_sum(T value) {
#pragma unroll
  for (int distance = 1; distance < kTeam; distance *= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// ---- the block Hadamard transform (docs/formats.md, section 5)

// The length of the block that holds value i of a tile with `valid` values; 1 behind them. What whole blocks leave is
// cut into powers of two, the largest first: i lies in that of the highest bit in which i and `valid` differ.
__device__ __forceinline__ int block_length(int i, int valid, int block) {
  if (i >= valid) return 1;
  return i < (valid & -block) ? block : 1 << (31 - __clz(i ^ valid));
}

// The sums and differences of values kDistance apart, in blocks that are longer. Blocks have at least four values, or
// two each.
template <int kDistance>
__device__ __forceinline__ void butterfly(Values& v, const int (&length)[kChunks], int lane) {
  if constexpr (kDistance < 4 || kDistance >= kChunk) {
    constexpr int kStep = kDistance < 4 ? kDistance : kDistance / kChunk * 4;
    float* at = &v.at[0][0];
#pragma unroll
    for (int i = 0; i < 4 * kChunks; ++i) {
      if ((i & kStep) != 0 || length[i / 4] <= kDistance) continue;
      const float a = at[i], b = at[i + kStep];
      at[i] = a + b;
      at[i + kStep] = a - b;
    }
  } else {
    constexpr int kLanes = kDistance / 4;
    const float sign = (lane & kLanes) != 0 ? -1.0f : 1.0f;
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float other = __shfl_xor_sync(kAllLanes, v.at[c][i], kLanes);
        if (length[c] > kDistance) v.at[c][i] = fmaf(sign, v.at[c][i], other);
      }
  }
}

// 1 / sqrt(length), length a power of two.
__device__ __forceinline__ float hadamard_factor(int length) {
  const int power = 31 - __clz(length);
  return __uint_as_float(static_cast<uint32_t>(127 - power / 2) << 23) *
         (power % 2 != 0 ? 0.70710678118654752f : 1.0f);
}

// Of the first segment's tiles; block is a power of two up to 128, or 0.
__device__ __forceinline__ void transform_tile(Values& v, const Tile& tile, int block) {
  if (block < 2) return;
  int length[kChunks];
  const int valid = tile.segment == 0 ? tile.valid : 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    length[c] = block_length(c * kChunk + 4 * tile.lane, valid, block);
  butterfly<1>(v, length, tile.lane);
  if (block > 2) butterfly<2>(v, length, tile.lane);
  if (block > 4) butterfly<4>(v, length, tile.lane);
  if (block > 8) butterfly<8>(v, length, tile.lane);
  if (block > 16) butterfly<16>(v, length, tile.lane);
  if (block > 32) butterfly<32>(v, length, tile.lane);
  if (block > 64) butterfly<64>(v, length, tile.lane);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const float factor = hadamard_factor(length[c]);
#pragma unroll
    for (int i = 0; i < 4; ++i) v.at[c][i] *= factor;
  }
}

// ---- scales

// Of every chunk, the extreme key of this lane's values.
struct Keys {
  uint32_t at[kChunks];
};
__device__ __forceinline__ Keys keys_of(const Values& v) {
  Keys keys;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    keys.at[c] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) keys.at[c] = max(keys.at[c], extreme_key(v.at[c][i]));
  }
  return keys;
}
__device__ __forceinline__ uint32_t largest(const Keys& k) {
  return max(max(k.at[0], k.at[1]), max(k.at[2], k.at[3]));
}
// Of every chunk, the extreme key of the group that holds this lane's values. Lanes of different teams may have
// groups of different length: 16, 32, 64, or 128 and more for the whole tile.
__device__ __forceinline__ void spread_keys(Keys& k, int group) {
  if (group >= 64)
    k.at[0] = k.at[1] = max(k.at[0], k.at[1]), k.at[2] = k.at[3] = max(k.at[2], k.at[3]);
  if (group >= 128) k.at[0] = k.at[1] = k.at[2] = k.at[3] = max(k.at[0], k.at[2]);
  const bool all_tiles = __all_sync(kAllLanes, group >= 128) != 0;
  if (all_tiles) {
    k.at[0] = k.at[1] = k.at[2] = k.at[3] = team_max(k.at[0], kTeam);
    return;
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const uint32_t half = team_max(k.at[c], kTeam / 2);
    const uint32_t other = __shfl_xor_sync(kAllLanes, half, kTeam / 2);
    k.at[c] = group > 16 ? max(half, other) : half;
  }
}

// ---- codes

// Four s8 codes from the lowest byte on.
__device__ __forceinline__ uint32_t pack_codes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}
// inv is finite, and so is v. The sum's low byte is the rounded value.
__device__ __forceinline__ uint32_t rounded_codes(const float (&v)[4], float inv, float low,
                                                  float high) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  uint32_t code[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    code[i] = __float_as_uint(fminf(fmaxf(v[i] * inv, low), high) + kRound);
  return pack_codes(code[0], code[1], code[2], code[3]);
}
__device__ __forceinline__ float step_of(const InputSegment& s, uint32_t key, float clip,
                                         float global) {
  const float absmax = absmax_of_key(key);
  if (s.scaling == Scaling::kInt4Signed)
    return signed_step((key & 1u) != 0 && !isnan(absmax) ? absmax : -absmax, clip);
  return input_step(s.scaling, absmax, clip, global);
}

__device__ __forceinline__ void write_values(const InputSegment& s, const Tile& tile,
                                             const Values& v, uint8_t* row) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    if (tile.has(c)) store_four(reinterpret_cast<float*>(row + s.values_at) + tile.at(c), v.at[c]);
}

// Value c of four registers, which have no addresses.
template <typename T>
__device__ __forceinline__ T pick(const T (&at)[kChunks], int c) {
  T value = at[0];
#pragma unroll
  for (int i = 1; i < kChunks; ++i) value = c == i ? at[i] : value;
  return value;
}

// Of every chunk's group, and the reciprocals. `one`: all chunks have the same.
struct Steps {
  float step[kChunks], inv[kChunks];
};
__device__ __forceinline__ Steps steps_of(const InputSegment& s, const Keys& keys, bool one,
                                          uint32_t row_key, float clip) {
  const float global = s.scaling == Scaling::kNvfp4 ? nvfp4_global(absmax_of_key(row_key)) : 1.0f;
  Steps steps = {};
#pragma unroll 1
  for (int c = 0; c < (one ? 1 : kChunks); ++c) {  // a loop: the code is long
    const float step = step_of(s, pick(keys.at, c), clip, global), inv = 1.0f / step;
#pragma unroll
    for (int i = 0; i < kChunks; ++i)
      if (i >= c) steps.step[i] = step, steps.inv[i] = inv;
  }
  return steps;
}

// Of every chunk, four codes.
struct Codes {
  uint32_t at[kChunks];
};
__device__ __forceinline__ Codes codes_of(const Values& v, const Steps& steps, Scaling scaling) {
  Codes codes = {};
  bool quick = scaling <= Scaling::kInt4Signed;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) quick &= magnitude_bits(steps.inv[c]) < kInfinityBits;
  if (quick) {
    const bool is_int8 = scaling == Scaling::kInt8;
    const float low = is_int8 ? -127.0f : -8.0f, high = is_int8 ? 127.0f : 7.0f;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) codes.at[c] = rounded_codes(v.at[c], steps.inv[c], low, high);
    return codes;
  }
#pragma unroll 1
  for (int c = 0; c < kChunks; ++c) {
    const float inv = pick(steps.inv, c);
    uint32_t code[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float of_chunk[kChunks] = {v.at[0][i], v.at[1][i], v.at[2][i], v.at[3][i]};
      code[i] = static_cast<uint32_t>(input_code(scaling, pick(of_chunk, c), inv));
    }
    const uint32_t packed = pack_codes(code[0], code[1], code[2], code[3]);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) codes.at[i] = i == c ? packed : codes.at[i];
  }
  return codes;
}

// Writes codes and scales. Returns the sum of this lane's codes.
__device__ __forceinline__ int write_codes(const InputSegment& s, const Tile& tile,
                                           const Codes& codes, const Steps& steps, uint8_t* row) {
  const int padded = (tile.first + tile.valid + kCodeRun - 1) / kCodeRun * kCodeRun;
  auto* scales = reinterpret_cast<float*>(row + s.scales_at);
  int sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = tile.at(c);
    if (at >= padded) continue;
    *reinterpret_cast<uint32_t*>(row + s.codes_at + at) = codes.at[c];
    sum = __dp4a(static_cast<int>(codes.at[c]), 0x01010101, sum);
    const bool begins = s.groups == 1 ? at == 0 : (at & (s.group - 1)) == 0 && tile.has(c);
    if (begins) scales[s.groups == 1 ? 0 : at >> (31 - __clz(s.group))] = steps.step[c];
  }
  return sum;
}

// The record of a tile: its values, or codes, scales and, where the segment is not wide, their sum. row_keys: of the
// segments, where they are wide. Returns the sum of this lane's codes.
__device__ __forceinline__ int write_tile(const ProduceTask& t, const RowCut& cut, const Tile& tile,
                                          const Values& v, uint2 row_keys, uint8_t* row) {
  const InputSegment& s = t.y.at[tile.segment];
  const uint32_t row_key = tile.segment == 0 ? row_keys.x : row_keys.y;
  const bool wide = cut.wide[tile.segment] != 0, of_row = s.groups == 1 && wide;
  Keys keys = {};
  if (__all_sync(kAllLanes, of_row) == 0) {
    keys = keys_of(v);
    spread_keys(keys, s.group == 0 || s.groups == 1 ? kTile : s.group);
  }
  if (of_row) keys.at[0] = keys.at[1] = keys.at[2] = keys.at[3] = row_key;
  int sum = 0;
  if (tile.valid > 0 && s.group == 0) write_values(s, tile, v, row);
  if (tile.valid > 0 && s.group != 0) {
    const Steps steps = steps_of(s, keys, s.groups == 1 || s.group == kTile, row_key, t.clip);
    sum = write_codes(s, tile, codes_of(v, steps, s.scaling), steps, row);
  }
  const int tile_sum = team_sum(sum);
  if (tile.valid > 0 && tile.lane == 0 && s.group != 0 && s.scaling == Scaling::kInt8 && !wide)
    *reinterpret_cast<int32_t*>(row + s.sum_at) = tile_sum;
  return sum;
}

// ---- of the whole row, for wide segments

struct RowShared {
  uint32_t most[2][kWarp];
  int sums[2][kWarp];
};
__device__ __forceinline__ void begin_keys(RowShared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (threadIdx.x % kWarp == 0) shared.most[0][warp] = shared.most[1][warp] = 0;
}
// The warp's tiles; `counts`: this lane's does.
__device__ __forceinline__ void add_keys(const Tile& tile, const Values& v, bool counts,
                                         RowShared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const uint32_t key = counts ? largest(keys_of(v)) : 0u;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t most = __reduce_max_sync(kAllLanes, tile.segment == i ? key : 0u);
    if (threadIdx.x % kWarp == 0) shared.most[i][warp] = max(shared.most[i][warp], most);
  }
}
// Of both segments, the largest key of the row.
__device__ __forceinline__ uint2 row_keys(const RowShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool exists = lane < static_cast<int>(blockDim.x) / kWarp;
  __syncthreads();
  return {__reduce_max_sync(kAllLanes, exists ? shared.most[0][lane] : 0u),
          __reduce_max_sync(kAllLanes, exists ? shared.most[1][lane] : 0u)};
}
// Writes the sums of wide segments' codes; sums: this thread's, of both segments.
__device__ __forceinline__ void write_sums(const InputView& y, const RowCut& cut,
                                           const int (&sums)[2], uint8_t* row, RowShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int sum = __reduce_add_sync(kAllLanes, sums[i]);
    if (lane == 0) shared.sums[i][warp] = sum;
  }
  __syncthreads();
  if (warp != 0) return;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bool exists = lane < static_cast<int>(blockDim.x) / kWarp;
    const int sum = __reduce_add_sync(kAllLanes, exists ? shared.sums[i][lane] : 0);
    if (lane == 0 && cut.wide[i] != 0 && y.at[i].scaling == Scaling::kInt8)
      *reinterpret_cast<int32_t*>(row + y.at[i].sum_at) = sum;
  }
}

// Of a row whose tiles are in the registers of a block, one a team.
__device__ __forceinline__ void finish_row(const ProduceTask& t, const RowCut& cut,
                                           const Tile& tile, const Values& v, RowShared& shared) {
  uint8_t* row = t.y.data + int64_t{blockIdx.x} * t.y.row_bytes;
  if (t.y.at[0].group == 0 && t.y.at[1].group == 0) {
    if (tile.valid > 0) write_values(t.y.at[tile.segment], tile, v, row);
    return;
  }
  const bool wide = cut.wide[0] != 0 || cut.wide[1] != 0;
  uint2 keys = {0, 0};
  if (wide) {
    begin_keys(shared);
    add_keys(tile, v, true, shared);
    keys = row_keys(shared);
  }
  const int sum = write_tile(t, cut, tile, v, keys, row);
  if (wide)
    write_sums(t.y, cut, {tile.segment == 0 ? sum : 0, tile.segment == 0 ? 0 : sum}, row, shared);
}

}  // namespace atom::backend::cuda::hopper
