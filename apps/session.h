// What verbs share once the command line is read: threads and backend, a model with its tokenizer,
// texts, interruption, JSON out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/executor.h"
#include "base/json.h"
#include "checkpoint/model_files.h"
#include "command_line.h"
#include "model/open_files.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace atom::app {

// Options of several verbs.
struct CommonOptions {
  std::string backend = "cpu";
  std::string isa;
  std::string cuda_plugin;
  bool backend_given = false;  // on the command line, not by the environment
  bool isa_given = false;
  int threads = 0;
  bool pin = false;
  bool batch_invariant = false;
  std::string tuned;
  bool json = false;
  bool quiet = false;
  bool no_color = false;
};
void add_output_options(CLI::App& verb, CommonOptions& options);  // --json --quiet --no-color
void add_look_options(CLI::App& verb, CommonOptions& options);    // --quiet --no-color
void add_compute_options(
    CLI::App& verb,
    CommonOptions&
        options);  // --backend --isa --cuda-plugin --tuned --batch-invariant --threads --pin

// Configures the console and the log. First call of every verb.
void start(const CommonOptions& options);

// For verbs that call check_interrupted() while they work: Ctrl-C, SIGTERM and SIGHUP ask the
// program to stop, a second signal ends it at once; a closed pipe and a file size limit are
// errors of the write. Other verbs keep the default actions.
void catch_signals();
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

// After catch_signals(), for a server: SIGHUP asks it to read its files again, and no longer to stop.
void catch_hangups();
enum class Hangup { kNone, kReload, kTerminalGone };
Hangup
take_hangup();  // what SIGHUP asked for since the last call; the terminal that it was started from may be gone

// --backend and --isa. What the command line says beats a contradicting variable; two that come from
// the same place are a UsageError.
struct BackendChoice {
  std::string name;
  std::string isa;
  std::string cuda_plugin;
  bool batch_invariant = false;
  std::string tuned;
};
BackendChoice backend_choice(const CommonOptions& options);
std::unique_ptr<backend::Backend> open_backend(const BackendChoice& choice, Executor& executor);

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

// Tokenizer of a model folder or a GGUF file; nothing when it has none. Error: one that cannot be read.
std::optional<text::Tokenizer> find_tokenizer(const checkpoint::ModelFiles& files);
// The same. Error: there is none, or one with more ids than the model has rows. Fewer are a notice.
text::Tokenizer load_tokenizer(const checkpoint::ModelFiles& files,
                               const model::ModelConfig& config);
// A folder, a GGUF file, or a name of the Hugging Face Hub that the local cache has (checkpoint/hub_cache.h).
checkpoint::ModelFiles open_model(const std::string& name,
                                  model::Weights weights = model::Weights::kAsStored);
// `positions`: of the longest text, where that is known (model::extend_positions, which is told).
model::ModelConfig load_config(const checkpoint::ModelFiles& files, int64_t positions = 0);
void extend_config(model::ModelConfig& config, int64_t positions);
model::Scheme load_scheme(const checkpoint::ModelFiles& files, const model::ModelConfig& config);
std::unique_ptr<model::Model> load_weights(const checkpoint::ModelFiles& files, Runtime& runtime,
                                           std::optional<format::KvKind> kv, int64_t positions = 0);

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

// Tokens of a window: `wanted`, or 2048 bounded by what the model takes. Error, which begins with the
// name of the option: more than that.
int window_length(std::string_view option, std::optional<int> wanted,
                  const model::ModelConfig& config);
void require_window(const TokenizedText& text, int length);  // Error: the text is shorter

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
