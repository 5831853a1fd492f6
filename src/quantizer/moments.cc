#include "quantizer/moments.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace atom::quantizer {
namespace {

Gram make_gram(int k) {
  return {.k = k,
          .rows = 0,
          .values = std::vector<float>(static_cast<size_t>(k) * static_cast<size_t>(k))};
}

}  // namespace

Moments::Moments(const model::ModelConfig& config, Executor& executor, Solver& solver)
    : head_dim_(config.head_dim),
      executor_(executor),
      solver_(solver),
      qkv_(make_gram(config.hidden)),
      ffn_(make_gram(config.hidden)),
      qkv_sum_(static_cast<size_t>(config.hidden)),
      heads_(static_cast<size_t>(config.heads),
             std::vector<float>(static_cast<size_t>(config.head_dim) *
                                static_cast<size_t>(config.head_dim))),
      down_(static_cast<size_t>(config.experts),
            std::vector<double>(static_cast<size_t>(config.intermediate))),
      down_rows_(static_cast<size_t>(config.experts)) {}

void Moments::add(const ObservedInput& input) {
  if (input.site == SiteKind::kDown) {
    down_rows_.at(static_cast<size_t>(input.expert)) += input.rows;
    return add_squares(executor_, input, down_.at(static_cast<size_t>(input.expert)));
  }
  if (input.site == SiteKind::kOut) {
    const size_t d = static_cast<size_t>(head_dim_);
    head_rows_.resize(static_cast<size_t>(input.rows) * d);
    for (size_t h = 0; h < heads_.size(); ++h) {
      for (int r = 0; r < input.rows; ++r)
        std::copy_n(input.x + int64_t{r} * input.k + static_cast<int64_t>(h * d), d,
                    head_rows_.data() + static_cast<size_t>(r) * d);
      solver_.add_gram(head_rows_.data(), input.rows, head_dim_, heads_[h].data());
    }
    return;
  }
  if (input.site == SiteKind::kQkv)
    for (int64_t r = 0; r < input.rows; ++r)
      for (size_t i = 0; i < qkv_sum_.size(); ++i)
        qkv_sum_[i] += double{input.x[r * input.k + static_cast<int64_t>(i)]};
  Gram& gram = input.site == SiteKind::kQkv ? qkv_ : ffn_;
  solver_.add_gram(input.x, input.rows, input.k, gram.values.data());
  gram.rows += input.rows;
}

void Moments::finish(int layer) {
  solver_.finish_gram(qkv_.k, qkv_.values.data());
  solver_.finish_gram(ffn_.k, ffn_.values.data());
  for (std::vector<float>& head : heads_) solver_.finish_gram(head_dim_, head.data());
  const auto require_finite = [&](const auto& values) {
    for (const auto v : values)
      if (!std::isfinite(v))
        fail("layer {}: the activations of the calibration text are not finite in 16 bits or f32",
             layer);
  };
  require_finite(qkv_.values);
  require_finite(ffn_.values);
  for (const std::vector<float>& head : heads_) require_finite(head);
  for (const std::vector<double>& energies : down_) require_finite(energies);
}

}  // namespace atom::quantizer
