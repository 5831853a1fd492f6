// Partial results of one row and head, added up: those of the warps of a block in shared memory, then those of
// several blocks (pieces) by the last of them to be ready. Both go in the order of the plan.
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
  int last[2];

  __device__ float* slot(int i) {
    return i % 2 == 0 ? first[i / 2] : reinterpret_cast<float*>(ring[i / 2]);
  }
};

// By a warp: adds up `count` partial results of a head, `stride` floats apart but for the last, four dims a lane, and
// writes the sums (`whole` 0) or the quotient. Volatile reads: other blocks may have written them.
template <int kDim>
__device__ __noinline__ void add_partials(const float* first, const float* last, int stride,
                                          int count, float* to, int whole) {
  constexpr int kBatch = 4;  // loads in flight
#pragma unroll 1
  for (int dim = static_cast<int>(threadIdx.x) % kLanes * 4; dim < kDim; dim += kLanes * 4) {
    float most = -INFINITY, mass = 0;
    float4 sums = {0, 0, 0, 0};
#pragma unroll 1
    for (int at = 0; at < count; at += kBatch) {
      float4 p[kBatch], v[kBatch];
      float top = most;
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        const float* from = at + k < count - 1 ? first + (at + k) * stride : last;
        p[k] = load_volatile(from + kDim);
        v[k] = load_volatile(from + dim);
      }
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        if (at + k >= count) p[k].x = -INFINITY;
        top = fmaxf(top, p[k].x);
      }
      const float before = exp2_fast(most - top);
      most = top;
      mass *= before, sums.x *= before, sums.y *= before, sums.z *= before, sums.w *= before;
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        const float by = exp2_fast(p[k].x - top);
        mass = fmaf(by, p[k].y, mass);
        sums.x = fmaf(by, v[k].x, sums.x), sums.y = fmaf(by, v[k].y, sums.y);
        sums.z = fmaf(by, v[k].z, sums.z), sums.w = fmaf(by, v[k].w, sums.w);
      }
    }
    const float by = whole != 0 ? __fdividef(1.0f, mass) : 1.0f;
    *reinterpret_cast<float4*>(to + dim) =
        make_float4(sums.x * by, sums.y * by, sums.z * by, sums.w * by);
    if (whole == 0 && dim == 0) *reinterpret_cast<float2*>(to + kDim) = make_float2(most, mass);
  }
}

// By the block, after its warps: its partial results to pieces or rows of y, then pieces to rows. Warps take heads.
template <class C>
class Merges {
 public:
  __device__ Merges(const DecodeTask& t, Shared<C>& shared)
      : t_(t), shared_(shared), warp_(static_cast<int>(threadIdx.x) / kLanes) {
    begin_ = blockIdx.x == 0 ? 0 : __ldg(t.merge_ends + blockIdx.x - 1);
    count_ = __ldg(t.merge_ends + blockIdx.x) - begin_;
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
    const bool first = merge(0).end_piece > merge(0).first_piece;
    const bool last = merge(count_ - 1).end_piece > merge(count_ - 1).first_piece;
    if (!first && !last) return;  // only those can have pieces, or, with `split`, all do
    __syncthreads();
    if (threadIdx.x < 2) shared_.last[threadIdx.x] = arrive(threadIdx.x == 0 ? 0 : count_ - 1);
    __syncthreads();
    add_pieces();
  }

 private:
  static constexpr int kStride = C::kDim + 4;  // of heads

  __device__ const DecodeMerge& merge(int i) const {
    return i < C::kMergesAtHand ? shared_.merges[i] : t_.merges[begin_ + i];
  }

  __device__ void add_slots() {
#pragma unroll 1
    for (int i = warp_; i < count_ * C::kHeads; i += kDecodeWarps) {
      const DecodeMerge& m = merge(i / C::kHeads);
      const Heads heads = heads_of(t_, m.row, m.head);
      const int head = i % C::kHeads;
      if (m.warps == 0 || head >= heads.count) continue;
      const int at = head * kStride;
      add_partials<C::kDim>(shared_.slot(2 * m.first_warp + 1) + at, shared_.slot(m.last_slot) + at,
                            C::kRing / 4, m.warps,
                            m.piece < 0 ? t_.y + (heads.first + head) * C::kDim
                                        : t_.pieces + m.piece * C::kPieceFloats + at,
                            m.piece < 0);
    }
  }

  // By one thread, after a barrier: whether this block is the last to arrive. Only the block's first and last merge
  // have others to wait for.
  __device__ int arrive(int i) {
    const DecodeMerge& m = merge(i);
    if (m.arrivals < 2 || (threadIdx.x == 1 && count_ == 1)) return 0;
    __threadfence();
    const bool last =
        atomicAdd(t_.counters + m.counter, 1) == static_cast<uint32_t>(m.arrivals) - 1;
    if (last) t_.counters[m.counter] = 0;
    __threadfence();
    return last ? 1 : 0;
  }

  __device__ void add_pieces() {
#pragma unroll 1
    for (int i = warp_; i < count_ * C::kHeads; i += kDecodeWarps) {
      const int index = i / C::kHeads, head = i % C::kHeads;
      const DecodeMerge& m = merge(index);
      const Heads heads = heads_of(t_, m.row, m.head);
      const int count = m.end_piece - m.first_piece;
      if (count == 0 || head >= heads.count) continue;
      if (m.arrivals > 1 && shared_.last[index == 0 ? 0 : 1] == 0) continue;
      const float* from = t_.pieces + m.first_piece * C::kPieceFloats + head * kStride;
      add_partials<C::kDim>(from, from + (count - 1) * C::kPieceFloats, C::kPieceFloats, count,
                            t_.y + (heads.first + head) * C::kDim, 1);
    }
  }

  const DecodeTask& t_;
  Shared<C>& shared_;
  int warp_, begin_, count_;
};

}  // namespace atom::backend::cuda::hopper::decode
