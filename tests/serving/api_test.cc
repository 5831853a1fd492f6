// Routes, what every request may do wrong, clients that leave, engines that die.
#include "serving/api.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "serving/serving_fixture.h"

namespace atom::serving {
namespace {

TEST_F(ApiTest, Health) {
  const std::vector<const char*> paths = {"/health", "/v1/health", "/ready", "/ping"};
  for (const char* path : paths) EXPECT_EQ(get(path).response.status, 200) << path;
  EXPECT_EQ(get("/load").json()["server_load"], 0);
  api().begin_drain();
  for (const char* path : paths) expect_error(get(path), 503, nullptr);
  EXPECT_EQ(get("/live").response.status, 200);
  const ApiAnswer refused = ask("/v1/completions", R"({"prompt": "a"})");
  expect_error(refused, 503, nullptr);
  EXPECT_GE(std::stoi(refused.header("Retry-After")), 1);
  EXPECT_EQ(get("/v1/models").response.status, 200);
}

TEST_F(ApiTest, Models) {
  const Json list = get("/v1/models").json();
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][0]["id"], "small");
  EXPECT_EQ(list["data"][0]["object"], "model");
  EXPECT_EQ(list["data"][0]["max_model_len"], 512);
  EXPECT_TRUE(list["data"][0]["created"].is_number_integer());
  EXPECT_EQ(get("/v1/models/alias").json()["id"], "alias");
  EXPECT_EQ(get("/v1/models/%61lias").json()["id"], "alias");
  expect_error(get("/v1/models/other"), 404, "model");
  EXPECT_EQ(get("/version").json()["version"], "1.2");
}

TEST_F(ApiTest, Routes) {
  expect_error(get("/nothing"), 404, nullptr);
  expect_error(get("/v1/modelsx"), 404, nullptr);
  const ApiAnswer wrong = get("/v1/completions");
  expect_error(wrong, 405, nullptr);
  EXPECT_EQ(wrong.header("Allow"), "POST");
  EXPECT_EQ(ask("/health", "{}").header("Allow"), "GET");
  for (const char* type :
       {"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"})
    expect_error(ask("/v1/completions", R"({"prompt": "a"})", "POST", type), 415, nullptr);
  for (const char* type : {"application/json; charset=utf-8", "Application/JSON"})
    EXPECT_EQ(ask("/tokenize", R"({"prompt": "a"})", "POST", type).response.status, 200);
}

TEST_F(ApiTest, Tokenizes) {
  const Json tokens =
      ask("/tokenize", R"({"prompt": "Hello world", "return_token_strs": true})").json();
  const auto expected = small_model().tokenizer.encode("Hello world");
  EXPECT_EQ(tokens["tokens"].get<std::vector<int32_t>>(), expected);
  EXPECT_EQ(tokens["count"], expected.size());
  EXPECT_EQ(tokens["token_strs"].size(), expected.size());
  const Json plain =
      ask("/tokenize", R"({"prompt": "Hello world", "add_special_tokens": false})").json();
  EXPECT_EQ(plain["count"], expected.size() - 1);
  EXPECT_EQ(ask("/detokenize", Json({{"tokens", plain["tokens"]}}).dump()).json()["prompt"],
            "Hello world");
  const Json chat = ask("/tokenize", R"({"messages": [{"role": "user", "content": "hi"}]})").json();
  EXPECT_EQ(chat["tokens"].get<std::vector<int32_t>>(),
            small_model().tokenizer.encode("user: hi\n", {.add_special_tokens = false}));
  expect_error(ask("/tokenize", R"({"prompt": 3})"), 400, "prompt");
  expect_error(ask("/tokenize", R"({})"), 400, "prompt");
  expect_error(ask("/detokenize", R"({"tokens": [-1]})"), 400, "tokens");
  expect_error(ask("/detokenize", R"({"tokens": [true]})"), 400, "tokens");
  expect_error(ask("/detokenize", R"({"tokens": "x"})"), 400, "tokens");
  expect_error(ask("/detokenize", R"({})"), 400, "tokens");
  const Json info = get("/tokenizer_info").json();
  EXPECT_EQ(info["eos_token"], "</s>");
  EXPECT_EQ(info["bos_token"], "<s>");
}

TEST_F(ApiTest, TemplatesGetTheTokensOfTheModelFolder) {
  template_ = text::ChatTemplate::parse("{{ bos_token }}a{{ eos_token }}");
  const auto tokens = [this] {
    return ask("/tokenize", R"({"messages": [{"role": "user", "content": "hi"}]})")
        .json()["tokens"];
  };
  const auto encode = [](const std::string& text) {
    return Json(small_model().tokenizer.encode(text, {.add_special_tokens = false}));
  };
  EXPECT_EQ(tokens(), encode("<s>a</s>"));  // the tokenizer's own
  api_.reset();
  api_options_.bos_token = "</s>";
  api_options_.eos_token = "<unk>";
  EXPECT_EQ(tokens(), encode("</s>a<unk>"));
  EXPECT_EQ(get("/tokenizer_info").json()["eos_token"], "<unk>");
}

TEST_F(ApiTest, RefusesWhatIsNoJson) {
  const std::string deep(100000, '[');
  for (const std::string& body : {std::string(),
                                  std::string("{"),
                                  std::string("[]"),
                                  std::string("3"),
                                  std::string("\"x\""),
                                  std::string("null"),
                                  std::string(R"({"prompt": "a"} x)"),
                                  std::string(R"({"prompt": 'a'})"),
                                  std::string(R"({"prompt": "a", "prompt": "b"})"),
                                  std::string(R"({"prompt": NaN})"),
                                  std::string(R"({"prompt": "a", "top_p": Infinity})"),
                                  std::string(R"({"prompt": "a",})"),
                                  std::string(R"({"prompt": "a", "top_p": 1e999})"),
                                  std::string("{\"prompt\": \"\xff\"}"),
                                  std::string("{\"prompt\": \"\xc3\x28\"}"),
                                  std::string(R"({"prompt": "\ud800"})"),
                                  std::string("{\"prompt\": \"a\0b\"}", 17),
                                  std::string("\xef\xbb\xbf"),
                                  deep,
                                  std::string(1 << 20, ' '),
                                  "{\"prompt\": " + deep,
                                  "{\"a\":" + deep + "}"}) {
    const std::string message = expect_error(ask("/v1/completions", body), 400, nullptr);
    EXPECT_LT(message.size(), 400u) << message;
    EXPECT_EQ(message.find("json.exception"), std::string::npos) << message;
    EXPECT_EQ(message.find(".cc"), std::string::npos) << message;
  }
  EXPECT_EQ(ask("/tokenize", std::string(1 << 20, ' ') + R"({"prompt": "a"})").response.status,
            200);
}

TEST_F(ApiTest, LongPromptOfSpaces) {
  const ApiAnswer answer =
      ask("/v1/completions", R"({"prompt": ")" + std::string(1 << 20, ' ') + R"("})");
  const std::string message = expect_error(answer, 400, "prompt");
  EXPECT_NE(message.find("context of 512"), std::string::npos) << message;
  expect_error(ask("/tokenize", R"({"prompt": ")" + std::string((1 << 20) + 1, 'a') + R"("})"), 400,
               "prompt");
}

TEST_F(ApiTest, Metrics) {
  api_options_.vllm_metrics = true;
  ask("/v1/completions", R"({"prompt": "a", "max_tokens": 3, "ignore_eos": true})");
  expect_no_pages();
  const ApiAnswer answer = get("/metrics");
  EXPECT_EQ(answer.response.content_type, "text/plain; version=0.0.4; charset=utf-8");
  const std::string text = "\n" + answer.response.body;
  for (const char* line :
       {"atom_generation_tokens_total 3", "atom_requests_total{finish=\"length\"} 1",
        "atom_requests_running 0", "atom_kv_pages{state=\"held\"} 0",
        "atom_time_to_first_token_seconds_count 1", "atom_inter_token_latency_seconds_count 2",
        "atom_e2e_request_latency_seconds_bucket{le=\"+Inf\"} 1", "atom_queue_time_seconds_count 1",
        "# TYPE atom_steps_total counter", "# TYPE atom_saturated_activation_codes_total counter",
        "# TYPE atom_saturated_activation_share gauge",
        "vllm:request_success_total{model_name=\"small\",finished_reason=\"length\"} 1"})
    EXPECT_NE(text.find(std::string("\n") + line + "\n"), std::string::npos) << line;
}

// The rules that promtool checks: a sample's family is declared before it, once; counters end in _total; no family comes
// twice; buckets rise to +Inf, which is the count.
TEST_F(ApiTest, MetricsAreWellFormed) {
  api_options_.vllm_metrics = true;
  api_options_.models = {"a\"b\\c"};
  ask("/v1/completions", R"({"prompt": "a", "max_tokens": 5, "ignore_eos": true})");
  expect_no_pages();
  std::istringstream text(get("/metrics").response.body);
  std::map<std::string, std::string> types;
  std::string family, line;
  double bucket = 0;
  const std::regex sample(
      R"re(([a-z_:][a-zA-Z0-9_:]*)(\{(?:[a-z_]+="(?:[^"\\]|\\.)*",?)*\})? (-?[0-9.e+-]+))re");
  while (std::getline(text, line)) {
    std::istringstream words(line);
    std::string hash, kind, name, type;
    if (line[0] == '#') {
      words >> hash >> kind >> name >> type;
      EXPECT_TRUE(kind == "TYPE" || types.count(name) == 0) << "declared twice: " << name;
      if (kind == "TYPE") {
        family = name;
        types[name] = type;
        bucket = 0;
      }
      continue;
    }
    std::smatch match;
    ASSERT_TRUE(std::regex_match(line, match, sample)) << line;
    const std::string rest = match[1].str().substr(std::min(family.size(), match[1].str().size()));
    EXPECT_EQ(match[1].str().substr(0, family.size()), family) << line;
    const std::string& of = types.at(family);
    EXPECT_EQ(of == "counter", family.ends_with("_total")) << family;
    if (of != "histogram") {
      EXPECT_EQ(rest, "") << line;
      continue;
    }
    const double value = std::stod(match[3]);
    EXPECT_TRUE(rest == "_bucket" || rest == "_sum" || rest == "_count") << line;
    if (rest == "_bucket") {
      EXPECT_GE(value, bucket) << line;
      bucket = value;
    }
    if (rest == "_count") {
      EXPECT_EQ(value, bucket) << line;
    }
  }
  EXPECT_GT(types.size(), 25u);
}

TEST_F(ApiTest, ClientsThatLeaveGiveTheirPagesBackWithinAStep) {
  engine_options_.max_rows = 16;
  for (const bool stream : {false, true})
    for (const int rounds : {0, 2, 12}) {  // in the queue, in the prompt, in the text
      SCOPED_TRACE(rounds);
      gate_.allow(0);
      Json body = {{"prompt", std::vector<int>(100, 5)}, {"max_tokens", 300}};
      body["ignore_eos"] = true;
      body["stream"] = stream;
      const auto reply = begin("/v1/completions", body.dump());
      ASSERT_TRUE(reply->wait_started());
      gate_.wait_held();
      gate_.allow(rounds);
      gate_.wait_held();
      if (rounds > 0) {
        EXPECT_GT(engine().stats().engine.pages_held, 0);
      }
      reply->leave();
      gate_.allow(2);  // the step that was about to begin, and the one that sees the client gone
      expect_no_pages();
      gate_.allow(-1);
    }
  EXPECT_EQ(engine().stats().finished[static_cast<size_t>(engine::Finish::kCancelled)], 6);
}

TEST_F(ApiTest, OverloadIs429) {
  engine_options_.max_waiting = 2;
  engine_options_.max_sequences = 1;
  gate_.allow(0);
  std::vector<std::shared_ptr<FakeReply>> replies;
  for (int i = 0; i < 8; ++i) {
    replies.push_back(begin("/v1/completions", R"({"prompt": "a", "max_tokens": 2})"));
  }
  gate_.allow(-1);
  int refused = 0;
  for (const auto& reply : replies) {
    ASSERT_TRUE(reply->wait());
    const ApiAnswer answer{reply->response()};
    if (answer.response.status == 200) continue;
    ++refused;
    expect_error(answer, 429, nullptr);
    EXPECT_GE(std::stoi(answer.header("Retry-After")), 1);
  }
  EXPECT_GE(refused, 1);
  EXPECT_LT(refused, 8);
  expect_no_pages();
}

TEST_F(ApiTest, DeadEngineEndsAllRequests) {
  std::atomic<bool> dies = false;
  before_step_ = [&] {
    gate_.pass();
    if (dies) throw std::runtime_error("secret");
  };
  gate_.allow(0);
  const auto stream =
      begin("/v1/completions",
            R"({"prompt": "a", "max_tokens": 400, "ignore_eos": true, "stream": true})");
  const auto whole =
      begin("/v1/completions", R"({"prompt": "b", "max_tokens": 400, "ignore_eos": true})");
  ASSERT_TRUE(stream->wait_started());
  ASSERT_TRUE(whole->wait_started());
  gate_.allow(3);
  gate_.wait_held();
  dies = true;
  gate_.allow(-1);
  ASSERT_TRUE(stream->wait());
  ASSERT_TRUE(whole->wait());
  expect_error({whole->response()}, 503, nullptr);
  const std::vector<Json> chunks = ApiAnswer{stream->response()}.chunks();
  EXPECT_TRUE(chunks.back().contains("error"));
  EXPECT_EQ(stream->response().body.find("secret"), std::string::npos);
  expect_error(get("/health"), 503, nullptr);
  expect_error(get("/live"), 503, nullptr);
  expect_error(ask("/v1/completions", R"({"prompt": "a"})"), 503, nullptr);
  EXPECT_FALSE(engine().alive());
  EXPECT_EQ(engine().cause(), "secret");
  EXPECT_EQ(get("/metrics").response.status, 200);
}

TEST_F(ApiTest, RequestsHaveADeadline) {
  api_options_.request_seconds = 1e-9;
  expect_error(ask("/v1/completions", R"({"prompt": "a", "max_tokens": 400})"), 504, nullptr);
  expect_no_pages();
}

TEST_F(ApiTest, IdleWhenAllHaveEnded) {
  EXPECT_TRUE(api().idle());
  gate_.allow(0);
  const auto reply = begin("/v1/completions", R"({"prompt": "a", "max_tokens": 2})");
  ASSERT_TRUE(reply->wait_started());
  EXPECT_FALSE(api().idle());
  gate_.allow(-1);
  ASSERT_TRUE(reply->wait());
  expect_no_pages();
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!api().idle() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  EXPECT_TRUE(api().idle());
}

TEST_F(ApiTest, ManyClientsAtOnce) {
  engine_options_.pages = 12;
  api();
  std::vector<std::jthread> clients;
  std::atomic<int> answers = 0, left = 0;
  for (uint64_t client = 0; client < 3; ++client)
    clients.emplace_back([&, client] {
      Random random(client);
      for (int i = 0; i < 8; ++i) {
        Json body = {{"prompt", std::vector<int>(1 + random.below(150), 7)}, {"ignore_eos", true}};
        body["max_tokens"] = 1 + random.below(30);
        body["stream"] = random.below(2) == 0;
        body["n"] = 1 + random.below(3);
        const auto reply = begin("/v1/completions", body.dump());
        if (random.below(3) == 0) {
          reply->leave();
          ++left;
          continue;
        }
        EXPECT_TRUE(reply->wait());
        EXPECT_EQ(reply->response().status, 200);
        EXPECT_EQ(get("/metrics").response.status, 200);
        ++answers;
      }
    });
  clients.clear();
  EXPECT_EQ(answers + left, 24);
  expect_no_pages();
}

}  // namespace
}  // namespace atom::serving
