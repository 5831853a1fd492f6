#include "text/jinja_interpreter.h"

#include <algorithm>
#include <utility>

namespace atom::text::jinja {

std::string Interpreter::run(const Body& body, const Value& context) {
  std::string out;
  out_ = &out;
  // What the caller passes lies below the template's own names.
  Scope& given = new_scope(nullptr);
  for (const auto& [key, value] : context.dict->items) given.names.emplace_back(key.text(), value);
  run_body(body, new_scope(&given));
  return out;
}

Scope& Interpreter::new_scope(Scope* parent) {
  heap_.charge(sizeof(Scope));
  Scope& scope = scopes_.emplace_back();
  scope.parent = parent;
  return scope;
}

void Interpreter::set_name(Scope& scope, std::string_view name, const Value& value) {
  heap_.step(scope.names.size() / 8);
  for (auto& [own, old] : scope.names) {
    if (own == name) {
      old = value;
      return;
    }
  }
  heap_.charge(sizeof(Value) + sizeof(std::string_view));
  scope.names.emplace_back(name, value);
}

void Interpreter::emit(std::string_view text) {
  heap_.charge(text.size());
  if (text.size() > heap_.budgets().output_bytes - out_->size())
    raise("the template's output has more than {} bytes", heap_.budgets().output_bytes);
  out_->append(text);
}

std::string Interpreter::captured(const Body& body, Scope& scope) {
  std::string text;
  std::string* before = std::exchange(out_, &text);
  run_body(body, scope);
  out_ = before;
  return text;
}

Interpreter::Flow Interpreter::run_body(const Body& body, Scope& scope) {
  for (const StatementPtr& statement : body) {
    const Flow flow = run_statement(*statement, scope);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement, Scope& scope) {
  line_ = statement.line;
  heap_.step();
  switch (statement.kind) {
    case StmtKind::kText:
      emit(statement.text);
      break;
    case StmtKind::kPrint: {
      const Value value = evaluate(*statement.values[0], scope);
      if (value.is(Kind::kString)) {
        emit(value.text());
      } else {
        emit(to_str(heap_, value));
      }
      break;
    }
    case StmtKind::kIf:
      return run_if(statement, scope);
    case StmtKind::kFor:
      return run_for(statement, scope);
    case StmtKind::kSet:
    case StmtKind::kSetBlock:
      run_set(statement, scope);
      break;
    case StmtKind::kMacro:
      set_name(scope, statement.text, macro_of(statement, scope));
      break;
    case StmtKind::kCall:
      run_call(statement, scope);
      break;
    case StmtKind::kFilter: {
      Scope& inner = new_scope(&scope);
      set_name(inner, "", text(captured(statement.bodies[0], inner)));
      emit(to_str(heap_, evaluate(*statement.values[0], inner)));
      break;
    }
    case StmtKind::kWith:
      return run_with(statement, scope);
    case StmtKind::kScope:
      return run_body(statement.bodies[0], new_scope(&scope));
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_if(const Statement& statement, Scope& scope) {
  for (size_t i = 0; i < statement.values.size(); ++i) {
    if (truth(evaluate(*statement.values[i], scope))) return run_body(statement.bodies[i], scope);
  }
  const bool has_else = statement.bodies.size() > statement.values.size();
  return has_else ? run_body(statement.bodies.back(), scope) : Flow::kNext;
}

Interpreter::Flow Interpreter::run_for(const Statement& statement, Scope& scope) {
  return run_loop(statement, scope, evaluate(*statement.values[0], scope), 0);
}

Interpreter::Flow Interpreter::run_loop(const Statement& statement, Scope& scope, const Value& over,
                                        int depth) {
  heap_.charge(sizeof(Loop));
  Loop& loop = loops_.emplace_back();
  loop.depth = depth;
  loop.statement = &statement;
  loop.scope = &scope;
  loop.items = elements(heap_, over);
  if (const Expr* condition = statement.values[1].get(); condition != nullptr) {
    std::vector<Value> kept;
    for (const Value& item : loop.items) {
      Scope& inner = new_scope(&scope);
      assign(*statement.targets[0], item, inner);
      if (truth(evaluate(*condition, inner))) kept.push_back(item);
    }
    loop.items = std::move(kept);
  }
  Value self;
  self.kind = Kind::kLoop;
  self.loop = &loop;
  for (loop.index = 0; loop.index < loop.items.size(); ++loop.index) {
    heap_.step();
    Scope& inner = new_scope(&scope);
    set_name(inner, "loop", self);
    assign(*statement.targets[0], loop.items[loop.index], inner);
    if (run_body(statement.bodies[0], inner) == Flow::kBreak) return Flow::kNext;
  }
  const bool runs_else = loop.items.empty() && statement.bodies.size() > 1;
  return runs_else ? run_body(statement.bodies[1], new_scope(&scope)) : Flow::kNext;
}

void Interpreter::run_set(const Statement& statement, Scope& scope) {
  Value value;
  if (statement.kind == StmtKind::kSet) {
    value = evaluate(*statement.values[0], scope);
  } else {
    Scope& inner = new_scope(&scope);
    value = text(captured(statement.bodies[0], inner));
    if (statement.values[0] != nullptr) {
      set_name(inner, "", value);
      value = evaluate(*statement.values[0], inner);
    }
  }
  assign(*statement.targets[0], value, scope);
}

Interpreter::Flow Interpreter::run_with(const Statement& statement, Scope& scope) {
  Scope& inner = new_scope(&scope);
  for (size_t i = 0; i < statement.targets.size(); ++i)
    assign(*statement.targets[i], evaluate(*statement.values[i], scope), inner);
  return run_body(statement.bodies[0], inner);
}

void Interpreter::assign(const Expr& target, const Value& value, Scope& scope) {
  if (target.kind == ExprKind::kName) {
    set_name(scope, target.text, value);
    return;
  }
  if (target.kind == ExprKind::kAttribute) {
    const Value object = lookup(target.parts[0]->text, scope);
    if (!object.is(Kind::kNamespace))
      raise("only fields of a namespace can be set, and '{:.40}' is none", target.parts[0]->text);
    heap_.set(*object.dict, of_text(target.text), value);
    return;
  }
  const std::vector<Value> items = elements(heap_, value);
  if (items.size() != target.parts.size())
    raise("{} values cannot be assigned to {} names", items.size(), target.parts.size());
  for (size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], items[i], scope);
}

Value Interpreter::macro_of(const Statement& statement, Scope& scope) {
  Function function;
  function.name = statement.text;
  function.macro = &statement;
  function.scope = &scope;
  return heap_.function(function);
}

void Interpreter::run_call(const Statement& statement, Scope& scope) {
  const Expr& call_expr = *statement.values[0];
  const Value callee = evaluate(*call_expr.parts[0], scope);
  Arguments arguments = arguments_of(call_expr, scope);
  arguments.named.emplace_back("caller", macro_of(statement, scope));
  emit(to_str(heap_, call(callee, arguments)));
}

void Interpreter::bind_extra(const Statement& macro, const Arguments& arguments, Scope& scope) {
  const size_t count = macro.parameters.size();
  const auto is_parameter = [&](std::string_view name) {
    return std::any_of(macro.parameters.begin(), macro.parameters.end(),
                       [&](const auto& parameter) { return parameter.first == name; });
  };
  std::vector<Value> more;
  for (size_t i = count; i < arguments.positional.size(); ++i)
    more.push_back(arguments.positional[i]);
  if (!more.empty() && !macro.extra_positional)
    raise("the macro '{:.40}' takes at most {} arguments", macro.text, count);
  std::vector<std::pair<Value, Value>> named;
  for (const auto& [name, value] : arguments.named) {
    if (name == "caller" && !is_parameter(name)) {
      set_name(scope, "caller", value);
    } else if (!is_parameter(name)) {
      if (!macro.extra_named)
        raise("the macro '{:.40}' has no parameter '{:.40}'", macro.text, name);
      named.emplace_back(of_text(name), value);
    }
  }
  if (macro.extra_positional) set_name(scope, "varargs", heap_.tuple(std::move(more)));
  if (macro.extra_named) set_name(scope, "kwargs", heap_.dict(std::move(named)));
}

Value Interpreter::run_macro(const Function& function, const Arguments& arguments) {
  const Statement& macro = *function.macro;
  const int line = line_;
  Scope& scope = new_scope(function.scope);
  bind_extra(macro, arguments, scope);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, otherwise] = macro.parameters[i];
    const Value* given = i < arguments.positional.size() ? &arguments.positional[i] : nullptr;
    for (const auto& [own, value] : arguments.named) {
      if (own != name) continue;
      if (given != nullptr) raise("the argument '{:.40}' is given twice", name);
      given = &value;
    }
    Value value = undefined(name);
    if (given != nullptr) {
      value = *given;
    } else if (otherwise != nullptr) {
      value = evaluate(*otherwise, scope);
    }
    set_name(scope, name, value);
  }
  const Value result = text(captured(macro.bodies[0], scope));
  line_ = line;
  return result;
}

}  // namespace atom::text::jinja
