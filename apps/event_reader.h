// Cuts bytes into server-sent events: lines "data: ..." up to an empty line; other lines are ignored.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace atom::app {

class EventReader {
 public:
  // `event` gets the data of each event, as soon as the event has ended.
  explicit EventReader(std::function<void(std::string_view data)> event)
      : event_(std::move(event)) {}

  void operator()(std::string_view bytes);  // Error: an event of more than 16 MiB

 private:
  void line(std::string_view text);

  std::function<void(std::string_view)> event_;
  std::string rest_, data_;
};

}  // namespace atom::app
