// Spans of encode_with_spans and texts of random ids against the packages (kinds/spans.json, written by
// tools/tokenizer_oracles.py spans).
#include <gtest/gtest.h>

#include "base/random.h"
#include "text/fixture.h"
#include "text/stream_decoder.h"
#include "text/tokenizer_files.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

std::string file_of(const std::string& name) {
  return std::string(ATOM_TEST_DATA) + "/text/kinds/" + name;
}

Tokenizer tokenizer_of_kind(const std::string& name) {
  if (!name.ends_with(".model")) return Tokenizer::from_file(file_of(name));
  return tokenizer_from_sentencepiece(read_file(file_of(name)), name, {});
}

const Json& expectations() {
  static const Json all = test::fixture("kinds/spans.json");
  return all;
}

size_t characters_of(const std::string& text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) at += scan_utf8(text, at).size;
  return count;
}

// Half characters that people write, half bytes.
std::string odd_text(Random& random) {
  std::string text;
  for (uint64_t left = random.below(24); left > 0; --left) {
    constexpr uint32_t kFrom[] = {' ',   'a',    0xC0,    0x300,  0x3B1,
                                  0x5D0, 0xAC00, 0x1F600, 0xFB00, 0x2000};
    if (random.below(8) == 0) {
      text += static_cast<char>(random.below(256));
    } else {
      append_utf8(text, kFrom[random.below(10)] + static_cast<uint32_t>(random.below(24)));
    }
  }
  return text;
}

TEST(SpansTest, EqualThePackages) {
  const Json cases = test::fixture("kinds/cases.json")["files"];
  for (const auto& [name, expected] : expectations().items()) {
    SCOPED_TRACE(name);
    const Tokenizer tokenizer = tokenizer_of_kind(name);
    EXPECT_GT(expected["spans"].size(), 20u);
    for (const Json& entry : expected["spans"]) {
      const auto text = cases[name][entry[0].get<size_t>()]["text"].get<std::string>();
      const Encoding encoding = tokenizer.encode_with_spans(text, {.add_special_tokens = false});
      std::vector<size_t> flat;
      for (const Span& span : encoding.spans) flat.insert(flat.end(), {span.begin, span.end});
      EXPECT_EQ(flat, entry[1].get<std::vector<size_t>>()) << Json(text).dump();
    }
  }
}

TEST(SpansTest, TextsOfRandomIdsEqualThePackages) {
  for (const auto& [name, expected] : expectations().items()) {
    SCOPED_TRACE(name);
    const Tokenizer tokenizer = tokenizer_of_kind(name);
    for (const Json& entry : expected["random"]) {
      const auto ids = entry[0].get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer.decode(ids), entry[1].get<std::string>()) << entry[0].dump();
      EXPECT_EQ(test::streamed(tokenizer, ids), entry[1].get<std::string>()) << entry[0].dump();
    }
  }
}

TEST(SpansTest, IdsAreThoseOfEncodeAndSpansInsideTheText) {
  std::vector<std::string> paths = {test::byte_level_path(), test::spm_path()};
  for (const auto& [name, cases] : expectations().items()) {
    if (!name.ends_with(".model")) paths.push_back(file_of(name));
  }
  Random random(12);
  for (const std::string& path : paths) {
    const Tokenizer tokenizer = Tokenizer::from_file(path);
    for (int i = 0; i < 60; ++i) {
      const std::string text = odd_text(random);
      SCOPED_TRACE(path + ::testing::PrintToString(text));
      const Encoding encoding = tokenizer.encode_with_spans(text);
      EXPECT_EQ(encoding.ids, tokenizer.encode(text));
      ASSERT_EQ(encoding.ids.size(), encoding.spans.size());
      for (const Span& span : encoding.spans) EXPECT_LE(span.end, characters_of(text));
    }
  }
}

TEST(SpansTest, SpecialTokensAndBytesThatAreNoText) {
  const Tokenizer tokenizer = tokenizer_of_kind("bert.json");
  const auto spans = tokenizer.encode_with_spans("\xFF[SEP] a").spans;  // [CLS] U+FFFD dropped ...
  const auto at = [&](size_t i) { return std::pair(spans.at(i).begin, spans.at(i).end); };
  ASSERT_EQ(spans.size(), 4u);
  EXPECT_EQ(at(0), std::pair(0ul, 0ul));
  EXPECT_EQ(at(1), std::pair(1ul, 6ul));
  EXPECT_EQ(at(2), std::pair(7ul, 8ul));
  EXPECT_EQ(at(3), std::pair(0ul, 0ul));
}

TEST(SpansTest, EveryStreamedPartIsWholeAndFinal) {
  for (const auto& [name, cases] : expectations().items()) {
    SCOPED_TRACE(name);
    const Tokenizer tokenizer = tokenizer_of_kind(name);
    Random random(8);
    for (int i = 0; i < 25; ++i) {
      std::vector<int32_t> ids;
      std::string text;
      StreamDecoder stream(tokenizer);
      for (uint64_t left = random.below(16); left > 0; --left) {
        ids.push_back(
            static_cast<int32_t>(random.below(static_cast<uint64_t>(tokenizer.vocab_size()))));
        const std::string part = stream.push(ids.back());
        EXPECT_TRUE(is_valid_utf8(part));
        text += part;
        EXPECT_TRUE(tokenizer.decode(ids).starts_with(text)) << text;
      }
    }
  }
}

}  // namespace
}  // namespace atom::text
