// Reader of tokenizer.model: SentencePiece's ModelProto (a protobuf message).
//
//   const SentencePieceFile file = SentencePieceFile::from_bytes(bytes, "tokenizer.model");
//   file.pieces[5].text, file.normalizer.charsmap, ...
//
// Only the fields that change ids or text are kept. Everything is checked: lengths, UTF-8, finite
// scores, pieces that occur twice, byte pieces, exactly one unknown piece.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/charsmap.h"
#include "text/vocabulary.h"

namespace atom::text {

struct SentencePiece {
  enum class Kind { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  std::string text;
  float score = 0;
  Kind kind = Kind::kNormal;
};

struct SentencePieceFile {
  enum class Algorithm { kUnigram = 1, kBpe, kWord, kCharacter };
  struct Normalizer {
    Charsmap charsmap;
    bool add_dummy_prefix = true;
    bool remove_extra_whitespaces = true;
    bool escape_whitespaces = true;
  };

  std::string source;
  Algorithm algorithm = Algorithm::kUnigram;
  std::vector<SentencePiece> pieces;  // by id
  Vocabulary vocabulary;              // of all pieces
  Normalizer normalizer;
  bool byte_fallback = false;
  int32_t unknown = -1;  // id of the unknown piece
  int32_t bos = 1;       // -1: none
  int32_t eos = 2;

  // Error: no valid message, more than 2^22 pieces, one of more than 512 bytes, options that change
  // the result and are not supported.
  static SentencePieceFile from_bytes(std::string_view bytes, std::string_view source);
};

}  // namespace atom::text
