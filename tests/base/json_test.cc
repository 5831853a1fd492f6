#include "base/json.h"

#include <gtest/gtest.h>

#include "base/string_list.h"
#include "testing/expect_error.h"

namespace atom {
namespace {

using testing::expect_error;

TEST(ParseJson, KeepsValuesAndKeyOrder) {
  const Json json = parse_json(R"({"z":[1,-2,2.5,null,true],"a":{"m":"x","b":""},"k":[]})");
  EXPECT_EQ(json.dump(), R"({"z":[1,-2,2.5,null,true],"a":{"m":"x","b":""},"k":[]})");
  EXPECT_EQ(json.at("a").at("m"), "x");
}

TEST(ParseJson, TakesScalars) {
  EXPECT_EQ(parse_json(" 7 "), 7);
  EXPECT_EQ(parse_json("\"\\u00e9\""), "\xc3\xa9");
}

TEST(ParseJson, NamesSourceAndPosition) {
  expect_error([] { parse_json(R"({"a":1,})", {.source = "x.json"}); },
               {"x.json", "not valid JSON at byte 8"});
  for (const char* text : {"", "{", "[1,2", "{\"a\"}", "nul", "1 2", "{}x", "'a'", "[01]", "NaN"})
    expect_error([&] { parse_json(text, {.source = "x.json"}); }, {"x.json: not valid JSON"});
}

TEST(ParseJson, HidesTheTagOfTheLibrary) {
  try {
    parse_json("{");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("json.exception"), std::string::npos);
  }
}

TEST(ParseJson, RefusesInvalidUtf8) {
  for (const char* text : {"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\\ud800\""})
    expect_error([&] { parse_json(text); }, {"not valid JSON"});
}

TEST(ParseJson, RefusesNulAndWhatFollows) {
  expect_error([] { parse_json(std::string_view("{}\0{", 4)); }, {"at byte 3", "NUL"});
}

TEST(ParseJson, RefusesNumbersBeyondDouble) {
  expect_error([] { parse_json("[1e999]"); }, {"not valid JSON", "1e999"});
}

TEST(ParseJson, RefusesDuplicateKeysAtAnyDepth) {
  expect_error([] { parse_json(R"([{"b":1,"a":2,"b":3}])", {.source = "d"}); },
               {"d: JSON object has the key \"b\" twice"});
  // Equal after unescaping is equal.
  expect_error([] { parse_json(R"({"a":1,"\u0061":2})"); }, {"\"a\" twice"});
  EXPECT_NO_THROW(parse_json(R"({"a":{"a":1},"b":{"a":1}})"));
}

TEST(ParseJson, LimitsDepth) {
  EXPECT_NO_THROW(parse_json("[[[]]]", {.max_depth = 3}));
  expect_error([] { parse_json("[[[[]]]]", {.source = "deep", .max_depth = 3}); },
               {"deep", "limit of 3"});
  const std::string bomb(1'000'000, '[');
  expect_error([&] { parse_json(bomb); }, {"limit of 64"});
}

TEST(ParseJson, LimitsValues) {
  const JsonLimits five = {.source = "x", .max_values = 5};
  EXPECT_NO_THROW(parse_json("[1,{\"a\":2},3]", five));
  expect_error([&] { parse_json("[1,{\"a\":2},3,4]", five); },
               {"x: JSON has more values than the limit of 5"});
  // Entries of a stream count one by one.
  const std::vector<JsonStream> root = {{{}, [](const JsonEntry&) {}}};
  EXPECT_NO_THROW(parse_json("[[1,2],[3,4],[5,6],[7,8],9]", five, root));
  expect_error([&] { parse_json("[[1,2],[1,2,3,4,5]]", five, root); }, {"the limit of 5"});
  std::string many = "[0";
  for (int i = 0; i < 1 << 22; ++i) many += ",0";
  expect_error([&] { parse_json(many + "]"); }, {"the limit of 4194304"});
}

TEST(ParseJson, ManyKeysAreNotQuadratic) {
  // Would take minutes if each key were looked up among the earlier ones.
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i) text += fmt::format("\"k{}\":{},", i, i);
  text.back() = '}';
  const Json json = parse_json(text);
  EXPECT_EQ(json.size(), 300'000u);
}

std::string streamed(const char* text, std::vector<std::string_view> path) {
  std::string out;
  const Json rest =
      parse_json(text, {.source = "x"}, {{std::move(path), [&](const JsonEntry& entry) {
                                            EXPECT_EQ(entry.in_object, !entry.key.empty());
                                            out += fmt::format("{}{}={} ", entry.key, entry.index,
                                                               entry.value.dump());
                                          }}});
  return out + rest.dump();
}

TEST(JsonStream, TakesEntriesInsteadOfTheDocument) {
  const char* text = R"({"n":{"v":{"a":1,"b":[2,{"v":3}],"c":null}},"v":{"x":0},"m":[7]})";
  EXPECT_EQ(streamed(text, {"n", "v"}),
            R"(a0=1 b1=[2,{"v":3}] c2=null {"n":{"v":{}},"v":{"x":0},"m":[7]})");
  EXPECT_EQ(streamed(text, {"m"}),
            R"(0=7 {"n":{"v":{"a":1,"b":[2,{"v":3}],"c":null}},"v":{"x":0},"m":[]})");
  EXPECT_EQ(streamed(R"({"a":1,"b":{}})", {}), R"(a0=1 b1={} {})");
  EXPECT_EQ(streamed("[[1],2]", {}), "0=[1] 1=2 []");
  // No container there: nothing to take.
  for (const char* other : {R"({"m":5})", R"({"x":[1]})", R"([{"m":[1]}])", "7"})
    EXPECT_EQ(streamed(other, {"m"}), other);
}

TEST(JsonStream, RefusesWhatTheDocumentWouldBeRefusedFor) {
  const auto refused = [](const std::string& text, std::initializer_list<std::string_view> parts) {
    expect_error([&] { streamed(text.c_str(), {"m"}); }, parts);
  };
  refused(R"({"m":{"a":1,"b":2,"a":3}})", {"x: JSON object has the key \"a\" twice"});
  refused(R"({"m":[{"a":1,"a":2}]})", {"\"a\" twice"});
  refused(R"({"m":{},"m":{"a":1}})", {"\"m\" twice"});
  refused("{\"m\":{\"\xff\":1}}", {"not valid JSON at byte 8"});
  refused(R"({"m":[1,2]} x)", {"not valid JSON"});
  refused(R"({"m":[1,2)", {"not valid JSON"});
  refused(R"({"m":[)" + std::string(70, '['), {"deeper than the limit of 64"});
}

TEST(StringList, KeepsStringsApart) {
  StringList list;
  EXPECT_TRUE(list.empty());
  for (const char* text : {"", "the", "", "river"}) list.add(text);
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0], "");
  EXPECT_EQ(list[1], "the");
  EXPECT_EQ(list[2], "");
  EXPECT_EQ(list[3], "river");
}

TEST(GetInt, ReadsIntegersInRange) {
  const Json json =
      parse_json(R"({"n":4096,"low":-9223372036854775808,"high":9223372036854775807})");
  EXPECT_EQ(get_int(json, "n", {.source = "c"}), 4096);
  EXPECT_EQ(get_int(json, "low", {.source = "c"}), INT64_MIN);
  EXPECT_EQ(get_int(json, "high", {.source = "c"}), INT64_MAX);
}

TEST(GetInt, RefusesEverythingElse) {
  const Json json = parse_json(
      R"({"f":1.5,"w":2.0,"b":true,"s":"7","u":9223372036854775808,"n":null,"l":[1],"x":17})");
  const auto get = [&](const char* key) {
    get_int(json, key, {.source = "c.json", .min = 0, .max = 16});
  };
  expect_error([&] { get("f"); }, {"c.json", "\"f\"", "must be an integer", "1.5"});
  expect_error([&] { get("w"); }, {"must be an integer", "2.0"});
  expect_error([&] { get("b"); }, {"must be an integer", "true"});
  expect_error([&] { get("s"); }, {"must be an integer", "\"7\""});
  expect_error([&] { get("u"); }, {"must be in [0, 16]", "9223372036854775808"});
  expect_error([&] { get("x"); }, {"must be in [0, 16]", "17"});
  expect_error([&] { get("n"); }, {"\"n\" is missing"});
  expect_error([&] { get("absent"); }, {"\"absent\" is missing"});
  expect_error([&] { get("l"); }, {"must be an integer", "[1]"});
  // Beyond int64_t even when the field sets no range.
  expect_error([&] { get_int(json, "u", {.source = "c"}); }, {"9223372036854775808"});
}

TEST(GetInt, DefaultIsForMissingAndNullOnly) {
  const Json json = parse_json(R"({"n":null,"s":"7"})");
  EXPECT_EQ(get_int_or(json, "n", 5, {.source = "c"}), 5);
  EXPECT_EQ(get_int_or(json, "absent", 6, {.source = "c"}), 6);
  expect_error([&] { get_int_or(json, "s", 5, {.source = "c"}); }, {"\"7\""});
}

TEST(GetInt, WantsAnObject) {
  expect_error([] { get_int(parse_json("[1]"), "n", {.source = "c"}); }, {"JSON object", "[1]"});
}

TEST(GetInt, ShortensTheShownValueBetweenCharacters) {
  std::string text = R"({"n":"a)";
  for (int i = 0; i < 100; ++i) text += "\xc3\xa9";
  text += "\"}";
  try {
    get_int(parse_json(text), "n", {.source = "c"});
    FAIL();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_LT(message.size(), 140u);
    EXPECT_EQ(message.substr(message.size() - 5), "\xc3\xa9...");
  }
}

TEST(GetNumber, TakesIntegersAndRefusesTheRest) {
  const Json json = parse_json(R"({"i":3,"f":0.5,"b":false,"s":"1"})");
  EXPECT_EQ(get_number(json, "i", {.source = "c"}), 3.0);
  EXPECT_EQ(get_number(json, "f", {.source = "c"}), 0.5);
  EXPECT_EQ(get_number_or(json, "absent", 0.25, {.source = "c"}), 0.25);
  expect_error([&] { get_number(json, "b", {.source = "c"}); }, {"must be a number", "false"});
  expect_error([&] { get_number(json, "s", {.source = "c"}); }, {"must be a number"});
  expect_error([&] { get_number(json, "f", {.source = "c", .min = 1, .max = 2}); },
               {"must be in [1, 2]", "0.5"});
}

TEST(GetStringAndBool, CheckTheType) {
  const Json json = parse_json(R"({"s":"x","b":true,"i":1})");
  EXPECT_EQ(get_string(json, "s", "c"), "x");
  EXPECT_EQ(get_string_or(json, "absent", "y", "c"), "y");
  EXPECT_TRUE(get_bool_or(json, "b", false, "c"));
  EXPECT_TRUE(get_bool_or(json, "absent", true, "c"));
  expect_error([&] { get_string(json, "i", "c"); }, {"must be a string", "1"});
  expect_error([&] { get_bool_or(json, "i", false, "c"); }, {"true or false", "1"});
}

}  // namespace
}  // namespace atom
