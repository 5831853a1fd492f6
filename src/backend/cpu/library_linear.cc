// OpenBLAS beside the kernels of this folder, for comparisons.
#include <cblas.h>

#include "backend/cpu/cpu_backend.h"

namespace atom::backend::cpu {
namespace {

// The library has a number of threads for the whole process: that of the executor while a call lasts.
class Sgemm final : public LibraryLinear {
 public:
  Sgemm(const LibraryShape& shape, int threads) : shape_(shape), threads_(threads) {}

  int choices() const override { return 1; }
  void enqueue(int, const void* x, const void* w, void* y) override {
    const int before = openblas_get_num_threads();
    openblas_set_num_threads(threads_);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, shape_.rows, shape_.n, shape_.k, 1.0f,
                static_cast<const float*>(x), shape_.k, static_cast<const float*>(w), shape_.k,
                0.0f, static_cast<float*>(y), shape_.n);
    openblas_set_num_threads(before);
  }

 private:
  LibraryShape shape_;
  int threads_;
};

}  // namespace

std::unique_ptr<LibraryLinear> CpuBackend::library_linear(const LibraryShape& shape) {
  if (shape.format != LibraryFormat::kF32) return nullptr;
  return std::make_unique<Sgemm>(shape, executor_.threads());
}

std::string CpuBackend::library() { return "OpenBLAS sgemm"; }

}  // namespace atom::backend::cpu
