#include "convert/gguf_vocabulary.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "checkpoint/chat_template_file.h"
#include "checkpoint/gguf_split.h"
#include "model/generation_config.h"
#include "text/sentencepiece_file.h"

namespace atom::convert {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{256} << 20;
constexpr float kUnlikely = -1000;  // score of tokens that no merge makes, as in llama.cpp's files
enum TokenType : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<int32_t> types;
  std::vector<float> scores;                           // of pieces only
  bool space_in_front = true, removes_spaces = false;  // of pieces
  std::vector<std::string> merges;
  const checkpoint::SplitRule* rule = nullptr;  // null: pieces
};

// Of the model's own tokens and those that are added to them.
void add_token(Vocabulary& out, std::string text, int32_t type, float score) {
  out.texts.push_back(std::move(text));
  out.types.push_back(type);
  out.scores.push_back(score);
}

int32_t added_type(const text::Tokenizer& tokenizer, int32_t id) {
  return tokenizer.is_special(id) ? kControl : kUserDefined;
}

// Ids up to the table's end: tokens that are added to the model's own, and names for those that are none.
void fill(const VocabularySource& source, Vocabulary& out) {
  const text::Tokenizer& tokenizer = *source.tokenizer;
  for (int32_t id = static_cast<int32_t>(out.texts.size()); id < source.rows; ++id) {
    const bool known = id < tokenizer.vocab_size() && tokenizer.has_token(id);
    if (known)
      add_token(out, std::string(tokenizer.id_to_token(id)), added_type(tokenizer, id), kUnlikely);
    else
      add_token(out, fmt::format("[PAD{}]", id), kUnused, kUnlikely);
  }
}

Vocabulary from_pieces(const VocabularySource& source, const std::string& bytes) {
  using File = text::SentencePieceFile;
  const std::string name = source.files->source_of("tokenizer.model");
  const File file = File::from_bytes(bytes, name);
  if (file.algorithm != File::Algorithm::kBpe)
    fail("{}: only SentencePiece's BPE has a form in GGUF, but this is a unigram model", name);
  if (!file.normalizer.charsmap.empty() || !file.normalizer.escape_whitespaces)
    fail("{}: rules of characters (normalizer_spec) have no form in GGUF", name);
  Vocabulary out;
  out.space_in_front = file.normalizer.add_dummy_prefix;
  out.removes_spaces = file.normalizer.remove_extra_whitespaces;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const text::SentencePiece& piece = file.pieces[i];
    const auto id = static_cast<int32_t>(i);
    if (source.tokenizer->id_to_token(id) != piece.text)
      fail("{}: piece {} is {}, but the tokenizer of the folder has {} there", name, i,
           checkpoint::gguf_quoted(piece.text),
           checkpoint::gguf_quoted(source.tokenizer->id_to_token(id)));
    int32_t type = static_cast<int32_t>(piece.kind);
    if (type == kNormal && source.tokenizer->is_special(id)) type = kControl;
    add_token(out, piece.text, type, piece.score);
  }
  fill(source, out);
  // Names may fill the end of the table, where they are left out again.
  const auto hole = std::find(out.types.begin(), out.types.end(), int32_t{kUnused});
  if (std::any_of(hole, out.types.end(), [](int32_t type) { return type != kUnused; }))
    fail("{}: id {} has no token, but later ones have, which has no form in GGUF", name,
         hole - out.types.begin());
  return out;
}

// The rule whose tokenizer.json cuts as `json` does, or null.
const checkpoint::SplitRule* rule_of(const Json& json) {
  const Json normalizer = json.value("normalizer", Json());
  const Json pre = json.value("pre_tokenizer", Json());
  if (!pre.is_object()) return nullptr;
  const Json parts =
      pre.value("type", "") == "Sequence" ? pre.value("pretokenizers", Json()) : Json::array({pre});
  if (!parts.is_array() || parts.empty()) return nullptr;
  const Json& last = parts.back();
  if (!last.is_object() || last.value("type", "") != "ByteLevel" ||
      last.value("add_prefix_space", true))
    return nullptr;
  if (!normalizer.is_null() && normalizer != Json{{"type", "NFC"}}) return nullptr;
  const auto fits = [&](const checkpoint::SplitRule& rule) {
    if (rule.patterns.size() + 1 != parts.size()) return false;
    for (size_t i = 0; i < rule.patterns.size(); ++i)
      if (parts[i] != checkpoint::split_part(rule.patterns[i])) return false;
    return rule.gpt2 == last.value("use_regex", true) && rule.nfc != normalizer.is_null();
  };
  const auto& rules = checkpoint::split_rules();
  const auto found = std::find_if(rules.begin(), rules.end(), fits);
  return found == rules.end() ? nullptr : &*found;
}

std::vector<std::string> merges_of(const Json& model) {
  std::vector<std::string> out;
  for (const Json& merge : model.at("merges"))
    out.push_back(merge.is_string()
                      ? merge.get<std::string>()
                      : merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>());
  return out;
}

// A rule that takes a word that is a token whole gives the ids of one that merges it, where merges make every token but
// those that are added.
bool makes_every_token(const Json& model, const std::vector<std::string>& merges,
                       const std::unordered_set<int64_t>& own) {
  std::unordered_set<std::string> made;
  for (const std::string& merge : merges) {
    std::string text = merge;
    text.erase(text.find(' '), 1);
    made.insert(std::move(text));
  }
  for (const auto& [text, id] : model.at("vocab").items()) {
    const auto begins = [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; };
    const bool is_character = std::count_if(text.begin(), text.end(), begins) == 1;
    if (!is_character && own.contains(id.get<int64_t>()) && !made.contains(text)) return false;
  }
  return true;
}

Vocabulary from_json(const VocabularySource& source, const Json& json, const std::string& name) {
  const Json& model = json.at("model");
  Vocabulary out;
  out.rule = rule_of(json);
  if (out.rule == nullptr)
    fail(
        "{}: GGUF has no name (tokenizer.ggml.pre) for the way in which its pre_tokenizer cuts a "
        "text",
        name);
  out.merges = merges_of(model);
  std::unordered_set<int64_t> own;
  for (const auto& [text, id] : model.at("vocab").items()) own.insert(id.get<int64_t>());
  for (const Json& token : json.value("added_tokens", Json::array()))
    own.erase(token.at("id").get<int64_t>());
  const bool whole = model.value("ignore_merges", false);
  if (whole != out.rule->ignore_merges && (whole || !makes_every_token(model, out.merges, own)))
    fail("{}: ignore_merges {} contradicts GGUF's rule {}", name, whole, out.rule->name);
  for (int32_t id = 0; id < std::min(source.rows, source.tokenizer->vocab_size()); ++id) {
    const bool known = source.tokenizer->has_token(id);
    if (known)
      add_token(out, std::string(source.tokenizer->id_to_token(id)),
                own.contains(id) ? kNormal : added_type(*source.tokenizer, id), 0);
    else
      add_token(out, fmt::format("[PAD{}]", id), kUnused, 0);
  }
  fill(source, out);
  return out;
}

bool is_byte_level(const Json& json) {
  const auto model = json.find("model");
  return model != json.end() && model->is_object() && model->value("type", "") == "BPE" &&
         !model->value("byte_fallback", false) && model->contains("vocab") &&
         model->contains("merges");
}

Vocabulary read(const VocabularySource& source) {
  const checkpoint::ModelFiles& files = *source.files;
  const auto json_bytes = files.small_file("tokenizer.json", kMaxBytes);
  const std::string name = files.source_of("tokenizer.json");
  const Json json = json_bytes ? parse_json(*json_bytes, {.source = name}) : Json::object();
  if (is_byte_level(json)) return from_json(source, json, name);
  if (const auto bytes = files.small_file("tokenizer.model", kMaxBytes))
    return from_pieces(source, *bytes);
  fail(
      "{}: only a byte-level BPE of tokenizer.json and the BPE of a tokenizer.model have a form in "
      "GGUF",
      files.folder().string());
}

void refuse_doubles(const VocabularySource& source, const Vocabulary& vocabulary) {
  std::unordered_set<std::string_view> seen;
  for (const std::string& text : vocabulary.texts)
    if (text.empty() || !seen.insert(text).second)
      fail("{}: the tokenizer has the token {} twice, which GGUF does not allow",
           source.files->folder().string(), checkpoint::gguf_quoted(text));
}

// What stands around a text, at most BOS in front and EOS behind; ids of BOS and of what ends a text.
void add_ends(const VocabularySource& source, const checkpoint::ChatTemplateFile& names,
              checkpoint::GgufKeys& keys) {
  const text::Tokenizer& tokenizer = *source.tokenizer;
  const checkpoint::ModelFiles& files = *source.files;
  const std::vector<int32_t> around = tokenizer.encode("");
  const bool has_bos = tokenizer.bos_id() && !around.empty() && around[0] == *tokenizer.bos_id();
  const size_t behind = around.size() - (has_bos ? 1 : 0);
  if (behind > 1)
    fail("{}: the tokenizer puts {} tokens around a text, which has no form in GGUF",
         files.folder().string(), around.size());
  const auto id_of = [&](const std::string& text, int64_t otherwise) {
    const auto id = text.empty() ? std::nullopt : tokenizer.token_to_id(text);
    return id ? int64_t{*id} : otherwise;
  };
  const Json& config = files.config();
  int64_t first = -1;
  if (const auto id = config.find("bos_token_id"); id != config.end() && id->is_number_integer())
    first = id->get<int64_t>();
  first = has_bos ? *tokenizer.bos_id() : id_of(names.bos_token, first);
  if (first >= 0 && first < source.rows)
    keys.u32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(first));
  keys.boolean("tokenizer.ggml.add_bos_token", has_bos);
  keys.boolean("tokenizer.ggml.add_eos_token", behind == 1);
  std::vector<int> ends;
  if (behind == 1) ends.push_back(around.back());
  if (const int64_t id = id_of(names.eos_token, -1); id >= 0)
    model::add_eos_ids(ends, {static_cast<int>(id)});
  model::add_eos_ids(ends,
                     model::parse_eos_ids(config, source.rows, files.source_of("config.json")));
  if (const auto& more = files.generation_config())
    model::add_eos_ids(
        ends, model::parse_eos_ids(*more, source.rows, files.source_of("generation_config.json")));
  constexpr const char* kNames[] = {"eos", "eot", "eom"};
  if (ends.size() > std::size(kNames))
    fail("{}: {} tokens end a text, but GGUF has keys for {}", files.folder().string(), ends.size(),
         std::size(kNames));
  for (size_t i = 0; i < ends.size(); ++i)
    keys.u32(fmt::format("tokenizer.ggml.{}_token_id", kNames[i]), static_cast<uint32_t>(ends[i]));
}

}  // namespace

void add_vocabulary(const VocabularySource& source, checkpoint::GgufKeys& keys) {
  const Vocabulary vocabulary = read(source);
  refuse_doubles(source, vocabulary);
  const bool pieces = vocabulary.rule == nullptr;
  keys.text("tokenizer.ggml.model", pieces ? "llama" : "gpt2");
  keys.text("tokenizer.ggml.pre", pieces ? "default" : vocabulary.rule->name);
  keys.texts("tokenizer.ggml.tokens", vocabulary.texts);
  if (pieces) {
    keys.f32s("tokenizer.ggml.scores", vocabulary.scores);
    keys.boolean("tokenizer.ggml.add_space_prefix", vocabulary.space_in_front);
    keys.boolean("tokenizer.ggml.remove_extra_whitespaces", vocabulary.removes_spaces);
  }
  keys.i32s("tokenizer.ggml.token_type", vocabulary.types);
  if (!pieces) keys.texts("tokenizer.ggml.merges", vocabulary.merges);
  const checkpoint::ChatTemplateFile chat = checkpoint::read_chat_template(*source.files);
  add_ends(source, chat, keys);
  for (size_t i = 0; pieces && i < vocabulary.types.size(); ++i)
    if (vocabulary.types[i] == kUnknown)
      keys.u32("tokenizer.ggml.unknown_token_id", static_cast<uint32_t>(i));
  if (chat.source) keys.text("tokenizer.chat_template", *chat.source);
}

}  // namespace atom::convert
