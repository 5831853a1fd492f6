#include "backend/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "backend/cuda/activation.h"
#include "backend/cuda/packed_linear.h"
#include "backend/cuda/plan_file.h"
#include "backend/cuda/tuner.h"
#include "backend/plugin.h"
#include "base/error.h"
#include "base/file.h"
#include "format/list.h"

namespace atom::backend::cuda {

CudaBackend::CudaBackend(const PluginOptions& options) : options_(options), device_(open_device()) {
  read_plans();
  require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  if (!is_hopper()) return;
  silu_offsets_.reserve(hopper::kSiluOffsets);
  require(hopper::launch_silu_offsets(silu_offsets_.as<int8_t>(), stream_), "tabulating silu");
  synchronize();  // gates read it before they wait for the kernel before them
}

void CudaBackend::read_plans() {
  constexpr uint64_t kMostBytes = 1 << 22;
  if (options_.tuned.empty()) return;
  PlanFile file = parse_plan_file(read_file(options_.tuned, kMostBytes), options_.tuned);
  require_device(file, options_.tuned, device_.name, device_.multiprocessors);
  measured_ = std::move(file.plans);
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

std::string CudaBackend::kernels_word() const {
  if (!is_hopper()) return "plain kernels";
  std::string origin = hopper::origin_of_plans(device_.multiprocessors);
  if (!options_.tuned.empty())
    origin = fmt::format("{} plans of {}, else {}", measured_.size(), options_.tuned, origin);
  return fmt::format(
      "Hopper kernels for w4a4, w4a8, w8a8, w4a16, w16a16 ({}), their inputs and attention, plain "
      "ones for the rest",
      origin);
}

std::string CudaBackend::description() const {
  return fmt::format("cuda: {}, compute capability {}.{}, {} multiprocessors, {} MiB, {}{}",
                     device_.name, device_.major, device_.minor, device_.multiprocessors,
                     device_.memory >> 20, kernels_word(),
                     options_.batch_invariant ? ", batch-invariant" : "");
}

void CudaBackend::upload(void* device, const void* host, size_t bytes) {
  forget_halves();
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

size_t CudaBackend::available_memory() {
  size_t free = 0, total = 0;
  require(cudaMemGetInfo(&free, &total), "asking for free memory");
  return free;
}

std::unique_ptr<PackedLinear> CudaBackend::pack(std::span<const LinearWeight> parts,
                                                const format::Segments& input) {
  return std::make_unique<CudaLinear>(parts, input, is_hopper(), stream_);
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

void CudaBackend::count_saturated(const Activation& x, uint64_t* count) {
  SaturationTask task{.x = input_view(x), .count = reinterpret_cast<unsigned long long*>(count)};
  for (size_t i = 0; i < 2; ++i)
    format::visit(x.spec->segments.at[i].format, [&](auto f) {
      if constexpr (decltype(f)::kInteger) task.low[i] = f.kLow, task.high[i] = f.kHigh;
    });
  require(launch_count_saturated(task, stream_), "counting saturated codes");
}

void CudaBackend::linear(const LinearArgs& args) {
  const bool by_expert = args.row_ends != nullptr;
  check(by_expert || args.weights.size() == 1, "a dense linear has one weight");
  check(args.y == nullptr || args.y_f16 == nullptr,
        "a linear has results in f32 or in f16, not both");
  check(args.y_f16 == nullptr || args.then == Then::kStore, "results in f16 are stored, not added");
  check(reinterpret_cast<uintptr_t>(args.y_f16) % 16 == 0,
        "results in f16 begin at a multiple of 16 bytes");
  const auto all = [&](bool (CudaLinear::*is)() const) {
    return std::all_of(args.weights.begin(), args.weights.end(), [&](const PackedLinear* w) {
      return (dynamic_cast<const CudaLinear&>(*w).*is)();
    });
  };
  if (all(&CudaLinear::is_fast)) return fast_linear(args);
  if (all(&CudaLinear::is_half)) return half_linear(args);
  LinearTask task{.x = input_view(args.x),
                  .row_ends = args.row_ends,
                  .row_index = args.row_index,
                  .add = args.then == Then::kAdd ? 1 : 0,
                  .y = args.y,
                  .y_f16 = args.y_f16};
  for (size_t e = 0; e < args.weights.size(); ++e) {
    const auto& linear = dynamic_cast<const CudaLinear&>(*args.weights[e]);
    check(linear.input() == args.x.spec->segments, "the weight was packed for another input");
    note(linear.notice());
    task.w = linear.view();
    task.expert = static_cast<int>(e);
    require(launch_linear(task, stream_), "linear");
  }
}

std::unique_ptr<LinearTuner> CudaBackend::linear_tuner() {
  if (!is_hopper()) return nullptr;
  return std::make_unique<CudaTuner>(*this);
}

// All experts' weights are packed alike.
void CudaBackend::fast_linear(const LinearArgs& args, const hopper::Plan* chosen) {
  hopper::Task task{.x = input_view(args.x),
                    .row_ends = args.row_ends,
                    .add = args.then == Then::kAdd ? 1 : 0,
                    .y = args.y,
                    .y_f16 = args.y_f16,
                    .dependent = 1};
  const int rows = args.x.rows;
  if (args.row_index != nullptr && rows > 0) {
    const int experts = static_cast<int>(args.weights.size());
    InputView gathered = task.x;
    gathered.rows = rows * experts;
    gathered_.reserve(static_cast<size_t>(gathered.row_bytes) * static_cast<size_t>(gathered.rows));
    gathered.data = gathered_.as<uint8_t>();
    require(launch_gather(task.x, args.row_index, args.row_ends + experts - 1, gathered, stream_),
            "gathering rows");
    task.x = gathered;
  }
  for (size_t e = 0; e < args.weights.size(); ++e) {
    const auto& linear = dynamic_cast<const CudaLinear&>(*args.weights[e]);
    check(linear.input() == args.x.spec->segments, "the weight was packed for another input");
    task.w = linear.fast();
    task.segment4 = linear.segment4();
    task.segment8 = linear.segment8();
    task.expert = static_cast<int>(e);
    const bool by_expert = args.row_ends != nullptr;
    const hopper::PlanSource source = plan_source();
    const hopper::Plan plan = chosen != nullptr ? *chosen
                              : options_.batch_invariant
                                  ? hopper::plan_in_order(rows, task.w, by_expert, source)
                                  : hopper::plan(rows, task.w, by_expert, source);
    require(hopper::launch_linear(task, plan, device_.multiprocessors, stream_), "linear");
  }
}

hopper::HalfRows CudaBackend::reserve_halves(int rows, int k) {
  forget_halves();
  const auto count = static_cast<size_t>(rows);
  halves_.reserve(count * static_cast<size_t>(hopper::HalfRows::pitch(k)) * sizeof(uint16_t));
  half_factors_.reserve(count * sizeof(float));
  return {halves_.as<uint16_t>(), half_factors_.as<float>(), rows, k};
}

// The inputs become f16 once, in the order of the experts; all experts' weights are packed alike.
void CudaBackend::half_linear(const LinearArgs& args, const hopper::Plan* chosen) {
  if (args.weights.empty()) return;
  const auto& first = dynamic_cast<const CudaLinear&>(*args.weights[0]);
  const int experts = static_cast<int>(args.weights.size());
  hopper::HalfRowsTask inputs{
      .x = input_view(args.x), .segment = first.half_segment(), .dependent = 1};
  const int k = first.half().k;
  int rows = args.x.rows;
  if (args.row_index != nullptr) {
    inputs.row_index = args.row_index;
    inputs.count = args.row_ends + experts - 1;
    rows *= experts;
  }
  const bool is_there = args.row_index == nullptr && args.x.data != nullptr &&
                        halved_.data == args.x.data && halved_.rows == rows && halved_.k == k;
  if (is_there) {
    inputs.to = {halves_.as<uint16_t>(), half_factors_.as<float>(), rows, k};
  } else {
    inputs.to = reserve_halves(rows, k);
    require(hopper::launch_half_rows(inputs, stream_), "inputs of a linear");
    if (args.row_index == nullptr) halved_ = {args.x.data, rows, k};
  }
  hopper::HalfTask task{.x = inputs.to,
                        .row_ends = args.row_ends,
                        .add = args.then == Then::kAdd ? 1 : 0,
                        .y = args.y,
                        .y_f16 = args.y_f16,
                        .dependent = 1};
  for (int e = 0; e < experts; ++e) {
    const auto& linear = dynamic_cast<const CudaLinear&>(*args.weights[static_cast<size_t>(e)]);
    check(linear.input() == args.x.spec->segments, "the weight was packed for another input");
    task.w = linear.half();
    task.expert = e;
    const int multiprocessors = device_.multiprocessors;
    const hopper::Plan plan =
        chosen != nullptr ? *chosen
        : options_.batch_invariant
            ? hopper::half_plan_for_any_rows(args.x.rows, task.w, multiprocessors)
            : hopper::half_plan(args.x.rows, task.w, args.row_ends != nullptr, plan_source());
    require(hopper::launch_half_linear(task, plan, device_.multiprocessors, stream_), "linear");
  }
}

}  // namespace atom::backend::cuda

extern "C" __attribute__((visibility("default"))) atom::backend::Backend* atom_make_backend(
    uint64_t abi, const atom::backend::PluginOptions* options) {
  if (abi != atom::backend::plugin_abi()) return nullptr;
  return new atom::backend::cuda::CudaBackend(*options);
}
