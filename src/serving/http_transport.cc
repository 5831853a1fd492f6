#include "serving/http_transport.h"

#include <openssl/ssl.h>

#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>

#include "base/error.h"

namespace atom::serving {
namespace {

namespace asio = boost::asio;

void close_socket(tcp::socket& socket) {
  ErrorCode ignored;
  socket.close(ignored);
}

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(tcp::socket socket) : socket_(std::move(socket)) {
    ErrorCode ignored;
    socket_.non_blocking(true, ignored);
  }
  void open(std::function<void(ErrorCode)> handler) override {
    asio::post(socket_.get_executor(), [handler = std::move(handler)] { handler({}); });
  }
  void read(char* data, size_t size, IoHandler handler) override {
    socket_.async_read_some(asio::buffer(data, size), std::move(handler));
  }
  size_t write_now(std::string_view bytes, ErrorCode& error) override {
    const size_t size = socket_.write_some(asio::buffer(bytes), error);
    if (error == asio::error::would_block || error == asio::error::try_again) error = {};
    return size;
  }
  void write(std::string_view bytes, IoHandler handler) override {
    asio::async_write(socket_, asio::buffer(bytes), std::move(handler));
  }
  void shut_down(std::function<void(ErrorCode)> handler) override {
    ErrorCode error;
    socket_.shutdown(tcp::socket::shutdown_send, error);
    asio::post(socket_.get_executor(), [handler = std::move(handler), error] { handler(error); });
  }
  void close() override { close_socket(socket_); }

 private:
  tcp::socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(tcp::socket socket, asio::ssl::context& context)
      : stream_(std::move(socket), context) {}
  void open(std::function<void(ErrorCode)> handler) override {
    stream_.async_handshake(asio::ssl::stream_base::server, std::move(handler));
  }
  void read(char* data, size_t size, IoHandler handler) override {
    stream_.async_read_some(asio::buffer(data, size), std::move(handler));
  }
  size_t write_now(std::string_view, ErrorCode&) override { return 0; }
  void write(std::string_view bytes, IoHandler handler) override {
    asio::async_write(stream_, asio::buffer(bytes), std::move(handler));
  }
  void shut_down(std::function<void(ErrorCode)> handler) override {
    stream_.async_shutdown(std::move(handler));
  }
  void close() override { close_socket(stream_.next_layer()); }

 private:
  asio::ssl::stream<tcp::socket> stream_;
};

}  // namespace

std::unique_ptr<Transport> plain_transport(tcp::socket socket) {
  return std::make_unique<PlainTransport>(std::move(socket));
}

std::unique_ptr<Transport> tls_transport(tcp::socket socket, asio::ssl::context& context) {
  return std::make_unique<TlsTransport>(std::move(socket), context);
}

std::unique_ptr<asio::ssl::context> make_tls_context(const std::string& certificate_file,
                                                     const std::string& key_file) {
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  ::SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  ErrorCode error;
  context->use_certificate_chain_file(certificate_file, error);
  if (error) fail("{}: no certificate in PEM can be read: {}", certificate_file, error.message());
  context->use_private_key_file(key_file, asio::ssl::context::pem, error);
  if (error)
    fail("{}: no key in PEM that fits the certificate can be read: {}", key_file, error.message());
  if (::SSL_CTX_check_private_key(context->native_handle()) != 1)
    fail("{}: the key does not belong to the certificate in {}", key_file, certificate_file);
  return context;
}

}  // namespace atom::serving
