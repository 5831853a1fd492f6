// Real text of half a megabyte, and of ten: the ids of the PyPI packages, of which tests/data/text/long_text.json has the
// number and the SHA-256. Written by `tools/tokenizer_oracles.py long`.
#include <gtest/gtest.h>

#include <bit>
#include <string>

#include "base/file.h"
#include "base/sha256.h"
#include "testing/sanitized.h"
#include "text/fixture.h"
#include "text/tokenizer_files.h"

namespace atom::text {
namespace {

static_assert(std::endian::native == std::endian::little, "the digests are of little-endian ids");

const Json& long_texts() {
  static const Json json = test::fixture("long_text.json");
  return json;
}

std::string text_of(const Json& entry) {
  std::string once, text;
  for (const Json& name : long_texts()["texts"])
    once += read_file(std::string(ATOM_SOURCE_DIR) + "/" + name.get<std::string>());
  for (int i = 0; i < entry["times"].get<int>(); ++i) text += once;
  return text;
}

Tokenizer load(const std::string& file) {
  const std::string path = std::string(ATOM_SOURCE_DIR) + "/" + file;
  if (!file.ends_with(".model")) return Tokenizer::from_file(path);
  return tokenizer_from_sentencepiece(read_file(path), file, {});
}

TEST(LongTextTest, IdsEqualThePackages) {
  ASSERT_EQ(long_texts()["cases"].size(), 15u);
  for (const Json& entry : long_texts()["cases"]) {
    SCOPED_TRACE(entry.dump());
    const bool once = entry["times"] == 1;
    if (atom::testing::kSanitized && !once) continue;
    const std::string text = text_of(entry);
    ASSERT_GT(text.size(), once ? 500'000u : 10'000'000u);
    const Tokenizer tokenizer = load(entry["file"].get<std::string>());
    const std::vector<int32_t> ids = tokenizer.encode(text, {.add_special_tokens = false});
    EXPECT_EQ(ids.size(), entry["ids"].get<size_t>());
    EXPECT_EQ(sha256_hex(std::as_bytes(std::span(ids))), entry["sha256"].get<std::string>());
  }
}

// What loses nothing gives the text back, whole and in pieces.
TEST(LongTextTest, TextsComeBack) {
  for (size_t i = 0; i < 2; ++i) {
    const Json& entry = long_texts()["cases"][i];
    const std::string text = text_of(entry);
    const Tokenizer tokenizer = load(entry["file"].get<std::string>());
    const Encoding encoding = tokenizer.encode_with_spans(text, {.add_special_tokens = false});
    EXPECT_EQ(encoding.ids, tokenizer.encode(text, {.add_special_tokens = false}));
    EXPECT_EQ(tokenizer.decode(encoding.ids), text) << entry;
    EXPECT_EQ(test::streamed(tokenizer, encoding.ids), text) << entry;
  }
}

}  // namespace
}  // namespace atom::text
