#include "model/generation_config.h"

#include <algorithm>
#include <cfloat>
#include <cstdint>

#include "base/error.h"

namespace atom::model {
namespace {

constexpr size_t kMostEosIds = 4096;  // models have up to five, and each sampled id is looked for

bool has(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && !found->is_null();
}

std::optional<float> number(const Json& json, const char* key, double min, double max,
                            std::string_view source) {
  if (!has(json, key)) return std::nullopt;
  return static_cast<float>(get_number(json, key, {.source = source, .min = min, .max = max}));
}

std::optional<int> whole(const Json& json, const char* key, int64_t min, std::string_view source) {
  if (!has(json, key)) return std::nullopt;
  const int64_t value = get_int(json, key, {.source = source, .min = min, .max = INT32_MAX});
  return static_cast<int>(value);
}

}  // namespace

std::vector<int> parse_eos_ids(const Json& json, int vocabulary, std::string_view source) {
  std::vector<int> ids;
  if (!has(json, "eos_token_id")) return ids;
  const Json& value = json["eos_token_id"];
  const Json list = value.is_array() ? value : Json::array({value});
  if (list.size() > kMostEosIds)
    fail("{}: 'eos_token_id' must hold at most {} ids and holds {}", source, kMostEosIds,
         list.size());
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocabulary)
      fail("{}: 'eos_token_id' must be ids below vocab_size {} and holds {}", source, vocabulary,
           shown_json(id));
    ids.push_back(id.get<int>());
  }
  return ids;
}

GenerationConfig parse_generation_config(const Json& json, int vocabulary,
                                         std::string_view source) {
  if (!json.is_object()) fail("{}: must be a JSON object and is {}", source, shown_json(json));
  GenerationConfig out;
  out.temperature = number(json, "temperature", 0, 100, source);
  out.top_p = number(json, "top_p", FLT_MIN, 1, source);
  out.top_k = whole(json, "top_k", -1, source);
  if (out.top_k) out.top_k = std::max(*out.top_k, 0);
  out.min_p = number(json, "min_p", 0, 1, source);
  out.repetition_penalty = number(json, "repetition_penalty", 0.01, 100, source);
  out.max_new_tokens = whole(json, "max_new_tokens", 1, source);
  out.eos_ids = parse_eos_ids(json, vocabulary, source);
  return out;
}

void add_eos_ids(std::vector<int>& ids, const std::vector<int>& more) {
  for (const int id : more)
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

}  // namespace atom::model
