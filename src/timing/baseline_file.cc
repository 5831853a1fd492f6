#include "timing/baseline_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace atom::timing {
namespace {

template <typename T>
bool parse(std::string_view word, T& value) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc() && end == word.data() + word.size();
}

std::vector<std::string_view> cut(std::string_view line) {
  std::vector<std::string_view> words;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find(',', begin), line.size());
    words.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

bool parse_line(std::string_view line, BaselineTime& time) {
  const std::vector<std::string_view> words = cut(line);
  if (words.size() < 3) return false;
  for (size_t i = 0; i + 2 < words.size(); ++i) {
    int number = 0;
    if (!parse(words[i], number)) return false;
    time.shape.push_back(number);
  }
  time.name = words[words.size() - 2];
  return parse(words.back(), time.us) && std::isfinite(time.us) && time.us > 0;
}

}  // namespace

std::optional<BaselineTime> Baselines::least(const std::vector<int>& shape,
                                             std::string_view name) const {
  std::optional<BaselineTime> best;
  for (const BaselineTime& time : times)
    if (time.shape == shape && (name.empty() || time.name == name) && (!best || time.us < best->us))
      best = time;
  return best;
}

Baselines parse_baselines(std::string_view text, std::string_view source) {
  Baselines out;
  int number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    BaselineTime time;
    if (!parse_line(line, time))
      fail("{}: line {} must be numbers of a shape, a name and microseconds, but is '{}'", source,
           number, line.substr(0, 80));
    out.times.push_back(std::move(time));
  }
  return out;
}

}  // namespace atom::timing
