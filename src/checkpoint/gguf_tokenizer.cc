#include "checkpoint/gguf_tokenizer.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/gguf_split.h"

namespace atom::checkpoint {
namespace {

constexpr std::string_view kModelKey = "tokenizer.ggml.model";
constexpr std::string_view kPreKey = "tokenizer.ggml.pre";
constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::string_view kTypesKey = "tokenizer.ggml.token_type";
constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
constexpr std::string_view kMergesKey = "tokenizer.ggml.merges";

// Types of tokens; 2 is the unknown and 3 a control token.
constexpr uint8_t kNormal = 1, kUserDefined = 4, kUnused = 5, kByte = 6;

struct Tokens {
  std::vector<std::string_view> texts;
  std::vector<uint8_t> types;  // of each
};

Tokens read_tokens(const GgufFile& file) {
  Tokens out;
  const auto texts = file.texts(kTokensKey);
  if (!texts || texts->empty()) file.refuse_key(kTokensKey, "it must be an array of strings");
  out.texts = *texts;
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < out.texts.size(); ++i) {
    if (out.texts[i].empty()) file.refuse_key(kTokensKey, fmt::format("token {} is empty", i));
    if (!seen.insert(out.texts[i]).second)
      file.refuse_key(kTokensKey, fmt::format("token {} is the text of another one", i));
  }
  out.types.assign(out.texts.size(), kNormal);
  const auto types = file.numbers(kTypesKey);
  if (types && types->size() != out.texts.size())
    file.refuse_key(kTypesKey,
                    fmt::format("it must have {} elements, one for each token, but has {}",
                                out.texts.size(), types->size()));
  for (size_t i = 0; types && i < out.types.size(); ++i) {
    const double type = (*types)[i];
    if (!(type >= kNormal && type <= kByte) || type != static_cast<int>(type))
      file.refuse_key(kTypesKey, fmt::format("element {} must be in [1, 6], but is {}", i, type));
    out.types[i] = static_cast<uint8_t>(type);
  }
  return out;
}

std::optional<int64_t> token_id(const GgufFile& file, std::string_view word, size_t tokens) {
  return file.integer(fmt::format("tokenizer.ggml.{}_token_id", word),
                      {.min = 0, .max = static_cast<int64_t>(tokens) - 1});
}

const SplitRule& split_rule(const GgufFile& file) {
  const std::string_view name = file.text(kPreKey).value_or("default");
  std::string known;
  for (const SplitRule& rule : split_rules()) {
    if (rule.name == name) return rule;
    known += (known.empty() ? "" : ", ") + std::string(rule.name);
  }
  file.refuse_key(kPreKey, fmt::format("it must be one of {}, but is '{}'", known, name));
}

bool is_sentencepiece(const GgufFile& file) {
  const std::string_view model = file.text(kModelKey).value_or("");
  if (model != "llama" && model != "gpt2")
    file.refuse_key(kModelKey, fmt::format("it must be llama or gpt2, but is '{}'", model));
  return model == "llama";
}

// What stands in front of a text and behind it.
struct Ends {
  std::optional<int64_t> bos, eos;
};

Ends ends_of(const GgufFile& file, size_t tokens) {
  const bool usual = is_sentencepiece(file) || split_rule(file).adds_bos;
  Ends out;
  if (file.boolean("tokenizer.ggml.add_bos_token").value_or(usual))
    out.bos = token_id(file, "bos", tokens);
  if (file.boolean("tokenizer.ggml.add_eos_token").value_or(false))
    out.eos = token_id(file, "eos", tokens);
  return out;
}

// Fields of a protobuf message.
class ProtoText {
 public:
  void integer(uint32_t number, uint64_t value) {
    varint(uint64_t{number} << 3);
    varint(value);
  }
  void bytes(uint32_t number, std::string_view text) {
    varint(uint64_t{number} << 3 | 2);
    varint(text.size());
    out_ += text;
  }
  void number32(uint32_t number, float value) {
    varint(uint64_t{number} << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) out_ += static_cast<char>(bits >> shift & 0xFF);
  }
  const std::string& text() const { return out_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
    out_ += static_cast<char>(value);
  }
  std::string out_;
};

std::string sentencepiece_file(const GgufFile& file) {
  Tokens tokens = read_tokens(file);
  const auto scores = file.numbers(kScoresKey);
  if (!scores || scores->size() != tokens.texts.size())
    file.refuse_key(
        kScoresKey,
        fmt::format("it must have {} elements, one for each token, but {}", tokens.texts.size(),
                    scores ? fmt::format("has {}", scores->size()) : "is missing"));
  // Unused tokens at the end only fill the model's table.
  while (!tokens.types.empty() && tokens.types.back() == kUnused) tokens.types.pop_back();
  ProtoText out;
  bool has_bytes = false;
  for (size_t i = 0; i < tokens.types.size(); ++i) {
    ProtoText piece;
    piece.bytes(1, tokens.texts[i]);
    piece.number32(2, static_cast<float>((*scores)[i]));
    piece.integer(3, tokens.types[i]);
    out.bytes(1, piece.text());
    has_bytes = has_bytes || tokens.types[i] == kByte;
  }
  ProtoText trainer;
  trainer.integer(3, 2);  // BPE
  trainer.integer(35, has_bytes ? 1 : 0);
  for (const auto& [number, word] : {std::pair(40U, "unknown"), std::pair(41U, "bos"),
                                     std::pair(42U, "eos"), std::pair(43U, "padding")})
    trainer.integer(number,
                    static_cast<uint64_t>(token_id(file, word, tokens.types.size()).value_or(-1)));
  out.bytes(2, trainer.text());
  ProtoText normalizer;
  normalizer.bytes(1, "identity");
  if (const auto map = file.bytes("tokenizer.ggml.precompiled_charsmap"); map && !map->empty())
    normalizer.bytes(2, *map);
  const auto flag = [&](uint32_t number, const char* key, bool usual) {
    normalizer.integer(number, file.boolean(key).value_or(usual) ? 1 : 0);
  };
  flag(3, "tokenizer.ggml.add_space_prefix", true);
  flag(4, "tokenizer.ggml.remove_extra_whitespaces", false);
  normalizer.integer(5, 1);
  out.bytes(3, normalizer.text());
  return out.text();
}

Json around_text(const GgufFile& file, const Tokens& tokens) {
  const Ends ends = ends_of(file, tokens.texts.size());
  if (!ends.bos && !ends.eos) return nullptr;
  Json single = Json::array(), specials = Json::object();
  const auto add = [&](const std::optional<int64_t>& id) {
    if (!id) return;
    const std::string text(tokens.texts[static_cast<size_t>(*id)]);
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    specials[text] = {{"id", text}, {"ids", Json::array({*id})}, {"tokens", Json::array({text})}};
  };
  add(ends.bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(ends.eos);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", Json::array()},
          {"special_tokens", specials}};
}

// The lists of a tokenizer.json, written as text: as JSON values each of their entries would take ten times its bytes.
class ListWriter {
 public:
  explicit ListWriter(std::string& out) : out_(out) {}
  void add(std::string_view entry) {
    if (!std::exchange(first_, false)) out_ += ',';
    out_ += entry;
  }

 private:
  std::string& out_;
  bool first_ = true;
};

bool is_in_vocab(uint8_t type) { return type == kNormal || type == kByte; }

void write_vocab(const Tokens& tokens, std::string& out) {
  ListWriter list(out);
  for (size_t i = 0; i < tokens.texts.size(); ++i)
    if (is_in_vocab(tokens.types[i]))
      list.add(fmt::format("{}:{}", Json(tokens.texts[i]).dump(), i));
}

void write_added(const Tokens& tokens, std::string& out) {
  ListWriter list(out);
  for (size_t i = 0; i < tokens.texts.size(); ++i) {
    const uint8_t type = tokens.types[i];
    if (type != kUnused && !is_in_vocab(type))
      list.add(fmt::format(R"({{"id":{},"content":{},"single_word":false,"lstrip":false,)"
                           R"("rstrip":false,"normalized":false,"special":{}}})",
                           i, Json(tokens.texts[i]).dump(), type != kUserDefined));
  }
}

void write_merges(const GgufFile& file, std::string& out) {
  const auto merges = file.texts(kMergesKey);
  if (!merges) file.refuse_key(kMergesKey, "it must be an array of strings");
  ListWriter list(out);
  for (const std::string_view merge : *merges) list.add(Json(merge).dump());
}

// Everything but the lists.
Json byte_level_frame(const GgufFile& file, const Tokens& tokens, const SplitRule& rule) {
  Json parts = Json::array();
  for (const std::string_view pattern : rule.patterns) parts.push_back(split_part(pattern));
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", rule.gpt2}};
  parts.push_back(byte_level);
  Json json;
  json["version"] = "1.0";
  json["truncation"] = json["padding"] = nullptr;
  json["normalizer"] = rule.nfc ? Json{{"type", "NFC"}} : Json();
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
  json["post_processor"] = around_text(file, tokens);
  json["decoder"] = byte_level;
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", rule.ignore_merges}};
  return json;
}

std::string byte_level_file(const GgufFile& file) {
  const Tokens tokens = read_tokens(file);
  std::string out = byte_level_frame(file, tokens, split_rule(file)).dump();
  // The model is the last member of the frame, and its lists are its last ones.
  check(out.ends_with("}}"), "the frame of a tokenizer ends with its model");
  out.resize(out.size() - 2);
  out += ",\"vocab\":{";
  write_vocab(tokens, out);
  out += "},\"merges\":[";
  write_merges(file, out);
  out += "]},\"added_tokens\":[";
  write_added(tokens, out);
  out += "]}";
  return out;
}

std::string settings_file(const GgufFile& file) {
  const auto texts = file.texts(kTokensKey).value_or(std::vector<std::string_view>());
  const bool pieces = is_sentencepiece(file);
  const Ends ends = ends_of(file, texts.size());
  Json json = {{"add_bos_token", ends.bos.has_value()}, {"add_eos_token", ends.eos.has_value()}};
  for (const auto& [word, key] :
       {std::pair("bos", "bos_token"), std::pair("eos", "eos_token"),
        std::pair("unknown", "unk_token"), std::pair("padding", "pad_token")})
    if (const auto id = token_id(file, word, texts.size()))
      json[key] = texts[static_cast<size_t>(*id)];
  // llama.cpp puts the space in front of every stretch between special tokens.
  if (pieces) json["legacy"] = true;
  json["tokenizer_class"] = pieces ? "LlamaTokenizer" : "PreTrainedTokenizerFast";
  if (const auto chat = file.text("tokenizer.chat_template")) json["chat_template"] = *chat;
  return json.dump(2) + "\n";
}

}  // namespace

std::optional<std::string> gguf_tokenizer_file(const GgufFile& file, std::string_view name) {
  const bool pieces = name == "tokenizer.model", json = name == "tokenizer.json";
  if (!pieces && !json && name != "tokenizer_config.json") return std::nullopt;
  if (!file.has(kModelKey)) return std::nullopt;
  if (!pieces && !json) return settings_file(file);
  if (is_sentencepiece(file) != pieces) return std::nullopt;
  return pieces ? sentencepiece_file(file) : byte_level_file(file);
}

}  // namespace atom::checkpoint
