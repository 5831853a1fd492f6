// The linear of hopper_linear.h for many rows: a prefill, bound by the tensor cores and by power. A CTA stays and takes
// tiles of 128 outputs x kRows rows: one warp asks for slots and inputs, one fetches the rows' scales, two warpgroups
// widen and multiply. A slot is widened while the products of the one before run.
//
// Of 64 rows there are also tiles of 256 outputs: as many rows bring as many bytes of inputs as 128 outputs have weights,
// all of them through the L2, which half as many tiles halve. Up to 128 rows there are tiles of 192 outputs, which meet less
// of the inputs in shared memory, and cut some weights better. More than two warpgroups have no registers for a second
// operand.
//
// The int8 segment comes last: its sums are of 32 rows at a time, which become results, together with the int4 sums of
// those rows, while the next ones are multiplied. So 256 rows leave registers for them.
#include "backend/cuda/hopper_many_consumer.cuh"
#include "backend/cuda/hopper_many_launch.cuh"

namespace atom::backend::cuda::hopper {
namespace many {

template <typename S>
__device__ Barriers init_barriers(uint8_t* shared) {
  Barriers barriers;
  barriers.full = shared_address(shared + S::kBarriersAt);
  barriers.empty = barriers.full + 8 * S::kStages;
  barriers.tokens_full = barriers.empty + 8 * S::kStages;
  barriers.tokens_empty = barriers.tokens_full + 16;
  barriers.sums_empty = barriers.tokens_empty + 16;
  barriers.sums_full = barriers.sums_empty + 8;
  if (threadIdx.x != 0) return barriers;
  for (int i = 0; i < S::kStages; ++i) {
    barrier_init(barriers.full + 8 * i, 1);
    barrier_init(barriers.empty + 8 * i,
                 S::kConsumers * 4 * (S::kShare == 1 ? kWarpArrivals : S::kShare));
  }
  for (int i = 0; i < 2; ++i) {
    barrier_init(barriers.tokens_full + 8 * i, 32);
    barrier_init(barriers.tokens_empty + 8 * i, S::kConsumers * kWarpgroup);
  }
  barrier_init(barriers.sums_empty, S::kConsumers * 4 * kWarpArrivals);
  barrier_init(barriers.sums_full, S::kConsumers * 4 * kWarpArrivals);
  barrier_init_fence();
  return barriers;
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 1)
    many_rows_kernel(const __grid_constant__ CUtensorMap map4,
                     const __grid_constant__ CUtensorMap map8,
                     const __grid_constant__ CUtensorMap results, const __grid_constant__ Task t,
                     int boxes) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const Barriers barriers = init_barriers<S>(shared);
  if (threadIdx.x == 0) {
    prefetch_map(&map4);
    prefetch_map(&map8);
  }
  launch_dependents();
  if constexpr (S::kCluster > 1) {
    __syncwarp();
    cluster_arrive();  // whoever reaches into another CTA waits for it first
  }
  __syncthreads();
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp >= S::kConsumers * 4) {
    give_registers<40>();
    if (warp == S::kConsumers * 4) {
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
      if (warp == S::kConsumers * 4 + 1) produce_tokens<S>(t, tiles_of<S>(t), shared, barriers);
    }
    if constexpr (S::kSplit > 1) cluster_wait_alone();
  } else {
    take_registers<S::kMost>();
    if constexpr (S::kShare > 1) cluster_wait();
    wait_for_previous_grid();  // every thread: what it stores may be read before, and the next kernel counts on it
    const Tiles tiles = tiles_of<S>(t);
    Consumer<S>(t, boxes != 0 ? &results : nullptr, shared, barriers).run(tiles);
    if (S::kSplit > 1 && !tiles.shares()) cluster_wait();
  }
  if constexpr (S::kShare > 1) {  // others write to this CTA's memory and arrive at its barriers
    __syncwarp();
    cluster_arrive();
    cluster_wait();
  }
}

template <typename S>
Status launch(const Task& t, int multiprocessors, Stream stream) {
  if (S::kRows > 128 && t.w.slots4 == 0) return cudaErrorInvalidValue;
  if (!S::kLong && t.w.slots4 > 0 && t.w.slots8 > S::kShortSlots8) return cudaErrorInvalidValue;
  return launch_tiles<S>(many_rows_kernel<S>, t, multiprocessors, stream);
}

}  // namespace many

Status launch_many_rows(const Task& t, const Plan& p, int multiprocessors, Stream stream) {
  const bool is_long = t.w.slots8 > 2;  // the kernels that share k have no code for it
  const int cluster = p.cluster * 10 + (is_long ? 1 : p.groups);  // CTAs that share inputs, k
  switch (p.rows) {
    case 32:
      if (cluster == 11 && p.blocks == 3)
        return many::launch<many::Shape<32, 10, 1, 1, 3>>(t, multiprocessors, stream);
      break;
    case 64:
      if (cluster == 11 && p.blocks == 4)
        return many::launch<many::Shape<64, 6, 1, 1, 4>>(t, multiprocessors, stream);
      if (cluster == 12 && p.blocks == 4)
        return many::launch<many::Shape<64, 6, 1, 2, 4>>(t, multiprocessors, stream);
      if (cluster == 11 && p.blocks == 3)
        return many::launch<many::Shape<64, 8, 1, 1, 3>>(t, multiprocessors, stream);
      if (cluster == 11) return many::launch<many::Shape<64, 10, 1, 1>>(t, multiprocessors, stream);
      if (cluster == 12) return many::launch<many::Shape<64, 10, 1, 2>>(t, multiprocessors, stream);
      break;
    case 128:
      if (cluster == 11 && p.blocks == 3)
        return many::launch<many::Shape<128, 6, 1, 1, 3>>(t, multiprocessors, stream);
      if (cluster == 11) return many::launch<many::Shape<128, 7, 1, 1>>(t, multiprocessors, stream);
      if (cluster == 12) return many::launch<many::Shape<128, 7, 1, 2>>(t, multiprocessors, stream);
      break;
    case 256:
      if (cluster == 21) return many::launch<many::Shape<256, 4, 2, 1>>(t, multiprocessors, stream);
      if (cluster == 11) return many::launch<many::Shape<256, 4, 1, 1>>(t, multiprocessors, stream);
      if (cluster == 12) return many::launch<many::Shape<256, 4, 1, 2>>(t, multiprocessors, stream);
      break;
    default:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace atom::backend::cuda::hopper
