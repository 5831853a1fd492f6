// Filters of texts and numbers.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

constexpr int64_t kMaxIndentWidth = 1000;

Value soft_text(Interpreter& run, const Value& input) {
  return input.is(Type::kString) ? input : run.text(to_str(run.heap(), input));
}

// Applies a method of texts to whatever prints as one.
template <size_t n>
Value through_method(Interpreter& run, const Value& input, const Arguments& arguments,
                     const char (&name)[n]) {
  return find_string_method(name)(run, soft_text(run, input), arguments);
}
Value filter_trim(Interpreter& run, const Value& input, const Arguments& arguments) {
  return through_method(run, input, arguments, "strip");
}
Value filter_upper(Interpreter& run, const Value& input, const Arguments& arguments) {
  return through_method(run, input, arguments, "upper");
}
Value filter_lower(Interpreter& run, const Value& input, const Arguments& arguments) {
  return through_method(run, input, arguments, "lower");
}
Value filter_capitalize(Interpreter& run, const Value& input, const Arguments& arguments) {
  return through_method(run, input, arguments, "capitalize");
}

// Words begin after white space, hyphens and opening brackets, unlike in str.title().
Value filter_title(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("title", {});
  const Value text = soft_text(run, input);
  run.heap().step(text.size);
  std::string out;
  bool begins = true;
  for (size_t at = 0; at < text.size;) {
    const CodePoint c = decode_utf8(text.text(), at);
    const std::string_view character = text.text().substr(at, c.size);
    out += begins ? upper(character) : lower(character);
    begins = is_space(c.value) ||
             (c.value < 0x80 &&
              std::string_view("-({[<").find(static_cast<char>(c.value)) != std::string_view::npos);
    at += c.size;
  }
  return run.text(std::move(out));
}

Value filter_replace(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("replace", arguments, {"old", "new", "count"}, 2);
  Arguments inner;
  inner.positional = {soft_text(run, parameters.at(0)), soft_text(run, parameters.at(1))};
  if (parameters.has(2) && !parameters.at(2).is(Type::kNone))
    inner.positional.push_back(parameters.at(2));
  return through_method(run, input, inner, "replace");
}

Value filter_string(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("string", {});
  return soft_text(run, input);
}

Value filter_escape(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("escape", {});
  const Value text = soft_text(run, input);
  std::string out;
  for (const char c : text.text()) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return run.text(std::move(out));
}

Value filter_indent(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("indent", arguments, {"width", "first", "blank"});
  std::string pad;
  if (parameters.has(0) && parameters.at(0).is(Type::kString)) {
    pad = parameters.at(0).text();
  } else {
    pad.assign(
        static_cast<size_t>(std::clamp<int64_t>(parameters.integer(0, 4), 0, kMaxIndentWidth)),
        ' ');
  }
  if (!input.is(Type::kString)) raise("indent needs a text and got '{}'", type_name(input));
  const Value& text = input;
  const bool blank = parameters.truth(2, false);
  std::string out = parameters.truth(1, false) ? pad : "";
  bool first = true;
  // One more newline at the end keeps the last one, as Jinja does.
  const std::string all = std::string(text.text()) + "\n";
  for (const std::string_view line : split_lines(all, false)) {
    run.heap().charge(pad.size() + line.size());
    if (!first) out += '\n';
    if (!first && (blank || !line.empty())) out += pad;
    out += line;
    first = false;
  }
  return run.text(std::move(out));
}

// int(text), or nothing.
std::optional<int64_t> parsed_int(std::string_view text) {
  text = strip_front(strip_back(text));
  std::string digits;
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (!digit && (text[i] != '_' || i == 0 || i + 1 == text.size() || text[i - 1] == '_'))
      return std::nullopt;
    if (digit) digits += text[i];
  }
  if (negative) digits.insert(0, "-");
  int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ec == std::errc::result_out_of_range) raise("an integer does not fit in 64 bits");
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<double> parsed_float(std::string_view text) {
  text = strip_front(strip_back(text));
  if (text.starts_with('+')) text.remove_prefix(1);
  if (text.starts_with("+") || text.find_first_of("xX(") != std::string_view::npos)
    return std::nullopt;
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ptr != text.data() + text.size()) return std::nullopt;
  if (result.ec == std::errc::invalid_argument) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) {
    const bool tiny =
        text.find("e-") != std::string_view::npos || text.find("E-") != std::string_view::npos;
    const double size = tiny ? 0.0 : HUGE_VAL;
    return text.starts_with('-') ? -size : size;
  }
  return value;
}

std::optional<int64_t> whole(double number) {
  if (!std::isfinite(number)) return std::nullopt;
  if (!(std::fabs(number) < 9.2e18)) raise("an integer does not fit in 64 bits");
  return static_cast<int64_t>(number);
}

Value filter_int(Interpreter&, const Value& input, const Arguments& arguments) {
  const Parameters parameters("int", arguments, {"default", "base"});
  if (parameters.integer(1, 10) != 10) raise("int() supports the base 10 only");
  if (is_undefined(input)) raise("'{}' is undefined", input.text());
  std::optional<int64_t> value;
  if (input.is(Type::kString)) {
    value = parsed_int(input.text());
    if (!value) {
      if (const auto number = parsed_float(input.text()); number) value = whole(*number);
    }
  } else if (input.is(Type::kFloat)) {
    if (std::isinf(input.number)) raise("infinity is no integer");
    value = whole(input.number);
  } else if (input.is_integral()) {
    value = input.as_int();
  }
  return value ? of_int(*value) : parameters.value(0, of_int(0));
}

Value filter_float(Interpreter&, const Value& input, const Arguments& arguments) {
  const Parameters parameters("float", arguments, {"default"});
  if (is_undefined(input)) raise("'{}' is undefined", input.text());
  if (input.is_number()) return of_float(input.as_double());
  if (input.is(Type::kString)) {
    if (const auto number = parsed_float(input.text()); number) return of_float(*number);
  }
  return parameters.value(0, of_float(0));
}

Value filter_abs(Interpreter&, const Value& input, const Arguments& arguments) {
  arguments.bind("abs", {});
  if (!input.is_number()) raise("abs needs a number and got '{}'", type_name(input));
  if (input.is(Type::kFloat)) return of_float(std::fabs(input.number));
  return input.as_int() < 0 ? negated(input, true) : of_int(input.as_int());
}

// To a multiple of 10^places, places > 0, ties to even.
int64_t rounded_integer(int64_t value, int64_t places) {
  constexpr int64_t kMostPlaces = 18;  // 10^18 fits, and half of 10^19 does
  constexpr int64_t kHalfOfMore = 5'000'000'000'000'000'000;
  if (places > kMostPlaces) {
    if (places == kMostPlaces + 1 && (value > kHalfOfMore || value < -kHalfOfMore))
      raise("an integer does not fit in 64 bits");
    return 0;
  }
  int64_t scale = 1;
  for (int64_t i = 0; i < places; ++i) scale *= 10;
  const int64_t rest = value % scale;
  int64_t out = value - rest;
  const int64_t size = rest < 0 ? -rest : rest;
  const bool away = size > scale / 2 || (size == scale / 2 && value / scale % 2 != 0);
  if (away && __builtin_add_overflow(out, value < 0 ? -scale : scale, &out))
    raise("an integer does not fit in 64 bits");
  return out;
}

Value filter_round(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("round", arguments, {"precision", "method"});
  const std::string_view method = parameters.text(1, "common");
  const int64_t precision = parameters.integer(0, 0);
  if (!input.is_number()) raise("round needs a number and got '{}'", type_name(input));
  if (method != "common" && method != "ceil" && method != "floor")
    raise("the method of round must be common, ceil or floor, and is '{:.40}'", method);
  if (precision > 300 || precision < -300) raise("round takes a precision from -300 to 300");
  if (method != "common") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    const double scaled = input.as_double() * scale;
    return of_float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
  }
  if (input.is_integral())
    return of_int(precision < 0 ? rounded_integer(input.as_int(), -precision) : input.as_int());
  if (precision < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    return of_float(std::nearbyint(input.number / scale) * scale);
  }
  if (!std::isfinite(input.number)) return input;
  // Printing rounds the exact value to the nearest decimal, ties to even, as Python's round().
  const std::string digits = fmt::format("{:.{}f}", input.number, static_cast<int>(precision));
  run.heap().step(digits.size());
  return of_float(parsed_float(digits).value_or(input.number));
}

Value filter_wordcount(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("wordcount", {});
  const Value text = soft_text(run, input);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size;) {
    const CodePoint c = decode_utf8(text.text(), at);
    const bool word = is_word(c.value);
    words += static_cast<int64_t>(word && !inside);
    inside = word;
    at += c.size;
  }
  return of_int(words);
}

Value filter_format(Interpreter& run, const Value& input, const Arguments& arguments) {
  if (!arguments.named.empty() && !arguments.positional.empty())
    raise("format takes values with names or without, not both");
  std::vector<std::pair<Value, Value>> named;
  for (const auto& [name, value] : arguments.named) named.emplace_back(of_text(name), value);
  const Value values = arguments.named.empty() ? run.heap().tuple(arguments.positional)
                                               : run.heap().dict(std::move(named));
  return format_percent(run.heap(), soft_text(run, input).text(), values);
}

constexpr NamedMethod kTextFilters[] = {
    {"trim", filter_trim},     {"upper", filter_upper},           {"lower", filter_lower},
    {"title", filter_title},   {"capitalize", filter_capitalize}, {"replace", filter_replace},
    {"string", filter_string}, {"safe", filter_string},           {"escape", filter_escape},
    {"e", filter_escape},      {"forceescape", filter_escape},    {"indent", filter_indent},
    {"int", filter_int},       {"float", filter_float},           {"abs", filter_abs},
    {"round", filter_round},   {"wordcount", filter_wordcount},   {"format", filter_format},
    {"tojson", to_json},
};

}  // namespace

Method find_text_filter(std::string_view name) {
  for (const NamedMethod& filter : kTextFilters) {
    if (filter.name == name) return filter.run;
  }
  return nullptr;
}

Method find_filter(std::string_view name) {
  for (const auto find : {find_text_filter, find_list_filter, find_choice_filter}) {
    if (const Method found = find(name); found != nullptr) return found;
  }
  return nullptr;
}

}  // namespace atom::text::jinja
