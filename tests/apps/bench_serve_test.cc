// atom bench serve and its client, against a server of a few lines. Times are not asserted.
#include <gtest/gtest.h>

#include "apps/load_run.h"
#include "apps/run_program.h"
#include "apps/tiny_server.h"
#include "base/error.h"
#include "base/json.h"

namespace atom::testing {
namespace {

std::string event_stream(size_t piece, bool error = false) {
  std::string events;
  for (const char* text : {"one", "", " two", " three"})
    events += fmt::format("data: {{\"choices\":[{{\"text\":\"{}\"}}],\"usage\":null}}\n\n", text);
  events +=
      error ? "data: {\"error\":{\"message\":\"no more pages\"}}\n\n"
            : "data: "
              "{\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\r\n\r\n";
  return "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
         "Transfer-Encoding: chunked\r\n\r\n" +
         chunked(events + "data: [DONE]\n\n", piece);
}

std::string api(const std::string& request) {
  if (request.starts_with("GET /v1/models")) return plain(200, R"({"data":[{"id":"tiny"}]})");
  if (request.starts_with("GET /tokenizer_info")) return plain(200, R"({"vocab_size":7})");
  return event_stream(11);
}

std::vector<std::string> events_of(const std::string& answer) {
  TinyServer server([&](const std::string&) { return answer; });
  app::LoadClient client({.address = app::parse_server("URL", server.url()), .api_key = ""});
  std::vector<std::string> events;
  client.stream("/x", "{}", [&](std::string_view data) { events.emplace_back(data); });
  return events;
}

TEST(LoadClientTest, EventsDoNotDependOnThePieces) {
  const std::vector<std::string> whole = events_of(event_stream(100000));
  ASSERT_EQ(whole.size(), 6u);
  EXPECT_EQ(whole.back(), "[DONE]");
  for (const size_t piece : {1, 2, 3, 7, 50})
    EXPECT_EQ(events_of(event_stream(piece)), whole) << piece;
}

TEST(LoadClientTest, BrokenAnswersAreErrors) {
  const std::string good = event_stream(20);
  for (const std::string& answer :
       {std::string("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabc"),
        std::string("nonsense\r\n\r\nConnection: close"), std::string(),
        std::string(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nConnection: close")})
    EXPECT_THROW(events_of(answer), Error) << answer;
}

TEST(LoadClientTest, AddressesAreChecked) {
  EXPECT_EQ(app::parse_server("URL", "http://h").url(), "http://h:80");
  EXPECT_EQ(app::parse_server("URL", "https://h/").url(), "https://h:443");
  EXPECT_EQ(app::parse_server("URL", "http://[::1]:8000/").url(), "http://[::1]:8000");
  for (const char* url :
       {"ftp://h", "https://h:0", "h:80", "http://", "http://h:0", "http://h:x", "http://h/v1"})
    EXPECT_THROW(app::parse_server("URL", url), Error) << url;
}

TEST(LoadRunTest, PercentilesAreNearestRanks) {
  const app::Percentiles p = app::percentiles_of({4, 1, 3, 2});
  EXPECT_EQ(p.mean, 2.5);
  EXPECT_EQ(p.p50, 2);
  EXPECT_EQ(p.p95, 4);
  EXPECT_EQ(app::percentiles_of({}).max, 0);
}

TEST(LoadRunTest, GoodputCountsAnswersWithinBothTargets) {
  app::LoadResult result{.samples = {}, .seconds = 2};
  for (const auto& [first, gap] : {std::pair{0.1, 0.01}, {0.9, 0.01}, {0.1, 0.09}})
    result.samples.push_back(
        {.first = first, .whole = 1, .gaps = {gap, gap}, .tokens = 3, .error = ""});
  result.samples.push_back({.gaps = {}, .error = "refused"});
  const app::LoadSummary all = app::summarize(result, {.first = 0.5, .gap = 0.05});
  EXPECT_EQ(all.goodput, 0.5);
  EXPECT_EQ(all.succeeded, 3);
  EXPECT_EQ(all.failed, 1);
  EXPECT_EQ(all.error, "refused");
  EXPECT_EQ(all.output_rate, 4.5);
  EXPECT_FALSE(app::summarize(result, {}).goodput);
}

TEST(LoadRunTest, TokensWithoutTextCount) {
  const auto answer = [](const std::vector<std::string>& choices) {
    std::string events;
    for (const std::string& choice : choices)
      events += "data: {\"choices\":[{" + choice + "}]}\n\n";
    return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
           "chunked\r\n\r\n" +
           chunked(events + "data: [DONE]\n\n", 1000);
  };
  const std::string more = R"("text":"","finish_reason":null)";
  const std::string end = R"("text":"","finish_reason":"length")";
  app::LoadPlan plan;
  plan.requests = 1;
  const auto sample = [&](const std::vector<std::string>& choices) {
    TinyServer server([&](const std::string&) { return answer(choices); });
    return app::run_load(plan, {.address = app::parse_server("URL", server.url()), .api_key = ""},
                         [](int) {})
        .samples[0];
  };
  EXPECT_EQ(sample({more, more, end}).error, "");
  EXPECT_EQ(sample({more, more, end}).gaps.size(), 1u);
  EXPECT_EQ(sample({end}).error, "");
  EXPECT_EQ(sample({}).error, "an answer without a piece");
}

TEST(BenchServeTest, LoadsAServer) {
  TinyServer server(api);
  const Result result = run_program({"bench", "serve", server.url(), "--requests", "6",
                                     "--concurrency", "2", "--input-tokens", "4", "--output-tokens",
                                     "3", "--target-ttft", "60", "--api-key", "k", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = parse_json(result.out, {.source = "stdout"});
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["succeeded"], 6);
  EXPECT_EQ(json["failed"], 0);
  EXPECT_GT(json["goodput_requests_per_second"].get<double>(), 0);
  EXPECT_GT(json["ttft_seconds"]["p95"].get<double>(), 0);
  EXPECT_NEAR(json["output_tokens_per_second"].get<double>() * json["seconds"].get<double>(), 18,
              1e-6);
  // One connection to ask, one of the warm-up, one of each client that found a request, all kept.
  EXPECT_LE(server.connections(), 4);
  const std::vector<std::string> requests = server.requests();
  ASSERT_EQ(requests.size(), 9u);
  const Json body = parse_json(requests.back().substr(requests.back().find("\r\n\r\n") + 4));
  EXPECT_EQ(body["prompt"].size(), 4u);
  for (const Json& id : body["prompt"]) EXPECT_LT(id.get<int>(), 7);
  EXPECT_NE(requests.back().find("Authorization: Bearer k\r\n"), std::string::npos);
}

TEST(BenchServeTest, ShowsATableOfAPoissonLoad) {
  TinyServer server(api);
  const Result result =
      run_program({"bench", "serve", server.url(), "--requests", "5", "--rate", "500"});
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* part :
       {"Poisson, 500 a second", "tiny", "first token", "between pieces", "p99", "requests/s"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
}

TEST(BenchServeTest, FailuresAreToldInOneSentence) {
  TinyServer failing([](const std::string& request) {
    return request.starts_with("GET") ? api(request) : event_stream(9, true);
  });
  Result result = run_program({"bench", "serve", failing.url(), "--requests", "2"});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("no request succeeded; the first: no more pages"), std::string::npos)
      << result.err;
  TinyServer locked([](const std::string&) { return plain(401, "{}"); });
  result = run_program({"bench", "serve", locked.url()});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("--api-key"), std::string::npos) << result.err;
  result = run_program({"bench", "serve", "http://127.0.0.1:1"});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("cannot connect to http://127.0.0.1:1"), std::string::npos)
      << result.err;
  EXPECT_EQ(run_program({"bench", "serve", "ftp://x"}).code, 2);
}

}  // namespace
}  // namespace atom::testing
