// generation_config.json of a model folder: how its makers sample, and what else ends a text.
//
//   const GenerationConfig config = parse_generation_config(json, model.vocabulary, "model/generation_config.json");
//
// Like other servers, do_sample and fields that are not named here are not looked at.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atom::model {

struct GenerationConfig {
  std::optional<float> temperature;         // 0 to 100; 0: the most likely token
  std::optional<float> top_p;               // above 0, at most 1
  std::optional<int> top_k;                 // 0: all, in the file also -1
  std::optional<float> min_p;               // 0 to 1
  std::optional<float> repetition_penalty;  // 0.01 to 100
  std::optional<int> max_new_tokens;        // at least 1
  std::vector<int> eos_ids;                 // in the file eos_token_id, one or a list
};

// Error: a field of a wrong type or out of range; names source, field, rule and value.
GenerationConfig parse_generation_config(const Json& json, int vocabulary, std::string_view source);
// Its eos_token_id alone; that of config.json has the same form.
std::vector<int> parse_eos_ids(const Json& json, int vocabulary, std::string_view source);

// Adds ids that are not there yet, in their order.
void add_eos_ids(std::vector<int>& ids, const std::vector<int>& more);

}  // namespace atom::model
