// The linear of hopper_linear.h with scales a group on both sides, for many rows. As hopper_linear_many.cu, a CTA stays and
// takes tiles of 128 outputs x kRows rows. A group's sums are scaled and added in registers, in the order of the groups:
// three instructions a sum, about as many issue slots as the products take; they run beside the products of other rows.
#include "backend/cuda/hopper_grouped_many.cuh"
#include "backend/cuda/hopper_many_launch.cuh"

namespace atom::backend::cuda::hopper {
namespace many {

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kCtas)
    grouped_many_kernel(const __grid_constant__ CUtensorMap map4,
                        const __grid_constant__ CUtensorMap map8,
                        const __grid_constant__ CUtensorMap results, const __grid_constant__ Task t,
                        int boxes) {
  extern __shared__ __align__(1024) uint8_t shared[];
  constexpr int kWarps = S::kConsumers * 4;  // that multiply
  Barriers barriers{};
  barriers.full = shared_address(shared + S::kBarriersAt);
  barriers.empty = barriers.full + 8 * S::kStages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      barrier_init(barriers.full + 8 * i,
                   1 + S::kScaleWarps * kWarpArrivals);  // by Producer and ScaleProducers
      barrier_init(barriers.empty + 8 * i, kWarps * (S::kShare == 1 ? kWarpArrivals : S::kShare));
    }
    barrier_init_fence();
    prefetch_map(&map4);
    prefetch_map(&map8);
  }
  launch_dependents();
  if constexpr (S::kShare > 1) {
    __syncwarp();
    cluster_arrive();  // whoever reaches into another CTA waits for it first
  }
  __syncthreads();
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp >= kWarps) {
    give_registers<S::kLeast>();
    if (warp == kWarps) {
      if (threadIdx.x % 32 == 0) {
        const bool adds = t.add != 0 && boxes != 0 && t.x.rows > S::kRows;
        Producer<S>(t, &map4, &map8, adds ? &results : nullptr, shared, barriers).run();
      } else {
        if constexpr (S::kShare > 1) cluster_wait_alone();
        wait_for_previous_grid();
      }
    } else {
      if constexpr (S::kShare > 1) cluster_wait();
      wait_for_previous_grid();
      if (warp <= kWarps + S::kScaleWarps)
        ScaleProducer<S>(t, shared, barriers, warp - kWarps - 1).run(tiles_of<S>(t));
    }
  } else {
    take_registers<S::kMost>();
    if constexpr (S::kShare > 1) cluster_wait();
    wait_for_previous_grid();  // every thread, as in many_rows_kernel
    GroupedConsumer<S>(t, boxes != 0 ? &results : nullptr, shared, barriers, warp).run();
  }
  if constexpr (S::kShare > 1) {  // others write to this CTA's memory and arrive at its barriers
    __syncwarp();
    cluster_arrive();
    cluster_wait();
  }
}

template <typename S>
Status launch_grouped(const Task& t, int multiprocessors, Stream stream) {
  if (S::kPieces > 2 && t.w.slots8 > S::kStages) return cudaErrorInvalidValue;
  return launch_tiles<S>(grouped_many_kernel<S>, t, multiprocessors * S::kCtas, stream);
}

}  // namespace many

Status launch_grouped_many_rows(const Task& t, const Plan& p, int multiprocessors, Stream stream) {
  using namespace many;
  const int kind = p.cluster * 10 + p.groups;  // CTAs that share inputs, CTAs of a multiprocessor
  switch (p.rows) {
    case 64:
      if (kind == 11 && p.blocks == 3)
        return launch_grouped<GroupedShape<64, 8, 1, 1, 3>>(t, multiprocessors, stream);
      if (kind == 12) return launch_grouped<GroupedShape<64, 4, 2, 1>>(t, multiprocessors, stream);
      if (kind == 11) return launch_grouped<GroupedShape<64, 8, 1, 1>>(t, multiprocessors, stream);
      break;
    case 128:
      if (kind == 11 && p.blocks == 3)
        return launch_grouped<GroupedShape<128, 6, 1, 1, 3>>(t, multiprocessors, stream);
      if (kind == 11) return launch_grouped<GroupedShape<128, 6, 1, 1>>(t, multiprocessors, stream);
      break;
    case 256:
      if (kind == 11) return launch_grouped<GroupedShape<256, 4, 1, 1>>(t, multiprocessors, stream);
      if (kind == 21) return launch_grouped<GroupedShape<256, 4, 1, 2>>(t, multiprocessors, stream);
      break;
    default:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace atom::backend::cuda::hopper
