// What verbs share once the command line is read: threads and backend, a model with its tokenizer,
// texts, interruption, JSON out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/executor.h"
#include "base/json.h"
#include "checkpoint/model_files.h"
#include "command_line.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace atom::app {

// Options of several verbs.
struct CommonOptions {
  std::string backend = "cpu";
  std::string isa;
  int threads = 0;
  bool pin = false;
  bool json = false;
  bool quiet = false;
  bool no_color = false;
};
void add_output_options(CLI::App& verb, CommonOptions& options);  // --json --quiet --no-color
void add_compute_options(CLI::App& verb,
                         CommonOptions& options);  // --backend --isa --threads --pin

// Configures the console and the log, catches Ctrl-C. First call of every verb.
void start(const CommonOptions& options);

// Ctrl-C and SIGTERM ask the program to stop; a second Ctrl-C ends it at once.
class Interrupted : public std::exception {
 public:
  explicit Interrupted(int signal) : signal_(signal) {}
  int exit_code() const { return 128 + signal_; }
  const char* what() const noexcept override { return "interrupted"; }

 private:
  int signal_;
};
bool interrupted();
void check_interrupted();  // throws Interrupted

// Threads and the backend on them. Not movable: the backend keeps a pointer to the executor.
class Runtime {
 public:
  explicit Runtime(const CommonOptions& options);
  Executor& executor() { return executor_; }
  backend::Backend& backend() { return *backend_; }
  void show_fallbacks() const;  // as notices

 private:
  Executor executor_;
  std::unique_ptr<backend::Backend> backend_;
};

// Tokenizer of a model folder. Error: no tokenizer.json, or one with more ids than the model has
// rows. Fewer are a notice.
text::Tokenizer load_tokenizer(const checkpoint::ModelFiles& files,
                               const model::ModelConfig& config);
model::ModelConfig load_config(const checkpoint::ModelFiles& files);
model::Scheme load_scheme(const checkpoint::ModelFiles& files, const model::ModelConfig& config);
std::unique_ptr<model::Model> load_weights(const checkpoint::ModelFiles& files, Runtime& runtime,
                                           std::optional<format::KvKind> kv);

// A text and its ids, special tokens included.
struct TokenizedText {
  std::string name;
  std::string sha256;
  std::vector<int32_t> ids;
};
TokenizedText tokenize_file(const std::string& path, const text::Tokenizer& tokenizer);
TokenizedText tokenize_text(std::string name, std::string_view bytes,
                            const text::Tokenizer& tokenizer);
// --calibration FILE, or the text inside the program when `path` is empty.
TokenizedText calibration_text(const std::string& path, const text::Tokenizer& tokenizer);

// The formats of a model in words: "int4.g128 + 128 int8", "bf16", "mixed: ...".
struct FormatWords {
  std::string weights;
  std::string inputs;
  std::string kv;
};
// Of one linear.
FormatWords linear_words(const checkpoint::ModelFiles& files, const model::Scheme& scheme,
                         const std::string& module);
FormatWords format_words(const checkpoint::ModelFiles& files, const model::ModelConfig& config,
                         const model::Scheme& scheme);
Json formats_json(const FormatWords& words, const backend::Backend& backend);

void print_json(const Json& json);  // one document on stdout
int64_t peak_rss();                 // bytes

}  // namespace atom::app
