#include "serving/http_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/parser.hpp>

#include "serving/http_message.h"

namespace atom::serving {
namespace {

namespace http = boost::beast::http;
using boost::beast::error_code;

std::string copied(boost::beast::string_view view) { return std::string(view.data(), view.size()); }

bool equal_words(std::string_view a, std::string_view b) {
  return boost::beast::iequals({a.data(), a.size()}, {b.data(), b.size()});
}

}  // namespace

// A string that grows with the bytes that come: a length that is only claimed takes no memory.
struct GrowingBody {
  using value_type = std::string;
  class reader {  // NOLINT(readability-identifier-naming): the library's name
   public:
    template <bool kRequest, class Fields>
    reader(http::header<kRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<uint64_t>&, error_code& error) { error = {}; }
    template <class Buffers>
    size_t put(const Buffers& buffers, error_code& error) {
      error = {};
      size_t size = 0;
      for (auto at = boost::asio::buffer_sequence_begin(buffers);
           at != boost::asio::buffer_sequence_end(buffers); ++at) {
        const boost::asio::const_buffer buffer = *at;
        body_.append(static_cast<const char*>(buffer.data()), buffer.size());
        size += buffer.size();
      }
      return size;
    }
    void finish(error_code& error) { error = {}; }

   private:
    value_type& body_;
  };
};

struct RequestParser::Impl {
  http::request_parser<GrowingBody> parser;
};

RequestParser::RequestParser(const Limits& limits, std::string client)
    : limits_(limits), impl_(std::make_unique<Impl>()) {
  request_.head.client = std::move(client);
  // Looked at here: the library counts a head differently where it comes in pieces, and bodies have their own answer.
  impl_->parser.header_limit(std::numeric_limits<uint32_t>::max());
  impl_->parser.body_limit(boost::none);
}
RequestParser::~RequestParser() = default;

size_t RequestParser::body_memory() const {
  return impl_->parser.get().body().capacity() + request_.body.capacity();
}

void RequestParser::refuse(int status, std::string message) {
  state_ = State::kRefused;
  status_ = status;
  message_ = std::move(message);
  keep_alive_ = false;
}

void RequestParser::refuse_bytes(std::string_view bytes, const std::string& cause) {
  refuse(400, "the request is not HTTP/1.1: " + cause);
  // A TLS client on a plain port.
  if (bytes.size() >= 2 && bytes[0] == 0x16 && bytes[1] == 0x03)
    message_ = "this port speaks HTTP, not HTTPS";
}

void RequestParser::refuse_long_head(bool is_target) {
  if (is_target)
    refuse(414, fmt::format("the request's target is longer than {} bytes", limits_.target_bytes));
  else
    refuse(431, fmt::format("the request's headers are longer than {} bytes", limits_.head_bytes));
}

size_t RequestParser::feed(std::string_view bytes) {
  if (state_ == State::kDone || state_ == State::kRefused || bytes.empty()) return 0;
  error_code error;
  const bool in_head = state_ == State::kHead;
  // The library asserts that it sees no less of a last chunk than "0\r\n\r\n" once it has read its size.
  constexpr size_t kLastChunk = 5;
  if (chunked_ && bytes.size() < kLastChunk) {
    const size_t size_at = bytes.substr(0, 2) == "\r\n" ? 2 : 0;
    if (size_at >= bytes.size() || bytes[size_at] == '0') return 0;
  }
  if (in_head && !begun_) {  // RFC 9112 2.2: empty lines before a request are skipped
    const size_t first = bytes.find_first_not_of("\r\n");
    if (first != 0) return std::min(first, bytes.size());
  }
  const bool in_line = in_head && !begun_;  // the parser takes the request line as a whole
  const size_t body = impl_->parser.get().body().size();
  const size_t used = impl_->parser.put(boost::asio::buffer(bytes.data(), bytes.size()), error);
  begun_ = begun_ || used > 0;
  if (in_head) {
    head_bytes_ += used;
    const bool done = impl_->parser.is_header_done();
    if (head_bytes_ + (done ? 0 : bytes.size() - used) > limits_.head_bytes) {
      const bool is_target = done
                                 ? impl_->parser.get().target().size() > limits_.target_bytes
                                 : in_line && used == 0 && bytes.find('\n') >= limits_.target_bytes;
      refuse_long_head(is_target);
      return used;
    }
  }
  if (error == http::error::need_more) {
    error = {};
    if (!in_head && bytes.size() - used >= limits_.head_bytes) error = http::error::bad_chunk;
  } else if (!error && !in_head &&
             used - (impl_->parser.get().body().size() - body) >= limits_.head_bytes) {
    error = http::error::bad_chunk;  // extensions and trailers, which nobody reads
  }
  if (error) {
    refuse_bytes(bytes, error.message());
    return used;
  }
  if (in_head && impl_->parser.is_header_done()) read_head();
  if (state_ == State::kBody) {
    if (impl_->parser.get().body().size() > limits_.body_bytes)
      refuse(413, fmt::format("the request's body is longer than {} bytes", limits_.body_bytes));
    else if (impl_->parser.is_done() && !in_head)
      state_ = State::kDone;
  }
  if (state_ == State::kDone) request_.body = std::move(impl_->parser.get().body());
  return used;
}

void RequestParser::read_head() {
  const auto& message = impl_->parser.get();
  const auto field = [&message](http::field name) { return copied(message[name]); };
  HttpHead& head = request_.head;
  head.request_id = copied(message["x-request-id"]);
  if (!acceptable_request_id(head.request_id)) head.request_id = draw_request_id();
  state_ = State::kBody;
  http_1_0_ = message.version() == 10;
  keep_alive_ = message.keep_alive();
  head.method = copied(message.method_string());
  head_only_ = head.method == "HEAD";
  if (head_only_) head.method = "GET";
  head.host = field(http::field::host);
  head.authorization = field(http::field::authorization);
  head.content_type = field(http::field::content_type);
  head.origin = field(http::field::origin);
  const std::string target = copied(message.target());
  const size_t mark = target.find('?');
  head.path = target.substr(0, mark);
  if (mark != std::string::npos) head.query = target.substr(mark + 1);

  if (message.version() != 10 && message.version() != 11)
    return refuse(400, "the version is not HTTP/1.1 or HTTP/1.0");
  if (target.size() > limits_.target_bytes) return refuse_long_head(true);
  if (target.empty() || target[0] != '/') return refuse(400, "the request's target is not a path");
  if (message.count(http::field::host) > 1 || (!http_1_0_ && message.count(http::field::host) == 0))
    return refuse(400, "the request has not exactly one Host header");
  for (const http::field name :
       {http::field::authorization, http::field::content_type, http::field::content_length})
    if (message.count(name) > 1)
      return refuse(400,
                    fmt::format("the request has two {} headers", copied(http::to_string(name))));
  const std::string coding = field(http::field::transfer_encoding);
  const bool coded = message.count(http::field::transfer_encoding) > 0;
  if (coded && (http_1_0_ || !equal_words(coding, "chunked") ||
                message.count(http::field::content_length) > 0))
    return refuse(400,
                  "Transfer-Encoding is not chunked alone, without a Content-Length, in HTTP/1.1");
  const std::string encoding = field(http::field::content_encoding);
  if (!encoding.empty() && !equal_words(encoding, "identity"))
    return refuse(415, "Content-Encoding is not identity");
  const boost::optional<uint64_t> declared = impl_->parser.content_length();
  chunked_ = coded;
  has_body_ = coded || declared.value_or(0) > 0;
  if (declared.value_or(0) > limits_.body_bytes)
    return refuse(413, fmt::format("the request's body of {} bytes is longer than {}", *declared,
                                   limits_.body_bytes));
  const std::string expect = field(http::field::expect);
  wants_continue_ = equal_words(expect, "100-continue") && !http_1_0_ && has_body_;
  if (!expect.empty() && !equal_words(expect, "100-continue"))
    return refuse(417, "Expect is not 100-continue");
  if (!has_body_) state_ = State::kDone;
}

}  // namespace atom::serving
