// Bytes of one connection, plain or under TLS. Of the I/O thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>
#include <string_view>

namespace atom::serving {

using boost::asio::ip::tcp;
using ErrorCode = boost::system::error_code;
using IoHandler = std::function<void(ErrorCode, size_t)>;

// One read and one write (or open, or shut_down) may be under way at a time; buffers live until their handler was called.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual void open(std::function<void(ErrorCode)> handler) = 0;  // the handshake
  virtual void read(char* data, size_t size, IoHandler handler) = 0;
  virtual size_t write_now(std::string_view bytes,
                           ErrorCode& error) = 0;  // what can be sent without waiting
  virtual void write(std::string_view bytes, IoHandler handler) = 0;  // all of it
  virtual void shut_down(
      std::function<void(ErrorCode)> handler) = 0;  // says that nothing more will come
  virtual void close() = 0;                         // handlers get an error
};

std::unique_ptr<Transport> plain_transport(tcp::socket socket);
std::unique_ptr<Transport> tls_transport(tcp::socket socket, boost::asio::ssl::context& context);

// TLS 1.2 and newer. Error: names the file and what is wrong with it.
std::unique_ptr<boost::asio::ssl::context> make_tls_context(const std::string& certificate_file,
                                                            const std::string& key_file);

}  // namespace atom::serving
