// Unigram model (Kudo 2018): of all ways to cut a piece into tokens, the one with the largest sum of
// scores. O(bytes * longest token).
//
//   const UnigramModel model(json["model"], lists, "tokenizer.json: model");   // lists: model_lists.h
//
// Equal sums go to the longer last token. Characters without a token cost the smallest score - 10,
// and a run of them is one unknown token, or its byte tokens.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/model.h"
#include "text/trie.h"

namespace atom::text {

struct SentencePieceFile;

class UnigramModel final : public Model {
 public:
  // Error: vocab that is no list of [token, score], scores that are not finite, tokens that occur
  // twice, unk_id outside the vocabulary.
  UnigramModel(const Json& json, const ModelLists& lists, std::string_view source);
  // As the sentencepiece library computes (0.2.3): sums in single precision, control pieces are no tokens of the text,
  // user-defined pieces win against everything. `file` has been checked by its reader.
  explicit UnigramModel(const SentencePieceFile& file);

  std::unique_ptr<Scratch> scratch(size_t text_bytes) const override;
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids,
              std::vector<Span>* spans) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  struct Lattice;
  void search(std::string_view piece, Lattice& lattice) const;
  void put_unknown(std::string_view run, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::string source_;
  Trie trie_;
  std::vector<double> score_;          // by id
  std::vector<uint8_t> user_defined_;  // by id; empty: none
  double unknown_score_ = 0;
  int32_t unknown_ = -1;
  bool byte_fallback_ = false;
  bool of_pieces_ = false;          // of a tokenizer.model
  bool fused_may_be_token_ = true;  // a run of unknown characters is looked up as a whole
  std::array<int32_t, 256> byte_token_{};
};

}  // namespace atom::text
