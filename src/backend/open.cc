#include "backend/open.h"

#include "base/error.h"

namespace atom::backend {

std::unique_ptr<Backend> open_backend(std::string_view name, const OpenOptions& options) {
  if (name == "reference") return make_reference_backend();
  if (name == "cpu") return make_cpu_backend(options);
  if (name == "cuda") return make_cuda_backend(options);
  fail("backend '{}' is not one of reference, cpu, cuda", name);
}

}  // namespace atom::backend
