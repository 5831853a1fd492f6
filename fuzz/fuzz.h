// What the fuzz targets share. A target is one function of bytes that nobody vouches for:
//
//   void atom::fuzz::run_json(std::string_view bytes);     // fuzz/json.cc
//
// It feeds them to the reader that it is named after. Returning is passing; an atom::Error is how a reader refuses and is caught
// in the target. Anything else fails: another exception (InvariantError of check() included), a fault, a sanitizer's report, a
// limit on time or memory. Targets keep nothing from one call to the next but what they read only.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "text/unicode.h"

namespace atom::fuzz {

void run_config(std::string_view bytes);
void run_conversation(std::string_view bytes);
void run_gguf(std::string_view bytes);
void run_http(std::string_view bytes);
void run_journal(std::string_view bytes);
void run_json(std::string_view bytes);
void run_model_folder(std::string_view bytes);
void run_openai(std::string_view bytes);
void run_piece_file(std::string_view bytes);
void run_recipe(std::string_view bytes);
void run_regex(std::string_view bytes);
void run_safetensors(std::string_view bytes);
void run_template(std::string_view bytes);
void run_tokenizer(std::string_view bytes);
void run_toml(std::string_view bytes);
void run_vocab_files(std::string_view bytes);

// Runs `read`. False: it refused what it read.
template <typename Read>
bool accepts(const Read& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    check(error.what()[0] != '\0', "a refusal says nothing");
    return false;
  }
}

// The same; what a refusal says can stand in JSON, as it does in a server's answer.
template <typename Read>
bool accepts_or_says_why(const Read& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    check(text::is_valid_utf8(error.what()), "a refusal is not UTF-8");
    return false;
  }
}

// Takes the first byte from `bytes` as a number below `bound`; 0 of none.
inline size_t take_choice(std::string_view& bytes, size_t bound) {
  if (bytes.empty()) return 0;
  const auto byte = static_cast<unsigned char>(bytes.front());
  bytes.remove_prefix(1);
  return byte % bound;
}

// A file without a disk, for readers that want a path. Its path is good while it lives.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  int descriptor_;
  std::string path_;
};

// Eight bytes of length, `header`, and so many bytes of data: headers change more easily without their length.
std::string safetensors_of(std::string_view header, size_t data_bytes);

}  // namespace atom::fuzz
