#include "serving/access.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"

namespace atom::serving {
namespace {

constexpr uint64_t kKeyFileBytes = 1 << 20;

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

// "LocalHost.:8000" -> "localhost", "[::1]:8000" -> "::1"; empty where it is neither a name nor an address.
std::string host_name(std::string_view host) {
  std::string_view port;
  if (!host.empty() && host.front() == '[') {
    const size_t end = host.find(']');
    if (end == std::string_view::npos) return {};
    port = host.substr(end + 1);
    host = host.substr(1, end - 1);
  } else if (const size_t colon = host.find(':'); colon != std::string_view::npos) {
    port = host.substr(colon);
    host = host.substr(0, colon);
  }
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (!port.empty() && (port[0] != ':' || !std::all_of(port.begin() + 1, port.end(), is_digit)))
    return {};
  if (host.size() > 1 && host.back() == '.') host.remove_suffix(1);
  return lower(host);
}

bool is_v4(const std::string& host) {
  in_addr address;
  return ::inet_pton(AF_INET, host.c_str(), &address) == 1;
}
bool is_v6(const std::string& host) {
  in6_addr address;
  return ::inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

std::array<unsigned char, 32> hash(std::string_view text) {
  std::array<unsigned char, 32> result;
  ::SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), result.data());
  return result;
}

}  // namespace

Access::Access(const AccessOptions& options, ErrorBody error)
    : open_paths_(options.open_paths), error_(std::move(error)) {
  replace_keys(options.keys);
  hosts_ = {"localhost", lower(options.host)};
  for (const std::string& host : options.allowed_hosts) {
    any_host_ = any_host_ || host == "*";
    hosts_.push_back(lower(host));
  }
}

void Access::replace_keys(const std::vector<std::string>& keys) {
  std::vector<Hash> hashes(keys.size());
  std::transform(keys.begin(), keys.end(), hashes.begin(), hash);
  const std::lock_guard lock(mutex_);
  if (hashes.empty() && !keys_.empty()) fail("no key would be left");
  keys_ = std::move(hashes);
}

// Addresses need no list: only a name can be rebound.
bool Access::host_allowed(std::string_view host) const {
  if (any_host_) return true;
  const std::string name = host_name(host);
  return !name.empty() && (is_v4(name) || is_v6(name) ||
                           std::find(hosts_.begin(), hosts_.end(), name) != hosts_.end());
}

// Every key is compared, and every byte: the time tells nothing.
bool Access::key_allowed(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  if (lower(authorization.substr(0, kScheme.size())) != kScheme) return false;
  authorization.remove_prefix(kScheme.size());
  const size_t first = authorization.find_first_not_of(' ');
  authorization.remove_prefix(std::min(first, authorization.size()));
  const Hash given = hash(authorization);
  int found = 0;
  for (const Hash& key : keys_)
    found |= static_cast<int>(::CRYPTO_memcmp(key.data(), given.data(), key.size()) == 0);
  return found != 0;
}

std::optional<HttpResponse> Access::check(const HttpHead& head) const {
  if (!host_allowed(head.host) && !head.host.empty())  // HTTP/1.0 may be without; browsers are not
    return error_(
        403, "the Host header names a host that this server is not known by (see --allowed-hosts)");
  const bool open =  // HEAD is shown as GET
      head.method == "GET" &&
      std::find(open_paths_.begin(), open_paths_.end(), head.path) != open_paths_.end();
  const std::lock_guard lock(mutex_);
  if (keys_.empty() || open) return std::nullopt;
  if (key_allowed(head.authorization)) return std::nullopt;
  HttpResponse refusal =
      error_(401, head.authorization.empty() ? "an API key is required: Authorization: Bearer KEY"
                                             : "the API key is not one of this server's");
  refusal.headers.emplace_back("WWW-Authenticate", "Bearer");
  return refusal;
}

void check_key(const std::string& key, const std::string& where) {
  if (key.empty()) fail("{}: the key is empty", where);
  if (!std::all_of(key.begin(), key.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; }))
    fail("{}: the key has characters other than printable ASCII without spaces", where);
}

std::vector<std::string> read_key_file(const std::string& path) {
  const std::string text = read_file(path, kKeyFileBytes);
  std::vector<std::string> keys;
  int number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    const size_t last = line.find_last_not_of(" \t\r");
    line.resize(last == std::string::npos ? 0 : last + 1);
    line.erase(0, std::min(line.find_first_not_of(" \t"), line.size()));
    if (line.empty() || line[0] == '#') continue;
    check_key(line, fmt::format("{}:{}", path, number));
    keys.push_back(std::move(line));
  }
  if (keys.empty()) fail("{}: the file has no key", path);
  return keys;
}

bool is_loopback(std::string_view host) {
  const std::string name = lower(host);
  return name == "localhost" || name == "::1" || (name.starts_with("127.") && is_v4(name));
}

void check_exposure(std::string_view host, bool has_keys, bool insecure) {
  if (is_loopback(host) || has_keys || insecure) return;
  fail(
      "--host: {} can be reached from other machines, so a key is needed (--api-key-file FILE, "
      "--api-key KEY); "
      "--insecure serves whoever asks",
      host);
}

}  // namespace atom::serving
