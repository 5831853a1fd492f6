// atom bench serve: a load on a running server, over its HTTP interface.
#include <cstdio>

#include "console.h"
#include "load_run.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::bench_serve {
namespace {

struct Options {
  CommonOptions common;
  std::string url;
  std::string api_key, authorities;
  LoadPlan plan;
  std::optional<int> clients, vocabulary;
  std::optional<double> timeout;
  LoadTargets targets;
  int warmup = 1;
};

Json get_json(LoadClient& client, const std::string& path) {
  const LoadClient::Answer answer = client.get(path);
  if (answer.status == 401) fail("the server wants an API key (--api-key): it refused {}", path);
  if (answer.status != 200) fail("{} answered with status {}", path, answer.status);
  return parse_json(answer.body, {.source = path});
}

// The server's model, where none is named; its vocabulary, where the server tells it.
void ask_server(const Options& options, const LoadClientOptions& client_options, LoadPlan& plan) {
  LoadClient client(client_options);
  if (plan.model.empty()) {
    const Json models = get_json(client, "/v1/models");
    if (!models.contains("data") || !models["data"].is_array() || models["data"].empty())
      fail("/v1/models names no model");
    plan.model = get_string(models["data"][0], "id", "/v1/models");
  }
  if (options.vocabulary) {
    plan.vocabulary = *options.vocabulary;
  } else if (const auto answer = client.get("/tokenizer_info"); answer.status == 200) {
    plan.vocabulary =
        get_int_or(parse_json(answer.body, {.source = "/tokenizer_info"}), "vocab_size",
                   plan.vocabulary, {.source = "/tokenizer_info", .min = 1, .max = INT32_MAX});
  }
}

Json json_of(const Percentiles& p) {
  return {{"mean", p.mean}, {"p50", p.p50}, {"p90", p.p90},
          {"p95", p.p95},   {"p99", p.p99}, {"max", p.max}};
}

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json json_of(const Options& options, const LoadPlan& plan, const LoadSummary& s) {
  return {{"url", options.url},
          {"model", plan.model},
          {"arrivals", plan.rate ? "poisson" : "closed"},
          {"rate", or_null(plan.rate)},
          {"concurrency", plan.clients},
          {"input_tokens", plan.input_tokens},
          {"output_tokens", plan.output_tokens},
          {"seed", plan.seed},
          {"succeeded", s.succeeded},
          {"failed", s.failed},
          {"error", s.failed > 0 ? Json(s.error) : Json(nullptr)},
          {"seconds", s.seconds},
          {"requests_per_second", s.request_rate},
          {"output_tokens_per_second", s.output_rate},
          {"total_tokens_per_second", s.total_rate},
          {"ttft_seconds", json_of(s.first)},
          {"itl_seconds", json_of(s.gap)},
          {"e2e_seconds", json_of(s.whole)},
          {"targets",
           {{"ttft_seconds", or_null(options.targets.first)},
            {"itl_seconds", or_null(options.targets.gap)}}},
          {"goodput_requests_per_second", or_null(s.goodput)}};
}

std::vector<std::string> row(const char* name, const Percentiles& p) {
  std::vector<std::string> cells = {name};
  for (const double seconds : {p.mean, p.p50, p.p90, p.p95, p.p99, p.max})
    cells.push_back(fmt::format("{:.1f}", 1e3 * seconds));
  return cells;
}

void show(const Options& options, const LoadPlan& plan, const LoadSummary& s) {
  print_heading("load on " + printable(options.url));
  std::vector<Fact> facts = {
      {"model", printable(plan.model)},
      {"arrivals",
       plan.rate ? fmt::format("Poisson, {} a second, at most {} at once", *plan.rate, plan.clients)
                 : fmt::format("closed loop of {} clients", plan.clients)},
      {"requests", fmt::format("{} of {} tokens in, {} out", plan.requests, plan.input_tokens,
                               plan.output_tokens)},
      {"succeeded", fmt::format("{} in {:.2f} s", s.succeeded, s.seconds)},
      {"throughput",
       fmt::format("{:.2f} requests/s, {:.1f} output tokens/s, {:.1f} tokens/s in all",
                   s.request_rate, s.output_rate, s.total_rate)}};
  if (s.failed > 0)
    facts.push_back({"failed", fmt::format("{}: {}", s.failed, printable(s.error))});
  if (s.goodput)
    facts.push_back({"goodput", fmt::format("{:.2f} requests/s within the targets", *s.goodput)});
  print_facts(facts);
  std::puts("");
  print_table({.header = {"ms", "mean", "p50", "p90", "p95", "p99", "max"},
               .rows = {row("first token", s.first), row("between pieces", s.gap),
                        row("whole request", s.whole)}});
}

int run(const Options& options) {
  start(options.common);
  catch_signals();
  const LoadClientOptions client = {.address = parse_server("URL", options.url),
                                    .api_key = options.api_key,
                                    .authorities = options.authorities,
                                    .timeout = options.timeout.value_or(600)};
  LoadPlan plan = options.plan;
  plan.clients = options.clients.value_or(plan.rate ? 256 : 8);
  ask_server(options, client, plan);
  const auto progress = [&](const char* what, int total) {
    return [what, total](int ended) {
      check_interrupted();
      console().progress(fmt::format("{} {} of {}", what, ended, total));
    };
  };
  if (options.warmup > 0) {
    LoadPlan warm = plan;
    warm.requests = options.warmup;
    warm.rate.reset();
    warm.seed = plan.seed + 1;  // prompts of its own: nothing of it is in the prefix cache
    run_load(warm, client, progress("warm up", warm.requests));
  }
  const LoadResult result = run_load(plan, client, progress("request", plan.requests));
  console().end_progress();
  const LoadSummary summary = summarize(result, options.targets);
  if (summary.succeeded == 0) fail("no request succeeded; the first: {}", summary.error);
  if (options.common.json)
    print_json(json_of(options, plan, summary));
  else
    show(options, plan, summary);
  return kSuccess;
}

}  // namespace

void add(Program& program, CLI::App& parent) {
  CLI::App& verb = add_verb(
      parent,
      {.name = "serve",
       .text = "Load a running server, and measure what its clients see",
       .footer =
           "Requests go to /v1/completions of any OpenAI-compatible server, with prompts of "
           "random\n"
           "ids, greedy, streamed, without an end before --output-tokens where the server knows\n"
           "ignore_eos. With --rate they arrive as a Poisson process, and their times count from "
           "the\n"
           "arrival; else each of --concurrency clients sends its next one when it has its "
           "answer.\n"
           "ttft: to the first piece of text; itl: between two pieces (a piece may hold several\n"
           "tokens); goodput: requests a second within --target-ttft and, in the mean of their\n"
           "pieces, --target-itl. Percentiles are nearest ranks.\n"
           "\n"
           "JSON keys: url, model, arrivals (closed or poisson), rate, concurrency, input_tokens,\n"
           "output_tokens, seed, succeeded, failed, error, seconds, requests_per_second,\n"
           "output_tokens_per_second, total_tokens_per_second, ttft_seconds, itl_seconds and\n"
           "e2e_seconds {mean, p50, p90, p95, p99, max}, targets {ttft_seconds, itl_seconds},\n"
           "goodput_requests_per_second (null: no target)"});
  const auto options = std::make_shared<Options>();
  LoadPlan& plan = options->plan;
  argument(verb, "URL", options->url, "http(s)://HOST:PORT of the server");
  whole_option(verb, "--requests", plan.requests, {.min = 1, .max = 1000000},
               {"N", "Requests [64]"});
  whole_option(verb, "--concurrency", options->clients, {.min = 1, .max = 1024},
               {"N", "Clients [8]; with --rate, the most requests at once [256]"});
  number_option(verb, "--rate", plan.rate, {.min = 0, .max = 1e6, .min_excluded = true},
                {"X", "Arrivals a second [a closed loop]"});
  whole_option(verb, "--input-tokens", plan.input_tokens, {.min = 1, .max = 1 << 20},
               {"N", "Tokens of each prompt [128]"});
  whole_option(verb, "--output-tokens", plan.output_tokens, {.min = 1, .max = 1 << 20},
               {"N", "Tokens of each answer [64]"});
  whole_option(verb, "--vocabulary", options->vocabulary, {.min = 1, .max = INT32_MAX},
               {"N", "Prompts have ids below it [what the server says, else 1000]"});
  whole_option(verb, "--warmup", options->warmup, {.min = 0, .max = 100000},
               {"N", "Requests before those that count [1]"});
  number_option(verb, "--target-ttft", options->targets.first,
                {.min = 0, .max = 1e6, .min_excluded = true},
                {"S", "Seconds to the first token that are good"});
  number_option(verb, "--target-itl", options->targets.gap,
                {.min = 0, .max = 1e6, .min_excluded = true},
                {"S", "Mean seconds between pieces that are good"});
  number_option(verb, "--timeout", options->timeout, {.min = 0.1, .max = 1e6},
                {"S", "Seconds without a byte that end a request [600]"});
  seed_option(verb, plan.seed, {"N", "Of prompts and arrivals [0]"});
  text_option(verb, "--model", plan.model, {"NAME", "Model of the requests [the server's first]"});
  text_option(verb, "--api-key", options->api_key, {"KEY", "Key of the server"});
  text_option(verb, "--cacert", options->authorities,
              {"FILE", "Certificates to trust, PEM [the system's]"});
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::bench_serve
