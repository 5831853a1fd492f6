// Keys, host names, and which addresses may be served without a key.
#include "serving/access.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/error.h"

namespace atom::testing {
namespace {

using namespace serving;  // NOLINT

HttpResponse bare_error(int status, const std::string& message) {
  return {.status = status, .body = message};
}

int status_of(const Access& access, HttpHead head) {
  if (head.host.empty()) head.host = "localhost:8000";
  if (head.method.empty()) head.method = "GET";
  const std::optional<HttpResponse> refusal = access.check(head);
  return refusal ? refusal->status : 200;
}

TEST(AccessTest, AnyOfTheKeysOpensEveryRouteAndOnlyHealthIsOpen) {
  const Access access({.keys = {"first", "second"}}, bare_error);
  for (const char* path :
       {"/", "/v1/models", "/tokenize", "/metrics", "/version", "/health/", "/healthy"}) {
    EXPECT_EQ(status_of(access, {.path = path}), 401) << path;
    EXPECT_EQ(status_of(access, {.path = path, .authorization = "Bearer first"}), 200) << path;
    EXPECT_EQ(status_of(access, {.path = path, .authorization = "bEARER   second"}), 200) << path;
  }
  for (const char* path : {"/health", "/v1/health", "/ready", "/ping", "/live"})
    EXPECT_EQ(status_of(access, {.path = path}), 200) << path;
  for (const char* method : {"POST", "PUT", "OPTIONS", "get"})
    EXPECT_EQ(status_of(access, {.method = method, .path = "/health"}), 401) << method;
  for (const char* wrong : {"first", "Bearer", "Bearer ", "Bearer firs", "Bearer firstt",
                            "Bearer First", "Basic first", "Bearer first,second", "Bearerfirst"})
    EXPECT_EQ(status_of(access, {.path = "/", .authorization = wrong}), 401) << wrong;
  EXPECT_EQ(access.check({.path = "/", .host = "localhost"})->headers[0].second, "Bearer");
}

TEST(AccessTest, KeysAreReplacedWhileOthersAsk) {
  Access access({.keys = {"old"}}, bare_error);
  std::jthread other([&access](const std::stop_token& stop) {
    while (!stop.stop_requested())
      EXPECT_EQ(status_of(access, {.path = "/", .authorization = "Bearer none"}), 401);
  });
  access.replace_keys({"new", "newer"});
  EXPECT_EQ(status_of(access, {.path = "/", .authorization = "Bearer old"}), 401);
  EXPECT_EQ(status_of(access, {.path = "/", .authorization = "Bearer newer"}), 200);
  EXPECT_THROW(access.replace_keys({}), Error);
  EXPECT_EQ(status_of(access, {.path = "/", .authorization = "Bearer new"}), 200);
  EXPECT_EQ(status_of(access, {.path = "/"}), 401);
}

TEST(AccessTest, WithoutKeysEverybodyMayAsk) {
  const Access access({}, bare_error);
  EXPECT_EQ(status_of(access, {.path = "/v1/models", .authorization = "Bearer none"}), 200);
}

TEST(AccessTest, NamesThatThisServerIsNotKnownByAreRefused) {
  const Access access({.host = "Gpu1.lan", .allowed_hosts = {"api.Example.org"}}, bare_error);
  for (const char* host : {"localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:1", "10.1.2.3",
                           "[::1]:8000", "[fe80::1]", "gpu1.lan:80", "api.example.org"})
    EXPECT_EQ(status_of(access, {.path = "/", .host = host}), 200) << host;
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                           "evil.example:localhost", "127.1", "localhost:80:80", "[localhost",
                           "[::1]x", ":80", "a@localhost"})
    EXPECT_EQ(status_of(access, {.path = "/health", .host = host}), 403) << host;
  EXPECT_EQ(status_of(Access({.allowed_hosts = {"*"}}, bare_error),
                      {.path = "/", .host = "evil.example"}),
            200);
}

TEST(AccessTest, OtherMachinesNeedAKeyOrAWord) {
  for (const char* host : {"localhost", "127.0.0.1", "127.9.9.9", "::1"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
    EXPECT_NO_THROW(check_exposure(host, false, false)) << host;
  }
  for (const char* host :
       {"0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example.org", "example.org", ""}) {
    EXPECT_FALSE(is_loopback(host)) << host;
    EXPECT_THROW(check_exposure(host, false, false), Error) << host;
    EXPECT_NO_THROW(check_exposure(host, true, false)) << host;
    EXPECT_NO_THROW(check_exposure(host, false, true)) << host;
  }
}

TEST(AccessTest, ReadsKeyFiles) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("keys-" + std::to_string(::getpid()))).string();
  const auto read = [&path](const std::string& text) {
    std::ofstream(path) << text;
    return read_key_file(path);
  };
  EXPECT_EQ(read("# of the team\nfirst\r\n\n  second \nthird"),
            (std::vector<std::string>{"first", "second", "third"}));
  const auto message = [&](const std::string& text) -> std::string {
    try {
      read(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message("# nothing\n"), path + ": the file has no key");
  EXPECT_EQ(message("ok\nwith space\n"),
            path + ":2: the key has characters other than printable ASCII without spaces");
  std::filesystem::remove(path);
  EXPECT_THROW(read_key_file(path), Error);
}

}  // namespace
}  // namespace atom::testing
