#include "serving/tls_client.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <utility>

#include "base/error.h"

namespace atom::serving {
namespace {

// The newest error of this thread in OpenSSL's words; the others are dropped.
std::string tls_error() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason == nullptr ? "the connection broke" : reason;
}

}  // namespace

TlsClient::TlsClient(int socket, const TlsNames& names, std::function<void()> idle)
    : idle_(std::move(idle)),
      context_(SSL_CTX_new(TLS_client_method()), SSL_CTX_free),
      session_(nullptr, SSL_free) {
  ERR_clear_error();
  if (context_ == nullptr) fail("TLS cannot begin: {}", tls_error());
  SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
  SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
  // A server that closes without a word of TLS ends an answer of a known length all the same.
  SSL_CTX_set_options(context_.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (names.authorities.empty())
    SSL_CTX_set_default_verify_paths(context_.get());
  else if (SSL_CTX_load_verify_file(context_.get(), names.authorities.c_str()) != 1)
    fail("{}: cannot read certificates: {}", names.authorities, tls_error());
  session_.reset(SSL_new(context_.get()));
  if (session_ == nullptr || SSL_set_fd(session_.get(), socket) != 1)
    fail("TLS cannot begin: {}", tls_error());
  name_host(names.host);
  if (wait_for([&] { return SSL_connect(session_.get()); }) != 1) fail_handshake();
}

TlsClient::~TlsClient() = default;

void TlsClient::name_host(const std::string& host) {
  X509_VERIFY_PARAM* rules = SSL_get0_param(session_.get());
  if (X509_VERIFY_PARAM_set1_ip_asc(rules, host.c_str()) == 1) return;
  ERR_clear_error();
  if (SSL_set1_host(session_.get(), host.c_str()) != 1 ||
      SSL_set_tlsext_host_name(session_.get(), host.c_str()) != 1)
    fail("TLS cannot ask for the server '{}': {}", host, tls_error());
}

void TlsClient::fail_handshake() const {
  const long verified = SSL_get_verify_result(session_.get());
  if (verified != X509_V_OK) {
    ERR_clear_error();
    fail("the server's certificate is not accepted: {}", X509_verify_cert_error_string(verified));
  }
  fail("the server does not speak TLS: {}", tls_error());
}

// A step that waits for the socket is taken again after `idle_`.
template <typename Step>
int TlsClient::wait_for(Step step) {
  for (;;) {
    ERR_clear_error();
    const int result = step();
    if (result > 0) return result;
    const int why = SSL_get_error(session_.get(), result);
    if (why == SSL_ERROR_ZERO_RETURN) return 0;
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) return -1;
    idle_();
  }
}

void TlsClient::send(std::string_view bytes) {
  size_t sent = 0;
  if (wait_for([&] { return SSL_write_ex(session_.get(), bytes.data(), bytes.size(), &sent); }) !=
      1)
    fail("cannot send by TLS: {}", tls_error());
}

size_t TlsClient::receive(std::span<char> bytes) {
  size_t size = 0;
  const int result =
      wait_for([&] { return SSL_read_ex(session_.get(), bytes.data(), bytes.size(), &size); });
  if (result < 0) fail("the connection broke: {}", tls_error());
  return result == 0 ? 0 : size;
}

bool TlsClient::has_bytes() const {
  return SSL_has_pending(session_.get()) == 1 ||
         (SSL_get_shutdown(session_.get()) & SSL_RECEIVED_SHUTDOWN) != 0;
}

}  // namespace atom::serving
