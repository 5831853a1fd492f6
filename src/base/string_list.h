// Many short strings in one buffer: 8 bytes for each beside its own, where std::string takes 32 to 80.
//
//   StringList names;
//   names.add("the");
//   std::string_view first = names[0];   // valid until the next add
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace atom {

class StringList {
 public:
  void add(std::string_view text) {
    bytes_ += text;
    ends_.push_back(bytes_.size());
  }
  std::string_view operator[](size_t i) const {  // i < size()
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  size_t size() const { return ends_.size(); }
  bool empty() const { return ends_.empty(); }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

}  // namespace atom
