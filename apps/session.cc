#include "session.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "backend/open.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "checkpoint/hub_cache.h"
#include "console.h"
#include "embedded_text.h"
#include "model/open_files.h"
#include "model/rope_config.h"
#include "text/tokenizer_files.h"
#include "text/unicode.h"

namespace atom::app {
namespace {

volatile sig_atomic_t caught_signal = 0;
volatile sig_atomic_t hangups = 0;
bool had_terminal = false;

void on_signal(int signal) {
  if (caught_signal != 0) ::_exit(128 + signal);
  caught_signal = signal;
}

constexpr const char* kOutputGroup = "Output";
constexpr const char* kComputeGroup = "Compute";

std::string joined(const std::set<std::string>& words) {
  if (words.size() == 1) return *words.begin();
  std::string text = "mixed: ";
  for (const std::string& word : words) text += (text.size() == 7 ? "" : ", ") + word;
  return text;
}

// Word of one floating-point source tensor, for linears that are not quantized.
std::string source_word(const checkpoint::ModelFiles& files, const std::string& module) {
  const std::string name = module + ".weight";
  if (!files.has(name)) return "16 bits";
  const std::string_view word = tensor::dtype_name(files.header(name).dtype);
  if (word == "F32") return "f32";
  return word == "F16" ? "f16" : "bf16";
}

std::string with_kept(format::Format normal, format::Format kept, int channels) {
  const std::string word = format::name(normal);
  return channels == 0 ? word : fmt::format("{} + {} {}", word, channels, format::name(kept));
}

}  // namespace

void add_output_options(CLI::App& verb, CommonOptions& options) {
  flag_option(verb, "--json", options.json, {"", "Results as one JSON document", kOutputGroup});
  add_look_options(verb, options);
}

void add_look_options(CLI::App& verb, CommonOptions& options) {
  flag_option(verb, "-q,--quiet", options.quiet, {"", "No progress and no notices", kOutputGroup});
  flag_option(verb, "--no-color", options.no_color,
              {"", "No colour (also: NO_COLOR, or no terminal)", kOutputGroup});
}

void add_compute_options(CLI::App& verb, CommonOptions& options) {
  CLI::Option* backend =
      choice_option(verb, "--backend", options.backend, {"cpu", "cuda", "reference"},
                    {"NAME", "cpu, cuda, or reference: the slow definition [cpu]", kComputeGroup});
  note_source(verb, backend, options.backend_given);
  CLI::Option* isa = choice_option(
      verb, "--isa", options.isa, {"baseline", "avx2", "avx512-vnni"},
      {"LEVEL", "Force baseline, avx2 or avx512-vnni [best of the machine]", kComputeGroup});
  note_source(verb, isa, options.isa_given);
  text_option(verb, "--cuda-plugin", options.cuda_plugin,
              {"FILE", "libatom_cuda.so [beside the program, or in its lib]", kComputeGroup});
  text_option(verb, "--tuned", options.tuned,
              {"FILE", "cuda: plans measured by bench ops --tune [built-in ones]", kComputeGroup});
  flag_option(verb, "--batch-invariant", options.batch_invariant,
              {"", "cuda: a row's result never depends on the other rows of a step; slower",
               kComputeGroup});
  whole_option(verb, "--threads", options.threads, {.min = 0, .max = 1024},
               {"N", "Threads [0: all CPUs this process may use]", kComputeGroup});
  flag_option(verb, "--pin", options.pin, {"", "Pin every thread to a CPU", kComputeGroup});
}

void start(const CommonOptions& options) {
  console().configure({.quiet = options.quiet, .color = !options.no_color});
  set_log_sink([](LogLevel level, const std::string& line) {
    if (level == LogLevel::kDebug) return;
    if (level == LogLevel::kInfo)
      console().notice(line);
    else
      console().warning(line);
  });
}

void catch_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction old = {};
  // nohup ignores it, and that stays.
  if (::sigaction(SIGHUP, nullptr, &old) == 0 && old.sa_handler != SIG_IGN)
    ::sigaction(SIGHUP, &action, nullptr);
  // Writes fail with EPIPE and EFBIG then, and what was begun is removed.
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
}

void catch_hangups() {
  had_terminal = ::isatty(STDIN_FILENO) != 0;
  struct sigaction action = {};
  action.sa_handler = [](int) { hangups = 1; };
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGHUP, &action, nullptr);
}

Hangup take_hangup() {
  if (hangups == 0) return Hangup::kNone;
  hangups = 0;
  pollfd terminal = {STDIN_FILENO, POLLIN, 0};
  const bool gone = had_terminal && ::poll(&terminal, 1, 0) > 0 &&
                    (terminal.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
  return gone ? Hangup::kTerminalGone : Hangup::kReload;
}

bool interrupted() { return caught_signal != 0; }

void check_interrupted() {
  if (caught_signal != 0) throw Interrupted(caught_signal);
}

BackendChoice backend_choice(const CommonOptions& options) {
  BackendChoice choice = {.name = options.backend,
                          .isa = options.isa,
                          .cuda_plugin = options.cuda_plugin,
                          .batch_invariant = options.batch_invariant,
                          .tuned = options.tuned};
  if (choice.name == "cpu" || choice.isa.empty()) return choice;
  if (options.backend_given == options.isa_given)
    usage_fail("--isa: the {} backend has no instruction sets to choose", options.backend);
  if (options.backend_given)
    choice.isa.clear();
  else
    choice.name = "cpu";
  return choice;
}

std::unique_ptr<backend::Backend> open_backend(const BackendChoice& choice, Executor& executor) {
  return backend::open_backend(choice.name, {.executor = &executor,
                                             .isa = choice.isa,
                                             .cuda_plugin = choice.cuda_plugin,
                                             .batch_invariant = choice.batch_invariant,
                                             .tuned = choice.tuned});
}

Runtime::Runtime(const CommonOptions& options)
    : executor_({.threads = options.threads, .pin = options.pin}),
      backend_(open_backend(backend_choice(options), executor_)) {
  if (!options.tuned.empty() && backend_->linear_tuner() == nullptr)
    console().notice(
        fmt::format("--tuned: {} is not read, the {} backend here has no plans to choose",
                    options.tuned, backend_->name()));
}

int window_length(std::string_view option, std::optional<int> wanted,
                  const model::ModelConfig& config) {
  const int length = wanted.value_or(std::min(2048, config.max_positions));
  if (length > config.max_positions)
    fail("{}: {} exceeds the model's max_position_embeddings of {}", option, length,
         config.max_positions);
  return length;
}

void require_window(const TokenizedText& text, int length) {
  if (text.ids.size() < static_cast<size_t>(length))
    fail("{}: the text has {} tokens, fewer than one window of {}", text.name, text.ids.size(),
         length);
}

void Runtime::show_fallbacks() const {
  for (const std::string& line : backend_->fallbacks()) console().notice(line);
}

checkpoint::ModelFiles open_model(const std::string& name, model::Weights weights) {
  return model::open_files(checkpoint::find_model(name, checkpoint::hub_cache_folder(std::getenv)),
                           weights);
}

namespace {

bool turns_by_length(const model::ModelConfig& config) {
  const model::RopeScaling::Kind kind = config.rope_scaling.kind;
  return kind == model::RopeScaling::Kind::kDynamic || kind == model::RopeScaling::Kind::kLongrope;
}

}  // namespace

model::ModelConfig load_config(const checkpoint::ModelFiles& files, int64_t positions) {
  model::ModelConfig config = model::parse_config(files.config(), files.source_of("config.json"));
  extend_config(config, positions);
  if (const std::string words = model::layers_left_out(files, config.layers); !words.empty())
    console().notice(words);
  if (const int most = model::most_positions(config); config.max_positions < most)
    console().notice(fmt::format(
        "texts of up to {} tokens: the rope_scaling of config.json allows up to {}{}, which "
        "--max-model-len or --context beyond it asks for",
        config.max_positions, most, turns_by_length(config) ? ", with other frequencies" : ""));
  return config;
}

void extend_config(model::ModelConfig& config, int64_t positions) {
  if (model::extend_positions(config, positions))
    console().notice(
        fmt::format("texts of up to {} tokens: the frequencies that rope_scaling has for "
                    "long texts, for short ones, too",
                    config.max_positions));
}

model::Scheme load_scheme(const checkpoint::ModelFiles& files, const model::ModelConfig& config) {
  return model::parse_scheme(files.config(), config, format::KvKind::kF32,
                             files.source_of("config.json"));
}

std::optional<text::Tokenizer> find_tokenizer(const checkpoint::ModelFiles& files) {
  if (!files.is_gguf()) {
    if (!text::Tokenizer::find_file(files.folder())) return std::nullopt;
    return text::Tokenizer::from_folder(files.folder());
  }
  const std::string source = files.folder().string();
  if (const auto json = files.small_file("tokenizer.json", UINT64_MAX))
    return text::Tokenizer::from_json(*json, source);
  const auto pieces = files.small_file("tokenizer.model", UINT64_MAX);
  if (!pieces) return std::nullopt;
  const auto config = files.small_file("tokenizer_config.json", UINT64_MAX);
  const text::TokenizerSettings settings{.config = parse_json(config.value(), {.source = source}),
                                         .added_tokens = nullptr,
                                         .model_config = files.config()};
  return text::tokenizer_from_sentencepiece(*pieces, source, settings);
}

text::Tokenizer load_tokenizer(const checkpoint::ModelFiles& files,
                               const model::ModelConfig& config) {
  std::optional<text::Tokenizer> found = find_tokenizer(files);
  if (!found && files.is_gguf())
    fail("{}: the file has no tokenizer: the key \"tokenizer.ggml.model\" is missing",
         files.folder().string());
  text::Tokenizer tokenizer =
      found ? *std::move(found) : text::Tokenizer::from_folder(files.folder());
  const int64_t ids = static_cast<int64_t>(tokenizer.vocab_size());
  if (ids > config.vocabulary)
    fail("{}: the tokenizer has {} ids, but the model's vocab_size is {}", files.folder().string(),
         ids, config.vocabulary);
  if (ids < config.vocabulary)
    console().notice(fmt::format("the tokenizer has {} ids, the model {}: the others are padding",
                                 ids, config.vocabulary));
  return tokenizer;
}

std::unique_ptr<model::Model> load_weights(const checkpoint::ModelFiles& files, Runtime& runtime,
                                           std::optional<format::KvKind> kv, int64_t positions) {
  const auto progress = [](int done, int layers) {
    check_interrupted();
    console().progress(fmt::format("load      {} layer {}/{}",
                                   progress_bar(static_cast<double>(done) / layers), done, layers));
  };
  auto model = model::load_model(files, runtime.backend(),
                                 {.kv = kv, .positions = positions, .progress = progress});
  console().end_progress();
  return model;
}

TokenizedText tokenize_text(std::string name, std::string_view bytes,
                            const text::Tokenizer& tokenizer) {
  if (!text::is_valid_utf8(bytes)) {
    size_t at = 0;
    while (text::scan_utf8(bytes, at).kind == text::Utf8Unit::Kind::kCharacter)
      at += text::scan_utf8(bytes, at).size;
    fail("{}: the text is not UTF-8 at byte {}", name, at);
  }
  TokenizedText result = {.name = std::move(name),
                          .sha256 = sha256_hex(std::as_bytes(std::span(bytes))),
                          .ids = tokenizer.encode(bytes, {.add_special_tokens = true})};
  return result;
}

TokenizedText tokenize_file(const std::string& path, const text::Tokenizer& tokenizer) {
  return tokenize_text(path, read_file(path), tokenizer);
}

TokenizedText calibration_text(const std::string& path, const text::Tokenizer& tokenizer) {
  if (!path.empty()) return tokenize_file(path, tokenizer);
  return tokenize_text("embedded", embedded_calibration_text(), tokenizer);
}

FormatWords linear_words(const checkpoint::ModelFiles& files, const model::Scheme& scheme,
                         const std::string& module) {
  const model::LinearScheme* linear = scheme.find(module);
  if (linear == nullptr) return {.weights = source_word(files, module), .inputs = "f32", .kv = ""};
  return {.weights = with_kept(linear->weight, linear->kept_weight, linear->kept),
          .inputs = with_kept(linear->input, linear->kept_input, linear->kept),
          .kv = ""};
}

FormatWords format_words(const checkpoint::ModelFiles& files, const model::ModelConfig& config,
                         const model::Scheme& scheme) {
  std::set<std::string> weights, inputs, kv;
  for (const std::string& module : model::linear_modules(config)) {
    const FormatWords words = linear_words(files, scheme, module);
    weights.insert(words.weights);
    inputs.insert(words.inputs);
  }
  for (const format::KvKind kind : scheme.kv) kv.insert(std::string(format::name(kind)));
  return {.weights = joined(weights), .inputs = joined(inputs), .kv = joined(kv)};
}

Json formats_json(const FormatWords& words, const backend::Backend& backend) {
  return {{"weights", words.weights},
          {"inputs", words.inputs},
          {"kv", words.kv},
          {"backend", backend.description()}};
}

void print_json(const Json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

int64_t peak_rss() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace atom::app
