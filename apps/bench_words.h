// What the verbs of `atom bench` read from the command line: lists of words and numbers, shapes of models, formats.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "command_line.h"
#include "model/config.h"
#include "model/scheme.h"
#include "session.h"

namespace atom::app {

// "a,b" -> {"a", "b"}. UsageError that begins with `option`: an empty list or word.
std::vector<std::string> word_list(const std::string& option, const std::string& text);
std::vector<int> whole_list(const std::string& option, const std::string& text,
                            const WholeRange& range);
// Words of a given set.
std::vector<std::string> choice_list(const std::string& option, const std::string& text,
                                     const std::vector<std::string>& known);

// The sizes of a public model by its name, or HIDDENxINTERMEDIATE for a dense one with heads of 128 (or 64), 32 layers
// and a vocabulary of 32000.
struct NamedShape {
  std::string name;
  model::ModelConfig config;
};
std::vector<NamedShape> shape_list(const std::string& option, const std::string& text);
std::vector<std::string> shape_names();  // of the public ones

// Formats that a preset of `atom quantize` gives a model; "fp" is w16a16. `kv` "": the preset's.
std::vector<std::string> bench_presets();
model::Scheme bench_scheme(const std::string& preset, const std::string& method,
                           const std::string& kv, const model::ModelConfig& config);
std::string kv_word(const model::Scheme& scheme);  // "int4, open page"

// Options of both verbs.
struct BenchOptions {
  CommonOptions common;
  std::string shapes;  // "": the verb's
  std::string method = "best";
  int rounds = 5;
  std::optional<double> sustained;
};
void add_bench_options(CLI::App& verb, BenchOptions& options);

Json ceilings_json(const backend::Ceilings& ceilings);
std::string ceilings_words(const backend::Ceilings& ceilings);

}  // namespace atom::app
