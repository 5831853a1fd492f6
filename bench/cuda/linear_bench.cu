// Times the Hopper linear against cuBLASLt in f16 on the shapes of LLaMA-7B and 70B: microseconds in CUDA graphs of
// chained launches over more weights than the L2 cache holds; weights, inputs and outputs count as bytes.
//   linear_bench [few] [many] [layer] [sweep] [7b] [70b] [w4a4]      w4a4: of w4a4, beside w4a8
#include <cublasLt.h>

#include <cstring>
#include <string>

#include "bench/cuda/linear_data.cuh"

namespace atom::bench {
namespace {

struct Named {
  const char* name;
  LinearShape shape;
};
constexpr int kLayer = 4;
constexpr int kLayerRows[] = {1, 8, 16, 32, 64, 128, 256, 1024, 4096};
constexpr Named k7b[kLayer] = {{"7B qkv", {12288, 4096, 128}},
                               {"7B o", {4096, 4096, 128}},
                               {"7B gate+up", {22016, 4096, 128}},
                               {"7B down", {4096, 11008, 128}}};
constexpr Named k70b[kLayer] = {{"70B qkv", {10240, 8192, 128}},
                                {"70B o", {8192, 8192, 128}},
                                {"70B gate+up", {57344, 8192, 128}},
                                {"70B down", {8192, 28672, 128}}};
constexpr int kMostRows = 8192;
constexpr double kRotatedBytes = 4.5e8;  // of weights, several times the L2 cache

int multiprocessors = 0;
cublasLtHandle_t library;
void* workspace;
constexpr size_t kWorkspace = size_t{64} << 20;

// Weights and inputs of a shape, ours and the library's.
struct Linear {
  Named named;
  std::vector<hopper::Weight> weights;
  std::vector<__half*> halves;
  uint8_t* x = nullptr;
  __half* x_half = nullptr;
};
float* y;
__half* y_half;

Linear make_linear(const Named& named, bool with_library) {
  Linear l{named, {}, {}, nullptr, nullptr};
  const LinearShape& s = named.shape;
  const cuda::WeightView view = random_weight(s, 3);
  const int copies = std::max(2, static_cast<int>(kRotatedBytes / s.packed_bytes()));
  l.weights.push_back(packed(view, s));
  for (int i = 1; i < copies; ++i) {
    hopper::Weight w = l.weights[0];
    auto* slots = device_array<uint8_t>(s.packed_bytes());
    ATOM_REQUIRE(cudaMemcpy(slots, w.slots, s.packed_bytes(), cudaMemcpyDeviceToDevice));
    w.slots = slots;
    l.weights.push_back(w);
  }
  const cuda::InputView x = random_input(s, kMostRows, 4);
  l.x = x.data;
  if (!with_library) return l;
  l.x_half = device_array<__half>(size_t{1} * kMostRows * s.k);
  fill(l.x_half, size_t{1} * kMostRows * s.k, Fill::kHalf, 6);
  const double bytes = 2.0 * s.n * s.k;
  for (int i = 0; i < std::max(2, static_cast<int>(kRotatedBytes / bytes)); ++i) {
    l.halves.push_back(device_array<__half>(size_t{1} * s.n * s.k));
    fill(l.halves.back(), size_t{1} * s.n * s.k, Fill::kHalf, 7 + i);
  }
  return l;
}

hopper::Task task_for(const Linear& l, int rows, int copy) {
  cuda::InputView x = input_layout(l.named.shape, rows);
  x.data = l.x;
  hopper::Task t = task_of(x, l.weights[copy % l.weights.size()], y);
  t.dependent = 1;
  return t;
}

// y = x w^T in f16 with f32 sums, by one of the library's algorithms.
struct LibraryCall {
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t a, b, c;
  cublasLtMatmulAlgo_t algorithm;
  void run(const Linear& l, int copy, cudaStream_t stream) const {
    const float one = 1, zero = 0;
    ATOM_REQUIRE(cublasLtMatmul(library, operation, &one, l.halves[copy % l.halves.size()], a,
                                l.x_half, b, &zero, y_half, c, y_half, c, &algorithm, workspace,
                                kWorkspace, stream));
  }
};

LibraryCall pick_library(const Linear& l, int rows, int nodes) {
  const LinearShape& s = l.named.shape;
  LibraryCall call{};
  const cublasOperation_t transposed = CUBLAS_OP_T;
  ATOM_REQUIRE(cublasLtMatmulDescCreate(&call.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  ATOM_REQUIRE(cublasLtMatmulDescSetAttribute(call.operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                              &transposed, sizeof transposed));
  ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&call.a, CUDA_R_16F, s.k, s.n, s.k));
  ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&call.b, CUDA_R_16F, s.k, rows, s.k));
  ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&call.c, CUDA_R_16F, s.n, rows, s.n));
  cublasLtMatmulPreference_t preference;
  ATOM_REQUIRE(cublasLtMatmulPreferenceCreate(&preference));
  ATOM_REQUIRE(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof kWorkspace));
  cublasLtMatmulHeuristicResult_t found[5];
  int count = 0;
  ATOM_REQUIRE(cublasLtMatmulAlgoGetHeuristic(library, call.operation, call.a, call.b, call.c,
                                              call.c, preference, 5, found, &count));
  float least = 1e30f;
  for (int i = 0; i < count; ++i) {
    LibraryCall candidate = call;
    candidate.algorithm = found[i].algo;
    const float time = graph_microseconds(
        std::max(2, nodes / 4), [&](int j, cudaStream_t stream) { candidate.run(l, j, stream); },
        2);
    if (time < least) least = time, call.algorithm = found[i].algo;
  }
  return call;
}

int nodes_for(double microseconds_each) {
  return std::max(2, std::min(60, static_cast<int>(6000 / microseconds_each)));
}

std::string plan_name(const hopper::Plan& p) {
  char name[64];
  std::snprintf(name, sizeof name, p.many ? "many %d" : "%d/%d/%d x%d", p.rows, p.blocks, p.groups,
                p.cluster);
  return name;
}

float time_plan(const Linear& l, int rows, const hopper::Plan& p, int nodes, int replays) {
  return graph_microseconds(
      nodes,
      [&](int i, cudaStream_t stream) {
        hopper::Task t = task_for(l, rows, i);
        t.dependent = i > 0;
        ATOM_REQUIRE(hopper::launch_linear(t, p, multiprocessors, stream));
      },
      replays);
}

std::vector<hopper::Plan> candidates(int rows, bool grouped) {
  std::vector<hopper::Plan> plans;
  for (const hopper::Plan& plan : few_rows_plans(grouped))
    if (plan.rows < 2 * std::max(rows, 5) && rows <= 4 * plan.rows && rows <= 256)
      plans.push_back(plan);
  if (rows > 16)
    for (const int many : {64, 128, 256})
      if (many <= 2 * rows && !(grouped && many > 128)) plans.push_back({many, 2, 1, 1, true});
  return plans;
}

double bytes_of(const LinearShape& s, int rows) {
  return static_cast<double>(s.packed_bytes()) + 1.0 * rows * s.k + 4.0 * rows * s.n;
}

float time_planned(const Linear& l, int rows, int nodes) {
  return time_plan(l, rows, hopper::plan(rows, l.weights[0], false, multiprocessors), nodes, 5);
}

void sweep_plans(const Linear& l, int rows, int nodes) {
  std::vector<std::pair<float, hopper::Plan>> times;
  for (const hopper::Plan& p : candidates(rows, l.named.shape.grouped))
    times.push_back({time_plan(l, rows, p, nodes, 4), p});
  std::sort(times.begin(), times.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::printf(" |");
  for (const auto& [time, p] : times) std::printf(" %s %.2f", plan_name(p).c_str(), time);
  const hopper::Plan& p = times[0].second;
  std::printf("\nTUNED%s {%d, %d, %d, {%d, %d, %d, %d, %s}},",
              l.named.shape.grouped ? " grouped" : "", l.weights[0].blocks(),
              l.named.shape.slots4() + l.named.shape.slots8(), rows, p.rows, p.blocks, p.groups,
              p.cluster, p.many ? "true" : "false");
}

// base: the same linear in w4a8 with the library's weights; it may be l.
void one_linear(const Linear& l, const Linear& base, int rows, bool sweep) {
  const LinearShape& s = l.named.shape;
  const double flops = 2.0 * rows * s.n * s.k;
  const int nodes = nodes_for(std::max(s.packed_bytes() / 4.0e6, flops / 1.3e9));
  const hopper::Plan planned = hopper::plan(rows, l.weights[0], false, multiprocessors);
  const float ours = time_planned(l, rows, nodes);
  const LibraryCall call = pick_library(base, rows, nodes);
  const float half = graph_microseconds(
      nodes, [&](int i, cudaStream_t stream) { call.run(base, i, stream); }, 5);
  std::printf("%-12s %5d  %8.2f us  %5.2f TB/s %6.0f TFLOPS  %-11s | f16 %8.2f us  %5.2fx",
              l.named.name, rows, ours, bytes_of(s, rows) / ours / 1e6, flops / ours / 1e6,
              plan_name(planned).c_str(), half, half / ours);
  if (s.grouped) {
    const float progressive = time_planned(base, rows, nodes);
    std::printf(" | w4a8 %8.2f us, %4.2f of it", progressive, ours / progressive);
  }
  if (sweep) sweep_plans(l, rows, nodes);
  std::printf("\n");
}

// Nodes of a graph of layers.
int layer_nodes(const std::vector<Linear>& linears, int rows) {
  double guess = 0;
  for (const Linear& l : linears)
    guess += std::max(l.named.shape.packed_bytes() / 4.0e6,
                      2.0 * rows * l.named.shape.n * l.named.shape.k / 1.3e9);
  return kLayer * std::max(2, std::min(12, static_cast<int>(8000 / guess)));
}
float time_layer(const std::vector<Linear>& linears, int rows, float warm) {
  std::vector<hopper::Plan> plans;
  for (const Linear& l : linears)
    plans.push_back(hopper::plan(rows, l.weights[0], false, multiprocessors));
  return kLayer *
         graph_microseconds(
             layer_nodes(linears, rows),
             [&](int i, cudaStream_t stream) {
               hopper::Task t = task_for(linears[i % kLayer], rows, i / kLayer);
               t.dependent = i > 0;
               ATOM_REQUIRE(hopper::launch_linear(t, plans[i % kLayer], multiprocessors, stream));
             },
             5, warm);
}

// grouped: the same linears in w4a4, or none.
void layer(const std::vector<Linear>& linears, const std::vector<Linear>& grouped, const char* name,
           int rows) {
  std::vector<LibraryCall> calls;
  for (const Linear& l : linears) calls.push_back(pick_library(l, rows, 8));
  float ours = 1e30f, half = 1e30f, groups = 1e30f;
  const float warm = rows >= 1024 ? 250.0f : 0.0f;
  for (int round = 0; round < 2; ++round) {  // alternating
    ours = std::min(ours, time_layer(linears, rows, warm));
    if (!grouped.empty()) groups = std::min(groups, time_layer(grouped, rows, warm));
    half = std::min(half, kLayer * graph_microseconds(
                                       layer_nodes(linears, rows),
                                       [&](int i, cudaStream_t stream) {
                                         calls[i % kLayer].run(linears[i % kLayer], i / kLayer,
                                                               stream);
                                       },
                                       5, warm));
  }
  const std::vector<Linear>& shown = grouped.empty() ? linears : grouped;
  const float time = grouped.empty() ? ours : groups;
  double bytes = 0;
  for (const Linear& l : shown) bytes += bytes_of(l.named.shape, rows);
  std::printf("%-4s layer %5d  %8.2f us  %5.2f TB/s | f16 %8.2f us  %5.2fx", name, rows, time,
              bytes / time / 1e6, half, half / time);
  if (!grouped.empty()) std::printf(" | w4a8 %8.2f us, %4.2f of it", ours, groups / ours);
  std::printf("%s\n", warm > 0 ? "  sustained" : "");
}

void release(const std::vector<Linear>& linears) {
  for (const Linear& l : linears) {
    for (const auto& w : l.weights) cudaFree(const_cast<uint8_t*>(w.slots));
    for (__half* h : l.halves) cudaFree(h);
    cudaFree(l.x);
    cudaFree(l.x_half);
  }
}

}  // namespace
}  // namespace atom::bench

int main(int count, char** words) {
  using namespace atom::bench;
  const auto has = [&](const char* word) {
    for (int i = 1; i < count; ++i)
      if (std::strcmp(words[i], word) == 0) return true;
    return false;
  };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  cudaDeviceProp device;
  ATOM_REQUIRE(cudaGetDeviceProperties(&device, 0));
  multiprocessors = device.multiProcessorCount;
  const bool w4a4 = has("w4a4");
  std::printf("%s, %d multiprocessors; %s, group 128, 128 kept; graphs of dependent launches\n",
              device.name, multiprocessors, w4a4 ? "w4a4" : "w4a8");
  ATOM_REQUIRE(cublasLtCreate(&library));
  workspace = device_array<char>(kWorkspace);
  y = device_array<float>(size_t{kMostRows} * 57344);
  y_half = device_array<__half>(size_t{kMostRows} * 57344);
  for (const bool large : {false, true}) {
    if (!has(large ? "70b" : "7b")) continue;
    std::vector<Linear> linears, grouped;
    for (Named named : large ? k70b : k7b) {
      linears.push_back(make_linear(named, true));
      named.shape.grouped = true;
      if (w4a4) grouped.push_back(make_linear(named, false));
    }
    ATOM_REQUIRE(cudaDeviceSynchronize());
    if (has("layer"))
      for (const int rows : kLayerRows) layer(linears, grouped, large ? "70B" : "7B", rows);
    for (int i = 0; i < kLayer; ++i) {
      const Linear& l = w4a4 ? grouped[i] : linears[i];
      if (has("few"))
        for (const int rows : {8, 16, 32, 64}) one_linear(l, linears[i], rows, has("sweep"));
      if (has("many"))
        for (const int rows : {128, 256, 1024, 4096}) one_linear(l, linears[i], rows, has("sweep"));
    }
    release(linears);
    release(grouped);
  }
  return 0;
}
