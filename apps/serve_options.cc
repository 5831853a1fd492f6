#include "serve_options.h"

#include "serving/access.h"

namespace atom::app {
namespace {

constexpr const char* kModelGroup = "Model";

void add_network_options(CLI::App& verb, ServeOptions& options) {
  constexpr const char* kGroup = "Network";
  text_option(verb, "--host", options.host,
              {"HOST", "Name or address to listen on [127.0.0.1]", kGroup});
  whole_option(verb, "--port", options.port, {.min = 0, .max = 65535},
               {"PORT", "[8000]; 0: any free one, which is printed", kGroup});
  texts_option(verb, "--api-key", options.api_keys,
               {"KEY",
                "Asked of every request but /health; may be repeated. Shows in\nthe list of "
                "processes: better the file, or ATOM_API_KEY",
                kGroup});
  text_option(verb, "--api-key-file", options.api_key_file, {"FILE", "Keys, one a line", kGroup});
  texts_option(verb, "--allowed-hosts", options.allowed_hosts,
               {"NAME",
                "Name that clients know this server by, besides localhost, --host\nand addresses; "
                "may be repeated; *: any",
                kGroup});
  flag_option(verb, "--insecure", options.insecure,
              {"", "Serve other machines without a key", kGroup});
  text_option(verb, "--ssl-certfile", options.ssl_certfile,
              {"FILE", "Certificate chain, PEM: HTTPS, TLS 1.2 and newer", kGroup});
  text_option(verb, "--ssl-keyfile", options.ssl_keyfile, {"FILE", "Its key, PEM", kGroup});
  whole_option(verb, "--max-connections", options.max_connections, {.min = 1, .max = 100000},
               {"N", "Open at once [1024]; more get a 503", kGroup});
  number_option(verb, "--drain-timeout", options.drain_timeout, {.min = 0, .max = 86400},
                {"SECONDS", "For open requests to end after SIGTERM or Ctrl-C [30]", kGroup});
  choice_option(verb, "--metrics-compat", options.metrics_compat, {"none", "vllm"},
                {"NAME", "Metrics also under the names of vllm [none]", kGroup});
}

void add_batch_options(CLI::App& verb, ServeOptions& options) {
  texts_option(verb, "--served-model-name", options.served_model_names,
               {"NAME", "Name in requests; may be repeated [the folder's name]", kModelGroup});
  whole_option(verb, "--max-num-seqs", options.max_num_seqs, {.min = 1, .max = 1 << 16},
               {"N", "Sequences in one step [256 on cuda, else 64]", kModelGroup});
  whole_option(verb, "--max-num-batched-tokens", options.max_num_batched_tokens,
               {.min = 1, .max = 1 << 20},
               {"N", "Tokens in one step [2048 on cuda, else 512]", kModelGroup});
}

}  // namespace

void add_model_options(CLI::App& verb, ServeOptions& options) {
  text_option(verb, "--chat-template", options.chat_template,
              {"FILE", "Jinja template [the model folder's]", kModelGroup});
  text_option(verb, "--generation-config", options.generation_config,
              {"NAME",
               "Where defaults of sampling come from: auto, the model folder's\n"
               "generation_config.json; none; or another folder [auto]",
               kModelGroup});
  whole_option(verb, "--max-model-len", options.max_model_len, {.min = 1, .max = 1 << 30},
               {"N", "Tokens of a prompt and its answer [the model's]", kModelGroup});
  number_option(verb, "--gpu-memory-utilization", options.gpu_memory_utilization,
                {.min = 0, .max = 1, .min_excluded = true},
                {"SHARE",
                 "Of the memory that is free beside the weights, for the KV-cache\nand a step's "
                 "rows [0.9 on cuda, else 0.5]",
                 kModelGroup});
  choice_option(
      verb, "--kv-cache-dtype", options.kv_cache_dtype,
      {"auto", "f32", "f16", "int8", "int4", "k8v4"},
      {"FORMAT", "f32, f16, int8, int4 or k8v4 (K in int8, V in int4)\n[auto: the checkpoint's]",
       kModelGroup});
}

void add_serve_options(CLI::App& verb, ServeOptions& options) {
  add_network_options(verb, options);
  add_batch_options(verb, options);
  add_model_options(verb, options);
  add_compute_options(verb, options.common);
  add_output_options(verb, options.common);
  config_option(verb);
}

std::vector<std::string> all_keys(const ServeOptions& options) {
  std::vector<std::string> keys = options.api_keys;
  for (const std::string& key : keys) serving::check_key(key, "--api-key");
  if (!options.api_key_file.empty())
    for (std::string& key : serving::read_key_file(options.api_key_file))
      keys.push_back(std::move(key));
  return keys;
}

serving::HttpOptions http_options(const ServeOptions& options) {
  if (options.ssl_certfile.empty() != options.ssl_keyfile.empty())
    usage_fail("--ssl-certfile and --ssl-keyfile belong together");
  serving::HttpOptions http;
  http.host = options.host;
  http.port = options.port;
  http.certificate_file = options.ssl_certfile;
  http.key_file = options.ssl_keyfile;
  http.max_connections = options.max_connections;
  return http;
}

std::string server_url(const ServeOptions& options, int port) {
  const bool is_v6 = options.host.find(':') != std::string::npos;
  return fmt::format("{}://{}:{}", options.ssl_certfile.empty() ? "http" : "https",
                     is_v6 ? "[" + options.host + "]" : options.host, port);
}

}  // namespace atom::app
