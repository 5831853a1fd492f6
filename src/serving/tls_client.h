// The client's end of TLS 1.2 or 1.3 on a connected socket, by OpenSSL.
//
//   TlsClient tls(socket, {.host = "example.org", .authorities = ""}, idle);
//   tls.send(request);
//   const size_t size = tls.receive(bytes);
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_st SSL;

namespace atom::serving {

struct TlsNames {
  std::string host;         // whom the certificate has to name, or an IP address
  std::string authorities;  // PEM file of the certificates to trust; empty: the system's
};

class TlsClient {
 public:
  // Owns neither `socket`, which outlives it and gives up waiting after a while (SO_RCVTIMEO), nor what `idle` needs: asked
  // after each such wait, it throws to end it. Error: no such file, one without certificates, a handshake that fails, with
  // what is wrong with the certificate.
  TlsClient(int socket, const TlsNames& names, std::function<void()> idle);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  // Error: the connection broke.
  void send(std::string_view bytes);
  size_t receive(std::span<char> bytes);  // at least one byte; 0: the server ended the connection
  bool has_bytes() const;                 // received already, or the server's end

 private:
  void name_host(const std::string& host);
  template <typename Step>
  int wait_for(Step step);
  [[noreturn]] void fail_handshake() const;

  std::function<void()> idle_;
  std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context_;
  std::unique_ptr<SSL, void (*)(SSL*)> session_;
};

}  // namespace atom::serving
