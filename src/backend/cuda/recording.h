// Steps as CUDA graphs. The first run of a step calls its function, which sizes every scratch; the second captures what
// it enqueues; later ones replay that. Before a replay the host refreshes, outside the graph, what depends on the sequences:
// places of rows, page tables, plans of attention. A graph holds addresses: when device memory was given back since the capture,
// by anyone, the step starts over. Where no graph can be made, runs call the function, and fallbacks() says why.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "backend/backend.h"

namespace atom::backend::cuda {

class CudaBackend;

class CudaRecording final : public Recording {
 public:
  CudaRecording(CudaBackend& backend, StepFunction step)
      : backend_(backend), step_(std::move(step)) {}
  ~CudaRecording() override { forget(); }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;

  void run(std::span<const SequenceStep> sequences) override;

 private:
  cudaError_t capture(std::span<const SequenceStep> sequences);  // 0: graph_ is made
  void forget();

  CudaBackend& backend_;
  StepFunction step_;
  cudaGraphExec_t graph_ = nullptr;
  bool by_calls_ = false;  // for good: no graph can be made
  bool sized_ = false;     // the function has run since memory_ was read
  uint64_t memory_ = 0;    // device_memory_returns() that the graph, or the first run, belongs to
  size_t sequences_ = 0;   // of the step, and its rows
  int rows_ = 0;
  int page_tokens_ = 0;        // of the step's attention; 0: it has none
  std::vector<size_t> plans_;  // of the step's attention, CudaBackend::decode_plans_
};

}  // namespace atom::backend::cuda
