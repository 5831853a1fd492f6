// Tensors of one checkpoint, each read with its rules: type, shape, finite values, codes and scales in range.
//
//   const TensorReader reader(files, scheme);
//   LinearTensors q = reader.linear("model.layers.0.self_attn.q_proj", n, k);
//
// Every error names the folder, the tensor, the rule and the offending value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/model_files.h"
#include "model/layer_tensors.h"
#include "model/scheme.h"
#include "tensor/tensor.h"

namespace atom::model {

// Of a floating dtype.
format::Format format_of(tensor::DType dtype);
// Error naming `where`, the tensor and the value: NaN or infinity in a floating tensor. Integers pass.
void require_finite(const std::string& where, const std::string& name,
                    const tensor::TensorView& view);

class TensorReader {
 public:
  // Both outlive the reader.
  TensorReader(const checkpoint::ModelFiles& files, const Scheme& scheme)
      : files_(files), scheme_(scheme) {}

  // [n] as f32.
  std::vector<float> vector(const std::string& name, int n) const;

  // [n, k], in whatever format the scheme gives the module.
  LinearTensors linear(const std::string& module, int n, int k) const;

  // Input of `module`, whose order lies under `site` (empty: the site never has one).
  Site site(const std::string& name, const std::string& module, int k, bool ordered) const;

  // All linears that read one site must describe the same input.
  void require_equal_inputs(const Site& site, const std::string& first,
                            const std::string& other) const;

 private:
  std::string where() const { return files_.folder().string(); }

  [[noreturn]] void refuse_value(const std::string& name, float value) const;
  tensor::TensorView shaped(const std::string& name, const tensor::Shape& shape) const;
  tensor::TensorView typed(const std::string& name, const tensor::Shape& shape,
                           tensor::DType dtype) const;
  tensor::TensorView floating(const std::string& name, const tensor::Shape& shape) const;
  static std::vector<std::byte> copy(std::span<const std::byte> bytes);
  std::vector<std::byte> plain(const std::string& name, int n, int k,
                               format::Segments& segments) const;
  std::vector<std::byte> scales(const std::string& name, const tensor::Shape& shape,
                                tensor::DType dtype) const;
  std::vector<std::byte> row_scales(const std::string& name, int n) const;

  // Larger ones could overflow the s32 sum of a row.
  std::vector<int8_t> multipliers(const std::string& name, const tensor::Shape& shape) const;
  std::vector<std::byte> byte_scales(const std::string& name, const tensor::Shape& shape,
                                     tensor::DType dtype, uint8_t largest) const;
  LinearTensors::Part fp4(const std::string& module, int n, const format::Segment& segment) const;

  // Kernels negate codes, and -128 has no negative in eight bits.
  std::vector<std::byte> int8_codes(const std::string& name, const tensor::Shape& shape) const;
  LinearTensors::Part normal(const std::string& module, int n, format::Segment& segment) const;
  LinearTensors::Part kept(const std::string& module, int n, format::Segment& segment) const;
  std::vector<int32_t> permutation(const std::string& name, int k) const;

  const checkpoint::ModelFiles& files_;
  const Scheme& scheme_;
};

}  // namespace atom::model
