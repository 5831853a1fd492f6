// Methods of texts, lists and dicts. Those that change their object are not there: templates run in
// what Jinja calls an immutable sandbox.
#include <algorithm>
#include <optional>

#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

constexpr size_t kMaxStripSet = 1000;  // bytes: each character is looked for among them

Value with_text(Interpreter& run, const Value& self, std::string (*f)(std::string_view)) {
  run.heap().step(self.size / 4);
  return run.text(f(self.text()));
}
Value method_upper(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("upper", {});
  return with_text(run, self, upper);
}
Value method_lower(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("lower", {});
  return with_text(run, self, lower);
}
Value method_title(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("title", {});
  return with_text(run, self, title);
}
Value method_capitalize(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("capitalize", {});
  return with_text(run, self, capitalize);
}

Value stripped_text(Interpreter& run, const Value& self, const Arguments& arguments, bool front,
                    bool back) {
  const Parameters parameters("strip", arguments, {"chars"});
  std::optional<std::string_view> set;
  if (parameters.has(0) && !parameters.at(0).is(Kind::kNone)) set = parameters.text(0, "");
  if (set && set->size() > kMaxStripSet)
    raise("strip() takes at most {} bytes of characters", kMaxStripSet);
  run.heap().step(self.size / 16);
  std::string_view text = self.text();
  if (front) text = strip_front(text, set);
  if (back) text = strip_back(text, set);
  return of_text(text);
}
Value method_strip(Interpreter& run, const Value& self, const Arguments& arguments) {
  return stripped_text(run, self, arguments, true, true);
}
Value method_lstrip(Interpreter& run, const Value& self, const Arguments& arguments) {
  return stripped_text(run, self, arguments, true, false);
}
Value method_rstrip(Interpreter& run, const Value& self, const Arguments& arguments) {
  return stripped_text(run, self, arguments, false, true);
}

Value texts(Interpreter& run, const std::vector<std::string_view>& parts) {
  std::vector<Value> out;
  run.heap().charge(parts.size() * sizeof(Value));
  for (const std::string_view part : parts) out.push_back(of_text(part));
  return run.heap().list(std::move(out));
}

Value split_text(Interpreter& run, const Value& self, const Arguments& arguments, bool right) {
  const Parameters parameters("split", arguments, {"sep", "maxsplit"});
  std::optional<std::string_view> separator;
  if (parameters.has(0) && !parameters.at(0).is(Kind::kNone)) separator = parameters.text(0, "");
  if (separator && separator->empty()) raise("split() needs a separator that is not empty");
  run.heap().charge_search(self.size, separator.value_or("").size());
  run.heap().step(self.size);
  return texts(run, split(self.text(), separator, parameters.integer(1, -1), right));
}
Value method_split(Interpreter& run, const Value& self, const Arguments& arguments) {
  return split_text(run, self, arguments, false);
}
Value method_rsplit(Interpreter& run, const Value& self, const Arguments& arguments) {
  return split_text(run, self, arguments, true);
}
Value method_splitlines(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters parameters("splitlines", arguments, {"keepends"});
  run.heap().step(self.size / 4);
  return texts(run, split_lines(self.text(), parameters.truth(0, false)));
}

// Whether the text has one of the given beginnings (or ends): a text or a tuple of them.
bool has_edge(Interpreter& run, const Value& self, const Arguments& arguments, bool front) {
  const Parameters parameters("startswith", arguments, {"prefix", "start", "end"}, 1);
  Value part = self;
  if (parameters.has(1) || parameters.has(2)) {
    const Value bounds[] = {parameters.value(1, none()), parameters.value(2, none()), none()};
    part = sliced(run.heap(), self, bounds);
  }
  const auto fits = [&](const Value& edge) {
    if (!edge.is(Kind::kString)) raise("a text cannot begin or end with '{}'", type_name(edge));
    run.heap().step(edge.size / 16);
    return front ? part.text().starts_with(edge.text()) : part.text().ends_with(edge.text());
  };
  const Value& edge = parameters.at(0);
  if (!edge.is(Kind::kList) || edge.list->flavor != Flavor::kTuple) return fits(edge);
  return std::any_of(edge.list->items.begin(), edge.list->items.end(), fits);
}
Value method_startswith(Interpreter& run, const Value& self, const Arguments& arguments) {
  return of_bool(has_edge(run, self, arguments, true));
}
Value method_endswith(Interpreter& run, const Value& self, const Arguments& arguments) {
  return of_bool(has_edge(run, self, arguments, false));
}
Value method_removeprefix(Interpreter&, const Value& self, const Arguments& arguments) {
  const Parameters parameters("removeprefix", arguments, {"prefix"}, 1);
  const std::string_view edge = parameters.text(0, "");
  return self.text().starts_with(edge) ? of_text(self.text().substr(edge.size())) : self;
}
Value method_removesuffix(Interpreter&, const Value& self, const Arguments& arguments) {
  const Parameters parameters("removesuffix", arguments, {"suffix"}, 1);
  const std::string_view edge = parameters.text(0, "");
  return self.text().ends_with(edge) ? of_text(self.text().substr(0, self.size - edge.size()))
                                     : self;
}

Value method_replace(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters parameters("replace", arguments, {"old", "new", "count"}, 2);
  const std::string_view old = parameters.text(0, "");
  run.heap().charge_search(self.size, old.size());
  auto out = replace(self.text(), old, parameters.text(1, ""), parameters.integer(2, -1),
                     run.heap().budgets().output_bytes);
  if (!out) raise("replace() gives more than {} bytes", run.heap().budgets().output_bytes);
  return run.text(std::move(*out));
}

int64_t position(Interpreter& run, const Value& self, const Arguments& arguments, bool last) {
  const Parameters parameters("find", arguments, {"sub", "start", "end"}, 1);
  const Value bounds[] = {parameters.value(1, none()), parameters.value(2, none()), none()};
  const int64_t size = length(run.heap(), self);
  int64_t start = bounds[0].is_integral() ? bounds[0].as_int() : 0;
  start = std::max<int64_t>(start < 0 ? start + size : start, 0);
  if (start > size) return -1;
  const Value part = sliced(run.heap(), self, bounds);
  const std::string_view sought = parameters.text(0, "");
  run.heap().charge_search(part.size, sought.size());
  const size_t at = last ? part.text().rfind(sought) : part.text().find(sought);
  if (at == std::string_view::npos) return -1;
  return start + static_cast<int64_t>(count_code_points(part.text().substr(0, at)));
}
Value method_find(Interpreter& run, const Value& self, const Arguments& arguments) {
  return of_int(position(run, self, arguments, false));
}
Value method_rfind(Interpreter& run, const Value& self, const Arguments& arguments) {
  return of_int(position(run, self, arguments, true));
}
Value method_index(Interpreter& run, const Value& self, const Arguments& arguments) {
  const int64_t at = position(run, self, arguments, false);
  if (at < 0) raise("index() does not find the text");
  return of_int(at);
}
Value method_count(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters parameters("count", arguments, {"sub"}, 1);
  const std::string_view sought = parameters.text(0, "");
  if (sought.empty()) return of_int(length(run.heap(), self) + 1);
  run.heap().charge_search(self.size, sought.size());
  int64_t count = 0;
  for (size_t at = self.text().find(sought); at != std::string_view::npos;
       at = self.text().find(sought, at + sought.size())) {
    ++count;
  }
  return of_int(count);
}
Value method_join(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters parameters("join", arguments, {"iterable"}, 1);
  std::string out;
  bool first = true;
  for (const Value& part : elements(run.heap(), parameters.at(0))) {
    if (!part.is(Kind::kString)) raise("join() needs texts and got '{}'", type_name(part));
    run.heap().charge(part.size + self.size);
    if (!first) out += self.text();
    out += part.text();
    first = false;
  }
  return run.text(std::move(out));
}

template <CharacterClass wanted>
Value method_is(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("is...", {});
  run.heap().step(self.size / 4);
  // isupper() and islower() look at cased characters only and need one.
  constexpr bool kCase = wanted == CharacterClass::kUpper || wanted == CharacterClass::kLower;
  bool any = false;
  for (size_t at = 0; at < self.size;) {
    const CodePoint c = decode_utf8(self.text(), at);
    at += c.size;
    if (kCase && !in_class(c.value, CharacterClass::kCased)) continue;
    if (!in_class(c.value, wanted)) return of_bool(false);
    any = true;
  }
  return of_bool(any);
}
Value method_isalnum(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("isalnum", {});
  run.heap().step(self.size / 4);
  for (size_t at = 0; at < self.size;) {
    const CodePoint c = decode_utf8(self.text(), at);
    at += c.size;
    if (!in_class(c.value, CharacterClass::kAlpha) && !in_class(c.value, CharacterClass::kNumeric))
      return of_bool(false);
  }
  return of_bool(self.size > 0);
}
Value method_format(Interpreter& run, const Value& self, const Arguments& arguments) {
  return format_braces(run, self.text(), arguments);
}

constexpr NamedMethod kStringMethods[] = {
    {"upper", method_upper},
    {"lower", method_lower},
    {"title", method_title},
    {"capitalize", method_capitalize},
    {"casefold", method_lower},
    {"strip", method_strip},
    {"lstrip", method_lstrip},
    {"rstrip", method_rstrip},
    {"split", method_split},
    {"rsplit", method_rsplit},
    {"splitlines", method_splitlines},
    {"startswith", method_startswith},
    {"endswith", method_endswith},
    {"removeprefix", method_removeprefix},
    {"removesuffix", method_removesuffix},
    {"replace", method_replace},
    {"find", method_find},
    {"rfind", method_rfind},
    {"index", method_index},
    {"count", method_count},
    {"join", method_join},
    {"isalpha", method_is<CharacterClass::kAlpha>},
    {"isdecimal", method_is<CharacterClass::kDecimal>},
    {"isdigit", method_is<CharacterClass::kDigit>},
    {"isnumeric", method_is<CharacterClass::kNumeric>},
    {"isspace", method_is<CharacterClass::kSpace>},
    {"isupper", method_is<CharacterClass::kUpper>},
    {"islower", method_is<CharacterClass::kLower>},
    {"isalnum", method_isalnum},
    {"format", method_format},
};

// One view of a dict: its keys, values, or pairs of both.
template <Flavor flavor>
Value dict_view(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("items", {});
  std::vector<Value> out;
  run.heap().charge(self.dict->items.size() * sizeof(Value));
  for (const auto& [key, value] : self.dict->items) {
    if (flavor == Flavor::kItems) {
      out.push_back(run.heap().tuple({key, value}));
    } else {
      out.push_back(flavor == Flavor::kKeys ? key : value);
    }
  }
  return run.heap().list(std::move(out), flavor);
}
Value dict_get(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters parameters("get", arguments, {"key", "default"}, 1);
  const Value* found = run.heap().find(*self.dict, parameters.at(0));
  return found != nullptr ? *found : parameters.value(1, none());
}
Value dict_copy(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("copy", {});
  return run.heap().dict(self.dict->items);
}
constexpr NamedMethod kDictMethods[] = {
    {"items", dict_view<Flavor::kItems>},
    {"keys", dict_view<Flavor::kKeys>},
    {"values", dict_view<Flavor::kValues>},
    {"get", dict_get},
    {"copy", dict_copy},
};

Value list_copy(Interpreter& run, const Value& self, const Arguments& arguments) {
  arguments.bind("copy", {});
  return run.heap().list(elements(run.heap(), self));
}
Value list_index(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters parameters("index", arguments, {"value"}, 1);
  for (size_t i = 0; i < self.list->items.size(); ++i) {
    if (equal(run.heap(), self.list->items[i], parameters.at(0)))
      return of_int(static_cast<int64_t>(i));
  }
  raise("index() does not find the value");
}
Value list_count(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters parameters("count", arguments, {"value"}, 1);
  int64_t count = 0;
  for (const Value& item : self.list->items)
    count += static_cast<int64_t>(equal(run.heap(), item, parameters.at(0)));
  return of_int(count);
}
constexpr NamedMethod kListMethods[] = {
    {"index", list_index},
    {"count", list_count},
    {"copy", list_copy},
};

template <size_t n>
Method find_in(const NamedMethod (&methods)[n], std::string_view name) {
  for (const NamedMethod& method : methods) {
    if (method.name == name) return method.run;
  }
  return nullptr;
}

}  // namespace

Method find_string_method(std::string_view name) { return find_in(kStringMethods, name); }

Method find_container_method(const Value& self, std::string_view name) {
  if (self.is(Kind::kDict)) return find_in(kDictMethods, name);
  const Flavor flavor = self.list->flavor;
  if (flavor > Flavor::kRange || (flavor != Flavor::kList && name == "copy")) return nullptr;
  return find_in(kListMethods, name);
}

}  // namespace atom::text::jinja
