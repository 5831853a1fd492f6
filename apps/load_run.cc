#include "load_run.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/random.h"

namespace atom::app {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Seconds from the start at which each request arrives; empty: a closed loop.
std::vector<double> arrivals(const LoadPlan& plan) {
  std::vector<double> times;
  if (!plan.rate) return times;
  Random random(plan.seed ^ 0x9e3779b97f4a7c15ULL);
  double now = 0;
  for (int i = 0; i < plan.requests; ++i) {
    times.push_back(now);
    now += -std::log1p(-random.uniform()) / *plan.rate;
  }
  return times;
}

class Load {
 public:
  Load(const LoadPlan& plan, const LoadClientOptions& client)
      : plan_(plan), client_(client), arrivals_(arrivals(plan)), samples_(plan.requests) {
    client_.stopped = [this] { return stopped_.load(); };
  }

  LoadResult run(const std::function<void(int)>& progress) {
    constexpr auto kTick = std::chrono::milliseconds(20);
    const int clients = std::min(plan_.clients, plan_.requests);
    start_ = Clock::now();
    std::vector<std::jthread> threads;
    for (int i = 0; i < clients; ++i) threads.emplace_back([this] { work(); });
    try {
      while (ended_ < plan_.requests) {
        std::this_thread::sleep_for(kTick);
        progress(ended_);
      }
    } catch (...) {
      stopped_ = true;
      throw;  // the threads are joined on the way
    }
    threads.clear();
    LoadResult result{.samples = std::move(samples_), .seconds = 0};
    for (const LoadSample& sample : result.samples)
      result.seconds = std::max(result.seconds, sample.arrival + sample.whole);
    return result;
  }

 private:
  void work() {
    LoadClient client(client_);
    for (int i; !stopped_ && (i = next_++) < plan_.requests; ++ended_) one(client, i);
  }

  void one(LoadClient& client, int i) {
    LoadSample& sample = samples_[i];
    const std::string body = load_request(plan_, i);
    if (!arrivals_.empty()) {
      while (!stopped_ && since(start_) < arrivals_[i])
        std::this_thread::sleep_for(std::chrono::duration<double>(
            std::min(0.05, std::max(0.0, arrivals_[i] - since(start_)))));
    }
    sample.arrival = arrivals_.empty() ? since(start_) : arrivals_[i];
    double last = 0;
    try {
      const auto answer = client.stream("/v1/completions", body, [&](std::string_view data) {
        take(sample, data, since(start_) - sample.arrival, last);
      });
      if (answer.status != 200) sample.error = error_of(answer);
      if (sample.error.empty() && last == 0) sample.error = "an answer without a piece";
    } catch (const Error& error) {
      sample.error = error.what();
    }
    sample.whole = since(start_) - sample.arrival;
  }

  // One event at `now`; `last`: when the piece before it came, 0 before the first.
  static void take(LoadSample& sample, std::string_view data, double now, double& last) {
    if (data == "[DONE]") return;
    const Json chunk = parse_json(data, {.source = "the server's answer"});
    if (chunk.contains("error")) {
      sample.error = chunk["error"].is_object()
                         ? get_string_or(chunk["error"], "message", "an error", "error")
                         : "an error";
      return;
    }
    if (chunk.contains("usage") && chunk["usage"].is_object()) {
      constexpr std::string_view kSource = "the server's usage";
      sample.prompt_tokens =
          get_int(chunk["usage"], "prompt_tokens", {.source = kSource, .min = 0});
      sample.tokens = get_int(chunk["usage"], "completion_tokens", {.source = kSource, .min = 0});
    }
    if (!chunk.contains("choices") || !chunk["choices"].is_array() || chunk["choices"].empty())
      return;
    // A token without a text, as half a character is, has a chunk as well; an end without a text has no token.
    const Json& choice = chunk["choices"][0];
    const bool ends = choice.contains("finish_reason") && !choice["finish_reason"].is_null();
    if (ends && last > 0 && get_string_or(choice, "text", "", "the server's answer").empty())
      return;
    if (last == 0)
      sample.first = now;
    else
      sample.gaps.push_back(now - last);
    last = now;
  }

  static std::string error_of(const LoadClient::Answer& answer) {
    std::string text = fmt::format("status {}", answer.status);
    try {
      const Json body = parse_json(answer.body, {.source = "the server's error"});
      text += ": " + get_string(body.at("error"), "message", "the server's error");
    } catch (const std::exception&) {
      // not in the form of the API: the status has to do
    }
    return text;
  }

  const LoadPlan& plan_;
  LoadClientOptions client_;
  const std::vector<double> arrivals_;
  std::vector<LoadSample> samples_;
  Clock::time_point start_;
  std::atomic<int> next_ = 0, ended_ = 0;
  std::atomic<bool> stopped_ = false;
};

}  // namespace

std::string load_request(const LoadPlan& plan, int i) {
  Random random(plan.seed * 0x100000001b3ULL + static_cast<uint64_t>(i));
  Json ids = Json::array();
  for (int j = 0; j < plan.input_tokens; ++j)
    ids.push_back(random.below(static_cast<uint64_t>(plan.vocabulary)));
  const Json body = {{"model", plan.model},
                     {"prompt", std::move(ids)},
                     {"max_tokens", plan.output_tokens},
                     {"ignore_eos", true},
                     {"temperature", 0},
                     {"stream", true},
                     {"stream_options", {{"include_usage", true}}}};
  return body.dump();
}

LoadResult run_load(const LoadPlan& plan, const LoadClientOptions& client,
                    const std::function<void(int)>& progress) {
  return Load(plan, client).run(progress);
}

Percentiles percentiles_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const auto rank = [&](double share) {
    const auto i = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
    return values[std::max<size_t>(i, 1) - 1];
  };
  return {.mean = std::accumulate(values.begin(), values.end(), 0.0) /
                  static_cast<double>(values.size()),
          .p50 = rank(0.5),
          .p90 = rank(0.9),
          .p95 = rank(0.95),
          .p99 = rank(0.99),
          .max = values.back()};
}

LoadSummary summarize(const LoadResult& result, const LoadTargets& targets) {
  LoadSummary out;
  out.seconds = result.seconds;
  std::vector<double> first, gaps, whole;
  int good = 0;
  for (const LoadSample& sample : result.samples) {
    if (!sample.error.empty()) {
      if (out.failed++ == 0) out.error = sample.error;
      continue;
    }
    ++out.succeeded;
    out.prompt_tokens += sample.prompt_tokens;
    out.output_tokens += sample.tokens;
    first.push_back(sample.first);
    whole.push_back(sample.whole);
    gaps.insert(gaps.end(), sample.gaps.begin(), sample.gaps.end());
    const bool in_time = !targets.first || sample.first <= *targets.first;
    good += in_time && (!targets.gap || percentiles_of(sample.gaps).mean <= *targets.gap);
  }
  const double seconds = std::max(result.seconds, 1e-9);
  out.request_rate = out.succeeded / seconds;
  out.output_rate = static_cast<double>(out.output_tokens) / seconds;
  out.total_rate = static_cast<double>(out.output_tokens + out.prompt_tokens) / seconds;
  out.first = percentiles_of(std::move(first));
  out.gap = percentiles_of(std::move(gaps));
  out.whole = percentiles_of(std::move(whole));
  if (targets.first || targets.gap) out.goodput = good / seconds;
  return out;
}

}  // namespace atom::app
