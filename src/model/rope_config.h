// RoPE's part of config.json, in both spellings that checkpoints come in: rope_theta + rope_scaling, and rope_parameters
// (which may nest under "full_attention").
//
//   read_rope(config, "model/config.json", out);   // out.head_dim and the numbers of positions are known
//
// Types: default; linear (Chen et al. 2023); llama3; yarn (Peng et al. 2023); longrope (Ding et al. 2024), up to the
// original length or for longer texts. "dynamic" leaves the first max_position_embeddings positions as they are, and more are not served, so it
// is the same as default.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "model/config.h"

namespace atom::model {

// Sets rope_theta and rope_scaling, and with longrope max_positions. Error naming file, field, rule and value: another type,
// a field that is missing or out of its range, two spellings that contradict each other, entries for single layers.
void read_rope(const Json& config, std::string_view source, ModelConfig& out);

// Longrope has other frequencies for texts beyond the original length: with `positions` beyond it all texts get those, as
// keys in the cache cannot turn again, and max_positions becomes stated_positions. True when that changed `config`; other types
// and fewer positions change nothing.
bool extend_positions(ModelConfig& config, int64_t positions);

}  // namespace atom::model
