#include "text/bpe_model.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

#include "base/error.h"
#include "text/byte_alphabet.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr size_t kMaxMerges = 1 << 26;

void refuse_text(const Json& json, std::string_view key, std::string_view source) {
  if (const std::string text = get_string_or(json, key, "", source); !text.empty()) {
    fail("{}: a {} that is not empty is not supported and it is '{}'", source, key,
         utf8_prefix(text, 60));
  }
}

}  // namespace

CharacterTable::CharacterTable() : pages_(0x110000 >> 8, 0), ids_(256, -1) {}

void CharacterTable::set(uint32_t code_point, int32_t id) {
  uint16_t& page = pages_[code_point >> 8];
  if (page == 0) {
    page = static_cast<uint16_t>(ids_.size() >> 8);
    ids_.resize(ids_.size() + 256, -1);
  }
  ids_[size_t{page} << 8 | (code_point & 0xFF)] = id;
}

BpeModel::BpeModel(const Json& json, const ModelLists& lists, std::string_view source)
    : vocabulary_(vocabulary_of(json, lists, source)) {
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view token = vocabulary_.token(id);
    if (token.empty()) continue;
    const CodePoint first = decode_utf8(token, 0);
    if (first.size == token.size()) characters_.set(first.value, id);
  }
  byte_token_ = byte_tokens(vocabulary_);
  read_options(json, source);
  read_merges(json, lists.merges, source);
}

void BpeModel::read_options(const Json& json, std::string_view source) {
  if (const double dropout = get_number_or(json, "dropout", 0, {.source = source}); dropout != 0) {
    fail("{}: dropout must be null or 0 and is {}", source, dropout);
  }
  refuse_text(json, "continuing_subword_prefix", source);
  refuse_text(json, "end_of_word_suffix", source);
  byte_fallback_ = get_bool_or(json, "byte_fallback", false, source);
  fuse_unknown_ = get_bool_or(json, "fuse_unk", false, source);
  ignore_merges_ = get_bool_or(json, "ignore_merges", false, source);
  if (const std::string unknown = get_string_or(json, "unk_token", "", source); !unknown.empty()) {
    unknown_ = vocabulary_.find(unknown);
    if (unknown_ < 0) fail("{}: the unk_token '{}' is not in vocab", source, unknown);
  }
}

void BpeModel::read_merges(const Json& json, const ModelLists::Merges& list,
                           std::string_view source) {
  if (const auto field = json.find("merges"); field == json.end() || !field->is_array())
    fail("{}: merges must be an array and {}", source, shown_list(json, "merges", list.begin));
  if (!list.fault.empty()) fail("{}: {}", source, list.fault);
  const size_t count = list.parts.size() / 2;
  if (count > kMaxMerges) {
    fail("{}: merges has {} entries and may have {}", source, count, kMaxMerges);
  }
  merges_ = MergeTable(count);
  std::vector<Merge> merges;
  merges.reserve(count);
  std::string joined;
  size_t version_lines = 0;  // before the merge
  for (size_t i = 0; i < count; ++i) {
    while (version_lines < list.version_lines.size() &&
           list.version_lines[version_lines] <= i + version_lines) {
      ++version_lines;
    }
    const auto id_of = [&](std::string_view token) {
      const int32_t id = vocabulary_.find(token);
      if (id < 0)
        fail("{}: merges[{}]: the token '{}' is not in vocab", source, i + version_lines, token);
      return id;
    };
    const std::string_view left = list.parts[2 * i], right = list.parts[2 * i + 1];
    const Merge merge{id_of(left), id_of(right)};
    joined.assign(left).append(right);
    const int32_t token = id_of(joined);
    merges_.add(merge.left, merge.right, {.rank = static_cast<uint32_t>(i), .token = token});
    merges.push_back(merge);
  }
  find_cuts(merges);
}

// A merge across a cut would join a token that ends with the character before it to one that begins
// with the character after it. That holds as long as symbols are characters: where byte tokens or
// the unknown token take part in merges, nothing is cut.
void BpeModel::find_cuts(const std::vector<Merge>& merges) {
  std::vector<uint8_t> is_stand_in(static_cast<size_t>(vocabulary_.size()), 0);
  if (unknown_ >= 0) is_stand_in[static_cast<size_t>(unknown_)] = 1;
  for (const int32_t id : byte_token_) {
    if (byte_fallback_ && id >= 0) is_stand_in[static_cast<size_t>(id)] = 1;
  }
  std::vector<Merge> joined;  // far fewer: merges of long tokens meet at the same characters
  for (const Merge& merge : merges) {
    if (is_stand_in[static_cast<size_t>(merge.left)] != 0 ||
        is_stand_in[static_cast<size_t>(merge.right)] != 0) {
      return;
    }
    const std::string_view left = vocabulary_.token(merge.left);
    const std::string_view right = vocabulary_.token(merge.right);
    if (left.empty() || right.empty()) continue;
    const int32_t last =
        characters_.find(decode_utf8(left, previous_utf8(left, left.size())).value);
    const int32_t first = characters_.find(decode_utf8(right, 0).value);
    if (last >= 0 && first >= 0) joined.push_back({last, first});
  }
  std::sort(joined.begin(), joined.end());
  joined.erase(std::unique(joined.begin(), joined.end()), joined.end());
  joined_ = PairMap(4 * joined.size());  // sparse: it is asked about every two neighbours
  for (const Merge& pair : joined) joined_.assign(pair.left, pair.right, 1);
  cuts_ = true;
}

// Workspaces that no call uses; a few are enough for the threads of a server.
struct BpeModel::Idle {
  static constexpr size_t kMost = 16;
  std::mutex mutex;
  std::vector<std::unique_ptr<Workspace>> workspaces;
};

struct BpeModel::Scratch final : Model::Scratch {
  Scratch(std::shared_ptr<Idle> owner, std::unique_ptr<Workspace> own)
      : idle(std::move(owner)), work(std::move(own)) {}
  ~Scratch() override {
    const std::lock_guard lock(idle->mutex);
    if (idle->workspaces.size() < Idle::kMost) idle->workspaces.push_back(std::move(work));
  }
  std::shared_ptr<Idle> idle;
  std::unique_ptr<Workspace> work;
};

std::shared_ptr<BpeModel::Idle> BpeModel::make_idle() {
  auto idle = std::make_shared<Idle>();
  idle->workspaces.reserve(Idle::kMost);  // so that giving one back cannot fail
  return idle;
}

std::unique_ptr<Model::Scratch> BpeModel::scratch(size_t) const {
  std::unique_ptr<Workspace> work;
  {
    const std::lock_guard lock(idle_->mutex);
    if (!idle_->workspaces.empty()) {
      work = std::move(idle_->workspaces.back());
      idle_->workspaces.pop_back();
    }
  }
  if (work == nullptr) work = std::make_unique<Workspace>();
  return std::make_unique<Scratch>(idle_, std::move(work));
}

void BpeModel::encode_bytes(std::string_view bytes, Model::Scratch& scratch,
                            std::vector<int32_t>& ids) const {
  Workspace& work = *static_cast<Scratch&>(scratch).work;
  const bool cached = bytes.size() <= WordCache::kMaxWordBytes;
  if (cached && work.byte_cache.find(bytes, ids)) return;
  const size_t first = ids.size();
  work.characters.clear();
  append_byte_characters(work.characters, bytes);
  encode_piece(work.characters, work, ids);
  if (cached) work.byte_cache.insert(bytes, std::span(ids).subspan(first));
}

void BpeModel::encode(std::string_view piece, Model::Scratch& scratch, std::vector<int32_t>& ids,
                      std::vector<Span>* spans) const {
  Workspace& own = *static_cast<Scratch&>(scratch).work;
  const auto encode_part = [&](std::string_view part) {
    const size_t first = ids.size();
    encode_piece(part, own, ids);
    if (spans != nullptr) add_spans(part, std::span(ids).subspan(first), *spans);
  };
  if (user_defined_.empty()) return encode_part(piece);
  user_defined_.split(piece, own.parts);
  for (const TextPart& part : own.parts) {
    const size_t first_span = spans == nullptr ? 0 : spans->size();
    if (part.id >= 0) {
      ids.push_back(part.id);
      if (spans != nullptr) spans->push_back({0, part.end - part.begin});
    } else {
      encode_part(piece.substr(part.begin, part.end - part.begin));
    }
    for (size_t i = first_span; spans != nullptr && i < spans->size(); ++i) {
      (*spans)[i].begin += part.begin;
      (*spans)[i].end += part.begin;
    }
  }
}

void BpeModel::encode_piece(std::string_view piece, Workspace& work,
                            std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const int32_t id = vocabulary_.find(piece); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  if (piece.empty()) return;
  if (piece.size() > WordCache::kMaxWordBytes) return encode_characters(piece, work, ids);
  if (work.cache.find(piece, ids)) return;
  const size_t first = ids.size();
  encode_characters(piece, work, ids);
  work.cache.insert(piece, std::span(ids).subspan(first));
}

bool BpeModel::has_bytes(std::string_view bytes) const {
  for (const char byte : bytes) {
    if (byte_token_[static_cast<uint8_t>(byte)] < 0) return false;
  }
  return true;
}

void BpeModel::encode_characters(std::string_view piece, Workspace& work,
                                 std::vector<int32_t>& ids) const {
  std::vector<int32_t>& symbols = work.symbols;  // of the word that begins at word_begin
  symbols.clear();
  size_t word_begin = 0;
  const auto end_word = [&](size_t end) {
    if (symbols.empty()) return;
    encode_word(piece.substr(word_begin, end - word_begin), work, ids);
    symbols.clear();
  };
  const auto put = [&](int32_t id) { cuts_ ? ids.push_back(id) : symbols.push_back(id); };

  bool unknown_waits = false;  // it is put before the next character token, and after byte tokens
  for (size_t at = 0; at < piece.size();) {
    const CodePoint c = decode_utf8(piece, at);
    const int32_t id = characters_.find(c.value);
    if (id >= 0) {
      if (unknown_waits) put(unknown_);
      unknown_waits = false;
      if (cuts_ && !symbols.empty() && joined_.find(symbols.back(), id) == PairMap::kNone) {
        end_word(at);
      }
      if (symbols.empty()) word_begin = at;
      symbols.push_back(id);
    } else {
      const std::string_view bytes = piece.substr(at, c.size);
      const bool as_bytes = byte_fallback_ && has_bytes(bytes);
      // A character that becomes nothing leaves its neighbours side by side.
      if (cuts_ && (as_bytes || unknown_ >= 0)) end_word(at);
      if (as_bytes) {
        for (const char byte : bytes) put(byte_token_[static_cast<uint8_t>(byte)]);
      } else if (unknown_ >= 0) {
        if (unknown_waits && !fuse_unknown_) put(unknown_);
        unknown_waits = true;
      }
    }
    at += c.size;
  }
  if (unknown_waits) put(unknown_);
  end_word(piece.size());
}

// work.symbols are the word's. Words inside a long piece are cached too, except where the word
// as a piece of its own could have other ids.
void BpeModel::encode_word(std::string_view word, Workspace& work,
                           std::vector<int32_t>& ids) const {
  const bool cached = cuts_ && !ignore_merges_ && work.symbols.size() > 2 &&
                      word.size() <= WordCache::kMaxWordBytes;
  if (cached && work.cache.find(word, ids)) return;
  work.merger.run(merges_, work.symbols);
  ids.insert(ids.end(), work.symbols.begin(), work.symbols.end());
  if (cached) work.cache.insert(word, work.symbols);
}

}  // namespace atom::text
