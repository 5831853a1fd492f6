// Values on their way into a checkpoint: checked, and narrowed to the type that a tensor has there.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/model_files.h"
#include "format/format.h"
#include "model/config.h"
#include "tensor/tensor.h"

namespace atom::quantizer {

tensor::DType dtype_of(format::Format format);  // of a floating-point format

// Values in the bits of `dtype`, rounded to nearest even. Error naming the tensor: a value that f16 cannot hold.
std::vector<std::byte> narrowed(const std::string& name, std::span<const float> values,
                                tensor::DType dtype);

// Where changed 16-bit weights are stored: f16 (more digits than bf16), f32 for an f32 source.
tensor::DType changed_dtype(tensor::DType source);

// The table [n, k] with `change` applied to some thousand rows at a time, narrowed to `dtype`.
using RowChange = std::function<std::vector<float>(const std::vector<float>& rows, int n)>;
std::vector<std::byte> changed_table(const std::string& name, const tensor::TensorView& view,
                                     const RowChange& change, tensor::DType dtype);

// Gains of the final norm, [hidden]. Error: NaN or infinity.
std::vector<float> final_gain(const checkpoint::ModelFiles& files,
                              const model::ModelConfig& config);

}  // namespace atom::quantizer
