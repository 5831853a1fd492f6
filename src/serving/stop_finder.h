// Looks for stop strings in a text that grows, and holds back what could still become one.
//
//   StopFinder stops({"###", "\n\n"}, include_stop);
//   send(stops.push(piece));
//   if (stops.found()) ...              // nothing is to be pushed after it
//   else send(stops.flush());           // at the end of the text
//
// The first stop string to be complete wins; of those that end together, the longest. Texts are UTF-8, and so are
// the pieces: what is held back begins with a whole character.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atom::serving {

class StopFinder {
 public:
  // `stops`: not empty strings. `include`: the stop string is part of the text.
  StopFinder(std::vector<std::string> stops, bool include);

  std::string push(std::string_view text);  // what no later text can change
  std::string pass(std::string_view text);  // unsearched: no stop string begins in it
  std::string flush();                      // what is held back
  bool found() const { return found_.has_value(); }
  const std::string& stop() const { return stops_[*found_].text; }  // where found

 private:
  struct Stop {
    std::string text;
    // border[n]: length of the longest proper beginning of text[0, n) that is its ending, too (Knuth, Morris, Pratt 1977).
    std::vector<size_t> border;
    size_t matched = 0;  // length of the beginning that the text so far ends with
  };
  static void advance(Stop& stop, char byte);

  std::vector<Stop> stops_;
  bool include_;
  std::string held_;
  std::optional<size_t> found_;
};

}  // namespace atom::serving
