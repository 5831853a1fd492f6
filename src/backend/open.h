// Makes a backend by name. Each backend folder defines its own maker; nothing above includes a
// backend.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "backend/backend.h"
#include "base/executor.h"

namespace atom::backend {

struct OpenOptions {
  Executor* executor = nullptr;  // required by "cpu"; outlives the backend
  std::string isa;          // "cpu": "", or one of "baseline", "avx2", "avx512-vnni" to force it
  std::string cuda_plugin;  // "cuda": path of libatom_cuda.so; "": beside the program or in its lib
  // "cuda": the bits of a row's result do not depend on the other rows of the step, at some cost. Elsewhere they never do.
  bool batch_invariant = false;
  // "cuda": path of a file with plans that were measured on the device, as LinearTuner gives it; "": none.
  std::string tuned;
};

// "reference" | "cpu" | "cuda". Error: another word, an instruction set that this machine lacks, or no plug-in, driver
// or device for "cuda".
std::unique_ptr<Backend> open_backend(std::string_view name, const OpenOptions& options);

// Makers, defined by the backends.
std::unique_ptr<Backend> make_reference_backend();
std::unique_ptr<Backend> make_cpu_backend(const OpenOptions& options);
std::unique_ptr<Backend> make_cuda_backend(const OpenOptions& options);  // open_plugin.cc

}  // namespace atom::backend
