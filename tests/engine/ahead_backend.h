// A backend that runs ahead of the host, made of one that does not: it claims to enqueue, so that generate() takes the path of a
// GPU, and writes down what it is asked for.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace atom::engine {

class AheadBackend final : public backend::Backend {
 public:
  explicit AheadBackend(std::unique_ptr<backend::Backend> inner) : inner_(std::move(inner)) {}

  // "step P" of one row at position P, "ask" for an id, "wait" for it; the caller may add words.
  std::vector<std::string> trace;
  int steps = 0;          // of one row
  int last_position = 0;  // of any step
  int fails_at = -1;      // the sampling, counted from 0, whose logits are not finite

  std::string name() const override { return "ahead"; }
  std::string description() const override { return inner_->description(); }
  void upload(void* device, const void* host, size_t bytes) override {
    inner_->upload(device, host, bytes);
  }
  void download(void* host, const void* device, size_t bytes) override {
    inner_->download(host, device, bytes);
  }
  void synchronize() override { inner_->synchronize(); }
  std::unique_ptr<backend::PackedLinear> pack(std::span<const backend::LinearWeight> parts,
                                              const format::Segments& input) override {
    return inner_->pack(parts, input);
  }
  size_t activation_bytes(const backend::InputSpec& spec, int rows) const override {
    return inner_->activation_bytes(spec, rows);
  }
  void embed(const backend::EmbedArgs& args) override {
    first_layer_ = true;
    inner_->embed(args);
  }
  void norm_heads(const backend::NormHeadsArgs& args) override { inner_->norm_heads(args); }
  void norm(const backend::NormArgs& args) override { inner_->norm(args); }
  void quantize(const backend::QuantizeArgs& args) override { inner_->quantize(args); }
  void linear(const backend::LinearArgs& args) override { inner_->linear(args); }
  void attention(const backend::AttentionArgs& args) override {
    const backend::SequenceStep& sequence = args.sequences.front();
    if (std::exchange(first_layer_, false)) {
      last_position = std::max(last_position, sequence.position + args.rows - 1);
      if (args.rows == 1) {
        ++steps;
        trace.push_back("step " + std::to_string(sequence.position));
      }
    }
    inner_->attention(args);
  }
  void gate(const backend::GateArgs& args) override { inner_->gate(args); }
  void route(const backend::RouteArgs& args) override { inner_->route(args); }
  void combine(const backend::CombineArgs& args) override { inner_->combine(args); }
  void sample(const backend::SampleArgs& args) override { inner_->sample(args); }
  std::unique_ptr<backend::PendingIds> sample_ahead(const backend::SampleArgs& args,
                                                    int32_t* sampled) override {
    trace.emplace_back("ask");
    auto ids = inner_->sample_ahead(args, sampled);
    const bool fails = samplings_++ == fails_at;
    if (fails) inner_->upload(sampled, &kNoId, sizeof kNoId);
    return std::make_unique<Ids>(std::move(ids), *this, fails);
  }
  bool runs_ahead() const override { return true; }
  void dequantize(const backend::Activation& x, float* y) override { inner_->dequantize(x, y); }
  void export_codes(const backend::Activation& x, int8_t* codes, float* scales) override {
    inner_->export_codes(x, codes, scales);
  }
  void count_saturated(const backend::Activation& x, uint64_t* count) override {
    inner_->count_saturated(x, count);
  }
  void* allocate_bytes(size_t bytes) override { return inner_->allocate_bytes(bytes); }
  void free_bytes(void* data, size_t bytes) override { inner_->free_bytes(data, bytes); }

 private:
  static constexpr int32_t kNoId = -1;

  class Ids final : public backend::PendingIds {
   public:
    Ids(std::unique_ptr<backend::PendingIds> ids, AheadBackend& owner, bool fails)
        : ids_(std::move(ids)), owner_(owner), fails_(fails) {}
    std::span<const int32_t> wait() override {
      owner_.trace.emplace_back("wait");
      return fails_ ? std::span<const int32_t>(&kNoId, 1) : ids_->wait();
    }

   private:
    std::unique_ptr<backend::PendingIds> ids_;
    AheadBackend& owner_;
    bool fails_;
  };

  std::unique_ptr<backend::Backend> inner_;
  bool first_layer_ = false;
  int samplings_ = 0;
};

}  // namespace atom::engine
