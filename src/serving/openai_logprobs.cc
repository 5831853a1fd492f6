#include "serving/openai_logprobs.h"

#include <algorithm>
#include <set>
#include <utility>

#include "serving/json_text.h"

namespace atom::serving {
namespace {

void append_comma(std::string& list) {
  if (!list.empty()) list += ',';
}

// "token": ..., "logprob": ..., "bytes": [...] of one; null where they are not known.
void append_entry(std::string& out, const engine::Logprob& one, const TokenTexts& texts) {
  out += "{\"token\":";
  append_json_string(out, texts.text(one.id));
  out += ",\"logprob\":";
  append_json_logprob(out, one.logprob);
  const std::optional<std::string> bytes = texts.bytes(one.id);
  if (!bytes) {
    out += ",\"bytes\":null";
    return;
  }
  out += ",\"bytes\":[";
  bool first = true;
  for (const char byte : *bytes)
    fmt::format_to(std::back_inserter(out), "{}{}", std::exchange(first, false) ? "" : ",",
                   static_cast<unsigned char>(byte));
  out += ']';
}

}  // namespace

void LogprobsText::add_chat(const TokenInfo& token, const TokenTexts& texts) {
  append_comma(tokens_);
  append_entry(tokens_, token.logprobs->of, texts);
  tokens_ += ",\"top_logprobs\":[";
  for (size_t i = 0; i < std::min(count_, token.logprobs->most.size()); ++i) {
    if (i > 0) tokens_ += ',';
    append_entry(tokens_, token.logprobs->most[i], texts);
    tokens_ += '}';
  }
  tokens_ += "]}";
}

void LogprobsText::add(const TokenInfo& token, const TokenTexts& texts) {
  if (chat_) {
    if (token.logprobs) add_chat(token, texts);
    return;
  }
  for (std::string* list : {&tokens_, &logprobs_, &most_, &offsets_}) append_comma(*list);
  append_json_string(tokens_, texts.text(token.id));
  fmt::format_to(std::back_inserter(offsets_), "{}", token.offset);
  if (!token.logprobs) {
    logprobs_ += "null";
    most_ += "null";
    return;
  }
  append_json_logprob(logprobs_, token.logprobs->of.logprob);
  // Tokens of equal text are one key: the most likely one's. The text's own token is always there.
  std::set<std::string> seen;
  const auto add_most = [&](const engine::Logprob& one) {
    const std::string text = texts.text(one.id);
    if (!seen.insert(text).second) return;
    most_ += seen.size() == 1 ? '{' : ',';
    append_json_string(most_, text);
    most_ += ':';
    append_json_logprob(most_, one.logprob);
  };
  for (size_t i = 0; i < std::min(count_, token.logprobs->most.size()); ++i)
    add_most(token.logprobs->most[i]);
  add_most(token.logprobs->of);
  most_ += '}';
}

std::string LogprobsText::take() {
  std::string out;
  if (chat_)
    out = fmt::format("{{\"content\":[{}]}}", tokens_);
  else
    out = fmt::format(
        "{{\"tokens\":[{}],\"token_logprobs\":[{}],\"top_logprobs\":[{}],\"text_offset\":[{}]}}",
        tokens_, logprobs_, most_, offsets_);
  for (std::string* list : {&tokens_, &logprobs_, &most_, &offsets_}) list->clear();
  return out;
}

std::string prompt_logprobs_text(std::span<const engine::Logprobs> logprobs, int count,
                                 const TokenTexts& texts) {
  std::string out = "[null";
  for (const engine::Logprobs& token : logprobs) {
    const auto most = std::min(token.most.size(), static_cast<size_t>(count));
    bool own = false;
    out += ",{";
    const auto add = [&](const engine::Logprob& one, int rank) {
      if (out.back() != '{') out += ',';
      fmt::format_to(std::back_inserter(out), "\"{}\":{{\"logprob\":", one.id);
      append_json_logprob(out, one.logprob);
      fmt::format_to(std::back_inserter(out), ",\"rank\":{},\"decoded_token\":", rank);
      append_json_string(out, texts.text(one.id));
      out += '}';
    };
    for (size_t i = 0; i < most; ++i) {
      own = own || token.most[i].id == token.of.id;
      add(token.most[i], static_cast<int>(i) + 1);
    }
    if (!own) add(token.of, token.rank);
    out += '}';
  }
  return out + "]";
}

}  // namespace atom::serving
