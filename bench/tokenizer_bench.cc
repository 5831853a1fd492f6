// Speed of encoding, and ids for comparing with other tokenizers.
//
//   atom_bench_tokenizer TOKENIZER TEXT [REPEATS]     megabytes per second of processor time
//   atom_bench_tokenizer TOKENIZER --ids < TEXTS      texts that end with a zero byte -> a line of
//                                                     ids each; --plain: without special tokens;
//                                                     --decode: lines of ids -> texts with a zero
//
// TOKENIZER: a model folder, a tokenizer.json or a tokenizer.model.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer.h"
#include "text/tokenizer_files.h"

namespace {

using atom::text::Tokenizer;

Tokenizer load(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return Tokenizer::from_folder(path);
  if (path.string().find(".model") != std::string::npos) {
    return atom::text::tokenizer_from_sentencepiece(atom::read_file(path), path.string(), {});
  }
  return Tokenizer::from_file(path);
}

void print_speed(const Tokenizer& tokenizer, const std::string& text, int repeats) {
  double best = 1e300;
  size_t ids = 0;
  for (int i = 0; i < repeats; ++i) {
    const std::clock_t start = std::clock();  // of this process: others may use the machine
    ids = tokenizer.encode(text).size();
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  std::printf("%.1f MB/s, %zu bytes, %zu ids\n", static_cast<double>(text.size()) / 1e6 / best,
              text.size(), ids);
}

void print_ids(const Tokenizer& tokenizer, bool special) {
  std::string text;
  while (std::getline(std::cin, text, '\0')) {
    std::string line;
    try {
      for (const int32_t id : tokenizer.encode(text, {.add_special_tokens = special})) {
        line += std::to_string(id) + ' ';
      }
    } catch (const atom::Error&) {
      line = "error";
    }
    std::cout << line << '\n';
  }
}

void print_texts(const Tokenizer& tokenizer) {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::vector<int32_t> ids;
    for (int32_t id = 0; words >> id;) ids.push_back(id);
    std::cout << tokenizer.decode(ids) << '\0';
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s TOKENIZER TEXT [REPEATS] | --ids | --plain | --decode\n",
                 argv[0]);
    return 2;
  }
  try {
    const Tokenizer tokenizer = load(argv[1]);
    const std::string what = argv[2];
    if (what == "--decode") {
      print_texts(tokenizer);
    } else if (what == "--ids" || what == "--plain") {
      print_ids(tokenizer, what == "--ids");
    } else {
      print_speed(tokenizer, atom::read_file(what), argc > 3 ? std::stoi(argv[3]) : 5);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
