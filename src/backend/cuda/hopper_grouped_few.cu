// The linear of hopper_linear.h with scales a group on both sides, for few rows. As hopper_linear_few.cu, weights stream
// through a ring in shared memory and groups of warpgroups take turns along k. But a group's sums must be scaled and
// added in the order of the groups, so that a result has the same bits whatever the cut: the warpgroups that multiply
// leave integer sums where the codes were, and one more for every 64 outputs takes them in order, scales, adds and stores.
#include "backend/cuda/hopper_grouped_few.cuh"
#include "backend/cuda/hopper_launch.h"

namespace atom::backend::cuda::hopper {
namespace grouped_few {

// The ring's first stages: every warp asks for its share, one thread would take half a microsecond for twenty copies.
template <typename S>
__device__ __forceinline__ void init_stages(const Ring<S>& ring, int warp) {
  if (threadIdx.x % 32 != 0) return;
#pragma unroll 1
  for (int i = warp; i < S::kStages; i += S::kThreads / 32) {
    barrier_init(ring.full + 8 * i, 1);
    barrier_init(ring.summed + 8 * i, S::kGroupWarps);
    barrier_init(ring.empty + 8 * i, S::kGroupWarps);
  }
  barrier_init_fence();
#pragma unroll 1
  for (int i = warp; i < min(ring.count, S::kStages); i += S::kThreads / 32) ring.ask_slots(i, i);
}

template <typename S>
__device__ __forceinline__ void add_up(const Task& t, const Ring<S>& ring, int warp, int tile,
                                       int row, int valid, const Steps (&steps)[2]) {
  Adder<S> adder(ring, t, warp, row, valid);
  float scale8[S::kRows / 4] = {};
  if (t.segment8 >= 0) {
    const uint8_t* record = t.x.data + t.x.at[t.segment8].scales_at;
#pragma unroll
    for (int k = 0; k < S::kRows / 4; ++k) {
      const int of = Adder<S>::first_row() + k / 2 * 8 + k % 2;
      if (of < valid)
        scale8[k] = *reinterpret_cast<const float*>(record + (row + of) * t.x.row_bytes);
    }
  }
  adder.run(scale8, {steps[0].step8, steps[1].step8});
  adder.store(tile * S::kOutputs + warp / 4 % S::kBlocks * kBlockOutputs +
                  Lane(static_cast<int>(threadIdx.x) % kWarpgroup).output,
              {steps[0].bias, steps[1].bias});
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kCtas)
    grouped_few_kernel(const __grid_constant__ CUtensorMap map4,
                       const __grid_constant__ CUtensorMap map8,
                       const __grid_constant__ CUtensorMap scales, const __grid_constant__ Task t) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int tile = static_cast<int>(blockIdx.x);
  const Ring<S> ring(t, shared, tile, &map4, &map8, &scales);
  launch_dependents();
  Rows rows{0, t.x.rows};
  if (t.row_ends != nullptr) {
    wait_for_previous_grid();
    rows = rows_of(t);
  }
  const int row = rows.begin + static_cast<int>(blockIdx.y) * S::kRows;
  const int valid = min(S::kRows, rows.end - row);
  if (valid <= 0) return;
  init_stages(ring, warp);
  if (threadIdx.x == 0) {
    prefetch_map(&map4);
    prefetch_map(&map8);
    prefetch_map(&scales);
  }
  const bool adds = warp >= S::kMultipliers;
  Steps steps[2] = {};
  if (adds) {
    const int output = tile * S::kOutputs + warp / 4 % S::kBlocks * kBlockOutputs +
                       Lane(static_cast<int>(threadIdx.x) % kWarpgroup).output;
    steps[0] = steps_of(t.w, output);
    steps[1] = steps_of(t.w, output + 8);
  }
  __syncthreads();  // barriers are initialized
  if (t.row_ends == nullptr)
    wait_for_previous_grid();  // all threads: they read and write what it may touch
  ask_first_inputs<S>(ring, warp, row);
  if (adds)
    add_up<S>(t, ring, warp, tile, row, valid, steps);
  else
    Multiplier<S>(ring).run(warp);
}

template <typename S>
Status launch(const Task& t, Stream stream) {
  const auto kernel = grouped_few_kernel<S>;
  static const Status allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (allowed != 0) return allowed;
  InputMaps maps;
  CUtensorMap scales;
  if (const Status status = make_input_maps(t, S::kRows, maps); status != 0) return status;
  if (const Status status = make_scale_map(t, S::kRows, scales); status != 0) return status;
  const dim3 grid((t.w.blocks() + S::kBlocks - 1) / S::kBlocks,
                  (t.x.rows + S::kRows - 1) / S::kRows);
  return launch_kernel(kernel, {grid, S::kThreads, S::kBytes, 1, t.dependent != 0}, stream,
                       maps.of4, maps.of8, scales, t);
}

}  // namespace grouped_few

Status launch_grouped_few_rows(const Task& t, const Plan& p, Stream stream) {
  using namespace grouped_few;
  const int wide = p.blocks * 100 + p.groups;
  if (p.cluster != 1) return cudaErrorInvalidValue;
  switch (p.rows) {
    case 8:
      if (wide == 101) return launch<Shape<8, 1, 1, 5, 4>>(t, stream);
      if (wide == 103) return launch<Shape<8, 1, 3, 9, 2>>(t, stream);
      if (wide == 107) return launch<Shape<8, 1, 7, 21, 1>>(t, stream);
      if (wide == 201) return launch<Shape<8, 2, 1, 5, 2>>(t, stream);
      if (wide == 203) return launch<Shape<8, 2, 3, 12, 1>>(t, stream);
      break;
    case 16:
      if (wide == 101) return launch<Shape<16, 1, 1, 5, 3>>(t, stream);
      if (wide == 102) return launch<Shape<16, 1, 2, 8, 2>>(t, stream);
      if (wide == 105) return launch<Shape<16, 1, 5, 15, 1>>(t, stream);
      if (wide == 202) return launch<Shape<16, 2, 2, 10, 1>>(t, stream);
      break;
    case 32:
      if (wide == 101) return launch<Shape<32, 1, 1, 4, 3>>(t, stream);
      if (wide == 102) return launch<Shape<32, 1, 2, 6, 2>>(t, stream);
      if (wide == 104) return launch<Shape<32, 1, 4, 12, 1>>(t, stream);
      if (wide == 202) return launch<Shape<32, 2, 2, 8, 1>>(t, stream);
      break;
    default:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace atom::backend::cuda::hopper
