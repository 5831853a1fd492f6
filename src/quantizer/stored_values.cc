#include "quantizer/stored_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "format/list.h"
#include "model/tensor_reader.h"

namespace atom::quantizer {
namespace {

constexpr int kTableRows = 4096;  // changed together

}  // namespace

tensor::DType dtype_of(format::Format format) {
  return format == format::kF32   ? tensor::DType::F32
         : format == format::kF16 ? tensor::DType::F16
                                  : tensor::DType::BF16;
}

std::vector<std::byte> narrowed(const std::string& name, std::span<const float> values,
                                tensor::DType dtype) {
  std::vector<std::byte> out(values.size() * tensor::dtype_size(dtype));
  format::visit(model::format_of(dtype), [&](auto f) {
    using F = decltype(f);
    if constexpr (!F::kInteger) {
      for (size_t i = 0; i < values.size(); ++i) {
        const typename F::Storage bits = F::narrow(values[i]);
        if (!std::isfinite(F::widen(bits)))
          fail("tensor '{}': the value {} does not fit {}", name, values[i], F::kName);
        std::memcpy(out.data() + i * sizeof(bits), &bits, sizeof(bits));
      }
    }
  });
  return out;
}

tensor::DType changed_dtype(tensor::DType source) {
  return source == tensor::DType::F32 ? tensor::DType::F32 : tensor::DType::F16;
}

std::vector<std::byte> changed_table(const std::string& name, const tensor::TensorView& view,
                                     const RowChange& change, tensor::DType dtype) {
  const int64_t rows = view.shape[0], k = view.shape[1];
  const size_t row_bytes = static_cast<size_t>(k) * tensor::dtype_size(view.dtype);
  std::vector<std::byte> out;
  out.reserve(static_cast<size_t>(rows * k) * tensor::dtype_size(dtype));
  for (int64_t begin = 0; begin < rows; begin += kTableRows) {
    const int64_t n = std::min<int64_t>(kTableRows, rows - begin);
    tensor::TensorView part = view;
    part.shape = {n, k};
    part.bytes = view.bytes.subspan(static_cast<size_t>(begin) * row_bytes,
                                    static_cast<size_t>(n) * row_bytes);
    const std::vector<std::byte> bytes =
        narrowed(name, change(tensor::widen(part), static_cast<int>(n)), dtype);
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  return out;
}

std::vector<float> final_gain(const checkpoint::ModelFiles& files,
                              const model::ModelConfig& config) {
  const std::string name = "model.norm.weight";
  model::require_finite(files.folder().string(), name, files.tensor(name));
  std::vector<float> gain = tensor::widen(files.tensor(name));
  check(static_cast<int>(gain.size()) == config.hidden, "the final norm has one gain per channel");
  return gain;
}

}  // namespace atom::quantizer
