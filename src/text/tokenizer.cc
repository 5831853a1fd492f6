#include "text/tokenizer.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "text/regex.h"
#include "text/stream_decoder.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 26;  // twice the largest known
constexpr size_t kMaxTextBytes = INT32_MAX;            // of one call: places in a word have 32 bits

// A text may grow in the pipeline, but not without end: at most 18-fold by a normal form, 3-fold by
// a mark.
size_t growth_limit(size_t bytes) {
  return std::min<size_t>(64 * bytes + (1 << 16), kMaxTextBytes);
}

void refuse_long_text(std::string_view text) {
  if (text.size() > kMaxTextBytes)
    fail("a text of {} bytes is too long to be encoded at once: at most {} are", text.size(),
         kMaxTextBytes);
}

const Json& entry(const Json& json, const char* key) {
  static const Json null;
  const auto found = json.find(key);
  return found == json.end() ? null : *found;
}

std::string place(const std::string& source, std::string_view key) {
  return fmt::format("{}: {}", source, key);
}

SourceMap slice(const SourceMap& map, size_t begin, size_t end) {
  return {map.begin() + static_cast<std::ptrdiff_t>(begin),
          map.begin() + static_cast<std::ptrdiff_t>(end)};
}

struct Edges {
  size_t front;  // characters
  size_t back;
};

// White space at the ends of a token, where U+0120 stands for a space.
Edges spaces_at_edges(std::string_view token) {
  Edges out{0, 0};
  bool at_front = true;
  for (size_t at = 0; at < token.size();) {
    const CodePoint c = decode_utf8(token, at);
    at += c.size;
    const bool space = c.value == 0x120 || is_whitespace(c.value);
    at_front = at_front && space;
    if (at_front) ++out.front;
    out.back = space ? out.back + 1 : 0;
  }
  return out;
}

}  // namespace

Tokenizer Tokenizer::from_file(const std::filesystem::path& path) {
  ModelLists lists;
  const Json json = [&] {  // the bytes go before the tokenizer comes
    const std::string text = read_file(path, kMaxFileBytes);
    return parse_json(text, {.source = path.native()}, lists.streams({"model"}));
  }();
  return from_parsed(json, lists, path.string());
}

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view source_name) {
  ModelLists lists;
  const Json json = parse_json(text, {.source = source_name}, lists.streams({"model"}));
  return from_parsed(json, lists, std::string(source_name));
}

Tokenizer Tokenizer::from_parsed(const Json& json, const ModelLists& lists,
                                 const std::string& source) {
  if (!json.is_object()) fail("{}: must be a JSON object and is {}", source, shown_json(json));
  TokenizerParts parts;
  parts.model = make_model(entry(json, "model"), lists, place(source, "model"));
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
    NormalizedText text{token.content, 0, growth_limit(token.content.size()), nullptr};
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
  refuse_long_text(text);
  const std::string clean = replace_invalid_utf8(text);
  std::vector<int32_t> ids;
  ids.reserve(clean.size() / 3 + 16);
  if (options.add_special_tokens) ids = template_.prefix;
  const std::unique_ptr<Model::Scratch> scratch = model_->scratch(clean.size());
  encode_clean(clean, {*scratch, ids, nullptr});
  if (options.add_special_tokens) {
    ids.insert(ids.end(), template_.suffix.begin(), template_.suffix.end());
  }
  return ids;
}

Encoding Tokenizer::encode_with_spans(std::string_view text, EncodeOptions options) const {
  refuse_long_text(text);
  const std::string clean = replace_invalid_utf8(text);
  Encoding out;
  const std::unique_ptr<Model::Scratch> scratch = model_->scratch(clean.size());
  encode_clean(clean, {*scratch, out.ids, &out.spans});
  if (template_.trims_spans) trim_spans(out);
  if (options.add_special_tokens) {
    const auto& [prefix, suffix] = std::tie(template_.prefix, template_.suffix);
    out.ids.insert(out.ids.begin(), prefix.begin(), prefix.end());
    out.ids.insert(out.ids.end(), suffix.begin(), suffix.end());
    out.spans.insert(out.spans.begin(), prefix.size(), Span{});
    out.spans.insert(out.spans.end(), suffix.size(), Span{});
  }
  return out;
}

void Tokenizer::encode_clean(std::string_view clean, const Sink& sink) const {
  const RegexTime time(clean.size());
  const SourceMap all = sink.spans == nullptr ? SourceMap() : map_of_characters(clean);
  std::vector<TextPart> parts;
  raw_matcher_.split(clean, parts);
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      sink.ids.push_back(part.id);
      if (sink.spans != nullptr)
        sink.spans->push_back({all[part.begin].begin, all[part.end - 1].end});
      continue;
    }
    const std::string_view stretch = clean.substr(part.begin, part.end - part.begin);
    const size_t start = part.begin == 0 ? decode_utf8(stretch, 0).size : 0;
    SourceMap sources;
    if (sink.spans != nullptr) sources = slice(all, part.begin, part.end);
    encode_text({std::string(stretch), start, growth_limit(stretch.size()),
                 sink.spans == nullptr ? nullptr : &sources},
                sink);
  }
}

// text.start_bytes: size of the first character where the stretch opens the caller's text, else 0.
void Tokenizer::encode_text(NormalizedText text, const Sink& sink) const {
  if (normalizer_) normalizer_->apply(text);
  std::vector<TextPart> parts;
  normalized_matcher_.split(text.text, parts);
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      sink.ids.push_back(part.id);
      if (sink.spans != nullptr) {
        sink.spans->push_back(
            {(*text.sources)[part.begin].begin, (*text.sources)[part.end - 1].end});
      }
      continue;
    }
    const bool whole = part.begin == 0 && part.end == text.text.size();
    const size_t start = text.start_bytes > part.begin ? text.start_bytes - part.begin : 0;
    SourceMap sources;
    if (sink.spans != nullptr) sources = slice(*text.sources, part.begin, part.end);
    Pieces pieces = whole_text(
        whole ? std::move(text.text) : text.text.substr(part.begin, part.end - part.begin),
        {.start_bytes = start, .max_bytes = text.max_bytes});
    if (sink.spans != nullptr) pieces.sources = &sources;
    pieces.may_stay_bytes = sink.spans == nullptr;
    encode_pieces(std::move(pieces), sink);
  }
}

void Tokenizer::encode_pieces(Pieces pieces, const Sink& sink) const {
  if (pre_tokenizer_) pre_tokenizer_->apply(pieces);
  if (pieces.are_bytes) {
    for (size_t i = 0; i < pieces.spans.size(); ++i) {
      model_->encode_bytes(pieces.view(i), sink.scratch, sink.ids);
    }
    return;
  }
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    const size_t first = sink.spans == nullptr ? 0 : sink.spans->size();
    model_->encode(pieces.view(i), sink.scratch, sink.ids, sink.spans);
    if (sink.spans == nullptr) continue;
    const auto source = [&](size_t byte) {
      return (*pieces.sources)[std::min(pieces.spans[i].begin + byte, pieces.sources->size() - 1)];
    };
    for (size_t k = first; k < sink.spans->size(); ++k) {
      Span& span = (*sink.spans)[k];
      span = {source(span.begin).begin, source(span.end == 0 ? 0 : span.end - 1).end};
    }
  }
}

// Spaces at the ends of tokens do not count, as the ByteLevel post-processor of the package has it.
void Tokenizer::trim_spans(Encoding& encoding) const {
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    Span& span = encoding.spans[i];
    Edges spaces = spaces_at_edges(tokens_.token(encoding.ids[i]));
    if (spaces.front > 0) {
      if ((i == 0 || span.begin == 0) && template_.keeps_first_space) --spaces.front;
      span.begin = std::min(span.begin + spaces.front, span.end);
    }
    if (spaces.back > 0 && span.end >= spaces.back) {
      span.end = std::max(span.end - spaces.back, span.begin);
    }
  }
}

std::string Tokenizer::decode(std::span<const int32_t> ids, DecodeOptions options) const {
  constexpr size_t kTokenBytes = 16;  // more than tokens have on average
  const RegexTime time(kTokenBytes * ids.size());
  StreamDecoder stream(*this, options);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text += stream.flush();
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const int32_t id = tokens_.find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::string_view Tokenizer::id_to_token(int32_t id) const { return tokens_.token(id); }

bool Tokenizer::is_special(int32_t id) const {
  return tokens_.has(id) && special_[static_cast<size_t>(id)] != 0;
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return template_.prefix.size() == 1 ? std::optional(template_.prefix[0]) : std::nullopt;
}

}  // namespace atom::text
