// vocab.json with merges.txt, and vocab.txt, to the tokenizer.json that means the same.
#include <unordered_set>

#include "base/error.h"
#include "text/tokenizer_files.h"
#include "text/tokenizer_settings.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// Qwen2's words: contractions, letters with what stands before them, single digits, the rest.
constexpr std::string_view kQwen2Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr size_t kMaxLineBytes = 65536;
constexpr size_t kShownBytes = 60;
constexpr std::string_view kSettingsName = "tokenizer_config.json";

struct Lines {
  std::string_view text;
  std::string_view source;
};

// Calls use(line, number) for each line, without its end. Error: a line that is not UTF-8 or too long.
template <typename Use>
void for_lines(const Lines& lines, Use&& use) {
  std::string_view text = lines.text;
  size_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.size() > kMaxLineBytes) {
      fail("{}: line {} must have at most {} bytes and has {}", lines.source, number, kMaxLineBytes,
           line.size());
    }
    if (!is_valid_utf8(line))
      fail("{}: line {} is not UTF-8: '{}'", lines.source, number,
           utf8_prefix(replace_invalid_utf8(line), kShownBytes));
    use(line, number);
  }
}

Json object_or_empty(const Json& json) { return json.is_object() ? json : Json::object(); }

Json byte_level(bool use_regex, bool prefix_space) {
  return {{"type", "ByteLevel"},
          {"use_regex", use_regex},
          {"add_prefix_space", prefix_space},
          {"trim_offsets", true}};
}

Json special_piece(const std::string& content) {
  return {{"SpecialToken", {{"id", content}, {"type_id", 0}}}};
}

// One token in front of the text and one behind it.
Json around(const Vocabulary& vocabulary, const std::string& front, const std::string& back,
            std::string_view source) {
  Json specials = Json::object();
  for (const std::string& token : {front, back}) {
    const int32_t id = vocabulary.find(token);
    if (id < 0) fail("{}: the special token '{}' is not in the vocabulary", source, token);
    specials[token] = {{"id", token},
                       {"ids", Json::array({static_cast<uint32_t>(id)})},
                       {"tokens", Json::array({token})}};
  }
  return {
      {"type", "TemplateProcessing"},
      {"single",
       {special_piece(front), {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, special_piece(back)}},
      {"special_tokens", specials}};
}

std::string token_or(const Json& config, const char* key, const char* otherwise,
                     std::string_view source) {
  const std::string token = special_token(config, key, source);
  return token.empty() ? otherwise : token;
}

[[noreturn]] void refuse_class(std::string_view name, std::string_view source) {
  fail("{}: the tokenizer_class '{}' is not supported without a tokenizer.json",
       beside(source, kSettingsName), name);
}

enum class Family { kGpt2, kQwen2, kRoberta };

Family family_of(const TokenizerSettings& settings, std::string_view source) {
  const std::string name = tokenizer_class(settings, source);
  if (name == "Qwen2Tokenizer") return Family::kQwen2;
  if (name == "RobertaTokenizer") return Family::kRoberta;
  if (name == "GPT2Tokenizer" || name == "CodeGenTokenizer") return Family::kGpt2;
  if (!name.empty()) {
    refuse_class(name, source);
  }
  const std::string model_config = beside(source, "config.json");
  const std::string type =
      get_string_or(object_or_empty(settings.model_config), "model_type", "gpt2", model_config);
  if (type.starts_with("qwen")) return Family::kQwen2;
  if (type == "roberta") return Family::kRoberta;
  if (type == "gpt2" || type == "opt") return Family::kGpt2;
  fail("{}: the model_type '{}' is not supported without a tokenizer.json or a tokenizer_class",
       model_config, type);
}

void read_merges(std::string_view text, const Vocabulary& vocabulary, std::string_view source,
                 ModelLists::Merges& merges) {
  std::string joined;
  for_lines({text, source}, [&](std::string_view line, size_t number) {
    if (line.empty() || line.starts_with("#version")) return;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string_view::npos) {
      fail("{}: line {} must be two tokens with one space between and is '{}'", source, number,
           utf8_prefix(line, kShownBytes));
    }
    const std::string_view left = line.substr(0, space);
    const std::string_view right = line.substr(space + 1);
    joined.assign(left).append(right);
    for (const std::string_view token : {left, right, std::string_view(joined)}) {
      if (vocabulary.find(token) < 0)
        fail("{}: line {}: the token '{}' is not in vocab.json", source, number,
             utf8_prefix(token, kShownBytes));
    }
    merges.parts.add(left);
    merges.parts.add(right);
  });
}

}  // namespace

Tokenizer tokenizer_from_vocab_merges(std::string_view vocab, std::string_view merges,
                                      std::string_view source, const TokenizerSettings& settings) {
  const Json config = object_or_empty(settings.config);
  const Family family = family_of(settings, source);
  const bool prefix_space =
      get_bool_or(config, "add_prefix_space", false, beside(source, kSettingsName));
  ModelLists lists;
  Json json = {{"model", {{"type", "BPE"}, {"merges", Json::array()}}}};
  json["model"]["vocab"] = parse_json(
      vocab, {.source = source}, {{{}, [&](const JsonEntry& entry) { lists.take_token(entry); }}});
  const Vocabulary vocabulary = vocabulary_of(json["model"], lists, source);
  read_merges(merges, vocabulary, beside(source, "merges.txt"), lists.merges);
  std::vector<OwnToken> own;
  const char* const defaults[] = {"<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<mask>"};
  for (const char* token : defaults) {
    const bool is_own = (*token == '<' && token[1] == '|') || family == Family::kRoberta;
    const int32_t id = is_own ? vocabulary.find(token) : -1;
    if (id >= 0) own.push_back({id, token});
  }
  json["added_tokens"] = added_tokens_of(settings, own, vocabulary, source);
  if (family == Family::kQwen2) {
    const Json split = {{"type", "Split"},
                        {"pattern", {{"Regex", kQwen2Words}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
    json["normalizer"] = {{"type", "NFC"}};
    json["pre_tokenizer"] = {{"type", "Sequence"},
                             {"pretokenizers", {split, byte_level(false, prefix_space)}}};
  } else {
    json["pre_tokenizer"] = byte_level(true, prefix_space);
  }
  if (family == Family::kRoberta) {
    json["post_processor"] = around(vocabulary, token_or(config, "cls_token", "<s>", source),
                                    token_or(config, "sep_token", "</s>", source), source);
  }
  json["decoder"] = {{"type", "ByteLevel"}};
  return Tokenizer::from_parsed(json, lists, std::string(source));
}

Tokenizer tokenizer_from_vocab_lines(std::string_view lines, std::string_view source,
                                     const TokenizerSettings& settings) {
  const Json config = object_or_empty(settings.config);
  const std::string name = tokenizer_class(settings, source);
  if (!name.empty() && name != "BertTokenizer") {
    refuse_class(name, source);
  }
  ModelLists lists;
  std::unordered_set<std::string_view> seen;
  for_lines({lines, source}, [&](std::string_view line, size_t number) {
    if (!seen.insert(line).second) {
      fail("{}: line {} has the token '{}' of a line before", source, number,
           utf8_prefix(line, kShownBytes));
    }
    const size_t id = seen.size() - 1;
    lists.take_token({.in_object = true, .key = line, .index = id, .value = id});
  });
  Json json;
  json["model"] = {{"type", "WordPiece"},
                   {"unk_token", token_or(config, "unk_token", "[UNK]", source)},
                   {"continuing_subword_prefix", "##"},
                   {"max_input_chars_per_word", 100},
                   {"vocab", Json::object()}};
  const Vocabulary vocabulary = vocabulary_of(json["model"], lists, source);
  std::vector<OwnToken> own;
  for (const char* token : {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}) {
    if (const int32_t id = vocabulary.find(token); id >= 0) own.push_back({id, token});
  }
  const std::string settings_source = beside(source, kSettingsName);
  json["added_tokens"] = added_tokens_of(settings, own, vocabulary, source);
  json["normalizer"] = {
      {"type", "BertNormalizer"},
      {"clean_text", true},
      {"handle_chinese_chars",
       get_bool_or(config, "tokenize_chinese_chars", true, settings_source)},
      {"strip_accents", config.contains("strip_accents") ? config["strip_accents"] : Json()},
      {"lowercase", get_bool_or(config, "do_lower_case", true, settings_source)}};
  json["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  json["post_processor"] = around(vocabulary, token_or(config, "cls_token", "[CLS]", source),
                                  token_or(config, "sep_token", "[SEP]", source), source);
  json["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  return Tokenizer::from_parsed(json, lists, std::string(source));
}

}  // namespace atom::text
