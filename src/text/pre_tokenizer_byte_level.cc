#include "text/byte_alphabet.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer_parts.h"
#include "text/split_behavior.h"

namespace atom::text {
namespace {

// The words of GPT-2 (Radford et al. 2019).
constexpr std::string_view kWords =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct ByteLevelOptions {
  bool add_prefix_space;
  bool use_regex;
};

// Optional space in front of each piece, optional GPT-2 words, then the byte alphabet.
// trim_offsets only means something in a post-processor.
class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(ByteLevelOptions options, std::string_view source)
      : options_(options), source_(source) {
    if (options.use_regex) words_ = regex_pattern(kWords, source);
  }

  void apply(Pieces& pieces) const override {
    if (options_.add_prefix_space) add_spaces(pieces);
    if (options_.use_regex) {
      split_at_pattern(pieces, words_, {.behavior = SplitBehavior::kIsolated, .invert = false});
    }
    if (pieces.may_stay_bytes) {
      pieces.are_bytes = true;
    } else {
      to_byte_alphabet(pieces);
    }
  }

 private:
  void add_spaces(Pieces& pieces) const {
    std::string out;
    out.reserve(pieces.text.size() + pieces.spans.size());
    size_t start = 0;
    Trace trace(pieces.sources);
    for (size_t i = 0; i < pieces.spans.size(); ++i) {
      const std::string_view piece = pieces.view(i);
      const size_t begin = out.size();
      if (piece.front() != ' ') out += ' ';
      trace.until(out.size(), pieces.spans[i].begin);
      out += piece;
      trace.keep(pieces.spans[i].begin, pieces.spans[i].end);
      if (pieces.spans[i].begin < pieces.start_bytes) start = begin + 1;
      pieces.spans[i] = {begin, out.size()};
    }
    trace.finish();
    replace_text(pieces, std::move(out), start);
  }

  void to_byte_alphabet(Pieces& pieces) const {
    std::string out;
    out.reserve(pieces.text.size() + pieces.text.size() / 4);
    size_t start = 0;
    Trace trace(pieces.sources);
    for (size_t i = 0; i < pieces.spans.size(); ++i) {
      const size_t begin = out.size();
      for (size_t at = pieces.spans[i].begin; at < pieces.spans[i].end; ++at) {
        append_byte_characters(out, std::string_view(pieces.text).substr(at, 1));
        trace.until(out.size(), at);
      }
      if (pieces.spans[i].begin < pieces.start_bytes) start = begin + 1;
      pieces.spans[i] = {begin, out.size()};
    }
    trace.finish();
    replace_text(pieces, std::move(out), start);
  }

  void replace_text(Pieces& pieces, std::string text, size_t start_bytes) const {
    check_growth(text.size(), pieces.max_bytes, source_);
    pieces.text = std::move(text);
    pieces.start_bytes = start_bytes;
  }

  ByteLevelOptions options_;
  std::string source_;
  Pattern words_;
};

}  // namespace

PreTokenizerPtr make_byte_level(const Json& json, std::string_view source) {
  get_bool_or(json, "trim_offsets", true, source);
  return std::make_unique<ByteLevel>(
      ByteLevelOptions{.add_prefix_space = get_bool_or(json, "add_prefix_space", true, source),
                       .use_regex = get_bool_or(json, "use_regex", true, source)},
      source);
}

}  // namespace atom::text
