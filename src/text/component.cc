#include "text/component.h"

#include "text/unicode.h"

namespace atom::text {

uint32_t get_character(const Json& json, std::string_view key, std::string_view source) {
  const std::string value = get_string(json, key, source);
  if (value.empty() || decode_utf8(value, 0).size != value.size()) {
    fail("{}: {} must be one character and is '{}'", source, key, value);
  }
  return decode_utf8(value, 0).value;
}

}  // namespace atom::text
