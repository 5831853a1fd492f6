// How other programs say that they quantized a model: GPTQ, AWQ and compressed-tensors (docs/formats.md).
//
//   const auto config = read_packed_config(quantization, "model/config.json");   // no value: none of them
//   const PackedFormat* format = config->find("model.layers.0.mlp.up_proj");
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atom::checkpoint {

// How the weights [rows, inputs] of some linears are stored. A value is (code - zero) * scale.
struct PackedFormat {
  enum class Layout : uint8_t { kGptq, kAwq, kPacked, kInt8, kFloat8, kMxfp4, kNvfp4 };
  static constexpr int64_t kAll = 0;

  Layout layout = Layout::kPacked;
  int bits = 4;
  int64_t group = kAll;         // inputs that share a scale
  int64_t rows = 1;             // rows that share it
  bool symmetric = true;        // the file needs no zeros
  bool zeros_less_one = false;  // GPTQ's first format stores a zero less 1
  bool ordered = false;         // groups follow an order of the inputs that is stored
  // What the file wants done to the inputs of the linears: nothing, int8 per token, or something else, in words.
  enum class Inputs : uint8_t { kFloat, kInt8PerToken, kOther };
  Inputs inputs = Inputs::kFloat;

  bool operator==(const PackedFormat&) const = default;
};

struct PackedGroup {
  std::vector<std::string> targets;  // names, "re:" and a regular expression of them, or "Linear"
  PackedFormat format;
};

struct PackedConfig {
  std::string method;  // "GPTQ", "AWQ", "compressed-tensors"
  std::string source;  // file that says so
  std::vector<PackedGroup> groups;

  // The group that names a module; of several, a name wins over an expression, and that over "Linear".
  // nullptr: none does. Error: an expression that cannot be compiled or takes too many steps.
  const PackedFormat* find(std::string_view module) const;
};

// `quantization` is the value of quantization_config. No value: a quant_method of none of the three. Error naming source, field, rule and value: a field that is missing, out of range, or
// asks for what is not read (GEMV's order, 5 bits, a quantized KV-cache, sparse weights, ...).
std::optional<PackedConfig> read_packed_config(const Json& quantization, const std::string& source);

}  // namespace atom::checkpoint
