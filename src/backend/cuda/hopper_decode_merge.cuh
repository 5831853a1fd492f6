// Partial results of one row and head, added up: those of the warps of a block in shared memory, then those of
// several blocks (pieces) by the one with the end of the row. Both go in the order of the plan.
//
// Pieces go through global memory without counters or fences: a word of all ones is one that nobody has written yet. The
// block that adds them up reads until there is none, and puts all ones back for the next launch. The blocks it waits for
// stand before it in the grid, and so have begun.
#pragma once

#include "backend/cuda/hopper_decode_feed.cuh"

namespace atom::backend::cuda::hopper::decode {

inline constexpr int kThreads = kDecodeWarps * kLanes;

template <class C>
struct alignas(128) Shared {
  uint8_t ring[kDecodeWarps]
              [C::kRing];  // a warp's; then the partial result of its last segment (slot 2 w + 1)
  float first[kDecodeWarps][C::kSlotFloats];  // of its first segment (slot 2 w)
  uint64_t filled[kDecodeWarps][C::kStages][2];
  DecodeMerge merges[C::kMergesAtHand];

  __device__ float* slot(int i) {
    return i % 2 == 0 ? first[i / 2] : reinterpret_cast<float*>(ring[i / 2]);
  }
};

constexpr uint32_t kNotYet = 0xffffffffu;  // no result of arithmetic is a NaN of all ones
__device__ inline bool is_there(float x) { return __float_as_uint(x) != kNotYet; }
__device__ inline bool is_there(const float4& v) {
  return is_there(v.x) & is_there(v.y) & is_there(v.z) & is_there(v.w);
}
__device__ inline void add_scaled(float4& sums, float by, const float4& v) {
  sums.x = fmaf(by, v.x, sums.x), sums.y = fmaf(by, v.y, sums.y);
  sums.z = fmaf(by, v.z, sums.z), sums.w = fmaf(by, v.w, sums.w);
}
__device__ inline void scale(float4& v, float by) { v.x *= by, v.y *= by, v.z *= by, v.w *= by; }

__device__ inline float4 load_floats(uint32_t at) {
  uint32_t v[4];
  load_words(v, at);
  return make_float4(__uint_as_float(v[0]), __uint_as_float(v[1]), __uint_as_float(v[2]),
                     __uint_as_float(v[3]));
}
// Over groups of kCount lanes.
template <int kCount>
__device__ float max_of(float x) {
#pragma unroll
  for (int lanes = 1; lanes < kCount; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}
template <int kCount>
__device__ float sum_of(float x) {
#pragma unroll
  for (int lanes = 1; lanes < kCount; lanes *= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

// Pieces of one head, `count` of them, `stride` floats apart.
struct Pieces {
  float* first;
  int stride, count;
};
// By a warp: their sum over the weights, four dims a lane, as soon as all are there.
template <int kDim>
__device__ void add_pieces(const Pieces& pieces, float* y) {
  constexpr int kBatch = 16;  // loads in flight
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll 1
  for (int dim = 4 * lane; dim - 4 * lane < kDim; dim += 4 * kLanes) {
    const bool used = dim < kDim;
    float most = -INFINITY, mass = 0;
    float4 sums = {0, 0, 0, 0};
#pragma unroll 1
    for (int at = 0; at < pieces.count; at += kBatch) {
      const float* from = pieces.first + at * pieces.stride;
      const int count = min(pieces.count - at, kBatch);
      // Shift and mass of one a lane, four sums of all.
      const int own = lane % kBatch;
      const float* scalars = from + min(own, count - 1) * pieces.stride + kDim;
      float2 p = load_relaxed2(scalars);
      float4 v[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        v[k] = {0, 0, 0, 0};
        if (used && k < count) v[k] = load_relaxed4(from + k * pieces.stride + dim);
      }
      while (true) {
        bool there = is_there(p.x) & is_there(p.y);
#pragma unroll
        for (int k = 0; k < kBatch; ++k) there = there & is_there(v[k]);
        if (__all_sync(~0u, there) != 0) break;
        if (!(is_there(p.x) & is_there(p.y))) p = load_relaxed2(scalars);
#pragma unroll
        for (int k = 0; k < kBatch; ++k)
          if (!is_there(v[k])) v[k] = load_relaxed4(from + k * pieces.stride + dim);
      }
      const float top = fmaxf(max_of<kBatch>(p.x), most);
      const float weight = own < count ? exp2_fast(p.x - top) : 0.0f;
      const float before = exp2_fast(most - top);
      most = top;
      const float more = sum_of<kBatch>(own < count ? weight * p.y : 0.0f);
      mass = fmaf(mass, before, more);
      scale(sums, before);
#pragma unroll
      for (int k = 0; k < kBatch; ++k) add_scaled(sums, __shfl_sync(~0u, weight, k), v[k]);
    }
    scale(sums, __fdividef(1.0f, mass));
    if (used) *reinterpret_cast<float4*>(y + dim) = sums;
  }
  __syncwarp();  // all have read
  const float none = __uint_as_float(kNotYet);
  for (int dim = 4 * lane; dim < kDim + 4; dim += 4 * kLanes)
    for (int k = 0; k < pieces.count; ++k)
      *reinterpret_cast<float4*>(pieces.first + k * pieces.stride + dim) =
          make_float4(none, none, none, none);
}

// By the block, after its warps: its partial results to pieces or rows of y, then pieces to rows.
template <class C>
class Merges {
 public:
  __device__ Merges(const DecodeTask& t, Shared<C>& shared)
      : t_(t), shared_(shared), heads_(min(t.group, C::kHeads)) {
    const int warp = static_cast<int>(threadIdx.x) / kLanes;
    index_ = quotient(warp, heads_), head_ = warp - index_ * heads_;
    more_ = quotient(kDecodeWarps, heads_), rest_ = kDecodeWarps - more_ * heads_;
    const int4 own = __ldg(reinterpret_cast<const int4*>(t.block_merges) + blockIdx.x);
    begin_ = own.x, count_ = own.y, finished_ = own.z;
  }
  // Starts to bring the first ones into shared memory.
  __device__ void load() {
    constexpr int kQuads = sizeof(DecodeMerge) / 16;
    const auto i = static_cast<int>(threadIdx.x);
    if (i >= min(count_, C::kMergesAtHand) * kQuads) return;
    copy_quad(shared_address(shared_.merges) + 16 * i,
              reinterpret_cast<const int4*>(t_.merges + begin_) + i);
  }
  __device__ void run() {
    if (count_ == 0) return;
    copies_wait();
    __syncthreads();
    add_slots();
    if (finished_ > 0) finish_rows();
  }

 private:
  static constexpr int kStride = C::kDim + 4;  // of heads

  __device__ DecodeMerge merge(int i) const {
    DecodeMerge m;
    auto* words = reinterpret_cast<int4*>(&m);
    if (i < C::kMergesAtHand) {
      const uint32_t at =
          shared_address(shared_.merges) + i * static_cast<int>(sizeof(DecodeMerge));
      words[0] = load_quad(at), words[1] = load_quad(at + 16);
    } else {
      const auto* from = reinterpret_cast<const int4*>(t_.merges + begin_ + i);
      words[0] = __ldg(from), words[1] = __ldg(from + 1);
    }
    return m;
  }
  __device__ uint32_t sums_at(int slot, int head) const {
    return shared_address(shared_.slot(slot)) + 4 * kStride * head;
  }
  __device__ float* piece_of(int piece, int head) const {
    return t_.pieces + piece * C::kPieceFloats + kStride * head;
  }

  // A warp takes a merge and head, four dims a lane.
  template <class Work>
  __device__ void each_head(int merges, const Work& work) const {
    int index = index_, head = head_;
#pragma unroll 1
    while (index < merges) {
      const DecodeMerge m = merge(index);
      const Heads of = heads_of(t_, m.row, m.head);
      if (head < of.count) work(m, head, t_.y + (of.first + head) * C::kDim);
      index += more_, head += rest_;
      if (head >= heads_) ++index, head -= heads_;
    }
  }

  __device__ void add_slots() const {
    const int lane = static_cast<int>(threadIdx.x) % kLanes, own = lane % kDecodeWarps;
    each_head(count_, [&](const DecodeMerge& m, int head, float* y) {
      if (m.warps == 0) return;
      // What each part counts for, one a lane.
      const int others = m.warps - 1;
      const uint32_t first = sums_at(2 * m.first_warp + 1, head), last = sums_at(m.last_slot, head);
      uint32_t p[2];
      load_words(p, (own < others ? first + own * C::kRing : last) + 4 * C::kDim);
      const float shift = __uint_as_float(p[0]);
      const float top = max_of<kDecodeWarps>(shift);
      float weight = own <= others ? exp2_fast(shift - top) : 0.0f;
      const float mass = sum_of<kDecodeWarps>(weight * __uint_as_float(p[1]));
      float* to = y;
      if (m.piece < 0) {
        weight *= __fdividef(1.0f, mass);
      } else {
        to = piece_of(m.piece, head);
        if (lane == 0) *reinterpret_cast<float4*>(to + C::kDim) = make_float4(top, mass, 0, 0);
      }
#pragma unroll
      for (int dim = 4 * lane; dim - 4 * lane < C::kDim; dim += 4 * kLanes) {
        const uint32_t at = 4 * (C::kDim % (4 * kLanes) == 0 ? dim : dim % C::kDim);
        float4 sums = {0, 0, 0, 0};
#pragma unroll
        for (int k = 0; k < kDecodeWarps - 1; ++k)
          if (k < others)
            add_scaled(sums, __shfl_sync(~0u, weight, k), load_floats(first + k * C::kRing + at));
        add_scaled(sums, __shfl_sync(~0u, weight, others), load_floats(last + at));
        if (dim < C::kDim) *reinterpret_cast<float4*>(to + dim) = sums;
      }
    });
  }

  // Of rows that end in this block and began in another.
  __device__ void finish_rows() const {
    each_head(finished_, [&](const DecodeMerge& m, int head, float* y) {
      add_pieces<C::kDim>({piece_of(m.first_piece, head), static_cast<int>(C::kPieceFloats),
                           m.end_piece - m.first_piece},
                          y);
    });
  }

  const DecodeTask& t_;
  Shared<C>& shared_;
  int heads_, begin_, count_, finished_;
  int index_, head_;  // the warp's first merge and head
  int more_, rest_;   // from there to the next
};

}  // namespace atom::backend::cuda::hopper::decode
