// The linear of hopper_half_linear.h for many rows: a prefill, bound by the tensor cores. A CTA stays and takes tiles of 128
// outputs x kRows rows: one warp asks for weights and inputs, two warpgroups multiply. f16 weights are multiplied from
// shared memory; int4 codes are widened while the products of the 64 inputs before run. The CTAs of a cluster take
// neighbouring outputs and the same rows: each asks for its share of the rows' inputs, for all.
#include "backend/cuda/hopper_half_launch.h"
#include "backend/cuda/hopper_half_many.cuh"

namespace atom::backend::cuda::hopper {
namespace half_many {

template <typename S>
class Consumer {
 public:
  __device__ Consumer(const HalfTask& t, const CUtensorMap* results, uint8_t* shared,
                      const Barriers& barriers)
      : t_(t),
        writer_(t, results, shared),
        barriers_(barriers),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup),
        steps_(2 * slots_along(t.w.k)) {
    const int block = S::kWeightsAt + static_cast<int>(threadIdx.x) / kWarpgroup * S::kWeights;
    codes_ = shared + block;
    weights_ = swizzled_tile(shared_address(shared) + block);
    inputs_ = swizzled_tile(shared_address(shared));
  }

  __device__ void run(const Tiles& tiles) {
    for (int p = first_tile(); p < tiles.count(); p += tile_stride()) {
      int row, output_tile;
      tiles.place(p, S::kRows, row, output_tile);
      writer_.fetch_rows(row, tiles.end_row);
      float sums[S::kRows / 2];
#pragma unroll
      for (float& sum : sums) sum = 0;
      pin_sums(sums);
      if constexpr (S::kKind == HalfKind::kF16)
        accumulate_f16(sums);
      else
        accumulate_int4(sums);
      products_wait<0>();
      pin_sums(sums);
      release(pending_);
      const int output = (output_tile * kCluster + rank_in_cluster()) * kOutputs +
                         static_cast<int>(threadIdx.x) / kWarpgroup * kBlockOutputs;
      writer_.write(sums, output, row, tiles.end_row);
    }
    writer_.finish();
  }

 private:
  __device__ __forceinline__ void release(int stage) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (kCluster == 1)
      warp_arrive(barriers_.empty + 8 * stage);
    else if (lane < kCluster)  // whoever copies to this CTA waits for it
      barrier_arrive_at(of_rank(barriers_.empty + 8 * stage, static_cast<uint32_t>(lane)));
  }
  __device__ __forceinline__ uint64_t inputs() const {
    return inputs_ + static_cast<uint32_t>(at_.stage * (S::kInputBytes / 16));
  }
  // The products of the stage are under way, those of the one before are done.
  __device__ __forceinline__ void advance(bool first) {
    if (!first) {
      products_wait<1>();
      release(pending_);
    }
    pending_ = at_.stage;
    at_.next<S>();
  }

  __device__ __forceinline__ void accumulate_f16(float (&sums)[S::kRows / 2]) {
#pragma unroll 1
    for (int step = 0; step < steps_; ++step) {
      barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
      const uint64_t a = weights_ + static_cast<uint32_t>(at_.stage * (S::kStageWeights / 16));
      products_begin();
#pragma unroll
      for (int i = 0; i < 4; ++i) HalfProduct<S::kRows>::add(sums, a + 2 * i, inputs() + 2 * i);
      products_commit();
      advance(step == 0);
    }
  }

  __device__ __forceinline__ void start(HalfOperand& operand, float (&sums)[S::kRows / 2]) {
    barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
    const uint8_t* codes = codes_ + at_.stage * S::kStageWeights;
    HalfSteps steps;
    steps.load(codes + S::kCodes, lane_);
    operand.load(codes, lane_, steps);
    products_begin();
    operand.template multiply<S::kRows>(sums, inputs());
    products_commit();
  }
  __device__ __forceinline__ void accumulate_int4(float (&sums)[S::kRows / 2]) {
    HalfOperand a, b;
#pragma unroll 1
    for (int step = 0; step < steps_; step += 2) {
      start(a, sums);
      advance(step == 0);
      start(b, sums);
      advance(false);
    }
  }

  const HalfTask& t_;
  Writer<S> writer_;
  Barriers barriers_;
  HalfLane lane_;
  int steps_;  // of 64 inputs
  const uint8_t* codes_;
  uint64_t weights_, inputs_;
  Position at_;
  int pending_ = 0;
};

template <typename S>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    half_many_kernel(const __grid_constant__ CUtensorMap map,
                     const __grid_constant__ CUtensorMap results,
                     const __grid_constant__ HalfTask t, int boxes) {
  extern __shared__ __align__(1024) uint8_t shared[];
  Barriers barriers;
  barriers.full = shared_address(shared + S::kBarriersAt);
  barriers.empty = barriers.full + 8 * S::kStages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      barrier_init(barriers.full + 8 * i, 1);
      barrier_init(barriers.empty + 8 * i,
                   kCluster * kConsumers * 4 * (kCluster == 1 ? kWarpArrivals : 1));
    }
    barrier_init_fence();
    prefetch_map(&map);
  }
  launch_dependents();
  cluster_arrive();
  cluster_wait();  // the barriers of all
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp >= kConsumers * 4) {
    give_registers<40>();
    if (warp == kConsumers * 4 && threadIdx.x % 32 == 0)
      Producer<S>(t, &map, shared, barriers).run();
    else
      wait_for_previous_grid();
  } else {
    take_registers<232>();  // 2 * 128 * 232 + 128 * 40 = 384 * 168, what the launch took
    wait_for_previous_grid();  // every thread: what it stores may be read before, and the next kernel counts on it
    Consumer<S>(t, boxes != 0 ? &results : nullptr, shared, barriers).run(tiles_of<S>(t));
  }
  __syncwarp();
  cluster_arrive();
  cluster_wait();  // nobody copies to a CTA that has gone
}

template <typename S>
Status launch(const HalfTask& t, int multiprocessors, Stream stream) {
  const auto kernel = half_many_kernel<S>;
  static const Status allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (allowed != 0) return allowed;
  // By expert a box could reach into the next expert's rows.
  const Results y{t.y, t.y_f16, t.x.rows, t.w.n};
  const bool boxes = t.row_ends == nullptr && y.has_boxes();
  CUtensorMap map;
  if (const Status status = make_half_input_map(t.x, S::kRows / kCluster, 1, map); status != 0)
    return status;
  CUtensorMap results = map;
  if (boxes)
    if (const Status status = make_result_map(y, S::kTogether, results); status != 0) return status;
  constexpr int kWide = kCluster * kOutputs;
  const int tiles = (t.w.n + kWide - 1) / kWide * ((t.x.rows + S::kRows - 1) / S::kRows);
  const int clusters = multiprocessors / kCluster;
  const int grid = kCluster * (tiles < clusters ? tiles : clusters);
  return launch_kernel(kernel, {dim3(grid), kThreads, S::kBytes, 1, t.dependent != 0}, stream, map,
                       results, t, boxes ? 1 : 0);
}

// As many stages as shared memory holds beside the results.
template <HalfKind kKind>
Status launch_rows(const HalfTask& t, int rows, int multiprocessors, Stream stream) {
  constexpr bool kF16 = kKind == HalfKind::kF16;
  if (rows == 64) return launch<Shape<kKind, 64, kF16 ? 8 : 14>>(t, multiprocessors, stream);
  if (rows == 128) return launch<Shape<kKind, 128, kF16 ? 6 : 9>>(t, multiprocessors, stream);
  if (rows == 256) return launch<Shape<kKind, 256, kF16 ? 4 : 5>>(t, multiprocessors, stream);
  return cudaErrorInvalidValue;
}

}  // namespace half_many

Status launch_half_many_rows(const HalfTask& t, const Plan& p, int multiprocessors, Stream stream) {
  return t.w.kind == HalfKind::kF16
             ? half_many::launch_rows<HalfKind::kF16>(t, p.rows, multiprocessors, stream)
             : half_many::launch_rows<HalfKind::kInt4>(t, p.rows, multiprocessors, stream);
}

}  // namespace atom::backend::cuda::hopper
