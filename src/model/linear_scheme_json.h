// The formats of one linear in quantization_config: a group of its config_groups, in compressed-tensors' words.
//
//   Json group = group_json(scheme, {"Linear"});   // {"targets": ..., "weights": {...}, "input_activations": {...}}
//   LinearScheme back = parse_group(group, "config.json");
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/scheme.h"

namespace atom::model {

Json group_json(const LinearScheme& scheme, const std::vector<std::string>& targets);
// Error naming `source`, the key and its value: unknown keys, formats that nobody here has.
LinearScheme parse_group(const Json& group, std::string_view source);

// Error: a description of numbers (weights, an input, the KV-cache: `name`) with keys that are unknown or belong to
// another one, or whose `dynamic` is not the one wanted.
void check_number(const Json& number, std::string_view name, bool dynamic, std::string_view source);
// Block length of a Hadamard transform; absent: 0.
int parse_hadamard(const Json& object, std::string_view key, std::string_view source);
// Error: a word that no version of this program writes.
void require_known_format(const Json& format, std::string_view source);

using Words = std::set<std::string, std::less<>>;
// Error: a key that is not `known`; it may change the meaning of the numbers.
void refuse_other_keys(const Json& object, std::string_view name, const Words& known,
                       std::string_view source);

}  // namespace atom::model
