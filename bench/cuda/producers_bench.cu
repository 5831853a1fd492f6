// Times the Hopper producers in CUDA graphs of launches that depend on each other: microseconds, bytes read and written
// once, and their share of what a device-to-device copy of as many bytes reaches in the same run; beside it the plain
// kernels (norm or gate, then quantize) and an RMSNorm of the same rows that does not quantize. Gates from rows in f32
// and in f16.
//   producers_bench [FILE.csv] [norm] [rows] [gate] [ROWS...]      all of them without words
// FILE.csv is what bench/baselines/producers.py writes: lines then have the time of torch, which does not quantize
// either: rms_norm for norms and rows, the faster silu(gate) * up for gates.
#include <cctype>
#include <cstring>
#include <string>

#include "bench/cuda/producer_data.cuh"

namespace atom::bench {
namespace {

using hopper::ProduceTask;
using hopper::Source;

constexpr int kMostRows = 4096;
constexpr double kColdBytes = 3e8;  // many rows: buffers rotate through several times the L2 cache
constexpr int kFewRows = 64;  // few rows: a producer finds what the kernel before wrote in the L2
constexpr int kNormThreads = 1024;

struct Case {
  Source source;
  RowShape shape;
  bool ordered;
  int hadamard;
  bool from_f16 = false;
  size_t value_bytes() const { return from_f16 ? 2 : 4; }
};

// Rows of f32 to rows of f32, a block each: what an engine without quantization runs. k is a multiple of 4.
// The gain is read before the kernel waits for the one before it, where the launch allows that.
__global__ void __launch_bounds__(kNormThreads)
    norm_kernel(const float* x, const float* gain, float* y, int k, float epsilon) {
  __shared__ float partial[32];
  asm volatile("griddepcontrol.launch_dependents;");
  const auto* from = reinterpret_cast<const float4*>(x + int64_t{blockIdx.x} * k);
  auto* to = reinterpret_cast<float4*>(y + int64_t{blockIdx.x} * k);
  constexpr int kHeld = 4;
  float4 v[kHeld], g[kHeld];
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = static_cast<int>(threadIdx.x + j * blockDim.x);
    g[j] = i < k / 4 ? reinterpret_cast<const float4*>(gain)[i] : make_float4(0, 0, 0, 0);
  }
  asm volatile("griddepcontrol.wait;" ::: "memory");
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = static_cast<int>(threadIdx.x + j * blockDim.x);
    v[j] = i < k / 4 ? from[i] : make_float4(0, 0, 0, 0);
    sum += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
  }
  for (int distance = 16; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = threadIdx.x % 32 < blockDim.x / 32 ? partial[threadIdx.x % 32] : 0.0f;
  for (int distance = 16; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  const float factor = rsqrtf(sum / static_cast<float>(k) + epsilon);
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = static_cast<int>(threadIdx.x + j * blockDim.x);
    if (i >= k / 4) continue;
    to[i] = make_float4(v[j].x * factor * g[j].x, v[j].y * factor * g[j].y,
                        v[j].z * factor * g[j].z, v[j].w * factor * g[j].w);
  }
}

struct Memory {
  float *x, *y, *gain, *scratch, *ordered;
  uint16_t* x_f16;
  int8_t* silu_offsets;
  uint8_t* records;
  int32_t* order;
  size_t x_bytes, y_bytes;
};
Memory memory;

// Buffers that a case rotates through, of so many bytes each.
struct Rotation {
  size_t bytes;
  int copies;
};
Rotation rotation(size_t bytes, int rows, size_t most) {
  bytes = (bytes + 255) / 256 * 256;
  const double wanted = rows > kFewRows ? kColdBytes / static_cast<double>(bytes) : 4.0;
  return {bytes, static_cast<int>(std::clamp(wanted, 1.0, static_cast<double>(most / bytes)))};
}
template <typename T>
T* turn(T* begin, const Rotation& r, int i) {
  return begin + r.bytes / sizeof(T) * static_cast<size_t>(i % r.copies);
}

struct Run {
  Case c;
  int rows, nodes;
  InputView view;
  Rotation x, y;
  double bytes() const {  // read and written once
    const double width = c.source == Source::kGate ? 2.0 : 1.0;
    return rows * (static_cast<double>(c.value_bytes()) * width * c.shape.k +
                   static_cast<double>(view.row_bytes));
  }
};

Run make_run(const Case& c, int rows) {
  Run r{c, rows, rows > kFewRows ? 12 : 60, row_layout(c.shape, rows), {}, {}};
  const size_t width = c.source == Source::kGate ? 2 : 1;
  r.x = rotation(c.value_bytes() * rows * width * c.shape.k, rows,
                 memory.x_bytes / 4 * c.value_bytes());
  r.y = rotation(static_cast<size_t>(r.view.row_bytes) * rows, rows, memory.y_bytes);
  return r;
}

float time_ours(const Run& r) {
  return graph_microseconds(r.nodes, [&](int i, cudaStream_t stream) {
    ProduceTask t;
    t.source = r.c.source;
    t.x = r.c.from_f16 ? nullptr : turn(memory.x, r.x, i);
    t.silu_offsets = memory.silu_offsets;
    t.x_f16 = r.c.from_f16 ? turn(memory.x_f16, r.x, i) : nullptr;
    t.gain = r.c.source == Source::kNorm ? memory.gain : nullptr;
    t.epsilon = 1e-5f;
    t.order = r.c.ordered ? memory.order : nullptr;
    t.hadamard = r.c.hadamard;
    t.y = r.view;
    t.y.data = turn(memory.records, r.y, i);
    t.dependent = i > 0;
    ATOM_REQUIRE(hopper::launch_produce(t, stream));
  });
}

float time_plain(const Run& r) {
  return graph_microseconds(r.nodes, [&](int i, cudaStream_t stream) {
    const float* x = r.c.from_f16 ? nullptr : turn(memory.x, r.x, i);
    cuda::NormTask norm;
    norm.x = x, norm.gain = memory.gain, norm.epsilon = 1e-5f, norm.y = memory.scratch;
    norm.rows = r.rows, norm.k = r.c.shape.k;
    if (r.c.source == Source::kNorm) ATOM_REQUIRE(cuda::launch_norm(norm, stream));
    cuda::GateTask gate;
    gate.x_f16 = r.c.from_f16 ? turn(memory.x_f16, r.x, i) : nullptr;
    gate.x = x, gate.y = memory.scratch, gate.rows = r.rows, gate.k = r.c.shape.k;
    if (r.c.source == Source::kGate) ATOM_REQUIRE(cuda::launch_gate(gate, stream));
    cuda::QuantizeTask q;
    q.x = r.c.source == Source::kRows ? x : memory.scratch;
    q.order = r.c.ordered ? memory.order : nullptr;
    q.hadamard = r.c.hadamard;
    q.ordered = r.c.ordered || r.c.hadamard != 0 ? memory.ordered : nullptr;
    q.y = r.view;
    q.y.data = turn(memory.records, r.y, i);
    ATOM_REQUIRE(cuda::launch_quantize(q, stream));
  });
}

float time_norm(const Run& r) {
  const int k = r.c.shape.k;
  const Rotation x = rotation(size_t{4} * r.rows * k, r.rows, memory.x_bytes);
  const int threads = std::min(kNormThreads, std::max(256, (k / 16 + 31) / 32 * 32));
  if (k > 16 * threads) return 0;
  return graph_microseconds(r.nodes, [&](int i, cudaStream_t stream) {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(r.rows), config.blockDim = dim3(threads);
    config.stream = stream;
    config.attrs = &attribute, config.numAttrs = i > 0 ? 1 : 0;
    ATOM_REQUIRE(
        cudaLaunchKernelEx(&config, norm_kernel, static_cast<const float*>(turn(memory.x, x, i)),
                           static_cast<const float*>(memory.gain), turn(memory.y, x, i), k, 1e-5f));
  });
}

float time_copy(const Run& r) {
  const Rotation half = rotation(static_cast<size_t>(r.bytes() / 2), r.rows, memory.x_bytes);
  return graph_microseconds(r.nodes, [&](int i, cudaStream_t stream) {
    ATOM_REQUIRE(cudaMemcpyAsync(turn(memory.y, half, i), turn(memory.x, half, i), half.bytes,
                                 cudaMemcpyDeviceToDevice, stream));
  });
}

// Of torch, from FILE.csv: the least of an operation's times.
struct TorchTime {
  char op[32];
  int k, rows;
  double us;
};
std::vector<TorchTime> torch_times;

void read_torch_times(const char* path) {
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) {
    std::fprintf(stderr, "%s cannot be read\n", path);
    std::exit(1);
  }
  TorchTime t;
  while (std::fscanf(file, " %31[^,],%d,%d,%lf", t.op, &t.k, &t.rows, &t.us) == 4)
    torch_times.push_back(t);
  std::fclose(file);
}
double torch_time(const Case& c, int rows) {  // 0: there is none
  double least = 0;
  for (const TorchTime& t : torch_times) {
    const bool is_gate = std::strncmp(t.op, "silu", 4) == 0;
    if (is_gate != (c.source == Source::kGate) || t.k != c.shape.k || t.rows != rows) continue;
    if (least == 0 || t.us < least) least = t.us;
  }
  return least;
}

void print(const Case& c, int rows) {
  const Run r = make_run(c, rows);
  const char* word = c.source == Source::kNorm   ? "norm"
                     : c.source == Source::kRows ? "rows"
                                                 : "gate";
  const float ours = time_ours(r), plain = time_plain(r), norm = time_norm(r), copy = time_copy(r);
  std::printf(
      "%s%s %5d %-21s %-5s h%-3d x%4d  %8.2f us %6.0f GB/s %4.0f %% of copy (%.2f us) | plain "
      "kernels "
      "%8.2f us %5.2fx | norm %7.2f us, ours / norm %5.2f",
      word, c.from_f16 ? " of f16" : "", c.shape.k, name_of(c.shape).c_str(),
      c.ordered ? "order" : "", c.hadamard, rows, ours, r.bytes() / ours / 1e3, 100.0 * copy / ours,
      copy, plain, plain / ours, norm, norm > 0 ? ours / norm : 0.0f);
  if (const double torch = torch_time(c, rows); torch > 0)
    std::printf(" | torch %7.2f us, ours / torch %5.2f", torch, ours / torch);
  std::printf("\n");
}

void allocate() {
  constexpr int kWidest = 28672;
  memory.x_bytes = size_t{8} * kMostRows * kWidest;
  memory.y_bytes = memory.x_bytes;
  memory.x = device_array<float>(memory.x_bytes / 4);
  memory.y = device_array<float>(memory.x_bytes / 4);
  memory.x_f16 = device_array<uint16_t>(memory.x_bytes / 4);
  memory.records = reinterpret_cast<uint8_t*>(memory.y);  // nothing reads either
  memory.gain = device_array<float>(kWidest);
  memory.scratch = device_array<float>(size_t{kMostRows} * kWidest);
  memory.ordered = device_array<float>(size_t{kMostRows} * kWidest);
  memory.order = device_array<int32_t>(kWidest);
  fill(memory.x, memory.x_bytes / 4, Fill::kFloat, 3);
  fill(memory.x_f16, memory.x_bytes / 4, Fill::kHalf, 3);
  fill(memory.gain, kWidest, Fill::kFloat, 4);
  memory.silu_offsets = device_array<int8_t>(hopper::kSiluOffsets);
  ATOM_REQUIRE(hopper::launch_silu_offsets(memory.silu_offsets, nullptr));
  ATOM_REQUIRE(cudaDeviceSynchronize());
}

}  // namespace
}  // namespace atom::bench

int main(int count, char** words) {
  using namespace atom::bench;
  if (count > 1 && std::strstr(words[1], ".csv") != nullptr) {
    read_torch_times(words[1]);
    --count, ++words;
  }
  std::vector<std::string> kinds, sizes;
  for (int i = 1; i < count; ++i)
    (std::isdigit(static_cast<unsigned char>(words[i][0])) != 0 ? sizes : kinds)
        .emplace_back(words[i]);
  const auto among = [](const std::vector<std::string>& all, const std::string& word) {
    return all.empty() || std::find(all.begin(), all.end(), word) != all.end();
  };
  const auto has = [&](const char* kind) { return among(kinds, kind); };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  cudaDeviceProp device;
  ATOM_REQUIRE(cudaGetDeviceProperties(&device, 0));
  std::printf("%s, %d multiprocessors\n", device.name, device.multiProcessorCount);
  allocate();
  std::vector<Case> cases;
  for (const int k : {4096, 8192}) {
    if (has("norm"))
      cases.insert(cases.end(), {{Source::kNorm, {k, 128, kInt8}, true, 0},
                                 {Source::kNorm, {k, 128, kInt8}, true, 128},
                                 {Source::kNorm, {k, 128, kInt4Signed}, true, 0},
                                 {Source::kNorm, {k, 0, kInt8}, false, 0}});
    if (has("rows"))
      cases.insert(cases.end(), {{Source::kRows, {k, 128, kInt8}, true, 0},
                                 {Source::kRows, {k, 128, kInt4Signed}, true, 128}});
  }
  for (const int k : {11008, 14336, 28672})
    for (const bool from_f16 : {false, true})
      if (has("gate"))
        cases.insert(cases.end(), {{Source::kGate, {k, 128, kInt8}, false, 0, from_f16},
                                   {Source::kGate, {k, 128, kInt8}, false, 128, from_f16},
                                   {Source::kGate, {k, 128, kInt4Signed}, false, 128, from_f16}});
  for (const Case& c : cases) {
    const std::vector<int32_t> order = permutation(c.shape.k, 5);
    ATOM_REQUIRE(cudaMemcpy(memory.order, order.data(), order.size() * sizeof order[0],
                            cudaMemcpyHostToDevice));
    for (const int rows : {1, 8, 64, 128, 256, 512, 1024, kMostRows})
      if (among(sizes, std::to_string(rows))) print(c, rows);
  }
  return 0;
}
