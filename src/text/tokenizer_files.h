// Readers of the files that checkpoints without tokenizer.json have. Each takes bytes, so that
// nothing but the caller touches the disk.
//
//   const Tokenizer a = tokenizer_from_sentencepiece(bytes, "m/tokenizer.model", settings);
//   const Tokenizer b = tokenizer_from_vocab_merges(vocab, merges, "m/vocab.json", settings);
#pragma once

#include <string_view>

#include "base/json.h"
#include "text/tokenizer.h"

namespace atom::text {

// JSON files beside the vocabulary; null where the folder has none.
struct TokenizerSettings {
  Json config;        // tokenizer_config.json
  Json added_tokens;  // added_tokens.json: token -> id
  Json model_config;  // config.json of the model
};

// tokenizer.model (SentencePiece). Ids equal the library's, and as transformers does: control and
// unknown pieces written in the text are recognized, BOS goes in front, or EOS behind for T5
// (add_bos_token, add_eos_token of the settings decide). Error: as SentencePieceFile::from_bytes.
Tokenizer tokenizer_from_sentencepiece(std::string_view bytes, std::string_view source,
                                       const TokenizerSettings& settings);

// vocab.json and merges.txt (byte-level BPE). tokenizer_class tells which splitting rules: those of
// Qwen2, of GPT-2 or of RoBERTa; without it, model_type of the model's config. Error: another class,
// lines that are no merges.
Tokenizer tokenizer_from_vocab_merges(std::string_view vocab, std::string_view merges,
                                      std::string_view source, const TokenizerSettings& settings);

// vocab.txt (BERT's WordPiece), a token a line. Error: a token that occurs twice, another class.
Tokenizer tokenizer_from_vocab_lines(std::string_view lines, std::string_view source,
                                     const TokenizerSettings& settings);

}  // namespace atom::text
