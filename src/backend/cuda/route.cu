// Mixture routing: experts and weights of each row, then the rows of each expert.
#include "backend/cuda/tasks.h"
#include "backend/cuda/team.cuh"

namespace atom::backend::cuda {
namespace {

constexpr int kChooseThreads = 128;
constexpr int kPlaceThreads = 1024;

__device__ bool contains(const int32_t* chosen, int count, int expert) {
  for (int j = 0; j < count; ++j)
    if (chosen[j] == expert) return true;
  return false;
}

// The largest logit of the experts that are not chosen, ties: lower expert; a NaN is never larger.
__device__ int next_expert(const float* logits, int experts, const int32_t* chosen, int count) {
  int best = -1;
  for (int e = 0; e < experts; ++e)
    if (!contains(chosen, count, e) && (best < 0 || logits[e] > logits[best])) best = e;
  return best;
}

// A thread takes a row. Softmax in f64, experts ascending.
__global__ void choose_kernel(RouteTask t) {
  const int row = static_cast<int>(blockIdx.x) * kChooseThreads + static_cast<int>(threadIdx.x);
  if (row >= t.rows) return;
  const float* logits = t.logits + int64_t{row} * t.experts;
  int32_t* chosen = t.chosen + int64_t{row} * t.top_k;
  for (int j = 0; j < t.top_k; ++j) {  // insertion keeps them ascending
    const int expert = next_expert(logits, t.experts, chosen, j);
    int at = j;
    for (; at > 0 && chosen[at - 1] > expert; --at) chosen[at] = chosen[at - 1];
    chosen[at] = expert;
  }
  float largest = logits[0];
  for (int e = 1; e < t.experts; ++e) largest = fmaxf(largest, logits[e]);
  const auto power = [&](int e) {
    return exp(static_cast<double>(logits[e]) - static_cast<double>(largest));
  };
  double mass = 0, chosen_mass = 0;
  for (int e = 0; e < t.experts; ++e) mass += power(e);
  for (int j = 0; j < t.top_k; ++j) chosen_mass += power(chosen[j]) / mass;
  for (int j = 0; j < t.top_k; ++j) {
    const double p = power(chosen[j]) / mass;
    t.weights[int64_t{row} * t.top_k + j] = static_cast<float>(t.renormalize ? p / chosen_mass : p);
  }
}

// One block; a warp takes an expert and walks over all choices, which hold it once a row at most.
struct Walk {
  const RouteTask& t;
  int lane;

  // Number of rows that chose the expert.
  __device__ int count(int expert) const {
    int found = 0;
    for (int64_t i = lane; i < int64_t{t.rows} * t.top_k; i += kWarp)
      found += t.chosen[i] == expert;
    return warp_reduce(found, Sum());
  }
  // Writes the expert's output rows from `out` on, ascending.
  __device__ void place(int expert, int out) const {
    const int64_t choices = int64_t{t.rows} * t.top_k;
    for (int64_t first = 0; first < choices; first += kWarp) {
      const int64_t i = first + lane;
      const bool mine = i < choices && t.chosen[i] == expert;
      const unsigned found = __ballot_sync(kAllLanes, mine);
      if (mine) {
        const int slot = out + __popc(found & ((1u << lane) - 1));
        t.row_index[slot] = static_cast<int32_t>(i / t.top_k);
        t.slots[i] = slot;
      }
      out += __popc(found);
    }
  }
};

__global__ void place_kernel(RouteTask t) {
  const int warps = kPlaceThreads / kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const Walk walk{t, static_cast<int>(threadIdx.x) % kWarp};
  for (int e = warp; e < t.experts; e += warps) {
    const int count = walk.count(e);
    if (walk.lane == 0) t.row_ends[e] = count;
  }
  __syncthreads();
  if (threadIdx.x == 0)
    for (int e = 1; e < t.experts; ++e) t.row_ends[e] += t.row_ends[e - 1];
  __syncthreads();
  for (int e = warp; e < t.experts; e += warps) walk.place(e, e == 0 ? 0 : t.row_ends[e - 1]);
}

}  // namespace

Status launch_route(const RouteTask& task, Stream stream) {
  if (task.rows > 0) {
    const int blocks = (task.rows + kChooseThreads - 1) / kChooseThreads;
    choose_kernel<<<blocks, kChooseThreads, 0, stream>>>(task);
    if (const Status status = cudaGetLastError(); status != 0) return status;
  }
  place_kernel<<<1, kPlaceThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda
