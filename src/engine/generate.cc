#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "kv/pool.h"
#include "model/forward.h"

namespace atom::engine {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void validate(const model::Model& model, std::span<const int32_t> prompt,
              const GenerateOptions& options) {
  check(options.max_rows > 0, "a step has rows");
  if (prompt.empty()) fail("the prompt is empty");
  if (options.max_tokens < 1) fail("{} new tokens are fewer than one", options.max_tokens);
  const int64_t total = static_cast<int64_t>(prompt.size()) + options.max_tokens;
  if (total > model.config.max_positions)
    fail("{} tokens of prompt and {} new ones exceed the model's max_position_embeddings of {}",
         prompt.size(), options.max_tokens, model.config.max_positions);
  for (const int32_t id : prompt)
    if (id < 0 || id >= model.config.vocabulary)
      fail("token id {} of the prompt is outside the model's vocabulary of {}", id,
           model.config.vocabulary);
  if (!(options.temperature >= 0)) fail("a temperature of {} is negative", options.temperature);
  if (options.top_k < 0) fail("a top_k of {} is negative", options.top_k);
  if (!(options.min_p >= 0 && options.min_p <= 1))
    fail("a min_p of {} is outside [0, 1]", options.min_p);
  if (!(options.top_p > 0 && options.top_p <= 1))
    fail("a top_p of {} is outside (0, 1]", options.top_p);
}

// An id that was asked for.
class SampledId {
 public:
  SampledId() = default;
  SampledId(std::unique_ptr<backend::PendingIds> ids, int position)
      : ids_(std::move(ids)), position_(position) {}
  int32_t wait() const {
    const int32_t id = ids_->wait().front();
    if (id < 0) fail("the model gives logits that are not finite at position {}", position_);
    return id;
  }

 private:
  std::unique_ptr<backend::PendingIds> ids_;
  int position_ = 0;  // of the logits that it comes from
};

// One sequence on one model: its pages, its position, the logits of its last row.
class OneSequence {
 public:
  OneSequence(const model::Model& model, int rows, int positions)
      : model_(model),
        rows_(rows),
        forward_(model.config, *model.backend, {.max_rows = rows, .max_positions = positions}),
        pool_(model::make_pool(model, positions)),
        pages_(model::consecutive_pages(0, pool_.pages())),
        h_(model.backend->allocate(sizeof(float) * rows * model.config.hidden)),
        logits_(model.backend->allocate(sizeof(float) * model.config.vocabulary)),
        token_(model.backend->record([this](std::span<const backend::SequenceStep> sequences) {
          enqueue(sequences, 1);
          forward_.head(*model_.ends, h_.as<float>(), 1, logits_.as<float>());
        })) {}
  OneSequence(const OneSequence&) = delete;
  OneSequence& operator=(const OneSequence&) = delete;

  // Appends ids; afterwards the logits are those of the last one. False: `go_on`, asked after each step
  // but the last, said no.
  bool append(std::span<const int32_t> ids, const std::function<bool(int)>& go_on) {
    for (size_t begin = 0; begin < ids.size(); begin += rows_) {
      if (begin > 0 && go_on && !go_on(static_cast<int>(begin))) return false;
      step(ids.subspan(begin, std::min<size_t>(rows_, ids.size() - begin)));
    }
    const int64_t last = static_cast<int64_t>((ids.size() - 1) % rows_);
    forward_.head(*model_.ends, h_.as<float>() + last * model_.config.hidden, 1,
                  logits_.as<float>());
    return true;
  }

  // Appends the id that was sampled last, known or not; afterwards the logits are its.
  void append_sampled() {
    if (!follows_) {
      const int32_t id = backend::sampled_row(0);
      forward_.upload_ids({&id, 1});
      follows_ = true;
    }
    const backend::SequenceStep step = next(1);
    token_->run({&step, 1});
    ++position_;
  }

  SampledId sample(const backend::SampleRule& rule) {
    return {model_.backend->sample_ahead({.logits = logits_.as<float>(),
                                          .rows = 1,
                                          .vocabulary = model_.config.vocabulary,
                                          .rules = &rule},
                                         forward_.sampled()),
            position_ - 1};
  }

 private:
  backend::SequenceStep next(int rows) const {
    return {.row_begin = 0, .row_end = rows, .position = position_, .page_table = pages_.data()};
  }

  void step(std::span<const int32_t> ids) {
    const int rows = static_cast<int>(ids.size());
    forward_.upload_ids(ids);
    follows_ = false;
    const backend::SequenceStep step = next(rows);
    enqueue({&step, 1}, rows);
    position_ += rows;
  }

  void enqueue(std::span<const backend::SequenceStep> sequences, int rows) {
    forward_.embed(*model_.ends, rows, h_.as<float>());
    for (int layer = 0; layer < pool_.layers(); ++layer)
      forward_.layer(*model_.layers[layer], pool_, layer, sequences, rows, h_.as<float>());
  }

  const model::Model& model_;
  int rows_;
  int position_ = 0;
  bool follows_ = false;  // the next step's ids, on the device, are those that are sampled
  model::Forward forward_;
  kv::Pool pool_;
  std::vector<int32_t> pages_;
  backend::Buffer h_;                          // f32 [rows, hidden]
  backend::Buffer logits_;                     // f32 [vocabulary]
  std::unique_ptr<backend::Recording> token_;  // a step of one id and its logits
};

bool contains(const std::vector<int>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// New ids after the prompt. On a device that runs ahead of the host, the step of an id is enqueued before the id is known: a
// step too many when the id ends the text, whose row nobody reads. The last id has no step, so positions suffice.
void decode_tokens(const model::Model& model, OneSequence& sequence, const GenerateOptions& options,
                   GenerateResult& result) {
  Random random(options.seed);
  const auto sample = [&] {
    return sequence.sample({.temperature = options.temperature,
                            .top_k = options.top_k,
                            .min_p = options.min_p,
                            .top_p = options.top_p,
                            .uniform = random.uniform()});
  };
  const bool ahead = model.backend->runs_ahead();
  SampledId next = sample();
  for (int done = 1;; ++done) {
    const SampledId current = std::exchange(next, {});
    const bool last = done == options.max_tokens;
    const auto enqueue_next = [&] {
      sequence.append_sampled();
      next = sample();
    };
    if (ahead && !last) enqueue_next();
    const int32_t id = current.wait();
    const bool ends = contains(model.config.eos_ids, id) || contains(options.eos_ids, id);
    if (ends && !options.ignore_eos) {
      result.finish_reason = "stop";
      return;
    }
    result.ids.push_back(id);
    if (options.on_token && !options.on_token(id)) {
      result.finish_reason = "cancelled";
      return;
    }
    if (last) return;
    if (!ahead) enqueue_next();
  }
}

}  // namespace

GenerateResult generate(const model::Model& model, std::span<const int32_t> prompt,
                        const GenerateOptions& options) {
  validate(model, prompt, options);
  const int prompt_size = static_cast<int>(prompt.size());
  OneSequence sequence(model, std::min(options.max_rows, prompt_size),
                       prompt_size + options.max_tokens);
  GenerateResult result;

  const Stopwatch prefill;
  if (!sequence.append(prompt, options.on_prompt)) {
    result.finish_reason = "cancelled";
    return result;
  }
  model.backend->synchronize();
  result.prefill_seconds = prefill.seconds();

  const Stopwatch decode;
  decode_tokens(model, sequence, options, result);
  result.decode_seconds = decode.seconds();
  return result;
}

}  // namespace atom::engine
