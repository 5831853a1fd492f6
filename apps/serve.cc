// atom serve: an OpenAI-compatible server over one model.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "console.h"
#include "serve_model.h"
#include "serve_options.h"
#include "serving/access.h"
#include "serving/api.h"
#include "serving/engine_thread.h"
#include "serving/page.h"
#include "text/chat_template.h"
#include "verbs.h"

namespace atom::app::serve {
namespace {

constexpr double kDrainSeconds = 30;
constexpr double kDeadSeconds = 3;  // in which a server whose engine has died still says so
constexpr auto kTick = std::chrono::milliseconds(50);

// Descriptors for all connections, where the hard limit allows them.
void raise_file_limit(int connections) {
  rlimit limit = {};
  const rlim_t wanted = static_cast<rlim_t>(connections) + 256;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(limit.rlim_max, wanted);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted)
    console().notice(
        fmt::format("the limit of {} open files is less than --max-connections {} needs",
                    limit.rlim_cur, connections));
}

serving::HttpResponse page_response(const serving::PageFile& file) {
  return {.content_type = std::string(file.content_type),
          .body = std::string(file.bytes),
          .headers = {{"Content-Security-Policy", std::string(serving::kPageSecurityPolicy)},
                      {"Cache-Control", "no-cache"},
                      {"Referrer-Policy", "no-referrer"}}};
}

// What the server needs, in the order in which it is made and may go: the server is stopped first.
struct Serving {
  std::unique_ptr<model::Model> model;
  std::optional<serving::EngineThread> engine;
  std::optional<serving::Api> api;
  std::atomic<bool> ready = false;  // the api is there
};

// Listens from the start, so that a port that is taken shows before a model is loaded; says 503 until it is ready.
serving::HttpHandlers handlers(const serving::Access& access, Serving& serving) {
  const auto handle = [&serving](serving::HttpRequest request,
                                 std::shared_ptr<serving::Reply> reply) {
    if (request.head.method == "GET")
      for (const serving::PageFile& file : serving::page_files())
        if (file.path == request.head.path) return reply->send(page_response(file));
    if (serving.ready) return serving.api->handle(std::move(request), std::move(reply));
    if (request.head.method == "GET" && request.head.path == "/live")
      return reply->send({.body = serving::kHealthy, .headers = {}});
    serving::HttpResponse loading = serving::Api::error(503, "the model is being loaded");
    loading.headers.emplace_back("Retry-After", "1");
    reply->send(std::move(loading));
  };
  return {.admit = [&access](const serving::HttpHead& head) { return access.check(head); },
          .handle = handle,
          .error = [](int status,
                      const std::string& message) { return serving::Api::error(status, message); }};
}

serving::Access make_access(const ServeOptions& options) {
  serving::AccessOptions access = {
      .keys = all_keys(options), .host = options.host, .allowed_hosts = options.allowed_hosts};
  serving::check_exposure(options.host, !access.keys.empty(), options.insecure);
  for (const serving::PageFile& file : serving::page_files())
    access.open_paths.emplace_back(file.path);
  return serving::Access(access, [](int status, const std::string& message) {
    return serving::Api::error(status, message);
  });
}

// What --api-key-file, --ssl-certfile and --ssl-keyfile name; what cannot be used stays as it is.
void reload_files(const ServeOptions& options, serving::HttpServer& server,
                  serving::Access& access) {
  const auto reload = [](const char* what, const auto& read) {
    try {
      read();
      console().notice(fmt::format("{} read again", what));
    } catch (const std::exception& error) {
      console().warning(fmt::format("{} not read again, the old stays: {}", what, error.what()));
    }
  };
  if (!options.api_key_file.empty())
    reload("the keys were", [&] { access.replace_keys(all_keys(options)); });
  if (!options.ssl_certfile.empty())
    reload("the certificate was", [&] { server.reload_certificate(); });
}

// Until a signal to stop comes, or the engine's thread has died. False: it has.
bool wait_for_signal(const ServeOptions& options, serving::HttpServer& server,
                     serving::Access& access, const serving::EngineThread& engine) {
  while (!interrupted()) {
    if (!engine.alive()) return false;
    const Hangup hangup = take_hangup();
    if (hangup == Hangup::kTerminalGone) return true;
    if (hangup == Hangup::kReload) reload_files(options, server, access);
    std::this_thread::sleep_for(kTick);
  }
  return true;
}

void announce(const ServeOptions& options, const std::vector<std::string>& names, int port) {
  const std::string url = server_url(options, port);
  if (options.common.json)
    print_json({{"url", url}, {"models", names}});
  else
    fmt::print("{} is served at {}\n", names.front(), url);
  if (std::fflush(stdout) != 0) fail("cannot write to the standard output");
}

// No new connections; open requests may end. Those that are left after the time are cancelled, and told so.
void drain(serving::HttpServer& server, serving::Api& api, serving::EngineThread& engine,
           double seconds) {
  api.begin_drain();
  server.drain();
  const Stopwatch watch;
  const auto done = [&] { return server.drained() && api.idle(); };
  if (!done())
    console().notice(fmt::format(
        "open requests have {:.0f} s to end; a second signal ends the program at once", seconds));
  while (!done() && engine.alive() && watch.seconds() < seconds)
    std::this_thread::sleep_for(kTick / 5);
  if (done()) return;
  console().warning("requests that have not ended are cancelled");
  engine.stop();
  const Stopwatch rest;
  while (!done() && rest.seconds() < 1) std::this_thread::sleep_for(kTick / 5);
}

// Serves until a signal comes and open requests have ended. False: the engine has died.
bool serve(const ServeOptions& options, serving::HttpServer& server, serving::Access& access,
           Serving& serving) {
  const bool asked = wait_for_signal(options, server, access, *serving.engine);
  if (!asked) {
    console().error(fmt::format("the engine has stopped: {}", serving.engine->cause()));
    const Stopwatch watch;  // health checks see it
    while (watch.seconds() < kDeadSeconds && !interrupted()) std::this_thread::sleep_for(kTick);
  }
  drain(server, *serving.api, *serving.engine,
        asked ? options.drain_timeout.value_or(kDrainSeconds) : 0);
  server.stop();
  serving.engine->stop();
  return asked;
}

int run(const ServeOptions& options, const std::function<void()>& before_step) {
  start(options.common);
  catch_signals();
  catch_hangups();
  const serving::HttpOptions http = http_options(options);
  serving::Access access = make_access(options);
  const checkpoint::ModelFiles files = open_model(options.model);
  const model::ModelConfig config = load_config(files, options.max_model_len.value_or(0));
  const text::Tokenizer tokenizer = load_tokenizer(files, config);
  const checkpoint::ChatTemplateFile chat_file =
      checkpoint::read_chat_template(files, options.chat_template);
  const std::optional<text::ChatTemplate> chat_template = load_chat_template(chat_file);
  if (!chat_template)
    console().notice("the model folder has no chat template: /v1/chat/completions is refused");
  model::GenerationConfig generation = load_generation_config(options, files, config);
  raise_file_limit(options.max_connections);

  Runtime runtime(options.common);
  Serving serving;
  serving::HttpServer server(http, handlers(access, serving));
  serving.model =
      load_weights(files, runtime, cache_kind(options), options.max_model_len.value_or(0));
  model::add_eos_ids(serving.model->config.eos_ids, generation.eos_ids);
  runtime.show_fallbacks();
  const EnginePlan plan = engine_plan(options, *serving.model);
  console().notice(plan.words);
  serving.engine.emplace(*serving.model, plan.options,
                         serving::EngineThreadOptions{.before_step = before_step});
  const std::vector<std::string> names = model_names(options);
  serving.api.emplace(*serving.engine, tokenizer, chat_template ? &*chat_template : nullptr,
                      serving::ApiOptions{.models = names,
                                          .version = ATOM_VERSION,
                                          .bos_token = chat_file.bos_token,
                                          .eos_token = chat_file.eos_token,
                                          .defaults = std::move(generation),
                                          .vllm_metrics = options.metrics_compat == "vllm"});
  serving.ready = true;
  announce(options, names, server.port());
  return serve(options, server, access, serving) ? kSuccess : kFailure;
}

}  // namespace

void add(Program& program, std::function<void()> before_step) {
  CLI::App& verb = add_verb(
      program.app(),
      {.name = "serve",
       .text = "Serve a model: the OpenAI API, and a page to look at",
       .footer =
           "Prints one line with the URL when it is ready. Routes: /v1/chat/completions, "
           "/v1/completions,\n"
           "/v1/models, /tokenize, /detokenize, /tokenizer_info, /health, /live, /version, "
           "/metrics; "
           "a page at /.\n"
           "With a key, all of them but /health, /live and the page's own files need it. SIGTERM "
           "and "
           "Ctrl-C let open\n"
           "requests end (--drain-timeout), a second signal ends the program at once. SIGHUP "
           "reads\n"
           "--api-key-file, --ssl-certfile and --ssl-keyfile again; connections stay.\n"
           "\n"
           "Values come from the command line, then from ATOM_* variables, then from --config:\n"
           "  port = 8001\n"
           "  served-model-name = \"small\"\n"
           "  api-key-file = \"keys.txt\"\n"
           "\n"
           "Exit codes: 0 after a signal, 1 when the engine failed. JSON keys, of the line: url, "
           "models"});
  const auto options = std::make_shared<ServeOptions>();
  argument(verb, "MODEL", options->model,
           "Model folder, plain or quantized, GGUF file, or org/name in\nthe Hugging Face cache");
  add_serve_options(verb, *options);
  on_run(program, verb,
         [options, before_step = std::move(before_step)] { return run(*options, before_step); });
}

}  // namespace atom::app::serve
