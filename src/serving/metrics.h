// The numbers of a server as Prometheus reads them (text format 0.0.4).
#pragma once

#include <string>

#include "serving/engine_thread.h"

namespace atom::serving {

struct MetricsOptions {
  std::string model;        // the label of vLLM's names
  bool vllm_names = false;  // beside the own ones, for dashboards that know these
};

std::string metrics_text(const ThreadStats& stats, const MetricsOptions& options);

}  // namespace atom::serving
