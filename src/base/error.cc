#include "base/error.h"

namespace atom {

void invariant_failed(std::string_view what, const std::source_location& where) {
  throw InvariantError(
      fmt::format("internal error at {}:{}: {}", where.file_name(), where.line(), what));
}

}  // namespace atom
