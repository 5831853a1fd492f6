// TLS: a certificate made here, clients of OpenSSL.
#include <openssl/ssl.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "serving/certificate.h"
#include "serving/http_fixture.h"

namespace atom::testing {
namespace {

using Context = std::unique_ptr<SSL_CTX, Freed<SSL_CTX_free>>;
using Session = std::unique_ptr<SSL, Freed<SSL_free>>;

class HttpTlsTest : public HttpFixture {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("tls-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    make_certificate(make_key(path("key.pem")).get(), path("certificate.pem"));
  }
  void TearDown() override {
    HttpFixture::TearDown();
    std::filesystem::remove_all(folder_);
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  HttpOptions options() const {
    HttpOptions options = quick_options();
    options.certificate_file = path("certificate.pem");
    options.key_file = path("key.pem");
    return options;
  }
  // A session on the client's socket; null where the handshake fails.
  Session connect(const Client& client, int most = TLS1_3_VERSION) {
    if (!context_) context_.reset(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_load_verify_locations(context_.get(), path("certificate.pem").c_str(), nullptr);
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_security_level(context_.get(), most < TLS1_2_VERSION ? 0 : 2);
    SSL_CTX_set_max_proto_version(context_.get(), most);
    Session session(SSL_new(context_.get()));
    SSL_set_fd(session.get(), client.file());
    return SSL_connect(session.get()) == 1 ? std::move(session) : nullptr;
  }
  static std::string exchange(SSL* session, const std::string& request, const std::string& end) {
    std::string input;
    SSL_write(session, request.data(), static_cast<int>(request.size()));
    char bytes[4096];
    while (input.find(end) == std::string::npos) {
      const int size = SSL_read(session, bytes, sizeof bytes);
      if (size <= 0) break;
      input.append(bytes, static_cast<size_t>(size));
    }
    return input;
  }

  std::filesystem::path folder_;
  Context context_;
};

TEST_F(HttpTlsTest, AnswersAndStreams) {
  start(options());
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const Client client(port());
    const Session session = connect(client, version);
    ASSERT_NE(session, nullptr);
    EXPECT_NE(exchange(session.get(), get("/stream"), "0\r\n\r\n").find("data: two\n\n"),
              std::string::npos);
    const std::string body(100000, 'x');  // more than one record
    EXPECT_NE(exchange(session.get(), post("/echo", body), body).find(body), std::string::npos);
    SSL_shutdown(session.get());
  }
  EXPECT_TRUE(soon([this] { return server_->connections() == 0; }));
}

TEST_F(HttpTlsTest, RefusesOldVersionsAndPlainText) {
  HttpOptions quick = options();
  quick.head_seconds = 0.05;
  start(quick);
  const Client old(port());
  EXPECT_EQ(connect(old, TLS1_1_VERSION), nullptr);
  Client plain(port()), silent(port());
  ASSERT_TRUE(plain.send(get("/a")));
  EXPECT_TRUE(plain.closed_by_server());
  EXPECT_TRUE(silent.closed_by_server());
}

TEST_F(HttpTlsTest, NoticesThatAClientHasLeft) {
  start(options());
  Client client(port());
  const Session session = connect(client);
  ASSERT_NE(session, nullptr);
  const std::string request = get("/hold");
  SSL_write(session.get(), request.data(), static_cast<int>(request.size()));
  const auto reply = held();
  reply->begin_stream({});
  client.close();
  EXPECT_TRUE(wait_for_gone(1));
}

TEST_F(HttpTlsTest, StopsWhileStreamsAreOpen) {
  start(options());
  const Client client(port());
  const Session session = connect(client);
  ASSERT_NE(session, nullptr);
  exchange(session.get(), get("/hold"), "");
  const auto reply = held();
  reply->begin_stream({});
  for (int i = 0; i < 100; ++i) reply->write("data: token\n\n");
  server_->stop();
  EXPECT_EQ(server_->connections(), 0);
  EXPECT_TRUE(wait_for_gone(1));
}

TEST_F(HttpTlsTest, TakesANewCertificateWhileConnectionsStay) {
  start(options());
  const Client old(port());
  const Session session = connect(old);
  ASSERT_NE(session, nullptr);
  const auto serial = [](SSL* of) {
    const Certificate certificate(SSL_get1_peer_certificate(of));
    return ASN1_INTEGER_get(X509_get0_serialNumber(certificate.get()));
  };
  const auto serial_of_new = [&] {
    const Client client(port());
    const Session fresh = connect(client);
    return fresh ? serial(fresh.get()) : 0;
  };
  std::filesystem::rename(path("key.pem"), path("old.pem"));
  EXPECT_THROW(server_->reload_certificate(), Error);
  EXPECT_EQ(serial_of_new(), 1);
  make_certificate(make_key(path("key.pem")).get(), path("certificate.pem"), 2);
  context_.reset();  // what it trusts
  server_->reload_certificate();
  EXPECT_EQ(serial_of_new(), 2);
  EXPECT_EQ(serial(session.get()), 1);
  EXPECT_NE(exchange(session.get(), get("/stream"), "0\r\n\r\n").find("data: two\n\n"),
            std::string::npos);
}

TEST_F(HttpTlsTest, NamesTheFileThatCannotBeUsed) {
  make_key(path("other.pem"));
  std::ofstream(path("text.pem")) << "text\n";
  const auto message = [this](const std::string& certificate,
                              const std::string& key) -> std::string {
    HttpOptions wrong = options();
    wrong.certificate_file = path(certificate);
    wrong.key_file = path(key);
    try {
      start(wrong);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_TRUE(message("none.pem", "key.pem").starts_with(path("none.pem") + ": "));
  EXPECT_TRUE(message("text.pem", "key.pem").starts_with(path("text.pem") + ": "));
  EXPECT_TRUE(message("certificate.pem", "text.pem").starts_with(path("text.pem") + ": "));
  EXPECT_TRUE(message("certificate.pem", "other.pem").starts_with(path("other.pem") + ": "));
}

}  // namespace
}  // namespace atom::testing
