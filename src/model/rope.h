// Rotary position embedding (RoPE, Su et al. 2021): the angles of every position.
#pragma once

#include <vector>

#include "model/config.h"

namespace atom::model {

struct RopeTables {
  std::vector<float> cos, sin;  // [positions, head_dim / 2]
};

// What position 1 turns each pair by, [head_dim / 2]; of yarn and longrope without the attention factor.
std::vector<float> rope_frequencies(const ModelConfig& config);

// With config.rope_scaling the frequencies change as transformers' types linear, dynamic, llama3 and yarn do, and yarn's tables are
// multiplied by its attention factor; without: position p turns pair i by p * theta^(-2 i / head_dim). Frequency and angle are rounded to f32, as in the programs
// that models are trained and published with (transformers, vLLM): at position 2000 that moves an angle by up to
// 6e-5, and choices of the model that hang on less (near ties of a router) are those of the rounded angles. Cosine
// and sine of the rounded angle are taken in f64 and rounded once.
RopeTables make_rope_tables(const ModelConfig& config, int positions);

}  // namespace atom::model
