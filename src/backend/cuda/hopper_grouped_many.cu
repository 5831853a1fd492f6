// The linear of hopper_linear.h with scales a group on both sides, for many rows. As hopper_linear_many.cu, a CTA stays and
// takes tiles of 128 outputs x kRows rows. A group's sums are scaled and added in registers, in the order of the groups:
// three instructions a sum, about as many issue slots as the products take; they run beside the products of other rows.
#include "backend/cuda/hopper_grouped_many.cuh"
#include "backend/cuda/hopper_many_launch.cuh"

namespace atom::backend::cuda::hopper {
namespace many {

template <typename S>
__global__ void __launch_bounds__(kThreads, S::kCtas)
    grouped_many_kernel(const __grid_constant__ CUtensorMap map4,
                        const __grid_constant__ CUtensorMap map8,
                        const __grid_constant__ CUtensorMap results, const __grid_constant__ Task t,
                        int boxes) {
  extern __shared__ __align__(1024) uint8_t shared[];
  constexpr int kWarps = kConsumers * 4;  // that multiply
  Barriers barriers{};
  barriers.full = shared_address(shared + S::kBarriersAt);
  barriers.empty = barriers.full + 8 * S::kStages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      barrier_init(barriers.full + 8 * i, 1 + S::kScaleWarps);  // by Producer and ScaleProducers
      barrier_init(barriers.empty + 8 * i, kWarps);
    }
    barrier_init_fence();
    prefetch_map(&map4);
    prefetch_map(&map8);
  }
  launch_dependents();
  __syncthreads();
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp >= kWarps) {
    give_registers<S::kLeast>();
    if (warp == kWarps) {
      if (threadIdx.x % 32 == 0)
        Producer<S>(t, &map4, &map8, shared, barriers).run();
      else
        wait_for_previous_grid();
    } else {
      wait_for_previous_grid();
      if (warp <= kWarps + S::kScaleWarps)
        ScaleProducer<S>(t, shared, barriers, warp - kWarps - 1).run(tiles_of<S>(t));
    }
  } else {
    take_registers<S::kMost>();
    wait_for_previous_grid();  // every thread, as in many_rows_kernel
    GroupedConsumer<S>(t, boxes != 0 ? &results : nullptr, shared, barriers, warp).run();
  }
}

template <typename S>
Status launch_grouped(const Task& t, int multiprocessors, Stream stream) {
  if (S::kRows > 128 && t.w.slots8 > S::kStages) return cudaErrorInvalidValue;
  return launch_tiles<S>(grouped_many_kernel<S>, t, multiprocessors * S::kCtas, stream);
}

}  // namespace many

Status launch_grouped_many_rows(const Task& t, const Plan& p, int multiprocessors, Stream stream) {
  using namespace many;
  if (p.rows == 64 && p.groups == 2)
    return launch_grouped<GroupedShape<64, 4, 2>>(t, multiprocessors, stream);
  if (p.rows == 64) return launch_grouped<GroupedShape<64, 8, 1>>(t, multiprocessors, stream);
  if (p.rows == 128) return launch_grouped<GroupedShape<128, 6, 1>>(t, multiprocessors, stream);
  if (p.rows == 256) return launch_grouped<GroupedShape<256, 4, 1>>(t, multiprocessors, stream);
  return cudaErrorInvalidValue;
}

}  // namespace atom::backend::cuda::hopper
