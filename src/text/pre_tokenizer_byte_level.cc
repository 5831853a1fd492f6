#include "text/byte_alphabet.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer_parts.h"
#include "text/split_behavior.h"

namespace atom::text {
namespace {

// The words of GPT-2 (Radford et al. 2019).
constexpr std::string_view kWords =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Options {
  bool add_prefix_space;
  bool use_regex;
};

// Optional space in front of each piece, optional GPT-2 words, then the byte alphabet.
// trim_offsets only concerns character offsets, which are not kept.
class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(Options options, std::string_view source) : options_(options), source_(source) {
    if (options.use_regex) words_.regex = Regex::compile(kWords, source);
  }

  void apply(Pieces& pieces) const override {
    if (options_.add_prefix_space) add_spaces(pieces);
    if (options_.use_regex) {
      PatternSearch search(words_);
      split_pieces(pieces, SplitBehavior::kIsolated,
                   [&](std::string_view piece, auto& parts) { search.split(piece, parts); });
    }
    to_byte_alphabet(pieces);
  }

 private:
  void add_spaces(Pieces& pieces) const {
    std::string out;
    out.reserve(pieces.text.size() + pieces.spans.size());
    size_t start = 0;
    for (size_t i = 0; i < pieces.spans.size(); ++i) {
      const std::string_view piece = pieces.view(i);
      const size_t begin = out.size();
      if (piece.front() != ' ') out += ' ';
      out += piece;
      if (pieces.spans[i].begin < pieces.start_bytes) start = begin + 1;
      pieces.spans[i] = {begin, out.size()};
    }
    replace_text(pieces, std::move(out), start);
  }

  void to_byte_alphabet(Pieces& pieces) const {
    std::string out;
    out.reserve(pieces.text.size() + pieces.text.size() / 4);
    size_t start = 0;
    for (size_t i = 0; i < pieces.spans.size(); ++i) {
      const size_t begin = out.size();
      append_byte_characters(out, pieces.view(i));
      if (pieces.spans[i].begin < pieces.start_bytes) start = begin + 1;
      pieces.spans[i] = {begin, out.size()};
    }
    replace_text(pieces, std::move(out), start);
  }

  void replace_text(Pieces& pieces, std::string text, size_t start_bytes) const {
    check_growth(text.size(), pieces.max_bytes, source_);
    pieces.text = std::move(text);
    pieces.start_bytes = start_bytes;
  }

  Options options_;
  std::string source_;
  Pattern words_;
};

}  // namespace

PreTokenizerPtr make_byte_level(const Json& json, std::string_view source) {
  get_bool_or(json, "trim_offsets", true, source);
  return std::make_unique<ByteLevel>(
      Options{.add_prefix_space = get_bool_or(json, "add_prefix_space", true, source),
              .use_regex = get_bool_or(json, "use_regex", true, source)},
      source);
}

}  // namespace atom::text
