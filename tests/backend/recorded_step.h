// A small decoding step of three sequences on a backend, and the text that such steps write: what the tests of recorded steps and
// of steps ahead of the host share.
#pragma once

#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "backend/backends_under_test.h"
#include "format/list.h"

namespace atom::backend {

inline constexpr int kSequences = 3, kHeads = 4, kKvHeads = 2, kDim = 64, kPages = 4;
inline constexpr int kHidden = kHeads * kDim, kQkv = (kHeads + 2 * kKvHeads) * kDim;
inline constexpr int kPositions = kPages * 64;

inline float wave(size_t i) { return std::sin(0.7f * static_cast<float>(i % 1009)) * 1.5f; }
inline std::vector<float> waves(size_t count, float scale) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = scale * wave(i);
  return values;
}

// A small step of one row a sequence: quantize, linear, attention, linear, by three layers that differ in their caches.
class Step {
 public:
  explicit Step(Backend& backend) : backend_(backend) {
    for (const format::KvKind kind :
         {format::KvKind::kInt4, format::KvKind::kInt8, format::KvKind::kF32}) {
      layouts_.push_back({.kind = kind,
                          .kv_heads = kKvHeads,
                          .head_dim = kDim,
                          .open_page = kind == format::KvKind::kInt4});
      pages_.push_back(zeros(layouts_.back().page_bytes() * kSequences * kPages));
    }
    open_ = zeros(layouts_[0].of_open_page().page_bytes() * kSequences);
    const std::vector<float> angles = waves(size_t{kPositions} * kDim / 2, 0.6f);
    cosines_ = up(angles), sines_ = up(angles);
    x_ = backend.allocate(kSequences * kHidden * sizeof(float));
    qkv_ = backend.allocate(kSequences * kQkv * sizeof(float));
    attended_ = backend.allocate(backend.activation_bytes(spec_, kSequences));
    input_ = backend.allocate(backend.activation_bytes(spec_, kSequences));
    qkv_weight_ = pack(kQkv);
    out_weight_ = pack(kHidden);
  }

  void set(int round) {
    std::vector<float> x = waves(size_t{kSequences} * kHidden, 1.0f);
    for (size_t i = 0; i < x.size(); ++i) x[i] += wave(i * 31 + static_cast<size_t>(round) * 77);
    backend_.upload(x_.data(), x.data(), x.size() * sizeof(float));
  }

  void enqueue(std::span<const SequenceStep> sequences) {
    const Activation input{input_.data(), &spec_, kSequences};
    for (size_t layer = 0; layer < layouts_.size(); ++layer) {
      backend_.quantize({.x = x_.as<float>(), .y = input});
      const PackedLinear* qkv = qkv_weight_.get();
      backend_.linear({.x = input, .weights = {&qkv, 1}, .y = qkv_.as<float>()});
      const Activation attended{attended_.data(), &spec_, kSequences};
      backend_.attention({.qkv = qkv_.as<float>(),
                          .rows = kSequences,
                          .heads = kHeads,
                          .layout = layouts_[layer],
                          .pages = pages_[layer].data(),
                          .rope_cos = cosines_.as<float>(),
                          .rope_sin = sines_.as<float>(),
                          .open_pages = open_.data(),
                          .sequences = sequences,
                          .y = attended});
      const PackedLinear* out = out_weight_.get();
      backend_.linear(
          {.x = attended, .weights = {&out, 1}, .y = x_.as<float>(), .then = Then::kAdd});
    }
  }

  float* x() { return x_.as<float>(); }
  const InputSpec& spec() const { return spec_; }

  std::vector<float> result() {
    std::vector<float> y(size_t{kSequences} * kHidden);
    backend_.download(y.data(), x_.data(), y.size() * sizeof(float));
    return y;
  }

 private:
  friend class Text;
  Buffer zeros(int64_t bytes) { return up(std::vector<float>(static_cast<size_t>(bytes) / 4 + 1)); }
  Buffer up(const std::vector<float>& values) {
    Buffer buffer = backend_.allocate(values.size() * sizeof(float));
    backend_.upload(buffer.data(), values.data(), values.size() * sizeof(float));
    return buffer;
  }
  std::unique_ptr<PackedLinear> pack(int n) {
    const std::vector<float> values = waves(static_cast<size_t>(n) * kHidden, 0.05f);
    LinearWeight weight{.n = n, .segments = format::whole(format::kF32, kHidden)};
    weight.part[0].codes = values.data();
    return backend_.pack({&weight, 1}, spec_.segments);
  }

  Backend& backend_;
  InputSpec spec_{.segments = format::whole(format::kF32, kHidden)};
  std::vector<format::KvLayout> layouts_;
  std::vector<Buffer> pages_;
  Buffer open_, cosines_, sines_, x_, qkv_, attended_, input_;
  std::unique_ptr<PackedLinear> qkv_weight_, out_weight_;
};

inline constexpr int kVocabulary = 40;

// A Step between an embedding and a head, whose ids are sampled: the sequences of a batch, each with its own rule.
class Text {
 public:
  explicit Text(Backend& backend) : backend_(backend), step_(backend) {
    table_ = step_.up(waves(size_t{kVocabulary} * kHidden, 1.0f));
    head_ = step_.pack(kVocabulary);
    input_ = backend.allocate(backend.activation_bytes(step_.spec(), kSequences));
    logits_ = backend.allocate(sizeof(float) * kSequences * kVocabulary);
    ids_ = backend.allocate(sizeof(int32_t) * kSequences);
    sampled_ = backend.allocate(sizeof(int32_t) * kSequences);
  }

  void set(const std::vector<int32_t>& ids) {
    backend_.upload(ids_.data(), ids.data(), ids.size() * sizeof(int32_t));
  }

  void enqueue(std::span<const SequenceStep> sequences) {
    backend_.embed({.ids = ids_.as<int32_t>(),
                    .sampled = sampled_.as<int32_t>(),
                    .rows = kSequences,
                    .table = {table_.data(), format::kF32, kVocabulary, kHidden},
                    .y = step_.x()});
    step_.enqueue(sequences);
    const Activation input{input_.data(), &step_.spec(), kSequences};
    backend_.quantize({.x = step_.x(), .y = input});
    const PackedLinear* head = head_.get();
    backend_.linear({.x = input, .weights = {&head, 1}, .y = logits_.as<float>()});
  }

  // The rule of a sequence's draw number `index`.
  static SampleRule rule(int sequence, int index) {
    const double uniform = std::fmod(0.37 * (index + 1) + 0.11 * sequence, 1.0);
    if (sequence == 0) return {.uniform = uniform};
    if (sequence == 1) return {.temperature = 3.0f, .top_k = 7, .uniform = uniform};
    return {.temperature = 2.0f, .top_p = 0.9f, .uniform = uniform};
  }

  SampleArgs args(const std::vector<SampleRule>& rules) const {
    return {.logits = logits_.as<float>(),
            .rows = kSequences,
            .vocabulary = kVocabulary,
            .rules = rules.data()};
  }
  std::vector<int32_t> sample(const std::vector<SampleRule>& rules) {
    std::vector<int32_t> ids(kSequences);
    SampleArgs all = args(rules);
    all.ids = ids.data();
    backend_.sample(all);
    return ids;
  }
  std::unique_ptr<PendingIds> sample_ahead(const std::vector<SampleRule>& rules) {
    return backend_.sample_ahead(args(rules), sampled_.as<int32_t>());
  }

  std::vector<float> logits() {
    std::vector<float> y(size_t{kSequences} * kVocabulary);
    backend_.download(y.data(), logits_.data(), y.size() * sizeof(float));
    return y;
  }

 private:
  Backend& backend_;
  Step step_;
  std::unique_ptr<PackedLinear> head_;
  Buffer table_, input_, logits_, ids_, sampled_;
};

inline std::vector<int32_t> listed(std::span<const int32_t> ids) {
  return {ids.begin(), ids.end()};
}

// Sequences at different places, over the ends of pages; their tables come anew each time.
inline std::vector<SequenceStep> sequences_at(int round, std::vector<int32_t>& tables) {
  tables.resize(kSequences * kPages);
  std::iota(tables.begin(), tables.end(), 0);
  std::vector<SequenceStep> steps;
  for (int s = 0; s < kSequences; ++s)
    steps.push_back({.row_begin = s,
                     .row_end = s + 1,
                     .position = round + s * 50,
                     .page_table = tables.data() + s * kPages,
                     .open_page = s});
  return steps;
}

}  // namespace atom::backend
