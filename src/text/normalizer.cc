#include "text/normalizer.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "text/component.h"
#include "text/normalizer_parts.h"

namespace atom::text {
namespace {

// Applies its parts in order.
class SequenceNormalizer final : public Normalizer {
 public:
  explicit SequenceNormalizer(std::vector<NormalizerPtr> parts) : parts_(std::move(parts)) {}
  void apply(NormalizedText& text) const override {
    for (const NormalizerPtr& part : parts_) part->apply(text);
  }

 private:
  std::vector<NormalizerPtr> parts_;
};

// Recursion is bounded by the depth limit of the JSON parser.
NormalizerPtr make_normalizer_sequence(const Json& json, std::string_view source) {
  return std::make_unique<SequenceNormalizer>(
      make_parts(json, {"normalizers", source}, &make_normalizer));
}

constexpr Factory<Normalizer> kNormalizers[] = {
    {"Sequence", &make_normalizer_sequence},
    {"Prepend", &make_prepend},
    {"Replace", &make_replace},
    {"NFC", &make_nfc},
    {"NFD", &make_nfd},
    {"NFKC", &make_nfkc},
    {"NFKD", &make_nfkd},
    {"Lowercase", &make_lowercase},
    {"Strip", &make_strip},
    {"StripAccents", &make_strip_accents},
    {"BertNormalizer", &make_bert},
    {"Precompiled", &make_precompiled},
    {"ByteLevel", &make_byte_level_normalizer},
};

}  // namespace

std::unique_ptr<const Normalizer> make_normalizer(const Json& json, std::string_view source) {
  return make_component<Normalizer>(json, source, kNormalizers);
}

void check_growth(size_t bytes, size_t max_bytes, std::string_view source) {
  if (bytes > max_bytes) fail("{}: makes the text longer than {} bytes", source, max_bytes);
}

}  // namespace atom::text
