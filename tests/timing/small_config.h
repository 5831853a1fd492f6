// A model that takes a moment to make: of the Llama family, or a mixture of `experts`, two of which each token takes.
#pragma once

#include "model/config.h"

namespace atom::timing {

inline model::ModelConfig small_config(int experts = 1) {
  model::ModelConfig config;
  config.family =
      &model::find_family(experts > 1 ? "MixtralForCausalLM" : "LlamaForCausalLM", "test");
  config.vocabulary = 96;
  config.hidden = 128;
  config.intermediate = 192;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.max_positions = 256;
  config.norm_epsilon = 1e-5f;
  config.rope_theta = 10000;
  config.experts = experts;
  config.experts_per_token = experts > 1 ? 2 : 1;
  return config;
}

}  // namespace atom::timing
