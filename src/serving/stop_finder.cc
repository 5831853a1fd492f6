#include "serving/stop_finder.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace atom::serving {

StopFinder::StopFinder(std::vector<std::string> stops, bool include) : include_(include) {
  for (std::string& text : stops) {
    check(!text.empty(), "a stop string has bytes");
    Stop stop{.text = std::move(text), .border = {0, 0}};
    for (size_t n = 1; n < stop.text.size(); ++n) {
      size_t length = stop.border[n];
      while (length > 0 && stop.text[length] != stop.text[n]) length = stop.border[length];
      stop.border.push_back(stop.text[length] == stop.text[n] ? length + 1 : 0);
    }
    stops_.push_back(std::move(stop));
  }
}

void StopFinder::advance(Stop& stop, char byte) {
  while (stop.matched > 0 && stop.text[stop.matched] != byte)
    stop.matched = stop.border[stop.matched];
  if (stop.text[stop.matched] == byte) ++stop.matched;
}

std::string StopFinder::push(std::string_view text) {
  if (found_ || stops_.empty()) return found_ ? std::string() : std::string(text);
  const size_t searched = held_.size();
  held_ += text;
  for (size_t i = searched; i < held_.size(); ++i) {
    for (size_t s = 0; s < stops_.size(); ++s) {
      advance(stops_[s], held_[i]);
      const size_t length = stops_[s].text.size();
      if (stops_[s].matched == length && (!found_ || length > stop().size())) found_ = s;
    }
    if (!found_) continue;
    std::string out = held_.substr(0, i + 1 - (include_ ? 0 : stop().size()));
    held_.clear();
    return out;
  }
  size_t keep = 0;
  for (const Stop& stop : stops_) keep = std::max(keep, stop.matched);
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string StopFinder::pass(std::string_view text) {
  for (Stop& stop : stops_) stop.matched = 0;
  return flush() + std::string(text);
}

std::string StopFinder::flush() { return std::exchange(held_, {}); }

}  // namespace atom::serving
