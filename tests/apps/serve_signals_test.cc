// How atom serve and its requests end: the engine dies, signals come, clients leave. None is lost without a word.
#include <fstream>
#include <list>
#include <stdexcept>

#include "apps/served.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

// With two sequences at a time, far longer than any test waits.
const std::string kEndless =
    R"({"prompt": "The city", "max_tokens": 250, "n": 100, "ignore_eos": true)";

bool ends_with_error(const Answer& stream) {
  const size_t last = stream.body.rfind("data: ");
  return last != std::string::npos && stream.body.compare(last, 15, "data: {\"error\":") == 0;
}

// A server that has ended ends the test.
int64_t metric(Client& client, const std::string& name) {
  if (!client.send(request("GET", "/metrics"))) throw std::runtime_error("the server has ended");
  const std::string text = client.answer().body;
  const size_t at = text.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::atoll(text.c_str() + at + name.size() + 2);
}

TEST(ServeTest, ADeadEngineIsSeenAndEndsTheProgram) {
  Invocation run = serve({});
  run.program = DYING_SERVER;
  Served served(run);
  ASSERT_NE(served.port(), 0) << served.errors();
  Client stream(served.port()), whole(served.port()), other(served.port());
  const std::string body = R"({"prompt": "The city", "max_tokens": 200, "ignore_eos": true)";
  ASSERT_TRUE(stream.send(request("POST", "/v1/completions", body + R"(, "stream": true})")));
  ASSERT_TRUE(whole.send(request("POST", "/v1/completions", body + "}")));
  const Answer cut = stream.answer();
  EXPECT_TRUE(ends_with_error(cut)) << cut.body;
  EXPECT_EQ(whole.answer().status, 503);
  for (const char* path : {"/health", "/live"}) {
    ASSERT_TRUE(other.send(request("GET", path)));
    const Answer health = other.answer();
    EXPECT_EQ(health.status, 503);
    EXPECT_NE(health.body.find("the engine has stopped"), std::string::npos) << health.body;
  }
  EXPECT_EQ(served.code(), 1);  // by itself
  EXPECT_NE(served.errors().find("atom: error: the engine has stopped: a fault of the test"),
            std::string::npos);
}

TEST(ServeTest, SigtermUnderLoadLosesNothing) {
  Served served(serve({"--max-num-seqs", "2"}));
  ASSERT_NE(served.port(), 0) << served.errors();
  std::list<Client> clients;
  for (int i = 0; i < 8; ++i) {
    Client& client = clients.emplace_back(served.port());
    ASSERT_TRUE(client.send(request("POST", "/v1/completions",
                                    R"({"prompt": "The city", "max_tokens": 40, "ignore_eos": true,
                                        "stream": )" +
                                        std::string(i % 2 == 0 ? "true}" : "false}"))));
  }
  Client other(served.port());  // all of them are with the engine, most of them wait
  while (metric(other, "atom_requests_running") + metric(other, "atom_requests_waiting") +
             metric(other, R"(atom_requests_total{finish="length"})") <
         8) {
  }
  served.signal(SIGTERM);
  int i = 0;
  for (Client& client : clients) {
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 200) << i << " " << answer.body;
    if (i++ % 2 == 0) {
      EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n")) << answer.body;
    } else {
      EXPECT_EQ(json_of(answer)["usage"]["completion_tokens"], 40);
    }
  }
  EXPECT_EQ(served.code(), 0) << served.errors();
  EXPECT_FALSE(Client(served.port()).connected());
}

TEST(ServeTest, ASecondSignalEndsItAtOnce) {
  Served served(serve({"--max-num-seqs", "2", "--drain-timeout", "3600"}));
  ASSERT_NE(served.port(), 0) << served.errors();
  Client client(served.port());
  ASSERT_TRUE(client.send(request("POST", "/v1/completions", kEndless + R"(, "stream": true})")));
  ASSERT_TRUE(client.read_until("data: "));
  served.signal(SIGTERM);
  ASSERT_TRUE(served.wait_for_error("open requests have 3600 s to end"));
  served.signal(SIGTERM);
  EXPECT_EQ(served.code(), 128 + SIGTERM);
}

TEST(ServeTest, TheDrainTimeoutEndsWhatIsOpen) {
  Served served(serve({"--max-num-seqs", "2", "--drain-timeout", "0.1"}));
  ASSERT_NE(served.port(), 0) << served.errors();
  Client stream(served.port()), whole(served.port()), late(served.port());
  ASSERT_TRUE(stream.send(request("POST", "/v1/completions", kEndless + R"(, "stream": true})")));
  ASSERT_TRUE(stream.read_until("data: "));
  ASSERT_TRUE(whole.send(request("POST", "/v1/completions", kEndless + "}")));
  while (metric(late, "atom_requests_waiting") < 100) {
  }
  served.signal(SIGTERM);
  const Answer cut = stream.answer();
  EXPECT_TRUE(ends_with_error(cut)) << cut.body.substr(cut.body.size() - 200);
  EXPECT_EQ(whole.answer().status, 503);
  EXPECT_EQ(served.code(), 0);
  EXPECT_NE(served.errors().find("requests that have not ended are cancelled"), std::string::npos);
}

TEST(ServeTest, ClientsThatLeaveGiveTheirPagesBack) {
  Served served(serve({"--max-num-seqs", "2"}));
  ASSERT_NE(served.port(), 0) << served.errors();
  Client other(served.port());
  const auto held = [&other] { return metric(other, R"(atom_kv_pages{state="held"})"); };
  for (const char* stream : {"true", "false"}) {
    Client client(served.port());
    ASSERT_TRUE(client.send(
        request("POST", "/v1/completions", kEndless + R"(, "stream": )" + stream + "}")));
    while (held() == 0) {
    }
    client.reset();
    while (held() > 0 || metric(other, "atom_requests_waiting") > 0) {
    }
  }
  EXPECT_EQ(metric(other, R"(atom_requests_total{finish="cancelled"})"), 200);
  EXPECT_EQ(metric(other, R"(atom_requests_total{finish="length"})"), 0);
  served.signal(SIGTERM);
  EXPECT_EQ(served.code(), 0);
}

TEST(ServeTest, SighupReadsTheKeysAgain) {
  const TempFolder folder;
  const std::string keys = folder / "keys.txt";
  std::ofstream(keys) << "old\n";
  Served served(serve({"--api-key-file", keys}));
  ASSERT_NE(served.port(), 0) << served.errors();
  Client client(served.port());  // one connection all the time
  const auto status = [&client](const std::string& key) {
    EXPECT_TRUE(
        client.send(request("GET", "/v1/models", "", "Authorization: Bearer " + key + "\r\n")));
    return client.answer().status;
  };
  EXPECT_EQ(status("old"), 200);
  EXPECT_EQ(status("new"), 401);
  std::ofstream(keys) << "new\n";
  served.signal(SIGHUP);
  ASSERT_TRUE(served.wait_for_error("atom: the keys were read again\n"));
  EXPECT_EQ(status("old"), 401);
  EXPECT_EQ(status("new"), 200);
  std::ofstream(keys) << "new\nno key\n";
  served.signal(SIGHUP);
  ASSERT_TRUE(served.wait_for_error("atom: warning: the keys were not read again, the old stays: " +
                                    keys + ":2: the key has characters"));
  EXPECT_EQ(status("new"), 200);
  served.signal(SIGTERM);
  EXPECT_EQ(served.code(), 0);
}

}  // namespace
}  // namespace atom::testing
