// Files that break a rule: each is refused with a sentence that names file, field and value.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <functional>

#include "base/error.h"
#include "testing/expect_error.h"
#include "text/fixture.h"

namespace atom::text {
namespace {

Json good() {
  Json json =
      test::small_tokenizer({{"a", 0}, {"b", 1}, {"ab", 2}, {"<unk>", 3}, {"<s>", 4}}, {"a b"});
  json["added_tokens"] = {{{"id", 4}, {"content", "<s>"}, {"special", true}}};
  return json;
}

struct Rule {
  const char* name;
  std::function<void(Json&)> breaks;
  const char* message;  // a part of it
};

Json json_of(const char* text) { return parse_json(text); }

std::function<void(Json&)> set(std::string key, const char* value) {
  return [key, value](Json& json) { json[key] = json_of(value); };
}
std::function<void(Json&)> set_model(std::string key, const char* value) {
  return [key, value](Json& json) { json["model"][key] = json_of(value); };
}

void PrintTo(const Rule& rule, std::ostream* out) { *out << rule.name; }

class HostileTest : public ::testing::TestWithParam<Rule> {};

TEST_P(HostileTest, IsRefused) {
  Json json = good();
  EXPECT_NO_THROW(test::tokenizer_of(json));
  GetParam().breaks(json);
  try {
    test::tokenizer_of(json);
    FAIL() << "accepted";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find("test.json"), 0u) << message;
    EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

const Rule kModelRules[] = {
    {"NoModel", [](Json& j) { j.erase("model"); }, "model: must be an object and is null"},
    {"ModelType", set_model("type", R"("Bigram")"), "model: the type 'Bigram'"},
    {"NoVocab", [](Json& j) { j["model"].erase("vocab"); }, "vocab is missing"},
    {"EmptyVocab", set_model("vocab", "{}"), "at least one token and is {}"},
    {"VocabArray", set_model("vocab", "[1]"),
     "vocab must be an object with at least one token and is [1, ...]"},
    {"NegativeId", set_model("vocab", R"({"a":-1})"), "the id -1 of the token 'a'"},
    {"FractionId", set_model("vocab", R"({"a":1.5})"), "must be an integer below 2^31 and is 1.5"},
    {"HugeId", set_model("vocab", R"({"a":18446744073709551615})"),
     "2^31 and is 18446744073709551615"},
    {"FarId", set_model("vocab", R"({"a":2000000000})"), "outside [0, 65536]"},
    {"SameId", set_model("vocab", R"({"a":0,"b":0})"), "the same id 0"},
    {"MergeOperand", set_model("merges", R"(["a x"])"), "merges[0]: the token 'x' is not in vocab"},
    {"MergeResult", set_model("merges", R"(["b a"])"), "the token 'ba' is not in vocab"},
    {"MergeOne", set_model("merges", R"(["ab"])"),
     "merges[0]: must be two tokens with one space between or an array of two strings and is "
     "\"ab\""},
    {"MergeThree", set_model("merges", R"(["a b c"])"), "and is \"a b c\""},
    {"MergeTriple", set_model("merges", R"([["a","b"],["a","b","c"]])"),
     "merges[1]: must be two tokens with one space between or an array of two strings and is "
     "[\"a\",\"b\",\"c\"]"},
    {"MergeNumber", set_model("merges", "[7]"), "and is 7"},
    {"MergesObject", set_model("merges", "{}"), "merges must be an array and is {}"},
    {"Dropout", set_model("dropout", "0.1"), "dropout must be null or 0"},
    {"Unknown", set_model("unk_token", R"("<x>")"), "unk_token '<x>' is not in vocab"},
    {"Prefix", set_model("continuing_subword_prefix", R"("##")"), "and it is '##'"},
    {"Suffix", set_model("end_of_word_suffix", R"("</w>")"), "and it is '</w>'"},
    {"Fallback", set_model("byte_fallback", "1"), "byte_fallback"},
};

std::function<void(Json&)> set_whole_model(const char* value) {
  return [value](Json& json) { json["model"] = json_of(value); };
}

const Rule kOtherModelRules[] = {
    {"UnigramVocab", set_whole_model(R"({"type":"Unigram","vocab":{"a":1}})"),
     "vocab must be an array of 1 to 4194304 tokens with scores and is {\"a\":1, ...}"},
    {"UnigramEmpty", set_whole_model(R"({"type":"Unigram","vocab":[]})"),
     "1 to 4194304 tokens with scores and is []"},
    {"UnigramPair", set_whole_model(R"({"type":"Unigram","vocab":[["a"]]})"),
     "vocab[0]: must be a token and its score and is [\"a\"]"},
    {"UnigramScore", set_whole_model(R"({"type":"Unigram","vocab":[["a","b"]]})"),
     "vocab[0]: must be a token and its score and is [\"a\",\"b\"]"},
    {"UnigramTwice", set_whole_model(R"({"type":"Unigram","vocab":[["a",0],["a",-1]]})"),
     "vocab[1]: the token 'a' has the ids 0 and 1"},
    {"UnigramUnknown", set_whole_model(R"({"type":"Unigram","unk_id":1,"vocab":[["a",0]]})"),
     "unk_id"},
    {"UnigramUnknownNegative",
     set_whole_model(R"({"type":"Unigram","unk_id":-1,"vocab":[["a",0]]})"), "unk_id"},
    {"WordPieceVocab", set_whole_model(R"({"type":"WordPiece"})"), "vocab is missing"},
    {"WordPieceChars",
     set_whole_model(
         R"({"type":"WordPiece","vocab":{"a":0},"max_input_chars_per_word":9999999999})"),
     "max_input_chars_per_word"},
    {"WordLevelVocab", set_whole_model(R"({"type":"WordLevel","vocab":{}})"), "at least one token"},
};

const Rule kTokenRules[] = {
    {"AddedObject", set("added_tokens", "{}"), "added_tokens must be an array and is {}"},
    {"AddedNumber", set("added_tokens", "[3]"), "added_tokens[0]: must be an object and is 3"},
    {"AddedEmpty", set("added_tokens", R"([{"id":5,"content":""}])"), "added_tokens[0]"},
    {"AddedNegative", set("added_tokens", R"([{"id":-5,"content":"x"}])"), "-5"},
    {"AddedFar", set("added_tokens", R"([{"id":99999999,"content":"x"}])"), "99999999"},
    {"AddedTaken", set("added_tokens", R"([{"id":1,"content":"x"}])"), "the same id 1"},
    {"AddedMoved", set("added_tokens", R"([{"id":7,"content":"a"}])"), "the ids 0 and 7"},
    {"AddedTwice", set("added_tokens", R"([{"id":5,"content":"x"},{"id":6,"content":"x"}])"),
     "the content 'x' occurs twice"},
    {"AddedSameId", set("added_tokens", R"([{"id":5,"content":"x"},{"id":5,"content":"y"}])"),
     "the id 5 occurs twice"},
    {"AddedLong",
     [](Json& j) {
       j["added_tokens"] = {{{"id", 5}, {"content", std::string(5000, 'x')}}};
     },
     "has 5000"},
};

const Rule kComponentRules[] = {
    {"Normalizer", set("normalizer", R"({"type":"Nmt"})"), "normalizer: the type 'Nmt'"},
    {"NormalizerText", set("normalizer", R"("NFC")"),
     "normalizer: must be an object or null and is \"NFC\""},
    {"NormalizerPart", set("normalizer", R"({"type":"Sequence","normalizers":[{"type":"X"}]})"),
     "normalizer.normalizers[0]: the type 'X'"},
    {"NormalizerNull", set("normalizer", R"({"type":"Sequence","normalizers":[null]})"), "is null"},
    {"NormalizerParts", set("normalizer", R"({"type":"Sequence"})"),
     "normalizers must be an array and is missing"},
    {"Prepend", set("normalizer", R"({"type":"Prepend"})"), "prepend"},
    {"Pattern", set("normalizer", R"({"type":"Replace","content":"x"})"), "pattern is missing"},
    {"PatternKind", set("normalizer", R"({"type":"Replace","content":"x","pattern":{"Glob":"*"}})"),
     "String or Regex and is {\"Glob\":\"*\"}"},
    {"PatternEmpty",
     set("normalizer", R"({"type":"Replace","content":"x","pattern":{"String":""}})"),
     "must not be empty"},
    {"PreTokenizer", set("pre_tokenizer", R"({"type":"Bert"})"), "pre_tokenizer: the type 'Bert'"},
    {"Behavior",
     set("pre_tokenizer", R"({"type":"Split","pattern":{"String":"a"},"behavior":"Odd"})"),
     "'Odd'"},
    {"Scheme",
     set("pre_tokenizer", R"({"type":"Metaspace","replacement":"_","prepend_scheme":"maybe"})"),
     "'maybe'"},
    {"Mark", set("pre_tokenizer", R"({"type":"Metaspace","replacement":"__"})"), "one character"},
    {"Contradiction",
     set("pre_tokenizer",
         R"({"type":"Metaspace","replacement":"_","prepend_scheme":"first","add_prefix_space":false})"),
     "add_prefix_space"},
    {"Post", set("post_processor", R"({"type":"Bert"})"), "post_processor: the type 'Bert'"},
    {"PostNoText", set("post_processor", R"({"type":"TemplateProcessing","single":[]})"),
     "exactly once"},
    {"PostSpecial",
     set("post_processor",
         R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},{"Sequence":{"id":"A"}}],
             "special_tokens":{}})"),
     "no entry for 'x'"},
    {"PostId",
     set("post_processor",
         R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},{"Sequence":{"id":"A"}}],
             "special_tokens":{"x":{"ids":[77]}}})"),
     "the id 77"},
    {"PostTwice",
     [](Json& j) {
       const Json one = json_of(
           R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},{"Sequence":{"id":"A"}}],
               "special_tokens":{"x":{"ids":[4]}}})");
       j["post_processor"] = {{"type", "Sequence"}, {"processors", {one, one}}};
     },
     "more than one of the processors"},
    {"Decoder", set("decoder", R"({"type":"WordSalad"})"), "decoder: the type 'WordSalad'"},
    {"PostCls", set("post_processor", R"({"type":"BertProcessing","sep":["b",1],"cls":"a"})"),
     "cls must be a token and its id"},
    {"PostSep",
     set("post_processor", R"({"type":"RobertaProcessing","sep":["b",-1],"cls":["a",0]})"),
     "sep must be a token and its id"},
    {"PostSepId",
     set("post_processor", R"({"type":"RobertaProcessing","sep":["b",77],"cls":["a",0]})"),
     "the id 77"},
    {"Delimiter", set("pre_tokenizer", R"({"type":"CharDelimiterSplit","delimiter":"ab"})"),
     "one character"},
    {"Base64", set("normalizer", R"({"type":"Precompiled","precompiled_charsmap":"AA!A"})"),
     "base64 text has a byte 33 at 2"},
    {"Base64Size", set("normalizer", R"({"type":"Precompiled","precompiled_charsmap":"AAA"})"),
     "multiple of 4, and has 3"},
    {"Charsmap", set("normalizer", R"({"type":"Precompiled","precompiled_charsmap":"/////wAA"})"),
     "of 6 bytes cannot have 4294967295 bytes"},
    {"DecoderStrip", set("decoder", R"({"type":"Strip","content":" ","start":-1})"), "start"},
};

// Regular expressions that this reader cannot give the meaning that the file intends.
Rule regex_rule(const char* name, const char* pattern, const char* message) {
  return {name,
          [pattern](Json& j) {
            j["pre_tokenizer"] = {
                {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
          },
          message};
}
const Rule kRegexRules[] = {
    regex_rule("Syntax", "(", "is not supported"),
    regex_rule("Empty", "", "1 to 65536 bytes"),
    regex_rule("Verb", "(*NO_JIT)a", "a verb"),
    regex_rule("Intersection", "[a-z&&b]", "a class intersection"),
    regex_rule("Nested", "[a[bc]]", "a class in a class"),
    regex_rule("OpenClass", "[a", "without its end"),
    regex_rule("Interval", "a{2}+", "an interval"),
    regex_rule("Option", "(?x: a)", "a group that begins with (?x"),
    regex_rule("SearchBegin", "\\Ga", "\\G"),
    regex_rule("Backslash", "a\\", "a backslash at its end"),
    regex_rule("Size", "(?:(?:(?:a{1000}){1000}){1000}){1000}", "is not supported"),
    regex_rule("Property", "\\p{NoSuchScript}", "is not supported"),
};

const auto kName = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Model, HostileTest, ::testing::ValuesIn(kModelRules), kName);
INSTANTIATE_TEST_SUITE_P(OtherModels, HostileTest, ::testing::ValuesIn(kOtherModelRules), kName);
INSTANTIATE_TEST_SUITE_P(Tokens, HostileTest, ::testing::ValuesIn(kTokenRules), kName);
INSTANTIATE_TEST_SUITE_P(Components, HostileTest, ::testing::ValuesIn(kComponentRules), kName);
INSTANTIATE_TEST_SUITE_P(Regexes, HostileTest, ::testing::ValuesIn(kRegexRules), kName);

TEST(HostileTest, NotJson) {
  EXPECT_THROW(Tokenizer::from_json("{", "test.json"), Error);
  EXPECT_THROW(Tokenizer::from_json("[]", "test.json"), Error);
  EXPECT_THROW(Tokenizer::from_json("{\"model\": \"\xFF\"}", "test.json"), Error);
  EXPECT_THROW(Tokenizer::from_file("no/such/tokenizer.json"), Error);
}

// The pages behind the text cannot be read: it is refused for its length alone.
TEST(HostileTest, TextsOfTwoGibibytesAreRefusedUnread) {
  constexpr size_t kBytes = size_t{1} << 31;
  void* pages =
      ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  const std::string_view text(static_cast<const char*>(pages), kBytes);
  const Tokenizer tokenizer = test::tokenizer_of(good());
  testing::expect_error([&] { tokenizer.encode(text); },
                        {"2147483648 bytes", "at most 2147483647"});
  testing::expect_error([&] { tokenizer.encode_with_spans(text); }, {"2147483648 bytes"});
  ::munmap(pages, kBytes);
}

// Tokens that look like bytes but are none: their text stays what it is.
TEST(HostileTest, OnlyTwoHexadecimalDigitsAreAByte) {
  Json json = good();
  json["decoder"] = {{"type", "ByteFallback"}};
  std::vector<std::string> odd = {"<0x-1>",  "<0x+1>", "<0x 1>", "<0x1>",
                                  "<0x041>", "<0xG0>", "<0X41>", "<0x4\xC3\xA9>",
                                  "<0x-80>", "0x41>",  "<0x41",  "<0x>"};
  int64_t id = 10;
  for (const std::string& token : odd) json["model"]["vocab"][token] = id++;
  json["model"]["vocab"]["<0x41>"] = id;
  const Tokenizer tokenizer = test::tokenizer_of(json);
  for (size_t i = 0; i < odd.size(); ++i)
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{static_cast<int32_t>(10 + i)}), odd[i]);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{static_cast<int32_t>(id)}), "A");
}

TEST(HostileTest, NestedSequencesEndAtTheDepthLimit) {
  std::string open, close;
  for (int i = 0; i < 100'000; ++i) {
    open += R"({"type":"Sequence","normalizers":[)";
    close += "]}";
  }
  EXPECT_THROW(Tokenizer::from_json("{\"normalizer\":" + open + close + "}", "test.json"), Error);
}

TEST(HostileTest, BacktrackingHitsItsLimit) {
  Json json = good();
  json["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(?:a|a)+$"}}}, {"behavior", "Isolated"}};
  const Tokenizer tokenizer = test::tokenizer_of(json);
  EXPECT_THROW(tokenizer.encode(std::string(5000, 'a') + "b"), Error);
}

TEST(HostileTest, TextThatDoublesWithoutEndHitsItsLimit) {
  Json json = good();
  Json parts = Json::array();
  for (int i = 0; i < 50; ++i) {
    parts.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
  }
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", parts}};
  EXPECT_THROW(test::tokenizer_of(json).encode("a"), Error);
}

TEST(HostileTest, DecodedTextThatDoublesWithoutEndHitsItsLimit) {
  Json json = good();
  Json parts = Json::array();
  const std::string content(1000, 'a');
  for (int i = 0; i < 8; ++i) {
    parts.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", content}});
  }
  json["decoder"] = {{"type", "Sequence"}, {"decoders", parts}};
  const std::vector<int32_t> ids = {0};
  EXPECT_THROW(test::tokenizer_of(json).decode(ids), Error);
}

TEST(HostileTest, StrippingATokenOfSpacesNeedsTimeInProportion) {
  // Each of a million spaces is a match that also takes the spaces before or behind it.
  constexpr size_t kSpaces = 1 << 20;
  for (const char* strip : {"lstrip", "rstrip"}) {
    Json json = good();
    json["added_tokens"].push_back({{"id", 5}, {"content", " "}, {"normalized", false}});
    json["added_tokens"].back()[strip] = true;
    EXPECT_EQ(test::tokenizer_of(json).encode(std::string(kSpaces, ' ')),
              std::vector<int32_t>(kSpaces, 5))
        << strip;
  }
}

TEST(HostileTest, ManyOptionGroupsNeedTimeInProportion) {
  // A pattern made of options only still compiles or is refused; it must not crash.
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "(?i)a|";
  Json json = good();
  json["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern + "b"}}}, {"behavior", "Isolated"}};
  EXPECT_EQ(test::tokenizer_of(json).encode("ab"), (std::vector<int32_t>{0, 1}));
}

}  // namespace
}  // namespace atom::text
