// What a template can call, and how arguments reach it.
#pragma once

#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace atom::text::jinja {

struct Statement;
struct Scope;
class Interpreter;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;

  // One value per parameter; `present` of those that were not given is false. Failure: too many, an
  // unknown name, one twice.
  struct Bound {
    Value value;
    bool present = false;
  };
  std::vector<Bound> bind(std::string_view callee,
                          std::initializer_list<std::string_view> parameters) const;
};

// The first `required` parameters must be there; the rest takes its default.
class Parameters {
 public:
  Parameters(std::string_view callee, const Arguments& arguments,
             std::initializer_list<std::string_view> names, size_t required = 0);

  bool has(size_t i) const { return bound_[i].present; }
  const Value& at(size_t i) const { return bound_[i].value; }
  Value value(size_t i, Value otherwise) const { return has(i) ? at(i) : otherwise; }
  bool truth(size_t i, bool otherwise) const { return has(i) ? jinja::truth(at(i)) : otherwise; }
  // Failure: not an integer.
  int64_t integer(size_t i, int64_t otherwise) const;
  // None counts as not given. Failure: not a text.
  std::string_view text(size_t i, std::string_view otherwise) const;

 private:
  std::string_view callee_;
  std::vector<Arguments::Bound> bound_;
};

using Builtin = Value (*)(Interpreter& run, const Arguments& arguments);
using Method = Value (*)(Interpreter& run, const Value& self, const Arguments& arguments);

struct Function {
  std::string_view name;
  Builtin builtin = nullptr;  // a global function, or
  Method method = nullptr;    // a method of `self`, or
  Value self;
  const Statement* macro = nullptr;  // a macro or the body of a call block, defined in `scope`
  Scope* scope = nullptr;
};

struct NamedMethod {
  std::string_view name;
  Method run;
};
// Null where there is none.
Method find_string_method(std::string_view name);
Method find_container_method(const Value& self, std::string_view name);
Builtin find_global(std::string_view name);

// Filters and tests by name; null where there is none.
Method find_filter(std::string_view name);
Method find_text_filter(std::string_view name);
Method find_list_filter(std::string_view name);
Method find_choice_filter(std::string_view name);
Method find_test(std::string_view name);

// json.dumps(value, ...) with the parameters ensure_ascii, indent, separators, sort_keys.
Value to_json(Interpreter& run, const Value& value, const Arguments& arguments);

}  // namespace atom::text::jinja
