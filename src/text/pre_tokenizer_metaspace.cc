#include "text/metaspace.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

class MetaspacePreTokenizer final : public PreTokenizer {
 public:
  MetaspacePreTokenizer(const Metaspace& options, std::string_view source)
      : options_(options), source_(source) {
    append_utf8(mark_, options.replacement);
  }

  void apply(Pieces& pieces) const override {
    std::string out;
    std::vector<Span> spans;
    out.reserve(pieces.text.size() + pieces.text.size() / 2);
    size_t start = 0;
    Trace trace(pieces.sources);
    for (size_t i = 0; i < pieces.spans.size(); ++i) {
      const std::string_view piece = pieces.view(i);
      const bool first = pieces.spans[i].begin < pieces.start_bytes;
      const size_t begin = out.size();
      const bool marked = piece.front() == ' ' || piece.starts_with(mark_);
      if (!marked && prepends(first)) out += mark_;
      trace.until(out.size(), pieces.spans[i].begin);
      for (size_t at = 0; at < piece.size(); ++at) {
        if (piece[at] == ' ') {
          out += mark_;
        } else {
          out += piece[at];
        }
        trace.until(out.size(), pieces.spans[i].begin + at);
      }
      check_growth(out.size(), pieces.max_bytes, source_);
      if (first) start = begin + 1;
      add_spans(out, begin, spans);
    }
    trace.finish();
    pieces.text = std::move(out);
    pieces.spans = std::move(spans);
    pieces.start_bytes = start;
  }

 private:
  bool prepends(bool first) const {
    return options_.prepend == Metaspace::Prepend::kAlways ||
           (options_.prepend == Metaspace::Prepend::kFirst && first);
  }

  // One span for the text from `begin`, or one from each mark to the next.
  void add_spans(std::string_view text, size_t begin, std::vector<Span>& spans) const {
    while (options_.split) {
      const size_t next = text.find(mark_, begin + 1);
      if (next == std::string_view::npos) break;
      spans.push_back({begin, next});
      begin = next;
    }
    spans.push_back({begin, text.size()});
  }

  Metaspace options_;
  std::string source_;
  std::string mark_;
};

}  // namespace

PreTokenizerPtr make_metaspace(const Json& json, std::string_view source) {
  return std::make_unique<MetaspacePreTokenizer>(metaspace_from_json(json, source), source);
}

}  // namespace atom::text
