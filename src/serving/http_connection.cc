#include "serving/http_connection.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/log.h"
#include "serving/http_message.h"

namespace atom::serving {
namespace {

namespace asio = boost::asio;
using asio::awaitable;

constexpr size_t kSendBytes = 256 << 10;  // of one write: its client has write_seconds for them

std::chrono::steady_clock::time_point after(double seconds) {
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<std::chrono::steady_clock::duration>(
             std::chrono::duration<double>(seconds));
}
constexpr auto kNever = std::chrono::steady_clock::time_point::max();

HttpResponse too_slow(const HttpLoop& loop, const std::string& part) {
  return loop.handlers.error(408, "the request's " + part + " took too long to arrive");
}

// Sets a pointer as long as it lives.
class Answering {
 public:
  Answering(Exchange*& place, Exchange* exchange) : place_(place) { place_ = exchange; }
  ~Answering() { place_ = nullptr; }
  Answering(const Answering&) = delete;
  Answering& operator=(const Answering&) = delete;

 private:
  Exchange*& place_;
};

}  // namespace

Connection::Connection(std::shared_ptr<HttpLoop> loop, tcp::socket socket)
    : loop_(std::move(loop)), timer_(loop_->context) {
  ErrorCode error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  if (!error) client_ = peer.address().to_string();
  socket.set_option(tcp::no_delay(true), error);
  transport_ = loop_->tls ? tls_transport(std::move(socket), *loop_->tls)
                          : plain_transport(std::move(socket));
  ++loop_->connections;
}

Connection::~Connection() { --loop_->connections; }

void Connection::wake() { timer_.cancel(); }

void Connection::close() {
  if (closed_) return;
  closed_ = true;
  transport_->close();
}

void Connection::cut() {
  close();
  wake();
}

// ---- Waiting -------------------------------------------------------------------------------------------------------

awaitable<bool> Connection::wait(Clock::time_point deadline) {
  if (closed_) co_return false;
  if (deadline <= Clock::now()) co_return false;
  timer_.expires_at(deadline);
  ErrorCode woken;
  co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, woken));
  co_return woken && !closed_;
}

void Connection::start_read() {
  if (reading_ || closed_ || end_of_input_) return;
  // Bytes of requests that wait for the answers before them are kept up to a bound. A client that sends more gets no
  // answers to them; they are read and dropped, since the end of the input, behind them, says that it has left.
  if (input_.size() - used_ > 2 * loop_->options.head_bytes) {
    if (answering_ == nullptr) return;  // they are about to be looked at
    answering_->close_after();
    discard_ = true;
    input_.clear();
    used_ = 0;
  }
  reading_ = true;
  transport_->read(
      buffer_, sizeof buffer_,
      [self = shared_from_this()](ErrorCode error, size_t size) { self->on_read(error, size); });
}

void Connection::on_read(ErrorCode error, size_t size) {
  reading_ = false;
  if (!discard_) {
    if (used_ == input_.size()) {
      input_.clear();
      used_ = 0;
    } else if (used_ > sizeof buffer_) {
      input_.erase(0, used_);
      used_ = 0;
    }
    input_.append(buffer_, size);
  }
  if (error) end_of_input_ = true;
  start_read();
  wake();
}

// ---- Sending -------------------------------------------------------------------------------------------------------

// False: the client does not take them in time, or has gone; the connection is closed then.
awaitable<bool> Connection::send(std::string bytes, const Exchange* exchange) {
  out_ = std::move(bytes);
  std::string_view rest = out_;
  while (!rest.empty()) {
    if (closed_) co_return false;
    const std::string_view part = rest.substr(0, kSendBytes);
    ErrorCode error;
    const size_t sent = transport_->write_now(part, error);
    if (!error && sent < part.size()) {
      writing_ = true;
      transport_->write(part.substr(sent), [self = shared_from_this()](ErrorCode result, size_t) {
        self->writing_ = false;
        self->write_error_ = result;
        self->wake();
      });
      const Clock::time_point deadline = after(loop_->options.write_seconds);
      bool in_time = true;
      // Looked for before each wait: a cut that came while others had a turn has woken nobody.
      while (writing_ && in_time)
        in_time = !(exchange && exchange->cut()) && co_await wait(deadline);
      if (!in_time) close();
      while (writing_) {  // its buffer is in use until then
        timer_.expires_at(kNever);
        ErrorCode ignored;
        co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      }
      error = write_error_;
    } else if (rest.size() > part.size()) {
      co_await asio::post(loop_->context, asio::use_awaitable);  // others have a turn
    }
    if (error) {
      close();
      co_return false;
    }
    rest.remove_prefix(part.size());
  }
  co_return !closed_;
}

// Says that nothing more will come, and gives the client time to read what was sent: closing with unread input would
// take it back.
awaitable<void> Connection::linger() {
  if (closed_) co_return;
  discard_ = true;
  input_.clear();
  used_ = 0;
  const Clock::time_point deadline = after(loop_->options.linger_seconds);
  bool said = false;
  transport_->shut_down([self = shared_from_this(), &said](ErrorCode) {
    said = true;
    self->wake();
  });
  start_read();
  bool in_time = true;
  while (in_time && (!said || !end_of_input_)) in_time = co_await wait(deadline);
  close();
  while (!said) {
    timer_.expires_at(kNever);
    ErrorCode ignored;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

// ---- Requests ------------------------------------------------------------------------------------------------------

awaitable<bool> Connection::open() {
  bool done = false;
  ErrorCode error;
  transport_->open([self = shared_from_this(), &done, &error](ErrorCode result) {
    done = true;
    error = result;
    self->wake();
  });
  const Clock::time_point deadline = after(loop_->options.head_seconds);
  bool in_time = true;
  while (!done && in_time) in_time = co_await wait(deadline);
  if (!done || error) close();
  while (!done) {
    timer_.expires_at(kNever);
    ErrorCode ignored;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  co_return !closed_;
}

awaitable<void> Connection::run(bool turned_away) {
  const auto self = shared_from_this();
  loop_->open.insert(self);
  try {
    if (co_await open()) {
      start_read();
      if (turned_away) {
        const HttpResponse response = loop_->handlers.error(503, "too many connections");
        co_await send(render_head(response, {.close = true}) + response.body);
      } else {
        while (co_await next_request()) {
        }
      }
      co_await linger();
    }
  } catch (const std::exception& error) {
    log_warning("a connection was closed: {}", error.what());
  }
  close();
  loop_->open.erase(self);
}

// Feeds the parser until `part` is over. False: the client has gone, or is too slow.
awaitable<bool> Connection::read_part(RequestParser& parser, RequestParser::State part,
                                      double seconds, BodyCharge* charge) {
  const Clock::time_point deadline = after(seconds);
  for (;;) {
    while (parser.state() == part) {
      const size_t size = parser.feed(std::string_view(input_).substr(used_));
      used_ += size;
      if (charge && parser.state() != RequestParser::State::kRefused &&
          !charge->grow_to(parser.body_memory()))
        parser.refuse(503, "the bodies of the requests under way leave no room for this one");
      if (size == 0) break;
    }
    if (parser.state() != part) co_return true;
    if (end_of_input_) co_return false;
    start_read();
    if (!co_await wait(deadline)) co_return false;
  }
}

awaitable<bool> Connection::next_request() {
  const Clock::time_point idle = after(loop_->options.idle_seconds);
  while (used_ == input_.size()) {
    if (end_of_input_ || loop_->draining) co_return false;
    start_read();
    if (!co_await wait(idle)) co_return false;
  }
  const Counted counted(loop_->requests);
  using State = RequestParser::State;
  const HttpOptions& options = loop_->options;
  auto charge = std::make_shared<BodyCharge>(loop_->body_bytes, options.all_body_bytes);
  RequestParser parser({.target_bytes = options.target_bytes,
                        .head_bytes = options.head_bytes,
                        .body_bytes = options.body_bytes},
                       client_);
  if (!co_await read_part(parser, State::kHead, loop_->options.head_seconds)) {
    if (!end_of_input_ && !closed_) co_await refuse(parser, too_slow(*loop_, "head"));
    co_return false;
  }
  if (parser.state() != State::kRefused) {
    const bool body_to_come = parser.state() == State::kBody;
    std::optional<HttpResponse> refusal = admit(parser);
    if (refusal) co_return co_await refuse(parser, std::move(*refusal)) && !body_to_come;
    if (body_to_come) {
      if (parser.wants_continue() && used_ == input_.size() &&
          !co_await send("HTTP/1.1 100 Continue\r\n\r\n"))
        co_return false;
      if (!co_await read_part(parser, State::kBody, options.body_seconds, charge.get())) {
        if (!end_of_input_ && !closed_) co_await refuse(parser, too_slow(*loop_, "body"));
        co_return false;
      }
    }
  }
  if (parser.state() == State::kRefused) {
    HttpResponse refusal = loop_->handlers.error(parser.status(), parser.message());
    if (parser.status() == 503) refusal.headers.emplace_back("Retry-After", "1");
    co_return co_await refuse(parser, std::move(refusal));
  }
  co_return co_await answer(parser, charge);
}

// A refusal from the head alone, or nothing.
std::optional<HttpResponse> Connection::admit(const RequestParser& parser) const {
  std::optional<HttpResponse> refusal = loop_->handlers.admit(parser.head());
  if (refusal) return refusal;
  const std::string& method = parser.head().method;
  if (method != "GET" && method != "POST") {
    refusal = loop_->handlers.error(405, "the method is not GET, HEAD or POST");
    refusal->headers.emplace_back("Allow", "GET, HEAD, POST");
  } else if (method == "GET" && parser.state() == RequestParser::State::kBody) {
    refusal = loop_->handlers.error(413, "a GET or HEAD request has a body");
  }
  return refusal;
}

std::shared_ptr<Exchange> Connection::make_exchange(const RequestParser& parser) {
  return std::make_shared<Exchange>(Exchange::Options{
      .request_id = parser.head().request_id.empty() ? draw_request_id() : parser.head().request_id,
      .head_only = parser.head_only(),
      .chunked = !parser.http_1_0(),
      .keep_alive = parser.keep_alive() && parser.state() == RequestParser::State::kDone,
      .queue_bytes = loop_->options.stream_queue_bytes,
      .closing = [loop = loop_] { return loop->draining.load(); },
      .wake =
          [loop = loop_, weak = weak_from_this()] {
            asio::post(loop->context, [weak] {
              if (const auto self = weak.lock()) self->wake();
            });
          },
      .error = loop_->handlers.error});
}

awaitable<bool> Connection::refuse(const RequestParser& parser, HttpResponse response) {
  const std::shared_ptr<Exchange> exchange = make_exchange(parser);
  exchange->send(std::move(response));
  co_return co_await send(exchange->take().bytes) && exchange->keep_alive();
}

awaitable<bool> Connection::answer(RequestParser& parser, std::shared_ptr<BodyCharge>& charge) {
  const std::shared_ptr<Exchange> exchange = make_exchange(parser);
  const Answering answering(answering_, exchange.get());
  start_read();  // it stops while too much waits and nothing is being answered
  try {
    HttpRequest request = parser.take_request();
    request.body_charge = std::move(charge);
    loop_->handlers.handle(std::move(request), make_reply(exchange));
  } catch (const std::exception& error) {  // the reply has gone with the call, and answers
    log_warning("a request failed: {}", error.what());
  }
  for (;;) {
    Exchange::Taken taken = exchange->take();
    if (taken.cut || closed_ || (!taken.ended && end_of_input_)) break;
    const bool news = !taken.bytes.empty();
    if (news && !co_await send(std::move(taken.bytes), exchange.get())) break;
    if (taken.ended) co_return exchange->keep_alive();
    if (!news) co_await wait(kNever);
  }
  close();
  exchange->leave();
  co_return false;
}

}  // namespace atom::serving
