#include "timing/step.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace atom::timing {
namespace {

int positions(const StepShape& shape) { return shape.context + StepBench::kMostSteps; }

std::vector<format::KvLayout> layouts_of(const model::Model& model) {
  std::vector<format::KvLayout> layouts;
  for (const format::KvKind kind : model.scheme.kv)
    layouts.push_back({.kind = kind,
                       .kv_heads = model.config.kv_heads,
                       .head_dim = model.config.head_dim,
                       .open_page = model.scheme.open_page && format::has_int4_side(kind)});
  return layouts;
}

// `batch` lists of `each` pages, of all pages in random order.
std::vector<std::vector<int32_t>> shuffled_pages(int batch, int each) {
  std::vector<int32_t> all(static_cast<size_t>(batch) * static_cast<size_t>(each));
  std::iota(all.begin(), all.end(), 0);
  Random random(7);
  for (size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random.below(i)]);
  std::vector<std::vector<int32_t>> pages;
  for (auto at = all.begin(); at != all.end(); at += each) pages.emplace_back(at, at + each);
  return pages;
}

}  // namespace

double StepTimes::gap() const {
  return step.best - sample - std::accumulate(kinds.begin(), kinds.end(), 0.0);
}

StepBench::StepBench(const model::Model& model, const StepShape& shape,
                     const std::function<void()>& between)
    : model_(model),
      shape_(shape),
      selected_(*model.backend, model.ends->head.get()),
      forward_(model.config, selected_,
               {.max_rows = shape.batch, .max_positions = positions(shape)}),
      pool_(*model.backend, layouts_of(model),
            shape.batch * kv::pages_for(positions(shape), layouts_of(model).front()), shape.batch),
      pages_(shuffled_pages(shape.batch, pool_.pages() / shape.batch)),
      rules_(static_cast<size_t>(shape.batch)),
      position_(shape.context) {
  const auto rows = static_cast<size_t>(shape.batch);
  h_ = model.backend->allocate(sizeof(float) * rows * static_cast<size_t>(model.config.hidden));
  logits_ =
      model.backend->allocate(sizeof(float) * rows * static_cast<size_t>(model.config.vocabulary));
  model::fill_random(pool_, *model.backend, 5, between);
  std::vector<int32_t> first_ids, rows_before;
  for (int i = 0; i < shape.batch; ++i) {
    sequences_.push_back({.row_begin = i,
                          .row_end = i + 1,
                          .page_table = pages_[static_cast<size_t>(i)].data(),
                          .open_page = i});
    first_ids.push_back(i % model.config.vocabulary);
    rows_before.push_back(backend::sampled_row(i));
  }
  model.backend->upload(forward_.sampled(), first_ids.data(), rows * sizeof(int32_t));
  forward_.upload_ids(rows_before);
  whole_ = record([this] { selected_.select_all(); });
  for (int i = 0; i < kKinds; ++i) {
    parts_.emplace_back();
    const auto kind = static_cast<Kind>(i);
    if (kind != Kind::kRouting || model.config.mixture())
      parts_.back() = record([this, kind] { selected_.select(kind); });
  }
}

std::span<const backend::SequenceStep> StepBench::sequences(int position) {
  for (backend::SequenceStep& sequence : sequences_) sequence.position = position;
  return sequences_;
}

void StepBench::enqueue(std::span<const backend::SequenceStep> sequences) {
  forward_.embed(*model_.ends, shape_.batch, h_.as<float>());
  for (int i = 0; i < pool_.layers(); ++i)
    forward_.layer(*model_.layers[static_cast<size_t>(i)], pool_, i, sequences, shape_.batch,
                   h_.as<float>());
  forward_.head(*model_.ends, h_.as<float>(), shape_.batch, logits_.as<float>());
}

std::unique_ptr<backend::Recording> StepBench::record(std::function<void()> before) {
  return model_.backend->record(
      [this, before = std::move(before)](std::span<const backend::SequenceStep> sequences) {
        before();
        enqueue(sequences);
      });
}

// Enqueues this step's, then looks at the ids of the step before.
void StepBench::sample() {
  auto next = model_.backend->sample_ahead({.logits = logits_.as<float>(),
                                            .rows = shape_.batch,
                                            .vocabulary = model_.config.vocabulary,
                                            .rules = rules_.data()},
                                           forward_.sampled());
  if (ids_ != nullptr) {
    const std::span<const int32_t> before = ids_->wait();
    if (std::find(before.begin(), before.end(), -1) != before.end())
      fail("a timed step gave logits that are not finite");
  }
  ids_ = std::move(next);
}

void StepBench::step(backend::Recording& recording) {
  recording.run(sequences(position_++));
  sample();
}

std::vector<Timing> StepBench::compare(std::span<const std::function<void()>> before,
                                       const RoundOptions& options) {
  std::vector<std::unique_ptr<backend::Recording>> recordings;
  std::vector<Candidate> candidates;
  for (const std::function<void()>& prepare : before) {
    recordings.push_back(record([this, &prepare] {
      prepare();
      selected_.select_all();
    }));
    candidates.push_back({.enqueue = [this, &recording = *recordings.back()] { step(recording); },
                          .restart = [this] { position_ = shape_.context; },
                          .most_runs = kMostSteps});
  }
  return time_alternating(*model_.backend, candidates, options);
}

StepTimes StepBench::measure(const RoundOptions& options) {
  const auto restart = [this] { position_ = shape_.context; };
  const auto alone = [&](std::function<void()> enqueue, int most_runs) {
    const Candidate candidate{std::move(enqueue), restart, most_runs};
    return time_alternating(*model_.backend, {&candidate, 1}, options).front();
  };
  StepTimes times;
  times.step = alone([this] { step(*whole_); }, kMostSteps);
  times.sample = alone([this] { sample(); }, 1 << 20).best;
  times.replay = alone([this] { whole_->run(sequences(position_++)); }, kMostSteps).best;
  // The inputs of attention and of producers are those of the last whole step; linears, whose results are not, come last.
  for (const Kind kind :
       {Kind::kAttention, Kind::kProducers, Kind::kRouting, Kind::kLinears, Kind::kHead}) {
    const auto i = static_cast<size_t>(kind);
    if (parts_[i])
      times.kinds[i] =
          alone([this, i] { parts_[i]->run(sequences(position_++)); }, kMostSteps).best;
  }
  return times;
}

std::vector<float> StepBench::logits() {
  std::vector<float> out(logits_.bytes() / sizeof(float));
  model_.backend->download(out.data(), logits_.data(), logits_.bytes());
  return out;
}

StepFloors step_floors(const model::Model& model, const model::WeightBytes& bytes,
                       const StepShape& shape, const backend::Ceilings& ceilings) {
  const model::ModelConfig& config = model.config;
  const double batch = shape.batch, experts = config.experts, chosen = config.experts_per_token;
  if (ceilings.read_bytes == 0) return {};
  // Experts that at least one row of the batch chooses, when all are equally likely.
  const double read_experts = experts * (1 - std::pow(1 - chosen / experts, batch));
  const double layer_bytes = static_cast<double>(bytes.attention + bytes.router) +
                             read_experts * static_cast<double>(bytes.expert);
  const double weights = double{1} * config.hidden * (config.qkv_size() + config.attention_size()) +
                         chosen * 3.0 * config.hidden * config.intermediate;
  const model::LinearScheme* scheme = model.scheme.find(model::module_name(0, "self_attn.q_proj"));
  const bool integers = scheme != nullptr && format::is_integer(scheme->input);
  const double rate = integers ? ceilings.operations8 : ceilings.operations16;
  const double layer =
      std::max(layer_bytes / ceilings.read_bytes, rate > 0 ? 2 * batch * weights / rate : 0);
  StepFloors floors;
  floors.linears = layer * config.layers;
  for (const format::KvLayout& layout : layouts_of(model))
    floors.attention += batch * shape.context * static_cast<double>(layout.page_bytes()) /
                        layout.tokens / ceilings.read_bytes;
  floors.head = static_cast<double>(bytes.head) / ceilings.read_bytes;
  return floors;
}

}  // namespace atom::timing
