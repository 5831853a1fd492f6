#include "serve_model.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "console.h"
#include "machine.h"
#include "model/forward.h"
#include "serving/page_budget.h"

namespace atom::app {
namespace {

constexpr uint64_t kMaxGenerationConfig = 1 << 20;  // bytes

// Scratch of a step's rows: residual stream, its quantized copies, q, k, v, gate and up, twice, for what a backend keeps
// beside.
int64_t step_bytes(const model::ModelConfig& config, const engine::EngineOptions& options) {
  const int64_t width = int64_t{4} * config.hidden + int64_t{3} * config.intermediate;
  return int64_t{options.max_rows} * width * 4 * 2 +
         int64_t{options.max_sequences} * config.vocabulary * 4;
}

// "temperature 0.6, top_p 0.9"; empty: there are none.
std::string default_words(const model::GenerationConfig& config) {
  std::string words;
  const auto add = [&](const char* name, const auto& value) {
    if (value) words += fmt::format("{}{} {}", words.empty() ? "" : ", ", name, *value);
  };
  add("temperature", config.temperature);
  add("top_p", config.top_p);
  add("top_k", config.top_k);
  add("min_p", config.min_p);
  add("repetition_penalty", config.repetition_penalty);
  add("max_tokens of chats", config.max_new_tokens);
  return words;
}

}  // namespace

EnginePlan engine_plan(const ServeOptions& options, const model::Model& model) {
  const bool on_device = model.backend->available_memory() > 0;
  engine::EngineOptions result;
  result.max_sequences = options.max_num_seqs.value_or(on_device ? 256 : 64);
  result.max_rows = options.max_num_batched_tokens.value_or(
      std::max(on_device ? 2048 : 512, result.max_sequences));
  result.max_positions = options.max_model_len.value_or(model.config.max_positions);
  if (result.max_rows < result.max_sequences)
    fail("--max-num-batched-tokens: {} is less than --max-num-seqs {}", result.max_rows,
         result.max_sequences);
  if (result.max_positions > model.config.max_positions)
    fail("--max-model-len: {} exceeds the model's max_position_embeddings of {}",
         result.max_positions, model.config.max_positions);
  const int64_t one = model::make_shared_pool(model, 1, 1).bytes();
  const int64_t available = on_device ? static_cast<int64_t>(model.backend->available_memory())
                                      : available_memory().value_or(0);
  const serving::PageBudget budget =
      serving::page_budget({.page_bytes = model::make_shared_pool(model, 2, 1).bytes() - one,
                            .sequence_bytes = model::make_shared_pool(model, 1, 2).bytes() - one,
                            .fixed_bytes = step_bytes(model.config, result),
                            .free_bytes = available,
                            .share = options.gpu_memory_utilization.value_or(on_device ? 0.9 : 0.5),
                            .page_tokens = format::KvLayout{}.tokens,
                            .max_sequences = result.max_sequences,
                            .max_positions = result.max_positions});
  result.pages = budget.pages;
  return {.options = result, .words = budget.words};
}

std::optional<text::ChatTemplate> load_chat_template(const checkpoint::ChatTemplateFile& file) {
  if (!file.source) return std::nullopt;
  if (!file.name.empty() && file.name != "default")
    console().notice(fmt::format("{}: no chat template has the name 'default': '{}' is used",
                                 file.origin, file.name));
  try {
    return text::ChatTemplate::parse(*file.source);
  } catch (const Error& error) {
    fail("{}: the chat template cannot be read: {}", file.origin, error.what());
  }
}

model::GenerationConfig load_generation_config(const ServeOptions& options,
                                               const checkpoint::ModelFiles& files,
                                               const model::ModelConfig& config) {
  constexpr const char* kName = "generation_config.json";
  const bool own = options.generation_config == "auto" || options.generation_config == "none";
  const std::filesystem::path file =
      (own ? files.folder() : std::filesystem::path(options.generation_config)) / kName;
  if (own && !files.generation_config()) return {};
  const Json json =
      own ? *files.generation_config()
          : parse_json(read_file(file, kMaxGenerationConfig), {.source = file.native()});
  if (options.generation_config == "none") {
    model::GenerationConfig ids;
    ids.eos_ids = model::parse_eos_ids(json, config.vocabulary, file.native());
    return ids;
  }
  model::GenerationConfig result =
      model::parse_generation_config(json, config.vocabulary, file.native());
  if (const std::string words = default_words(result); !words.empty())
    console().notice(
        fmt::format("{}: requests that say nothing else get {}", file.native(), words));
  return result;
}

std::optional<format::KvKind> cache_kind(const ServeOptions& options) {
  if (options.kv_cache_dtype == "auto") return std::nullopt;
  return format::parse_kv(options.kv_cache_dtype);
}

std::vector<std::string> model_names(const ServeOptions& options) {
  if (!options.served_model_names.empty()) return options.served_model_names;
  if (!std::filesystem::exists(options.model)) return {options.model};  // a name of the Hub
  std::filesystem::path folder = std::filesystem::weakly_canonical(options.model);
  return {folder.filename().empty() ? "model" : folder.filename().string()};
}

}  // namespace atom::app
