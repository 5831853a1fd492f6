// Byte-pair encoding: the model of type BPE of tokenizer.json, and that of a tokenizer.model.
//
//   const BpeModel model(json["model"], lists, "tokenizer.json: model");   // lists: model_lists.h
//
// A piece of megabytes is fine: it is cut, exactly, at every pair of characters that no merge can
// join, and the words between the cuts are merged one by one.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/added_tokens.h"
#include "text/merge.h"
#include "text/model.h"
#include "text/word_cache.h"

namespace atom::text {

// Ids of the vocabulary's tokens of one character, by code point.
class CharacterTable {
 public:
  CharacterTable();
  void set(uint32_t code_point, int32_t id);
  int32_t find(uint32_t code_point) const {  // -1: no such token; code_point <= 0x10FFFF
    return ids_[size_t{pages_[code_point >> 8]} << 8 | (code_point & 0xFF)];
  }

 private:
  std::vector<uint16_t> pages_;  // page 0 holds -1 only
  std::vector<int32_t> ids_;
};

struct SentencePieceFile;

class BpeModel final : public Model {
 public:
  // Error: options that are not supported, vocabulary or merges that contradict themselves.
  BpeModel(const Json& json, const ModelLists& lists, std::string_view source);
  // As the sentencepiece library computes: two neighbours join where their text is a piece, the
  // piece of the largest score first. `file` has been checked by its reader.
  explicit BpeModel(const SentencePieceFile& file);

  std::unique_ptr<Model::Scratch> scratch(size_t text_bytes) const override;
  // A character that has neither token nor byte tokens becomes the unknown token, or nothing where
  // the file names none.
  void encode(std::string_view piece, Model::Scratch& scratch, std::vector<int32_t>& ids,
              std::vector<Span>* spans) const override;
  void encode_bytes(std::string_view bytes, Model::Scratch& scratch,
                    std::vector<int32_t>& ids) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  // What one call at a time works with; the words that it has met serve the next call.
  struct Workspace {
    WordCache cache;
    WordCache byte_cache;  // of encode_bytes
    Merger merger;
    std::vector<int32_t> symbols;
    std::vector<TextPart> parts;
    std::string characters;
  };
  struct Idle;
  struct Scratch;
  struct Merge {
    int32_t left;
    int32_t right;
    auto operator<=>(const Merge&) const = default;
  };
  static std::shared_ptr<Idle> make_idle();
  void read_options(const Json& json, std::string_view source);
  void read_merges(const Json& json, const ModelLists::Merges& list, std::string_view source);
  void read_pieces(const SentencePieceFile& file);
  void find_cuts(const std::vector<Merge>& merges);
  void encode_piece(std::string_view piece, Workspace& work, std::vector<int32_t>& ids) const;
  bool has_bytes(std::string_view bytes) const;
  void encode_characters(std::string_view piece, Workspace& work, std::vector<int32_t>& ids) const;
  void add_spans(std::string_view piece, std::span<const int32_t> ids,
                 std::vector<Span>& spans) const;
  std::vector<size_t> unknown_sizes(std::string_view piece) const;
  void encode_word(std::string_view word, Workspace& work, std::vector<int32_t>& ids) const;

  std::shared_ptr<Idle> idle_ = make_idle();
  Vocabulary vocabulary_;
  AddedTokenMatcher user_defined_;  // tokens that are cut out of the piece first
  CharacterTable characters_;
  MergeTable merges_;
  PairMap joined_;     // pairs of character tokens that some merge can join
  bool cuts_ = false;  // joined_ is complete: every other pair is a place to cut
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  int32_t unknown_ = -1;
  std::array<int32_t, 256> byte_token_{};  // -1: none
};

}  // namespace atom::text
