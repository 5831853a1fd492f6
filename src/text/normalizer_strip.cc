#include "text/normalizer_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

struct StripSides {
  bool left;
  bool right;
};

// Removes white space at the ends.
class Strip final : public Normalizer {
 public:
  explicit Strip(StripSides sides) : sides_(sides) {}
  void apply(NormalizedText& text) const override {
    const std::string_view all = text.text;
    size_t begin = 0;
    size_t end = all.size();
    while (sides_.left && begin < end) {
      const CodePoint c = decode_utf8(all, begin);
      if (!is_whitespace(c.value)) break;
      begin += c.size;
    }
    while (sides_.right && begin < end) {
      const size_t last = previous_utf8(all, end);
      if (!is_whitespace(decode_utf8(all, last).value)) break;
      end = last;
    }
    Trace trace(text.sources);
    trace.keep(begin, end);
    trace.finish();
    text.text = std::string(all.substr(begin, end - begin));
    text.start_bytes = text.start_bytes > begin ? text.start_bytes - begin : 0;
  }

 private:
  StripSides sides_;
};

}  // namespace

NormalizerPtr make_strip(const Json& json, std::string_view source) {
  return std::make_unique<Strip>(
      StripSides{.left = get_bool_or(json, "strip_left", false, source),
                 .right = get_bool_or(json, "strip_right", false, source)});
}

}  // namespace atom::text
