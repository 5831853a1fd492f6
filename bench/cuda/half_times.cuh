// What attention benchmarks are told on their command line: [FILE.csv] [plain] [FILTER...], the file being one that a
// script of bench/baselines wrote: on every line the numbers of a shape, a word, and microseconds.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace atom::bench {

struct HalfTime {
  std::vector<int> shape;
  double us = 0;
};

inline std::vector<HalfTime> read_half_times(const char* path) {
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) {
    std::fprintf(stderr, "%s cannot be read\n", path);
    std::exit(1);
  }
  std::vector<HalfTime> times;
  char line[200];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    HalfTime time;
    const char* at = line;
    int value = 0, length = 0;
    while (std::sscanf(at, "%d,%n", &value, &length) == 1)
      time.shape.push_back(value), at += length;
    if (std::sscanf(at, "%*[^,],%lf", &time.us) == 1) times.push_back(time);
  }
  std::fclose(file);
  return times;
}

struct BenchWords {
  std::vector<HalfTime> half_times;
  std::vector<std::string> filters;
  bool plain = false;

  BenchWords(int count, char** words) {
    for (int i = 1; i < count; ++i) {
      const std::string word = words[i];
      if (word == "plain")
        plain = true;
      else if (word.size() > 4 && word.compare(word.size() - 4, 4, ".csv") == 0)
        half_times = read_half_times(words[i]);
      else
        filters.push_back(word);
    }
  }
  // Whether a line of that name has all the filters.
  bool wants(const std::string& name) const {
    for (const std::string& filter : filters)
      if (name.find(filter) == std::string::npos) return false;
    return true;
  }
  // The least, us; 0: there is none.
  double half_time(const std::vector<int>& shape) const {
    double best = 0;
    for (const HalfTime& time : half_times)
      if (time.shape == shape) best = best == 0 || time.us < best ? time.us : best;
    return best;
  }
};

}  // namespace atom::bench
