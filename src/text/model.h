// The "model" of tokenizer.json: pieces of text to ids.
//
//   const std::unique_ptr<const Model> model = make_model(json["model"], lists, "tokenizer.json: model");
//   const auto scratch = model->scratch(text.size());   // one encode call of one thread
//   model->encode(piece, *scratch, ids, nullptr);       // appends
//
// A new model is a class in its own file and a row in model.cc.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/model_lists.h"
#include "text/regex.h"
#include "text/vocabulary.h"

namespace atom::text {

class Model {
 public:
  struct Scratch {
    virtual ~Scratch() = default;
  };

  virtual ~Model() = default;
  // text_bytes: about how much will be encoded with it; sizes its caches.
  virtual std::unique_ptr<Scratch> scratch(size_t text_bytes) const = 0;
  // Appends the ids of a piece of valid UTF-8; the scratch is one of this model. Thread-safe. Error:
  // a text that the model has no ids for and no unknown token either. `spans`, unless null, gets for each
  // id the bytes of the piece that it stands for.
  virtual void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids,
                      std::vector<Span>* spans) const = 0;
  // The same for text that still has to be spelled in the byte alphabet.
  virtual void encode_bytes(std::string_view bytes, Scratch& scratch,
                            std::vector<int32_t>& ids) const;
  virtual const Vocabulary& vocabulary() const = 0;
};

// Error: unknown type, options that are not supported, a vocabulary that contradicts itself; the
// message opens with `source`.
std::unique_ptr<const Model> make_model(const Json& json, const ModelLists& lists,
                                        std::string_view source);

// Ids of the tokens <0x00> to <0xFF>, -1 where the vocabulary lacks one.
std::array<int32_t, 256> byte_tokens(const Vocabulary& vocabulary);

}  // namespace atom::text
