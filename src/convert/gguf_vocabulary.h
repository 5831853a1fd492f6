// The tokenizer of a model folder as the keys of a GGUF file: the inverse of checkpoint/gguf_tokenizer.h.
//
//   add_vocabulary({&files, &tokenizer, config.vocabulary}, keys);
#pragma once

#include "checkpoint/gguf_writer.h"
#include "checkpoint/model_files.h"
#include "text/tokenizer.h"

namespace atom::convert {

struct VocabularySource {
  const checkpoint::ModelFiles* files = nullptr;
  const text::Tokenizer* tokenizer = nullptr;  // of the files
  int rows = 0;  // of the model's table; ids without a token are filled
};

// From tokenizer.json (byte-level BPE) or tokenizer.model (BPE). Error naming the file: a
// tokenizer without a form in ggml (another algorithm, another splitting rule, rules of characters, tokens around a text other
// than BOS and EOS).
void add_vocabulary(const VocabularySource& source, checkpoint::GgufKeys& keys);

}  // namespace atom::convert
