// What the HTTP server does with clients that are too many, too large, too slow, gone, or talk nonsense.
#include "base/random.h"
#include "serving/http_fixture.h"
#include "serving/http_parser.h"

namespace atom::testing {
namespace {

class HttpLimitsTest : public HttpFixture {
 protected:
  // The answer to bytes on a connection of their own, which must end then.
  Answer refused(const std::string& bytes) {
    Client client(port());
    EXPECT_TRUE(client.send(bytes));
    Answer answer = client.answer();
    EXPECT_TRUE(client.closed_by_server()) << bytes.substr(0, 80);
    return answer;
  }
};

// What a head may have does not depend on how it comes.
TEST(RequestParserTest, CountsTheBytesOfAHeadHoweverItComes) {
  for (const size_t size : {511U, 512U, 513U}) {
    const std::string begin = "GET / HTTP/1.1\r\nHost: a\r\nA: ";
    const std::string head = begin + std::string(size - begin.size() - 4, 'x') + "\r\n\r\n";
    for (const size_t step : {size_t{1}, size_t{7}, size_t{300}, head.size()}) {
      RequestParser parser({.target_bytes = 64, .head_bytes = 512}, "");
      std::string unused;
      for (size_t at = 0; at < head.size(); at += step) {
        unused += head.substr(at, step);
        while (const size_t used = parser.feed(unused)) unused.erase(0, used);
      }
      EXPECT_EQ(parser.state(),
                size > 512 ? RequestParser::State::kRefused : RequestParser::State::kDone)
          << size << " bytes, " << step << " at a time";
    }
  }
}

// Chunks of a byte, each with as much around it as there may be, are read in proportion; headers are counted together.
TEST(RequestParserTest, StormsOfChunksAndHeaders) {
  const auto state_of = [](const std::string& bytes, RequestParser& parser) {
    for (std::string_view rest = bytes; !rest.empty();) {
      const size_t used = parser.feed(rest.substr(0, 4096));
      if (used == 0) break;
      rest.remove_prefix(used);
    }
    return parser.state();
  };
  const RequestParser::Limits limits = {
      .target_bytes = 64, .head_bytes = 512, .body_bytes = 10'000};
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const int chunks : {10'000, 10'001}) {
    std::string bytes = head;
    for (int i = 0; i < chunks; ++i) bytes += "1;x=y\r\nz\r\n";
    RequestParser parser(limits, "");
    EXPECT_EQ(state_of(bytes + "0\r\n\r\n", parser),
              chunks > 10'000 ? RequestParser::State::kRefused : RequestParser::State::kDone)
        << chunks;
    if (chunks > 10'000) {
      EXPECT_EQ(parser.status(), 413);
    }
  }
  std::string trailers = head + "0\r\n", headers = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 1000; ++i) {
    trailers += "A: b\r\n";
    headers += "A: b\r\n";
  }
  RequestParser ends(limits, ""), begins(limits, "");
  EXPECT_EQ(state_of(trailers + "\r\n", ends), RequestParser::State::kRefused);
  EXPECT_EQ(state_of(headers + "\r\n", begins), RequestParser::State::kRefused);
  EXPECT_EQ(begins.status(), 431);
}

TEST_F(HttpLimitsTest, RefusesWhatIsTooLarge) {
  HttpOptions options = quick_options();
  options.target_bytes = 64;
  options.head_bytes = 512;
  options.body_bytes = 100;
  start(options);
  const std::string chunked = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(refused(get("/" + std::string(64, 'x'))).status, 414);
  EXPECT_EQ(refused(get("/" + std::string(5000, 'x'))).status, 414);
  EXPECT_EQ(refused("GET /" + std::string(5000, 'x')).status, 414);  // no end of line at all
  EXPECT_EQ(refused(get("/", "A: " + std::string(600, 'x') + "\r\n")).status, 431);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: a\r\nA: " + std::string(600, 'x')).status, 431);
  EXPECT_EQ(refused(post("/c", std::string(101, 'x'))).status, 413);
  EXPECT_EQ(
      refused("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n").status,
      413);
  EXPECT_EQ(refused(chunked + "65\r\n" + std::string(101, 'x') + "\r\n0\r\n\r\n").status, 413);
  EXPECT_EQ(refused(chunked + "ffffffff\r\n" + std::string(200, 'x')).status, 413);
  EXPECT_EQ(refused(chunked + "1;" + std::string(600, 'x')).status, 400);
  Client client(port());  // as large as may be
  ASSERT_TRUE(client.send(post("/" + std::string(63, 'x'), std::string(100, 'x'))));
  EXPECT_EQ(client.answer().status, 200);
}

TEST_F(HttpLimitsTest, RefusesWhatIsNotHttp) {
  start();
  const std::string host = "Host: a\r\n";
  for (const std::string& bytes : std::vector<std::string>{
           "hello\r\n\r\n",
           "GET /\r\n\r\n",
           "GET / HTTP/2.0\r\n" + host + "\r\n",
           "GET / HTTP/1.1\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
           "GET http://a/ HTTP/1.1\r\n" + host + "\r\n",
           "GET * HTTP/1.1\r\n" + host + "\r\n",
           "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "A\x01: b\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "A: b" + std::string(1, '\0') + "\r\n\r\n",
           "GET / HTTP/1.1\n" + host + "\n",
           std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),
           "POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Content-Length: 1x\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
           "POST / HTTP/1.1\r\n" + host +
               "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host +
               "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
           "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
       }) {
    const Answer answer = refused(bytes);
    EXPECT_EQ(answer.status, 400) << bytes;
    EXPECT_NE(answer.body.find("\"error\""), std::string::npos) << bytes;
    EXPECT_EQ(answer.headers.at("connection"), "close") << bytes;
  }
  EXPECT_EQ(refused(post("/c", "x", "Content-Encoding: gzip\r\n")).status, 415);
}

TEST_F(HttpLimitsTest, RefusesBeforeTheBodyComes) {
  start();
  const Answer answer =
      refused("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_EQ(answer.status, 401);
  Client client(port());  // without a body the connection stays
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.send(get("/refused")));
    EXPECT_EQ(client.answer().status, 401);
  }
}

TEST_F(HttpLimitsTest, RefusesBodiesOfGetAndHead) {
  start();
  for (const std::string method : {"GET", "HEAD"})
    for (const std::string body : {"Content-Length: 1000000", "Transfer-Encoding: chunked"}) {
      Client client(port());
      ASSERT_TRUE(client.send(method + " /a HTTP/1.1\r\nHost: a\r\n" + body + "\r\n\r\n"));
      const Answer answer = client.answer(method == "HEAD");
      EXPECT_EQ(answer.status, 413) << method << body;
      EXPECT_EQ(answer.headers.at("connection"), "close");
      EXPECT_TRUE(client.closed_by_server());
    }
  Client client(port());
  ASSERT_TRUE(client.send(get("/a", "Content-Length: 0\r\n")));
  EXPECT_EQ(client.answer().status, 200);
}

TEST_F(HttpLimitsTest, RefusesBodiesThatAreTooMuchTogether) {
  HttpOptions options = quick_options();
  options.all_body_bytes = 1000;
  start(options);
  EXPECT_EQ(refused(post("/c", std::string(1001, 'x'))).headers.at("retry-after"), "1");
  Client client(port());
  for (int i = 0; i < 3; ++i) {  // each gives its bytes back
    ASSERT_TRUE(client.send(post("/c", std::string(900, 'x'))));
    EXPECT_EQ(client.answer().status, 200);
  }
  ASSERT_TRUE(client.send(post("/keep", std::string(600, 'x'))));
  EXPECT_EQ(client.answer().status, 200);
  const Answer answer = refused(post("/c", std::string(500, 'x')));
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.at("connection"), "close");
  {
    const std::lock_guard lock(mutex_);
    kept_.clear();
  }
  ASSERT_TRUE(client.send(post("/c", std::string(500, 'x'))));
  EXPECT_EQ(client.answer().status, 200);
}

TEST_F(HttpLimitsTest, ABodyThatNeverComesWholeIsNoRequest) {
  start();
  Client client(port());
  ASSERT_TRUE(client.send("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"));
  client.half_close();
  EXPECT_TRUE(client.closed_by_server());
  EXPECT_TRUE(last_.path.empty());
}

TEST_F(HttpLimitsTest, ClosesOnSlowHeadsBodiesAndIdleConnections) {
  HttpOptions options = quick_options();
  options.head_seconds = options.body_seconds = options.idle_seconds = 0.05;
  start(options);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: a\r\nA").status, 408);
  EXPECT_EQ(refused("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").status, 408);
  EXPECT_EQ(refused("").status, 0);
  Client drip(port());  // a byte at a time, often enough to look alive
  bool alive = true;
  for (const char byte : get("/", "A: " + std::string(2000, 'x') + "\r\n")) {
    if (!(alive = drip.send({&byte, 1}))) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (drip.input().find("408") != std::string::npos) break;
    pollfd file = {drip.file(), POLLIN, 0};
    if (::poll(&file, 1, 0) > 0 && drip.read_until("408")) break;
  }
  EXPECT_TRUE(!alive || drip.input().find("408") != std::string::npos);
}

// Reads nothing while a long answer comes: the socket's buffers fill, then the time or the queue runs out.
TEST_F(HttpLimitsTest, CutsOffClientsThatDoNotRead) {
  HttpOptions options = quick_options();
  options.write_seconds = 0.05;
  options.stream_queue_bytes = 64 << 20;
  start(options);
  Client client(port(), 4096);
  ASSERT_TRUE(client.send(get("/hold")));
  const auto reply = held();
  reply->begin_stream({});
  EXPECT_TRUE(reply->write(std::string(16 << 20, 'x')));
  EXPECT_TRUE(wait_for_gone(1));
  EXPECT_FALSE(reply->write("more"));
  EXPECT_TRUE(soon([this] { return server_->connections() == 0; }));
}

TEST_F(HttpLimitsTest, CutsOffStreamsWhoseQueueIsFull) {
  HttpOptions options = quick_options();
  options.stream_queue_bytes = 8 << 20;
  start(options);
  Client client(port(), 4096), other(port());
  ASSERT_TRUE(client.send(get("/hold")));
  const auto reply = held();
  reply->begin_stream({});
  int written = 0;
  while (written < 4096 && reply->write(std::string(64 << 10, 'x'))) ++written;
  EXPECT_LT(written, 4096);
  EXPECT_TRUE(wait_for_gone(1));
  ASSERT_TRUE(other.send(get("/b")));
  EXPECT_EQ(other.answer().status, 200);
}

// The cut comes while the first bytes go into the socket's buffers, when nobody waits yet that could be woken.
TEST_F(HttpLimitsTest, CutsOffStreamsWhoseFirstBytesAreBeingSent) {
  HttpOptions options = quick_options();
  options.stream_queue_bytes = 8 << 20;
  start(options);
  for (int i = 1; i <= 40; ++i) {
    Client client(port(), 4096);
    ASSERT_TRUE(client.send(get("/hold")));
    const auto reply = held();
    reply->begin_stream({});
    EXPECT_TRUE(reply->write(std::string(16 << 20, 'x')));
    std::this_thread::sleep_for(std::chrono::microseconds(25 * i));  // somewhere among them
    EXPECT_FALSE(reply->write("more"));
    ASSERT_TRUE(wait_for_gone(i));
  }
}

TEST_F(HttpLimitsTest, SendsPiecesThatAreLargerThanTheQueue) {
  HttpOptions options = quick_options();
  options.stream_queue_bytes = 1000;
  start(options);
  Client client(port());
  ASSERT_TRUE(client.send(get("/hold")));
  const auto reply = held();
  reply->begin_stream({});
  EXPECT_TRUE(reply->write(std::string(100000, 'x')));
  reply->end();
  EXPECT_EQ(client.answer().body.size(), 100000u);
}

TEST_F(HttpLimitsTest, NoticesThatAClientHasLeft) {
  start();
  Client plain(port()), crashed(port()), streamed(port()), queued(port());
  for (Client* client : {&plain, &crashed, &streamed}) ASSERT_TRUE(client->send(get("/hold")));
  ASSERT_TRUE(queued.send(post("/hold", "x") + get("/b")));
  const std::shared_ptr<Reply> replies[] = {held(), held(), held(), held()};
  for (const auto& reply : replies) ASSERT_NE(reply, nullptr);
  replies[2]->begin_stream({});
  plain.close();
  EXPECT_TRUE(wait_for_gone(1));
  crashed.reset();
  EXPECT_TRUE(wait_for_gone(2));
  streamed.close();
  queued.half_close();
  EXPECT_TRUE(wait_for_gone(4));
  for (const auto& reply : replies) EXPECT_FALSE(reply->write("x"));
  EXPECT_TRUE(soon([this] { return server_->connections() == 0 && server_->drained(); }));
}

// More waits behind the request than the server keeps, and the end of the input behind that.
TEST_F(HttpLimitsTest, NoticesThatAClientHasLeftMuchBehind) {
  start();
  const std::string junk(200 << 10, 'x');
  Client gone(port()), staying(port());
  ASSERT_TRUE(gone.send(get("/hold") + junk));
  const auto unanswered = held();
  ASSERT_NE(unanswered, nullptr);
  gone.close();
  EXPECT_TRUE(wait_for_gone(1));
  ASSERT_TRUE(staying.send(get("/hold") + junk));
  const auto reply = held();
  ASSERT_NE(reply, nullptr);
  reply->send({.body = "late"});
  EXPECT_EQ(staying.answer().body, "late");
  EXPECT_TRUE(staying.closed_by_server());
}

TEST_F(HttpLimitsTest, ServesBesideManyIdleConnections) {
  start();
  std::vector<Client> idle;
  for (int i = 0; i < 200; ++i) {
    idle.emplace_back(port());
    ASSERT_TRUE(idle.back().connected());
    ASSERT_TRUE(idle.back().send(i % 2 == 0 ? "GET / HT" : ""));
  }
  Client client(port());
  ASSERT_TRUE(client.send(get("/a")));
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_TRUE(soon([this] { return server_->connections() == 201; }));
  for (size_t i = 0; i < idle.size(); i += 50) {
    ASSERT_TRUE(idle[i].send("TP/1.1\r\nHost: a\r\n\r\n"));
    EXPECT_EQ(idle[i].answer().status, 200);
  }
}

TEST_F(HttpLimitsTest, TurnsAwayMoreConnectionsThanItMayHave) {
  HttpOptions options = quick_options();
  options.max_connections = 2;
  start(options);
  auto first = std::make_unique<Client>(port());
  Client second(port());
  ASSERT_TRUE(second.send(get("/a")));
  EXPECT_EQ(second.answer().status, 200);
  EXPECT_EQ(refused(get("/a")).status, 503);
  first.reset();
  EXPECT_TRUE(soon([this] { return server_->connections() == 1; }));
  Client third(port());
  ASSERT_TRUE(third.send(get("/a")));
  EXPECT_EQ(third.answer().status, 200);
}

TEST_F(HttpLimitsTest, CarriesHundredsOfStreamsAtOnce) {
  start();
  constexpr int kStreams = 300, kWrites = 20;
  std::vector<Client> clients;
  std::vector<std::shared_ptr<Reply>> replies;
  for (int i = 0; i < kStreams; ++i) {
    clients.emplace_back(port());
    ASSERT_TRUE(clients.back().send(get("/hold")));
  }
  for (int i = 0; i < kStreams; ++i) replies.push_back(held());
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&replies, t] {
      for (size_t i = t; i < replies.size(); i += 2) replies[i]->begin_stream({});
      for (int n = 0; n < kWrites; ++n)
        for (size_t i = t; i < replies.size(); i += 2) replies[i]->write("data: token\n\n");
      for (size_t i = t; i < replies.size(); i += 2) replies[i]->end();
    });
  for (std::thread& thread : threads) thread.join();
  for (Client& client : clients) EXPECT_EQ(client.answer().chunks.size(), size_t{kWrites});
}

TEST_F(HttpLimitsTest, RandomConnectionsLeaveNothingBehind) {
  HttpOptions options = quick_options();
  options.head_seconds = options.body_seconds = options.idle_seconds = 0.02;
  options.linger_seconds = 0.02;
  start(options);
  Random random(7);
  for (int i = 0; i < 100; ++i) {
    Client client(port());
    std::string bytes = post(random.below(2) == 0 ? "/stream" : "/echo", "body") + get("/drop");
    for (int n = 0; n < 2; ++n)
      bytes[random.below(bytes.size())] = static_cast<char>(random.next());
    client.send(bytes.substr(0, random.below(bytes.size() + 1)));
    if (random.below(2) == 0) client.reset();
  }
  EXPECT_TRUE(soon([this] { return server_->connections() == 0 && server_->drained(); }));
  Client client(port());
  ASSERT_TRUE(client.send(get("/a")));
  EXPECT_EQ(client.answer().status, 200);
}

}  // namespace
}  // namespace atom::testing
