// Shapes of answers and chunks, and what is in them.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "serving/serving_fixture.h"

namespace atom::serving {
namespace {

std::vector<std::string> keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}
using Keys = std::vector<std::string>;

const Keys kHead = {"id", "object", "created", "model", "system_fingerprint", "choices"};
Keys with(Keys keys, const std::string& more) {
  keys.push_back(more);
  return keys;
}

TEST_F(ApiTest, WholeCompletion) {
  const Json answer =
      ask("/v1/completions", R"({"prompt": "Once upon", "ignore_eos": true, "seed": 1})").json();
  EXPECT_EQ(keys_of(answer), with(kHead, "usage"));
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["id"].get<std::string>().substr(0, 5), "cmpl-");
  EXPECT_EQ(answer["model"], "small");
  ASSERT_EQ(answer["choices"].size(), 1u);
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(keys_of(choice), (Keys{"index", "text", "logprobs", "finish_reason"}));
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_EQ(answer["usage"]["completion_tokens"], 16);  // the default
  const auto prompt = small_model().tokenizer.encode("Once upon").size();
  EXPECT_EQ(answer["usage"]["prompt_tokens"], prompt);
  EXPECT_EQ(answer["usage"]["total_tokens"], prompt + 16);
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

TEST_F(ApiTest, StreamSaysWhatTheWholeSays) {
  for (const bool chat : {false, true}) {
    Json body = {{"max_tokens", 24}, {"seed", 3}, {"n", 2}, {"ignore_eos", true}};
    if (chat)
      body["messages"] = parse_json(
          R"([{"role": "developer", "content": "b"}, {"role": "user", "content": [{"type": "text", "text": "a"}]}])");
    else
      body["prompt"] = "Once upon";
    const std::string path = chat ? "/v1/chat/completions" : "/v1/completions";
    const Json whole = ask(path, body.dump()).json();
    body["stream"] = true;
    const ApiAnswer stream = ask(path, body.dump());
    EXPECT_EQ(stream.response.content_type, "text/event-stream; charset=utf-8");
    EXPECT_EQ(stream.header("Cache-Control"), "no-cache");
    EXPECT_EQ(stream.header("X-Accel-Buffering"), "no");
    std::map<int, std::string> texts, finishes;
    std::map<int, int> chunks;
    for (const Json& chunk : stream.chunks()) {
      EXPECT_EQ(keys_of(chunk), kHead) << chunk;
      EXPECT_EQ(chunk["object"], chat ? "chat.completion.chunk" : "text_completion");
      ASSERT_EQ(chunk["choices"].size(), 1u);
      const Json& choice = chunk["choices"][0];
      EXPECT_EQ(keys_of(choice),
                (Keys{"index", chat ? "delta" : "text", "logprobs", "finish_reason"}));
      const int index = choice["index"];
      EXPECT_EQ(finishes.count(index), 0u) << "a chunk after the last";
      if (chat && chunks[index]++ == 0) {
        EXPECT_EQ(choice["delta"], parse_json(R"({"role": "assistant", "content": ""})"));
      }
      if (!choice["finish_reason"].is_null()) {
        finishes[index] = choice["finish_reason"];
        if (chat) {
          EXPECT_TRUE(choice["delta"].is_object() && choice["delta"].empty());
        }
      }
      texts[index] +=
          chat ? choice["delta"].value("content", "") : choice["text"].get<std::string>();
    }
    for (int i = 0; i < 2; ++i) {
      const Json& choice = whole["choices"][static_cast<size_t>(i)];
      EXPECT_EQ(choice["index"], i);
      EXPECT_EQ(texts[i], chat ? choice["message"]["content"] : choice["text"]);
      EXPECT_EQ(finishes[i], choice["finish_reason"]);
    }
    EXPECT_NE(texts[0], texts[1]) << "choices have seeds of their own";
    EXPECT_EQ(whole["usage"]["completion_tokens"], 48);
    if (chat) {
      EXPECT_EQ(whole["object"], "chat.completion");
      EXPECT_EQ(whole["id"].get<std::string>().substr(0, 9), "chatcmpl-");
      EXPECT_EQ(keys_of(whole["choices"][0]),
                (Keys{"index", "message", "logprobs", "finish_reason"}));
      EXPECT_EQ(whole["choices"][0]["message"]["role"], "assistant");
    }
  }
}

TEST_F(ApiTest, UsageInStreamsWhenAsked) {
  Json body = {{"prompt", "a"}, {"max_tokens", 4}, {"ignore_eos", true}, {"stream", true}};
  for (const bool continuous : {false, true}) {
    body["stream_options"] = {{"include_usage", true}, {"continuous_usage_stats", continuous}};
    const std::vector<Json> chunks = ask("/v1/completions", body.dump()).chunks();
    ASSERT_EQ(chunks.size(), 5u);
    for (size_t i = 0; i < 4; ++i) {
      const Json& usage = chunks[i].at("usage");
      EXPECT_EQ(usage.is_null(), !continuous);
      EXPECT_EQ(continuous ? usage["completion_tokens"].get<size_t>() : i + 1, i + 1);
    }
    EXPECT_TRUE(chunks[4]["choices"].empty() && chunks[4]["choices"].is_array());
    EXPECT_EQ(chunks[4]["usage"]["completion_tokens"], 4);
  }
}

TEST_F(ApiTest, CachedTokensAreCounted) {
  Json body = {{"prompt", std::vector<int>(200, 9)}, {"max_tokens", 1}, {"ignore_eos", true}};
  EXPECT_EQ(
      ask("/v1/completions", body.dump()).json()["usage"]["prompt_tokens_details"]["cached_tokens"],
      0);
  EXPECT_EQ(
      ask("/v1/completions", body.dump()).json()["usage"]["prompt_tokens_details"]["cached_tokens"],
      192);
}

// Greedy text, then the same with a stop string out of its middle.
TEST_F(ApiTest, StopStrings) {
  Json body = {{"prompt", "Once"}, {"max_tokens", 40}, {"ignore_eos", true}, {"temperature", 0}};
  body["repetition_penalty"] = 1.5;
  const std::string text = ask("/v1/completions", body.dump()).json()["choices"][0]["text"];
  size_t at = text.size() / 2;
  while ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) ++at;
  size_t end = at + 4;
  while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) ++end;
  const std::string stop = text.substr(at, end - at);
  body["stop"] = {"never there", stop};
  for (const bool include : {false, true}) {
    body["include_stop_str_in_output"] = include;
    const Json whole = ask("/v1/completions", body.dump()).json();
    EXPECT_EQ(whole["choices"][0]["text"],
              text.substr(0, text.find(stop) + (include ? stop.size() : 0)));
    EXPECT_EQ(whole["choices"][0]["finish_reason"], "stop");
    EXPECT_LT(whole["usage"]["completion_tokens"], 40);
    Json streamed = body;
    streamed["stream"] = true;
    std::string joined;
    for (const Json& chunk : ask("/v1/completions", streamed.dump()).chunks())
      joined += chunk["choices"][0]["text"].get<std::string>();
    EXPECT_EQ(joined, whole["choices"][0]["text"]);
  }
  expect_no_pages();
  EXPECT_EQ(engine().stats().finished[static_cast<size_t>(engine::Finish::kStop)], 4);
}

// The logprob of ids[i] after ids[0, i), from the last row of a pass over these alone.
float logprob_alone(std::span<const int32_t> ids, size_t i) {
  engine::Engine engine(small_model().model(), {.max_sequences = 1, .max_rows = 512, .pages = 8});
  engine::Request request{.prompt = {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(i)},
                          .sampling = {},
                          .cache_salt = "",
                          .deadline = {}};
  request.sampling.max_tokens = 1;
  request.sampling.ignore_eos = true;
  request.sampling.logprobs = small_model().tokenizer.vocab_size();
  float out = NAN;
  engine.submit(request, [&](const engine::Event& event) {
    for (const engine::Logprob& one : event.logprobs->most)
      if (one.id == ids[i]) out = one.logprob;
  });
  while (engine.step()) {
  }
  return out;
}

// As lm-eval asks: lists of ids, one new token, echo.
TEST_F(ApiTest, EchoedLogprobsAreThoseOfTheText) {
  engine_options_.max_rows = 8;  // prompts in chunks
  const auto first = small_model().tokenizer.encode("The quick brown fox jumps over the dog");
  const auto second = small_model().tokenizer.encode("Hello world");
  Json body = {{"prompt", {first, second}}, {"max_tokens", 1}, {"logprobs", 1}};
  body["echo"] = true;
  body["temperature"] = 0;
  body["seed"] = 1234;
  const Json answer = ask("/v1/completions", body.dump()).json();
  ASSERT_EQ(answer["choices"].size(), 2u);
  for (size_t c = 0; c < 2; ++c) {
    const std::vector<int32_t>& ids = c == 0 ? first : second;
    const Json& choice = answer["choices"][c];
    EXPECT_EQ(choice["index"], c);
    const Json& logprobs = choice["logprobs"];
    EXPECT_EQ(keys_of(logprobs), (Keys{"tokens", "token_logprobs", "top_logprobs", "text_offset"}));
    for (const auto& [key, list] : logprobs.items()) ASSERT_EQ(list.size(), ids.size() + 1) << key;
    EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
    EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
    for (size_t i = 1; i < ids.size(); ++i) {
      EXPECT_EQ(logprobs["token_logprobs"][i].get<float>(), logprob_alone(ids, i)) << i;
      float most = -1e30f;
      for (const auto& [text, value] : logprobs["top_logprobs"][i].items())
        most = std::max(most, value.get<float>());
      EXPECT_LE(logprobs["token_logprobs"][i].get<float>(), most);
    }
    // Greedy: the new token is the most likely one, with the very same number.
    const Json& last = logprobs["top_logprobs"][ids.size()];
    EXPECT_EQ(last.size(), 1u);
    EXPECT_EQ(last.front().get<double>(), logprobs["token_logprobs"][ids.size()].get<double>());
    const std::string text = choice["text"];
    const std::string prompt = small_model().tokenizer.decode(ids);
    EXPECT_EQ(text.substr(0, prompt.size()), prompt);
    EXPECT_EQ(logprobs["text_offset"][0], 0);  // the begin token has no text
    EXPECT_EQ(logprobs["text_offset"][1], 0);
    EXPECT_EQ(logprobs["text_offset"][ids.size()], prompt.size());
  }
  body["max_tokens"] = 0;
  const Json alone = ask("/v1/completions", body.dump()).json();
  EXPECT_EQ(alone["choices"][0]["logprobs"]["tokens"].size(), first.size());
  EXPECT_EQ(alone["choices"][0]["text"], small_model().tokenizer.decode(first));
  EXPECT_EQ(alone["usage"]["completion_tokens"], 0);
}

// A token that ends the text has an entry, too, where a text is scored.
TEST_F(ApiTest, ScoresHaveAnEntryAtTheEndOfText) {
  const Json body = parse_json(R"({"prompt": "a", "max_tokens": 1, "echo": true, "logprobs": 1,
                                   "temperature": 0, "logit_bias": {"2": 100}})");
  const Json choice = ask("/v1/completions", body.dump()).json()["choices"][0];
  EXPECT_EQ(choice["logprobs"]["tokens"].back(), "</s>");
  EXPECT_EQ(choice["text"], "a");
  EXPECT_EQ(choice["finish_reason"], "stop");
}

TEST_F(ApiTest, ChatLogprobs) {
  const Json answer = ask("/v1/chat/completions",
                          R"({"messages": [{"role": "user", "content": "a"}], "max_tokens": 3,
                              "ignore_eos": true, "temperature": 0, "logprobs": true, "top_logprobs": 2})")
                          .json();
  const Json& content = answer["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3u);
  for (const Json& one : content) {
    EXPECT_EQ(keys_of(one), (Keys{"token", "logprob", "bytes", "top_logprobs"}));
    ASSERT_EQ(one["top_logprobs"].size(), 2u);
    EXPECT_EQ(keys_of(one["top_logprobs"][0]), (Keys{"token", "logprob", "bytes"}));
    EXPECT_EQ(one["top_logprobs"][0]["logprob"], one["logprob"]);
  }
}

TEST_F(ApiTest, PromptLogprobs) {
  const Json choice =
      ask("/v1/completions", R"({"prompt": [5, 6, 7], "max_tokens": 1, "prompt_logprobs": 1})")
          .json()["choices"][0];
  ASSERT_EQ(choice["prompt_logprobs"].size(), 3u);
  EXPECT_TRUE(choice["prompt_logprobs"][0].is_null());
  EXPECT_TRUE(choice["prompt_logprobs"][1].contains("6"));
  EXPECT_EQ(keys_of(choice["prompt_logprobs"][1]["6"]), (Keys{"logprob", "rank", "decoded_token"}));
}

TEST_F(ApiTest, ChatFillsTheContextByDefault) {
  const Json answer = ask("/v1/chat/completions",
                          R"({"messages": [{"role": "user", "content": "a"}], "ignore_eos": true})")
                          .json();
  EXPECT_EQ(answer["usage"]["total_tokens"], 512);
}

}  // namespace
}  // namespace atom::serving
