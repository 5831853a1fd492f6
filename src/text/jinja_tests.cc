// Tests (`x is y`), and the filters that choose or change elements by a test, a filter or an
// attribute.
#include <algorithm>

#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

using Answer = bool (*)(Interpreter& run, const Value& input, const Value& argument);

struct NamedTest {
  std::string_view name;
  int arguments;  // 0 or 1
  Answer answer;
};

bool is_callable(const Value& v) { return v.is(Kind::kFunction) || v.is(Kind::kLoop); }
bool is_sequence(const Value& v) {
  return v.is(Kind::kUndefined) || v.is(Kind::kString) || v.is(Kind::kDict) ||
         (v.is(Kind::kList) && v.list->flavor <= Flavor::kRange);
}
bool same(Interpreter& run, const Value& a, const Value& b) {
  if (a.kind != b.kind) return false;
  if (a.is(Kind::kList)) return a.list == b.list;
  if (a.is(Kind::kDict)) return a.dict == b.dict;
  return equal(run.heap(), a, b);
}
int64_t remainder(Interpreter& run, const Value& a, const Value& b) {
  const Value rest = arithmetic(run.heap(), Op::kModulo, a, b);
  return rest.is(Kind::kFloat) ? (rest.number == 0 ? 0 : rest.number == 1 ? 1 : 2) : rest.as_int();
}
bool in_case(Interpreter& run, const Value& v, bool up) {
  const Value text = v.is(Kind::kString) ? v : run.text(to_str(run.heap(), v));
  const Method method = find_string_method(up ? "isupper" : "islower");
  return truth(method(run, text, {}));
}
int ordered(Interpreter& run, const Value& a, const Value& b) { return compare(run.heap(), a, b); }

constexpr NamedTest kTests[] = {
    {"defined", 0, [](auto&, auto& v, auto&) { return !is_undefined(v); }},
    {"undefined", 0, [](auto&, auto& v, auto&) { return is_undefined(v); }},
    {"none", 0, [](auto&, auto& v, auto&) { return v.is(Kind::kNone); }},
    {"string", 0, [](auto&, auto& v, auto&) { return v.is(Kind::kString); }},
    {"number", 0, [](auto&, auto& v, auto&) { return v.is_number(); }},
    {"integer", 0, [](auto&, auto& v, auto&) { return v.is(Kind::kInt); }},
    {"float", 0, [](auto&, auto& v, auto&) { return v.is(Kind::kFloat); }},
    {"boolean", 0, [](auto&, auto& v, auto&) { return v.is(Kind::kBool); }},
    {"true", 0, [](auto&, auto& v, auto&) { return v.is(Kind::kBool) && v.boolean; }},
    {"false", 0, [](auto&, auto& v, auto&) { return v.is(Kind::kBool) && !v.boolean; }},
    {"mapping", 0, [](auto&, auto& v, auto&) { return v.is(Kind::kDict); }},
    {"iterable", 0, [](auto&, auto& v, auto&) { return is_iterable(v); }},
    {"sequence", 0, [](auto&, auto& v, auto&) { return is_sequence(v); }},
    {"callable", 0, [](auto&, auto& v, auto&) { return is_callable(v); }},
    {"escaped", 0, [](auto&, auto&, auto&) { return false; }},
    {"upper", 0, [](auto& r, auto& v, auto&) { return in_case(r, v, true); }},
    {"lower", 0, [](auto& r, auto& v, auto&) { return in_case(r, v, false); }},
    {"odd", 0, [](auto& r, auto& v, auto&) { return remainder(r, v, of_int(2)) == 1; }},
    {"even", 0, [](auto& r, auto& v, auto&) { return remainder(r, v, of_int(2)) == 0; }},
    {"divisibleby", 1, [](auto& r, auto& v, auto& a) { return remainder(r, v, a) == 0; }},
    {"sameas", 1, [](auto& r, auto& v, auto& a) { return same(r, v, a); }},
    {"in", 1, [](auto& r, auto& v, auto& a) { return contains(r.heap(), a, v); }},
    {"equalto", 1, [](auto& r, auto& v, auto& a) { return equal(r.heap(), v, a); }},
    {"eq", 1, [](auto& r, auto& v, auto& a) { return equal(r.heap(), v, a); }},
    {"==", 1, [](auto& r, auto& v, auto& a) { return equal(r.heap(), v, a); }},
    {"ne", 1, [](auto& r, auto& v, auto& a) { return !equal(r.heap(), v, a); }},
    {"!=", 1, [](auto& r, auto& v, auto& a) { return !equal(r.heap(), v, a); }},
    {"lt", 1, [](auto& r, auto& v, auto& a) { return ordered(r, v, a) == -1; }},
    {"<", 1, [](auto& r, auto& v, auto& a) { return ordered(r, v, a) == -1; }},
    {"lessthan", 1, [](auto& r, auto& v, auto& a) { return ordered(r, v, a) == -1; }},
    {"le", 1, [](auto& r, auto& v, auto& a) { return ordered(r, v, a) <= 0; }},
    {"<=", 1, [](auto& r, auto& v, auto& a) { return ordered(r, v, a) <= 0; }},
    {"gt", 1, [](auto& r, auto& v, auto& a) { return ordered(r, v, a) == 1; }},
    {">", 1, [](auto& r, auto& v, auto& a) { return ordered(r, v, a) == 1; }},
    {"greaterthan", 1, [](auto& r, auto& v, auto& a) { return ordered(r, v, a) == 1; }},
    {"ge", 1,
     [](auto& r, auto& v, auto& a) {
       const int o = ordered(r, v, a);
       return o == 0 || o == 1;
     }},
    {">=", 1,
     [](auto& r, auto& v, auto& a) {
       const int o = ordered(r, v, a);
       return o == 0 || o == 1;
     }},
};

constexpr size_t kTestCount = std::size(kTests);

template <size_t i>
Value run_test(Interpreter& run, const Value& input, const Arguments& arguments) {
  constexpr const NamedTest& test = kTests[i];
  if (arguments.positional.size() != static_cast<size_t>(test.arguments) ||
      !arguments.named.empty())
    raise("the test '{}' takes {} arguments", test.name, test.arguments);
  return of_bool(test.answer(run, input, test.arguments > 0 ? arguments.positional[0] : input));
}

template <size_t... i>
Method test_at(size_t at, std::index_sequence<i...>) {
  constexpr Method kMethods[] = {run_test<i>...};
  return kMethods[at];
}

// The name of a filter or test among the positional arguments, and the arguments behind it.
std::string_view name_and_rest(const Arguments& arguments, size_t at, Arguments& rest) {
  if (at >= arguments.positional.size()) raise("the name of a filter or test is missing");
  if (!arguments.positional[at].is(Kind::kString)) raise("the name of a filter or test is no text");
  rest.positional.assign(arguments.positional.begin() + static_cast<long>(at) + 1,
                         arguments.positional.end());
  rest.named = arguments.named;
  return arguments.positional[at].text();
}

Value filter_map(Interpreter& run, const Value& input, const Arguments& arguments) {
  std::vector<Value> out;
  if (arguments.positional.empty() && !arguments.named.empty()) {
    const Parameters parameters("map", arguments, {"attribute", "default"}, 1);
    for (const Value& item : elements(run.heap(), input)) {
      const Value part = run.path(item, parameters.at(0));
      out.push_back(is_undefined(part) ? parameters.value(1, part) : part);
    }
  } else {
    Arguments rest;
    const std::string_view name = name_and_rest(arguments, 0, rest);
    for (const Value& item : elements(run.heap(), input))
      out.push_back(run.filter(name, item, rest));
  }
  return run.heap().list(std::move(out), Flavor::kGenerator);
}

Value chosen(Interpreter& run, const Value& input, const Arguments& arguments, bool keep,
             bool by_attribute) {
  if (by_attribute && arguments.positional.empty()) raise("the name of an attribute is missing");
  const size_t at = by_attribute ? 1 : 0;
  Arguments rest;
  std::string_view name;
  if (arguments.positional.size() > at) name = name_and_rest(arguments, at, rest);
  std::vector<Value> out;
  for (const Value& item : elements(run.heap(), input)) {
    const Value part = by_attribute ? run.path(item, arguments.positional[0]) : item;
    const bool holds = name.empty() ? truth(part) : run.test(name, part, rest);
    if (holds == keep) out.push_back(item);
  }
  return run.heap().list(std::move(out), Flavor::kGenerator);
}
Value filter_select(Interpreter& run, const Value& input, const Arguments& arguments) {
  return chosen(run, input, arguments, true, false);
}
Value filter_reject(Interpreter& run, const Value& input, const Arguments& arguments) {
  return chosen(run, input, arguments, false, false);
}
Value filter_selectattr(Interpreter& run, const Value& input, const Arguments& arguments) {
  return chosen(run, input, arguments, true, true);
}
Value filter_rejectattr(Interpreter& run, const Value& input, const Arguments& arguments) {
  return chosen(run, input, arguments, false, true);
}
Value filter_attr(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("attr", arguments, {"name"}, 1);
  // Methods only: the fields of a dict are elements to Python, not attributes.
  const std::string_view name = parameters.text(0, "");
  const bool holds = input.is(Kind::kNamespace) || input.is(Kind::kLoop) ||
                     (input.is(Kind::kString) && find_string_method(name) != nullptr) ||
                     ((input.is(Kind::kDict) || input.is(Kind::kList)) &&
                      find_container_method(input, name) != nullptr);
  return holds ? run.attribute(input, name) : undefined(name);
}

}  // namespace

Method find_test(std::string_view name) {
  for (size_t i = 0; i < kTestCount; ++i) {
    if (kTests[i].name == name) return test_at(i, std::make_index_sequence<kTestCount>());
  }
  if (name == "filter" || name == "test") {
    return name == "filter" ? [](Interpreter&, const Value& v, const Arguments&) {
      return of_bool(v.is(Kind::kString) && find_filter(v.text()) != nullptr);
    }
    : [](Interpreter&, const Value& v, const Arguments&) {
        return of_bool(v.is(Kind::kString) && find_test(v.text()) != nullptr);
      };
  }
  return nullptr;
}

Method find_choice_filter(std::string_view name) {
  constexpr NamedMethod kFilters[] = {
      {"map", filter_map},
      {"select", filter_select},
      {"reject", filter_reject},
      {"selectattr", filter_selectattr},
      {"rejectattr", filter_rejectattr},
      {"attr", filter_attr},
  };
  for (const NamedMethod& filter : kFilters) {
    if (filter.name == name) return filter.run;
  }
  return nullptr;
}

}  // namespace atom::text::jinja
