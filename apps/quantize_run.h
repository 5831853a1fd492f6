// A quantization with progress on the console; shared by `atom quantize` and `atom eval ablation`.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "quantizer/quantize.h"
#include "session.h"

namespace atom::app {

struct QuantizeJob {
  const checkpoint::ModelFiles* input = nullptr;
  std::filesystem::path output;
  quantizer::Recipe recipe;
  const TokenizedText* calibration = nullptr;
  int samples = 128;
  int sequence = 2048;
  uint64_t seed = 0;
  std::span<const quantizer::LayerOrders> orders;  // of an earlier run; empty: measure them
  bool journal = false, resume = false;            // as in QuantizeOptions
  std::string label = "quantize";                  // begins the progress line
};
quantizer::QuantizeReport run_quantize(const QuantizeJob& job, Runtime& runtime);

// Error: the hidden states of the calibration windows, f32, exceed the memory that is available.
void require_memory(int samples, int sequence, const model::ModelConfig& config);

}  // namespace atom::app
