// Text generation for one prompt: prefill, then one token at a time. (Continuous batching builds on
// the same forward and pages.)
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/weights.h"

namespace atom::engine {

struct GenerateOptions {
  int max_tokens = 128;
  float temperature = 0.8f;  // 0: greedy
  int top_k = 0;             // 0: all
  float min_p = 0;           // 0: all
  float top_p = 1.0f;
  uint64_t seed = 0;
  int max_rows = 512;  // rows of one prefill step; does not change the result on cpu
  bool ignore_eos = false;
  std::vector<int32_t>
      eos_ids;  // that end the text besides the model's own (generation_config.json)
  std::function<bool(int done)>
      on_prompt;  // after a step of the prompt, tokens so far; false stops
  std::function<bool(int32_t id)> on_token;  // called for each new id; false stops
};

struct GenerateResult {
  std::vector<int32_t> ids;              // new ids, EOS not included
  const char* finish_reason = "length";  // "stop" (EOS), "length", "cancelled"
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

// Error: empty prompt, prompt + max_tokens beyond max_position_embeddings (names the numbers), id
// out of range.
GenerateResult generate(const model::Model& model, std::span<const int32_t> prompt,
                        const GenerateOptions& options);

}  // namespace atom::engine
