// Times the Hopper linears with floating-point inputs against cuBLASLt in f16: microseconds in CUDA graphs of chained
// launches, each of the rows' kernel and the linear's, over more weights than the L2 cache holds. From 1024 rows on after 150 ms of
// load. The roofline is the longer of the weights' bytes at 4.4 TB/s and the products at 800 TFLOPS.
//   half_bench [few] [middle] [many] [sweep] [7b] [70b] [head] [f16] [w4a16] [lone]     lone: without the rows' kernel
#include <cublasLt.h>

#include <cstring>
#include <string>

#include "backend/cuda/hopper_measured.h"
#include "bench/cuda/half_data.cuh"

namespace atom::bench {
namespace {

struct Named {
  const char *group, *name;
  int n, k;
};
constexpr Named kShapes[] = {
    {"head", "head 32000x4096", 32000, 4096},
    {"head", "head 128256x8192", 128256, 8192},
    {"7b", "7B qkv", 12288, 4096},
    {"7b", "7B o", 4096, 4096},
    {"7b", "7B gate+up", 22016, 4096},
    {"7b", "7B down", 4096, 11008},
    {"70b", "70B qkv", 10240, 8192},
    {"70b", "70B o", 8192, 8192},
    {"70b", "70B gate+up", 57344, 8192},
    {"70b", "70B down", 8192, 28672},
};
constexpr int kMostRows = 4096;
constexpr double kRotatedBytes = 4.5e8;  // of weights, several times the L2 cache

struct Options {
  bool few, middle, many, sweep, f16, w4a16, lone;
};
int multiprocessors = 0;
cublasLtHandle_t library;
void* workspace;
constexpr size_t kWorkspace = size_t{64} << 20;
float* y;
__half* y_half;

int copies_of(double bytes) { return std::max(2, static_cast<int>(kRotatedBytes / bytes)); }
int nodes_for(double microseconds_each) {
  return std::max(2, std::min(40, static_cast<int>(5000 / microseconds_each)));
}

// y = x w^T in f16 with f32 sums, by the fastest of the library's first five algorithms.
class Library {
 public:
  Library(const Named& named) : named_(named) {
    const double bytes = 2.0 * named.n * named.k;
    x_ = device_array<__half>(size_t{kMostRows} * named.k);
    fill(x_, size_t{kMostRows} * named.k, Fill::kHalf, 6);
    for (int i = 0; i < copies_of(bytes); ++i) {
      weights_.push_back(device_array<__half>(size_t{1} * named.n * named.k));
      fill(weights_.back(), size_t{1} * named.n * named.k, Fill::kHalf, 7 + i);
    }
  }
  ~Library() {
    cudaFree(x_);
    for (__half* w : weights_) cudaFree(w);
  }
  void prepare(int rows, int nodes) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    ATOM_REQUIRE(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    ATOM_REQUIRE(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA,
                                                &transposed, sizeof transposed));
    ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&a_, CUDA_R_16F, named_.k, named_.n, named_.k));
    ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&b_, CUDA_R_16F, named_.k, rows, named_.k));
    ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&c_, CUDA_R_16F, named_.n, rows, named_.n));
    cublasLtMatmulPreference_t preference;
    ATOM_REQUIRE(cublasLtMatmulPreferenceCreate(&preference));
    ATOM_REQUIRE(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof kWorkspace));
    cublasLtMatmulHeuristicResult_t found[5];
    int count = 0;
    ATOM_REQUIRE(cublasLtMatmulAlgoGetHeuristic(library, operation_, a_, b_, c_, c_, preference, 5,
                                                found, &count));
    float least = 1e30f;
    cublasLtMatmulAlgo_t best{};
    for (int i = 0; i < count; ++i) {
      algorithm_ = found[i].algo;
      const float time = microseconds(nodes, 2, 0);
      if (time < least) least = time, best = algorithm_;
    }
    algorithm_ = best;
  }
  float microseconds(int nodes, int replays, float warm) const {
    return graph_microseconds(
        nodes,
        [&](int i, cudaStream_t stream) {
          const float one = 1, zero = 0;
          ATOM_REQUIRE(cublasLtMatmul(library, operation_, &one, weights_[i % weights_.size()], a_,
                                      x_, b_, &zero, y_half, c_, y_half, c_, &algorithm_, workspace,
                                      kWorkspace, stream));
        },
        replays, warm);
  }

 private:
  Named named_;
  __half* x_;
  std::vector<__half*> weights_;
  cublasLtMatmulDesc_t operation_;
  cublasLtMatrixLayout_t a_, b_, c_;
  cublasLtMatmulAlgo_t algorithm_;
};

// Ours.
class Linear {
 public:
  Linear(const Named& named, bool int4) : named_(named) {
    shape_ = {named.n, named.k, int4 ? cuda::Element::kInt4 : cuda::Element::kF16};
    const cuda::WeightView view = half_weight(shape_, 3);
    weights_.push_back(half_packed(view, shape_));
    ATOM_REQUIRE(cudaDeviceSynchronize());
    ATOM_REQUIRE(cudaFree(const_cast<uint8_t*>(view.at[0].codes)));
    const hopper::HalfWeight& first = weights_[0];
    for (int i = 1; i < copies_of(static_cast<double>(first.bytes())); ++i) {
      hopper::HalfWeight w = weights_[0];
      auto* slots = device_array<uint8_t>(w.bytes());
      ATOM_REQUIRE(cudaMemcpy(slots, w.slots, w.bytes(), cudaMemcpyDeviceToDevice));
      w.slots = slots;
      weights_.push_back(w);
    }
    x_ = half_input(shape_, kMostRows);
    fill(x_.data, static_cast<size_t>(x_.row_bytes) * kMostRows / 4, Fill::kFloat, 4);
    rows_ = half_rows(kMostRows, named.k);
    hopper::HalfRowsTask task;
    task.x = x_;
    task.to = rows_;
    ATOM_REQUIRE(hopper::launch_half_rows(task, nullptr));
  }
  ~Linear() {
    for (const hopper::HalfWeight& w : weights_) cudaFree(const_cast<uint8_t*>(w.slots));
    cudaFree(x_.data);
    cudaFree(rows_.values);
    cudaFree(rows_.factors);
  }
  const hopper::HalfWeight& weight() const { return weights_[0]; }
  const char* name() const { return shape_.name(); }
  float microseconds(int rows, const hopper::Plan& plan, int nodes, bool lone, int replays,
                     float warm = 0) const {
    return graph_microseconds(
        nodes,
        [&](int i, cudaStream_t stream) {
          hopper::HalfRowsTask convert;
          convert.x = x_;
          convert.x.rows = rows;
          convert.to = rows_;
          convert.to.rows = rows;
          convert.dependent = i > 0;
          if (!lone) ATOM_REQUIRE(hopper::launch_half_rows(convert, stream));
          hopper::HalfTask t;
          t.x = convert.to;
          t.w = weights_[i % weights_.size()];
          t.y = y;
          t.dependent = i > 0 || !lone;
          ATOM_REQUIRE(hopper::launch_half_linear(t, plan, multiprocessors, stream));
        },
        replays, warm);
  }

 private:
  Named named_;
  HalfShape shape_;
  std::vector<hopper::HalfWeight> weights_;
  cuda::InputView x_;
  hopper::HalfRows rows_;
};

void sweep(Linear& linear, int rows, int nodes, bool lone) {
  std::vector<std::pair<float, hopper::Plan>> times;
  for (const hopper::Plan& p : hopper::plans_to_measure(rows, linear.weight()))
    times.push_back({linear.microseconds(rows, p, nodes, lone, 3), p});
  std::sort(times.begin(), times.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::printf("   ");
  for (size_t i = 0; i < std::min<size_t>(times.size(), 7); ++i)
    std::printf(" %s %.2f", plan_name(times[i].second).c_str(), times[i].first);
  const hopper::Plan& p = times[0].second;
  std::printf("\nTUNED %s %d %d %d {%d, %d, %d, %d, %s}\n", linear.name(), linear.weight().n,
              linear.weight().k, rows, p.rows, p.blocks, p.groups, p.cluster,
              p.many ? "true" : "false");
}

void time_rows(const Named& named, std::vector<Linear*> linears, Library& half, int rows,
               const Options& options) {
  const double flops = 2.0 * rows * named.n * named.k;
  const int library_nodes = nodes_for(std::max(2.0 * named.n * named.k / 4.0e6, flops / 7e8));
  half.prepare(rows, library_nodes);
  const float warm = rows >= 1024 ? 150.0f : 0.0f;
  const float of_library = half.microseconds(library_nodes, 5, warm);
  for (Linear* linear : linears) {
    const hopper::HalfWeight& w = linear->weight();
    const double bytes = static_cast<double>(w.bytes());
    const int nodes = nodes_for(std::max(bytes / 4.0e6, flops / 7e8));
    const hopper::Plan plan = hopper::half_plan(rows, w, false, multiprocessors);
    const float ours = linear->microseconds(rows, plan, nodes, options.lone, 5, warm);
    const double roof = std::max(bytes / 4.4e6, flops / 8e8);
    std::printf(
        "%-17s %-5s %5d %9.2f us %5.2f TB/s %4.0f TFLOPS %3.0f%% of roof  %-11s | f16 %9.2f us "
        "%5.2fx\n",
        named.name, linear->name(), rows, ours, bytes / ours / 1e6, flops / ours / 1e6,
        100 * roof / ours, plan_name(plan).c_str(), of_library, of_library / ours);
    if (options.sweep) sweep(*linear, rows, nodes, options.lone);
  }
}

void time_shape(const Named& named, const Options& options) {
  Library half(named);
  std::vector<Linear*> linears;
  if (options.f16) linears.push_back(new Linear(named, false));
  if (options.w4a16) linears.push_back(new Linear(named, true));
  ATOM_REQUIRE(cudaDeviceSynchronize());
  if (options.few)
    for (const int rows : {1, 8, 16, 32}) time_rows(named, linears, half, rows, options);
  if (options.middle)
    for (const int rows : {64, 128, 256}) time_rows(named, linears, half, rows, options);
  if (options.many)
    for (const int rows : {1024, 4096}) time_rows(named, linears, half, rows, options);
  for (Linear* linear : linears) delete linear;
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
  std::printf("%s, %d multiprocessors; graphs of dependent launches\n", device.name,
              multiprocessors);
  ATOM_REQUIRE(cublasLtCreate(&library));
  workspace = device_array<char>(kWorkspace);
  y = device_array<float>(size_t{kMostRows} * 128256);
  y_half = device_array<__half>(size_t{kMostRows} * 128256);
  const bool any_rows = !has("few") && !has("middle") && !has("many"),
             any_kind = !has("f16") && !has("w4a16");
  const bool any_shape = !has("7b") && !has("70b") && !has("head");
  const Options options{any_rows || has("few"),
                        any_rows || has("middle"),
                        any_rows || has("many"),
                        has("sweep"),
                        any_kind || has("f16"),
                        any_kind || has("w4a16"),
                        has("lone")};
  for (const Named& named : kShapes)
    if (any_shape || has(named.group)) time_shape(named, options);
  return 0;
}
