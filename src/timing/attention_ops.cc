#include "timing/attention_ops.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/random.h"
#include "model/random_model.h"
#include "model/rope.h"

namespace atom::timing {

AttentionOps::AttentionOps(backend::Backend& backend, const model::ModelConfig& config,
                           const AttentionShape& shape, RandomData& data, size_t rotated)
    : backend_(backend),
      config_(config),
      layout_{.kind = shape.cache,
              .kv_heads = config.kv_heads,
              .head_dim = config.head_dim,
              .open_page = shape.open_page} {
  make_sequences(shape);
  plain_.segments = format::whole(format::kF32, config.attention_size());
  qkv_ = data.make(
      backend.has_f16_rows() ? backend::LibraryFormat::kF16 : backend::LibraryFormat::kF32,
      static_cast<size_t>(rows_) * static_cast<size_t>(config.qkv_size()));
  y_ = backend.allocate(backend.activation_bytes(plain_, rows_));
  const model::RopeTables rope = model::make_rope_tables(
      config, *std::max_element(shape.contexts.begin(), shape.contexts.end()));
  cos_ = backend.allocate(rope.cos.size() * sizeof(float));
  sin_ = backend.allocate(rope.sin.size() * sizeof(float));
  backend.upload(cos_.data(), rope.cos.data(), rope.cos.size() * sizeof(float));
  backend.upload(sin_.data(), rope.sin.data(), rope.sin.size() * sizeof(float));
  const double pool = static_cast<double>(layout_.page_bytes()) * page_count_;
  // A prompt writes its cache before it reads it: one will do.
  const int copies = shape.prompts ? 1 : copies_for(pool, rotated);
  for (int i = 0; i < copies; ++i) {
    pools_.emplace_back(backend, std::vector{layout_}, page_count_,
                        static_cast<int>(sequences_.size()));
    model::fill_random(pools_.back(), backend, static_cast<uint64_t>(i) + 1, data.between());
  }
}

void AttentionOps::make_sequences(const AttentionShape& shape) {
  for (const int context : shape.contexts) page_count_ += kv::pages_for(context, layout_);
  std::vector<int32_t> shuffled(static_cast<size_t>(page_count_));
  std::iota(shuffled.begin(), shuffled.end(), 0);
  Random random(3);
  for (size_t i = shuffled.size(); i > 1; --i)
    std::swap(shuffled[i - 1], shuffled[random.below(i)]);
  auto next = shuffled.begin();
  for (const int context : shape.contexts) {
    const int pages = kv::pages_for(context, layout_), rows = shape.prompts ? context : 1;
    pages_.emplace_back(next, next + pages);
    next += pages;
    sequences_.push_back({.row_begin = rows_,
                          .row_end = rows_ + rows,
                          .position = context - rows,
                          .open_page = static_cast<int>(sequences_.size())});
    rows_ += rows;
    cache_bytes_ += context * static_cast<double>(layout_.page_bytes()) / layout_.tokens;
    // Scores and sums: two products of head_dim for each query, head and visible position.
    const double visible = shape.prompts ? 0.5 * context * context : context;
    products_ += 4.0 * config_.head_dim * config_.heads * visible;
  }
  for (size_t i = 0; i < sequences_.size(); ++i) sequences_[i].page_table = pages_[i].data();
}

Operation AttentionOps::operation() const {
  Operation out;
  out.copies = static_cast<int>(pools_.size());
  out.bytes = cache_bytes_ + static_cast<double>(qkv_.bytes() + y_.bytes());
  out.products = products_;
  out.sequences = sequences_;
  out.enqueue = [this](int copy, std::span<const backend::SequenceStep> sequences) {
    const kv::Pool& pool = pools_[static_cast<size_t>(copy)];
    const bool f16 = backend_.has_f16_rows();
    backend_.attention({.qkv = f16 ? nullptr : qkv_.as<float>(),
                        .qkv_f16 = f16 ? qkv_.as<uint16_t>() : nullptr,
                        .rows = rows_,
                        .heads = config_.heads,
                        .layout = layout_,
                        .pages = pool.data(0),
                        .rope_cos = cos_.as<float>(),
                        .rope_sin = sin_.as<float>(),
                        .open_pages = pool.open_pages(0),
                        .sequences = sequences,
                        .y = {y_.data(), &plain_, rows_}});
  };
  return out;
}

}  // namespace atom::timing
