#include "backend/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "backend/cuda/activation.h"
#include "backend/cuda/packed_linear.h"
#include "backend/plugin.h"
#include "base/error.h"

namespace atom::backend::cuda {

CudaBackend::CudaBackend() : device_(open_device()) {
  require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

std::string CudaBackend::description() const {
  return fmt::format(
      "cuda: {}, compute capability {}.{}, {} multiprocessors, {} MiB, plain kernels", device_.name,
      device_.major, device_.minor, device_.multiprocessors, device_.memory >> 20);
}

void CudaBackend::upload(void* device, const void* host, size_t bytes) {
  staging_.copy(device, host, bytes, stream_);
}

void CudaBackend::download(void* host, const void* device, size_t bytes) {
  if (bytes > 0)
    require(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "download");
  synchronize();
}

void CudaBackend::synchronize() {
  require(cudaStreamSynchronize(stream_), "waiting for the device");
}

std::unique_ptr<PackedLinear> CudaBackend::pack(std::span<const LinearWeight> parts,
                                                const format::Segments& input) {
  return std::make_unique<CudaLinear>(parts, input, stream_);
}

size_t CudaBackend::activation_bytes(const InputSpec& spec, int rows) const {
  return static_cast<size_t>(input_view(spec).row_bytes) * static_cast<size_t>(rows);
}

void CudaBackend::note(const std::string& fallback) {
  if (!fallback.empty() &&
      std::find(fallbacks_.begin(), fallbacks_.end(), fallback) == fallbacks_.end())
    fallbacks_.push_back(fallback);
}

float* CudaBackend::rows_scratch(int rows, int width) {
  rows_.reserve(static_cast<size_t>(rows) * static_cast<size_t>(width) * sizeof(float));
  return rows_.as<float>();
}

void CudaBackend::quantize_rows(const float* x, const Activation& y) {
  const InputSpec& spec = *y.spec;
  QuantizeTask task{.x = x,
                    .order = spec.order,
                    .hadamard = spec.hadamard,
                    .clip = spec.clip,
                    .y = input_view(y)};
  if (spec.order != nullptr || spec.hadamard != 0) {
    ordered_.reserve(static_cast<size_t>(y.rows) * static_cast<size_t>(spec.k()) * sizeof(float));
    task.ordered = ordered_.as<float>();
  }
  require(launch_quantize(task, stream_), "quantize");
}

void CudaBackend::quantize(const QuantizeArgs& args) { quantize_rows(args.x, args.y); }

void CudaBackend::dequantize(const Activation& x, float* y) {
  require(launch_dequantize(input_view(x), y, stream_), "dequantize");
}

void CudaBackend::export_codes(const Activation& x, int8_t* codes, float* scales) {
  const InputView view = input_view(x);
  const auto row_bytes = static_cast<size_t>(view.row_bytes);
  std::vector<uint8_t> rows(row_bytes * static_cast<size_t>(x.rows));
  download(rows.data(), x.data, rows.size());
  for (size_t row = 0; row < static_cast<size_t>(x.rows); ++row)
    for (const InputSegment& s : view.at) {
      const uint8_t* from = rows.data() + row * row_bytes;
      if (s.group == 0) {
        codes = std::fill_n(codes, s.size, int8_t{0});
        continue;
      }
      codes = std::copy_n(reinterpret_cast<const int8_t*>(from + s.codes_at), s.size, codes);
      scales = std::copy_n(reinterpret_cast<const float*>(from + s.scales_at), s.groups, scales);
    }
}

void CudaBackend::linear(const LinearArgs& args) {
  const bool by_expert = args.row_ends != nullptr;
  check(by_expert || args.weights.size() == 1, "a dense linear has one weight");
  LinearTask task{.x = input_view(args.x),
                  .row_ends = args.row_ends,
                  .row_index = args.row_index,
                  .add = args.then == Then::kAdd ? 1 : 0,
                  .y = args.y};
  for (size_t e = 0; e < args.weights.size(); ++e) {
    const auto& linear = dynamic_cast<const CudaLinear&>(*args.weights[e]);
    check(linear.input() == args.x.spec->segments, "the weight was packed for another input");
    note(linear.notice());
    task.w = linear.view();
    task.expert = static_cast<int>(e);
    require(launch_linear(task, stream_), "linear");
  }
}

}  // namespace atom::backend::cuda

extern "C" __attribute__((visibility("default"))) atom::backend::Backend* atom_make_backend(
    uint64_t abi) {
  if (abi != atom::backend::plugin_abi()) return nullptr;
  return new atom::backend::cuda::CudaBackend();
}
