// Factories of the single normalizers; used by make_normalizer only.
#pragma once

#include "text/normalizer.h"

namespace atom::text {

using NormalizerPtr = std::unique_ptr<const Normalizer>;

NormalizerPtr make_prepend(const Json& json, std::string_view source);
NormalizerPtr make_replace(const Json& json, std::string_view source);
NormalizerPtr make_nfc(const Json& json, std::string_view source);
NormalizerPtr make_nfd(const Json& json, std::string_view source);
NormalizerPtr make_nfkc(const Json& json, std::string_view source);
NormalizerPtr make_nfkd(const Json& json, std::string_view source);
NormalizerPtr make_lowercase(const Json& json, std::string_view source);
NormalizerPtr make_strip(const Json& json, std::string_view source);
NormalizerPtr make_strip_accents(const Json& json, std::string_view source);
NormalizerPtr make_bert(const Json& json, std::string_view source);
NormalizerPtr make_precompiled(const Json& json, std::string_view source);
NormalizerPtr make_byte_level_normalizer(const Json& json, std::string_view source);

}  // namespace atom::text
