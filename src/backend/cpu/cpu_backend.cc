#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/activation.h"
#include "backend/cpu/packed_linear.h"
#include "backend/open.h"
#include "base/error.h"

namespace atom::backend::cpu {

CpuBackend::CpuBackend(Executor& executor, Isa isa)
    : executor_(executor),
      isa_(std::move(isa)),
      kernels_(*isa_.kernels),
      scratch_(static_cast<size_t>(executor.threads())) {}

std::string CpuBackend::description() const {
  return fmt::format("cpu, {}, {} thread{}", isa_.name, executor_.threads(),
                     executor_.threads() == 1 ? "" : "s");
}

std::vector<std::string> CpuBackend::fallbacks() const {
  return {notices_.begin(), notices_.end()};
}

void CpuBackend::upload(void* device, const void* host, size_t bytes) {
  if (bytes > 0) std::memcpy(device, host, bytes);
}

void CpuBackend::download(void* host, const void* device, size_t bytes) {
  if (bytes > 0) std::memcpy(host, device, bytes);
}

std::unique_ptr<PackedLinear> CpuBackend::pack(std::span<const LinearWeight> parts,
                                               const format::Segments& input) {
  return std::make_unique<CpuLinear>(parts, input, kernels_, executor_);
}

size_t CpuBackend::activation_bytes(const InputSpec& spec, int rows) const {
  return cpu::activation_bytes(spec, rows);
}

void CpuBackend::run(int64_t count, size_t scratch_bytes,
                     const std::function<void(int64_t, std::byte*)>& body) {
  executor_.parallel_for(count, [&](int64_t i, int worker) {
    Memory& scratch = scratch_[static_cast<size_t>(worker)];
    scratch.reserve(scratch_bytes);
    body(i, scratch.as<std::byte>());
  });
}

void CpuBackend::for_rows(int rows, int64_t row_work, size_t scratch_bytes,
                          const std::function<void(int, std::byte*)>& body) {
  if (rows == 0) return;
  constexpr int64_t kLeastWork = 16384;  // elements: below that a second thread does not pay
  const int64_t parts = std::clamp<int64_t>(rows * row_work / kLeastWork, 1,
                                            std::min<int64_t>(rows, 4 * executor_.threads()));
  run(parts, scratch_bytes, [&](int64_t part, std::byte* scratch) {
    const auto end = static_cast<int>((part + 1) * rows / parts);
    for (auto row = static_cast<int>(part * rows / parts); row < end; ++row) body(row, scratch);
  });
}

}  // namespace atom::backend::cpu

namespace atom::backend {

std::unique_ptr<Backend> make_cpu_backend(const OpenOptions& options) {
  check(options.executor != nullptr, "the cpu backend needs an executor");
  return std::make_unique<cpu::CpuBackend>(*options.executor, cpu::choose_isa(options.isa));
}

}  // namespace atom::backend
