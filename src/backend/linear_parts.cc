#include "backend/linear_parts.h"

#include "base/error.h"

namespace atom::backend {
namespace {

using format::Format;

bool is_computable(Format weight, Format input) {
  if (format::is_progressive(input)) return false;  // of weights only
  if (!format::is_integer(weight) || !format::is_integer(input)) return true;
  if (format::bits(input) == 4 || format::is_e2m1(weight)) return weight == input;
  return true;
}

}  // namespace

void check_parts(std::span<const LinearWeight> parts, const format::Segments& input,
                 std::string_view backend) {
  check(!parts.empty(), "a linear has at least one part");
  const format::Segments& first = parts[0].segments;
  for (const LinearWeight& part : parts)
    if (part.segments != first) fail("the parts of a linear have different segments");
  for (size_t i = 0; i < input.at.size(); ++i) {
    const format::Segment w = first.at[i], x = input.at[i];
    if (w.size != x.size)
      fail("segment {} of a linear has {} weight columns ({}) but {} input channels ({})", i,
           w.size, format::name(w.format), x.size, format::name(x.format));
    if (w.size > 0 && !is_computable(w.format, x.format))
      fail("the {} backend cannot multiply a weight of {} with an input of {}", backend,
           format::name(w.format), format::name(x.format));
  }
}

}  // namespace atom::backend
