// Tokenizer of a checkpoint: normalizer, added tokens, pre-tokenizer, model, post-processor,
// decoder, as Hugging Face's tokenizer.json describes them. Other files are read into the same parts
// (docs/tokenizers.md).
//
//   const Tokenizer tokenizer = Tokenizer::from_folder("model");
//   const std::vector<int32_t> ids = tokenizer.encode("Hello world");
//   const std::string text = tokenizer.decode(ids);
//
// Immutable after loading: one object serves any number of threads. Ids and texts equal those of
// the PyPI packages `tokenizers` and `sentencepiece`, except: "truncation" and "padding", which concern batches, are not
// applied; added tokens have the ids of the file; and they decode to the spelling of the file, even
// those that are matched in normalized form (the package from 0.23 on decodes these to their
// normalized form, and no longer skips special ones).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"

namespace atom::text {

struct EncodeOptions {
  bool add_special_tokens = true;  // what the post-processor puts around the text
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<Span>
      spans;  // of each id: characters of the text, as `encoding.offsets` of the package
};

struct DecodeOptions {
  bool skip_special_tokens = true;
};

// What a tokenizer is made of. model and decoder are not null, the others may be.
struct TokenizerParts {
  std::unique_ptr<const Model> model;
  std::unique_ptr<const Normalizer> normalizer;
  std::unique_ptr<const PreTokenizer> pre_tokenizer;
  std::unique_ptr<const Decoder> decoder;
  Template around;    // tokens that encode puts around a text
  Json added_tokens;  // as in tokenizer.json
};

class Tokenizer {
 public:
  // The first of these that the folder has: tokenizer.json, tokenizer.model, vocab.json with
  // merges.txt, vocab.txt; the last three together with tokenizer_config.json. Error: none of them,
  // or as for from_file.
  static Tokenizer from_folder(const std::filesystem::path& folder);
  // Name of the file that from_folder would read; nothing when the folder has none.
  static std::optional<std::filesystem::path> find_file(const std::filesystem::path& folder);

  // Error: not readable, larger than 64 MiB, not JSON, components that are not supported,
  // vocabulary, merges or added tokens that contradict themselves.
  static Tokenizer from_file(const std::filesystem::path& path);
  static Tokenizer from_json(std::string_view text, std::string_view source_name);
  // What from_json makes of a text: vocab and merges are in `lists`.
  static Tokenizer from_parsed(const Json& json, const ModelLists& lists,
                               const std::string& source);
  // From parts that are made already. Error: added tokens that contradict the vocabulary.
  Tokenizer(TokenizerParts parts, const std::string& source);

  // Bytes that are not UTF-8 are replaced by U+FFFD first. Special tokens written in the text are
  // recognized. Error: a text of 2^31 bytes, a regular expression of the file hits its limits, or a
  // component makes the text more than 64 times longer.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  // The same ids, and where they come from. Characters, not bytes; a stretch that is not UTF-8 counts as the
  // U+FFFD that replaces it. {0, 0} for tokens that the text does not hold. Slower than encode. Of a
  // tokenizer.model the spans are those of `sentencepiece`. Error: as for encode.
  Encoding encode_with_spans(std::string_view text, EncodeOptions options = {}) const;

  // Ids without a token are skipped. Always valid UTF-8. Error: as for encode.
  std::string decode(std::span<const int32_t> ids, DecodeOptions options = {}) const;

  int32_t vocab_size() const { return tokens_.size(); }  // largest id + 1
  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::string_view id_to_token(int32_t id) const;  // empty when the id has no token
  bool has_token(int32_t id) const { return tokens_.has(id); }
  bool is_special(int32_t id) const;
  std::optional<int32_t> bos_id() const;  // the single id that encode puts in front, if it does

  const Decoder& decoder() const { return *decoder_; }

 private:
  void add_tokens(const Json& json, const std::string& source);
  struct Sink {  // what encoding fills
    Model::Scratch& scratch;
    std::vector<int32_t>& ids;
    std::vector<Span>* spans;  // null: not wanted
  };
  void encode_clean(std::string_view clean, const Sink& sink) const;
  void encode_text(NormalizedText text, const Sink& sink) const;
  void encode_pieces(Pieces pieces, const Sink& sink) const;
  void trim_spans(Encoding& encoding) const;

  std::unique_ptr<const Model> model_;
  std::unique_ptr<const Normalizer> normalizer_;       // may be null
  std::unique_ptr<const PreTokenizer> pre_tokenizer_;  // may be null
  std::unique_ptr<const Decoder> decoder_;
  Template template_;
  Vocabulary tokens_;                     // of the model and added
  std::vector<uint8_t> special_;          // by id
  AddedTokenMatcher raw_matcher_;         // before the normalizer
  AddedTokenMatcher normalized_matcher_;  // after it
};

}  // namespace atom::text
