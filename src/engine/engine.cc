#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <limits>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace atom::engine {
namespace {

EngineOptions completed(EngineOptions options, const model::Model& model) {
  if (options.max_sequences < 1) fail("{} sequences in a step are none", options.max_sequences);
  if (options.max_rows < options.max_sequences)
    fail("{} rows of a step are fewer than its {} sequences", options.max_rows,
         options.max_sequences);
  if (options.max_positions == 0) options.max_positions = model.config.max_positions;
  if (options.max_positions < 1 || options.max_positions > model.config.max_positions)
    fail("{} positions of a sequence are not within the model's max_position_embeddings of {}",
         options.max_positions, model.config.max_positions);
  const int tokens = format::KvLayout{}.tokens;
  const int each = (options.max_positions + tokens - 1) / tokens;
  if (options.pages == 0) options.pages = each * options.max_sequences;
  if (options.hash_key == 0) {
    std::random_device system;
    options.hash_key = uint64_t{system()} << 32 | system();
  }
  if (options.saturation_steps < 0)
    fail("saturation_steps of {} is negative", options.saturation_steps);
  if (options.pages < 1) fail("{} pages of the KV-cache are none", options.pages);
  return options;
}

void validate(const Request& request, const EngineOptions& options, int vocabulary) {
  const SamplingOptions& s = request.sampling;
  if (request.prompt.empty()) fail("the prompt is empty");
  for (const int32_t id : request.prompt)
    if (id < 0 || id >= vocabulary)
      fail("token id {} of the prompt is outside the model's vocabulary of {}", id, vocabulary);
  if (s.max_tokens < 1) fail("max_tokens of {} is less than 1", s.max_tokens);
  const int64_t total = static_cast<int64_t>(request.prompt.size()) + s.max_tokens;
  if (total > options.max_positions)
    fail("{} tokens of prompt and {} new ones exceed the {} positions of a sequence",
         request.prompt.size(), s.max_tokens, options.max_positions);
  const int64_t room = int64_t{options.pages} * format::KvLayout{}.tokens;
  if (total > room)
    fail("{} tokens of prompt and {} new ones exceed the KV-cache of {} tokens",
         request.prompt.size(), s.max_tokens, room);
  if (!(s.temperature >= 0)) fail("a temperature of {} is negative", s.temperature);
  if (s.top_k < 0) fail("a top_k of {} is negative", s.top_k);
  if (!(s.min_p >= 0 && s.min_p <= 1)) fail("a min_p of {} is outside [0, 1]", s.min_p);
  if (!(s.top_p > 0 && s.top_p <= 1)) fail("a top_p of {} is outside (0, 1]", s.top_p);
  if (!(s.repetition_penalty > 0 && std::isfinite(s.repetition_penalty)))
    fail("a repetition_penalty of {} is not positive", s.repetition_penalty);
  for (const auto& [name, value] : {std::pair{"frequency_penalty", s.frequency_penalty},
                                    {"presence_penalty", s.presence_penalty}})
    if (!(value >= -2 && value <= 2)) fail("a {} of {} is outside [-2, 2]", name, value);
  for (const auto& [id, bias] : s.logit_bias) {
    if (id < 0 || id >= vocabulary)
      fail("token id {} of logit_bias is outside the model's vocabulary of {}", id, vocabulary);
    if (std::isnan(bias) || bias == std::numeric_limits<float>::infinity())
      fail("a logit_bias of {} for token id {} is not a number", bias, id);
  }
  for (const int32_t id : s.stop_ids)
    if (id < 0 || id >= vocabulary)
      fail("stop id {} is outside the model's vocabulary of {}", id, vocabulary);
  if (s.min_tokens < 0 || s.min_tokens > s.max_tokens)
    fail("min_tokens of {} is outside 0 to max_tokens, {}", s.min_tokens, s.max_tokens);
  for (const auto& [name, count] :
       {std::pair{"logprobs", s.logprobs}, {"prompt_logprobs", s.prompt_logprobs}})
    if (count && (*count < 0 || *count > vocabulary))
      fail("{} of {} are outside 0 to the vocabulary of {}", name, *count, vocabulary);
}

bool ends_text(int32_t id, const std::vector<int>& eos_ids, const SamplingOptions& sampling) {
  const auto is_id = [id](int32_t other) { return other == id; };
  return !sampling.ignore_eos &&
         (std::any_of(eos_ids.begin(), eos_ids.end(), is_id) ||
          std::any_of(sampling.stop_ids.begin(), sampling.stop_ids.end(), is_id));
}

}  // namespace

const char* name(Finish finish) {
  switch (finish) {
    case Finish::kNot:
      return "";
    case Finish::kStop:
      return "stop";
    case Finish::kLength:
      return "length";
    case Finish::kCancelled:
      return "cancelled";
    case Finish::kDeadline:
      return "deadline";
    case Finish::kError:
      break;
  }
  return "error";
}

Engine::Engine(const model::Model& model, const EngineOptions& options)
    : model_(model),
      options_(completed(options, model)),
      pages_({.pages = options_.pages,
              .page_tokens = format::KvLayout{}.tokens,
              .prefix_cache = options_.prefix_cache,
              .key = options_.hash_key}),
      scheduler_({.max_sequences = options_.max_sequences, .max_rows = options_.max_rows}, pages_),
      runner_(model, {.max_sequences = options_.max_sequences,
                      .max_rows = options_.max_rows,
                      .max_positions = options_.max_positions,
                      .pages = options_.pages,
                      .saturation_steps = options_.saturation_steps}) {}

RequestId Engine::submit(Request request, EventSink sink) {
  validate(request, options_, model_.config.vocabulary);
  if (scheduler_.waiting() >= options_.max_waiting)
    throw Overloaded(fmt::format("{} requests wait already", scheduler_.waiting()));
  const int64_t tokens = scheduler_.waiting_tokens();
  if (scheduler_.waiting() > 0 &&
      tokens + static_cast<int64_t>(request.prompt.size()) > options_.max_waiting_tokens)
    throw Overloaded(fmt::format("requests with {} tokens wait already", tokens));
  const RequestId id = next_id_++;
  stats_.prompt_tokens += static_cast<int64_t>(request.prompt.size());
  scheduler_.add(std::make_unique<Sequence>(id, std::move(request), std::move(sink)));
  return id;
}

void Engine::finish(RequestId id, Finish reason, const std::string& error) {
  const std::unique_ptr<Sequence> ended = scheduler_.remove(id, reason == Finish::kError);
  check(ended != nullptr, "a request ends once");
  deliver(*ended, {.request = id,
                   .finish = reason,
                   .error = error,
                   .prompt_cached = ended->cached,
                   .prompt_logprobs = std::move(ended->prompt_logprobs)});
}

bool Engine::deliver(const Sequence& sequence, const Event& event) {
  if (!sequence.sink) return true;
  try {
    sequence.sink(event);
    return true;
  } catch (const std::exception& error) {
    log_warning("request {}: its client cannot be told: {}", sequence.id, error.what());
    return false;
  }
}

bool Engine::cancel(RequestId id) {
  for (const Sequence* sequence : scheduler_.all())
    if (sequence->id == id) {
      finish(id, Finish::kCancelled);
      return true;
    }
  return false;
}

Engine::~Engine() {
  try {
    shutdown();
  } catch (const std::exception&) {
    // The pages no longer add up, as a step has said: nothing more can be done for the rest.
  }
}

void Engine::shutdown() {
  for (const Sequence* sequence : scheduler_.all()) finish(sequence->id, Finish::kCancelled);
}

void Engine::expire(double now) {
  for (const Sequence* sequence : scheduler_.all())
    if (sequence->request.deadline && now > *sequence->request.deadline)
      finish(sequence->id, Finish::kDeadline);
}

bool Engine::step(double now) {
  const auto begin = std::chrono::steady_clock::now();
  expire(now);
  const std::vector<Chunk> chunks = scheduler_.plan();
  if (chunks.empty()) {
    check(scheduler_.waiting() == 0 && scheduler_.running() == 0, "what waits finds room");
    const std::string wrong = problem();
    check(wrong.empty(), wrong);
    return false;
  }
  stats_.step_sequences = static_cast<int>(chunks.size());
  stats_.step_rows = 0;
  for (const Chunk& chunk : chunks) stats_.step_rows += chunk.rows;
  std::vector<NextId> ids;
  const auto planned = std::chrono::steady_clock::now();
  try {
    ids = runner_.run(chunks);
  } catch (const InvariantError&) {
    throw;                                 // a defect of ours
  } catch (const std::exception& error) {  // of the device, or no memory
    for (const Chunk& chunk : chunks) finish(chunk.sequence->id, Finish::kError, error.what());
    return true;
  }
  const auto ran = std::chrono::steady_clock::now();
  ++stats_.steps;
  scheduler_.commit(chunks);
  std::vector<Chunk> sampled;
  std::copy_if(chunks.begin(), chunks.end(), std::back_inserter(sampled),
               [](const Chunk& chunk) { return chunk.samples; });
  take_ids(sampled, ids);
  const auto end = std::chrono::steady_clock::now();
  stats_.schedule_seconds += std::chrono::duration<double>((planned - begin) + (end - ran)).count();
  if (options_.check_each_step) {
    const std::string wrong = problem();
    check(wrong.empty(), wrong);
  }
  return true;
}

void Engine::take_ids(std::span<const Chunk> sampled, std::span<NextId> ids) {
  for (size_t i = 0; i < sampled.size(); ++i) {
    Sequence& s = *sampled[i].sequence;
    const SamplingOptions& sampling = s.request.sampling;
    const int32_t id = ids[i].id;
    if (s.generated() == 0) stats_.cached_tokens += s.cached;
    if (id < 0) {
      finish(
          s.id, Finish::kError,
          fmt::format("the model gives logits that are not finite at position {}", s.size() - 1));
      continue;
    }
    if (ends_text(id, model_.config.eos_ids, sampling)) {
      finish(s.id, Finish::kStop);
      continue;
    }
    Event event = {.request = s.id,
                   .id = id,
                   .prompt_cached = s.cached,
                   .logprobs = std::move(ids[i].logprobs),
                   .prompt_logprobs = std::exchange(s.prompt_logprobs, {})};
    s.append(id);
    ++stats_.generated_tokens;
    std::unique_ptr<Sequence> ended;
    if (s.generated() == sampling.max_tokens) {
      event.finish = Finish::kLength;
      ended = scheduler_.remove(s.id);
    }
    if (!deliver(s, event) && ended == nullptr) scheduler_.remove(s.id);
  }
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.running = scheduler_.running();
  stats.waiting = scheduler_.waiting();
  stats.pages = pages_.pages();
  stats.pages_held = pages_.held();
  stats.pages_cached = pages_.cached();
  stats.preemptions = scheduler_.preemptions();
  stats.saturation = runner_.saturation();
  return stats;
}

}  // namespace atom::engine
