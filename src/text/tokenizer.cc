#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "text/stream_decoder.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 28;

// A text may grow in the pipeline, but not without end: at most 18-fold by a normal form, 3-fold by
// a mark.
size_t growth_limit(size_t bytes) { return 64 * bytes + (1 << 16); }

const Json& entry(const Json& json, const char* key) {
  static const Json null;
  const auto found = json.find(key);
  return found == json.end() ? null : *found;
}

std::string place(const std::string& source, std::string_view key) {
  return fmt::format("{}: {}", source, key);
}

}  // namespace

Tokenizer Tokenizer::from_file(const std::filesystem::path& path) {
  return from_json(read_file(path, kMaxFileBytes), path.string());
}

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view source_name) {
  const Json json = parse_json(text, {.source = source_name});
  return from_parsed(json, std::string(source_name));
}

Tokenizer Tokenizer::from_parsed(const Json& json, const std::string& source) {
  if (!json.is_object()) fail("{}: must be a JSON object", source);
  TokenizerParts parts;
  parts.model = make_model(entry(json, "model"), place(source, "model"));
  parts.normalizer = make_normalizer(entry(json, "normalizer"), place(source, "normalizer"));
  parts.pre_tokenizer =
      make_pre_tokenizer(entry(json, "pre_tokenizer"), place(source, "pre_tokenizer"));
  parts.decoder = make_decoder(entry(json, "decoder"), place(source, "decoder"));
  parts.around = template_from_json(entry(json, "post_processor"), place(source, "post_processor"));
  parts.added_tokens = entry(json, "added_tokens");
  return Tokenizer(std::move(parts), source);
}

Tokenizer::Tokenizer(TokenizerParts parts, const std::string& source)
    : model_(std::move(parts.model)),
      normalizer_(std::move(parts.normalizer)),
      pre_tokenizer_(std::move(parts.pre_tokenizer)),
      decoder_(std::move(parts.decoder)),
      template_(std::move(parts.around)),
      tokens_(model_->vocabulary()) {
  add_tokens(parts.added_tokens, source);
  for (const auto* side : {&template_.prefix, &template_.suffix}) {
    for (const int32_t id : *side) {
      if (!tokens_.has(id)) {
        fail("{}: post_processor: the id {} of a special token is not in the vocabulary", source,
             id);
      }
    }
  }
}

void Tokenizer::add_tokens(const Json& json, const std::string& source) {
  tokens_.limit_for(static_cast<size_t>(tokens_.size()) + json.size());
  std::vector<AddedToken> added = added_tokens_from_json(json, tokens_.max_id(), source);
  // Of two tokens that look the same after the normalizer, special ones come first.
  std::stable_partition(added.begin(), added.end(), [](const auto& t) { return t.special; });
  std::vector<AddedToken> raw, normalized;
  std::vector<std::string> raw_contents, normalized_contents;
  for (const AddedToken& token : added) {
    tokens_.add(token.content, token.id, place(source, "added_tokens"));
    if (!token.normalized) {
      raw_contents.push_back(token.content);
      raw.push_back(token);
      continue;
    }
    NormalizedText text{token.content, 0, growth_limit(token.content.size())};
    if (normalizer_) normalizer_->apply(text);
    normalized_contents.push_back(std::move(text.text));
    normalized.push_back(token);
  }
  special_.assign(static_cast<size_t>(tokens_.size()), 0);
  for (const AddedToken& token : added) special_[static_cast<size_t>(token.id)] = token.special;
  raw_matcher_ = AddedTokenMatcher(std::move(raw), raw_contents);
  normalized_matcher_ = AddedTokenMatcher(std::move(normalized), normalized_contents);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const std::string clean = replace_invalid_utf8(text);
  std::vector<int32_t> ids;
  ids.reserve(clean.size() / 3 + 16);
  if (options.add_special_tokens) ids = template_.prefix;
  const std::unique_ptr<Model::Scratch> scratch = model_->scratch(clean.size());
  std::vector<TextPart> parts;
  raw_matcher_.split(clean, parts);
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      const std::string_view stretch =
          std::string_view(clean).substr(part.begin, part.end - part.begin);
      encode_text(stretch, part.begin == 0 ? decode_utf8(stretch, 0).size : 0, *scratch, ids);
    }
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), template_.suffix.begin(), template_.suffix.end());
  }
  return ids;
}

// start_bytes: size of the first character where the stretch opens the caller's text, else 0.
void Tokenizer::encode_text(std::string_view text, size_t start_bytes, Model::Scratch& scratch,
                            std::vector<int32_t>& ids) const {
  const size_t max_bytes = growth_limit(text.size());
  NormalizedText normal{std::string(text), start_bytes, max_bytes};
  if (normalizer_) normalizer_->apply(normal);
  std::vector<TextPart> parts;
  normalized_matcher_.split(normal.text, parts);
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    const bool whole = part.begin == 0 && part.end == normal.text.size();
    const size_t start = normal.start_bytes > part.begin ? normal.start_bytes - part.begin : 0;
    Pieces pieces = whole_text(
        whole ? std::move(normal.text) : normal.text.substr(part.begin, part.end - part.begin),
        {.start_bytes = start, .max_bytes = max_bytes});
    if (pre_tokenizer_) pre_tokenizer_->apply(pieces);
    for (size_t i = 0; i < pieces.spans.size(); ++i) model_->encode(pieces.view(i), scratch, ids);
  }
}

std::string Tokenizer::decode(std::span<const int32_t> ids, DecodeOptions options) const {
  StreamDecoder stream(*this, options);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text += stream.flush();
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const int32_t id = tokens_.find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

const std::string& Tokenizer::id_to_token(int32_t id) const { return tokens_.token(id); }

bool Tokenizer::is_special(int32_t id) const {
  return tokens_.has(id) && special_[static_cast<size_t>(id)] != 0;
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return template_.prefix.size() == 1 ? std::optional(template_.prefix[0]) : std::nullopt;
}

}  // namespace atom::text
