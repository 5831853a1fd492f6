#include <algorithm>
#include <cmath>

#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

[[noreturn]] void refuse_overflow() { raise("an integer result does not fit in 64 bits"); }

int64_t floor_divided(int64_t a, int64_t b) {
  if (a == INT64_MIN && b == -1) refuse_overflow();
  return a / b - static_cast<int64_t>(a % b != 0 && (a < 0) != (b < 0));
}

Value power_of_ints(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) raise("zero cannot be raised to a negative power");
    return of_float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) refuse_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) refuse_overflow();
  }
  return of_int(result);
}

Value arithmetic_of_ints(Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if ((op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo) && b == 0)
    raise("division by zero");
  switch (op) {
    case Op::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Op::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Op::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Op::kDivide:
      return of_float(static_cast<double>(a) / static_cast<double>(b));
    case Op::kFloorDivide:
      return of_int(floor_divided(a, b));
    case Op::kModulo:
      return of_int(b == -1 ? 0 : a - floor_divided(a, b) * b);
    default:
      return power_of_ints(a, b);
  }
  if (overflow) refuse_overflow();
  return of_int(result);
}

double floor_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

Value arithmetic_of_floats(Op op, double a, double b) {
  if ((op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo) && b == 0)
    raise("division by zero");
  switch (op) {
    case Op::kAdd:
      return of_float(a + b);
    case Op::kSubtract:
      return of_float(a - b);
    case Op::kMultiply:
      return of_float(a * b);
    case Op::kDivide:
      return of_float(a / b);
    case Op::kFloorDivide:
      return of_float(std::floor((a - floor_modulo(a, b)) / b + 0.25));
    case Op::kModulo:
      return of_float(floor_modulo(a, b));
    default:
      break;
  }
  const double result = std::pow(a, b);
  if (a == 0 && b < 0) raise("zero cannot be raised to a negative power");
  if (std::isnan(result) && !std::isnan(a) && !std::isnan(b))
    raise("a power of a negative number is not real");
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b))
    raise("a power is outside a float's range");
  return of_float(result);
}

bool is_plain_list(const Value& v) { return v.is(Kind::kList) && v.list->flavor <= Flavor::kTuple; }

Value repeated(Heap& heap, const Value& what, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  const size_t size = what.is(Kind::kString) ? what.size : what.list->items.size() * sizeof(Value);
  if (size > 0 && count > heap.budgets().memory_bytes / size)
    raise("a repetition needs more than {} bytes of memory", heap.budgets().memory_bytes);
  heap.step(count * size / 16);
  if (what.is(Kind::kString)) {
    std::string out;
    out.reserve(size * count);
    for (size_t i = 0; size > 0 && i < count; ++i) out += what.text();
    return heap.keep(std::move(out));
  }
  std::vector<Value> out;
  for (size_t i = 0; size > 0 && i < count; ++i)
    out.insert(out.end(), what.list->items.begin(), what.list->items.end());
  return heap.list(std::move(out), what.list->flavor);
}

Value joined(Heap& heap, std::string_view a, std::string_view b) {
  heap.step((a.size() + b.size()) / 16);
  std::string out;
  out.reserve(a.size() + b.size());
  out += a;
  out += b;
  return heap.keep(std::move(out));
}

Value added(Heap& heap, const Value& a, const Value& b) {
  if (a.is(Kind::kString) && b.is(Kind::kString)) return joined(heap, a.text(), b.text());
  if (!is_plain_list(a) || !is_plain_list(b) || a.list->flavor != b.list->flavor)
    raise("values of the types '{}' and '{}' cannot be added", type_name(a), type_name(b));
  std::vector<Value> out = elements(heap, a);
  const std::vector<Value> more = elements(heap, b);
  out.insert(out.end(), more.begin(), more.end());
  return heap.list(std::move(out), a.list->flavor);
}

// Bounds as Python clips them: first position and number of elements.
struct Steps {
  int64_t start = 0, count = 0, step = 1;
};
Steps clipped(const Value (&bounds)[3], int64_t size) {
  for (const Value& bound : bounds) {
    if (!bound.is(Kind::kNone) && !bound.is_integral())
      raise("the bounds of a slice must be integers or none, and one is '{}'", type_name(bound));
  }
  Steps out;
  out.step = bounds[2].is(Kind::kNone) ? 1 : bounds[2].as_int();
  if (out.step == 0) raise("the step of a slice is zero");
  const bool back = out.step < 0;
  const auto bound = [&](const Value& given, int64_t otherwise) {
    if (given.is(Kind::kNone)) return otherwise;
    const int64_t at = given.as_int() < 0 ? given.as_int() + size : given.as_int();
    return std::clamp<int64_t>(at, back ? -1 : 0, back ? size - 1 : size);
  };
  out.start = bound(bounds[0], back ? size - 1 : 0);
  const int64_t stop = bound(bounds[1], back ? -1 : size);
  const int64_t way = back ? out.start - stop : stop - out.start;
  if (way <= 0) return out;
  // Negating the smallest integer would overflow; no list is that long.
  const int64_t stride = back ? -std::max(out.step, -INT64_MAX) : out.step;
  out.count = 1 + (way - 1) / stride;
  return out;
}

}  // namespace

Value arithmetic(Heap& heap, Op op, const Value& a, const Value& b) {
  if (op == Op::kConcat) {
    if (a.is(Kind::kString) && b.is(Kind::kString)) return joined(heap, a.text(), b.text());
    return joined(heap, to_str(heap, a), to_str(heap, b));
  }
  if (is_undefined(a) || is_undefined(b))
    raise("'{}' is undefined", is_undefined(a) ? a.text() : b.text());
  if (a.is_integral() && b.is_integral()) return arithmetic_of_ints(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return arithmetic_of_floats(op, a.as_double(), b.as_double());
  if (op == Op::kAdd) return added(heap, a, b);
  if (op == Op::kModulo && a.is(Kind::kString)) return format_percent(heap, a.text(), b);
  const auto repeats = [](const Value& v) { return v.is(Kind::kString) || is_plain_list(v); };
  if (op == Op::kMultiply && repeats(a) && b.is_integral()) return repeated(heap, a, b.as_int());
  if (op == Op::kMultiply && repeats(b) && a.is_integral()) return repeated(heap, b, a.as_int());
  raise("values of the types '{}' and '{}' do not go with this operator", type_name(a),
        type_name(b));
}

Value negated(const Value& value, bool negative) {
  if (is_undefined(value)) raise("'{}' is undefined", value.text());
  if (value.is(Kind::kFloat)) return of_float(negative ? -value.number : value.number);
  if (!value.is_integral()) raise("a value of the type '{}' has no sign", type_name(value));
  return negative ? arithmetic_of_ints(Op::kSubtract, 0, value.as_int()) : of_int(value.as_int());
}

Value sliced(Heap& heap, const Value& object, const Value (&bounds)[3]) {
  if (is_undefined(object)) raise("'{}' is undefined", object.text());
  const bool listed = object.is(Kind::kList) && object.list->flavor <= Flavor::kRange;
  if (!listed && !object.is(Kind::kString)) return undefined("a slice");
  const int64_t size = length(heap, object);
  const Steps steps = clipped(bounds, size);
  if (object.is(Kind::kString) && steps.step == 1) {
    const std::string_view rest =
        object.text().substr(byte_offset(object.text(), static_cast<size_t>(steps.start)));
    return of_text(rest.substr(0, byte_offset(rest, static_cast<size_t>(steps.count))));
  }
  const std::vector<Value> all = elements(heap, object);
  std::vector<Value> out;
  for (int64_t i = 0; i < steps.count; ++i)
    out.push_back(all[static_cast<size_t>(steps.start + i * steps.step)]);
  if (listed) {
    const Flavor flavor = object.list->flavor == Flavor::kTuple ? Flavor::kTuple : Flavor::kList;
    return heap.list(std::move(out), flavor);
  }
  std::string text;
  for (const Value& character : out) text += character.text();
  return heap.keep(std::move(text));
}

Value range_of(Heap& heap, int64_t start, int64_t stop, int64_t step) {
  if (step == 0) raise("the step of range() is zero");
  const bool empty = step > 0 ? start >= stop : start <= stop;
  const auto way = static_cast<uint64_t>(step > 0 ? stop : start) -
                   static_cast<uint64_t>(step > 0 ? start : stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  const uint64_t count = empty ? 0 : 1 + (way - 1) / stride;
  if (count > static_cast<uint64_t>(kMaxRange))
    raise("range() gives at most {} numbers, and {} are asked for", kMaxRange, count);
  std::vector<Value> items;
  heap.charge(count * sizeof(Value));
  for (uint64_t i = 0; i < count; ++i)
    items.push_back(of_int(start + static_cast<int64_t>(i) * step));
  const Value out = heap.list(std::move(items), Flavor::kRange);
  out.list->bounds[0] = start;
  out.list->bounds[1] = stop;
  out.list->bounds[2] = step;
  return out;
}

}  // namespace atom::text::jinja
