// The vocabulary of the command line: typed options with one-sentence refusals, help in one style,
// ATOM_* variables, exit codes.
//
//   CLI::App& verb = add_verb(program, {.name = "verify", .text = "Check the files of a model"});
//   text_option(verb, "--kv", kv, {"FORMAT", "KV-cache format: f16, int8, int4 or k8v4"});
//   whole_option(verb, "--windows", windows, {.min = 1, .max = 1000}, {"N", "Only the first N"});
//   on_run(program, verb, [options] { return verify(*options); });
//
// Every "--some-option" is also read from ATOM_SOME_OPTION; the command line wins. Only this folder
// reads the environment.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

// The parser (CLI11) is slow to compile: only command_line.cc sees it.
namespace CLI {  // NOLINT: the library's name
class App;
class Option;
}  // namespace CLI

namespace atom::app {

enum ExitCode : int {
  kSuccess = 0,
  kFailure = 1,       // the work failed: bad model, mismatch, I/O, no memory
  kUsage = 2,         // the command line is wrong
  kInternal = 3,      // a defect of the program
  kInterrupted = 130  // Ctrl-C; 128 + the number of the signal in general
};

// A wrong command line that only shows when the options are seen together.
class UsageError : public Error {
 public:
  using Error::Error;
};

template <typename... Args>
[[noreturn]] void usage_fail(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError(fmt::format(format, std::forward<Args>(args)...));
}

// The parser and what the chosen verb will run.
class Program {
 public:
  struct Texts {
    std::string name;
    std::string version;
    std::string description;
    std::string footer;  // of the help
  };
  explicit Program(const Texts& texts);
  ~Program();

  CLI::App& app() { return *app_; }
  void set_run(std::function<int()> run) { run_ = std::move(run); }
  // Reads the command line and runs the verb; its exit code. What the parser refuses is printed as
  // one error.
  int run(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
  std::function<int()> run_;
};

struct Help {
  std::string value;  // placeholder of the value: "N", "FILE"
  std::string text;
  std::string group = "Options";
  bool required = false;
};

struct Verb {
  std::string name;
  std::string text;    // one line
  std::string footer;  // below the options in its help
};
CLI::App& add_verb(CLI::App& parent, const Verb& verb);
CLI::App& add_verb_group(CLI::App& parent, const Verb& verb);  // one of its own verbs must follow
void on_run(Program& program, CLI::App& verb, std::function<int()> run);

// Positional arguments, required and not.
void argument(CLI::App& verb, const std::string& name, std::string& value, const std::string& text);
CLI::Option* optional_argument(CLI::App& verb, const std::string& name, std::string& value,
                               const std::string& text);

CLI::Option* text_option(CLI::App& verb, const std::string& name, std::string& value,
                         const Help& help);
CLI::Option* texts_option(CLI::App& verb, const std::string& name, std::vector<std::string>& values,
                          const Help& help);  // may be repeated
// One of several words.
CLI::Option* choice_option(CLI::App& verb, const std::string& name, std::string& value,
                           std::vector<std::string> words, const Help& help);
CLI::Option* flag_option(CLI::App& verb, const std::string& name, bool& value, const Help& help);

struct WholeRange {
  int64_t min = 0;
  int64_t max = INT32_MAX;
  int64_t multiple = 1;
};
CLI::Option* whole_option(CLI::App& verb, const std::string& name, int& value,
                          const WholeRange& range, const Help& help);
CLI::Option* whole_option(CLI::App& verb, const std::string& name, std::optional<int>& value,
                          const WholeRange& range, const Help& help);
CLI::Option* seed_option(CLI::App& verb, uint64_t& seed, const Help& help);

struct NumberRange {
  double min = 0;
  double max = 1;
  bool min_excluded = false;
};
CLI::Option* number_option(CLI::App& verb, const std::string& name, std::optional<double>& value,
                           const NumberRange& range, const Help& help);

// Parses; a word that is no number of the range throws UsageError with a sentence that begins with
// `name`.
int64_t parse_whole(const std::string& name, const std::string& word, const WholeRange& range);
double parse_number(const std::string& name, const std::string& word, const NumberRange& range);

std::string joined(const std::vector<std::string>& words);  // "a, b"

// "--max-tokens" -> "ATOM_MAX_TOKENS"
std::string environment_name(std::string_view option);

// "--config FILE": values of the verb's other options, read after the command line and the environment, which win. Only keys
// that are options of the verb, without the dashes.
void config_option(CLI::App& verb);

// Sets `given` when the option is met on the command line; not when a variable gives its value.
void note_source(CLI::App& verb, CLI::Option* option, bool& given);

// One of the two must be given, not both. One of the command line beats a variable for the other,
// whose value is cleared.
struct Alternative {
  CLI::Option* option;
  std::string* value;
};
void require_one_of(CLI::App& verb, const Alternative& a, const Alternative& b);

}  // namespace atom::app
