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

bool is_callable(const Value& v) {
  return v.is(Type::kFunction) || v.is(Type::kLoop) || is_undefined(v);
}
bool is_sequence(const Value& v) {
  return v.is(Type::kUndefined) || v.is(Type::kString) || v.is(Type::kDict) ||
         (v.is(Type::kList) && v.list->flavor <= Flavor::kRange);
}
bool same(Interpreter& run, const Value& a, const Value& b) {
  if (a.kind != b.kind) return false;
  if (a.is(Type::kList)) return a.list == b.list;
  if (a.is(Type::kDict)) return a.dict == b.dict;
  return equal(run.heap(), a, b);
}
int64_t remainder(Interpreter& run, const Value& a, const Value& b) {
  const Value rest = arithmetic(run.heap(), Op::kModulo, a, b);
  return rest.is(Type::kFloat) ? (rest.number == 0 ? 0 : rest.number == 1 ? 1 : 2) : rest.as_int();
}
bool in_case(Interpreter& run, const Value& v, bool up) {
  const Value text = v.is(Type::kString) ? v : run.text(to_str(run.heap(), v));
  const Method method = find_string_method(up ? "isupper" : "islower");
  return truth(method(run, text, {}));
}
int ordered(Interpreter& run, const Value& a, const Value& b) { return compare(run.heap(), a, b); }

constexpr NamedTest kTests[] = {
    {"defined", 0, [](auto&, auto& v, auto&) { return !is_undefined(v); }},
    {"undefined", 0, [](auto&, auto& v, auto&) { return is_undefined(v); }},
    {"none", 0, [](auto&, auto& v, auto&) { return v.is(Type::kNone); }},
    {"string", 0, [](auto&, auto& v, auto&) { return v.is(Type::kString); }},
    {"number", 0, [](auto&, auto& v, auto&) { return v.is_number(); }},
    {"integer", 0, [](auto&, auto& v, auto&) { return v.is(Type::kInt); }},
    {"float", 0, [](auto&, auto& v, auto&) { return v.is(Type::kFloat); }},
    {"boolean", 0, [](auto&, auto& v, auto&) { return v.is(Type::kBool); }},
    {"true", 0, [](auto&, auto& v, auto&) { return v.is(Type::kBool) && v.boolean; }},
    {"false", 0, [](auto&, auto& v, auto&) { return v.is(Type::kBool) && !v.boolean; }},
    {"mapping", 0, [](auto&, auto& v, auto&) { return v.is(Type::kDict); }},
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
  constexpr const NamedTest& kTest = kTests[i];
  if (arguments.positional.size() != static_cast<size_t>(kTest.arguments) ||
      !arguments.named.empty())
    raise("the test '{}' takes {} arguments", kTest.name, kTest.arguments);
  return of_bool(kTest.answer(run, input, kTest.arguments > 0 ? arguments.positional[0] : input));
}

template <size_t... i>
Method test_at(size_t at, std::index_sequence<i...>) {
  constexpr Method kMethods[] = {run_test<i>...};
  return kMethods[at];
}

// The name of a filter or test among the positional arguments, and the arguments behind it.
std::string_view name_and_rest(Interpreter& run, const Arguments& arguments, size_t at,
                               Arguments& rest) {
  if (at >= arguments.positional.size()) raise("the name of a filter or test is missing");
  if (!arguments.positional[at].is(Type::kString)) raise("the name of a filter or test is no text");
  run.heap().charge((arguments.positional.size() - at - 1) * sizeof(Value) +
                    arguments.named.size() * sizeof(arguments.named[0]));
  rest.positional.assign(arguments.positional.begin() + static_cast<long>(at) + 1,
                         arguments.positional.end());
  rest.named = arguments.named;
  return arguments.positional[at].text();
}

// Of what counts as false (none, 0) these filters make nothing, where others refuse it.
std::vector<Value> chosen_from(Interpreter& run, const Value& input) {
  return truth(input) ? elements(run.heap(), input) : std::vector<Value>();
}

Value filter_map(Interpreter& run, const Value& input, const Arguments& arguments) {
  std::vector<Value> out;
  if (arguments.positional.empty() && !arguments.named.empty()) {
    const Parameters parameters("map", arguments, {"attribute", "default"}, 1);
    for (const Value& item : chosen_from(run, input)) {
      const Value part = run.path(item, parameters.at(0));
      out.push_back(is_undefined(part) ? parameters.value(1, part) : part);
    }
  } else {
    Arguments rest;
    const std::string_view name = name_and_rest(run, arguments, 0, rest);
    for (const Value& item : chosen_from(run, input)) out.push_back(run.filter(name, item, rest));
  }
  return run.heap().list(std::move(out), Flavor::kGenerator);
}

Value chosen(Interpreter& run, const Value& input, const Arguments& arguments, bool keep,
             bool by_attribute) {
  if (by_attribute && arguments.positional.empty()) raise("the name of an attribute is missing");
  const size_t at = by_attribute ? 1 : 0;
  Arguments rest;
  std::string_view name;
  if (arguments.positional.size() > at) name = name_and_rest(run, arguments, at, rest);
  std::vector<Value> out;
  for (const Value& item : chosen_from(run, input)) {
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
  const bool holds = input.is(Type::kNamespace) || input.is(Type::kLoop) ||
                     (input.is(Type::kString) && find_string_method(name) != nullptr) ||
                     ((input.is(Type::kDict) || input.is(Type::kList)) &&
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
      return of_bool(v.is(Type::kString) && find_filter(v.text()) != nullptr);
    }
    : [](Interpreter&, const Value& v, const Arguments&) {
        return of_bool(v.is(Type::kString) && find_test(v.text()) != nullptr);
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
