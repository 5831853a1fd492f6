// What the HTTP server does for clients that behave, and for the rules of the protocol.
#include "serving/http.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "serving/http_fixture.h"
#include "serving/http_message.h"

namespace atom::testing {
namespace {

class HttpTest : public HttpFixture {};

TEST_F(HttpTest, AnswersAndKeepsTheConnection) {
  start();
  Client client(port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(post("/echo?a=b", "body")));
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "POST /echo?a=b body");
    EXPECT_EQ(answer.headers.at("content-type"), "application/json");
    EXPECT_EQ(answer.headers.at("connection"), "keep-alive");
    EXPECT_EQ(answer.headers.at("date").size(), 29u);
  }
}

TEST_F(HttpTest, StreamsInChunksAndServesTheNextRequestOnTheSameConnection) {
  start();
  Client client(port());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.send(get("/stream")));
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.headers.at("content-type"), "text/event-stream");
    EXPECT_EQ(answer.headers.at("cache-control"), "no-cache");
    EXPECT_EQ(answer.body, "data: one\n\ndata: two\n\ndata: [DONE]\n\n");
    EXPECT_EQ(answer.chunks.size(), 3u);
  }
}

TEST_F(HttpTest, StreamsArriveAsTheyAreWrittenFromAnotherThread) {
  start();
  Client client(port());
  ASSERT_TRUE(client.send(get("/hold")));
  const std::shared_ptr<Reply> reply = held();
  ASSERT_NE(reply, nullptr);
  reply->begin_stream({});
  ASSERT_TRUE(reply->write("first"));
  ASSERT_TRUE(client.read_until("first"));
  ASSERT_TRUE(reply->write("second"));
  ASSERT_TRUE(client.read_until("second"));
  reply->end();
  EXPECT_FALSE(reply->write("more"));
  EXPECT_EQ(client.answer().body, "firstsecond");
}

TEST_F(HttpTest, AnswersPipelinedRequestsInTheirOrder) {
  start();
  Client client(port());
  ASSERT_TRUE(client.send(get("/hold") + get("/b") + post("/c", "x") + get("/stream") + get("/d")));
  const std::shared_ptr<Reply> reply = held();
  reply->send({.body = "a"});
  EXPECT_EQ(client.answer().body, "a");
  EXPECT_EQ(client.answer().body, "GET /b? ");
  EXPECT_EQ(client.answer().body, "POST /c? x");
  EXPECT_EQ(client.answer().chunks.size(), 3u);
  EXPECT_EQ(client.answer().body, "GET /d? ");
}

TEST_F(HttpTest, AnswersWhatAHalfClosedConnectionAskedForAtOnce) {
  start();
  Client client(port());
  ASSERT_TRUE(client.send(get("/a") + get("/b")));
  client.half_close();
  EXPECT_EQ(client.answer().body, "GET /a? ");
  EXPECT_EQ(client.answer().body, "GET /b? ");
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(HttpTest, TakesRequestsByteByByteAndEmptyLinesBetweenThem) {
  start();
  Client client(port());
  for (const char byte : "\r\n\r\n" + post("/e", "xyz") + "\r\n" + get("/f"))
    ASSERT_TRUE(client.send({&byte, 1}));
  EXPECT_EQ(client.answer().body, "POST /e? xyz");
  EXPECT_EQ(client.answer().body, "GET /f? ");
}

TEST_F(HttpTest, ReadsChunkedBodies) {
  start();
  Client client(port());
  const std::string head =
      "POST /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n";
  ASSERT_TRUE(client.send(head + "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n" + head +
                          "0\r\n\r\n"));
  EXPECT_EQ(client.answer().body, "POST /c? abcde");
  EXPECT_EQ(client.answer().body, "POST /c? ");
}

TEST_F(HttpTest, AnswersHeadWithoutABodyAndRefusesOtherMethods) {
  start();
  Client client(port());
  ASSERT_TRUE(client.send("HEAD /h HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  const Answer head = client.answer(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-length"), "8");  // "GET /h? "
  ASSERT_TRUE(client.send("HEAD /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  EXPECT_EQ(client.answer(true).status, 200);
  for (const std::string method : {"OPTIONS", "PUT", "DELETE", "TRACE", "BREW"}) {
    ASSERT_TRUE(client.send(method + " /h HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 405) << method;
    EXPECT_EQ(answer.headers.at("allow"), "GET, HEAD, POST");
    EXPECT_NE(answer.body.find("error"), std::string::npos);
    for (const auto& [name, value] : answer.headers)
      EXPECT_FALSE(name.starts_with("access-control")) << name;
  }
}

TEST_F(HttpTest, ContinuesWhereAClientWaitsForIt) {
  start();
  Client client(port());
  ASSERT_TRUE(client.send(
      "POST /c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"));
  EXPECT_EQ(client.answer().status, 100);
  ASSERT_TRUE(client.send("abc"));
  EXPECT_EQ(client.answer().body, "POST /c? abc");
  // What is refused is not asked for.
  ASSERT_TRUE(
      client.send("POST /refused HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: "
                  "100-continue\r\n\r\n"));
  EXPECT_EQ(client.answer().status, 401);
  EXPECT_TRUE(client.closed_by_server());
  Client other(port());
  ASSERT_TRUE(other.send(get("/c", "Expect: tea\r\n")));
  EXPECT_EQ(other.answer().status, 417);
}

TEST_F(HttpTest, ClosesWhereTheClientOrItsVersionAsks) {
  start();
  Client client(port());
  ASSERT_TRUE(client.send(get("/c", "Connection: close\r\n") + get("/never")));
  const Answer answer = client.answer();
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.closed_by_server());
  Client old(port());
  ASSERT_TRUE(old.send("GET /stream HTTP/1.0\r\n\r\n"));
  const Answer stream = old.answer();
  EXPECT_FALSE(stream.headers.contains("transfer-encoding"));
  EXPECT_EQ(stream.body, "data: one\n\ndata: two\n\ndata: [DONE]\n\n");
  Client kept(port());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(kept.send("GET /k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    EXPECT_EQ(kept.answer().headers.at("connection"), "keep-alive");
  }
}

TEST_F(HttpTest, EchoesRequestIdsThatAreFitForALog) {
  start();
  Client client(port());
  std::set<std::string> drawn;
  ASSERT_TRUE(client.send(get("/i", "X-Request-Id: job-7 of \"me\"\r\n")));
  EXPECT_EQ(client.answer().headers.at("x-request-id"), "job-7 of \"me\"");
  for (const std::string id : {"", "a\tb", "caf\xc3\xa9", "x\x1b[31m"}) {
    Client one(port());
    ASSERT_TRUE(one.send(get("/i", "X-Request-Id: " + id + "\r\n")));
    const Answer answer = one.answer();
    if (answer.status == 200) {
      EXPECT_EQ(last_.request_id, answer.headers.at("x-request-id"));
    }
    EXPECT_TRUE(drawn.insert(answer.headers.at("x-request-id")).second);
  }
  ASSERT_TRUE(client.send(get("/i", "X-Request-Id: " + std::string(129, 'x') + "\r\n")));
  drawn.insert(client.answer().headers.at("x-request-id"));
  EXPECT_EQ(drawn.size(), 5u);
  for (const std::string& id : drawn) EXPECT_TRUE(id.starts_with("req-") && id.size() == 36) << id;
}

TEST_F(HttpTest, AnswersForHandlersThatThrowOrForget) {
  start();
  Client client(port());
  for (const char* path : {"/throw", "/drop"}) {
    ASSERT_TRUE(client.send(get(path)));
    EXPECT_EQ(client.answer().status, 500) << path;
  }
  ASSERT_TRUE(client.send(get("/hold")));
  held()->begin_stream({});  // and no end
  EXPECT_EQ(client.answer().status, 0);
  EXPECT_TRUE(wait_for_gone(1));
}

TEST_F(HttpTest, LeavesHeadersWithControlCharactersOut) {
  const std::string head = serving::render_head({.headers = {{"A", "b\r\nC: d"}, {"E", "f"}}}, {});
  EXPECT_EQ(head.find("C: d"), std::string::npos);
  EXPECT_NE(head.find("\r\nE: f\r\n"), std::string::npos);
  EXPECT_EQ(serving::http_date(784111777), "Sun, 06 Nov 1994 08:49:37 GMT");
}

TEST_F(HttpTest, NamesHostPortAndCauseWhenItCannotListen) {
  start();
  const auto message = [](HttpOptions options) -> std::string {
    try {
      HttpServer server(std::move(options), {.admit = [](const HttpHead&) { return std::nullopt; },
                                             .handle = [](HttpRequest, std::shared_ptr<Reply>) {},
                                             .error = error_response});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({.port = port()}), "cannot listen on 127.0.0.1 port " + std::to_string(port()) +
                                           ": Address already in use");
  EXPECT_NE(message({.host = "host.invalid", .port = 1})
                .find("host.invalid port 1: the host has no address"),
            std::string::npos);
  EXPECT_EQ(message({.port = 70000}), "port: 70000 is not from 0 to 65535");
  EXPECT_EQ(message({.certificate_file = "c.pem"}),
            "TLS needs a certificate and a key: the key is missing");
}

// Until a test ends.
class FewFiles {
 public:
  FewFiles() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);  // the lowest number that is free
    ::close(next);
    set(static_cast<rlim_t>(next));
  }
  ~FewFiles() { set(before_.rlim_cur); }
  FewFiles(const FewFiles&) = delete;
  FewFiles& operator=(const FewFiles&) = delete;

 private:
  void set(rlim_t most) const {
    const rlimit limit = {most, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  rlimit before_ = {};
};

TEST_F(HttpTest, AcceptsAgainOnceThereAreDescriptors) {
  std::mutex mutex;
  std::vector<std::string> lines;
  std::condition_variable changed;
  set_log_sink([&](LogLevel, const std::string& line) {
    const std::lock_guard lock(mutex);
    lines.push_back(line);
    changed.notify_all();
  });
  const auto said = [&](const std::string& words) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::milliseconds(Client::kPatience), [&] {
      return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
        return line.find(words) != std::string::npos;
      });
    });
  };
  start();
  Client old(port());
  ASSERT_TRUE(old.send(get("/a")));
  EXPECT_EQ(old.answer().status, 200);
  std::optional<FewFiles> few;
  Client late(port(), 0, [&few] { few.emplace(); });  // its own socket is there already
  ASSERT_TRUE(late.send(get("/b")));
  EXPECT_TRUE(said("no connection is accepted, after 2 attempts: Too many open files"));
  ASSERT_TRUE(old.send(get("/c")));  // those that are there are served
  EXPECT_EQ(old.answer().status, 200);
  few.reset();
  EXPECT_EQ(late.answer().status, 200);
  EXPECT_TRUE(said("connections are accepted again, after "));
  server_->stop();
  set_log_sink({});
}

TEST_F(HttpTest, DrainsAndStops) {
  start();
  Client idle(port()), busy(port()), streaming(port());
  ASSERT_TRUE(idle.send(get("/a")));
  EXPECT_EQ(idle.answer().status, 200);
  ASSERT_TRUE(busy.send(get("/hold")));
  const auto one = held();
  ASSERT_TRUE(streaming.send(get("/hold")));
  const auto two = held();
  two->begin_stream({});
  ASSERT_TRUE(streaming.read_until("\r\n\r\n"));
  EXPECT_FALSE(server_->drained());
  server_->drain();
  EXPECT_TRUE(idle.closed_by_server());
  EXPECT_TRUE(soon([this] { return !Client(port()).connected(); }));
  EXPECT_FALSE(server_->drained());
  one->send({.body = "late"});
  const Answer answer = busy.answer();
  EXPECT_EQ(answer.body, "late");
  EXPECT_EQ(answer.headers.at("connection"), "close");
  two->write("rest");
  two->end();
  EXPECT_EQ(streaming.answer().body, "rest");
  EXPECT_TRUE(soon([this] { return server_->drained(); }));
  EXPECT_TRUE(streaming.closed_by_server());
}

TEST_F(HttpTest, StopEndsOpenRequests) {
  start();
  Client client(port()), unread(port());
  ASSERT_TRUE(client.send(get("/hold")));
  const auto reply = held();
  server_->stop();
  EXPECT_EQ(client.answer().status, 0);
  EXPECT_TRUE(wait_for_gone(1));
  reply->send({});  // to nobody
  bool told = false;
  reply->on_gone([&told] { told = true; });
  EXPECT_TRUE(told);
  server_.reset();
  reply->send({});
}

}  // namespace
}  // namespace atom::testing
