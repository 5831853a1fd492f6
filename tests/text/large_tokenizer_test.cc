// Tokenizers of many tokens: loading one takes memory in proportion to its file.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "testing/memory_limit.h"
#include "text/tokenizer.h"

namespace atom::text {
namespace {

constexpr int kTokens = 150'000;

// All words of the letters a to z, the short ones first: "a", ..., "z", "aa", "ab", ...
std::string word(int number) {
  std::string text;
  for (int rest = number + 1; rest > 0; rest = (rest - 1) / 26)
    text += static_cast<char>('a' + (rest - 1) % 26);
  std::reverse(text.begin(), text.end());
  return text;
}

std::string list_of(const std::vector<std::string>& entries) {
  return fmt::format("\n      {}\n    ", fmt::join(entries, ",\n      "));
}

// Each word is made of the one without its last letter, and that letter.
std::string bpe_file(const char* merge) {
  std::vector<std::string> vocab, merges;
  for (int i = 0; i < kTokens; ++i) {
    const std::string text = word(i);
    const size_t last = text.size() - 1;
    vocab.push_back(fmt::format("\"{}\": {}", text, i));
    if (last > 0)
      merges.push_back(fmt::format(fmt::runtime(merge), text.substr(0, last), text.substr(last)));
  }
  return fmt::format(R"({{"model": {{"type": "BPE", "vocab": {{{}}}, "merges": [{}]}}}})",
                     list_of(vocab), list_of(merges));
}

std::string unigram_file() {
  std::vector<std::string> vocab;
  for (int i = 0; i < kTokens; ++i)
    vocab.push_back(fmt::format("[\n        \"{}\",\n        -{}\n      ]", word(i), 1 + i % 17));
  return fmt::format(R"({{"model": {{"type": "Unigram", "unk_id": 0, "vocab": [{}]}}}})",
                     list_of(vocab));
}

// JSON values for the entries of these lists alone took ten times the file.
void expect_small(const std::string& file) {
  const atom::testing::MemoryLimit limit(6 * file.size());
  const Tokenizer tokenizer = Tokenizer::from_json(file, "large.json");
  EXPECT_EQ(tokenizer.vocab_size(), kTokens);
  EXPECT_EQ(tokenizer.id_to_token(kTokens - 1), word(kTokens - 1));
  EXPECT_EQ(tokenizer.token_to_id("abc"), (1 * 26 + 2) * 26 + 3 - 1);
}

TEST(LargeTokenizerTest, MergesAsStringsTakeLittleMemory) {
  const std::string file = bpe_file("\"{} {}\"");
  expect_small(file);
}

TEST(LargeTokenizerTest, MergesAsPairsTakeLittleMemory) {
  const std::string file = bpe_file("[\n        \"{}\",\n        \"{}\"\n      ]");
  expect_small(file);
}

TEST(LargeTokenizerTest, ScoresTakeLittleMemory) {
  const std::string file = unigram_file();
  expect_small(file);
}

// The lists are read before it is known what they belong to.
TEST(LargeTokenizerTest, TheOrderOfFieldsDoesNotMatter) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"added_tokens": [{"id": 4, "content": "<s>", "special": true}],
          "model": {"merges": ["#version: 0.2", "a b", ["ab", "c"]],
                    "vocab": {"abc": 0, "a": 1, "b": 2, "c": 3, "ab": 5}, "type": "BPE"}})",
      "small.json");
  EXPECT_EQ(tokenizer.encode("abc<s>ab"), (std::vector<int32_t>{0, 4, 5}));
  const auto refused = [](const char* model, const char* part) {
    try {
      Tokenizer::from_json(fmt::format(R"({{"model": {}}})", model), "small.json");
      FAIL() << model;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused(R"({"merges": ["#version", "a b", "a x"], "vocab": {"a": 0, "b": 1, "ab": 2}})",
          "merges[2]: the token 'x' is not in vocab");
  refused(R"({"vocab": {"a": 0}, "vocab": [["a", 1]], "merges": []})", "\"vocab\" twice");
  refused(R"({"vocab": {"a": 0, "b": 1, "a": 0}, "merges": []})", "\"a\" twice");
  refused(R"({"vocab": [["a", 1]], "merges": []})",
          "vocab must be an object with at least one token and is [[\"a\",1], ...]");
  refused(R"({"vocab": {"a": 0}, "merges": {"a": "b"}})",
          "merges must be an array and is {\"a\":\"b\", ...}");
}

}  // namespace
}  // namespace atom::text
