#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "serving/http_connection.h"

namespace atom::serving {
namespace {

namespace asio = boost::asio;
using asio::awaitable;

constexpr int kTurnedAway = 64;  // that are told so at a time; more are closed without a word

void check_options(const HttpOptions& options, const HttpHandlers& handlers) {
  if (options.port < 0 || options.port > 65535)
    fail("port: {} is not from 0 to 65535", options.port);
  if (options.certificate_file.empty() != options.key_file.empty())
    fail("TLS needs a certificate and a key: the {} is missing",
         options.key_file.empty() ? "key" : "certificate");
  check(handlers.admit && handlers.handle && handlers.error, "a handler is missing");
}

tcp::endpoint resolve(asio::io_context& context, const HttpOptions& options) {
  tcp::resolver resolver(context);
  ErrorCode error;
  const auto results =
      resolver.resolve(options.host, std::to_string(options.port),
                       tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || results.empty())
    fail("cannot listen on {} port {}: the host has no address: {}", options.host, options.port,
         error.message());
  for (const auto& result : results)
    if (result.endpoint().address().is_v4()) return result.endpoint();
  return results.begin()->endpoint();
}

tcp::acceptor listen(asio::io_context& context, const HttpOptions& options) {
  const tcp::endpoint endpoint = resolve(context, options);
  tcp::acceptor acceptor(context);
  ErrorCode error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(1024, error);
  if (error) fail("cannot listen on {} port {}: {}", options.host, options.port, error.message());
  return acceptor;
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(HttpOptions options, HttpHandlers handlers)
      : loop_(make_loop(std::move(options), std::move(handlers))),
        acceptor_(listen(loop_->context, loop_->options)),
        retry_(loop_->context) {
    port_ = acceptor_.local_endpoint().port();
    asio::co_spawn(loop_->context, accept(), asio::detached);
    thread_ = std::thread([this] { run(); });
  }
  ~Impl() { stop(); }

  int port() const { return port_; }
  int connections() const { return loop_->connections; }
  bool drained() const { return loop_->requests == 0; }

  void drain() {
    loop_->draining = true;
    asio::post(loop_->context, [this] {
      stop_accepting();
      for (const auto& connection : loop_->open) connection->wake();
    });
  }

  void reload_certificate() {
    const HttpOptions& options = loop_->options;
    if (options.certificate_file.empty()) return;
    auto tls = make_tls_context(options.certificate_file, options.key_file);
    asio::post(loop_->context, [this, tls = std::move(tls)]() mutable { loop_->tls.swap(tls); });
  }

  void stop() {
    if (!thread_.joinable()) return;
    loop_->draining = true;
    asio::post(loop_->context, [this] {
      stopping_ = true;
      stop_accepting();
      for (const auto& connection : loop_->open) connection->cut();
    });
    thread_.join();
  }

 private:
  static std::shared_ptr<HttpLoop> make_loop(HttpOptions options, HttpHandlers handlers) {
    check_options(options, handlers);
    auto loop = std::make_shared<HttpLoop>();
    loop->options = std::move(options);
    loop->handlers = std::move(handlers);
    if (!loop->options.certificate_file.empty())
      loop->tls = make_tls_context(loop->options.certificate_file, loop->options.key_file);
    return loop;
  }

  void run() {
    for (;;) {  // until the last connection has gone after stop() or drain()
      try {
        loop_->context.run();
        return;
      } catch (const std::exception& error) {
        log_warning("the I/O thread goes on after: {}", error.what());
      }
    }
  }

  void stop_accepting() {
    ErrorCode ignored;
    acceptor_.close(ignored);
    retry_.cancel();
  }

  awaitable<void> accept() {
    while (acceptor_.is_open()) {
      std::string problem;
      try {  // one that is not accepted now waits in the system's queue
        auto [error, socket] = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
        if (!error)
          admit(std::move(socket));
        else if (error != asio::error::connection_aborted)
          problem = error.message();
      } catch (const std::exception& failed) {
        problem = failed.what();
      }
      if (!acceptor_.is_open()) co_return;
      if (problem.empty()) {
        if (refusals_ > 0) log_info("connections are accepted again, after {} attempts", refusals_);
        refusals_ = 0;
        continue;
      }
      // No descriptors or memory at present. Said at the 1st, 2nd, 4th, ... attempt: there are ten a second.
      ++refusals_;
      if ((refusals_ & (refusals_ - 1)) == 0)
        log_warning("no connection is accepted, after {} attempts: {}", refusals_, problem);
      retry_.expires_after(std::chrono::milliseconds(100));
      co_await retry_.async_wait(asio::as_tuple(asio::use_awaitable));
    }
  }

  void admit(tcp::socket socket) {
    const int open = loop_->connections;
    const int most = loop_->options.max_connections;
    if (stopping_ || open >= most + kTurnedAway) return;  // closes
    const auto connection = std::make_shared<Connection>(loop_, std::move(socket));
    asio::co_spawn(loop_->context, connection->run(open >= most), asio::detached);
  }

  const std::shared_ptr<HttpLoop> loop_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  int port_ = 0;
  bool stopping_ = false;  // of the I/O thread, as the next
  int64_t refusals_ = 0;   // attempts to accept that failed, since the last that did not
  std::thread thread_;
};

HttpServer::HttpServer(HttpOptions options, HttpHandlers handlers)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(handlers))) {}
HttpServer::~HttpServer() = default;
int HttpServer::port() const { return impl_->port(); }
void HttpServer::drain() { impl_->drain(); }
bool HttpServer::drained() const { return impl_->drained(); }
int HttpServer::connections() const { return impl_->connections(); }
void HttpServer::reload_certificate() { impl_->reload_certificate(); }
void HttpServer::stop() { impl_->stop(); }

}  // namespace atom::serving
