// Runs a syntax tree: jinja_interpreter.cc has the statements, jinja_evaluate.cc the expressions,
// jinja_operators.cc arithmetic and slices.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_function.h"

namespace atom::text::jinja {

// Names of one block; lookups go on to the parent. Owned by the interpreter until the end, because
// macros may refer to it.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> names;
};

// The variable `loop`.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int depth = 0;
  const Statement* statement = nullptr;
  Scope* scope = nullptr;      // around the loop
  std::vector<Value> changed;  // what loop.changed() saw last
  bool has_changed = false;
};

class Interpreter {
 public:
  Interpreter(const Budgets& budgets, std::time_t now) : heap_(budgets), now_(now) {}

  std::string run(const Body& body, const Value& context);

  Heap& heap() { return heap_; }
  int line() const { return line_; }  // of the node that was evaluated last
  std::time_t now() const { return now_; }

  Value text(std::string text) { return heap_.keep(std::move(text)); }
  Value call(const Value& callee, const Arguments& arguments);
  Value attribute(const Value& object, std::string_view name);  // object.name
  Value item(const Value& object, const Value& key);            // object[key]
  // By a path like "function.name" or "0", as filters take it.
  Value path(Value object, const Value& path);
  Value filter(std::string_view name, const Value& input, const Arguments& arguments);
  bool test(std::string_view name, const Value& input, const Arguments& arguments);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class Nesting;

  Flow run_body(const Body& body, Scope& scope);
  Flow run_statement(const Statement& statement, Scope& scope);
  Flow run_if(const Statement& statement, Scope& scope);
  Flow run_for(const Statement& statement, Scope& scope);
  Flow run_loop(const Statement& statement, Scope& scope, const Value& over, int depth);
  void run_set(const Statement& statement, Scope& scope);
  void run_call(const Statement& statement, Scope& scope);
  Flow run_with(const Statement& statement, Scope& scope);
  std::string captured(const Body& body, Scope& scope);
  Value run_macro(const Function& function, const Arguments& arguments);
  void bind_extra(const Statement& macro, const Arguments& arguments, Scope& scope);
  Value macro_of(const Statement& statement, Scope& scope);
  void assign(const Expr& target, const Value& value, Scope& scope);
  void emit(std::string_view text);

  Value evaluate(const Expr& expr, Scope& scope);
  Value evaluate_operation(const Expr& expr, Scope& scope);
  Value evaluate_compare(const Expr& expr, Scope& scope);
  Value evaluate_item(const Expr& expr, Scope& scope);
  Value evaluate_call(const Expr& expr, Scope& scope);
  std::vector<Value> evaluate_all(const std::vector<ExprPtr>& parts, Scope& scope);
  Arguments arguments_of(const Expr& expr, Scope& scope);
  Value lookup(std::string_view name, const Scope& scope);
  Value loop_attribute(Loop& loop, std::string_view name);
  Scope& new_scope(Scope* parent);
  void set_name(Scope& scope, std::string_view name, const Value& value);

  Heap heap_;
  std::time_t now_;
  int line_ = 1;
  int depth_ = 0;
  std::string* out_ = nullptr;
  std::deque<Scope> scopes_;
  std::deque<Loop> loops_;
};

// Arithmetic and `~`. Failure: types or values that Python refuses, results beyond 64 bits.
Value arithmetic(Heap& heap, Op op, const Value& a, const Value& b);
Value negated(const Value& value, bool negative);
// object[start:stop:step]; bounds are None or integers.
Value sliced(Heap& heap, const Value& object, const Value (&bounds)[3]);
Value range_of(Heap& heap, int64_t start, int64_t stop, int64_t step);

// "..." % value, and "...".format(...).
Value format_percent(Heap& heap, std::string_view format, const Value& value);
Value format_braces(Interpreter& run, std::string_view format, const Arguments& arguments);

}  // namespace atom::text::jinja
