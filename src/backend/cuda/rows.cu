// Operations on single rows in f32: embedding, norm, gate, and the sum over a token's experts.
#include "backend/cuda/numbers.cuh"
#include "backend/cuda/tasks.h"
#include "backend/cuda/team.cuh"

namespace atom::backend::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void embed_kernel(EmbedTask t) {
  int id = t.ids[blockIdx.x];
  if (id < 0 && t.sampled != nullptr) id = t.sampled[~id];
  const bool known = id >= 0 && id < t.count;
  const int64_t from = int64_t{known ? id : 0} * t.width;
  float* y = t.y + int64_t{blockIdx.x} * t.width;
  for (int i = static_cast<int>(threadIdx.x); i < t.width; i += kThreads)
    y[i] = known ? value_at(t.table, from + i, t.element) : quiet_nan();
}

// The sum of squares is f64, so that the factor of the row has one rounding.
__global__ void norm_kernel(NormTask t) {
  __shared__ double partial[kThreads / kWarp];
  const float* x = t.x + int64_t{blockIdx.x} * t.k;
  float* y = t.y + int64_t{blockIdx.x} * t.k;
  double squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < t.k; i += kThreads) {
    const double v = x[i];
    squares += v * v;
  }
  squares = block_reduce(squares, Sum(), partial);
  const auto inv = static_cast<float>(1.0 / sqrt(squares / t.k + static_cast<double>(t.epsilon)));
  for (int i = static_cast<int>(threadIdx.x); i < t.k; i += kThreads)
    y[i] = (x[i] * inv) * t.gain[i];
}

__device__ float widened(float x) { return x; }
__device__ float widened(uint16_t bits) { return f16_to_f32(bits); }
__device__ void narrow(float value, float* to) { *to = value; }
__device__ void narrow(float value, uint16_t* to) { *to = f32_to_f16(value); }

// A warp takes one head. T as of gate_kernel.
template <typename T>
__global__ void norm_heads_kernel(NormHeadsTask t, T* rows) {
  const int head = static_cast<int>(blockIdx.y), all = t.heads + 2 * t.kv_heads;
  T* x = rows + (int64_t{blockIdx.x} * all + head) * t.head_dim;
  const float* gain = head < t.heads ? t.q_gain : t.k_gain;
  double squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < t.head_dim; i += kWarp) {
    const double v = widened(x[i]);
    squares += v * v;
  }
  squares = warp_reduce(squares, Sum());
  const auto inv =
      static_cast<float>(1.0 / sqrt(squares / t.head_dim + static_cast<double>(t.epsilon)));
  for (int i = static_cast<int>(threadIdx.x); i < t.head_dim; i += kWarp)
    narrow((widened(x[i]) * inv) * gain[i], x + i);
}

// silu(gate) * up, with silu in f64: one rounding as in the definition. T: float, or uint16_t for f16.
template <typename T>
__global__ void gate_kernel(GateTask t, const T* rows) {
  const T* x = rows + int64_t{blockIdx.x} * 2 * t.k;
  float* y = t.y + int64_t{blockIdx.x} * t.k;
  for (int i = static_cast<int>(threadIdx.x); i < t.k; i += kThreads) {
    const double gate = widened(x[i]);
    y[i] = static_cast<float>(gate / (1.0 + exp(-gate))) * widened(x[t.k + i]);
  }
}

__global__ void combine_kernel(CombineTask t) {
  const int32_t* slots = t.slots + int64_t{blockIdx.x} * t.top_k;
  const float* weights = t.weights + int64_t{blockIdx.x} * t.top_k;
  float* y = t.y + int64_t{blockIdx.x} * t.n;
  for (int i = static_cast<int>(threadIdx.x); i < t.n; i += kThreads) {
    float sum = 0;
    for (int j = 0; j < t.top_k; ++j) sum = fmaf(weights[j], t.x[int64_t{slots[j]} * t.n + i], sum);
    y[i] += sum;
  }
}

}  // namespace

Status launch_embed(const EmbedTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  embed_kernel<<<task.rows, kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

Status launch_norm(const NormTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  norm_kernel<<<task.rows, kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

Status launch_norm_heads(const NormHeadsTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  const dim3 grid(task.rows, task.heads + task.kv_heads);
  if (task.qkv_f16 != nullptr)
    norm_heads_kernel<<<grid, kWarp, 0, stream>>>(task, task.qkv_f16);
  else
    norm_heads_kernel<<<grid, kWarp, 0, stream>>>(task, task.qkv);
  return cudaGetLastError();
}

Status launch_gate(const GateTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  if (task.x_f16 != nullptr)
    gate_kernel<<<task.rows, kThreads, 0, stream>>>(task, task.x_f16);
  else
    gate_kernel<<<task.rows, kThreads, 0, stream>>>(task, task.x);
  return cudaGetLastError();
}

Status launch_combine(const CombineTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  combine_kernel<<<task.rows, kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda
