// Every field with every kind of wrong value: 400, the field's name, a sentence.
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "base/random.h"
#include "serving/serving_fixture.h"

namespace atom::serving {
namespace {

struct FieldCase {
  const char* name;
  std::vector<std::string> right;  // JSON texts
  bool chat = false;               // of /v1/chat/completions
};

// Of numbers and what is none. Which of them are right, the case says; all others must be refused.
const std::vector<std::string>& values() {
  static const std::vector<std::string> all = {"-1",
                                               "0",
                                               "1",
                                               "0.5",
                                               "2147483647",
                                               "2147483648",
                                               "-2147483648",
                                               "-2147483649",
                                               "-9223372036854775808",
                                               "-9223372036854775809",
                                               "9223372036854775807",
                                               "9223372036854775808",
                                               "18446744073709551616",
                                               "1e30",
                                               "-1e30",
                                               "1.5",
                                               "\"1\"",
                                               "\"x\"",
                                               "\"\"",
                                               "true",
                                               "false",
                                               "[]",
                                               "[1]",
                                               "[\"\"]",
                                               "{}",
                                               "{\"a\": 1}"};
  return all;
}

std::string request_with(const FieldCase& field, const std::string& value) {
  std::string text =
      field.chat ? R"({"messages": [{"role": "user", "content": "a"}])" : R"({"prompt": "a")";
  if (std::string(field.name) != "max_tokens") text += R"(, "max_tokens": 1)";
  if (std::string(field.name) == "top_logprobs") text += R"(, "logprobs": true)";
  if (std::string(field.name) == "stream_options") text += R"(, "stream": true)";
  return text + ", \"" + field.name + "\": " + value + "}";
}

const std::vector<FieldCase>& field_cases() {
  static const std::vector<FieldCase> cases = {
      {"max_tokens", {"1"}},
      {"max_tokens", {"1"}, true},
      {"max_completion_tokens", {"1"}, true},
      {"temperature", {"0", "1", "0.5", "1.5"}},
      {"top_p", {"1", "0.5"}},
      {"min_p", {"0", "1", "0.5"}},
      {"top_k", {"-1", "0", "1", "2147483647"}},
      {"n", {"1"}},
      {"best_of", {"1"}},
      {"logprobs", {"0", "1"}},
      {"logprobs", {"true", "false"}, true},
      {"top_logprobs", {"0", "1"}, true},
      {"prompt_logprobs", {"0", "1"}},
      {"min_tokens", {"0", "1"}},
      {"seed",
       {"-1", "0", "1", "2147483647", "2147483648", "-2147483648", "-2147483649",
        "9223372036854775807", "-9223372036854775808"}},
      {"frequency_penalty", {"-1", "0", "1", "0.5", "1.5"}},
      {"presence_penalty", {"-1", "0", "1", "0.5", "1.5"}},
      {"repetition_penalty", {"1", "0.5", "1.5"}},
      {"truncate_prompt_tokens", {"1"}},
      {"stop", {"\"1\"", "\"x\"", "[]"}},
      {"stop_token_ids", {"[]", "[1]"}},
      {"logit_bias", {"{}"}},
      {"stream", {"true", "false"}},
      {"stream_options", {"{}", "{\"a\": 1}"}},
      {"echo", {"true", "false"}},
      {"ignore_eos", {"true", "false"}},
      {"skip_special_tokens", {"true", "false"}},
      {"include_stop_str_in_output", {"true", "false"}},
      {"add_special_tokens", {"true", "false"}},
      {"cache_salt", {"\"1\"", "\"x\"", "\"\""}},
      {"suffix", {"\"\""}},
      {"tools", {"[]"}, true},
      {"chat_template_kwargs", {"{}", "{\"a\": 1}"}, true},
  };
  return cases;
}

TEST_F(ApiTest, EveryFieldRefusesWrongValues) {
  for (const FieldCase& field : field_cases()) {
    const std::string path = field.chat ? "/v1/chat/completions" : "/v1/completions";
    EXPECT_EQ(ask(path, request_with(field, "null")).response.status, 200) << field.name;
    for (const char* none : {"NaN", "-Infinity", "1e", "0x1", "+1", "01"})  // no JSON at all
      expect_error(ask(path, request_with(field, none)), 400, nullptr);
    for (const std::string& value : values()) {
      SCOPED_TRACE(std::string(field.name) + ": " + value);
      const ApiAnswer answer = ask(path, request_with(field, value));
      if (std::find(field.right.begin(), field.right.end(), value) != field.right.end()) {
        EXPECT_EQ(answer.response.status, 200) << answer.response.body;
        continue;
      }
      const std::string message = expect_error(answer, 400, field.name);
      EXPECT_EQ(message.substr(0, std::string(field.name).size()), field.name) << message;
    }
  }
  expect_no_pages();
}

TEST_F(ApiTest, RefusesWrongPromptsAndMessages) {
  const std::string too_long = Json(std::vector<int>(512, 3)).dump();
  for (const char* value : {"3", "true", "{}", "[]", "[[]]", "[\"a\", 3]", "[3, \"a\"]",
                            "[3, true]", "[true]", "[null]", "[-1]", "[4096]", "[1e30]", "[3.5]",
                            "[2147483648]", "[[3], \"a\"]", "[[\"a\"]]", "[[[3]]]", "null"})
    expect_error(ask("/v1/completions", std::string(R"({"prompt": )") + value + "}"), 400,
                 "prompt");
  expect_error(ask("/v1/completions", R"({"prompt": )" + too_long + "}"), 400, "prompt");
  expect_error(ask("/v1/completions", "{}"), 400, "prompt");
  for (const auto& [messages, param] : std::vector<std::pair<std::string, std::string>>{
           {"3", "messages"},
           {"[]", "messages"},
           {"{}", "messages"},
           {"null", "messages"},
           {"[3]", "messages[0]"},
           {"[{}]", "messages[0].role"},
           {R"([{"role": 3}])", "messages[0].role"},
           {R"([{"role": "robot", "content": "a"}])", "messages[0].role"},
           {R"([{"role": "user"}])", "messages[0].content"},
           {R"([{"role": "user", "content": 3}])", "messages[0].content"},
           {R"([{"role": "user", "content": [3]}])", "messages[0].content[0]"},
           {R"([{"role": "user", "content": [{"type": "image_url"}]}])", "messages[0].content[0]"},
           {R"([{"role": "user", "content": [{"type": "text"}]}])", "messages[0].content[0].text"},
           {R"([{"role": "tool", "content": "a"}])", "messages[0]"},
           {R"([{"role": "assistant", "tool_calls": []}])", "messages[0]"}})
    expect_error(ask("/v1/chat/completions", R"({"messages": )" + messages + "}"), 400, param);
}

TEST_F(ApiTest, RefusesWhatIsNotSupported) {
  for (const auto& [field, value, param] :
       std::vector<std::tuple<std::string, std::string, std::string>>{
           {"tools", R"([{"type": "function"}])", "tools"},
           {"tool_choice", R"("required")", "tool_choice"},
           {"response_format", R"({"type": "json_object"})", "response_format"},
           {"response_format", R"({"type": 3})", "response_format.type"},
           {"response_format", R"({})", "response_format.type"},
           {"response_format", R"("text")", "response_format"},
           {"guided_json", R"({})", "guided_json"}})
    expect_error(
        ask("/v1/chat/completions",
            R"({"messages": [{"role": "user", "content": "a"}], ")" + field + "\": " + value + "}"),
        400, param);
  EXPECT_EQ(ask("/v1/chat/completions",
                R"({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "tools": [],
                    "tool_choice": "none", "response_format": {"type": "text"}, "unheard_of": [{}]})")
                .response.status,
            200);
  expect_error(ask("/v1/completions", R"({"prompt": "a", "suffix": "b"})"), 400, "suffix");
  expect_error(ask("/v1/completions", R"({"prompt": "a", "stream": true, "prompt_logprobs": 1})"),
               400, "prompt_logprobs");
}

TEST_F(ApiTest, LimitsOfSizes) {
  api_options_.max_choices = 16;
  api_options_.max_new_tokens = 1000;
  const auto completion = [&](const Json& more) {
    Json body = {{"prompt", "a"}, {"max_tokens", 1}};
    for (const auto& [key, value] : more.items()) body[key] = value;
    return ask("/v1/completions", body.dump());
  };
  expect_error(completion({{"stop", std::vector<std::string>(10000, "x")}}), 400, "stop");
  expect_error(completion({{"stop", std::string(2000, 'x')}}), 400, "stop");
  EXPECT_EQ(completion({{"stop", std::vector<std::string>(64, "x")}}).response.status, 200);
  Json bias = Json::object();
  for (int i = 0; i < 1024; ++i) bias[std::to_string(i)] = 1;
  EXPECT_EQ(completion({{"logit_bias", bias}}).response.status, 200);
  bias["1024"] = 1;
  expect_error(completion({{"logit_bias", bias}}), 400, "logit_bias");
  for (const char* wrong :
       {R"({"4096": 1})", R"({"-1": 1})", R"({"x": 1})", R"({"": 1})", R"({"1 ": 1})",
        R"({"1": true})", R"({"1": 101})", R"({"1": "1"})", R"({"1": null})"})
    expect_error(completion({{"logit_bias", parse_json(wrong)}}), 400, "logit_bias");
  expect_error(completion({{"n", 17}}), 400, "n");
  expect_error(completion({{"n", 129}}), 400, "n");
  expect_error(completion({{"n", 5}, {"max_tokens", 201}}), 400, "max_tokens");
  expect_error(completion({{"max_tokens", 511}}), 400, "max_tokens");
  expect_error(completion({{"prompt", std::vector<std::string>(17, "a")}}), 400, "prompt");
  expect_error(completion({{"model", "other"}}), 404, "model");
  expect_error(completion({{"model", 3}}), 400, "model");
  EXPECT_EQ(completion({{"model", "alias"}}).json()["model"], "alias");
  expect_error(completion({{"stream_options", Json::object()}}), 400, "stream_options");
  expect_error(completion({{"n", 2}, {"best_of", 3}}), 400, "best_of");
}

TEST_F(ApiTest, LimitsOfLogprobs) {
  engine_options_.max_waiting = 512;
  engine_options_.max_waiting_tokens = 1 << 20;
  const auto completion = [&](const Json& more) {
    Json body = {{"prompt", std::vector<std::vector<int>>(2, std::vector<int>(400, 7))}};
    for (const auto& [key, value] : more.items()) body[key] = value;
    return ask("/v1/completions", body.dump());
  };
  const std::string message =
      expect_error(completion({{"n", 128}, {"max_tokens", 100}, {"logprobs", 20}, {"echo", true}}),
                   400, "logprobs");
  EXPECT_EQ(message,
            "logprobs: 128000 tokens with 21 logprobs each exceed the 2097152 logprobs of a "
            "request");
  expect_error(completion({{"n", 128}, {"max_tokens", 1}, {"prompt_logprobs", 20}}), 400,
               "prompt_logprobs");
}

TEST_F(ApiTest, ChatWithoutTemplate) {
  has_template_ = false;
  const std::string message = expect_error(
      ask("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "a"}]})"), 400,
      "messages");
  EXPECT_NE(message.find("no chat template"), std::string::npos);
}

// Requests whose bytes are changed at random get an answer, and the engine lives on.
TEST_F(ApiTest, RandomChangesOfRequests) {
  const std::string source =
      R"({"model":"small","prompt":["a b","c"],"max_tokens":2,"temperature":0.5,"top_p":0.9,"n":2,)"
      R"("stop":["x","yz"],"logprobs":2,"echo":true,"stream":false,"seed":7,"logit_bias":{"5":-3.5},)"
      R"("messages":[{"role":"user","content":[{"type":"text","text":"h\u00e9"}]}]})";
  Random random(3);
  const std::string symbols = "{}[]\",:0123456789.eE-+tfn\\u \x01\xff\xc3";
  int accepted = 0;
  for (int i = 0; i < 400; ++i) {
    std::string body = source;
    for (uint64_t changes = random.below(4); changes > 0; --changes) {
      const size_t at = random.below(body.size());
      const char symbol = symbols[random.below(symbols.size())];
      switch (random.below(4)) {
        case 0:
          body[at] = symbol;
          break;
        case 1:
          body.insert(at, 1, symbol);
          break;
        case 2:
          body.erase(at, 1 + random.below(6));
          break;
        default:
          body.insert(at, body.substr(random.below(body.size()), random.below(20)));
      }
    }
    const ApiAnswer answer = ask(i % 2 ? "/v1/completions" : "/v1/chat/completions", body);
    accepted += answer.response.status == 200;
    if (answer.response.status != 200) {
      EXPECT_TRUE(answer.response.status == 400 || answer.response.status == 404) << body;
      EXPECT_TRUE(answer.json().contains("error")) << body;
    } else {
      EXPECT_TRUE(answer.json().contains("choices")) << body;
    }
  }
  EXPECT_GT(accepted, 20);
  EXPECT_LT(accepted, 190);
  expect_no_pages();
}

}  // namespace
}  // namespace atom::serving
