#include "event_reader.h"

#include "base/error.h"

namespace atom::app {
namespace {

constexpr size_t kMaxEvent = 1 << 24;  // bytes of one event

}  // namespace

void EventReader::operator()(std::string_view bytes) {
  rest_ += bytes;
  size_t begin = 0;
  for (size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1)
    line(std::string_view(rest_).substr(begin, end - begin));
  rest_.erase(0, begin);
  if (rest_.size() + data_.size() > kMaxEvent) fail("the server sent an event without an end");
}

void EventReader::line(std::string_view text) {
  if (text.ends_with('\r')) text.remove_suffix(1);
  if (text.empty()) {
    if (!data_.empty()) event_(data_);
    data_.clear();
  } else if (text.starts_with("data:")) {
    text.remove_prefix(text.starts_with("data: ") ? 6 : 5);
    data_.append(data_.empty() ? "" : "\n").append(text);
  }
}

}  // namespace atom::app
