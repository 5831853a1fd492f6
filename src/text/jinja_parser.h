// Tokens to a syntax tree; jinja_parser.cc has the statements, jinja_expressions.cc the expressions.
#pragma once

#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace atom::text::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Body parse_template();

 private:
  // Counts open levels of the source while it lives.
  class Level {
   public:
    explicit Level(Parser& parser);
    ~Level() { --parser_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };

  const Token& peek(size_t ahead = 0) const;
  Token next();
  bool at(TokenKind kind) const { return peek().kind == kind; }
  bool at_operator(std::string_view text) const;
  bool at_name(std::string_view text) const;
  bool take_operator(std::string_view text);
  bool take_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  std::string expect_identifier();
  [[noreturn]] void refuse(std::string_view wanted) const;

  // Statements. A body ends before a block that starts with one of `ends`.
  Body body(std::initializer_list<std::string_view> ends);
  void end_block(std::string_view name);
  StatementPtr statement();
  StatementPtr if_statement();
  StatementPtr for_statement();
  StatementPtr set_statement();
  StatementPtr macro_statement();
  StatementPtr call_statement();
  StatementPtr filter_statement();
  StatementPtr with_statement();
  StatementPtr scope_statement();
  StatementPtr jump_statement(StmtKind kind);
  void signature(Statement& macro);
  Body macro_body(Statement& macro, std::string_view end);
  std::unique_ptr<Statement> make(StmtKind kind) const;

  // Expressions.
  std::unique_ptr<Expr> node(ExprKind kind, std::vector<ExprPtr> parts = {}) const;
  ExprPtr sealed(std::unique_ptr<Expr> expr) const;
  ExprPtr expression(bool with_conditional = true);
  ExprPtr conditional();
  ExprPtr either();
  ExprPtr both();
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr binary(int level);
  ExprPtr unary(bool with_filter = true);
  ExprPtr primary();
  ExprPtr text_literal();
  ExprPtr number_literal();
  ExprPtr tuple(bool with_conditional, bool parenthesized);
  ExprPtr list_literal();
  ExprPtr dict_literal();
  ExprPtr call(ExprPtr callee);
  ExprPtr postfix(ExprPtr expr);
  ExprPtr filters(ExprPtr expr);
  ExprPtr filter(ExprPtr input);
  ExprPtr test(ExprPtr input);
  ExprPtr subscript(ExprPtr expr);
  ExprPtr slice_or_item();
  void arguments(Expr& call);
  ExprPtr target(bool with_namespace);
  ExprPtr single_target(bool with_namespace);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int level_ = 0;
  int loops_ = 0;  // around the current statement, within its macro
  bool reads_varargs_ = false, reads_kwargs_ = false;  // of the current macro
};

}  // namespace atom::text::jinja
