// Attention of a step's rows to K and V as stored. A block takes one row and one KV head with all query heads that
// share it; it walks over the positions in tiles of 32 with an online softmax in f32. Tiles begin at multiples of 32,
// whatever the pages and the step, so that a row's result depends on its own position and cache alone.
//
// Bound by the reads of the cache and, in a prefill, by reading it anew for every row.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/shared_limit.cuh"

namespace atom::backend::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kTile = kWarp;  // positions: one a lane in the softmax

// Dynamic shared memory, in floats. `group` query heads share the KV head.
struct Shared {
  float* q;       // [group, head_dim]
  float* sums;    // [group, head_dim]: weights times values so far
  float* tile;    // [kTile, head_dim + 1]: K, then V, of the tile's positions
  float* scores;  // [group, kTile]: scores, then weights
  float* most;    // [group]: largest score so far
  float* mass;    // [group]: sum of weights so far
  float* factor;  // [group]: by which the tile's maximum shrinks what was summed before
};

__device__ Shared shared_of(float* memory, int group, int head_dim) {
  Shared s;
  s.q = memory;
  s.sums = s.q + group * head_dim;
  s.tile = s.sums + group * head_dim;
  s.scores = s.tile + kTile * (head_dim + 1);
  s.most = s.scores + group * kTile;
  s.mass = s.most + group;
  s.factor = s.mass + group;
  return s;
}

struct Here {
  RowPlace place;
  int kv_head;
  int own;     // first position that is read in int8; behind the row's own without open pages
  int oldest;  // first position that is read at all
  int group;   // query heads
};

struct Source {
  KvRow row;
  int bits;
};
__device__ Source source_of(const AttentionTask& t, const Here& here, int side, int position) {
  if (position < here.own)
    return {cached_row(t, here.place, side, here.kv_head, position), t.cache.side[side].bits};
  if (position < here.place.first_position)
    return {open_row(t, here.place, side, here.kv_head, position), 8};
  const int row = here.place.first_row + position - here.place.first_position;
  return {fresh_row(t, row, side, here.kv_head), 8};
}

// Vectors of `count` positions as f32, lo + step * code; each warp takes every fourth.
__device__ void load_tile(const AttentionTask& t, const Here& here, int side, int first, int count,
                          float* tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int p = static_cast<int>(threadIdx.x) / kWarp; p < count; p += kWarps) {
    const Source from = source_of(t, here, side, first + p);
    float* to = tile + p * (t.head_dim + 1);
    float lo = 0, step = 0;
    if (from.bits < 16) {
      lo = f16_to_f32(load_u16(from.row.params));
      step = f16_to_f32(load_u16(from.row.params + 2));
    }
    for (int i = lane; i < t.head_dim; i += kWarp) {
      const uint8_t* codes = from.row.codes;
      if (from.bits == 32)
        to[i] = value_at(codes, i, Element::kF32);
      else if (from.bits == 16)
        to[i] = value_at(codes, i, Element::kF16);
      else if (from.bits == 8)
        to[i] = lo + step * static_cast<float>(codes[i]);
      else
        to[i] = lo + step * static_cast<float>((codes[i / 2] >> (4 * (i & 1))) & 15);
    }
  }
}

// Positions before `skip` of the tile are not read: their weight is 0.
__device__ void score_tile(const AttentionTask& t, const Here& here, int skip, int count,
                           const Shared& s) {
  const float scale = static_cast<float>(1.0 / sqrt(static_cast<double>(t.head_dim)));
  for (int i = static_cast<int>(threadIdx.x); i < here.group * kTile; i += kThreads) {
    const int p = i % kTile;
    if (p >= count) continue;
    if (p < skip) {
      s.scores[i] = -INFINITY;
      continue;
    }
    const float* q = s.q + i / kTile * t.head_dim;
    const float* k = s.tile + p * (t.head_dim + 1);
    float score = 0;
    for (int d = 0; d < t.head_dim; ++d) score = fmaf(q[d], k[d], score);
    s.scores[i] = score * scale;
  }
}

// Scores to weights relative to the largest score so far. A NaN score makes the mass NaN, and with it the output.
__device__ void weigh_tile(const Here& here, int count, const Shared& s) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int h = static_cast<int>(threadIdx.x) / kWarp; h < here.group; h += kWarps) {
    float* scores = s.scores + h * kTile;
    const float score = lane < count ? scores[lane] : -INFINITY;
    const float before = s.most[h], mass = s.mass[h];
    const float most = fmaxf(before, warp_reduce(score, Max()));
    const float weight = lane < count ? expf(score - most) : 0.0f;
    const float factor = before == most ? 1.0f : expf(before - most);
    const float tile_mass = warp_reduce(weight, Sum());
    scores[lane] = weight;
    __syncwarp();  // every lane has read most and mass
    if (lane == 0) {
      s.most[h] = most;
      s.mass[h] = fmaf(mass, factor, tile_mass);
      s.factor[h] = factor;
    }
  }
}

__device__ void add_tile(const AttentionTask& t, const Here& here, int skip, int count,
                         const Shared& s) {
  for (int i = static_cast<int>(threadIdx.x); i < here.group * t.head_dim; i += kThreads) {
    const int h = i / t.head_dim, d = i % t.head_dim;
    float sum = s.sums[i] * s.factor[h];
    for (int p = skip; p < count; ++p)
      sum = fmaf(s.scores[h * kTile + p], s.tile[p * (t.head_dim + 1) + d], sum);
    s.sums[i] = sum;
  }
}

// Grid: rows x KV heads.
__global__ void attend_kernel(AttentionTask t) {
  extern __shared__ float memory[];
  const int row = static_cast<int>(blockIdx.x), tid = static_cast<int>(threadIdx.x);
  Here here{t.places[row], static_cast<int>(blockIdx.y), 0, 0, t.heads / t.kv_heads};
  const int position = here.place.position;
  here.oldest = t.window > 0 ? max(0, position + 1 - t.window) : 0;
  here.own = t.has_open_page ? position - position % t.cache.tokens : position + 1;
  const Shared s = shared_of(memory, here.group, t.head_dim);

  for (int h = tid / kWarp; h < here.group; h += kWarps)
    turn_head(t, head_vector(t, row, here.kv_head * here.group + h), position,
              s.q + h * t.head_dim);
  for (int i = tid; i < here.group * t.head_dim; i += kThreads) s.sums[i] = 0;
  for (int h = tid; h < here.group; h += kThreads) {
    s.most[h] = -INFINITY;
    s.mass[h] = 0;
  }
  for (int first = here.oldest / kTile * kTile; first <= position; first += kTile) {
    const int count = min(kTile, position + 1 - first), skip = max(0, here.oldest - first);
    load_tile(t, here, kKey, first, count, s.tile);
    __syncthreads();
    score_tile(t, here, skip, count, s);
    __syncthreads();
    weigh_tile(here, count, s);
    load_tile(t, here, kValue, first, count, s.tile);
    __syncthreads();
    add_tile(t, here, skip, count, s);
    __syncthreads();
  }
  float* y = t.y + (int64_t{row} * t.heads + here.kv_head * here.group) * t.head_dim;
  for (int i = tid; i < here.group * t.head_dim; i += kThreads)
    y[i] = s.sums[i] / s.mass[i / t.head_dim];
}

}  // namespace

uint64_t attend_shared_bytes(const AttentionTask& task) {
  const int group = task.heads / task.kv_heads, d = task.head_dim;
  const int floats = 2 * group * d + kTile * (d + 1) + group * (kTile + 3);  // as in Shared
  return static_cast<uint64_t>(floats) * sizeof(float);
}

Status launch_attend(const AttentionTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  const uint64_t bytes = attend_shared_bytes(task);
  const Status status = allow_shared(attend_kernel, static_cast<int>(bytes));
  if (status != 0) return status;
  const dim3 grid(task.rows, task.kv_heads);
  attend_kernel<<<grid, kThreads, bytes, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda
