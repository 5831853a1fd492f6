#include <algorithm>
#include <utility>

#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"

namespace atom::text::jinja {
namespace {

bool changes_its_object(std::string_view name) {
  constexpr std::string_view kNames[] = {"append",     "clear",   "extend", "insert",
                                         "pop",        "popitem", "remove", "reverse",
                                         "setdefault", "sort",    "update"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

bool compares(Heap& heap, Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::kEqual:
      return equal(heap, a, b);
    case Op::kUnequal:
      return !equal(heap, a, b);
    case Op::kIn:
      return contains(heap, b, a);
    case Op::kNotIn:
      return !contains(heap, b, a);
    default:
      break;
  }
  const int order = compare(heap, a, b);
  if (order == 2) return false;
  if (op == Op::kLess) return order < 0;
  if (op == Op::kLessEqual) return order <= 0;
  return op == Op::kGreater ? order > 0 : order >= 0;
}

Value loop_cycle(Interpreter& run, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) raise("loop.cycle() needs something to cycle through");
  run.heap().step();
  return arguments.positional[self.loop->index % arguments.positional.size()];
}

Value loop_changed(Interpreter& run, const Value& self, const Arguments& arguments) {
  Loop& loop = *self.loop;
  const auto& now = arguments.positional;
  bool same = loop.has_changed && loop.changed.size() == now.size();
  for (size_t i = 0; same && i < now.size(); ++i) same = equal(run.heap(), loop.changed[i], now[i]);
  loop.changed = now;
  loop.has_changed = true;
  return of_bool(!same);
}

}  // namespace

// Counts nested evaluations: the stack of the thread is the budget behind it.
class Interpreter::Nesting {
 public:
  explicit Nesting(Interpreter& run) : run_(run) {
    if (run_.depth_ >= run_.heap_.budgets().depth)
      raise("the template calls itself or nests deeper than {} levels", run_.heap_.budgets().depth);
    ++run_.depth_;
  }
  ~Nesting() { --run_.depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  Interpreter& run_;
};

Value Interpreter::evaluate(const Expr& expr, Scope& scope) {
  const Nesting nesting(*this);
  heap_.step();
  line_ = expr.line;
  switch (expr.kind) {
    case ExprKind::kConst:
      return expr.constant;
    case ExprKind::kName:
      return lookup(expr.text, scope);
    case ExprKind::kList:
      return heap_.list(evaluate_all(expr.parts, scope));
    case ExprKind::kTuple:
      return heap_.tuple(evaluate_all(expr.parts, scope));
    case ExprKind::kAttribute:
      return attribute(evaluate(*expr.parts[0], scope), expr.text);
    case ExprKind::kItem:
      return evaluate_item(expr, scope);
    case ExprKind::kCall:
      return evaluate_call(expr, scope);
    case ExprKind::kCompare:
      return evaluate_compare(expr, scope);
    default:
      return evaluate_operation(expr, scope);
  }
}

Value Interpreter::evaluate_operation(const Expr& expr, Scope& scope) {
  const auto part = [&](size_t i) { return evaluate(*expr.parts[i], scope); };
  switch (expr.kind) {
    case ExprKind::kDict: {
      const Value made = heap_.dict();
      for (size_t i = 0; i < expr.parts.size(); i += 2) {
        const Value key = part(i);
        heap_.set(*made.dict, key, part(i + 1));
      }
      return made;
    }
    case ExprKind::kFilter: {
      const Value input = expr.parts[0] == nullptr ? lookup("", scope) : part(0);
      const Arguments arguments = arguments_of(expr, scope);
      return filter(expr.text, input, arguments);
    }
    case ExprKind::kTest: {
      const Value input = part(0);
      const Arguments arguments = arguments_of(expr, scope);
      return of_bool(test(expr.text, input, arguments));
    }
    case ExprKind::kNot:
      return of_bool(!truth(part(0)));
    case ExprKind::kNegative:
      return negated(part(0), true);
    case ExprKind::kPositive:
      return negated(part(0), false);
    case ExprKind::kBinary: {
      const Value a = part(0);
      return arithmetic(heap_, expr.operators[0], a, part(1));
    }
    case ExprKind::kAnd: {
      const Value a = part(0);
      return truth(a) ? part(1) : a;
    }
    case ExprKind::kOr: {
      const Value a = part(0);
      return truth(a) ? a : part(1);
    }
    case ExprKind::kConditional:
      if (truth(part(1))) return part(0);
      return expr.parts[2] == nullptr ? undefined("the expression after a false 'if'") : part(2);
    default:
      raise("a slice stands outside brackets");
  }
}

std::vector<Value> Interpreter::evaluate_all(const std::vector<ExprPtr>& parts, Scope& scope) {
  std::vector<Value> out;
  out.reserve(parts.size());
  for (const ExprPtr& part : parts) out.push_back(evaluate(*part, scope));
  return out;
}

Value Interpreter::evaluate_compare(const Expr& expr, Scope& scope) {
  Value left = evaluate(*expr.parts[0], scope);
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    const Value right = evaluate(*expr.parts[i + 1], scope);
    if (!compares(heap_, expr.operators[i], left, right)) return of_bool(false);
    left = right;
  }
  return of_bool(true);
}

Value Interpreter::evaluate_item(const Expr& expr, Scope& scope) {
  const Value object = evaluate(*expr.parts[0], scope);
  const Expr& key = *expr.parts[1];
  if (key.kind != ExprKind::kSlice) return item(object, evaluate(key, scope));
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i)
    bounds[i] = key.parts[i] == nullptr ? none() : evaluate(*key.parts[i], scope);
  return sliced(heap_, object, bounds);
}

Value Interpreter::evaluate_call(const Expr& expr, Scope& scope) {
  const Value callee = evaluate(*expr.parts[0], scope);
  const Arguments arguments = arguments_of(expr, scope);
  return call(callee, arguments);
}

Arguments Interpreter::arguments_of(const Expr& expr, Scope& scope) {
  Arguments out;
  for (size_t i = 1; i < expr.parts.size(); ++i)
    out.positional.push_back(evaluate(*expr.parts[i], scope));
  for (const auto& [name, value] : expr.named)
    out.named.emplace_back(name, evaluate(*value, scope));
  return out;
}

Value Interpreter::lookup(std::string_view name, const Scope& scope) {
  for (const Scope* at = &scope; at != nullptr; at = at->parent) {
    heap_.step(1 + at->names.size() / 8);
    for (const auto& [own, value] : at->names) {
      if (own == name) return value;
    }
  }
  const Builtin global = find_global(name);
  if (global == nullptr) return undefined(name);
  Function function;
  function.name = name;
  function.builtin = global;
  return heap_.function(function);
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  const Nesting nesting(*this);
  heap_.step(1 + arguments.positional.size());
  if (callee.is(Type::kUndefined)) {
    if (changes_its_object(callee.text()))
      raise("'{}' is undefined; templates cannot change lists and dicts", callee.text());
    raise("'{}' is undefined", callee.text());
  }
  if (callee.is(Type::kLoop)) {
    const Loop& loop = *callee.loop;
    if (!loop.statement->recursive) raise("the loop is not marked as recursive");
    if (arguments.positional.size() != 1) raise("loop() takes one argument");
    std::string inner;
    std::string* before = std::exchange(out_, &inner);
    run_loop(*loop.statement, *loop.scope, arguments.positional[0], loop.depth + 1);
    out_ = before;
    return text(std::move(inner));
  }
  if (!callee.is(Type::kFunction))
    raise("a value of the type '{}' cannot be called", type_name(callee));
  const Function& function = *callee.function;
  if (function.macro != nullptr) return run_macro(function, arguments);
  if (function.method != nullptr) return function.method(*this, function.self, arguments);
  return function.builtin(*this, arguments);
}

Value Interpreter::attribute(const Value& object, std::string_view name) {
  Method method = nullptr;
  switch (object.kind) {
    case Type::kUndefined:
      raise("'{}' is undefined", object.text());
    case Type::kLoop:
      return loop_attribute(*object.loop, name);
    case Type::kString:
      method = find_string_method(name);
      break;
    case Type::kDict:
      if (changes_its_object(name) && name != "append" && name != "extend" && name != "insert" &&
          name != "remove" && name != "reverse" && name != "sort") {
        return undefined(name);
      }
      [[fallthrough]];
    case Type::kList:
      method = find_container_method(object, name);
      break;
    default:
      break;
  }
  if (method != nullptr) {
    Function function;
    function.name = name;
    function.method = method;
    function.self = object;
    return heap_.function(function);
  }
  if (object.is(Type::kDict) || object.is(Type::kNamespace)) {
    const Value* found = heap_.find(*object.dict, name);
    if (found != nullptr) return *found;
  }
  return undefined(name);
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (is_undefined(object)) raise("'{}' is undefined", object.text());
  if (object.is(Type::kDict) && !key.is(Type::kDict) &&
      !(key.is(Type::kList) && key.list->flavor == Flavor::kList)) {
    const Value* found = heap_.find(*object.dict, key);
    if (found != nullptr) return *found;
  }
  if (key.is(Type::kString)) return attribute(object, key.text());
  if (!key.is_integral()) return undefined("an element");
  const bool listed = object.is(Type::kList) && object.list->flavor <= Flavor::kRange;
  if (!listed && !object.is(Type::kString)) return undefined("an element");
  const int64_t size = length(heap_, object);
  const int64_t at = key.as_int() < 0 ? key.as_int() + size : key.as_int();
  if (at < 0 || at >= size) return undefined("an element beyond the end");
  if (listed) return object.list->items[static_cast<size_t>(at)];
  const size_t start = byte_offset(object.text(), static_cast<size_t>(at));
  const std::string_view rest = object.text().substr(start);
  return of_text(rest.substr(0, byte_offset(rest, 1)));
}

Value Interpreter::path(Value object, const Value& path) {
  if (path.is_integral()) return item(object, path);
  if (!path.is(Type::kString)) raise("an attribute must be a text or an integer");
  for (const std::string_view part : split(path.text(), ".", -1, false)) {
    const bool number =
        !part.empty() && part.size() < 10 &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    object = item(object, number ? of_int(std::stoll(std::string(part))) : of_text(part));
  }
  return object;
}

Value Interpreter::filter(std::string_view name, const Value& input, const Arguments& arguments) {
  const Nesting nesting(*this);  // filters call filters: map("map", "map", ...)
  heap_.step();
  const Method found = find_filter(name);
  if (found == nullptr) raise("there is no filter '{:.40}'", name);
  return found(*this, input, arguments);
}

bool Interpreter::test(std::string_view name, const Value& input, const Arguments& arguments) {
  heap_.step();
  const Method found = find_test(name);
  if (found == nullptr) raise("there is no test '{:.40}'", name);
  return truth(found(*this, input, arguments));
}

Value Interpreter::loop_attribute(Loop& loop, std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto size = static_cast<int64_t>(loop.items.size());
  if (name == "index") return of_int(index + 1);
  if (name == "index0") return of_int(index);
  if (name == "revindex") return of_int(size - index);
  if (name == "revindex0") return of_int(size - index - 1);
  if (name == "first") return of_bool(index == 0);
  if (name == "last") return of_bool(index + 1 == size);
  if (name == "length") return of_int(size);
  if (name == "depth") return of_int(loop.depth + 1);
  if (name == "depth0") return of_int(loop.depth);
  if (name == "previtem") return index > 0 ? loop.items[loop.index - 1] : undefined(name);
  if (name == "nextitem") return index + 1 < size ? loop.items[loop.index + 1] : undefined(name);
  Function function;
  function.name = name;
  if (name == "cycle") function.method = loop_cycle;
  if (name == "changed") function.method = loop_changed;
  if (function.method == nullptr) return undefined(name);
  function.self.kind = Type::kLoop;
  function.self.loop = &loop;
  return heap_.function(function);
}

}  // namespace atom::text::jinja
