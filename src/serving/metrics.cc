#include "serving/metrics.h"

#include <fmt/format.h>

#include <iterator>
#include <string_view>
#include <utility>

namespace atom::serving {
namespace {

using engine::Finish;

constexpr Finish kFinishes[] = {Finish::kStop, Finish::kLength, Finish::kCancelled,
                                Finish::kDeadline, Finish::kError};

std::string escaped_label(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

class Writer {
 public:
  explicit Writer(std::string labels = "") : labels_(std::move(labels)) {}

  void family(std::string_view name, std::string_view type, std::string_view help) {
    fmt::format_to(std::back_inserter(text_), "# HELP {} {}\n# TYPE {} {}\n", name, help, name,
                   type);
  }
  template <typename Number>
  void sample(std::string_view name, std::string_view labels, Number value) {
    const bool both = !labels_.empty() && !labels.empty();
    const bool any = !labels_.empty() || !labels.empty();
    fmt::format_to(std::back_inserter(text_), "{}{}{}{}{}{} {}\n", name, any ? "{" : "", labels_,
                   both ? "," : "", labels, any ? "}" : "", value);
  }
  template <typename Number>
  void single(std::string_view name, std::string_view type, std::string_view help, Number value) {
    family(name, type, help);
    sample(name, "", value);
  }
  void histogram(const std::string& name, std::string_view help, const Histogram& values) {
    family(name, "histogram", help);
    int64_t sum = 0;
    for (size_t i = 0; i < values.bounds().size(); ++i) {
      sum += values.counts()[i];
      sample(name + "_bucket", fmt::format("le=\"{}\"", values.bounds()[i]), sum);
    }
    sample(name + "_bucket", "le=\"+Inf\"", values.count());
    sample(name + "_sum", "", values.sum());
    sample(name + "_count", "", values.count());
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_, labels_;
};

void write_own(Writer& out, const ThreadStats& stats) {
  const engine::EngineStats& e = stats.engine;
  out.single("atom_requests_running", "gauge", "Sequences that take part in steps.", e.running);
  out.single("atom_requests_waiting", "gauge", "Sequences that wait for a place.", e.waiting);
  out.family("atom_kv_pages", "gauge", "Pages of the KV-cache.");
  out.sample("atom_kv_pages", "state=\"held\"", e.pages_held);
  out.sample("atom_kv_pages", "state=\"cached\"", e.pages_cached);
  out.sample("atom_kv_pages", "state=\"free\"", e.pages - e.pages_held - e.pages_cached);
  out.single("atom_batch_rows", "gauge", "Rows of the last step.", e.step_rows);
  out.single("atom_prefix_cache_queries_total", "counter",
             "Tokens of prompts, which were looked for in the prefix cache.", e.prompt_tokens);
  out.single("atom_prefix_cache_hits_total", "counter", "Tokens that were found there.",
             e.cached_tokens);
  out.single("atom_prompt_tokens_total", "counter", "Tokens of prompts.", e.prompt_tokens);
  out.single("atom_generation_tokens_total", "counter", "Tokens that were generated.",
             e.generated_tokens);
  out.family("atom_requests_total", "counter", "Sequences that ended, by the reason.");
  for (const Finish finish : kFinishes)
    out.sample("atom_requests_total", fmt::format("finish=\"{}\"", engine::name(finish)),
               stats.finished[static_cast<size_t>(finish)]);
  out.single("atom_preemptions_total", "counter", "Sequences whose pages were taken.",
             e.preemptions);
  out.single("atom_steps_total", "counter", "Steps of the model.", e.steps);
  out.histogram("atom_time_to_first_token_seconds", "From arrival to the first token.",
                stats.first_token);
  out.histogram("atom_inter_token_latency_seconds", "Between two tokens of a sequence.",
                stats.inter_token);
  out.histogram("atom_e2e_request_latency_seconds", "From arrival to the end.", stats.whole);
  out.histogram("atom_queue_time_seconds", "From arrival to the first step.", stats.queue);
}

// Layers and sites whose inputs have codes.
void write_saturation(Writer& out, const engine::Saturation& layers) {
  const auto each_site = [&](std::string_view name, auto value) {
    for (size_t layer = 0; layer < layers.size(); ++layer)
      for (size_t site = 0; site < layers[layer].size(); ++site)
        if (const engine::SiteCodes& codes = layers[layer][site]; codes.sampled > 0)
          out.sample(name,
                     fmt::format("layer=\"{}\",site=\"{}\"", layer,
                                 model::name(static_cast<model::SiteIndex>(site))),
                     codes.*value);
  };
  constexpr std::string_view kSaturated = "atom_saturated_activation_codes_total",
                             kSampled = "atom_activation_codes_sampled_total",
                             kShare = "atom_saturated_activation_share";
  out.family(kSaturated, "counter",
             "Codes of linears' inputs at either end of their range, all but one of a group (that "
             "of its largest value, which the scale puts there), in the steps that were sampled.");
  each_site(kSaturated, &engine::SiteCodes::saturated);
  out.family(kSampled, "counter", "Codes of linears' inputs in the steps that were sampled.");
  each_site(kSampled, &engine::SiteCodes::sampled);
  out.family(kShare, "gauge", "Saturated codes of a layer by its sampled ones, since the start.");
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    engine::SiteCodes all;
    for (const engine::SiteCodes& codes : layers[layer])
      all.saturated += codes.saturated, all.sampled += codes.sampled;
    if (all.sampled > 0)
      out.sample(kShare, fmt::format("layer=\"{}\"", layer),
                 static_cast<double>(all.saturated) / static_cast<double>(all.sampled));
  }
}

void write_vllm(Writer& out, const ThreadStats& stats) {
  const engine::EngineStats& e = stats.engine;
  out.single("vllm:num_requests_running", "gauge", "Requests in steps.", e.running);
  out.single("vllm:num_requests_waiting", "gauge", "Requests that wait.", e.waiting);
  out.single("vllm:kv_cache_usage_perc", "gauge", "Share of pages in use; 1 is all.",
             e.pages == 0 ? 0.0 : static_cast<double>(e.pages_held) / e.pages);
  out.single("vllm:prefix_cache_queries_total", "counter", "Tokens looked for.", e.prompt_tokens);
  out.single("vllm:prefix_cache_hits_total", "counter", "Tokens found.", e.cached_tokens);
  out.single("vllm:prompt_tokens_total", "counter", "Tokens of prompts.", e.prompt_tokens);
  out.single("vllm:generation_tokens_total", "counter", "Tokens generated.", e.generated_tokens);
  out.single("vllm:num_preemptions_total", "counter", "Preemptions.", e.preemptions);
  out.family("vllm:request_success_total", "counter", "Requests that ended well.");
  for (const Finish finish : {Finish::kStop, Finish::kLength})
    out.sample("vllm:request_success_total",
               fmt::format("finished_reason=\"{}\"", engine::name(finish)),
               stats.finished[static_cast<size_t>(finish)]);
  out.histogram("vllm:time_to_first_token_seconds", "Time to the first token.", stats.first_token);
  out.histogram("vllm:inter_token_latency_seconds", "Time between tokens.", stats.inter_token);
  out.histogram("vllm:e2e_request_latency_seconds", "Time of requests.", stats.whole);
  out.histogram("vllm:request_queue_time_seconds", "Time in the queue.", stats.queue);
}

}  // namespace

std::string metrics_text(const ThreadStats& stats, const MetricsOptions& options) {
  Writer own;
  write_own(own, stats);
  if (stats.engine.saturation) write_saturation(own, *stats.engine.saturation);
  if (!options.vllm_names) return own.take();
  Writer vllm(fmt::format("model_name=\"{}\"", escaped_label(options.model)));
  write_vllm(vllm, stats);
  return own.take() + vllm.take();
}

}  // namespace atom::serving
