// tokenizer.model to a Tokenizer.
#include <memory>
#include <utility>

#include "base/error.h"
#include "text/bpe_model.h"
#include "text/sentencepiece_file.h"
#include "text/sentencepiece_normalizer.h"
#include "text/tokenizer_files.h"
#include "text/tokenizer_settings.h"
#include "text/unigram_model.h"

namespace atom::text {
namespace {

// Marks to spaces, byte pieces to bytes, and without the space that encoding puts in front.
std::unique_ptr<const Decoder> make_piece_decoder(const SentencePieceFile& file) {
  Json parts = Json::array();
  parts.push_back(
      {{"type", "Replace"}, {"pattern", {{"String", "\xE2\x96\x81"}}}, {"content", " "}});
  // Where encoding removes spaces at the front, decoding does too.
  const int64_t spaces = file.normalizer.remove_extra_whitespaces ? INT32_MAX
                         : file.normalizer.add_dummy_prefix       ? 1
                                                                  : 0;
  parts.push_back(
      {{"type", "Strip"}, {"content", " "}, {"start", spaces}, {"stop", 0}, {"once", true}});
  parts.push_back(
      {{"type", "ByteFallback"}, {"by_character", true}});  // a byte that is a space stays
  return make_decoder({{"type", "Sequence"}, {"decoders", parts}}, file.source);
}

std::vector<OwnToken> special_pieces(const SentencePieceFile& file) {
  using Kind = SentencePiece::Kind;
  std::vector<OwnToken> out;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const SentencePiece& piece = file.pieces[i];
    if (piece.kind == Kind::kControl || piece.kind == Kind::kUnknown) {
      out.push_back({static_cast<int32_t>(i), piece.text});
    }
  }
  return out;
}

// Id of the token that the settings name, else the one of the file; -1 when there is none.
int32_t side_id(const SentencePieceFile& file, const Json& config, const char* key, int32_t own) {
  const std::string name = special_token(config, key, file.source);
  if (!name.empty()) return file.vocabulary.find(name);
  return file.vocabulary.has(own) ? own : -1;
}

Template around_text(const SentencePieceFile& file, const TokenizerSettings& settings) {
  const std::string name = tokenizer_class(settings, file.source);
  const Json config = settings.config.is_object() ? settings.config : Json::object();
  const int32_t bos = side_id(file, config, "bos_token", file.bos);
  const int32_t eos = side_id(file, config, "eos_token", file.eos);
  const std::string config_source = beside(file.source, "tokenizer_config.json");
  const bool like_t5 = name == "T5Tokenizer" || (name.empty() && bos < 0);
  Template out;
  if (get_bool_or(config, "add_bos_token", !like_t5, config_source) && bos >= 0) {
    out.prefix.push_back(bos);
  }
  if (get_bool_or(config, "add_eos_token", like_t5, config_source) && eos >= 0) {
    out.suffix.push_back(eos);
  }
  return out;
}

}  // namespace

Tokenizer tokenizer_from_sentencepiece(std::string_view bytes, std::string_view source,
                                       const TokenizerSettings& settings) {
  const SentencePieceFile file = SentencePieceFile::from_bytes(bytes, source);
  TokenizerParts parts;
  if (file.algorithm == SentencePieceFile::Algorithm::kBpe) {
    parts.model = std::make_unique<BpeModel>(file);
  } else {
    parts.model = std::make_unique<UnigramModel>(file);
  }
  const Json config = settings.config.is_object() ? settings.config : Json::object();
  const bool legacy = get_bool_or(config, "legacy", false, beside(source, "tokenizer_config.json"));
  parts.normalizer = make_sentencepiece_normalizer(file, legacy);
  parts.decoder = make_piece_decoder(file);
  parts.around = around_text(file, settings);
  parts.added_tokens = added_tokens_of(settings, special_pieces(file), file.vocabulary, source);
  return Tokenizer(std::move(parts), file.source);
}

}  // namespace atom::text
