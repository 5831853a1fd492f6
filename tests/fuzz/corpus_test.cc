// Replays the corpora of the fuzz targets (fuzz/), and damages their files at random. Coverage-guided runs need clang: ./test --fuzz.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "fuzz/fuzz.h"
#include "testing/sanitized.h"

namespace atom::fuzz {
namespace {

struct Target {
  const char* name;
  void (*run)(std::string_view bytes);
  int mutations;  // as many as take a tenth of a second or so
};

constexpr Target kTargets[] = {{"config", run_config, 800},
                               {"conversation", run_conversation, 300},
                               {"gguf", run_gguf, 300},
                               {"http", run_http, 4000},
                               {"journal", run_journal, 300},
                               {"json", run_json, 2000},
                               {"model_folder", run_model_folder, 60},
                               {"openai", run_openai, 800},
                               {"piece_file", run_piece_file, 150},
                               {"recipe", run_recipe, 800},
                               {"regex", run_regex, 150},
                               {"safetensors", run_safetensors, 1500},
                               {"template", run_template, 300},
                               {"tokenizer", run_tokenizer, 200},
                               {"toml", run_toml, 300},
                               {"vocab_files", run_vocab_files, 150}};

void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

struct Corpus {
  std::vector<std::string> names, files;
};

Corpus corpus_of(const Target& target) {
  Corpus corpus;
  const auto folder = std::filesystem::path(ATOM_SOURCE_DIR) / "fuzz/corpus" / target.name;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    corpus.names.push_back(entry.path().string());
  std::sort(corpus.names.begin(), corpus.names.end());  // draws do not depend on the file system
  for (const std::string& name : corpus.names) corpus.files.push_back(read_file(name));
  return corpus;
}

// One to four changes: a byte, a stretch less, a stretch twice, a stretch of another file.
std::string damaged(const Corpus& corpus, Random& random) {
  constexpr size_t kStretch = 16;
  const auto& files = corpus.files;
  std::string bytes = files[random.below(files.size())];
  for (uint64_t changes = 1 + random.below(4); changes > 0; --changes) {
    const std::string& other = random.below(2) == 0 ? bytes : files[random.below(files.size())];
    const std::string piece =
        other.substr(random.below(other.size() + 1), 1 + random.below(kStretch));
    const size_t at = random.below(bytes.size() + 1);
    switch (random.below(4)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(random.next());
        break;
      case 1:
        bytes.erase(at, 1 + random.below(kStretch));
        break;
      case 2:
        bytes.insert(at, piece);
        break;
      default:
        bytes.replace(at, std::min(piece.size(), bytes.size() - at), piece);
    }
  }
  return bytes;
}

// False, with the bytes, where the target fails.
bool passes(const Target& target, const std::string& bytes, const std::string& origin) {
  try {
    target.run(bytes);
    return true;
  } catch (const std::exception& error) {
    ADD_FAILURE() << target.name << ": " << error.what() << "\nfrom " << origin << ":\n"
                  << ::testing::PrintToString(bytes);
    return false;
  }
}

class CorpusTest : public ::testing::TestWithParam<Target> {};

TEST_P(CorpusTest, EveryFilePasses) {
  const Corpus corpus = corpus_of(GetParam());
  ASSERT_FALSE(corpus.files.empty());
  for (size_t i = 0; i < corpus.files.size(); ++i)
    passes(GetParam(), corpus.files[i], corpus.names[i]);
}

TEST_P(CorpusTest, DamagedFilesPass) {
  const Corpus corpus = corpus_of(GetParam());
  ASSERT_FALSE(corpus.files.empty());
  Random random(20260727);
  for (int i = 0; i < GetParam().mutations / (testing::kSanitized ? 10 : 1); ++i)
    if (!passes(GetParam(), damaged(corpus, random), fmt::format("change {}", i))) break;
}

INSTANTIATE_TEST_SUITE_P(Fuzz, CorpusTest, ::testing::ValuesIn(kTargets),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace atom::fuzz
