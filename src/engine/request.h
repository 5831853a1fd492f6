// What a client asks of the engine, and what comes back.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atom::engine {

struct SamplingOptions {
  float temperature = 1;  // 0: greedy
  // Filters, in this order, as in vLLM: ids at least min_p times as likely as the likeliest (after temperature; 0: all), the
  // top_k most likely ones (0: all), the fewest of these whose share reaches top_p.
  float min_p = 0;
  int top_k = 0;
  float top_p = 1;
  uint64_t seed = 0;
  // Of ids in the prompt or the text: a positive logit is divided by it, a negative one multiplied (Keskar et al. 2019).
  float repetition_penalty = 1;
  float frequency_penalty = 0;  // times the id's count in the text, subtracted from its logit
  float presence_penalty = 0;   // of ids in the text, subtracted
  std::vector<std::pair<int32_t, float>> logit_bias;  // added; -infinity forbids an id
  int max_tokens = 128;
  int min_tokens = 0;  // ids that end the text are forbidden before so many
  bool ignore_eos = false;
  std::vector<int32_t> stop_ids;  // that end the text besides the model's own
  std::optional<int> logprobs;    // of each id, and of so many most likely ones beside it
  // The same of the prompt's ids from the second on; no page of it is taken from the cache.
  std::optional<int> prompt_logprobs;
};

struct Request {
  std::vector<int32_t> prompt;
  SamplingOptions sampling;
  // Requests share the pages of a common beginning only with those of the same salt.
  std::string cache_salt;
  std::optional<double> deadline;  // in the seconds that Engine::step is told
};

using RequestId = uint64_t;

// Natural logarithms of the probabilities that the model gives, before temperature, penalties and filters.
struct Logprob {
  int32_t id = 0;
  float logprob = 0;
};
struct Logprobs {
  Logprob of;                 // the id in the text
  int rank = 1;               // 1: the most likely; ties count as the same
  std::vector<Logprob> most;  // the most likely ids, in falling order; ties by id
};

enum class Finish { kNot, kStop, kLength, kCancelled, kDeadline, kError };
const char* name(Finish finish);  // "stop", "length", "cancelled", "deadline", "error"; "" of kNot

// One id, or the end, or both. The last event of a request has a finish; there is exactly one such.
struct Event {
  RequestId request = 0;
  std::optional<int32_t> id;
  Finish finish = Finish::kNot;
  std::string error;                 // of kError: one sentence
  int prompt_cached = 0;             // tokens of the prompt whose pages were there already
  std::optional<Logprobs> logprobs;  // of the id, where they were asked for
  std::vector<Logprobs>
      prompt_logprobs;  // of prompt[1], prompt[2], ...: with the first event, where they were asked for
};
// Called within Engine::step, cancel, shutdown or the destructor, on the caller's thread; it may not call the engine.
// One that throws hears no more, and its request ends.
using EventSink = std::function<void(const Event&)>;

// More requests are waiting than the engine takes: to be tried again later, no fault of the request.
class Overloaded : public std::exception {
 public:
  explicit Overloaded(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

}  // namespace atom::engine
