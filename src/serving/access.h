// Who may ask: keys, and the names under which the server may be asked for.
//
//   const Access access({.keys = {"secret"}, .host = "127.0.0.1"}, error);
//   if (std::optional<HttpResponse> refusal = access.check(head)) ...       // 401, 403
//
// Without CORS: no answer carries an Access-Control header, so pages of other origins cannot read one. A page whose name
// was rebound to this machine's address could; the Host check refuses it, since its requests carry its own name.
#pragma once

#include <array>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/http.h"

namespace atom::serving {

struct AccessOptions {
  std::vector<std::string> keys;   // any of them opens every route; none: no key is asked for
  std::string host = "127.0.0.1";  // that the server listens on
  std::vector<std::string>
      allowed_hosts;  // names besides localhost, `host`, and addresses; "*": any
  std::vector<std::string> open_paths = {"/health", "/v1/health", "/ready", "/ping",
                                         "/live"};  // whose GET and HEAD need no key
};

class Access {
 public:
  using ErrorBody = std::function<HttpResponse(int status, const std::string& message)>;
  Access(const AccessOptions& options, ErrorBody error);

  // A refusal, or nothing. Looks at the head alone, so it comes before the body.
  std::optional<HttpResponse> check(const HttpHead& head) const;
  // Others from now on, on any thread; connections stay. Error: none, where there were some.
  void replace_keys(const std::vector<std::string>& keys);

 private:
  using Hash = std::array<unsigned char, 32>;
  bool host_allowed(std::string_view host) const;
  bool key_allowed(std::string_view authorization) const;

  mutable std::mutex mutex_;        // of keys_
  std::vector<Hash> keys_;          // SHA-256
  std::vector<std::string> hosts_;  // lower case
  std::vector<std::string> open_paths_;
  bool any_host_ = false;
  ErrorBody error_;
};

// One key a line; empty lines and lines that begin with # are skipped. Error: unreadable, no key, a key with spaces or
// characters beyond printable ASCII; names the line, never the key.
std::vector<std::string> read_key_file(const std::string& path);
void check_key(const std::string& key, const std::string& where);  // Error, begins with `where`

bool is_loopback(std::string_view host);  // localhost, 127.0.0.0/8, ::1
// Error: others can reach the host, and neither a key nor `insecure` is given.
void check_exposure(std::string_view host, bool has_keys, bool insecure);

}  // namespace atom::serving
