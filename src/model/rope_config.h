// RoPE's part of config.json, in both spellings that checkpoints come in: rope_theta + rope_scaling, and rope_parameters
// (which may nest under "full_attention").
//
//   read_rope(config, "model/config.json", out);   // out.head_dim and the numbers of positions are known
//
// Types: default; linear (Chen et al. 2023); llama3; yarn (Peng et al. 2023); longrope (Ding et al. 2024), up to the
// original length or for longer texts. dynamic (NTK scaling of the base by the
// length), for the length that is asked for.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "model/config.h"

namespace atom::model {

// Sets rope_theta and rope_scaling, and with longrope max_positions. Error naming file, field, rule and value: another type,
// a field that is missing or out of its range, two spellings that contradict each other, entries for single layers.
void read_rope(const Json& config, std::string_view source, ModelConfig& out);

// The most positions that extend_positions() allows: with linear, dynamic and yarn the original length times the factor, with
// longrope max_position_embeddings. At least max_positions, which it is for all other types.
int most_positions(const ModelConfig& config);

// Makes room for texts of `positions`, as far as most_positions() allows; fewer than max_positions change nothing. The
// frequencies of longrope and dynamic depend on the length: all texts get those of the longer ones (longrope) or of a text
// of `positions` (dynamic), as keys in the cache cannot turn again. True when the frequencies changed.
bool extend_positions(ModelConfig& config, int64_t positions);

}  // namespace atom::model
