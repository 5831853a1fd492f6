// The linear of hopper_linear.h for many rows: a prefill, bound by the tensor cores and by power. A CTA stays and takes
// tiles of 128 outputs x kRows rows: one warp asks for slots and inputs, one fetches the rows' scales, two warpgroups
// widen and multiply. A slot is widened while the products of the one before run.
//
// The int8 segment comes last: the int4 sums have become results by then, so that for 256 rows the second sums, of
// 64 rows at a time, find registers.
#include "backend/cuda/hopper_many_consumer.cuh"
#include "backend/cuda/hopper_many_launch.cuh"

namespace atom::backend::cuda::hopper {
namespace many {

template <typename S>
__global__ void __launch_bounds__(kThreads, 1)
    many_rows_kernel(const __grid_constant__ CUtensorMap map4,
                     const __grid_constant__ CUtensorMap map8,
                     const __grid_constant__ CUtensorMap results, const __grid_constant__ Task t,
                     int boxes) {
  extern __shared__ __align__(1024) uint8_t shared[];
  Barriers barriers;
  barriers.full = shared_address(shared + S::kBarriersAt);
  barriers.empty = barriers.full + 8 * S::kStages;
  barriers.tokens_full = barriers.empty + 8 * S::kStages;
  barriers.tokens_empty = barriers.tokens_full + 16;
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      barrier_init(barriers.full + 8 * i, 1);
      barrier_init(barriers.empty + 8 * i, kConsumers * 4);
    }
    for (int i = 0; i < 2; ++i) {
      barrier_init(barriers.tokens_full + 8 * i, 32);
      barrier_init(barriers.tokens_empty + 8 * i, kConsumers * kWarpgroup);
    }
    barrier_init_fence();
    prefetch_map(&map4);
    prefetch_map(&map8);
  }
  launch_dependents();
  __syncthreads();
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp >= kConsumers * 4) {
    give_registers<40>();
    if (warp == kConsumers * 4) {
      if (threadIdx.x % 32 == 0)
        Producer<S>(t, &map4, &map8, shared, barriers).run();
      else
        wait_for_previous_grid();
    } else {
      wait_for_previous_grid();
      if (warp == kConsumers * 4 + 1) produce_tokens<S>(t, tiles_of<S>(t), shared, barriers);
    }
  } else {
    take_registers<232>();  // 2 * 128 * 232 + 128 * 40 = 384 * 168, what the launch took
    wait_for_previous_grid();  // every thread: what it stores may be read before, and the next kernel counts on it
    Consumer<S>(t, boxes != 0 ? &results : nullptr, shared, barriers).run(tiles_of<S>(t));
  }
}

template <typename S>
Status launch(const Task& t, int multiprocessors, Stream stream) {
  if (S::kRows > 128 && (t.w.slots4 == 0 || t.w.slots8 > S::kStages)) return cudaErrorInvalidValue;
  return launch_tiles<S>(many_rows_kernel<S>, t, multiprocessors, stream);
}

}  // namespace many

Status launch_many_rows(const Task& t, const Plan& p, int multiprocessors, Stream stream) {
  if (p.rows == 64) return many::launch<many::Shape<64, 10>>(t, multiprocessors, stream);
  if (p.rows == 128) return many::launch<many::Shape<128, 6>>(t, multiprocessors, stream);
  if (p.rows == 256) return many::launch<many::Shape<256, 4>>(t, multiprocessors, stream);
  return cudaErrorInvalidValue;
}

}  // namespace atom::backend::cuda::hopper
