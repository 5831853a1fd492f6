// Speed of encoding, and ids for comparing with other tokenizers.
//
//   atom_bench_tokenizer TOKENIZER TEXT [REPEATS]     megabytes per second of processor time
//   atom_bench_tokenizer TOKENIZER --ids < TEXTS      texts that end with a zero byte -> a line of
//                                                     ids each; --plain: without special tokens;
//                                                     --spans: id,begin,end of these
//   atom_bench_tokenizer TOKENIZER --decode < IDS     lines of ids -> texts with a zero; --stream:
//                                                     decoded one by one
//
// TOKENIZER: a model folder, a tokenizer.json or a tokenizer.model.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"
#include "text/tokenizer_files.h"
#include "text/unicode.h"

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

// "id,begin,end" for each; fails where encode gives other ids.
std::string spans_of(const Tokenizer& tokenizer, const std::string& text) {
  const auto encoding = tokenizer.encode_with_spans(text, {.add_special_tokens = false});
  if (encoding.ids != tokenizer.encode(text, {.add_special_tokens = false})) {
    throw std::runtime_error("ids with and without spans differ");
  }
  std::string line;
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    line +=
        fmt::format("{},{},{} ", encoding.ids[i], encoding.spans[i].begin, encoding.spans[i].end);
  }
  return line;
}

void print_ids(const Tokenizer& tokenizer, const std::string& what) {
  std::string text;
  while (std::getline(std::cin, text, '\0')) {
    std::string line;
    try {
      if (what == "--spans") {
        line = spans_of(tokenizer, text);
      } else {
        for (const int32_t id : tokenizer.encode(text, {.add_special_tokens = what == "--ids"})) {
          line += std::to_string(id) + ' ';
        }
      }
    } catch (const atom::Error&) {
      line = "error";
    }
    std::cout << line << '\n';
  }
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  atom::text::StreamDecoder stream(tokenizer);
  std::string text;
  const auto add = [&](const std::string& part) {
    if (!atom::text::is_valid_utf8(part)) throw std::runtime_error("half a character is streamed");
    text += part;
  };
  for (const int32_t id : ids) add(stream.push(id));
  add(stream.flush());
  return text;
}

void print_texts(const Tokenizer& tokenizer, bool stream) {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::vector<int32_t> ids;
    for (int32_t id = 0; words >> id;) ids.push_back(id);
    std::cout << (stream ? streamed(tokenizer, ids) : tokenizer.decode(ids)) << '\0';
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(
        stderr,
        "usage: %s TOKENIZER TEXT [REPEATS] | --ids | --plain | --spans | --decode | --stream\n",
        argv[0]);
    return 2;
  }
  try {
    const Tokenizer tokenizer = load(argv[1]);
    const std::string what = argv[2];
    if (what == "--decode" || what == "--stream") {
      print_texts(tokenizer, what == "--stream");
    } else if (what == "--ids" || what == "--plain" || what == "--spans") {
      print_ids(tokenizer, what);
    } else {
      print_speed(tokenizer, atom::read_file(what), argc > 3 ? std::stoi(argv[3]) : 5);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
