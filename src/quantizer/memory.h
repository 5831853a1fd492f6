// What a quantization will hold in memory, from sizes alone. Only transforms grow with the number of layers: a few
// small matrices for each.
#pragma once

#include <cstdint>

#include "checkpoint/model_files.h"
#include "model/config.h"
#include "quantizer/recipe.h"

namespace atom::quantizer {

// Bytes.
struct MemoryEstimate {
  int64_t activations = 0;     // hidden states of the calibration windows
  int64_t weights = 0;         // a layer, or the embedding and head, whichever is more
  int64_t second_moments = 0;  // of one layer's inputs, with a factor
  int64_t transforms = 0;      // of all layers
};

// `tokens`: of all calibration windows, 0 when nothing is calibrated.
MemoryEstimate estimate_memory(const Recipe& recipe, const model::ModelConfig& config,
                               int64_t tokens);

// Gives back the memory in which the tensors of a layer were read.
void release_layer(const checkpoint::ModelFiles& files, int layer);
void log_memory(const Recipe& recipe, const model::ModelConfig& config, int64_t tokens);

}  // namespace atom::quantizer
