#include "backend/cuda/recording.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace atom::backend::cuda {

std::unique_ptr<Recording> CudaBackend::record(StepFunction step) {
  return std::make_unique<CudaRecording>(*this, std::move(step));
}

void CudaRecording::forget() {
  if (graph_ != nullptr) cudaGraphExecDestroy(std::exchange(graph_, nullptr));
  sized_ = false;
}

void CudaRecording::run(std::span<const SequenceStep> sequences) {
  if (!CudaBackend::is_decoding(sequences)) return step_(sequences);
  int rows = 0;
  for (const SequenceStep& s : sequences) rows = std::max(rows, s.row_end);
  if (memory_ != device_memory_returns()) forget();
  check(!sized_ || (sequences.size() == sequences_ && rows == rows_),
        "a recorded step has as many sequences and rows each time");
  if (!sized_) {
    backend_.begin_step();
    step_(sequences);
    page_tokens_ = backend_.step_.tokens;
    plans_ = backend_.step_.plans;
    sequences_ = sequences.size();
    rows_ = rows;
    memory_ = device_memory_returns();
    sized_ = true;
    return;
  }
  backend_.prepare(sequences, page_tokens_, plans_);
  if (graph_ == nullptr || memory_ != device_memory_returns()) capture(sequences);
  require(cudaGraphLaunch(graph_, backend_.stream_), "replaying a step");
}

// An error of the function ends the capture before it goes on: the stream is usable again.
void CudaRecording::capture(std::span<const SequenceStep> sequences) {
  if (graph_ != nullptr) cudaGraphExecDestroy(std::exchange(graph_, nullptr));
  cudaGraph_t graph = nullptr;
  require(cudaStreamBeginCapture(backend_.stream_, cudaStreamCaptureModeThreadLocal),
          "recording a step");
  backend_.capturing_ = true;
  std::exception_ptr problem;
  try {
    step_(sequences);
  } catch (...) {
    problem = std::current_exception();
  }
  backend_.capturing_ = false;
  const cudaError_t ended = cudaStreamEndCapture(backend_.stream_, &graph);
  if (problem == nullptr && ended == cudaSuccess) {
    const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    require(made, "recording a step");
    memory_ = device_memory_returns();
    return;
  }
  cudaGetLastError();
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (problem != nullptr) std::rethrow_exception(problem);
  require(ended, "recording a step");
}

}  // namespace atom::backend::cuda
