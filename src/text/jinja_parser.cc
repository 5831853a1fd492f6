#include "text/jinja_parser.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

std::string shown_token(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kPrintBegin:
      return "'{{'";
    case TokenKind::kPrintEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a text in quotes";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return fmt::format("'{:.40}'", token.text);
  }
}

}  // namespace

Parser::Level::Level(Parser& parser) : parser_(parser) {
  if (parser.level_ >= kMaxNesting)
    raise("line {}: the template is nested deeper than {} levels", parser.peek().line, kMaxNesting);
  ++parser.level_;
}

const Token& Parser::peek(size_t ahead) const {
  return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
}

Token Parser::next() {
  Token token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::at_operator(std::string_view text) const {
  return at(TokenKind::kOperator) && peek().text == text;
}
bool Parser::at_name(std::string_view text) const {
  return at(TokenKind::kName) && peek().text == text;
}
bool Parser::take_operator(std::string_view text) {
  if (!at_operator(text)) return false;
  next();
  return true;
}
bool Parser::take_name(std::string_view text) {
  if (!at_name(text)) return false;
  next();
  return true;
}
void Parser::expect_operator(std::string_view text) {
  if (!take_operator(text)) refuse(fmt::format("'{}'", text));
}
void Parser::expect_name(std::string_view text) {
  if (!take_name(text)) refuse(fmt::format("'{}'", text));
}
std::string Parser::expect_identifier() {
  if (!at(TokenKind::kName)) refuse("a name");
  return next().text;
}

void Parser::refuse(std::string_view wanted) const {
  raise("line {}: expected {} and got {}", peek().line, wanted, shown_token(peek()));
}

std::unique_ptr<Statement> Parser::make(StmtKind kind) const {
  auto made = std::make_unique<Statement>();
  made->kind = kind;
  made->line = peek().line;
  return made;
}

Body Parser::parse_template() {
  Body all = body({});
  if (!at(TokenKind::kEnd)) refuse("the end of the template");
  return all;
}

Body Parser::body(std::initializer_list<std::string_view> ends) {
  Body out;
  while (!at(TokenKind::kEnd)) {
    if (at(TokenKind::kText)) {
      auto text = make(StmtKind::kText);
      text->text = next().text;
      out.push_back(std::move(text));
    } else if (at(TokenKind::kPrintBegin)) {
      auto print = make(StmtKind::kPrint);
      next();
      print->values.push_back(tuple(true, false));
      if (!at(TokenKind::kPrintEnd)) refuse("'}}'");
      next();
      out.push_back(std::move(print));
    } else {
      const Token& word = peek(1);
      if (word.kind == TokenKind::kName &&
          std::find(ends.begin(), ends.end(), word.text) != ends.end()) {
        next();
        return out;
      }
      next();
      out.push_back(statement());
    }
  }
  if (ends.size() > 0) refuse(fmt::format("'{{% {} %}}'", *(ends.end() - 1)));
  return out;
}

// Reads NAME and the end of its block.
void Parser::end_block(std::string_view name) {
  if (!name.empty()) expect_name(name);
  if (!at(TokenKind::kBlockEnd)) refuse("'%}'");
  next();
}

StatementPtr Parser::statement() {
  const Level level(*this);
  struct Known {
    std::string_view name;
    StatementPtr (Parser::*parse)();
  };
  constexpr Known kKnown[] = {
      {"if", &Parser::if_statement},     {"for", &Parser::for_statement},
      {"set", &Parser::set_statement},   {"macro", &Parser::macro_statement},
      {"call", &Parser::call_statement}, {"filter", &Parser::filter_statement},
      {"with", &Parser::with_statement}, {"generation", &Parser::scope_statement},
  };
  if (!at(TokenKind::kName)) refuse("the name of a tag");
  if (at_name("break")) return jump_statement(StmtKind::kBreak);
  if (at_name("continue")) return jump_statement(StmtKind::kContinue);
  for (const Known& known : kKnown) {
    if (at_name(known.name)) return (this->*known.parse)();
  }
  raise("line {}: the tag '{:.40}' is not known here", peek().line, peek().text);
}

StatementPtr Parser::jump_statement(StmtKind kind) {
  auto made = make(kind);
  if (loops_ == 0) raise("line {}: '{}' stands outside a loop", made->line, peek().text);
  next();
  end_block("");
  return made;
}

StatementPtr Parser::if_statement() {
  auto made = make(StmtKind::kIf);
  next();
  while (true) {
    made->values.push_back(tuple(false, false));
    end_block("");
    made->bodies.push_back(body({"elif", "else", "endif"}));
    if (!take_name("elif")) break;
  }
  if (take_name("else")) {
    end_block("");
    made->bodies.push_back(body({"endif"}));
  }
  end_block("endif");
  return made;
}

StatementPtr Parser::for_statement() {
  auto made = make(StmtKind::kFor);
  next();
  made->targets.push_back(target(false));
  expect_name("in");
  made->values.push_back(tuple(false, false));
  made->values.push_back(take_name("if") ? expression() : nullptr);
  made->recursive = take_name("recursive");
  end_block("");
  ++loops_;
  made->bodies.push_back(body({"else", "endfor"}));
  --loops_;
  if (take_name("else")) {
    end_block("");
    made->bodies.push_back(body({"endfor"}));
  }
  end_block("endfor");
  return made;
}

StatementPtr Parser::set_statement() {
  auto made = make(StmtKind::kSet);
  next();
  made->targets.push_back(target(true));
  if (take_operator("=")) {
    made->values.push_back(tuple(true, false));
    end_block("");
    return made;
  }
  made->kind = StmtKind::kSetBlock;
  ExprPtr through;
  while (take_operator("|")) through = filter(std::move(through));
  made->values.push_back(std::move(through));
  end_block("");
  made->bodies.push_back(body({"endset"}));
  end_block("endset");
  return made;
}

void Parser::signature(Statement& macro) {
  expect_operator("(");
  while (!at_operator(")")) {
    if (!macro.parameters.empty()) expect_operator(",");
    if (at_operator(")")) break;
    std::string name = expect_identifier();
    ExprPtr value;
    if (take_operator("=")) {
      value = expression();
    } else if (!macro.parameters.empty() && macro.parameters.back().second != nullptr) {
      raise("line {}: the parameter '{:.40}' needs a default, as the one before it has",
            peek().line, name);
    }
    macro.parameters.emplace_back(std::move(name), std::move(value));
  }
  expect_operator(")");
}

Body Parser::macro_body(Statement& macro, std::string_view end) {
  end_block("");
  const int loops = std::exchange(loops_, 0);
  const bool varargs = std::exchange(reads_varargs_, false);
  const bool kwargs = std::exchange(reads_kwargs_, false);
  Body inner = body({end});
  macro.extra_positional = std::exchange(reads_varargs_, varargs);
  macro.extra_named = std::exchange(reads_kwargs_, kwargs);
  loops_ = loops;
  end_block(end);
  return inner;
}

StatementPtr Parser::macro_statement() {
  auto made = make(StmtKind::kMacro);
  next();
  made->text = expect_identifier();
  signature(*made);
  made->bodies.push_back(macro_body(*made, "endmacro"));
  return made;
}

StatementPtr Parser::call_statement() {
  auto made = make(StmtKind::kCall);
  next();
  made->text = "caller";
  if (at_operator("(")) signature(*made);
  made->values.push_back(expression());
  if (made->values[0]->kind != ExprKind::kCall)
    raise("line {}: the tag 'call' needs a call", made->line);
  made->bodies.push_back(macro_body(*made, "endcall"));
  return made;
}

StatementPtr Parser::filter_statement() {
  auto made = make(StmtKind::kFilter);
  next();
  ExprPtr through = filter(nullptr);  // the first has no bar before it
  while (take_operator("|")) through = filter(std::move(through));
  made->values.push_back(std::move(through));
  end_block("");
  made->bodies.push_back(body({"endfilter"}));
  end_block("endfilter");
  return made;
}

StatementPtr Parser::with_statement() {
  auto made = make(StmtKind::kWith);
  next();
  while (!at(TokenKind::kBlockEnd)) {
    if (!made->targets.empty()) expect_operator(",");
    made->targets.push_back(target(false));
    expect_operator("=");
    made->values.push_back(expression());
  }
  end_block("");
  made->bodies.push_back(body({"endwith"}));
  end_block("endwith");
  return made;
}

ExprPtr Parser::single_target(bool with_namespace) {
  if (take_operator("(")) {
    const Level level(*this);
    ExprPtr inner = target(with_namespace);
    expect_operator(")");
    return inner;
  }
  auto made = node(ExprKind::kName);
  made->text = expect_identifier();
  for (const std::string_view word : {"true", "false", "none", "True", "False", "None"}) {
    if (made->text == word) raise("line {}: '{}' cannot be assigned to", made->line, word);
  }
  if (!with_namespace || !take_operator(".")) return made;
  auto field = node(ExprKind::kAttribute);
  field->parts.push_back(std::move(made));
  field->text = expect_identifier();
  return sealed(std::move(field));
}

ExprPtr Parser::target(bool with_namespace) {
  ExprPtr first = single_target(with_namespace);
  if (!at_operator(",")) return first;
  auto several = node(ExprKind::kTuple);
  several->parts.push_back(std::move(first));
  while (take_operator(",")) {
    if (at_operator("=") || at_name("in") || at_operator(")")) break;
    several->parts.push_back(single_target(with_namespace));
  }
  return sealed(std::move(several));
}

// {% generation %} marks what the assistant wrote, for training; to a server it is a scope.
StatementPtr Parser::scope_statement() {
  auto made = make(StmtKind::kScope);
  next();
  end_block("");
  const int loops = std::exchange(loops_, 0);
  made->bodies.push_back(body({"endgeneration"}));
  loops_ = loops;
  end_block("endgeneration");
  return made;
}

Body parse(std::string_view source, const Budgets& budgets) {
  if (source.size() > budgets.source_bytes)
    raise("line 1: the template has {} bytes, at most {} are read", source.size(),
          budgets.source_bytes);
  if (!is_valid_utf8(source)) raise("line 1: the template is not valid UTF-8");
  return Parser(tokenize(source)).parse_template();
}

}  // namespace atom::text::jinja
