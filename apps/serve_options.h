// The options of `atom serve`, named as in vLLM, and what follows from them alone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "serving/http.h"
#include "session.h"

namespace atom::app {

struct ServeOptions {
  CommonOptions common;
  std::string model;
  std::vector<std::string> served_model_names;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::vector<std::string> api_keys;
  std::string api_key_file;
  std::vector<std::string> allowed_hosts;
  bool insecure = false;
  std::string ssl_keyfile, ssl_certfile;
  int max_connections = 1024;
  std::optional<int> max_model_len, max_num_seqs, max_num_batched_tokens;
  std::optional<double> gpu_memory_utilization;
  std::string kv_cache_dtype = "auto";
  std::string chat_template;
  std::string generation_config = "auto";
  std::optional<double> drain_timeout;
  std::string metrics_compat = "none";
};

void add_serve_options(CLI::App& verb, ServeOptions& options);
// Those of them that concern a model for one client, too: --chat-template --generation-config --max-model-len --gpu-memory-utilization
// --kv-cache-dtype
void add_model_options(CLI::App& verb, ServeOptions& options);

// Keys of --api-key and --api-key-file. Error: a key that no header can carry, an unreadable file.
std::vector<std::string> all_keys(const ServeOptions& options);
serving::HttpOptions http_options(const ServeOptions& options);
// "http://127.0.0.1:8000"
std::string server_url(const ServeOptions& options, int port);

}  // namespace atom::app
