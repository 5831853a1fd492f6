// The syntax tree of a template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace atom::text::jinja {

enum class Op : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kConcat,
  kEqual,
  kUnequal,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

enum class ExprKind : uint8_t {
  kConst,        // constant
  kName,         // text
  kList,         // parts
  kTuple,        // parts
  kDict,         // parts: key, value, key, value ...
  kAttribute,    // parts[0] . text
  kItem,         // parts[0] [ parts[1] ]
  kSlice,        // parts: start, stop, step; null where left out
  kCall,         // parts[0] ( parts[1..], named )
  kFilter,       // parts[0] | text ( parts[1..], named ); parts[0] is null in a filter block
  kTest,         // parts[0] is text ( parts[1..], named )
  kNot,          // parts[0]
  kNegative,     // parts[0]
  kPositive,     // parts[0]
  kBinary,       // parts[0] operators[0] parts[1]
  kCompare,      // parts[0] operators[0] parts[1] operators[1] parts[2] ...
  kAnd,          // parts[0], parts[1]
  kOr,           // parts[0], parts[1]
  kConditional,  // parts[0] if parts[1] else parts[2], which may be null
};

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Expr {
  ExprKind kind = ExprKind::kConst;
  int line = 0;
  int depth = 1;  // levels of the tree below and with this node
  Value constant;
  std::string text;  // also the bytes of a constant text
  std::vector<Op> operators;
  std::vector<ExprPtr> parts;
  std::vector<std::pair<std::string, ExprPtr>> named;
};

enum class StmtKind : uint8_t {
  kText,      // text
  kPrint,     // values[0]
  kIf,        // values[i] -> bodies[i]; one more body: else
  kFor,       // target in values[0] if values[1] (may be null): bodies[0], else bodies[1]
  kSet,       // target = values[0]
  kSetBlock,  // target = bodies[0], through the filter values[0] (may be null)
  kMacro,     // text, parameters, bodies[0]
  kCall,      // values[0] with the caller (parameters, bodies[0])
  kFilter,    // values[0] applied to bodies[0]
  kWith,      // targets[i] = values[i] around bodies[0]
  kScope,     // bodies[0] with names of its own
  kBreak,
  kContinue,
};

struct Statement;
using StatementPtr = std::unique_ptr<const Statement>;
using Body = std::vector<StatementPtr>;

struct Statement {
  StmtKind kind = StmtKind::kText;
  int line = 0;
  bool recursive = false;  // kFor
  std::string text;
  std::vector<ExprPtr> targets;  // names, tuples of targets, attributes of namespaces
  std::vector<ExprPtr> values;
  std::vector<Body> bodies;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with defaults, which may be null
  bool extra_positional = false, extra_named = false;       // the body reads varargs, kwargs
};

// Throws Failure with the line in front ("line 3: ...").
Body parse(std::string_view source, const Budgets& budgets);

}  // namespace atom::text::jinja
