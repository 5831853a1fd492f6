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
  // A graph converts what it reads, and leaves other rows in the scratch.
  struct Forget {
    CudaBackend& backend;
    ~Forget() { backend.forget_halves(); }
  } forget_at_end{backend_};
  backend_.forget_halves();
  if (by_calls_ || !CudaBackend::is_decoding(sequences)) return step_(sequences);
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
  if (graph_ == nullptr || memory_ != device_memory_returns()) {
    if (const cudaError_t status = capture(sequences); status != 0) {
      backend_.note(
          fmt::format("recorded steps: operation by operation, no graph ({})", words(status)));
      by_calls_ = true;
      return step_(sequences);
    }
  }
  require(cudaGraphLaunch(graph_, backend_.stream_), "replaying a step");
}

// An error of the function ends the capture before it goes on: the stream is usable again. What cannot be captured appears as an
// error of the function, too, but then the capture is void.
cudaError_t CudaRecording::capture(std::span<const SequenceStep> sequences) {
  if (graph_ != nullptr) cudaGraphExecDestroy(std::exchange(graph_, nullptr));
  cudaGraph_t graph = nullptr;
  cudaError_t status = cudaStreamBeginCapture(backend_.stream_, cudaStreamCaptureModeThreadLocal);
  std::exception_ptr problem;
  if (status == cudaSuccess) {
    backend_.capturing_ = true;
    try {
      step_(sequences);
    } catch (...) {
      problem = std::current_exception();
    }
    backend_.capturing_ = false;
    status = cudaStreamEndCapture(backend_.stream_, &graph);
  }
  if (status == cudaSuccess && problem == nullptr) status = cudaGraphInstantiate(&graph_, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (status != cudaSuccess) graph_ = nullptr;
  cudaGetLastError();  // or the next launch would report it again
  if (status == cudaSuccess && problem != nullptr) std::rethrow_exception(problem);
  memory_ = device_memory_returns();
  return status;
}

}  // namespace atom::backend::cuda
