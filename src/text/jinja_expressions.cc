// Expressions of the parser, from the loosest binding to the tightest.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "text/jinja_parser.h"

namespace atom::text::jinja {
namespace {

struct BinaryOp {
  int level;
  std::string_view text;
  Op op;
};
constexpr BinaryOp kBinaryOps[] = {
    {0, "+", Op::kAdd},      {0, "-", Op::kSubtract}, {1, "~", Op::kConcat},
    {2, "*", Op::kMultiply}, {2, "/", Op::kDivide},   {2, "//", Op::kFloorDivide},
    {2, "%", Op::kModulo},   {3, "**", Op::kPower},
};
constexpr int kBinaryLevels = 4;

struct CompareOp {
  std::string_view text;
  Op op;
};
constexpr CompareOp kCompareOps[] = {
    {"==", Op::kEqual},     {"!=", Op::kUnequal}, {"<", Op::kLess},
    {"<=", Op::kLessEqual}, {">", Op::kGreater},  {">=", Op::kGreaterEqual},
};

std::vector<ExprPtr> list_of(ExprPtr first, ExprPtr second = nullptr) {
  std::vector<ExprPtr> parts;
  parts.push_back(std::move(first));
  if (second != nullptr) parts.push_back(std::move(second));
  return parts;
}

}  // namespace

std::unique_ptr<Expr> Parser::node(ExprKind kind, std::vector<ExprPtr> parts) const {
  auto made = std::make_unique<Expr>();
  made->kind = kind;
  made->line = peek().line;
  made->parts = std::move(parts);
  return made;
}

// Computes the depth, which bounds the recursion of everything that walks the tree.
ExprPtr Parser::sealed(std::unique_ptr<Expr> expr) const {
  int depth = 0;
  for (const ExprPtr& part : expr->parts) {
    if (part != nullptr) depth = std::max(depth, part->depth);
  }
  for (const auto& named : expr->named) depth = std::max(depth, named.second->depth);
  expr->depth = depth + 1;
  if (depth >= kMaxNesting)
    raise("line {}: an expression is nested deeper than {} levels", expr->line, kMaxNesting);
  return expr;
}

ExprPtr Parser::expression(bool with_conditional) {
  return with_conditional ? conditional() : either();
}

ExprPtr Parser::conditional() {
  const Level level(*this);
  ExprPtr expr = either();
  while (take_name("if")) {
    auto made = node(ExprKind::kConditional, list_of(std::move(expr), either()));
    made->parts.push_back(take_name("else") ? conditional() : nullptr);
    expr = sealed(std::move(made));
  }
  return expr;
}

ExprPtr Parser::either() {
  const Level level(*this);
  ExprPtr left = both();
  while (take_name("or")) left = sealed(node(ExprKind::kOr, list_of(std::move(left), both())));
  return left;
}

ExprPtr Parser::both() {
  ExprPtr left = negation();
  while (take_name("and"))
    left = sealed(node(ExprKind::kAnd, list_of(std::move(left), negation())));
  return left;
}

ExprPtr Parser::negation() {
  if (!take_name("not")) return comparison();
  const Level level(*this);
  return sealed(node(ExprKind::kNot, list_of(negation())));
}

ExprPtr Parser::comparison() {
  ExprPtr first = binary(0);
  auto made = node(ExprKind::kCompare, list_of(std::move(first)));
  while (true) {
    bool found = false;
    for (const CompareOp& compare : kCompareOps) {
      if (!found && take_operator(compare.text)) {
        made->operators.push_back(compare.op);
        found = true;
      }
    }
    if (!found && take_name("in")) {
      made->operators.push_back(Op::kIn);
    } else if (!found && at_name("not") && peek(1).kind == TokenKind::kName &&
               peek(1).text == "in") {
      next();
      next();
      made->operators.push_back(Op::kNotIn);
    } else if (!found) {
      break;
    }
    made->parts.push_back(binary(0));
  }
  if (made->operators.empty()) return std::move(made->parts[0]);
  return sealed(std::move(made));
}

ExprPtr Parser::binary(int level) {
  if (level == kBinaryLevels) return unary();
  ExprPtr left = binary(level + 1);
  while (true) {
    const BinaryOp* found = nullptr;
    for (const BinaryOp& candidate : kBinaryOps) {
      if (candidate.level == level && at_operator(candidate.text)) found = &candidate;
    }
    if (found == nullptr) return left;
    next();
    auto made = node(ExprKind::kBinary, list_of(std::move(left), binary(level + 1)));
    made->operators.push_back(found->op);
    left = sealed(std::move(made));
  }
}

ExprPtr Parser::unary(bool with_filter) {
  ExprPtr expr;
  if (at_operator("-") || at_operator("+")) {
    const Level level(*this);
    const bool negative = next().text == "-";
    expr =
        sealed(node(negative ? ExprKind::kNegative : ExprKind::kPositive, list_of(unary(false))));
  } else {
    expr = primary();
  }
  expr = postfix(std::move(expr));
  return with_filter ? filters(std::move(expr)) : std::move(expr);
}

ExprPtr Parser::primary() {
  if (at(TokenKind::kString)) return text_literal();
  if (at(TokenKind::kInteger) || at(TokenKind::kFloat)) return number_literal();
  if (take_operator("(")) {
    ExprPtr inner = tuple(true, true);
    expect_operator(")");
    return inner;
  }
  if (at_operator("[")) return list_literal();
  if (at_operator("{")) return dict_literal();
  if (!at(TokenKind::kName)) refuse("an expression");
  auto made = node(ExprKind::kConst);
  made->text = next().text;
  const std::string& name = made->text;
  if (name == "true" || name == "True") {
    made->constant = of_bool(true);
  } else if (name == "false" || name == "False") {
    made->constant = of_bool(false);
  } else if (name == "none" || name == "None") {
    made->constant = none();
  } else {
    made->kind = ExprKind::kName;
    if (name == "varargs") reads_varargs_ = true;
    if (name == "kwargs") reads_kwargs_ = true;
  }
  return made;
}

ExprPtr Parser::text_literal() {
  auto made = node(ExprKind::kConst);
  while (at(TokenKind::kString)) made->text += next().text;
  made->constant = of_text(made->text);
  return made;
}

ExprPtr Parser::number_literal() {
  auto made = node(ExprKind::kConst);
  const Token token = next();
  const char *begin = token.text.data(), *end = begin + token.text.size();
  if (token.kind == TokenKind::kInteger) {
    int64_t value = 0;
    if (std::from_chars(begin, end, value).ec != std::errc())
      raise("line {}: the number {:.40} does not fit in 64 bits", token.line, token.text);
    made->constant = of_int(value);
  } else {
    double value = 0;
    if (std::from_chars(begin, end, value).ec != std::errc())
      value = token.text.find('-') == std::string::npos ? HUGE_VAL : 0;
    made->constant = of_float(value);
  }
  return made;
}

// One expression, or several with commas. `parenthesized`: may be empty.
ExprPtr Parser::tuple(bool with_conditional, bool parenthesized) {
  std::vector<ExprPtr> parts;
  bool is_tuple = false;
  while (true) {
    const bool ends = at(TokenKind::kPrintEnd) || at(TokenKind::kBlockEnd) || at_operator(")") ||
                      at_name("in") || at_name("recursive");
    if (ends) break;
    parts.push_back(expression(with_conditional));
    if (!take_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && parts.size() == 1) return std::move(parts[0]);
  if (!is_tuple && !parenthesized) refuse("an expression");
  return sealed(node(ExprKind::kTuple, std::move(parts)));
}

ExprPtr Parser::list_literal() {
  auto made = node(ExprKind::kList);
  next();
  while (!at_operator("]")) {
    if (!made->parts.empty()) expect_operator(",");
    if (at_operator("]")) break;
    made->parts.push_back(expression());
  }
  expect_operator("]");
  return sealed(std::move(made));
}

ExprPtr Parser::dict_literal() {
  auto made = node(ExprKind::kDict);
  next();
  while (!at_operator("}")) {
    if (!made->parts.empty()) expect_operator(",");
    if (at_operator("}")) break;
    made->parts.push_back(expression());
    expect_operator(":");
    made->parts.push_back(expression());
  }
  expect_operator("}");
  return sealed(std::move(made));
}

ExprPtr Parser::call(ExprPtr callee) {
  auto made = node(ExprKind::kCall, list_of(std::move(callee)));
  arguments(*made);
  return sealed(std::move(made));
}

ExprPtr Parser::postfix(ExprPtr expr) {
  while (true) {
    if (at_operator(".") || at_operator("[")) {
      expr = subscript(std::move(expr));
    } else if (at_operator("(")) {
      expr = call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr Parser::filters(ExprPtr expr) {
  while (true) {
    if (take_operator("|")) {
      expr = filter(std::move(expr));
    } else if (at_name("is")) {
      expr = test(std::move(expr));
    } else if (at_operator("(")) {
      expr = call(std::move(expr));
    } else {
      return expr;
    }
  }
}

// What stands behind the bar.
ExprPtr Parser::filter(ExprPtr input) {
  auto made = node(ExprKind::kFilter);
  made->parts.push_back(std::move(input));
  made->text = expect_identifier();
  while (take_operator(".")) made->text += "." + expect_identifier();
  if (at_operator("(")) arguments(*made);
  return sealed(std::move(made));
}

ExprPtr Parser::test(ExprPtr input) {
  expect_name("is");
  const bool negated = take_name("not");
  auto made = node(ExprKind::kTest, list_of(std::move(input)));
  made->text = expect_identifier();
  while (take_operator(".")) made->text += "." + expect_identifier();
  if (at_operator("(")) {
    arguments(*made);
  } else if (at(TokenKind::kString) || at(TokenKind::kInteger) || at(TokenKind::kFloat) ||
             at_operator("[") || at_operator("{") ||
             (at(TokenKind::kName) && !at_name("else") && !at_name("or") && !at_name("and"))) {
    if (at_name("is")) refuse("something other than a second test in a row");
    made->parts.push_back(postfix(primary()));
  }
  ExprPtr expr = sealed(std::move(made));
  return negated ? sealed(node(ExprKind::kNot, list_of(std::move(expr)))) : std::move(expr);
}

ExprPtr Parser::subscript(ExprPtr expr) {
  if (take_operator(".")) {
    if (at(TokenKind::kInteger))
      return sealed(node(ExprKind::kItem, list_of(std::move(expr), number_literal())));
    auto made = node(ExprKind::kAttribute, list_of(std::move(expr)));
    made->text = expect_identifier();
    return sealed(std::move(made));
  }
  next();
  ExprPtr item = slice_or_item();
  if (at_operator(",")) {
    auto several = node(ExprKind::kTuple, list_of(std::move(item)));
    while (take_operator(",")) several->parts.push_back(slice_or_item());
    item = sealed(std::move(several));
  }
  expect_operator("]");
  return sealed(node(ExprKind::kItem, list_of(std::move(expr), std::move(item))));
}

ExprPtr Parser::slice_or_item() {
  ExprPtr bounds[3];
  int colons = 0;
  while (!at_operator("]") && !at_operator(",")) {
    if (colons < 2 && take_operator(":")) {
      ++colons;
      continue;
    }
    if (bounds[colons] != nullptr) refuse("']'");
    bounds[colons] = expression();
  }
  if (colons == 0) {
    if (bounds[0] == nullptr) refuse("an expression");
    return std::move(bounds[0]);
  }
  auto made = node(ExprKind::kSlice);
  for (ExprPtr& bound : bounds) made->parts.push_back(std::move(bound));
  return sealed(std::move(made));
}

void Parser::arguments(Expr& call) {
  expect_operator("(");
  bool first = true;
  while (!at_operator(")")) {
    if (!first) expect_operator(",");
    first = false;
    if (at_operator(")")) break;
    if (at_operator("*") || at_operator("**"))
      raise("line {}: '{}' before an argument is not supported", peek().line, peek().text);
    const Token& after = peek(1);
    if (at(TokenKind::kName) && after.kind == TokenKind::kOperator && after.text == "=") {
      std::string name = next().text;
      next();
      call.named.emplace_back(std::move(name), expression());
    } else {
      if (!call.named.empty()) refuse("a named argument");
      call.parts.push_back(expression());
    }
  }
  expect_operator(")");
}

}  // namespace atom::text::jinja
