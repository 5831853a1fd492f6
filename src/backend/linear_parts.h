// What the backends that multiply codes ask of a linear before they pack it.
//
//   check_parts(parts, input, "cpu");   // in pack()
#pragma once

#include <span>
#include <string_view>

#include "backend/operations.h"

namespace atom::backend {

// Error: no part, parts whose segments differ, segments of weight and input that differ in size, or a pair of formats
// that has no sum: two integer sides multiply codes group by group, so a four-bit input needs a weight of its own
// format, while an int8 input has one scale, which serves every group. `backend` is named in the sentence.
void check_parts(std::span<const LinearWeight> parts, const format::Segments& input,
                 std::string_view backend);

}  // namespace atom::backend
