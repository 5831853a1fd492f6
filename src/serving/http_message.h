// How heads and chunks of answers look on the wire, and which request ids are echoed.
#pragma once

#include <string>
#include <string_view>

#include "serving/http.h"

namespace atom::serving {

enum class Framing { kLength, kChunked, kUntilClose };

struct HeadOptions {
  Framing framing = Framing::kLength;
  bool close = false;
  std::string_view request_id = {};  // empty: none
};
// Status line and headers, with the empty line after them. Headers with control characters are left out.
std::string render_head(const HttpResponse& response, const HeadOptions& options);

std::string chunk(
    std::string_view bytes);  // of chunked coding; empty for no bytes, which would end the body
constexpr std::string_view kLastChunk = "0\r\n\r\n";

std::string_view reason_phrase(int status);
bool acceptable_request_id(std::string_view id);  // printable ASCII, 1 to 128 bytes
std::string draw_request_id();                    // "req-" and 32 hexadecimal digits
std::string http_date(int64_t seconds);           // of Unix time: "Sun, 06 Nov 1994 08:49:37 GMT"

}  // namespace atom::serving
