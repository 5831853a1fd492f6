#include "text/vocabulary.h"

#include <algorithm>
#include <bit>
#include <functional>

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

int32_t Vocabulary::find(std::string_view token) const {
  return slots_.empty() ? -1 : slots_[slot_of(token)];
}

// Where the token is, or an empty slot where it would be.
size_t Vocabulary::slot_of(std::string_view token) const {
  const size_t mask = slots_.size() - 1;
  size_t at = std::hash<std::string_view>()(token) & mask;
  while (slots_[at] >= 0 && text_of(slots_[at]) != token) at = (at + 1) & mask;
  return at;
}

void Vocabulary::grow(size_t count) {
  if (2 * count <= slots_.size()) return;
  slots_.assign(std::bit_ceil(2 * count + 14), -1);
  for (int32_t id = 0; id < size(); ++id)
    if (has(id)) slots_[slot_of(text_of(id))] = id;
}

void Vocabulary::add(std::string_view token, int64_t id, std::string_view source) {
  if (id < 0 || id > max_id_) {
    fail("{}: the id {} of the token '{}' is outside [0, {}]", source, id, token, max_id_);
  }
  const auto at = static_cast<size_t>(id);
  const auto new_id = static_cast<int32_t>(id);
  if (has(new_id) && text_of(new_id) != token) {
    fail("{}: the tokens '{}' and '{}' have the same id {}", source, text_of(new_id), token, id);
  }
  grow(count_ + 1);
  int32_t& slot = slots_[slot_of(token)];
  if (slot == new_id) return;
  if (slot >= 0) fail("{}: the token '{}' has the ids {} and {}", source, token, slot, id);
  if (token.size() >= kNoToken - texts_.size()) {
    fail("{}: the texts of the tokens up to '{}' have more than {} bytes", source,
         token.substr(0, 60), kNoToken);
  }
  if (at >= tokens_.size()) tokens_.resize(at + 1);
  tokens_[at] = {static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(token.size())};
  texts_ += token;
  slot = new_id;
  ++count_;
}

}  // namespace atom::text
