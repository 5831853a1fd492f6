// JSON for files that nobody vouches for: nlohmann::ordered_json behind a parser with limits.
//
//   const Json config = parse_json(text, {.source = "model/config.json"});
//   const int64_t n = get_int(config, "hidden_size", {.source = path, .min = 1, .max = 1 << 20});
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace atom {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  std::string_view source = "JSON";  // named in messages: a file name, usually
  int max_depth = 64;                // nesting of arrays and objects
  size_t max_values =
      size_t{1} << 22;  // in the document, or in one entry of a stream: each takes up to 100 bytes
};

// Parses a whole document (RFC 8259). Error: syntax, depth or values beyond the limits, duplicate keys in one
// object, invalid UTF-8, trailing bytes. Keeps the order of keys.
Json parse_json(std::string_view text, const JsonLimits& limits = {});

// Entries of one array or object that are handed over one by one while the text is read, so that no more than one of them is
// in memory. In the document that parse_json returns, that array or object is empty.
struct JsonEntry {
  bool in_object = false;
  std::string_view key = {};  // in an object; valid during the call
  size_t index = 0;
  Json value = {};
};
struct JsonStream {
  std::vector<std::string_view> path;   // keys of objects, from the root on; none: the root itself
  std::function<void(JsonEntry)> take;  // called before errors behind the entry are found
};

// The same document with the same errors; no stream lies inside another one.
Json parse_json(std::string_view text, const JsonLimits& limits,
                const std::vector<JsonStream>& streams);

// A value as messages quote it: on one line, cut after 60 bytes.
std::string shown_json(const Json& value);
// The end of a sentence on a field of an object: "is missing", or "is " and its value.
std::string shown_field(const Json& object, std::string_view key);

// Typed field access: Error naming source, field, rule and offending value. The default is used
// when the key is missing or null and the field is optional.
struct IntField {
  std::string_view source;
  int64_t min = INT64_MIN;
  int64_t max = INT64_MAX;
};
int64_t get_int(const Json& object, std::string_view key, const IntField& field);
int64_t get_int_or(const Json& object, std::string_view key, int64_t otherwise,
                   const IntField& field);

struct NumberField {
  std::string_view source;
  double min = -1e300;
  double max = 1e300;
};
double get_number(const Json& object, std::string_view key, const NumberField& field);
double get_number_or(const Json& object, std::string_view key, double otherwise,
                     const NumberField& field);

std::string get_string(const Json& object, std::string_view key, std::string_view source);
std::string get_string_or(const Json& object, std::string_view key, std::string_view otherwise,
                          std::string_view source);
bool get_bool_or(const Json& object, std::string_view key, bool otherwise, std::string_view source);

}  // namespace atom
