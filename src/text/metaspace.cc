#include "text/metaspace.h"

#include "base/error.h"
#include "text/component.h"

namespace atom::text {

Metaspace metaspace_from_json(const Json& json, std::string_view source) {
  using Prepend = Metaspace::Prepend;
  Metaspace out{get_character(json, "replacement", source), Prepend::kAlways,
                get_bool_or(json, "split", true, source)};
  const bool prefix_space = get_bool_or(json, "add_prefix_space", true, source);
  const std::string scheme =
      get_string_or(json, "prepend_scheme", prefix_space ? "always" : "never", source);
  if (scheme == "first") {
    out.prepend = Prepend::kFirst;
  } else if (scheme == "never") {
    out.prepend = Prepend::kNever;
  } else if (scheme != "always") {
    fail("{}: prepend_scheme must be always, first or never and is '{}'", source, scheme);
  }
  if (!prefix_space && out.prepend != Prepend::kNever) {
    fail("{}: add_prefix_space is false but prepend_scheme is '{}'", source, scheme);
  }
  return out;
}

}  // namespace atom::text
