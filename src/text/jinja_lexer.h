// Splits a template's source into tokens, with Jinja's rules for white space around tags
// (trim_blocks and lstrip_blocks on, one newline at the end dropped).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace atom::text::jinja {

enum class TokenKind {
  kText,
  kPrintBegin,
  kPrintEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,  // text: the value, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 0;
};

// Throws Failure with the line in front. The last token is kEnd.
std::vector<Token> tokenize(std::string_view source);

}  // namespace atom::text::jinja
