// JSON documents: what is read is written, and read back the same.
#include "base/json.h"

#include "fuzz/fuzz.h"

namespace atom::fuzz {

void run_json(std::string_view bytes) {
  accepts([&] {
    const Json json = parse_json(bytes, {.source = "fuzz", .max_depth = 32});
    const std::string text = json.dump();
    const Json again = parse_json(text, {.source = "fuzz", .max_depth = 32});
    check(again.dump() == text, "a JSON document changes when it is written and read");
    for (const char* key : {"a", "b"}) {
      accepts([&] { get_int(json, key, {.source = "fuzz", .min = -5, .max = 5}); });
      accepts([&] { get_number(json, key, {.source = "fuzz"}); });
      accepts([&] { get_string(json, key, "fuzz"); });
      accepts([&] { get_bool_or(json, key, true, "fuzz"); });
    }
  });
}

}  // namespace atom::fuzz
