// Ids and texts against PyPI tokenizers (fixtures), and the public interface.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/random.h"
#include "testing/sanitized.h"
#include "text/fixture.h"
#include "text/stream_decoder.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

using test::fixture;
using test::load_json;

std::string bytes_of_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return out;
}

// Every piece must be valid UTF-8 of its own; returns all of them together.
std::string stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                   DecodeOptions options) {
  StreamDecoder decoder(tokenizer, options);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(piece));
    text += piece;
  }
  return text += decoder.flush();
}

void expect_decodes(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                    const std::string& expected, DecodeOptions options) {
  EXPECT_EQ(tokenizer.decode(ids, options), expected);
  EXPECT_EQ(stream(tokenizer, ids, options), expected);
}

class OracleTest : public ::testing::TestWithParam<const char*> {};

TEST_P(OracleTest, IdsAndTextsEqual) {
  const Json json = fixture(GetParam());
  const Tokenizer tokenizer =
      Tokenizer::from_file(std::string(ATOM_SOURCE_DIR) + "/" + json["base"].get<std::string>());
  ASSERT_GT(json["cases"].size(), 600u);
  for (const Json& entry : json["cases"]) {
    SCOPED_TRACE(entry.dump());
    const std::string text =
        entry.contains("bytes") ? bytes_of_hex(entry["bytes"]) : entry["text"].get<std::string>();
    const auto expected = entry["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(text), expected);
    const std::string decoded = entry.value("decoded", replace_invalid_utf8(text));
    expect_decodes(tokenizer, expected, decoded, {});
    expect_decodes(tokenizer, expected, entry.value("kept", decoded),
                   {.skip_special_tokens = false});
  }
  for (const Json& entry : json["decodes"]) {
    SCOPED_TRACE(entry.dump());
    const auto ids = entry["ids"].get<std::vector<int32_t>>();
    expect_decodes(tokenizer, ids, entry["decoded"], {});
    expect_decodes(tokenizer, ids, entry["kept"], {.skip_special_tokens = false});
  }
}

INSTANTIATE_TEST_SUITE_P(Files, OracleTest,
                         ::testing::Values("spm_cases.json", "byte_level_cases.json"));

Json patched(Json json, const Json& patch) {
  for (const auto& [key, value] : patch.items()) {
    if (key == "model") {
      for (const auto& [field, option] : value.items()) json["model"][field] = option;
    } else if (key == "added_tokens") {
      for (const Json& token : value) json["added_tokens"].push_back(token);
    } else {
      json[key] = value;
    }
  }
  return json;
}

TEST(ComponentTest, EachComponentEqualsTheOracle) {
  const Json json = fixture("component_cases.json");
  Json bases = Json::object();
  ASSERT_GT(json["patches"].size(), 60u);
  for (const Json& entry : json["patches"]) {
    SCOPED_TRACE(entry["patch"].dump());
    const std::string base = entry["base"];
    if (!bases.contains(base)) bases[base] = load_json(std::string(ATOM_SOURCE_DIR) + "/" + base);
    const Tokenizer tokenizer = test::tokenizer_of(patched(bases[base], entry["patch"]));
    for (size_t i = 0; i < json["texts"].size(); ++i) {
      SCOPED_TRACE(json["texts"][i].dump());
      const Json& result = entry["results"][i];
      const auto ids = result[0].get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer.encode(json["texts"][i].get<std::string>()), ids);
      if (result.size() > 1 && !result[1].is_null()) {
        expect_decodes(tokenizer, ids, result[1], {});
      }
    }
  }
}

TEST(TokenizerTest, TellsItsVocabulary) {
  const Tokenizer tokenizer = Tokenizer::from_file(test::spm_path());
  EXPECT_EQ(tokenizer.vocab_size(), 4096);
  EXPECT_EQ(tokenizer.token_to_id("</s>"), 2);
  EXPECT_EQ(tokenizer.token_to_id("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(1), "<s>");
  EXPECT_EQ(tokenizer.id_to_token(4096), "");
  EXPECT_EQ(tokenizer.id_to_token(-1), "");
  EXPECT_TRUE(tokenizer.is_special(2));
  EXPECT_FALSE(tokenizer.is_special(300));
  EXPECT_EQ(tokenizer.bos_id(), 1);
}

TEST(TokenizerTest, SpecialTokensAreOptional) {
  const Tokenizer tokenizer = Tokenizer::from_file(test::spm_path());
  std::vector<int32_t> ids = tokenizer.encode("Hello", {.add_special_tokens = false});
  EXPECT_NE(ids.at(0), 1);
  ids.insert(ids.begin(), 1);
  EXPECT_EQ(tokenizer.encode("Hello"), ids);
  EXPECT_TRUE(tokenizer.encode("", {.add_special_tokens = false}).empty());
}

TEST(TokenizerTest, NoTemplateMeansNoBos) {
  Json json = load_json(test::spm_path());
  json["post_processor"] = nullptr;
  EXPECT_EQ(test::tokenizer_of(json).bos_id(), std::nullopt);
}

TEST(TokenizerTest, DecodeSkipsIdsWithoutToken) {
  const Tokenizer tokenizer = Tokenizer::from_file(test::spm_path());
  std::vector<int32_t> ids = tokenizer.encode("Hello world");
  ids.insert(ids.begin() + 2, {-7, 4096, INT32_MAX, INT32_MIN});
  EXPECT_EQ(tokenizer.decode(ids), "Hello world");
}

TEST(TokenizerTest, SpecialTokensOfNormalizedFormAreSkippedToo) {
  Json json = load_json(test::spm_path());
  for (Json& token : json["added_tokens"]) token["normalized"] = true;
  const Tokenizer tokenizer = test::tokenizer_of(json);
  // After the normalizer the text is one stretch, so only its front has the mark that <s> has.
  EXPECT_EQ(tokenizer.encode("<s>", {.add_special_tokens = false}), std::vector<int32_t>{1});
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<s>b")), "b");
}

TEST(TokenizerTest, MergesMayBePairs) {
  Json json = load_json(test::spm_path());
  const Tokenizer strings = test::tokenizer_of(json);
  for (Json& merge : json["model"]["merges"]) {
    const std::string text = merge;
    const size_t space = text.find(' ');
    merge = {text.substr(0, space), text.substr(space + 1)};
  }
  const std::string text = "Merges may be pairs of tokens, too.";
  EXPECT_EQ(test::tokenizer_of(json).encode(text), strings.encode(text));
}

TEST(TokenizerTest, ThreadsShareOneTokenizer) {
  const Tokenizer tokenizer = Tokenizer::from_file(test::byte_level_path());
  const std::string text = "Threads share one tokenizer, 123 \xE4\xB8\x80 times.";
  const std::vector<int32_t> expected = tokenizer.encode(text);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) wrong[t] += tokenizer.encode(text) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(TokenizerTest, OneWordOfTwoMegabytes) {
  Random random(7);
  std::string word;
  while (word.size() < (testing::kSanitized ? 200'000U : 2'000'000U))
    word.push_back(static_cast<char>('a' + random.below(26)));
  for (const std::string& path : {test::spm_path(), test::byte_level_path()}) {
    const Tokenizer tokenizer = Tokenizer::from_file(path);
    const std::vector<int32_t> ids = tokenizer.encode(word);
    EXPECT_LT(ids.size(), word.size() * 9 / 10);  // something was merged
    EXPECT_TRUE(tokenizer.decode(ids) == word);
  }
}

TEST(StreamDecoderTest, HoldsBackIncompleteCharacters) {
  const Tokenizer tokenizer = Tokenizer::from_file(test::byte_level_path());
  const std::vector<int32_t> ids =
      tokenizer.encode("\xF0\x9F\x98\x80", {.add_special_tokens = false});
  ASSERT_GT(ids.size(), 1u);
  StreamDecoder decoder(tokenizer);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(decoder.push(ids[i]), "");
  EXPECT_EQ(decoder.push(ids.back()), "\xF0\x9F\x98\x80");
  EXPECT_EQ(decoder.flush(), "");
}

TEST(StreamDecoderTest, DropsTheLeadingSpaceOnceAndStartsAnew) {
  const Tokenizer tokenizer = Tokenizer::from_file(test::spm_path());
  const std::vector<int32_t> ids = tokenizer.encode("The the");
  StreamDecoder decoder(tokenizer);
  for (int round = 0; round < 2; ++round) {
    std::string text;
    for (const int32_t id : ids) text += decoder.push(id);
    EXPECT_EQ(text, "The the");  // nothing waits for flush
    EXPECT_EQ(decoder.flush(), "");
  }
}

}  // namespace
}  // namespace atom::text
