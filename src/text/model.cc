#include "text/model.h"

#include "base/error.h"
#include "text/bpe_model.h"
#include "text/byte_alphabet.h"
#include "text/unigram_model.h"
#include "text/word_models.h"

namespace atom::text {
namespace {

// Files older than the field "type": what only one of the models has.
std::string type_of(const Json& json, std::string_view source) {
  if (json.contains("type")) return get_string(json, "type", source);
  return json.contains("unk_id") ? "Unigram" : "BPE";
}

}  // namespace

void Model::encode_bytes(std::string_view bytes, Scratch& scratch,
                         std::vector<int32_t>& ids) const {
  std::string text;
  append_byte_characters(text, bytes);
  encode(text, scratch, ids, nullptr);
}

std::unique_ptr<const Model> make_model(const Json& json, const ModelLists& lists,
                                        std::string_view source) {
  if (!json.is_object()) fail("{}: must be an object and is {}", source, shown_json(json));
  const std::string type = type_of(json, source);
  if (type == "BPE") return std::make_unique<BpeModel>(json, lists, source);
  if (type == "Unigram") return std::make_unique<UnigramModel>(json, lists, source);
  if (type == "WordPiece") return make_word_piece(json, lists, source);
  if (type == "WordLevel") return make_word_level(json, lists, source);
  fail("{}: the type '{}' is not supported", source, type);
}

std::array<int32_t, 256> byte_tokens(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> tokens{};
  for (size_t byte = 0; byte < tokens.size(); ++byte) {
    tokens[byte] = vocabulary.find(fmt::format("<0x{:02X}>", byte));
  }
  return tokens;
}

}  // namespace atom::text
