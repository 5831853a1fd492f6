// Recorded steps give the bits of steps that are called, whatever happens between them.
#include <gtest/gtest.h>

#include <numeric>
#include <stdexcept>
#include <vector>

#include "backend/backends_under_test.h"
#include "format/list.h"

namespace atom::backend {
namespace {

constexpr int kSequences = 3, kHeads = 4, kKvHeads = 2, kDim = 64, kPages = 4;
constexpr int kHidden = kHeads * kDim, kQkv = (kHeads + 2 * kKvHeads) * kDim;
constexpr int kPositions = kPages * 64;

float wave(size_t i) { return std::sin(0.7f * static_cast<float>(i % 1009)) * 1.5f; }
std::vector<float> waves(size_t count, float scale) {
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

  std::vector<float> result() {
    std::vector<float> y(size_t{kSequences} * kHidden);
    backend_.download(y.data(), x_.data(), y.size() * sizeof(float));
    return y;
  }

 private:
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

class Recorded : public BackendTest {
 protected:
  // Sequences at different places, over the ends of pages; their tables come anew each time.
  static std::vector<SequenceStep> sequences_at(int round, std::vector<int32_t>& tables) {
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
};

TEST_P(Recorded, EqualsCalls) {
  Step called(*backend), recorded(*backend);
  const auto recording = backend->record(
      [&](std::span<const SequenceStep> sequences) { recorded.enqueue(sequences); });
  Buffer other = backend->allocate(64);
  for (int round = 0; round < 90; ++round) {
    std::vector<int32_t> tables;
    const std::vector<SequenceStep> sequences = sequences_at(round, tables);
    called.set(round), recorded.set(round);
    called.enqueue(sequences);
    recording->run(sequences);
    tables.assign(tables.size(), 1 << 30);            // nobody reads them any more
    if (round == 30) other = backend->allocate(128);  // memory goes back
    ASSERT_EQ(called.result(), recorded.result()) << "round " << round;
  }
}

TEST_P(Recorded, StepsTakeTurns) {
  Step first(*backend), second(*backend), called(*backend);
  const auto record = [&](Step& step) {
    return backend->record([&](std::span<const SequenceStep> s) { step.enqueue(s); });
  };
  const auto a = record(first), b = record(second);
  for (int round = 0; round < 8; ++round) {
    std::vector<int32_t> tables, later;
    const std::vector<SequenceStep> sequences = sequences_at(round, tables);
    first.set(round), second.set(round + 3), called.set(round);
    a->run(sequences);
    b->run(sequences_at(round + 60, later));
    called.enqueue(sequences);
    ASSERT_EQ(called.result(), first.result()) << "round " << round;
  }
}

TEST_P(Recorded, GoesOnAfterAnError) {
  Step step(*backend), called(*backend);
  int calls = 0;
  const auto recording = backend->record([&](std::span<const SequenceStep> sequences) {
    if (++calls == 2) throw std::runtime_error("the second call fails");
    step.enqueue(sequences);
  });
  for (int round = 0; round < 5; ++round) {
    std::vector<int32_t> tables;
    const std::vector<SequenceStep> sequences = sequences_at(round, tables);
    step.set(round), called.set(round);
    called.enqueue(sequences);
    if (round == 1) {
      EXPECT_THROW(recording->run(sequences), std::runtime_error);
      step.enqueue(sequences);
    } else {
      recording->run(sequences);
    }
    ASSERT_EQ(called.result(), step.result()) << "round " << round;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Recorded, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
