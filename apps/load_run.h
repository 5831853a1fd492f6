// A load of completion requests on a server, and what came of it.
//
// A closed loop has so many clients, each with its next request as soon as the answer is there. With a
// rate, requests arrive as a Poisson process whatever the server does, and their times count from the
// arrival, so that a slow server cannot slow its own measurement.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "load_client.h"

namespace atom::app {

struct LoadPlan {
  std::string model;
  int requests = 64;
  int clients = 8;             // of the closed loop; with a rate, the most at once
  std::optional<double> rate;  // arrivals a second
  int input_tokens = 128;
  int output_tokens = 64;
  int64_t vocabulary = 1000;  // prompts are random ids below it
  uint64_t seed = 0;
};

// Seconds, from the arrival of the request.
struct LoadSample {
  double arrival = 0;        // from the start of the load
  double first = 0;          // to the first piece, which may be without text
  double whole = 0;          // to the end
  std::vector<double> gaps;  // between pieces
  int64_t prompt_tokens = 0, tokens = 0;
  std::string error;  // empty: it succeeded
};

struct LoadResult {
  std::vector<LoadSample> samples;  // by number of the request
  double seconds = 0;               // from the first arrival to the last end
};

// Body of request i; its prompt depends on seed and i alone.
std::string load_request(const LoadPlan& plan, int i);

// `progress` is called a few times a second with the number of requests that have ended; it may throw, which
// stops the load.
LoadResult run_load(const LoadPlan& plan, const LoadClientOptions& client,
                    const std::function<void(int)>& progress);

// Limits of an answer that counts as good.
struct LoadTargets {
  std::optional<double> first, gap;  // seconds; the second: mean of its gaps
};

struct Percentiles {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};
// Nearest rank; zeros of no values.
Percentiles percentiles_of(std::vector<double> values);

struct LoadSummary {
  int succeeded = 0, failed = 0;
  std::string error;                                                      // the first one
  double seconds = 0, request_rate = 0, output_rate = 0, total_rate = 0;  // a second
  int64_t prompt_tokens = 0, output_tokens = 0;
  Percentiles first, gap, whole;
  std::optional<double> goodput;  // good answers a second, where there is a target
};
LoadSummary summarize(const LoadResult& result, const LoadTargets& targets);

}  // namespace atom::app
