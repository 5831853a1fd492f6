// FP4 in a checkpoint: its words in quantization_config, and the rules of its stored scales.
//
//   number_json = fp4_json(format::kMxfp4, false);   // {"num_bits": 4, "type": "float", ...}
//   parse_fp4(number_json);                          // kMxfp4
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "format/format.h"
#include "tensor/tensor.h"

namespace atom::model {

// A weight or an input (`dynamic`) of an FP4 format, in compressed-tensors' words.
Json fp4_json(format::Format format, bool dynamic);
// Floating point of four bits.
bool is_fp4(const Json& number);
// kF32: none of the FP4 formats.
format::Format parse_fp4(const Json& number);

// Of an input. The FP4 formats whose scales are themselves rounded have none.
bool has_clip(format::Format format);

// Error naming the tensor: a byte above `largest`, which is no scale.
void require_scale_bytes(std::string_view where, const std::string& name,
                         const tensor::TensorView& view, uint8_t largest);
// The F32 [1] of nvfp4. Error naming the tensor: not positive, or not finite.
std::vector<float> read_global_scale(std::string_view where, const std::string& name,
                                     const tensor::TensorView& view);

}  // namespace atom::model
