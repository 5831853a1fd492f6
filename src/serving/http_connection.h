// One connection: a coroutine on the I/O thread that reads requests, hands them on, and sends what their exchanges hold.
//
// The coroutine waits in one place only (wait()), with a deadline; reads, writes and exchanges wake it. Reading goes on while
// an answer is made, so that a client that leaves is noticed.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>

#include "serving/http_exchange.h"
#include "serving/http_parser.h"
#include "serving/http_transport.h"

namespace atom::serving {

class Connection;

// Bytes of one body, as part of those of all bodies in memory; gives them back when it goes, on any thread.
class BodyCharge {
 public:
  BodyCharge(std::shared_ptr<std::atomic<size_t>> all, size_t most)
      : all_(std::move(all)), most_(most) {}
  ~BodyCharge() { *all_ -= bytes_; }
  BodyCharge(const BodyCharge&) = delete;
  BodyCharge& operator=(const BodyCharge&) = delete;

  // False: all bodies would be more than `most`; nothing has changed then.
  bool grow_to(size_t bytes) {
    if (bytes <= bytes_) return true;
    const size_t more = bytes - bytes_;
    if (all_->fetch_add(more) + more > most_) {
      *all_ -= more;
      return false;
    }
    bytes_ = bytes;
    return true;
  }

 private:
  const std::shared_ptr<std::atomic<size_t>> all_;
  const size_t most_;
  size_t bytes_ = 0;
};

// What connections share. Exchanges keep it alive, so that they can wake the I/O thread at any time.
struct HttpLoop {
  HttpOptions options;
  HttpHandlers handlers;
  std::unique_ptr<boost::asio::ssl::context>
      tls;  // null: plain; connections keep what they began with
  boost::asio::io_context context{1};
  std::atomic<bool> draining = false;
  std::atomic<int> connections = 0;
  std::atomic<int> requests = 0;  // from their first byte to the last of their answer
  const std::shared_ptr<std::atomic<size_t>> body_bytes =
      std::make_shared<std::atomic<size_t>>(0);          // of all bodies in memory
  std::unordered_set<std::shared_ptr<Connection>> open;  // of the I/O thread
};

// Counts a request that is under way.
class Counted {
 public:
  explicit Counted(std::atomic<int>& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<int>& count_;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<HttpLoop> loop, tcp::socket socket);
  ~Connection();
  // turned_away: answers that there are too many connections, and closes.
  boost::asio::awaitable<void> run(bool turned_away);
  void wake();  // of the I/O thread, as all here
  void cut();   // closes at once

 private:
  using Clock = std::chrono::steady_clock;

  boost::asio::awaitable<bool> open();
  boost::asio::awaitable<bool> wait(
      Clock::time_point deadline);  // false: it has passed, or the connection was closed
  boost::asio::awaitable<bool> next_request();  // false: no more
  boost::asio::awaitable<bool> read_part(RequestParser& parser, RequestParser::State part,
                                         double seconds, BodyCharge* charge = nullptr);
  std::optional<HttpResponse> admit(const RequestParser& parser) const;
  boost::asio::awaitable<bool> refuse(const RequestParser& parser, HttpResponse response);
  // Takes `charge` along with the request.
  boost::asio::awaitable<bool> answer(RequestParser& parser, std::shared_ptr<BodyCharge>& charge);
  boost::asio::awaitable<bool> send(std::string bytes, const Exchange* exchange = nullptr);
  boost::asio::awaitable<void> linger();
  void close();
  void start_read();
  void on_read(ErrorCode error, size_t size);
  std::shared_ptr<Exchange> make_exchange(const RequestParser& parser);

  const std::shared_ptr<HttpLoop> loop_;
  std::unique_ptr<Transport> transport_;
  std::string client_;
  boost::asio::steady_timer timer_;
  bool closed_ = false;            // the transport is
  bool reading_ = false;           // a read is under way
  bool end_of_input_ = false;      // the client sends no more, or the connection broke
  bool discard_ = false;           // what still comes is not looked at
  Exchange* answering_ = nullptr;  // of answer(), while it runs
  bool writing_ = false;
  ErrorCode write_error_;
  std::string out_;  // being sent
  std::string input_;
  size_t used_ = 0;  // bytes of input_ that were taken
  char buffer_[8192];
};

}  // namespace atom::serving
