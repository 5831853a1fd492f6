#include "backend/cuda/library_linear.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define ATOM_HAS_CUBLASLT 1
#endif
#include <dlfcn.h>

#include <utility>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace atom::backend::cuda {

#ifdef ATOM_HAS_CUBLASLT

// The library's functions, a handle, and the workspace of all products.
class CublasLt {
 public:
  CublasLt() {
    for (const char* name : {"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13",
                             "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.12"})
      if (library_ == nullptr && matches(name)) library_ = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) return;
    const bool found = find(create, "cublasLtCreate") && find(destroy, "cublasLtDestroy") &&
                       find(version, "cublasLtGetVersion") && find(matmul, "cublasLtMatmul") &&
                       find(heuristic, "cublasLtMatmulAlgoGetHeuristic") &&
                       find(desc_create, "cublasLtMatmulDescCreate") &&
                       find(desc_destroy, "cublasLtMatmulDescDestroy") &&
                       find(desc_set, "cublasLtMatmulDescSetAttribute") &&
                       find(layout_create, "cublasLtMatrixLayoutCreate") &&
                       find(layout_destroy, "cublasLtMatrixLayoutDestroy") &&
                       find(preference_create, "cublasLtMatmulPreferenceCreate") &&
                       find(preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
                       find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    if (!found || create(&handle) != CUBLAS_STATUS_SUCCESS) handle = nullptr;
  }
  // The library stays loaded: it does not like to leave a process that has used it.
  ~CublasLt() {
    if (handle != nullptr) destroy(handle);
  }
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  bool works() const { return handle != nullptr; }
  void* workspace() {
    memory_.reserve(kWorkspace);
    return memory_.as<void>();
  }
  static constexpr size_t kWorkspace = size_t{64} << 20;

  cublasLtHandle_t handle = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;

 private:
  // Enumerations differ between major versions: the one of the header, and of this build's runtime.
  static bool matches(std::string_view name) {
    return name.ends_with("." + std::to_string(CUBLAS_VER_MAJOR));
  }
  template <typename Function>
  bool find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(library_, name));
    return function != nullptr;
  }

  void* library_ = nullptr;
  DeviceMemory memory_;
};

namespace {

void require_library(cublasStatus_t status, std::string_view what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail("cuBLASLt: {} failed with status {}", what, static_cast<int>(status));
}

struct Types {
  cudaDataType_t in, out, scale;
  cublasComputeType_t compute;
};
Types types_of(LibraryFormat format) {
  if (format == LibraryFormat::kInt8)
    return {CUDA_R_8I, CUDA_R_32I, CUDA_R_32I, CUBLAS_COMPUTE_32I};
  if (format == LibraryFormat::kFp8)
    return {CUDA_R_8F_E4M3, CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F};
  return {CUDA_R_16F, CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F};
}

// Column by column, as the library sees it: y^T [n, rows] = (w^T [k, n])^T x^T [k, rows].
class LibraryProduct final : public LibraryLinear {
 public:
  LibraryProduct(std::shared_ptr<CublasLt> library, const LibraryShape& shape, cudaStream_t stream)
      : library_(std::move(library)), types_(types_of(shape.format)), stream_(stream) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    require_library(library_->desc_create(&product_, types_.compute, types_.scale), "a product");
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    if (shape.format == LibraryFormat::kFp8) set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
    const auto n = static_cast<uint64_t>(shape.n), k = static_cast<uint64_t>(shape.k),
               rows = static_cast<uint64_t>(shape.rows);
    make(&w_, types_.in, k, n);
    make(&x_, types_.in, k, rows);
    make(&y_, types_.out, n, rows);
    propose();
  }
  ~LibraryProduct() override {
    for (cublasLtMatrixLayout_t layout : {w_, x_, y_})
      if (layout != nullptr) library_->layout_destroy(layout);
    if (product_ != nullptr) library_->desc_destroy(product_);
  }
  LibraryProduct(const LibraryProduct&) = delete;
  LibraryProduct& operator=(const LibraryProduct&) = delete;

  int choices() const override { return static_cast<int>(algorithms_.size()); }

  void enqueue(int choice, const void* x, const void* w, void* y) override {
    const float one = 1, zero = 0;
    const int32_t whole_one = 1, whole_zero = 0;
    const bool whole = types_.scale == CUDA_R_32I;
    require_library(library_->matmul(library_->handle, product_,
                                     whole ? static_cast<const void*>(&whole_one) : &one, w, w_, x,
                                     x_, whole ? static_cast<const void*>(&whole_zero) : &zero, y,
                                     y_, y, y_, &algorithms_[static_cast<size_t>(choice)],
                                     library_->workspace(), CublasLt::kWorkspace, stream_),
                    "a product");
  }

 private:
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    require_library(library_->desc_set(product_, attribute, &value, sizeof value), "an attribute");
  }
  void make(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows, uint64_t columns) {
    require_library(
        library_->layout_create(layout, type, rows, columns, static_cast<int64_t>(rows)),
        "a matrix");
  }
  // None where the library does not serve the shape.
  void propose() {
    cublasLtMatmulPreference_t preference = nullptr;
    require_library(library_->preference_create(&preference), "a preference");
    const size_t workspace = CublasLt::kWorkspace;
    library_->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                             sizeof workspace);
    cublasLtMatmulHeuristicResult_t found[kLibraryChoices];
    int count = 0;
    const cublasStatus_t status = library_->heuristic(library_->handle, product_, w_, x_, y_, y_,
                                                      preference, kLibraryChoices, found, &count);
    library_->preference_destroy(preference);
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i)
      if (found[i].state == CUBLAS_STATUS_SUCCESS) algorithms_.push_back(found[i].algo);
  }

  std::shared_ptr<CublasLt> library_;
  Types types_;
  cudaStream_t stream_;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, y_ = nullptr;
  std::vector<cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace

std::unique_ptr<LibraryLinear> CudaBackend::library_linear(const LibraryShape& shape) {
  if (library_ == nullptr) library_ = std::make_shared<CublasLt>();
  if (!library_->works() || shape.format == LibraryFormat::kF32) return nullptr;
  if (shape.format == LibraryFormat::kFp8 && device_.major * 10 + device_.minor < 89)
    return nullptr;
  auto product = std::make_unique<LibraryProduct>(library_, shape, stream_);
  if (product->choices() == 0) return nullptr;
  library_->workspace();  // not while a step is recorded
  return product;
}

std::string CudaBackend::library() {
  if (library_ == nullptr) library_ = std::make_shared<CublasLt>();
  if (!library_->works()) return "no cuBLASLt";
  const size_t version = library_->version();  // 130100: 13.1.0
  return fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

#else

class CublasLt {};
std::unique_ptr<LibraryLinear> CudaBackend::library_linear(const LibraryShape&) { return nullptr; }
std::string CudaBackend::library() { return "no cuBLASLt (not known when this was built)"; }

#endif

}  // namespace atom::backend::cuda
