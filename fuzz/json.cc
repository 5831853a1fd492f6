// JSON documents: what is read is written, and read back the same; entries taken one by one are those of the document.
#include "base/json.h"

#include "fuzz/fuzz.h"

namespace atom::fuzz {

namespace {

void check_stream(std::string_view bytes, const Json& json) {
  auto next = json.begin();
  const auto take = [&](const JsonEntry& entry) {
    check(next != json.end() && *next == entry.value && entry.in_object == json.is_object() &&
              (!entry.in_object || next.key() == entry.key),
          "an entry of a stream is not that of the document");
    ++next;
  };
  const Json rest = parse_json(bytes, {.source = "fuzz", .max_depth = 32}, {{{}, take}});
  if (json.is_structured())
    check(next == json.end() && rest.empty(), "a stream ends before the document");
  else
    check(rest == json, "a value changes beside a stream");
}

}  // namespace

void run_json(std::string_view bytes) {
  accepts([&] {
    const Json json = parse_json(bytes, {.source = "fuzz", .max_depth = 32});
    check_stream(bytes, json);
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
