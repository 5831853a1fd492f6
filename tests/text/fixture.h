// Fixtures of tests/data/text, written by tools/make_tokenizer_fixtures.py.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace atom::text::test {

inline Json load_json(const std::string& path) {
  return parse_json(read_file(path), {.source = path});
}
inline Json fixture(const std::string& name) {
  return load_json(std::string(ATOM_TEST_DATA) + "/text/" + name);
}
inline std::string spm_path() {
  return std::string(ATOM_SOURCE_DIR) + "/models/ref-dense-11m/tokenizer.json";
}
inline std::string byte_level_path() {
  return std::string(ATOM_TEST_DATA) + "/text/byte_level_1k.json";
}

// {"vocab": ..., "merges": ...} and the rest of a small tokenizer.json; tests change single fields.
inline Json small_tokenizer(const Json& vocab, const Json& merges) {
  Json model = {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
  Json json;
  json["added_tokens"] = Json::array();
  json["model"] = model;
  return json;
}

inline Tokenizer tokenizer_of(const Json& json) {
  return Tokenizer::from_json(json.dump(), "test.json");
}

// Each part whole, all parts the text.
inline std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    EXPECT_TRUE(is_valid_utf8(part));
    text += part;
  }
  return text + stream.flush();
}

}  // namespace atom::text::test
