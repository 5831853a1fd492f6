#include "text/model_lists.h"

#include "base/error.h"

namespace atom::text {
namespace {

std::string beginning(const JsonEntry& entry) {
  const std::string value = shown_json(entry.value);
  return entry.in_object ? fmt::format("{{{}:{}", shown_json(Json(entry.key)), value) : "[" + value;
}

bool is_text_pair(const Json& value) {
  return value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string();
}

const std::string& text_of(const Json& value) { return value.get_ref<const std::string&>(); }

}  // namespace

std::vector<JsonStream> ModelLists::streams(const std::vector<std::string_view>& below) {
  std::vector<std::string_view> vocab = below, merge = below;
  vocab.push_back("vocab");
  merge.push_back("merges");
  return {{vocab, [this](const JsonEntry& entry) { take_token(entry); }},
          {merge, [this](const JsonEntry& entry) { take_merge(entry); }}};
}

void ModelLists::take_token(const JsonEntry& entry) {
  const Json& value = entry.value;
  if (entry.index == 0) tokens.begin = beginning(entry);
  if (tokens.texts.empty()) tokens.by_id = entry.in_object;
  // Two lists under one key: an error at the end of the object around them.
  if (!tokens.fault.empty() || tokens.by_id != entry.in_object) return;
  if (entry.in_object) {
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<uint64_t>() > INT32_MAX)) {
      tokens.fault = fmt::format("the id of the token '{}' must be an integer below 2^31 and is {}",
                                 entry.key, shown_json(value));
      return;
    }
    tokens.texts.add(entry.key);
    tokens.ids.push_back(value.get<int64_t>());
  } else {
    if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_number()) {
      tokens.fault = fmt::format("vocab[{}]: must be a token and its score and is {}", entry.index,
                                 shown_json(value));
      return;
    }
    tokens.texts.add(text_of(value[0]));
    tokens.scores.push_back(value[1].get<double>());
  }
}

// "left right" or ["left", "right"].
void ModelLists::take_merge(const JsonEntry& entry) {
  const Json& value = entry.value;
  if (entry.index == 0) merges.begin = beginning(entry);
  if (!merges.fault.empty() || entry.in_object) return;
  if (is_text_pair(value)) {
    merges.parts.add(text_of(value[0]));
    merges.parts.add(text_of(value[1]));
    return;
  }
  if (value.is_string() && text_of(value).starts_with("#version")) {
    merges.version_lines.push_back(entry.index);
    return;
  }
  const std::string_view text = value.is_string() ? text_of(value) : std::string_view();
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
    merges.fault = fmt::format(
        "merges[{}]: must be two tokens with one space between or an array of two strings and is "
        "{}",
        entry.index, shown_json(value));
    return;
  }
  merges.parts.add(text.substr(0, space));
  merges.parts.add(text.substr(space + 1));
}

std::string shown_list(const Json& model, std::string_view key, const std::string& begin) {
  const auto list = model.find(key);
  if (list == model.end() || begin.empty() || !list->is_structured())
    return shown_field(model, key);
  return fmt::format("is {}, ...{}", begin, list->is_object() ? '}' : ']');
}

Vocabulary vocabulary_of(const Json& model, const ModelLists& lists, std::string_view source) {
  const ModelLists::Tokens& tokens = lists.tokens;
  const auto vocab = model.find("vocab");
  if (vocab == model.end()) fail("{}: vocab is missing", source);
  if (!vocab->is_object() || tokens.begin.empty())
    fail("{}: vocab must be an object with at least one token and {}", source,
         shown_list(model, "vocab", tokens.begin));
  if (!tokens.fault.empty()) fail("{}: {}", source, tokens.fault);
  Vocabulary vocabulary;
  vocabulary.limit_for(tokens.texts.size());
  for (size_t i = 0; i < tokens.texts.size(); ++i)
    vocabulary.add(tokens.texts[i], tokens.ids[i], source);
  return vocabulary;
}

}  // namespace atom::text
