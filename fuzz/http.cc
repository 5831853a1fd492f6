// Bytes of a connection: requests one after the other, read as a whole and cut at places that the bytes choose. The limits
// hold, and a request that is done does not depend on the cuts.
#include "fuzz/fuzz.h"
#include "serving/http_message.h"
#include "serving/http_parser.h"

namespace atom::fuzz {
namespace {

using serving::HttpRequest;
using serving::RequestParser;

constexpr RequestParser::Limits kHttpLimits = {
    .target_bytes = 64, .head_bytes = 256, .body_bytes = 64};

std::string shown(const HttpRequest& request) {
  const serving::HttpHead& head = request.head;
  check(serving::acceptable_request_id(head.request_id), "a request without an id");
  check(head.path.size() + head.query.size() <= kHttpLimits.target_bytes, "a long target");
  check(!head.path.empty() && head.path[0] == '/', "a target that is no path");
  check(request.body.size() <= kHttpLimits.body_bytes, "a long body");
  return fmt::format("{} {} {} {} {} {} {} {}\n", head.method, head.path, head.query, head.host,
                     head.authorization, head.content_type, head.origin, request.body);
}

// The requests until one is refused or not done. `step`: most bytes that come at a time.
std::string requests_of(std::string_view bytes, size_t step) {
  std::string result;
  for (bool more = true; more;) {
    RequestParser parser(kHttpLimits, "10.0.0.7");
    size_t at = 0, end = std::min(step, bytes.size());
    for (;;) {
      const size_t used = parser.feed(bytes.substr(at, end - at));
      check(used <= end - at, "more bytes are used than there are");
      at += used;
      const auto state = parser.state();
      if (state == RequestParser::State::kDone || state == RequestParser::State::kRefused) break;
      if (used > 0) continue;
      if (end == bytes.size()) break;
      end += std::min(step, bytes.size() - end);
    }
    more = parser.state() == RequestParser::State::kDone;
    if (parser.state() == RequestParser::State::kRefused)
      check(parser.status() >= 400 && !parser.message().empty(), "a refusal without a status");
    if (more) result += shown(parser.take_request());
    bytes.remove_prefix(at);
  }
  return result;
}

}  // namespace

void run_http(std::string_view bytes) {
  const size_t step = 1 + take_choice(bytes, 32);
  const std::string whole = requests_of(bytes, bytes.size());
  const std::string in_pieces = requests_of(bytes, step);
  if (whole != in_pieces)
    check(false, fmt::format("cuts make other requests:\n{}\n{}", whole, in_pieces));
}

}  // namespace atom::fuzz
