#include "text/vocabulary.h"

#include <algorithm>

#include "base/error.h"

namespace atom::text {
namespace {

constexpr int32_t kSmallestIdLimit = 65536;
constexpr int32_t kLargestIdLimit = 1 << 24;
constexpr size_t kIdsPerToken = 4;

}  // namespace

void Vocabulary::limit_for(size_t count) {
  const size_t wanted =
      std::min<size_t>(kIdsPerToken * std::min<size_t>(count, kLargestIdLimit), kLargestIdLimit);
  max_id_ = std::max(kSmallestIdLimit, static_cast<int32_t>(wanted));
}

void Vocabulary::add(std::string token, int64_t id, std::string_view source) {
  if (id < 0 || id > max_id_) {
    fail("{}: the id {} of the token '{}' is outside [0, {}]", source, id, token, max_id_);
  }
  const auto at = static_cast<size_t>(id);
  if (at >= tokens_.size()) {
    tokens_.resize(at + 1);
    used_.resize(at + 1);
  }
  if (used_[at] != 0 && tokens_[at] != token) {
    fail("{}: the tokens '{}' and '{}' have the same id {}", source, tokens_[at], token, id);
  }
  const auto [entry, added] = ids_.try_emplace(token, static_cast<int32_t>(id));
  if (!added && entry->second != id) {
    fail("{}: the token '{}' has the ids {} and {}", source, token, entry->second, id);
  }
  used_[at] = 1;
  tokens_[at] = std::move(token);
}

const std::string& Vocabulary::token(int32_t id) const {
  static const std::string none;
  return has(id) ? tokens_[static_cast<size_t>(id)] : none;
}

Vocabulary vocabulary_from_json(const Json& json, std::string_view source) {
  if (!json.is_object() || json.empty()) {
    fail("{}: vocab must be an object with at least one token and is {}", source, shown_json(json));
  }
  Vocabulary vocabulary;
  vocabulary.limit_for(json.size());
  for (const auto& [token, id] : json.items()) {
    if (!id.is_number_integer() || (id.is_number_unsigned() && id.get<uint64_t>() > INT32_MAX)) {
      fail("{}: the id of the token '{}' must be an integer below 2^31 and is {}", source, token,
           shown_json(id));
    }
    vocabulary.add(token, id.get<int64_t>(), source);
  }
  return vocabulary;
}

}  // namespace atom::text
