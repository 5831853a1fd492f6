// Python's two ways to fill a text in: "..." % values and "...".format(...).
#include <algorithm>
#include <cmath>

#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

constexpr int64_t kMaxWidth = 1000;

struct Conversion {
  std::string_view name;
  bool has_name = false;
  bool left = false, plus = false, blank = false, zero = false, alternate = false;
  int64_t width = 0, precision = -1;
  char type = 's';
};

int64_t take_count(std::string_view& rest) {
  int64_t count = 0;
  while (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') {
    count = count * 10 + (rest[0] - '0');
    if (count > kMaxWidth) raise("a width of a format is over {}", kMaxWidth);
    rest.remove_prefix(1);
  }
  return count;
}

// Reads what follows the percent sign.
Conversion take_conversion(std::string_view& rest) {
  Conversion out;
  if (rest.starts_with('(')) {
    const size_t end = rest.find(')');
    if (end == std::string_view::npos) raise("a name in a format has no end");
    out.name = rest.substr(1, end - 1);
    out.has_name = true;
    rest.remove_prefix(end + 1);
  }
  while (!rest.empty() && std::string_view("-+ 0#").find(rest[0]) != std::string_view::npos) {
    out.left |= rest[0] == '-';
    out.plus |= rest[0] == '+';
    out.blank |= rest[0] == ' ';
    out.zero |= rest[0] == '0';
    out.alternate |= rest[0] == '#';
    rest.remove_prefix(1);
  }
  out.width = take_count(rest);
  if (rest.starts_with('.')) {
    rest.remove_prefix(1);
    out.precision = take_count(rest);
  }
  if (rest.empty()) raise("a format ends after its percent sign");
  if (const CodePoint c = decode_utf8(rest, 0); c.size > 1)  // a part of it would not be UTF-8
    raise("the format '%{}' is not supported", rest.substr(0, c.size));
  out.type = rest[0];
  rest.remove_prefix(1);
  return out;
}

std::string converted_number(const Conversion& how, const Value& value) {
  if (!value.is_number())
    raise("the format %{} needs a number and got '{}'", how.type, type_name(value));
  const int precision = how.precision < 0 ? 6 : static_cast<int>(how.precision);
  const double number = std::fabs(value.as_double());
  switch (how.type) {
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", number, precision);
    case 'e':
      return fmt::format("{:.{}e}", number, precision);
    case 'g':
      return fmt::format("{:.{}g}", number, precision);
    default:
      break;
  }
  if (value.is(Type::kFloat) && !(number < 9e18)) raise("the format %d got too large a number");
  const int64_t whole =
      value.is(Type::kFloat) ? static_cast<int64_t>(value.number) : value.as_int();
  const uint64_t size = whole < 0 ? 0 - static_cast<uint64_t>(whole) : static_cast<uint64_t>(whole);
  if (how.type != 'd' && how.type != 'i' && how.type != 'u' && value.is(Type::kFloat))
    raise("the format %{} needs an integer", how.type);
  if (how.type == 'x') return fmt::format("{}{:x}", how.alternate ? "0x" : "", size);
  if (how.type == 'X') return fmt::format("{}{:X}", how.alternate ? "0X" : "", size);
  if (how.type == 'o') return fmt::format("{}{:o}", how.alternate ? "0o" : "", size);
  return fmt::format("{}", size);
}

std::string converted(Heap& heap, const Conversion& how, const Value& value) {
  std::string text, sign;
  bool number = false;
  if (how.type == 's' || how.type == 'r') {
    text = how.type == 's' ? to_str(heap, value) : to_repr(heap, value);
    if (how.precision >= 0) text.resize(byte_offset(text, static_cast<size_t>(how.precision)));
  } else if (std::string_view("diufFegxXo").find(how.type) != std::string_view::npos) {
    text = converted_number(how, value);
    number = true;
    const bool minus = value.is(Type::kFloat) ? std::signbit(value.number) : value.as_int() < 0;
    sign = minus ? "-" : how.plus ? "+" : how.blank ? " " : "";
  } else {
    raise("the format '%{}' is not supported", how.type);
  }
  const auto size = static_cast<int64_t>(count_code_points(text) + sign.size());
  const std::string pad(static_cast<size_t>(std::max<int64_t>(how.width - size, 0)),
                        number && how.zero && !how.left ? '0' : ' ');
  if (how.left) return sign + text + pad;
  return number && how.zero ? sign + pad + text : pad + sign + text;
}

}  // namespace

Value format_percent(Heap& heap, std::string_view format, const Value& value) {
  const bool is_tuple = value.is(Type::kList) && value.list->flavor == Flavor::kTuple;
  const std::vector<Value> values = is_tuple ? value.list->items : std::vector<Value>{value};
  size_t used = 0;
  bool named = false;
  std::string out;
  for (size_t at = format.find('%'); at != std::string_view::npos; at = format.find('%')) {
    out += format.substr(0, at);
    format.remove_prefix(at + 1);
    const Conversion how = take_conversion(format);
    if (how.type == '%') {
      out += '%';
      continue;
    }
    Value argument;
    if (how.has_name) {
      const Value* found = value.is(Type::kDict) ? heap.find(*value.dict, how.name) : nullptr;
      if (found == nullptr) raise("the format names '{:.40}', which is not there", how.name);
      argument = *found;
      named = true;
    } else {
      if (used >= values.size()) raise("a format asks for more values than there are");
      argument = values[used++];
    }
    const std::string text = converted(heap, how, argument);
    heap.charge(text.size());
    out += text;
  }
  if (used < values.size() && !named && !value.is(Type::kDict) &&
      (is_tuple || !value.is(Type::kList)))
    raise("a format leaves {} values unused", values.size() - used);
  out += format;
  return heap.keep(std::move(out));
}

Value format_braces(Interpreter& run, std::string_view format, const Arguments& arguments) {
  std::string out;
  size_t next = 0;
  while (!format.empty()) {
    const char c = format[0];
    format.remove_prefix(1);
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (format.starts_with(c)) {
      out += c;
      format.remove_prefix(1);
      continue;
    }
    const size_t end = format.find('}');
    if (c == '}' || end == std::string_view::npos) raise("a brace in a format has no partner");
    const std::string_view name = format.substr(0, end);
    format.remove_prefix(end + 1);
    const bool number = name.find_first_not_of("0123456789") == std::string_view::npos;
    if (name.find_first_of(".[!:{") != std::string_view::npos || (number && name.size() > 6))
      raise("the field '{{{:.40}}}' of a format is not supported", name);
    Value value;
    if (number) {
      const size_t at = name.empty() ? next++ : std::stoul(std::string(name));
      if (at >= arguments.positional.size()) raise("a format asks for more values than there are");
      value = arguments.positional[at];
    } else {
      bool found = false;
      for (const auto& [own, given] : arguments.named) {
        if (own != name) continue;
        value = given;
        found = true;
      }
      if (!found) raise("the format names '{:.40}', which is not there", name);
    }
    const std::string text = to_str(run.heap(), value);
    run.heap().charge(text.size());
    out += text;
  }
  return run.text(std::move(out));
}

}  // namespace atom::text::jinja
