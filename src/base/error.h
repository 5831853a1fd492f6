// Errors of the two kinds the project knows.
//
// Error: bad input (file, tensor, field, flag). The message is one sentence that names the file,
// tensor or field, the rule and the offending value. Thrown while loading and parsing only.
// check(): a broken invariant, i.e. a defect of ours; throws InvariantError with the source
// location.
#pragma once

#include <fmt/format.h>

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace atom {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class InvariantError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Throws Error with a formatted sentence: fail("{}: header length {} exceeds the file", path, n).
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void invariant_failed(std::string_view what, const std::source_location& where);

inline void check(bool condition, std::string_view what,
                  const std::source_location& where = std::source_location::current()) {
  if (!condition) [[unlikely]]
    invariant_failed(what, where);
}

}  // namespace atom
