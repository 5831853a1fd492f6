#include "text/word_models.h"

#include "base/error.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

struct NoScratch final : Model::Scratch {};

int32_t read_unknown(const Json& json, const Vocabulary& vocabulary, std::string_view otherwise,
                     std::string_view source) {
  return vocabulary.find(get_string_or(json, "unk_token", otherwise, source));
}

int32_t require_unknown(int32_t unknown, std::string_view piece, const std::string& source) {
  if (unknown < 0) {
    fail("{}: the text has a word without tokens, '{}', and unk_token is not in vocab", source,
         utf8_prefix(piece, 60));
  }
  return unknown;
}

class WordPieceModel final : public Model {
 public:
  WordPieceModel(const Json& json, const ModelLists& lists, std::string_view source)
      : vocabulary_(vocabulary_of(json, lists, source)),
        source_(source),
        unknown_(read_unknown(json, vocabulary_, "[UNK]", source)),
        max_characters_(static_cast<size_t>(get_int_or(
            json, "max_input_chars_per_word", 100, {.source = source, .min = 0, .max = 65536}))) {
    std::vector<std::string_view> keys;
    for (int32_t id = 0; id < vocabulary_.size(); ++id) keys.push_back(vocabulary_.token(id));
    tokens_ = Trie(Trie::nodes_of(std::move(keys)));
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
      if (vocabulary_.has(id)) tokens_.add(vocabulary_.token(id), id);
    }
    inner_ = tokens_.descend(Trie::kRoot,
                             get_string_or(json, "continuing_subword_prefix", "##", source));
  }

  std::unique_ptr<Scratch> scratch(size_t) const override { return std::make_unique<NoScratch>(); }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  void encode(std::string_view piece, Scratch&, std::vector<int32_t>& ids,
              std::vector<Span>* spans) const override {
    const size_t first = ids.size();
    const size_t first_span = spans == nullptr ? 0 : spans->size();
    if (fits(piece) && append_tokens(piece, ids, spans)) return;
    ids.resize(first);
    ids.push_back(require_unknown(unknown_, piece, source_));
    if (spans == nullptr) return;
    spans->resize(first_span);
    spans->push_back({0, piece.size()});
  }

 private:
  bool fits(std::string_view piece) const {
    size_t characters = 0;
    for (const char c : piece) characters += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    return characters <= max_characters_;
  }

  // False when a part of the word has no token.
  bool append_tokens(std::string_view word, std::vector<int32_t>& ids,
                     std::vector<Span>* spans) const {
    for (size_t at = 0; at < word.size();) {
      const uint32_t node = at == 0 ? Trie::kRoot : inner_;
      size_t end = at;
      int32_t id = -1;
      if (node != Trie::kNone) {
        tokens_.matches(word, at, node, [&](size_t match_end, int32_t match_id) {
          end = match_end;
          id = match_id;
        });
      }
      if (id < 0) return false;
      ids.push_back(id);
      if (spans != nullptr) spans->push_back({at, end});
      at = end;
    }
    return true;
  }

  Vocabulary vocabulary_;
  std::string source_;
  int32_t unknown_;
  size_t max_characters_;
  Trie tokens_;
  uint32_t inner_ = 0;  // where tokens inside a word begin; kNone: there are none
};

class WordLevelModel final : public Model {
 public:
  WordLevelModel(const Json& json, const ModelLists& lists, std::string_view source)
      : vocabulary_(vocabulary_of(json, lists, source)),
        source_(source),
        unknown_(read_unknown(json, vocabulary_, "<unk>", source)) {}

  std::unique_ptr<Scratch> scratch(size_t) const override { return std::make_unique<NoScratch>(); }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  void encode(std::string_view piece, Scratch&, std::vector<int32_t>& ids,
              std::vector<Span>* spans) const override {
    const int32_t id = vocabulary_.find(piece);
    ids.push_back(id >= 0 ? id : require_unknown(unknown_, piece, source_));
    if (spans != nullptr) spans->push_back({0, piece.size()});
  }

 private:
  Vocabulary vocabulary_;
  std::string source_;
  int32_t unknown_;
};

}  // namespace

std::unique_ptr<const Model> make_word_piece(const Json& json, const ModelLists& lists,
                                             std::string_view source) {
  return std::make_unique<WordPieceModel>(json, lists, source);
}

std::unique_ptr<const Model> make_word_level(const Json& json, const ModelLists& lists,
                                             std::string_view source) {
  return std::make_unique<WordLevelModel>(json, lists, source);
}

}  // namespace atom::text
