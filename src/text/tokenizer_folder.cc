// Which file of a model folder holds its tokenizer.
#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer.h"
#include "text/tokenizer_files.h"

namespace atom::text {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxVocabularyBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxSettingsBytes = uint64_t{16} << 20;

// A symbolic link to nothing counts as present: opening it then names the reason.
bool is_present(const fs::path& path) {
  std::error_code code;
  return fs::exists(fs::symlink_status(path, code));
}

Json read_object(const fs::path& path) {
  if (!is_present(path)) return nullptr;
  Json json = parse_json(read_file(path, kMaxSettingsBytes), {.source = path.string()});
  if (!json.is_object())
    fail("{}: must be a JSON object and is {}", path.string(), shown_json(json));
  return json;
}

}  // namespace

std::optional<fs::path> Tokenizer::find_file(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (is_present(folder / name)) return folder / name;
  }
  if (is_present(folder / "vocab.json") && is_present(folder / "merges.txt")) {
    return folder / "vocab.json";
  }
  if (is_present(folder / "vocab.txt")) return folder / "vocab.txt";
  return std::nullopt;
}

Tokenizer Tokenizer::from_folder(const fs::path& folder) {
  const std::optional<fs::path> path = find_file(folder);
  if (!path) {
    fail(
        "{}: the folder has no tokenizer: neither tokenizer.json nor tokenizer.model nor "
        "vocab.json with merges.txt nor vocab.txt",
        folder.string());
  }
  if (path->filename() == "tokenizer.json") return from_file(*path);
  const TokenizerSettings settings{read_object(folder / "tokenizer_config.json"),
                                   read_object(folder / "added_tokens.json"),
                                   read_object(folder / "config.json")};
  const std::string bytes = read_file(*path, kMaxVocabularyBytes);
  if (path->extension() == ".model") {
    return tokenizer_from_sentencepiece(bytes, path->string(), settings);
  }
  if (path->extension() == ".txt") {
    return tokenizer_from_vocab_lines(bytes, path->string(), settings);
  }
  return tokenizer_from_vocab_merges(bytes, read_file(folder / "merges.txt", kMaxVocabularyBytes),
                                     path->string(), settings);
}

}  // namespace atom::text
