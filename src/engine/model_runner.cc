#include "engine/model_runner.h"

#include <algorithm>

#include "engine/logits.h"

namespace atom::engine {
namespace {

constexpr size_t kMostRecordings = 64;  // a graph of a large model takes some MiB of host memory

}  // namespace

ModelRunner::ModelRunner(const model::Model& model, const Options& options)
    : model_(model),
      options_(options),
      forward_(model.config, *model.backend,
               {.max_rows = options.max_rows, .max_positions = options.max_positions}),
      saturation_(model, options.saturation_steps),
      pool_(model::make_shared_pool(model, options.pages, options.max_sequences)),
      h_(model.backend->allocate(sizeof(float) * static_cast<size_t>(options.max_rows) *
                                 static_cast<size_t>(model.config.hidden))),
      logits_(model.backend->allocate(sizeof(float) * static_cast<size_t>(options.max_sequences) *
                                      static_cast<size_t>(model.config.vocabulary))) {}

const float* ModelRunner::row(int index) const {
  return h_.as<float>() + static_cast<size_t>(index) * static_cast<size_t>(model_.config.hidden);
}

std::vector<float> ModelRunner::download_logits(int index) const {
  const auto vocabulary = static_cast<size_t>(model_.config.vocabulary);
  std::vector<float> values(vocabulary);
  model_.backend->synchronize();
  model_.backend->download(values.data(),
                           logits_.as<float>() + static_cast<size_t>(index) * vocabulary,
                           vocabulary * sizeof(float));
  return values;
}

ModelRunner::Placed ModelRunner::place(std::span<const Chunk> chunks) {
  Placed out;
  for (const Chunk& chunk : chunks) {
    const Sequence& s = *chunk.sequence;
    const int begin = static_cast<int>(out.ids.size());
    out.ids.insert(out.ids.end(), s.ids.begin() + s.computed,
                   s.ids.begin() + s.computed + chunk.rows);
    out.steps.push_back({.row_begin = begin,
                         .row_end = begin + chunk.rows,
                         .position = s.computed,
                         .page_table = s.pages.data(),
                         .open_page = s.place});
  }
  return out;
}

void ModelRunner::enqueue_layers(std::span<const backend::SequenceStep> steps, int rows) {
  forward_.embed(*model_.ends, rows, h_.as<float>());
  for (int layer = 0; layer < pool_.layers(); ++layer)
    forward_.layer(*model_.layers[static_cast<size_t>(layer)], pool_, layer, steps, rows,
                   h_.as<float>());
}

void ModelRunner::enqueue_decode(std::span<const backend::SequenceStep> steps) {
  const int rows = static_cast<int>(steps.size());
  enqueue_layers(steps, rows);
  forward_.head(*model_.ends, h_.as<float>(), rows, logits_.as<float>());
}

void ModelRunner::forward(const Placed& placed) {
  forward_.upload_ids(placed.ids);
  enqueue_layers(placed.steps, static_cast<int>(placed.ids.size()));
}

void ModelRunner::decode(const Placed& placed) {
  forward_.upload_ids(placed.ids);
  if (saturation_.looks())
    enqueue_decode(placed.steps);  // which counts, as a recording must not
  else
    recording(placed.steps.size()).run(placed.steps);
}

backend::Recording& ModelRunner::recording(size_t sequences) {
  const auto at = std::find_if(recorded_.begin(), recorded_.end(), [&](const RecordedStep& step) {
    return step.sequences == sequences;
  });
  if (at != recorded_.end()) {
    recorded_.splice(recorded_.begin(), recorded_, at);
  } else {
    if (recorded_.size() == kMostRecordings) recorded_.pop_back();
    recorded_.push_front(
        {sequences, model_.backend->record([this](std::span<const backend::SequenceStep> steps) {
           enqueue_decode(steps);
         })});
  }
  return *recorded_.front().recording;
}

// Row r has the logits of the id at position r + 1.
void ModelRunner::score_prompt(Sequence& s, const backend::SequenceStep& step) {
  const int known = static_cast<int>(s.prompt_logprobs.size());
  const int first = std::max(step.position, known);
  const int end = std::min(step.position + step.row_end - step.row_begin, s.prompt_size() - 1);
  for (int begin = first; begin < end; begin += options_.max_sequences) {
    const int count = std::min(options_.max_sequences, end - begin);
    forward_.head(*model_.ends, row(step.row_begin + begin - step.position), count,
                  logits_.as<float>());
    for (int i = 0; i < count; ++i)
      s.prompt_logprobs.push_back(logprobs_of(download_logits(i),
                                              s.ids[static_cast<size_t>(begin + i + 1)],
                                              *s.request.sampling.prompt_logprobs));
  }
}

std::vector<NextId> ModelRunner::sample(std::span<Sequence* const> sequences) {
  std::vector<backend::SampleRule> rules;
  std::vector<backend::LogitEdit> edits;
  std::vector<std::vector<float>> kept(sequences.size());  // logits before they are edited
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& s = *sequences[i];
    const SamplingOptions& sampling = s.request.sampling;
    rules.push_back({.temperature = sampling.temperature,
                     .top_k = sampling.top_k,
                     .min_p = sampling.min_p,
                     .top_p = sampling.top_p,
                     .uniform = s.random.uniform()});
    append_edits(s, model_.config.eos_ids, static_cast<int>(i), edits);
    if (sampling.logprobs) kept[i] = download_logits(static_cast<int>(i));
  }
  if (!edits.empty())
    model_.backend->edit_logits(logits_.as<float>(), model_.config.vocabulary, edits);
  std::vector<int32_t> ids(rules.size());
  model_.backend->sample({.logits = logits_.as<float>(),
                          .rows = static_cast<int>(rules.size()),
                          .vocabulary = model_.config.vocabulary,
                          .rules = rules.data(),
                          .ids = ids.data()});
  std::vector<NextId> out(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    out[i].id = ids[i];
    if (ids[i] >= 0 && !kept[i].empty())
      out[i].logprobs = logprobs_of(kept[i], ids[i], *sequences[i]->request.sampling.logprobs);
  }
  return out;
}

std::vector<NextId> ModelRunner::run(std::span<const Chunk> chunks) {
  const Placed placed = place(chunks);
  forward_.count_saturated(saturation_.begin_step(static_cast<int>(placed.ids.size())));
  std::vector<NextId> ids = run(chunks, placed);
  saturation_.end_step();
  return ids;
}

std::vector<NextId> ModelRunner::run(std::span<const Chunk> chunks, const Placed& placed) {
  std::vector<Sequence*> sampling;
  const auto is_newest_id = [](const Chunk& c) { return c.samples && c.rows == 1; };
  if (std::all_of(chunks.begin(), chunks.end(), is_newest_id)) {  // so no prompt has rows to score
    decode(placed);
    for (const Chunk& chunk : chunks) sampling.push_back(chunk.sequence);
    return sample(sampling);
  }
  forward(placed);
  const std::vector<backend::SequenceStep>& steps = placed.steps;
  for (size_t i = 0; i < chunks.size(); ++i)  // a text that is computed anew has delivered its own
    if (chunks[i].sequence->scores_prompt()) score_prompt(*chunks[i].sequence, steps[i]);
  // Single rows are in front, one after another; of a prompt the last row counts.
  const auto vocabulary = static_cast<size_t>(model_.config.vocabulary);
  for (size_t i = 0; i < chunks.size();) {
    const bool samples = chunks[i].samples;
    size_t end = i + 1;
    while (is_newest_id(chunks[i]) && end < chunks.size() && is_newest_id(chunks[end])) ++end;
    if (samples)
      forward_.head(*model_.ends, row(steps[i].row_end - 1), static_cast<int>(end - i),
                    logits_.as<float>() + sampling.size() * vocabulary);
    for (; i < end; ++i)
      if (samples) sampling.push_back(chunks[i].sequence);
  }
  if (sampling.empty()) return {};
  return sample(sampling);
}

}  // namespace atom::engine
