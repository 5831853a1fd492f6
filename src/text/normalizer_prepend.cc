#include "text/normalizer_parts.h"

namespace atom::text {
namespace {

// Puts a string in front of a text that is not empty.
class Prepend final : public Normalizer {
 public:
  Prepend(std::string content, std::string_view source)
      : content_(std::move(content)), source_(source) {}
  void apply(NormalizedText& text) const override {
    if (text.text.empty()) return;
    check_growth(text.text.size() + content_.size(), text.max_bytes, source_);
    if (text.sources != nullptr) {
      text.sources->insert(text.sources->begin(), content_.size(),
                           CharacterSpan(text.sources->front()));
    }
    text.text.insert(0, content_);
    if (text.start_bytes > 0) text.start_bytes += content_.size();
  }

 private:
  std::string content_;
  std::string source_;
};

}  // namespace

NormalizerPtr make_prepend(const Json& json, std::string_view source) {
  return std::make_unique<Prepend>(get_string(json, "prepend", source), source);
}

}  // namespace atom::text
